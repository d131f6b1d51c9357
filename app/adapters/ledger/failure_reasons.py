"""Why the database is unavailable, in a few words without values: errors of drivers contain addresses and names."""

import socket
import ssl

import asyncpg

from app.adapters.ledger.engines import name_of

NO_FILE = "the file cannot be opened"
"""The reason if an SQLite file is in a folder that does not exist. `dialtone migrate` creates both."""

_BY_STATE = {
    "08P01": "the server or its connection pooler rejects the connection; its log has the reason",
    "25006": "the server is read-only, such as a standby",
    "28000": "the server rejects the user, the host or the encryption of the connection",
    "28P01": "the server rejects the user or the password",
    "3D000": "the database does not exist",
    "42501": "the user lacks a right in this database",
    "42P01": "the database is not migrated",
    "42704": "the server rejects a parameter of the address",
    "53100": "the server's disk is full",
    "53300": "the server has too many connections",
    "55006": "the server is busy",
    "57P03": "the server is starting or stopping",
    "SQLITE_BUSY": "the file is locked by another process",
    "SQLITE_CANTOPEN": NO_FILE,
    "SQLITE_CORRUPT": "the file is damaged",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk cannot be read or written",
    "SQLITE_NOTADB": "the file is not an SQLite database",
    "SQLITE_READONLY": "the file is read-only",
}

_BY_TYPE: tuple[tuple[type[BaseException], str], ...] = (
    (asyncpg.TargetServerAttributeNotMatched, "no host of the address accepts writes"),
    (ssl.SSLCertVerificationError, "the server's TLS certificate is not trusted, or names another host"),
    (ssl.SSLError, "TLS failed"),
    (socket.gaierror, "the host name cannot be resolved"),
    (TimeoutError, "the server does not respond"),
    (ConnectionRefusedError, "the server refuses connections"),
    (FileNotFoundError, "the server's Unix socket does not exist"),
    (PermissionError, "permission denied"),
)


def reason_of(failure: BaseException | None) -> str | None:
    """The reason of the failure or of its cause; None if it is unknown."""
    while failure is not None:
        state = name_of(failure)
        reason = _BY_STATE.get(state) or next((text for kind, text in _BY_TYPE if isinstance(failure, kind)), None)
        if reason is None and state.startswith("SQLITE_"):
            reason = next((text for name, text in _BY_STATE.items() if state.startswith(name)), None)
        if reason is None and isinstance(failure, ConnectionError) and "SSL" in str(failure):
            reason = "the server does not offer TLS, which the sslmode of the address requires"
        if reason is not None:
            return reason
        failure = failure.__cause__ or getattr(failure, "orig", None)
    return None
