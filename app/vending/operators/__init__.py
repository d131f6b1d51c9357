"""Operator actions: finding and revoking leases, refusing tokens, refreshing keys."""
