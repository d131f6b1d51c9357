"""A Telnyx to run on a laptop, and a small identity provider beside it. Imports nothing of the service.

Not for production: demo users need no password here. It listens on loopback only.
"""
