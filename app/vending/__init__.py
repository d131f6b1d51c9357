"""The domain: which device gets which login, until when. Standard library only; adapters implement its Protocols."""
