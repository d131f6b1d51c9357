"""Operators erase users while the tag key is rotated, from whose hashes pseudonyms are made."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.adapters.ledger.tables import leases
from app.composition.components import Components
from app.vending.audit import AuditAction, AuditCriteria, AuditEvent, Decision
from app.vending.models import IssueRequest, UserKey
from tests.support.admin_api import admin_request
from tests.support.push_api import push_objects, register
from tests.support.push_material import same_ios
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_components, running_service, settings_for
from tests.support.tokens import ISSUER, principal
from tests.support.waiting import LoopClock, eventually

OLD, NEW = "old-tag-key-" * 4, "new-tag-key-" * 4
ONLY_OLD: dict[str, Any] = {"tag_key": OLD}
BOTH: dict[str, Any] = {"tag_key": NEW, "previous_tag_key": OLD}
ALICE = UserKey(ISSUER, "alice")


@pytest.fixture
async def service(telnyx: Telnyx, database: str) -> AsyncIterator[Service]:
    """A service with the old key."""
    async with running_service(telnyx, database, propagation_seconds=0, **ONLY_OLD) as service:
        yield service


async def use(service: Service, database: str, **keys: Any) -> None:
    """Reload with these keys, as an operator does in each step of a rotation."""
    await service.components.reload(settings_for(service.telnyx.url, database, propagation_seconds=0, **keys))


@asynccontextmanager
async def replica(telnyx: Telnyx, database: str, **keys: Any) -> AsyncIterator[Components]:
    async with running_components(telnyx, database, propagation_seconds=0, **keys) as components:
        yield components


async def erase(service: Service) -> dict[str, Any]:
    body = {"issuer": ISSUER, "subject": "alice", "confirm": "dialtone"}
    answer = await admin_request(service, "POST", "/erasures", body)
    assert answer.is_success, answer.text
    report: dict[str, Any] = answer.json()
    return report


async def audited(components: Components, subject: str) -> list[AuditEvent]:
    await eventually(lambda: not components.audit.queued)
    return await components.operators.leases.audit(AuditCriteria(subject=subject), None, 1000)


async def subjects(components: Components) -> set[str]:
    async with components.ledger.database.reading() as connection:
        return set((await connection.scalars(sa.select(leases.c.subject))).all())


async def test_user_that_is_erased_again_during_a_rotation_keeps_the_pseudonym(
    service: Service, telnyx: Telnyx, database: str
) -> None:
    await service.issue("laptop")
    before = await erase(service)
    telnyx.clock.advance(timedelta(seconds=1))
    await use(service, database, **BOTH)
    await service.issue("laptop")

    again = await erase(service)

    assert again["pseudonym"] == before["pseudonym"]
    assert await subjects(service.components) == {before["pseudonym"]}
    assert await audited(service.components, "alice") == []
    actions = [event.decision.action for event in await audited(service.components, before["pseudonym"])]
    assert actions.count(AuditAction.ISSUED) == 2, "the events of both erasures have one pseudonym"


async def test_deletion_from_before_a_rotation_is_still_reported_as_unconfirmed(
    service: Service, telnyx: Telnyx, database: str
) -> None:
    await service.issue("laptop")
    telnyx.fail("status", method="DELETE", status=500, times=1000)
    assert (await erase(service))["unconfirmed"] == 1

    await use(service, database, **BOTH)

    assert (await erase(service))["unconfirmed"] == 1


async def test_user_keeps_the_pseudonym_after_the_previous_key_was_removed(
    service: Service, telnyx: Telnyx, database: str
) -> None:
    """If the user was erased during the rotation: that erasure is recorded under both keys."""
    await use(service, database, **BOTH)
    during = await erase(service)
    await use(service, database, tag_key=NEW)

    assert (await erase(service))["pseudonym"] == during["pseudonym"]


@pytest.mark.parametrize(("here", "there"), [(ONLY_OLD, BOTH), (BOTH, ONLY_OLD), (BOTH, {"tag_key": NEW})])
async def test_event_that_another_replica_queued_is_stored_with_the_pseudonym(
    service: Service, telnyx: Telnyx, database: str, here: dict[str, Any], there: dict[str, Any]
) -> None:
    """Each step of a rotation changes one replica after the other."""
    await use(service, database, **here)
    async with replica(telnyx, database, **there) as other:
        pseudonym = (await erase(service))["pseudonym"]
        telnyx.clock.advance(timedelta(seconds=-30))
        other.audit.record_nowait(Decision(AuditAction.DENIED, user_key=ALICE, device_id="laptop"))
        telnyx.clock.advance(timedelta(seconds=30))

        assert await audited(other, "alice") == []
        assert AuditAction.DENIED in [event.decision.action for event in await audited(other, pseudonym)]


@pytest.mark.parametrize(("here", "there"), [(ONLY_OLD, BOTH), (BOTH, ONLY_OLD), (BOTH, {"tag_key": NEW})])
async def test_replica_with_other_keys_forgets_an_erased_user(
    service: Service, telnyx: Telnyx, database: str, here: dict[str, Any], there: dict[str, Any]
) -> None:
    await use(service, database, **here)
    async with replica(telnyx, database, **there) as other:
        await other.telephony.issuer.issue(principal("alice"), IssueRequest("laptop"))
        assert ALICE in other.telephony.login_cache.users()

        await erase(service)

        async with LoopClock() as clock:
            await eventually(lambda: ALICE not in other.telephony.login_cache.users())
        assert clock.seconds < 3


async def test_push_material_that_was_registered_with_the_old_key_is_deleted(
    service: Service, telnyx: Telnyx, database: str
) -> None:
    assert (await register(service, same_ios(), "alice")).status_code == 201
    await use(service, database, **BOTH)

    erased = await erase(service)
    await service.components.push.uploads.sweep()

    assert erased["push_registrations"] == 1
    await eventually(lambda: push_objects(telnyx) == [])  # the sweep that the erasure has started may delete it
