"""The ledger: who holds which credential, until when. Ids, names and times; no secret is ever written here."""
