"""Benchmarks of Dialtone and of comparable servers: `make bench`. README.md explains them."""
