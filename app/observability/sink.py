"""A stream for the log that never makes the service wait: a thread of its own passes lines on to the real one.

Whoever reads the log may stop reading: a full pipe blocks a write for as long as that lasts, and with it every request.
"""

import threading
from queue import Empty, SimpleQueue
from typing import Protocol

LINES_WAITING = 10_000
"""Beyond so many, new lines are dropped and counted."""

LINES_AT_ONCE = 500
CLOSE_SECONDS = 1.0


class Stream(Protocol):
    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


class Sink:
    """Looks like a text stream to whoever writes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self.dropped = 0
        """Lines that were not written: too many waited, or the stream refused them."""
        self._thread = threading.Thread(target=self._pass_on, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        if self._lines.qsize() < LINES_WAITING:
            self._lines.put(text)
        else:
            self.dropped += 1

    def flush(self) -> None:
        """Nothing to do: the thread flushes when it has written."""

    def close(self) -> None:
        """Let what waits be written, for a moment at most: who no longer reads must not keep the process alive."""
        self._lines.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _pass_on(self) -> None:
        while (line := self._lines.get()) is not None:
            lines = [line]
            while len(lines) < LINES_AT_ONCE and (more := self._next()):
                lines.append(more)
            try:
                self._stream.write("".join(lines))
                self._stream.flush()
            except (OSError, ValueError):
                self.dropped += len(lines)

    def _next(self) -> str | None:
        try:
            line = self._lines.get_nowait()
        except Empty:
            return None
        if line is None:
            self._lines.put(None)  # the end, for the outer loop
        return line
