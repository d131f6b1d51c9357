"""Worker processes that share the listening sockets, and the supervisor that starts, signals and replaces them.

Each worker is a complete replica. The supervisor handles the signals and passes them on through a connection to each
worker, because systemd and terminals send a signal to all processes of a group: a worker would stop twice.
"""

import asyncio
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import structlog

from app.serving.listening import ListeningSockets

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD) if hasattr(signal, "SIGHUP") else ()
"""Signals that the supervisor handles. Windows has no workers."""

READY = b"R"
"""A worker sends this byte when it accepts connections. The supervisor sends the numbers of signals."""

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 30.0
"""Pauses before an ended worker is replaced. They double while workers end without having become ready."""

_log = structlog.get_logger("dialtone.workers")


@dataclass(frozen=True, slots=True)
class WorkerLink:
    """A worker's connection to its supervisor."""

    number: int
    """From 0."""
    workers: int
    """How many there are."""
    is_replacement: bool
    """True if an earlier worker with this number has ended."""
    folder: Path
    """For sockets between the workers. Only this user can read it."""
    control: socket.socket

    @property
    def log_lock(self) -> Path:
        """The file that a worker locks to write to the log, so that lines of several workers do not mix."""
        return self.folder / "log.lock"

    def attach(self, stop: Callable[[signal.Signals], None], reload: Callable[[], None]) -> None:
        """Report that this worker accepts connections, and call a function for each signal of the supervisor."""

        def receive() -> None:
            try:
                received = self.control.recv(64)
            except OSError:
                received = b""
            if not received:  # the supervisor was killed
                asyncio.get_running_loop().remove_reader(self.control)
                stop(signal.SIGTERM)
            for number in received:
                if number == signal.SIGHUP:
                    reload()
                else:
                    stop(signal.Signals(number))

        with suppress(OSError):  # the supervisor was killed, which `receive` notices
            self.control.send(READY)
        asyncio.get_running_loop().add_reader(self.control, receive)


@dataclass(slots=True)
class _Worker:
    """A worker as the supervisor sees it. It has no process while a replacement is due."""

    number: int
    pid: int | None = None
    control: socket.socket | None = None
    is_ready: bool = False
    pause_seconds: float = FIRST_PAUSE_SECONDS
    starts_at: float = 0.0
    starts: int = 0


@dataclass(slots=True)
class Supervisor:
    """Runs workers until SIGTERM or SIGINT. Replaces workers that end, and reloads all on SIGHUP.

    If a worker cannot start at all, the others are stopped, and `run` raises SystemExit, as without workers.
    """

    count: int
    run_worker: Callable[[WorkerLink], None]
    sockets: list[ListeningSockets]
    drain_seconds: float
    """Time between a signal to stop and the end of listening."""

    _workers: list[_Worker] = field(init=False, default_factory=list)
    _stopped_by: signal.Signals | None = field(init=False, default=None)
    _closes_at: float | None = field(init=False, default=None)
    _has_failed: bool = field(init=False, default=False)

    def run(self) -> None:
        """Ends with the signal that stopped it. Raises SystemExit if a worker could not start."""
        folder = Path(tempfile.mkdtemp(prefix="dialtone-"))
        receiving, sending = socket.socketpair()
        receiving.setblocking(False)
        sending.setblocking(False)
        for each in SIGNALS:
            signal.signal(each, lambda *_: None)
        signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        self._workers = [_Worker(number) for number in range(self.count)]
        try:
            while self._stopped_by is None or any(worker.pid for worker in self._workers):
                self._start_due(folder)
                self._close_listeners_if_due()
                readable, _, _ = select.select([receiving, *self._controls()], [], [], self._timeout())
                for worker in self._workers:
                    if worker.control is not None and worker.control in readable:
                        self._receive(worker, worker.control)
                if receiving in readable:
                    for number in set(receiving.recv(4096)):
                        self._handle(signal.Signals(number))
        finally:
            signal.set_wakeup_fd(-1)
            shutil.rmtree(folder, ignore_errors=True)
        if self._has_failed:
            raise SystemExit(1)
        if self._stopped_by is not None:
            signal.signal(self._stopped_by, signal.SIG_DFL)
            signal.raise_signal(self._stopped_by)

    def _controls(self) -> list[socket.socket]:
        return [worker.control for worker in self._workers if worker.control is not None]

    def _timeout(self) -> float | None:
        """Seconds until a worker has to start or the listeners have to be closed."""
        due = [worker.starts_at for worker in self._workers if worker.pid is None and self._stopped_by is None]
        if self._closes_at is not None:
            due.append(self._closes_at)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start_due(self, folder: Path) -> None:
        if self._stopped_by is None:
            for worker in self._workers:
                if worker.pid is None and worker.starts_at <= time.monotonic():
                    self._start(worker, folder)

    def _start(self, worker: _Worker, folder: Path) -> None:
        own, theirs = socket.socketpair()
        link = WorkerLink(worker.number, self.count, worker.starts > 0, folder, theirs)
        inherited = [own, *self._controls()]
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become(link, inherited)
        theirs.close()
        worker.pid, worker.control, worker.is_ready = pid, own, False
        worker.starts += 1

    def _become(self, link: WorkerLink, inherited: list[socket.socket]) -> NoReturn:
        """In the new process: run the worker, and end."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
            for connection in inherited:  # a worker would keep the others' connections open after the supervisor's end
                connection.close()
            self.run_worker(link)
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _receive(self, worker: _Worker, control: socket.socket) -> None:
        try:
            received = control.recv(16)
        except OSError:
            received = b""
        if received:
            worker.is_ready, worker.pause_seconds = True, FIRST_PAUSE_SECONDS
            _log.info("worker_ready", worker=worker.number, pid=worker.pid)
        else:  # it has ended or is about to
            control.close()
            worker.control = None

    def _handle(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            self._reap()
            return
        if number == signal.SIGHUP:
            self._tell(number)
            return
        if self._stopped_by is None:
            self._closes_at = time.monotonic() + self.drain_seconds
        else:
            self._closes_at = time.monotonic()
        self._stopped_by = number
        self._tell(number)

    def _tell(self, number: signal.Signals) -> None:
        for worker in self._workers:
            with suppress(OSError):  # it has ended
                if worker.control is not None:
                    worker.control.send(bytes([number]))
                if worker.pid is not None and not worker.is_ready and number != signal.SIGHUP:
                    os.kill(worker.pid, number)  # it does not read the connection yet

    def _close_listeners_if_due(self) -> None:
        """The workers stop listening at the same time. Otherwise the kernel would accept connections for no process."""
        if self._closes_at is not None and self._closes_at <= time.monotonic():
            self._closes_at = None
            for each in self.sockets:
                each.close()

    def _reap(self) -> None:
        """SIGCHLD is not sent once for each worker, so all are checked."""
        for worker in self._workers:
            if worker.pid is None:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                worker.pid = None
                self._ended(worker, pid, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, pid: int, exit_code: int) -> None:
        if self._stopped_by is not None:
            return
        _log.error("worker_ended", worker=worker.number, pid=pid, exit_code=exit_code)
        if not worker.is_ready and worker.starts == 1:
            self._has_failed = True
            self._handle(signal.SIGTERM)
            return
        worker.starts_at = time.monotonic() + worker.pause_seconds
        worker.pause_seconds = min(worker.pause_seconds * 2, MAX_PAUSE_SECONDS)
