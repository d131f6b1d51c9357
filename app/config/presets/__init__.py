"""Presets: the settings of well-known identity providers, in one module per page of docs/identity-providers/."""
