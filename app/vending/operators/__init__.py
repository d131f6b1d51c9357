"""Operator actions: finding and revoking leases, rejecting tokens, refreshing signing keys."""
