"""Telephony credentials: how a device gets a login, and how its lease is renewed, recovered and revoked."""
