"""Serves a part of the sandbox, on loopback only."""

import uvicorn
from starlette.types import ASGIApp

LOOPBACK = "127.0.0.1"


def listen(app: ASGIApp, port: int) -> None:
    """Serve until interrupted. Raises SystemExit if the port is in use."""
    uvicorn.run(app, host=LOOPBACK, port=port, log_level="critical", server_header=False)
