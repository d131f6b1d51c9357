"""Admission: how many connections are kept, and how many requests the app has at a time.

Requests above the limit are queued, newest first, and addresses take turns. Health checks are never queued.
Connections whose client sends nothing, or not all of a request, make room for others.
"""

import asyncio
import copy
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from app.api import problems
from app.api.problems import ProblemKind
from app.api.request_scope import HEALTH_PATHS
from app.serving.client_address import ClientAddresses
from app.serving.framing import RequestHead
from app.serving.front import FrontProtocol, Responder
from app.serving.outbox import Outbox
from app.serving.responses import Rejections

MAX_CONNECTIONS = 20_000
"""Open connections. Above it, the connection that has waited longest for its client is closed."""

MAX_REQUESTS = 1_500
"""Requests that the app has at a time, not counting those that wait for a login being created. About 20 KB each."""

MAX_UNFINISHED_REQUESTS = 64
"""Requests of these whose body has not arrived. A route must not need a body to reject a token, but half-sent requests
must not take the places of whole ones."""

MAX_UNFINISHED_BYTES = 8 * 1024 * 1024
"""Bytes of all unfinished requests together. Above it, the oldest of them is rejected."""

REQUEST_SECONDS = 10.0
"""Time for a request to arrive, from its first byte."""

ROUND_SECONDS = 0.004
"""Time that the fast path may take in one round of the event loop, before it lets other events in."""

LINGER_SECONDS = 1.0
"""Time for a client to read the problem that it was rejected with."""

SWEEP_SECONDS = 0.5
INNER_IDLE_SECONDS = 5.0
"""How long an idle connection keeps its uvicorn part: about 5 KB."""

NEVER_SECONDS = 86_400
"""uvicorn's own keep-alive timeout, which does not know of the requests that the fast path answers."""

_HEALTH_TARGETS = frozenset(path.encode() for path in HEALTH_PATHS)


class ConnectionLimiter:
    """Limits connections and requests. A factory of protocols, in place of uvicorn's protocol class."""

    def __init__(
        self,
        logins_in_flight: Callable[[], int],
        rejections: Rejections,
        *,
        max_requests: int = MAX_REQUESTS,
        max_connections: int = MAX_CONNECTIONS,
        request_seconds: float = REQUEST_SECONDS,
        max_unfinished_requests: int = MAX_UNFINISHED_REQUESTS,
        max_unfinished_bytes: int = MAX_UNFINISHED_BYTES,
    ) -> None:
        """`logins_in_flight`: logins being created. Their requests only wait, so they do not count."""
        self.outbox = Outbox()
        self.fast_path: Responder | None = None
        self._logins_in_flight = logins_in_flight
        self._rejections = rejections
        self._max_requests = max_requests
        self._max_connections = max_connections
        self._request_seconds = request_seconds
        self._max_unfinished_requests = max_unfinished_requests
        self._max_unfinished_bytes = max_unfinished_bytes
        self._keep_alive_seconds = 0.0
        self._addresses = ClientAddresses("")
        self._connections: OrderedDict[FrontProtocol, None] = OrderedDict()
        self._in_app: set[FrontProtocol] = set()
        self._unfinished: set[FrontProtocol] = set()
        self._queue: OrderedDict[str | None, list[FrontProtocol]] = OrderedDict()
        self._unfinished_bytes = 0
        self._config: uvicorn.Config | None = None
        self._inner_config: uvicorn.Config | None = None
        self._is_sweeping = False
        self._round_ends: float | None = None
        """When the fast path lets other events in; None if it has not run in this round."""
        self._deferred: deque[FrontProtocol] = deque()

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

    def opened(self, front: FrontProtocol) -> None:
        self._connections[front] = None
        if len(self._connections) > self._max_connections:
            self._close_longest_waiting()
        if not self._is_sweeping:
            self._is_sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def closed(self, front: FrontProtocol) -> None:
        self._connections.pop(front, None)
        self.released(front)

    def buffered(self, size: int) -> None:
        self._unfinished_bytes += size
        if size > 0 and self._unfinished_bytes > self._max_unfinished_bytes:
            receiving = [front for front in self._connections if front.is_receiving and not front.is_closing]
            receiving.sort(key=lambda front: front.since)
            for front in receiving:
                front.reject(problems.TOO_SLOW)
                if self._unfinished_bytes <= self._max_unfinished_bytes * 3 // 4:
                    return

    def address_of(self, peer: str | None, head: RequestHead) -> str | None:
        return self._addresses.of(peer, head)

    def reject(self, kind: ProblemKind, peer: str | None, head: RequestHead | None, began: float) -> bytes:
        if head is None:
            return self._rejections.respond(kind, peer, "-", "-", began)
        method, path = head.method.decode("ascii"), head.path.decode("ascii")
        return self._rejections.respond(kind, self._addresses.of(peer, head), method, path, began)

    def _close_longest_waiting(self) -> None:
        for front in self._connections:
            if front.is_waiting and not front.is_closing:
                front.close()
                return

    def _sweep(self) -> None:
        """Close connections whose client is silent or too slow. Runs while there are connections."""
        now = time.monotonic()
        for front in self.connections:
            waited = now - front.since
            if front.is_rejected:
                if waited > LINGER_SECONDS:
                    front.close()
            elif front.is_receiving:
                if waited > self._request_seconds:
                    front.reject(problems.TOO_SLOW)
            elif front.is_response_complete:  # a route has a deadline of its own until then
                if waited > self._request_seconds:
                    front.close()
            elif front.is_waiting:
                if waited > self._keep_alive_seconds:
                    front.close()
                elif waited > INNER_IDLE_SECONDS:
                    front.disconnect_app()
        self._is_sweeping = bool(self._connections)
        if self._is_sweeping:
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    # Requests

    @property
    def queued(self) -> int:
        """Requests that wait for a place in the app."""
        return sum(map(len, self._queue.values()))

    @property
    def has_room(self) -> bool:
        return len(self._in_app) - self._logins_in_flight() < self._max_requests

    def admit(self, front: FrontProtocol, head: RequestHead) -> bool:
        if head.path in _HEALTH_TARGETS:
            return True
        if self.has_room:
            self._in_app.add(front)
            return True
        self._queue.setdefault(self._addresses.of(front.peer, head), []).append(front)
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
        self._in_app.discard(front)
        self._unfinished.discard(front)
        self._start_queued()

    def _start_queued(self) -> None:
        while self._queue and self.has_room:
            address, fronts = self._queue.popitem(last=False)
            front = fronts.pop()
            if fronts:
                self._queue[address] = fronts  # the address's next request comes after those of other addresses
            self._in_app.add(front)
            front.start()

    def is_turn(self, front: FrontProtocol) -> bool:
        """Whether the fast path may run in this round. Otherwise the front continues in a later one."""
        now = time.monotonic()
        if self._round_ends is None:
            self._round_ends = now + ROUND_SECONDS
            asyncio.get_running_loop().call_soon(self._next_round)
        if now < self._round_ends:
            return True
        self._deferred.append(front)
        return False

    def _next_round(self) -> None:
        """Continue with deferred fronts, as many as the time of one round allows."""
        if not self._deferred:
            self._round_ends = None
            return
        self._round_ends = math.inf  # whether the round is over is decided here
        ends = time.monotonic() + ROUND_SECONDS
        while self._deferred and time.monotonic() < ends:
            self._deferred.popleft().advance()
        self._round_ends = -math.inf if self._deferred else ends
        asyncio.get_running_loop().call_soon(self._next_round)
