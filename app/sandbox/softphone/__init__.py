"""The softphone page that `make dev` serves, and the small server behind it. Imports nothing of the service."""
