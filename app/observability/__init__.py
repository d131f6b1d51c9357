"""What operators see: logs, and later metrics, traces and audit. Imports nothing of ours."""
