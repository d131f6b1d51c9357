"""The shared login cache: logins in Redis or Valkey, encrypted with keys that the store does not have."""
