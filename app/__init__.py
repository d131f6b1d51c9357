"""Dialtone exchanges a user's access token for a short-lived Telnyx login. This module holds the version."""

__version__ = "0.2.0"
