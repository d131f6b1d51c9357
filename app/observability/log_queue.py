"""The handler of every log line. A thread writes the lines while the service runs, so no request waits for a write.

Standard error is often a pipe. When its reader stops reading, the pipe fills up and a write blocks for as long as that
lasts. Without a queue, every request would block with it.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

MAX_QUEUED_LINES = 10_000
"""About 3 MB. Further lines are dropped and counted."""

BATCH_LINES = 500
BATCH_SECONDS = 0.02
"""Time that the thread waits for more lines, because waking it for each line costs more than writing the line."""

CLOSE_SECONDS = 1.0
"""Time that the process waits before it exits until queued lines are written. The reader may have stopped reading."""


class LogHandler(QueueHandler):
    """Writes lines to the stream at once, or queues them between `start` and `stop`. Never raises and never blocks."""

    def __init__(self, stream: TextIO) -> None:
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        super().__init__(self._lines)
        self._stream = stream
        self._listener: BatchListener | None = None
        self._queued = self._not_queued = 0

    @property
    def is_flushed(self) -> bool:
        """Whether the write of every queued line has succeeded or failed."""
        return self._listener is None or self._listener.handled >= self._queued

    @property
    def dropped(self) -> int:
        """Lines that were not written: the queue was full, or the stream was broken."""
        return self._not_queued + (0 if self._listener is None else self._listener.failed)

    def start(self, lock: Path | None = None) -> None:
        """`lock` is a file, which is locked for each write: the kernel may mix long writes of several processes."""
        self._listener = BatchListener(self._lines, self._stream, lock)
        self._listener.start()

    def stop(self) -> None:
        """Write what is queued, within CLOSE_SECONDS. Lines logged after this are dropped."""
        if self._listener is not None:
            self._listener.stop()

    def prepare(self, record: logging.LogRecord) -> str:
        """A record of a library that uses `logging`, as a line."""
        return self.format(record)

    def enqueue(self, record: logging.LogRecord | str) -> None:
        """Called with a rendered line: by structlog, and for other records with what `prepare` returns."""
        line = f"{record}\n"
        if self._listener is None:
            self._not_queued += not write(self._stream, line)
        elif self._lines.qsize() < MAX_QUEUED_LINES:
            self._queued += 1
            self._lines.put(line)
        else:
            self._not_queued += 1


class BatchListener(QueueListener):
    """Takes batches of lines from the queue and writes each with one system call."""

    def __init__(self, lines: "SimpleQueue[str | None]", stream: TextIO, lock: Path | None) -> None:
        super().__init__(lines)
        self._lines = lines
        self._stream = stream
        self._lock = None if lock is None else lock.open("w")
        self.failed = self.handled = 0

    def dequeue(self, block: bool) -> Any:
        """The next batch, or None (the library's sentinel) to stop. Waits for the first line, then for more lines."""
        first = self._lines.get()
        if first is None:
            return None
        if self._lines.qsize() < BATCH_LINES:
            time.sleep(BATCH_SECONDS)
        batch = [first, *[self._lines.get() for _ in range(min(self._lines.qsize(), BATCH_LINES))]]
        if None in batch:
            self.enqueue_sentinel()
        return [line for line in batch if line is not None]

    def handle(self, record: Any) -> None:
        with nullcontext() if self._lock is None else _locked(self._lock):
            is_written = write(self._stream, "".join(record))
        if not is_written:
            self.failed += len(record)
        self.handled += len(record)

    def stop(self) -> None:
        """The library's own `stop` waits without a limit, so it runs on a thread that is abandoned if it takes long."""
        stopping = threading.Thread(target=super().stop, name="log-stop", daemon=True)
        stopping.start()
        stopping.join(CLOSE_SECONDS)


@contextmanager
def _locked(file: TextIO) -> Iterator[None]:
    import fcntl  # not on Windows

    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def write(stream: TextIO, text: str) -> bool:
    """False if the stream is broken or closed: a log that cannot be written must not stop the service."""
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return False
    return True
