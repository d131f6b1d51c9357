"""A command that kills itself: `python -m tests.support.killed_command TABLE COUNT COMMAND...`.

`dialtone COMMAND...` runs until it would change rows of TABLE for the COUNTth time. A test that kills the process from
outside may be too late.
"""

import os
import signal
import sys
from typing import Any

import sqlalchemy as sa

from app.cli import main


def kill_before(table: str, count: int) -> None:
    """Kill this process before the statement."""
    statements = 0

    @sa.event.listens_for(sa.Engine, "before_cursor_execute")
    def count_statements(_: Any, __: Any, statement: str, *___: Any) -> None:
        nonlocal statements
        statements += statement.startswith(f"UPDATE {table} ")
        if statements == count:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    kill_before(sys.argv[1], int(sys.argv[2]))
    sys.argv[1:] = sys.argv[3:]
    main()
