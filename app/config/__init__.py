"""Configuration from the environment and from dialtone.toml, checked before the service listens."""
