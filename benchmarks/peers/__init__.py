"""Peers: simple implementations of the same login, without Dialtone's other functions."""
