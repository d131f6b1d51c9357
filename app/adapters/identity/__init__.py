"""Verification of the identity provider's tokens. The only package that imports python-jose."""
