"""The checks and the artifacts of a release. `make release-check` runs them; docs/releasing.md explains them."""
