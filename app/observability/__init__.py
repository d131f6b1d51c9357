"""Logs, the audit trail, metrics and traces."""
