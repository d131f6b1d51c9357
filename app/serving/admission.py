"""Admission: how many connections are kept, and how many requests the app has at a time.

Requests above the limit are queued, newest first, and addresses take turns. Health checks are never queued.
Connections whose client sends nothing, or not all of a request, make room for others.
"""

import asyncio
import copy
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from app.api import problems
from app.api.problems import ProblemKind
from app.api.request_scope import HEALTH_PATHS
from app.serving.client_address import ClientAddresses
from app.serving.framing import FramingError, RequestHead
from app.serving.front import FrontProtocol
from app.serving.front_host import Responder
from app.serving.outbox import Outbox
from app.serving.responses import Rejections
from app.serving.rounds import Rounds
from app.vending.errors import Overloaded

MAX_CONNECTIONS = 20_000
"""Open connections. Above it, the connection that has waited longest for its client is closed."""

MAX_REQUESTS = 1_500
"""Requests that the app has at a time, not counting those that wait for a login being created. About 20 KB each."""

MAX_UNFINISHED_REQUESTS = 64
"""Requests of these whose body has not arrived. A route must not need a body to reject a token, but half-sent requests
must not take the places of whole ones."""

MAX_UNFINISHED_BYTES = 4 * 1024 * 1024
"""Bytes of all requests together that the app does not have. Above it, the longest and oldest of them are rejected."""

MAX_UNREAD_RESPONSES = 64
"""Connections whose client does not read its responses as fast as they are sent. Each holds up to 150 KB, and its
request may have a place in the app. Above the limit, the one that has waited longest is aborted."""

MAX_HEALTH_CHECKS = 256
"""Health checks of one client address in progress. All probes of a node may come from one address,
and one batch of `Rounds` may begin 64 of them."""

MAX_SCRAPES = 8
"""Requests for `/metrics` of one client address in progress. Each costs ten times as much as a rejection."""

EVICTION_SECONDS = 0.01
"""Least time between two rounds of rejections for MAX_UNFINISHED_BYTES. Each examines all connections."""

LARGE_PEER_SHARE = 10
"""A peer with a tenth of all connections makes room for new ones."""

REQUEST_SECONDS = 10.0
"""Time for a request to arrive, from its first byte."""

SEND_SECONDS = 30.0
"""Time for a client to read the part of a response that its connection buffers."""

LINGER_SECONDS = 1.0
"""Time for a client to read the problem that it was rejected with."""

SWEEP_SECONDS = 0.5
SWEEP_PART_SECONDS = 0.005
"""How long a sweep may take in one round of the event loop. Thousands of clients may become too slow together."""

INNER_IDLE_SECONDS = 5.0
"""How long an idle connection keeps its uvicorn part: about 5 KB."""

NEVER_SECONDS = 86_400
"""uvicorn's own keep-alive timeout, which does not know of the requests that the fast path answers."""

OVERLOADED = problems.KINDS[Overloaded]

_METRICS_TARGET = b"/metrics"


class HealthChecks:
    """The health checks in progress. They are never queued, so a client may not have many."""

    def __init__(self) -> None:
        self._keys: dict[FrontProtocol, tuple[str | None, bool]] = {}
        self._counts: Counter[tuple[str | None, bool]] = Counter()
        """By address, and whether they are requests for `/metrics`."""

    def begin(self, front: FrontProtocol, address: str | None, *, is_scrape: bool) -> bool:
        """False if the client has too many."""
        key = address, is_scrape
        if self._counts[key] >= (MAX_SCRAPES if is_scrape else MAX_HEALTH_CHECKS):
            return False
        self._counts[key] += 1
        self._keys[front] = key
        return True

    def end(self, front: FrontProtocol) -> None:
        """The request is answered. It need not have been a health check."""
        if front in self._keys:
            key = self._keys.pop(front)
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]


