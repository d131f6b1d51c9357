"""SQLite in its own threads, with one thread switch for a whole read or transaction.

The asynchronous driver switches threads for each statement, which costs more than most statements.
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
    """One writer thread and READERS reader threads. Raises the driver's errors."""

    def __init__(self, url: URL) -> None:
        self._transactions = open_threads_engine(url)
        # A single statement is its own transaction. BEGIN would only release the interpreter again.
        self._single = open_threads_engine(url, begins=False)
        self._writer = ThreadPoolExecutor(1, "ledger-writer")
        self._readers = ThreadPoolExecutor(READERS, "ledger-reader")

    async def rows(self, query: sa.Select[Any], parameters: dict[str, Any] | None) -> list[sa.RowMapping]:
        def read() -> list[sa.RowMapping]:
            with self._single.connect() as connection:
                return list(connection.execute(query, parameters).mappings())

        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    async def write(self, works: Sequence[Work[Any]]) -> list[Any]:
        """Run the writes in one transaction. Returns their results or DialtoneErrors."""

        def commit() -> list[Any]:
            with self._transactions.begin() as connection:
                return run_together(connection, works)

        return await asyncio.get_running_loop().run_in_executor(self._writer, commit)

    def close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self._transactions.dispose()
        self._single.dispose()
