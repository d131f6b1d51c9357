"""Configuration: the environment and the configuration file, checked before the service listens."""
