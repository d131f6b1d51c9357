"""Adapters to external systems, one package or module each. They translate external errors to Dialtone's own."""