class ConnectionLimiter:
    """Limits connections and requests. A factory of protocols, in place of uvicorn's protocol class."""

    def __init__(
        self,
        logins_in_flight: Callable[[], int],
        rejections: Rejections,
        *,
        health_paths: Iterable[str] = HEALTH_PATHS,
        max_requests: int = MAX_REQUESTS,
        max_connections: int = MAX_CONNECTIONS,
        request_seconds: float = REQUEST_SECONDS,
        max_unfinished_requests: int = MAX_UNFINISHED_REQUESTS,
        max_unfinished_bytes: int = MAX_UNFINISHED_BYTES,
        max_unread_responses: int = MAX_UNREAD_RESPONSES,
    ) -> None:
        """`logins_in_flight`: logins being created. Their requests only wait, so they do not count.

        `health_paths` are the paths that bypass the queue.
        """
        self.outbox = Outbox()
        self.rounds = Rounds(lambda: self.fast_path, self.outbox)
        self.fast_path: Responder | None = None
        self._logins_in_flight = logins_in_flight
        self._rejections = rejections
        self._health_targets = frozenset(path.encode() for path in health_paths)
        self.health_check_starts = tuple(
            b"%b %b " % (method, target) for target in self._health_targets for method in (b"GET", b"HEAD")
        )
        self._max_requests = max_requests
        self._max_connections = max_connections
        self._request_seconds = request_seconds
        self._max_unfinished_requests = max_unfinished_requests
        self._max_unfinished_bytes = max_unfinished_bytes
        self._max_unread_responses = max_unread_responses
        self._keep_alive_seconds = 0.0
        self._addresses = ClientAddresses("")
        self._connections: OrderedDict[FrontProtocol, None] = OrderedDict()
        """Those that were answered or opened last are at the end."""
        self._peers: Counter[str | None] = Counter()
        """Connections of each peer."""
        self._largest_peer: str | None = None
        self._unread: OrderedDict[FrontProtocol, float] = OrderedDict()
        """Connections that cannot be written to, and since when."""
        self._in_app: set[FrontProtocol] = set()
        self._unfinished: set[FrontProtocol] = set()
        self._queue: OrderedDict[str | None, dict[FrontProtocol, None]] = OrderedDict()
        self._queued: dict[FrontProtocol, str | None] = {}
        """The address under which each is in the queue."""
        self._checks = HealthChecks()
        self._unfinished_bytes = 0
        self._config: uvicorn.Config | None = None
        self._inner_config: uvicorn.Config | None = None
        self._is_sweeping = False
        self._unswept: list[FrontProtocol] = []
        self._next_eviction = 0.0

    def __call__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.BaseProtocol:
        if self._inner_config is None or self._config is not config:
            self._config = config
            self._keep_alive_seconds = config.timeout_keep_alive
            self._addresses = ClientAddresses(config.forwarded_allow_ips or "127.0.0.1")
            self._inner_config = copy.copy(config)
            self._inner_config.timeout_keep_alive = NEVER_SECONDS
        return FrontProtocol(self, self._inner_config, server_state, app_state)

    # Connections

    @property
    def connections(self) -> list[FrontProtocol]:
        return list(self._connections)

    @property
    def max_connections(self) -> int:
        return self._max_connections

    def limit_connections(self, most: int) -> None:
        """Keep at most this number of connections, because the process may not open more."""
        self._max_connections = min(self._max_connections, most)

    def opened(self, front: FrontProtocol) -> None:
        self._connections[front] = None
        self._peers[front.peer] += 1
        if len(self._connections) > self._max_connections:
            self._close_longest_waiting()
        if not self._is_sweeping:
            self._is_sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def closed(self, front: FrontProtocol) -> None:
        self._forget(front)
        self._unread.pop(front, None)
        self._dequeue(front)
        self.released(front)

    def answered(self, front: FrontProtocol) -> None:
        if front in self._connections:
            self._connections.move_to_end(front)

    def writing_paused(self, front: FrontProtocol) -> None:
        self._unread[front] = time.monotonic()
        if len(self._unread) > self._max_unread_responses:
            self._unread.popitem(last=False)[0].abort()

    def writing_resumed(self, front: FrontProtocol) -> None:
        self._unread.pop(front, None)

    def buffered(self, size: int) -> None:
        self._unfinished_bytes += size
        if size > 0 and self._unfinished_bytes > self._max_unfinished_bytes:
            self._reject_largest()

    def _reject_largest(self) -> None:
        """Reject the requests that hold many bytes for a long time, until a quarter of the limit is free.

        A pipelined request begins when the one before it is answered, so its size counts from the start.
        """
        now = time.monotonic()
        if now < self._next_eviction:
            return
        self._next_eviction = now + EVICTION_SECONDS
        holding = [front for front in self._connections if front.held_bytes and not front.is_in_app]
        holding.sort(key=lambda front: front.held_bytes * (1.0 + now - front.since), reverse=True)
        for front in holding:
            kind = problems.TOO_SLOW if front.is_receiving else OVERLOADED
            self._dequeue(front)
            front.reject(kind)
            if self._unfinished_bytes <= self._max_unfinished_bytes * 3 // 4:
                return

    def address_of(self, peer: str | None, head: RequestHead) -> str | None:
        return self._addresses.of(peer, head)

    def reject(self, kind: ProblemKind, peer: str | None, head: RequestHead | None, began: float) -> bytes:
        return self._rejections.respond(kind, peer if head is None else self.address_of(peer, head), head, began)

    def _forget(self, front: FrontProtocol) -> None:
        if self._connections.pop(front, False) is None:
            self._peers[front.peer] -= 1
            if not self._peers[front.peer]:
                del self._peers[front.peer]

    def _close_longest_waiting(self) -> None:
        """Make room for a connection. A peer with many connections loses its own, and not those of others."""
        is_shared = self._peers[self._largest_peer] * LARGE_PEER_SHARE < len(self._connections)
        for _ in range(len(self._connections)):
            front = next(iter(self._connections))
            if front.is_waiting and (is_shared or front.peer == self._largest_peer):
                self._forget(front)
                front.abort()
                return
            self._connections.move_to_end(front)

    def _sweep(self) -> None:
        """Close connections whose client is silent or too slow. Runs while there are connections."""
        now = time.monotonic()
        try:
            if not self._unswept:
                self._unswept = self.connections
                self._largest_peer = max(self._peers, key=self._peers.__getitem__, default=None)
                while self._unread and now - next(iter(self._unread.values())) > SEND_SECONDS:
                    self._unread.popitem(last=False)[0].abort()
                self._start_queued()
            while self._unswept and time.monotonic() - now < SWEEP_PART_SECONDS:
                self._check(self._unswept.pop(), now)
        finally:
            self._is_sweeping = bool(self._connections)
            if self._is_sweeping:
                delay = SWEEP_PART_SECONDS if self._unswept else SWEEP_SECONDS
                asyncio.get_running_loop().call_later(delay, self._sweep)

    def _check(self, front: FrontProtocol, now: float) -> None:
        waited = now - front.since
        if front.is_closing:
            if front.is_lingering and waited > LINGER_SECONDS:
                front.is_lingering = False
                front.close()
            elif waited > SEND_SECONDS:
                front.abort()
        elif front.is_receiving:
            if waited > self._request_seconds:
                front.reject(problems.TOO_SLOW)
        elif front.is_waiting:
            if waited > self._keep_alive_seconds:
                front.close()
            elif waited > INNER_IDLE_SECONDS:
                front.disconnect_app()

    # Requests

    @property
    def queued(self) -> int:
        """Requests that wait for a place in the app."""
        return len(self._queued)

    @property
    def has_room(self) -> bool:
        return len(self._in_app) - self._logins_in_flight() < self._max_requests

    def admit(self, front: FrontProtocol, head: RequestHead) -> bool:
        if head.path in self._health_targets:
            address = self._addresses.of(front.peer, head)
            if not self._checks.begin(front, address, is_scrape=head.path == _METRICS_TARGET):
                raise FramingError(OVERLOADED)
            return True
        if self.has_room:
            self._in_app.add(front)
            return True
        address = self._queued[front] = self._addresses.of(front.peer, head)
        self._queue.setdefault(address, {})[front] = None
        return False

    def admit_unfinished(self, front: FrontProtocol) -> bool:
        if len(self._unfinished) >= self._max_unfinished_requests or not self.has_room:
            return False
        self._unfinished.add(front)
        self._in_app.add(front)
        return True

    def received(self, front: FrontProtocol) -> None:
        self._unfinished.discard(front)

    def released(self, front: FrontProtocol) -> None:
        self._checks.end(front)
        self._in_app.discard(front)
        self._unfinished.discard(front)
        self._start_queued()

    def _dequeue(self, front: FrontProtocol) -> None:
        if front.is_queued:
            front.is_queued = False
            address = self._queued.pop(front)
            fronts = self._queue[address]
            del fronts[front]
            if not fronts:
                del self._queue[address]

    def _start_queued(self) -> None:
        while self._queue and self.has_room:
            address, fronts = self._queue.popitem(last=False)
            front, _ = fronts.popitem()
            if fronts:
                self._queue[address] = fronts  # the address's next request comes after those of other addresses
            del self._queued[front]
            self._in_app.add(front)
            if not front.start():
                self._in_app.discard(front)
