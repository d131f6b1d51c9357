"""SQLite in threads of its own: a whole read, or a whole transaction, is one errand there and back.

Through the asynchronous driver each statement is one, and each errand costs more than most statements.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from app.adapters.ledger.engines import open_threads_engine
from app.adapters.ledger.group_commit import Work, run_together

READERS = 2


class SqliteThreads:
    """One that writes, and a few that read. Trouble comes out as the driver's."""

    def __init__(self, url: URL) -> None:
        self._transactions = open_threads_engine(url)
        # One statement is a transaction by itself. A BEGIN before it would only hand the interpreter over once more.
        self._single = open_threads_engine(url, begins=False)
        self._writer = ThreadPoolExecutor(1, "ledger-writer")
        self._readers = ThreadPoolExecutor(READERS, "ledger-reader")

    async def rows(self, query: sa.Select[Any], parameters: dict[str, Any] | None) -> list[sa.RowMapping]:
        def read() -> list[sa.RowMapping]:
            with self._single.connect() as connection:
                return list(connection.execute(query, parameters).mappings())

        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    async def write(self, works: Sequence[Work[Any]]) -> list[Any]:
        """In one transaction: what each returned, or the DialtoneError that it raised."""

        def commit() -> list[Any]:
            with self._transactions.begin() as connection:
                return run_together(connection, works)

        return await asyncio.get_running_loop().run_in_executor(self._writer, commit)

    def close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self._transactions.dispose()
        self._single.dispose()
