"""The linter in front of Telnyx, which takes anything: what push material is, and what is wrong with it."""
