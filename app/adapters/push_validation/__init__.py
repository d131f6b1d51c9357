"""Validation of push material before the upload, because Telnyx accepts anything."""
