"""Serves a part of the sandbox, on loopback only."""

import socket
import sys

import uvicorn
from starlette.types import ASGIApp

LOOPBACK = "127.0.0.1"


def listen(app: ASGIApp, port: int, announcement: str = "") -> None:
    """Print the announcement once the port is open, and serve until interrupted.

    Raises SystemExit with a message if the port is in use.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen()
        except OSError:
            sys.exit(f"Port {port} is in use. Choose another one with --port.")
        if announcement:
            print(announcement, flush=True)  # noqa: T201 - output of a command
        config = uvicorn.Config(app, log_level="critical", server_header=False)
        uvicorn.Server(config).run(sockets=[listener])
