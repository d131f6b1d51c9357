"""Grants: tokens that Dialtone signs for users whom a backend has authenticated, and for guests."""
