"""Events are stored in the transaction of the change that they report."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.adapters.ledger.audit import SqlAudit
from app.adapters.ledger.database import Database
from app.adapters.ledger.deliveries import SqlDeliveries
from app.adapters.ledger.lease_search import SqlLeaseSearch
from app.adapters.ledger.leases import SqlLeases
from app.adapters.ledger.not_before import SqlNotBefore
from app.adapters.ledger.sweep import SqlSweep
from app.adapters.ledger.tables import event_queues
from app.vending.audit import NO_REQUEST, AuditEvent, Decision
from app.vending.errors import AccessDenied, DialtoneError, LeaseConflict, RateLimited, TokenRejected
from app.vending.events.endpoints import WebhookEndpoint
from app.vending.events.models import EventType
from app.vending.ids import new_id
from app.vending.models import UserKey
from app.vending.not_before import LogoutClaims
from app.vending.operators.lease_admin import LeaseCriteria
from app.vending.pseudonyms import ErasedUser
from app.vending.telephony.lease import Lease
from app.vending.telephony.naming import Naming
from tests.support.leases import NOW, credential, open_lease, pending_lease
from tests.support.tokens import principal
from tests.support.webhooks import ALL_TYPES, SECRET, Receiver, add_events, numbered_event, outbox_of, stored_events

BACKEND = WebhookEndpoint("backend", "https://backend.example.com/hooks", ALL_TYPES, (SECRET,))
SOON = NOW + timedelta(minutes=1)
NAMING = Naming("dialtone", b"tag key")


@pytest.fixture
def leases(opened: Database) -> SqlLeases:
    return SqlLeases(opened, outbox_of(opened, [BACKEND]))


async def activate(leases: SqlLeases, device: str = "laptop", number: int = 1) -> Lease:
    opened = await open_lease(leases, pending_lease(device, number))
    return await leases.advance(opened, opened.activate(credential(number), NOW, NOW))


async def types(database: Database) -> list[str]:
    return [row["type"] for row in await stored_events(database)]


async def test_each_transition_of_a_lease_has_its_event(opened: Database, leases: SqlLeases) -> None:
    lease = await activate(leases)
    lease = await leases.advance(lease, lease.extend(NOW + timedelta(days=2), SOON))
    await leases.advance(lease, lease.start_revoking(SOON))

    assert await types(opened) == [EventType.LEASE_ISSUED, EventType.LEASE_RENEWED, EventType.LEASE_REVOKED]


async def test_event_of_a_lease_names_the_device_and_its_sip_address(opened: Database, leases: SqlLeases) -> None:
    lease = await activate(leases)

    (row,) = await stored_events(opened)

    assert (row["issuer"], row["subject"], row["device_id"], row["lease_id"]) == (*lease.user_key, "laptop", lease.id)
    assert row["data"]["sip_address"] == "sip:gencred1@sip.example.com"
    assert row["data"]["version"] == lease.version


async def test_changes_without_effect_on_the_device_have_no_event(opened: Database, leases: SqlLeases) -> None:
    lease = await activate(leases)
    before = len(await stored_events(opened))

    named = lease.change(SOON, label="New", platform=lease.platform, ttl_seconds=lease.ttl_seconds, session=None)
    lease = await leases.advance(lease, named)
    pending = await open_lease(leases, pending_lease("phone", 2))
    await leases.advance(pending, pending.start_revoking(SOON))

    assert len(await stored_events(opened)) == before


async def test_conflicting_change_stores_no_event(opened: Database, leases: SqlLeases) -> None:
    lease = await activate(leases)
    await leases.advance(lease, lease.start_revoking(SOON))
    before = await types(opened)

    with pytest.raises(LeaseConflict):
        await leases.advance(lease, lease.mark_expired(SOON))

    assert await types(opened) == before


async def test_credential_that_telnyx_lost_is_reported_as_revoked(opened: Database, leases: SqlLeases) -> None:
    lease = await activate(leases)
    await leases.advance(lease, lease.mark_lost(SOON))

    row = (await stored_events(opened))[-1]

    assert (row["type"], row["data"]["reason"]) == (EventType.LEASE_REVOKED, "lost")


async def test_expiry_is_reported_by_the_sweeper(opened: Database, leases: SqlLeases) -> None:
    lease = await activate(leases)

    sweep = SqlSweep(opened, outbox_of(opened, [BACKEND]))
    later = lease.expires_at + timedelta(seconds=1)
    await sweep.take_due(later, NOW, 10, lambda due: due.mark_expired(later).schedule_retry(later, later))

    assert await types(opened) == [EventType.LEASE_ISSUED, EventType.LEASE_EXPIRED]


async def test_eviction_is_reported(opened: Database, leases: SqlLeases) -> None:
    await activate(leases)

    await leases.open(pending_lease("phone", 2), 1, principal(), lambda live: live)

    row = (await stored_events(opened))[-1]
    assert (row["type"], row["device_id"]) == (EventType.LEASE_REVOKED, "laptop")


async def test_revocation_by_an_operator_is_reported(opened: Database, leases: SqlLeases) -> None:
    await activate(leases, "laptop", 1)
    await activate(leases, "phone", 2)

    search = SqlLeaseSearch(opened, outbox_of(opened, [BACKEND]))
    await search.end_matching(LeaseCriteria(), SOON, "", SOON, 100)

    assert (await types(opened))[2:] == [EventType.LEASE_REVOKED] * 2


async def test_logout_by_the_identity_provider_is_reported(opened: Database, leases: SqlLeases) -> None:
    lease = await activate(leases)

    notices = SqlNotBefore(opened, outbox_of(opened, [BACKEND]))
    await notices.log_out(LogoutClaims(lease.issuer, "token-1", SOON, SOON, lease.subject, None), SOON)

    assert (await types(opened))[-1] == EventType.LEASE_REVOKED


async def test_endpoint_gets_only_the_types_of_its_filter(opened: Database) -> None:
    picky = replace(BACKEND, name="picky", types=frozenset({EventType.LEASE_REVOKED.value}))
    leases = SqlLeases(opened, outbox_of(opened, [BACKEND, picky]))

    lease = await activate(leases)
    await leases.advance(lease, lease.start_revoking(SOON))

    rows = await stored_events(opened)
    of_picky = [row["type"] for row in rows if row["endpoint"] == "picky"]
    assert of_picky == [EventType.LEASE_REVOKED]
    assert len({row["event_id"] for row in rows}) == 2  # one id for both endpoints


async def test_nothing_is_stored_without_endpoints(opened: Database, request: pytest.FixtureRequest) -> None:
    leases = SqlLeases(opened, outbox_of(opened, []))
    statements: list[str] = []

    def record(*seen: Any) -> None:
        statements.append(seen[2])

    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    request.addfinalizer(lambda: sa.event.remove(sa.Engine, "before_cursor_execute", record))

    await activate(leases)

    assert not [statement for statement in statements if "event_" in statement]
    assert not await stored_events(opened)


def denial(error: DialtoneError, device: str = "laptop", user_key: UserKey | None = None) -> AuditEvent:
    return AuditEvent(new_id(), NOW, Decision.denial(error, user_key or principal().user_key, device), NO_REQUEST)


async def test_denial_by_policy_is_reported_with_its_rule(opened: Database) -> None:
    audit = SqlAudit(opened, NAMING, outbox_of(opened, [BACKEND]))

    await audit.add(
        [
            denial(AccessDenied("suspended")),
            denial(RateLimited(retry_after_seconds=1)),
            denial(TokenRejected("expired")),
        ]
    )

    (row,) = await stored_events(opened)
    assert (row["type"], row["data"]) == (EventType.ACCESS_DENIED, {"reason": "AccessDenied", "rule": "suspended"})


async def test_repeated_denials_are_one_event_until_it_is_delivered(opened: Database) -> None:
    audit = SqlAudit(opened, NAMING, outbox_of(opened, [BACKEND]))

    for _ in range(3):
        await audit.add([denial(AccessDenied()), denial(AccessDenied()), denial(AccessDenied(), "phone")])
    await audit.add([denial(AccessDenied(), "tablet")])

    assert [row["device_id"] for row in await stored_events(opened)] == ["laptop"], "a device is named by the client"


async def queues(database: Database) -> list[Any]:
    return list(await database.rows(sa.select(event_queues)))


async def test_batch_is_written_again_after_a_commit_with_unknown_outcome(opened: Database) -> None:
    audit = SqlAudit(opened, NAMING, outbox_of(opened, [BACKEND]))
    denials = [
        AuditEvent(
            new_id(), NOW, Decision.denial(AccessDenied(), UserKey("https://id.example.com", name), "a"), NO_REQUEST
        )
        for name in ("alice", "bob")
    ]
    await audit.add(denials[:1])

    await audit.add(denials)  # with an event that was queued meanwhile
    await audit.add(denials)

    assert sorted([row["subject"] for row in await stored_events(opened)]) == ["alice", "bob"]
    assert [count.events for count in await audit.activity(NOW - timedelta(hours=1))] == [2]


async def test_erasure_pseudonymizes_stored_events_and_keeps_their_ids(opened: Database, leases: SqlLeases) -> None:
    lease = await activate(leases)
    (before,) = await stored_events(opened)
    erased = ErasedUser(lease.user_key, "erased-1", SOON)

    changed = await SqlDeliveries(opened).pseudonymize(erased, NAMING.opaque, SOON)

    (after,) = await stored_events(opened)
    assert changed == 1
    assert (after["event_id"], after["lease_id"], after["subject"]) == (before["event_id"], lease.id, "erased-1")
    assert "laptop" not in str(after)
    assert "gencred1" not in str(after)


async def test_event_of_a_new_user_after_the_erasure_keeps_its_name(opened: Database) -> None:
    event = replace(numbered_event(1, "laptop"), at=SOON)
    await add_events(opened, outbox_of(opened, [BACKEND]), [event])

    await SqlDeliveries(opened).pseudonymize(ErasedUser(event.user_key, "erased-1", NOW), NAMING.opaque, SOON)

    assert [row["subject"] for row in await stored_events(opened)] == ["alice"]


async def test_pseudonymized_event_can_be_claimed(opened: Database) -> None:
    event = numbered_event(1, "laptop")
    await add_events(opened, outbox_of(opened, [BACKEND]), [event])
    deliveries = SqlDeliveries(opened)
    await deliveries.pseudonymize(ErasedUser(event.user_key, "erased-1", SOON), NAMING.opaque, SOON)

    claimed = await deliveries.claim("backend", "a", SOON, SOON + timedelta(minutes=1), 10)

    found = [event for queue in claimed for event in await deliveries.pending(queue, 10)]
    assert [event.subject for event in found] == ["erased-1"]


def test_secrets_are_absent_from_the_representation_of_an_endpoint() -> None:
    assert "canary" not in repr(Receiver().endpoint())
