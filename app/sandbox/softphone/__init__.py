"""The softphone page that `make dev` serves, and its server. Imports nothing of the service."""
