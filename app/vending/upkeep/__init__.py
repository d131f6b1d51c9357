"""Background work: deleting what has ended, finding orphans, filling the warm pool, reading other replicas' changes."""
