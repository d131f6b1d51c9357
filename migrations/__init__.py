"""The ledger's history, one file a step. `dialtone migrate` runs it."""
