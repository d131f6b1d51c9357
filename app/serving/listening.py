"""Listening sockets: IP addresses of both families, and Unix sockets."""

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import structlog

BACKLOG = 2048
"""New connections that the kernel holds until they are accepted."""

ACCEPTS_PER_ROUND = 32
"""Connections that are accepted in one iteration of the event loop. With one, a fresh connection would wait for as many
iterations as there are connections before it. Each descriptor takes 3 us of each new connection."""

PROBE_SECONDS = 1.0
"""Time for the process that owns a socket file to accept a connection."""

FREE_PORT_ATTEMPTS = 20
"""Ports that are tried if any free port will do, because it must be free on all hosts."""

ANY_ADDRESS = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - by the setting
"""Every address of a family."""

UNAVAILABLE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of an address that this machine does not have, such as `::1` without IPv6."""


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """Where one listener listens."""

    hosts: tuple[str, ...]
    """Names, IP addresses, and absolute paths of Unix sockets. `::` is every address of both families."""
    port: int
    """0: a free port, the same for all hosts. Unix sockets have none."""
    socket_mode: int
    """Permissions of the files of Unix sockets."""
    setting: str
    """The setting with the hosts, which errors name."""


class CannotListen(Exception):
    """The message is the reason."""


class ListeningSockets:
    """The open sockets of one listener.

    Each has ACCEPTS_PER_ROUND descriptors, because libuv accepts one connection per descriptor and iteration.
    """

    def __init__(self, options: ListenOptions) -> None:
        """Raises SystemExit, after logging the reason, unless every host is available."""
        self.descriptors: list[socket.socket] = []
        self._opened: list[socket.socket] = []
        self._files: list[_SocketFile] = []
        log, host = structlog.get_logger("dialtone"), ""
        attempts = FREE_PORT_ATTEMPTS if options.port == 0 else 1
        while not self._opened:
            port = options.port
            try:
                # Every address first: another host may be one of them, as in `127.0.0.1,0.0.0.0`.
                for host in sorted(options.hosts, key=lambda one: not _is_any(one)):
                    if os.path.isabs(host):
                        self._open_file(host, options.socket_mode)
                    else:
                        port = self._open_addresses(host, port)
            except (CannotListen, OSError) as error:
                self.close()
                attempts -= 1
                if attempts and getattr(error, "errno", None) == errno.EADDRINUSE:
                    self._opened, self._files = [], []
                    continue  # the free port of the first host is in use on another one
                place = {} if os.path.isabs(host) else {"port": port}
                # Without the traceback: the reason is all that an operator needs.
                log.error("cannot_listen", setting=options.setting, address=host, **place, reason=_reason(error))  # noqa: TRY400
                raise SystemExit(1) from None
        names = [each.getsockname() for each in self._opened]
        addresses = [name[0] if isinstance(name, tuple) else name for name in names]
        ports = {name[1] for name in names if isinstance(name, tuple)}
        log.info("listening", setting=options.setting, addresses=addresses, port=next(iter(ports), None))
        for one in self._opened:
            self.descriptors += (one, *(one.dup() for _ in range(ACCEPTS_PER_ROUND - 1)))

    def remove_files(self) -> None:
        """Remove the files of Unix sockets, so that no client connects any more."""
        for file in self._files:
            file.remove()

    def close(self) -> None:
        """Remove the files, and close the sockets. May be called again."""
        self.remove_files()
        for each in (*self._opened, *self.descriptors):
            each.close()

    def _open_addresses(self, host: str, port: int) -> int:
        """Listen on all addresses of the host. Returns the port."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError:
            raise CannotListen("The name has no address.") from None
        addresses = [(family, str(address[0]), address[2:]) for family, _, _, _, address in found]
        if addresses[0][:2] == (socket.AF_INET6, ANY_ADDRESS[socket.AF_INET6]):
            # A socket for each family: through one for both, IPv4 clients would have addresses such as
            # ::ffff:192.0.2.1, which DIALTONE_TRUSTED_PROXIES does not match.
            addresses.append((socket.AF_INET, ANY_ADDRESS[socket.AF_INET], ()))
        missing: OSError | None = None
        is_open = False
        for family, address, scope in dict.fromkeys(addresses):
            if self._listens_on(family, address):
                is_open = True
                continue
            try:
                one = socket.create_server((address, port, *scope), family=family, backlog=BACKLOG)
            except OSError as error:
                if error.errno not in UNAVAILABLE:
                    raise
                missing = error
                continue
            self._opened.append(one)
            is_open, port = True, one.getsockname()[1]
        if missing is not None and not is_open:
            raise missing
        return port

    def _listens_on(self, family: socket.AddressFamily, address: str) -> bool:
        """Whether an open socket has this address, by itself or as one of all addresses."""
        return any(
            one.family == family and one.getsockname()[0] in (address, ANY_ADDRESS[family]) for one in self._opened
        )

    def _open_file(self, path: str, mode: int) -> None:
        one = socket.socket(socket.AF_UNIX)
        self._opened.append(one)
        with _locked(os.path.dirname(path)):
            _remove_stale(path)
            one.bind(path)
            self._files.append(_SocketFile(path))
            os.chmod(path, mode)  # no client can connect before `listen`
            one.listen(BACKLOG)


def _is_any(host: str) -> bool:
    """Whether the host is every address of a family."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


class _SocketFile:
    """The file of a Unix socket of this process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove it, unless another process has replaced it."""
        if _identity(self._path) == self._identity:
            with suppress(OSError):
                os.unlink(self._path)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Two processes that start at once must not both find a stale file, because one would remove the other's."""
    import fcntl  # not on Windows

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that has ended without removing it. Raises CannotListen for any other file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotListen("The file exists, and is not a socket.")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except (TimeoutError, BlockingIOError):
            pass  # it listens, and has too many connections
    raise CannotListen("Another process listens on this socket.")


def _reason(error: CannotListen | OSError) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)
