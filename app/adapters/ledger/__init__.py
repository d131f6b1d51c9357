"""The ledger in SQL: which device holds which credential, until when. It contains ids, names and times, no secrets."""
