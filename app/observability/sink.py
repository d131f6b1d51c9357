"""A stream for the log that never makes the service wait: a thread of its own passes lines on to the real one.

Whoever reads the log may stop reading: a full pipe blocks a write for as long as that lasts, and with it every request.
"""

import threading
from collections import deque
from typing import Protocol

LINES_WAITING = 10_000
"""Beyond so many, new lines are dropped and counted."""

LINES_AT_ONCE = 500
GATHER_SECONDS = 0.02
"""How long a line waits for company: a thread that wakes for each takes the interpreter from those who serve."""

CLOSE_SECONDS = 1.0


class Stream(Protocol):
    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


class Sink:
    """Looks like a text stream to whoever writes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lines: deque[str] = deque()
        self._has_lines = threading.Event()
        self._is_closed = threading.Event()
        self.dropped = 0
        """Lines that were not written: too many waited, or the stream refused them."""
        self._thread = threading.Thread(target=self._pass_on, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        if len(self._lines) >= LINES_WAITING:
            self.dropped += 1
            return
        self._lines.append(text)
        if not self._has_lines.is_set():
            self._has_lines.set()

    def flush(self) -> None:
        """Nothing to do: the thread flushes when it has written."""

    def close(self) -> None:
        """Let what waits be written, for a moment at most: who no longer reads must not keep the process alive."""
        self._is_closed.set()
        self._has_lines.set()
        self._thread.join(CLOSE_SECONDS)

    def _pass_on(self) -> None:
        while self._lines or not self._is_closed.is_set():
            self._has_lines.wait()
            self._is_closed.wait(GATHER_SECONDS)
            # Cleared before the lines are taken: one that comes meanwhile sets it again.
            self._has_lines.clear()
            while self._lines:
                self._write([self._lines.popleft() for _ in range(min(len(self._lines), LINES_AT_ONCE))])

    def _write(self, lines: list[str]) -> None:
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except (OSError, ValueError):
            self.dropped += len(lines)
