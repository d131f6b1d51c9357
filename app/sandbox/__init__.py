"""A simulated Telnyx and a small identity provider for development. Imports nothing of the service.

Not for production: demo users have no password. The sandbox listens on loopback only.
"""
