"""What operators see: logs, the audit trail, metrics and traces."""
