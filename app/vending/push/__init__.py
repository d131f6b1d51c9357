"""Push credentials: what a user registers, what Telnyx holds for it, and when it expires."""
