"""Delivering events: at least once, and in order for each user and device.

Every replica delivers. It claims a queue, which holds the events of one user and device for one endpoint, so no other
replica delivers from it. A claim expires, so that another replica takes over the queues of one that was killed. Then an
event may arrive twice, with the same id.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import NamedTuple, Protocol

from app.vending.events.endpoints import ActiveEndpoints, WebhookEndpoint
from app.vending.events.models import Delivery
from app.vending.service_status import DeliveryStatus

DELIVERY_CONCURRENCY = 8
"""Requests in flight per endpoint and replica."""

QUEUE_BATCH_SIZE = 10
"""Events of a queue that are delivered before the ledger records it. After a crash, these may arrive twice."""

SEND_DEADLINE = timedelta(seconds=10)
"""Total time of one request."""

CLAIM = timedelta(seconds=60)
"""Time for which a replica claims a queue. A request starts only if its deadline is within the claim."""

MIN_RETRY_DELAY = timedelta(seconds=5)
MAX_RETRY_DELAY = timedelta(minutes=5)
"""The retry delay of a queue doubles from the first to the second. Jitter of 50 % is added or subtracted."""

MAX_PAUSE = timedelta(minutes=1)
"""An unavailable endpoint gets no request for MIN_RETRY_DELAY, and then one. The time doubles up to this."""

MAX_PENDING_EVENTS = 1_000_000
"""Undelivered events of one endpoint, about 0.7 GB. Above it, the oldest become dead letters."""

DEAD_LETTER_RETENTION = timedelta(days=7)
MAX_DEAD_LETTERS = 10_000
"""Dead letters are deleted after a week, and the oldest above this number."""


class ClaimedQueue(NamedTuple):
    """A queue that this replica may deliver from."""

    endpoint: str
    name: str
    version: int
    """Grows with each event that is added."""
    replica: str
    until: datetime


class RetryPlan(NamedTuple):
    """A failed delivery, and when its queue is due again."""

    sequence: int
    failure: str
    due_at: datetime


class EventBacklog(NamedTuple):
    """Stored events of one endpoint."""

    endpoint: str
    pending: int = 0
    dead: int = 0
    oldest: datetime | None = None
    """When the oldest pending event was stored or replayed."""


class SendFailure(NamedTuple):
    """Why a request failed."""

    reason: str
    """A short code, such as `status_500`."""
    is_unavailable: bool
    """Whether other requests to the endpoint would probably fail as well."""


Send = Callable[[WebhookEndpoint, Delivery], Awaitable[SendFailure | None]]
"""Sends one event, within SEND_DEADLINE. Returns None if the endpoint accepted it."""


class DeliveryLedger(Protocol):
    """Every method raises LedgerUnavailable."""

    async def claim(
        self, endpoint: str, replica: str, now: datetime, until: datetime, limit: int
    ) -> list[ClaimedQueue]:
        """Claim queues that are due, the longest waiting first."""

    async def pending(self, queue: ClaimedQueue, limit: int) -> list[Delivery]:
        """The queue's first events, in order."""

    async def settle(
        self, queue: ClaimedQueue, done: Sequence[int], retry: RetryPlan | None, now: datetime, *, has_more: bool
    ) -> None:
        """Delete events that are done, record a failure, and release the queue, or delete it without more events."""

    async def make_due(self, endpoint: str, now: datetime, latest: datetime) -> int:
        """Make one batch of queues due now that would be due after `latest`. Returns their number."""

    async def bury_expired(self, endpoint: str, now: datetime) -> int:
        """Make one batch of events dead letters whose delivery period has ended. Returns their number."""

    async def bury_oldest(self, endpoint: str, count: int, now: datetime) -> int:
        """Make at most `count` of the endpoint's oldest events dead letters, in one batch. Returns their number."""

    async def delete_dead(self, dead_before: datetime, keep: int) -> int:
        """Delete one batch of dead letters: those from before a time, and the oldest above a number."""

    async def backlog(self) -> list[EventBacklog]: ...


class QueueOutcome(Enum):
    """The outcome of one round for a queue."""

    DELIVERED = auto()
    """At least one event."""
    UNAVAILABLE = auto()
    """Nothing, because the endpoint is unavailable."""
    NOT_DELIVERED = auto()
    """Nothing: there was no event for the endpoint, or it rejected the first one."""


@dataclass(slots=True)
class EndpointHealth:
    """Recent failures of one endpoint."""

    failures: int = 0
    """Rounds in a row that found it unavailable."""
    paused_until: datetime | None = None

    def is_paused(self, now: datetime) -> bool:
        """A pause that would last longer than MAX_PAUSE from now has ended: the clock was set back since it began."""
        return self.paused_until is not None and now < self.paused_until <= now + MAX_PAUSE


