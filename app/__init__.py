"""Dialtone: hands a phone to a signed-in user. The version lives here; everything else in the rooms below."""

__version__ = "0.1.0"
