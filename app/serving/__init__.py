"""The server under the app: connections, graceful stop, reload, cached logins. The only importer of uvicorn."""
