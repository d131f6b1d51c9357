"""Explains why a token is accepted or rejected. Used by commands only: the service itself does not import it."""
