"""Push credentials: registration, upload to Telnyx, attachment to connections, and expiry alerts."""
