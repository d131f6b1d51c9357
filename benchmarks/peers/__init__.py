"""What other people's code looks like: the same login, without what Dialtone does beside it."""
