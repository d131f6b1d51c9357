"""Commands in the process of a test whose output is a terminal, a pipe, or a closed pipe."""

import fcntl
import io
import os
import pty
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import NamedTuple

from typer.testing import CliRunner

from app.cli import app


class Outcome(NamedTuple):
    """The result of a command."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


def piped(*arguments: str, typed: str | None = None) -> Outcome:
    """Run a command whose output is no terminal."""
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, list(arguments), input=typed)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Outcome(done.exit_code, done.stdout, done.stderr)


def on_terminal(*arguments: str, columns: int = 80, typed: str | None = None) -> Outcome:
    """Run a command whose output is a terminal of this width."""
    inner = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO((typed or "").encode()))
    os.environ["COLUMNS"] = str(columns)  # Python asks the terminal of the process, which is not the one of the test
    code = 0
    try:
        with (
            _terminal(columns) as (out, shown),
            _terminal(columns) as (err, noted),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                app(list(arguments), prog_name="dialtone")
            except SystemExit as ended:
                code = int(ended.code or 0)
    finally:
        sys.stdin = inner
        del os.environ["COLUMNS"]
    return Outcome(code, _text(shown), _text(noted))


@contextmanager
def _terminal(columns: int) -> Iterator[tuple[io.TextIOWrapper, bytearray]]:
    """A stream to a terminal, and the bytes that the terminal gets."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = bytearray()
    reader = threading.Thread(target=_read_all, args=(ours, shown))
    reader.start()
    stream = open(theirs, "w", encoding="utf-8")  # noqa: SIM115 - closed below
    try:
        yield stream, shown
    finally:
        stream.close()
        reader.join()
        os.close(ours)


def _read_all(descriptor: int, into: bytearray) -> None:
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # the other end is closed
            return
        if not chunk:
            return
        into += chunk


def _text(shown: bytearray) -> str:
    return shown.decode("utf-8").replace("\r\n", "\n")
