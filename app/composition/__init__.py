"""The composition root: joins adapters to the domain. No other package does."""
