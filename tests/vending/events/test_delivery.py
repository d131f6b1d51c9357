"""Events are delivered at least once and in order, whatever fails in between."""

import asyncio
import sys
from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.adapters.ledger.database import Database
from app.adapters.ledger.deliveries import SqlDeliveries
from app.adapters.webhooks import WebhookSender
from app.sandbox.account import Clock
from app.vending.events.delivery import (
    CLAIM,
    DELIVERY_CONCURRENCY,
    MAX_PAUSE,
    MAX_PENDING_EVENTS,
    EventBacklog,
    EventDeliverer,
    SendFailure,
)
from app.vending.events.endpoints import ActiveEndpoints, WebhookEndpoint
from app.vending.events.models import DELIVERY_PERIOD, Delivery, EventType
from tests.support.certificates import certificate_authority
from tests.support.waiting import DAY, HOUR, LoopClock, eventually
from tests.support.webhooks import (
    FORMER_SECRET,
    Receiver,
    add_events,
    numbered_event,
    outbox_of,
    stored_events,
    webhook_receiver,
)

DEVICES = 50
EVENTS = 1000


class StoppedClock(Clock):
    """The time at which it was made, which tests can advance. Retries are not due because a test took long."""

    def __init__(self) -> None:
        super().__init__()
        self._now = super().__call__()

    def __call__(self) -> datetime:
        return self._now

    def advance(self, step: timedelta) -> None:
        self._now += step


class Replica:
    """One deliverer with its own connections."""

    def __init__(self, database: Database, clock: Clock, endpoints: list[WebhookEndpoint], name: str = "a") -> None:
        self.sender = WebhookSender("dialtone/test", "/dialtone/test", clock)
        self.active = ActiveEndpoints(tuple(endpoints))
        self.deliverer = EventDeliverer(
            SqlDeliveries(database), self.sender.send, self.active, name, clock, lambda: 0.5
        )

    async def deliver(self) -> None:
        """Deliver what is due."""
        await self.deliverer.start()
        await self.deliverer.finish()

    async def close(self) -> None:
        await self.deliverer.drain()
        await self.sender.close()


@pytest.fixture
def clock() -> Clock:
    return StoppedClock()


async def add(database: Database, receiver: Receiver, clock: Clock, count: int, devices: int = 1) -> None:
    outbox = outbox_of(database, [receiver.endpoint()], clock)
    events = [numbered_event(number, f"device-{number % devices}", clock) for number in range(count)]
    for start in range(0, count, 100):
        await add_events(database, outbox, events[start : start + 100])


def by_device(receiver: Receiver) -> dict[str, list[int]]:
    """The numbers of the received events, without repeated ids."""
    seen: set[str] = set()
    found: dict[str, list[int]] = defaultdict(list)
    for received in receiver.received:
        if received.id not in seen:
            data = received.event["data"]
            found[data["device_id"]].append(data["number"])
        seen.add(received.id)
    return found


def assert_all_in_order(receiver: Receiver, count: int = EVENTS, devices: int = DEVICES) -> None:
    assert by_device(receiver) == {f"device-{device}": list(range(device, count, devices)) for device in range(devices)}


