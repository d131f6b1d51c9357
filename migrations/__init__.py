"""Migrations of the ledger, one file each. `dialtone migrate` runs them."""
