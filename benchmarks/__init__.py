"""How fast Dialtone is, beside what else one could run: `make bench`. README.md has the story."""