async def test_thousand_events_arrive_in_order_of_each_device(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as receiver:
        await add(opened, receiver, clock, EVENTS, DEVICES)
        replica = Replica(opened, clock, [receiver.endpoint()])

        await replica.deliver()

        assert_all_in_order(receiver)
        assert len(receiver.received) == EVENTS
        assert receiver.max_in_flight <= DELIVERY_CONCURRENCY
        assert not await stored_events(opened)
        await replica.close()


async def test_receiver_that_was_down_for_an_hour_gets_all_events(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as receiver:
        await add(opened, receiver, clock, EVENTS, DEVICES)
        replica = Replica(opened, clock, [receiver.endpoint()])
        receiver.status = 503
        for _ in range(60):
            await replica.deliver()
            clock.advance(timedelta(minutes=1))
        refused = len(receiver.received)
        receiver.status = 204
        while await stored_events(opened):
            clock.advance(timedelta(minutes=1))
            await replica.deliver()

        assert_all_in_order(receiver)
        assert refused <= DELIVERY_CONCURRENCY + 60, "an unavailable endpoint gets one request at a time"
        await replica.close()


async def test_killed_replica_is_replaced_and_duplicates_have_the_same_id(
    opened: Database, database: str, clock: Clock, tmp_path: Path
) -> None:
    async with webhook_receiver() as receiver:
        await add(opened, receiver, clock, EVENTS, DEVICES)
        ca_file = tmp_path / "ca.pem"
        ca_file.write_text(certificate_authority().pem)
        receiver.delay_seconds = 0.1  # it cannot finish a batch before it is killed
        killed = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.delivery_process", database, receiver.url, str(ca_file)
        )
        await eventually(lambda: len(receiver.received) > 20, 60)
        killed.kill()
        await killed.wait()
        receiver.delay_seconds = 0.0
        clock = StoppedClock()
        replica = Replica(opened, clock, [receiver.endpoint()])

        await replica.deliver()
        left = await stored_events(opened)
        clock.advance(CLAIM + timedelta(seconds=1))
        await replica.deliver()

        assert left, "claims of the killed replica are respected until they expire"
        assert_all_in_order(receiver)
        assert len({received.id for received in receiver.received}) == EVENTS
        assert len(receiver.received) > EVENTS, "events that the killed replica could not record arrive twice"
        await replica.close()


async def test_two_replicas_share_the_work_without_duplicates(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as receiver:
        await add(opened, receiver, clock, EVENTS, DEVICES)
        replicas = [Replica(opened, clock, [receiver.endpoint()], name) for name in "ab"]

        await asyncio.gather(*(replica.deliver() for replica in replicas))

        assert_all_in_order(receiver)
        assert len(receiver.received) == EVENTS
        assert all(replica.deliverer.status()[0].delivered for replica in replicas)
        for replica in replicas:
            await replica.close()


async def test_reload_applies_to_a_delivery_that_is_running(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as receiver:
        await add(opened, receiver, clock, 100)
        receiver.delay_seconds = 0.02
        replica = Replica(opened, clock, [receiver.endpoint()])
        await replica.deliverer.start()
        await eventually(lambda: len(receiver.received) > 5)
        replica.active.endpoints = (receiver.endpoint(secrets=(FORMER_SECRET,)),)
        await eventually(lambda: receiver.received[-1].is_signed_with(FORMER_SECRET))
        replica.active.endpoints = ()
        await replica.deliverer.finish()

        assert await stored_events(opened), "a removed endpoint gets no more events"
        await replica.close()


async def test_slow_endpoint_does_not_delay_another(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as slow, webhook_receiver() as fast:
        slow.delay_seconds = 60.0
        endpoints = [slow.endpoint("slow"), fast.endpoint("fast")]
        await add_events(opened, outbox_of(opened, endpoints, clock), [numbered_event(1, "laptop", clock)])
        replica = Replica(opened, clock, endpoints)

        await replica.deliverer.start()

        await eventually(lambda: slow.in_flight == 1 and len(fast.received) == 1)
        await replica.close()


async def test_stop_releases_the_event_in_flight_without_counting_it(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as receiver:
        receiver.delay_seconds = 60.0
        await add(opened, receiver, clock, 1)
        replica = Replica(opened, clock, [receiver.endpoint()])
        await replica.deliverer.start()
        await eventually(lambda: receiver.in_flight)

        async with LoopClock() as loop_clock:
            await replica.close()

        assert loop_clock.seconds < 2
        (event,) = await stored_events(opened)
        assert event["attempts"] == 0
        receiver.delay_seconds = 0.0
        other = Replica(opened, clock, [receiver.endpoint()], "b")
        await other.deliver()
        assert not await stored_events(opened)
        await other.close()


async def test_rejected_event_delays_only_its_own_device(opened: Database, clock: Clock) -> None:
    sent: list[str] = []

    async def send(_: WebhookEndpoint, event: Delivery) -> SendFailure | None:
        sent.append(event.device_id)
        return SendFailure("status_400", is_unavailable=False) if event.device_id == "device-0" else None

    endpoint = Receiver(url="https://backend.example.com").endpoint()
    await add_events(
        opened,
        outbox_of(opened, [endpoint], clock),
        [numbered_event(number, f"device-{number % 3}", clock) for number in range(30)],
    )
    deliverer = EventDeliverer(SqlDeliveries(opened), send, ActiveEndpoints((endpoint,)), "a", clock, lambda: 0.5)

    await deliverer.start()
    await deliverer.finish()

    assert [row["device_id"] for row in await stored_events(opened)] == ["device-0"] * 10
    assert sent.count("device-0") == 1


async def test_undelivered_event_is_a_dead_letter_after_a_day(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as receiver:
        receiver.status = 500
        await add(opened, receiver, clock, 2)
        replica = Replica(opened, clock, [receiver.endpoint()])
        await replica.deliver()
        clock.advance(DELIVERY_PERIOD + timedelta(seconds=1))

        await replica.deliverer.maintain()

        rows = await stored_events(opened)
        assert [row["is_dead"] for row in rows] == [True, True]
        assert rows[0]["failure"] == "status_500"
        (status,) = replica.deliverer.status()
        assert (status.pending, status.dead) == (0, 2)
        await replica.close()


async def test_replayed_dead_letters_are_delivered_in_order_with_their_ids(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as receiver:
        await add(opened, receiver, clock, 3)
        ids = [row["event_id"] for row in await stored_events(opened)]
        replica = Replica(opened, clock, [receiver.endpoint()])
        clock.advance(DELIVERY_PERIOD + timedelta(seconds=1))
        await replica.deliverer.maintain()

        assert await SqlDeliveries(opened).replay(None, None, ["backend"], clock(), 100) == 3
        await replica.deliverer.maintain()
        await replica.deliver()

        assert [received.id for received in receiver.received] == ids
        await replica.close()


async def test_dead_letters_are_deleted_by_age_and_by_number(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as receiver:
        await add(opened, receiver, clock, 5)
    deliveries = SqlDeliveries(opened)
    now = clock() + 2 * DELIVERY_PERIOD
    await deliveries.bury_expired("backend", now)

    assert await deliveries.delete_dead(now - HOUR, keep=3) == 2
    assert await deliveries.delete_dead(now + HOUR, keep=3) == 3


async def test_oldest_events_above_the_limit_become_dead_letters(opened: Database, clock: Clock) -> None:
    endpoint = Receiver(url="https://backend.example.com").endpoint()
    events = [numbered_event(number, "laptop", clock) for number in range(5)]
    await add_events(opened, outbox_of(opened, [endpoint], clock), events)

    await SqlDeliveries(opened).bury_oldest("backend", 2, clock())

    rows = await stored_events(opened)
    assert [(row["data"]["number"], row["failure"]) for row in rows if row["is_dead"]] == [
        (0, "queue_full"),
        (1, "queue_full"),
    ]


class FullLedger:
    """A ledger with more pending events than are kept, of which some have expired."""

    def __init__(self, pending: int, expired: int) -> None:
        self._pending = pending
        self._expired = expired
        self.buried = 0

    async def backlog(self) -> list[EventBacklog]:
        return [EventBacklog("backend", pending=self._pending)]

    async def make_due(self, *_: Any) -> int:
        return 0

    async def bury_expired(self, *_: Any) -> int:
        expired, self._expired = self._expired, 0
        return expired

    async def bury_oldest(self, _: str, count: int, __: datetime) -> int:
        self.buried += count
        return count

    async def delete_dead(self, *_: Any) -> int:
        return 0


@pytest.mark.parametrize(("expired", "buried"), [(0, 10), (4, 6), (20, 0)])
async def test_expired_events_count_as_events_above_the_limit(clock: Clock, expired: int, buried: int) -> None:
    ledger: Any = FullLedger(MAX_PENDING_EVENTS + 10, expired)
    unused: Any = None

    await EventDeliverer(ledger, unused, ActiveEndpoints(()), "a", clock, lambda: 0.5).maintain()

    assert ledger.buried == buried


async def test_event_added_during_a_delivery_is_delivered_too(opened: Database, clock: Clock) -> None:
    endpoint = Receiver(url="https://backend.example.com").endpoint()
    outbox = outbox_of(opened, [endpoint], clock)
    sent: list[int] = []

    async def send(_: WebhookEndpoint, event: Delivery) -> SendFailure | None:
        number = event.data["number"]
        sent.append(number)
        if number < 5:
            await add_events(opened, outbox, [numbered_event(number + 1, "laptop", clock)])
        return None

    await add_events(opened, outbox, [numbered_event(0, "laptop", clock)])
    deliverer = EventDeliverer(SqlDeliveries(opened), send, ActiveEndpoints((endpoint,)), "a", clock, lambda: 0.5)

    await deliverer.start()
    await deliverer.finish()

    assert sent == [0, 1, 2, 3, 4, 5]
    assert not await stored_events(opened)


async def test_unavailable_endpoint_recovers_within_the_longest_pause(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as receiver:
        await add(opened, receiver, clock, 100, 100)
        replica = Replica(opened, clock, [receiver.endpoint()])
        receiver.status = 500
        until: datetime = clock() + HOUR
        while clock() < until:
            await replica.deliver()
            clock.advance(timedelta(seconds=10))
        receiver.status = 200
        receiver.received.clear()

        clock.advance(MAX_PAUSE)
        await replica.deliver()

        assert receiver.received, "a request is sent after the pause"
        await replica.close()


async def test_removed_endpoint_leaves_no_empty_queue(opened: Database, clock: Clock) -> None:
    from app.adapters.ledger.tables import event_queues

    endpoint = Receiver(url="https://backend.example.com").endpoint()
    await add_events(opened, outbox_of(opened, [endpoint], clock), [numbered_event(1, "laptop", clock)])
    replica: Any = Replica(opened, clock, [])
    clock.advance(3 * DELIVERY_PERIOD)

    await replica.deliverer.maintain()

    assert not await opened.rows(event_queues.select())
    await replica.close()


async def test_clock_that_is_set_back_does_not_extend_a_pause(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as receiver:
        await add(opened, receiver, clock, 2, 2)
        replica = Replica(opened, clock, [receiver.endpoint()])
        receiver.status = 503
        await replica.deliver()
        receiver.status = 204
        receiver.received.clear()

        clock.advance(-DAY)
        await replica.deliverer.maintain()
        await replica.deliver()

        assert len(by_device(receiver)) == 2, "neither the pause nor the retry waits for a day"
        await replica.close()


async def test_claim_from_before_the_clock_was_set_back_ends(opened: Database, clock: Clock) -> None:
    endpoint = Receiver(url="https://backend.example.com").endpoint()
    await add_events(opened, outbox_of(opened, [endpoint], clock), [numbered_event(1, "laptop", clock)])
    deliveries = SqlDeliveries(opened)
    claimed = await deliveries.claim("backend", "killed", clock(), clock() + CLAIM, 1)
    clock.advance(-DAY)
    await deliveries.make_due("backend", clock(), clock() + HOUR)

    assert len(claimed) == len(await deliveries.claim("backend", "other", clock(), clock() + CLAIM, 1)) == 1


async def test_retry_in_the_usual_time_is_not_made_due(opened: Database, clock: Clock) -> None:
    async with webhook_receiver() as receiver:
        await add(opened, receiver, clock, 1)
        replica = Replica(opened, clock, [receiver.endpoint()])
        receiver.status = 400
        for _ in range(3):
            await replica.deliver()
            await replica.deliverer.maintain()

        assert len(receiver.received) == 1
        await replica.close()


async def test_events_that_a_limited_endpoint_no_longer_gets_are_deleted_and_counted(
    opened: Database, clock: Clock
) -> None:
    async with webhook_receiver() as receiver:
        await add(opened, receiver, clock, 25, 2)
        limited = replace(receiver.endpoint(), types=frozenset({EventType.LEASE_ISSUED.value}))
        replica = Replica(opened, clock, [limited])

        await replica.deliver()

        assert not receiver.received
        assert not await stored_events(opened)
        (status,) = replica.deliverer.status()
        assert (status.delivered, status.dropped) == (0, 25)
        await replica.close()