class EventDeliverer:
    """Delivers events to all endpoints. A slow endpoint does not delay the others."""

    def __init__(
        self,
        ledger: DeliveryLedger,
        send: Send,
        active: ActiveEndpoints,
        replica: str,
        clock: Callable[[], datetime],
        jitter: Callable[[], float],
    ) -> None:
        """`jitter` returns numbers from 0 to 1."""
        self._ledger = ledger
        self._send = send
        self._active = active
        self._replica = replica
        self._clock = clock
        self._jitter = jitter
        self._running: dict[str, asyncio.Task[None]] = {}
        self._sending: set[asyncio.Future[SendFailure | None]] = set()
        self._health: dict[str, EndpointHealth] = {}
        self._is_stopping = False
        self._delivered: Counter[str] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()
        self._dropped: Counter[str] = Counter()
        self._backlog: list[EventBacklog] = []

    async def start(self) -> None:
        """Start the delivery of events that are due, without waiting for it. Raises what the last delivery raised."""
        failures = []
        for endpoint in () if self._is_stopping else self._active.endpoints:
            task = self._running.get(endpoint.name)
            if task is not None and not task.done():
                continue
            if task is not None and (error := task.exception()) is not None:
                failures.append(error)
            self._running[endpoint.name] = asyncio.create_task(self._deliver(endpoint.name))
        if failures:
            raise failures[0]

    async def finish(self) -> None:
        """Wait until no delivery is running. Raises what a delivery raised."""
        await asyncio.gather(*self._running.values())

    async def drain(self) -> None:
        """Cancel the requests in flight, release the claims, and start no others."""
        self._is_stopping = True
        for request in self._sending:
            request.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def maintain(self) -> None:
        """Bury events that could not be delivered, delete old dead letters, and count.

        Also makes queues due whose retry is later than any that is scheduled. Raises LedgerUnavailable.
        """
        now = self._clock()
        for found in await self._ledger.backlog():  # also of endpoints that are no longer configured
            # Such a retry was scheduled before the clock was set back. Its events would wait for the difference.
            while await self._ledger.make_due(found.endpoint, now, now + 2 * MAX_RETRY_DELAY):
                pass
            excess = found.pending - MAX_PENDING_EVENTS
            while buried := await self._ledger.bury_expired(found.endpoint, now):
                excess -= buried
            while excess > 0 and (buried := await self._ledger.bury_oldest(found.endpoint, excess, now)):
                excess -= buried
        while await self._ledger.delete_dead(now - DEAD_LETTER_RETENTION, MAX_DEAD_LETTERS):
            pass
        self._backlog = await self._ledger.backlog()

    def status(self) -> list[DeliveryStatus]:
        """For each endpoint in use."""
        now, known = self._clock(), {found.endpoint: found for found in self._backlog}
        found = []
        for name in self._active.names():
            backlog = known.get(name, EventBacklog(name))
            age = 0.0 if backlog.oldest is None else (now - backlog.oldest).total_seconds()
            failed = {reason: count for (endpoint, reason), count in self._failed.items() if endpoint == name}
            sent, dropped = self._delivered[name], self._dropped[name]
            found.append(DeliveryStatus(name, backlog.pending, backlog.dead, age, sent, failed, dropped))
        return found

    async def _deliver(self, name: str) -> None:
        """Deliver until no queue is due, the endpoint is paused, or a reload has removed it."""
        health = self._health.setdefault(name, EndpointHealth())
        # Read in each round: with many events, a delivery does not end, and a reload may change secrets and the URL.
        while not self._is_stopping and (endpoint := self._active.find(name)) is not None:
            now = self._clock()
            if health.is_paused(now):
                return
            limit = 1 if health.failures else DELIVERY_CONCURRENCY
            queues = await self._ledger.claim(name, self._replica, now, now + CLAIM, limit)
            if not queues:
                return
            outcomes = await asyncio.gather(
                *(self._deliver_queue(endpoint, queue) for queue in queues), return_exceptions=True
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            self._update_health(health, {outcome for outcome in outcomes if isinstance(outcome, QueueOutcome)})

    async def _deliver_queue(self, endpoint: WebhookEndpoint, queue: ClaimedQueue) -> QueueOutcome:
        events = await self._ledger.pending(queue, QUEUE_BATCH_SIZE)
        done: list[int] = []
        accepted = 0
        retry = failure = None
        for event in events:
            if self._is_stopping or self._clock() + SEND_DEADLINE > queue.until:
                break
            if not endpoint.receives(event.type, event.issuer):
                done.append(event.sequence)  # stored before a reload limited the endpoint
                continue
            request = asyncio.ensure_future(self._send(endpoint, event))
            self._sending.add(request)
            await asyncio.wait({request})
            self._sending.discard(request)
            if request.cancelled():
                break
            failure = request.result()
            if failure is not None:
                retry = RetryPlan(event.sequence, failure.reason, self._clock() + self._delay(event.attempts))
                self._failed[endpoint.name, failure.reason] += 1
                break
            done.append(event.sequence)
            accepted += 1
            self._delivered[endpoint.name] += 1
        has_more = len(done) < len(events) or len(events) == QUEUE_BATCH_SIZE
        await self._ledger.settle(queue, done, retry, self._clock(), has_more=has_more)
        self._dropped[endpoint.name] += len(done) - accepted
        if accepted:
            return QueueOutcome.DELIVERED
        return (
            QueueOutcome.UNAVAILABLE if failure is not None and failure.is_unavailable else QueueOutcome.NOT_DELIVERED
        )

    def _update_health(self, health: EndpointHealth, outcomes: set[QueueOutcome]) -> None:
        if QueueOutcome.DELIVERED in outcomes:
            health.failures, health.paused_until = 0, None
        elif QueueOutcome.UNAVAILABLE in outcomes:
            health.paused_until = self._clock() + min(self._delay(health.failures), MAX_PAUSE)
            health.failures += 1

    def _delay(self, attempts: int) -> timedelta:
        """With jitter, so that the queues of many devices are not retried at the same time."""
        delay: timedelta = min(MIN_RETRY_DELAY * 2 ** min(attempts, 10), MAX_RETRY_DELAY)
        return delay * (0.5 + self._jitter())
