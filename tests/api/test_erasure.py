"""Operators erase a user: logins, push registrations and the user's name in the ledger."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from app.adapters.ledger.engines import database_url
from app.vending.audit import AuditAction, AuditCriteria, AuditEvent, Decision
from app.vending.models import IssueRequest, UserKey
from app.vending.policy import ADMIN_SCOPE
from tests.support.admin_api import admin_request, current_token
from tests.support.problems import assert_problem
from tests.support.push_api import push_objects, register
from tests.support.push_material import same_ios
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_components, running_service
from tests.support.tokens import ISSUER, logout_token, principal
from tests.support.waiting import HOUR, LoopClock, eventually

NAME = "alice.o'hara@example.com\u00e9"
"""A subject that is found nowhere else."""

AGENT = {"User-Agent": "canary-agent/7"}
ALICE = {"issuer": ISSUER, "subject": NAME}


@pytest.fixture
async def service(telnyx: Telnyx, database: str) -> AsyncIterator[Service]:
    """A user with two devices, one of them logged out, and a push registration. Bob has the same push material."""
    async with running_service(telnyx, database, propagation_seconds=0) as service:
        for device in ("canary-laptop", "canary-phone"):
            body = {"device_id": device, "label": "Canary label"}
            assert (await service.ask("POST", user=NAME, json=body, headers=AGENT)).status_code == 201
        await service.ask("DELETE", f"/{(await service.issue('canary-phone', user=NAME)).json()['id']}", user=NAME)
        await service.issue("laptop", user="bob")
        assert (await register(service, same_ios(), NAME)).status_code == 201
        assert (await register(service, same_ios(), "bob")).status_code == 201
        yield service


async def erase(service: Service, **changes: Any) -> httpx.Response:
    return await admin_request(service, "POST", "/erasures", {**ALICE, "confirm": "dialtone", **changes})


async def stored(database: str) -> str:
    """All rows of all tables as text."""
    engine = create_async_engine(database_url(database))
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
        rows = [str((await connection.exec_driver_sql(f'SELECT * FROM "{name}"')).all()) for name in names]  # noqa: S608
    await engine.dispose()
    return "\n".join(rows)


async def audited(service: Service, **criteria: Any) -> list[AuditEvent]:
    await eventually(lambda: not service.components.audit.queued)
    return await service.components.operators.leases.audit(AuditCriteria(**criteria), None, 1000)


async def test_dry_run_counts_and_changes_nothing(service: Service, database: str) -> None:
    await audited(service)
    await service.components.telephony.last_uses.flush()
    before = await stored(database)

    counted = await erase(service, dry_run=True, confirm=None)

    assert counted.status_code == 200, counted.text
    body = counted.json()
    assert (body["dry_run"], body["leases"], body["credentials"], body["push_registrations"]) == (True, 2, 1, 1)
    assert (body["audit_events"], body["pseudonym"]) == (len(await audited(service, subject=NAME)), None)
    assert await stored(database) == before


async def test_use_before_the_erasure_is_not_written_after_it(service: Service) -> None:
    pseudonym = (await erase(service)).json()["pseudonym"]

    await service.components.telephony.last_uses.flush()

    shown = await admin_request(service, "GET", "/leases", issuer=ISSUER, subject=pseudonym)
    assert [lease["last_used_at"] for lease in shown.json()["data"]] == [None, None]


async def test_erased_user_is_named_nowhere_in_the_ledger(service: Service, database: str) -> None:
    await audited(service)

    erased = await erase(service)
    await audited(service)

    assert erased.status_code in (200, 202), erased.text
    left = await stored(database)
    for trace in (NAME, "canary-laptop", "canary-phone", "Canary label", "canary-agent"):
        assert trace not in left
    assert "bob" in left


async def test_audit_of_an_erased_user_stays_readable_under_one_pseudonym(service: Service) -> None:
    before = await audited(service, subject=NAME)

    body = (await erase(service)).json()
    after = [
        event for event in await audited(service, subject=body["pseudonym"]) if event.decision.reason != "user_erased"
    ]

    assert body["pseudonym"].startswith("erased-")
    assert {event.id for event in before} <= {event.id for event in after}
    ids = {event.id for event in before}
    for old, new in zip(before, [event for event in after if event.id in ids], strict=True):
        assert (new.at, new.decision.action, new.decision.reason) == (old.at, old.decision.action, old.decision.reason)
        assert (new.decision.lease_id, new.decision.token_sha256) == (old.decision.lease_id, old.decision.token_sha256)
        assert (new.context.client_address, new.context.user_agent) == (None, None)
    devices = {old.decision.device_id for old in before}
    assert len({new.decision.device_id for new in after if new.id in ids}) == len(devices)


async def test_erasure_is_an_audit_event_that_names_only_the_operator(service: Service) -> None:
    body = (await erase(service)).json()

    (event,) = [event for event in await audited(service) if event.decision.reason == "user_erased"]
    assert event.decision.user_key == UserKey(ISSUER, body["pseudonym"])
    assert event.context.actor == UserKey(ISSUER, "olga")
    assert event.decision.details["audit_events"] == body["audit_events"]


async def test_credentials_of_an_erased_user_are_deleted_at_telnyx(service: Service, telnyx: Telnyx) -> None:
    assert len(telnyx.live()) == 2

    body = (await erase(service)).json()

    assert (body["leases"], body["credentials"], body["push_registrations"]) == (2, 1, 1)
    await eventually(lambda: len(telnyx.live()) == 1)
    assert (await service.issue("laptop", user="bob")).status_code == 200


async def test_shared_push_object_stays_until_its_last_user_is_erased(service: Service, telnyx: Telnyx) -> None:
    await erase(service)
    await service.components.push.uploads.sweep()
    assert len(push_objects(telnyx)) == 1

    await erase(service, subject="bob")
    await service.components.push.uploads.sweep()

    await eventually(lambda: push_objects(telnyx) == [])  # the sweep that the erasure has started may delete it


async def test_erased_user_logs_in_as_a_new_user(service: Service) -> None:
    pseudonym = (await erase(service)).json()["pseudonym"]
    service.clock.advance(timedelta(seconds=1))

    again = await service.issue("canary-laptop", user=NAME)

    assert again.status_code == 201, again.text
    events = await audited(service, subject=NAME)
    assert [event.decision.action for event in events] == [AuditAction.ISSUED]
    assert events[0].decision.device_id == "canary-laptop"
    assert (await service.ask("GET", user=NAME)).json()["data"][0]["device_id"] == "canary-laptop"
    repeated = (await erase(service)).json()
    assert (repeated["pseudonym"], repeated["leases"]) == (pseudonym, 1)


async def test_erasure_is_idempotent(service: Service) -> None:
    first = (await erase(service)).json()
    await eventually(lambda: not service.components.audit.queued)
    second = await erase(service)

    assert second.json() | {"unconfirmed": 0} == first | {
        "leases": 0, "credentials": 0, "push_registrations": 0, "audit_events": 0, "unconfirmed": 0
    }  # fmt: skip


async def test_unknown_user_is_erased_without_effect(service: Service) -> None:
    answer = await erase(service, issuer="https://former.example.com", subject="unknown-user")

    assert (answer.status_code, answer.json()["leases"], answer.json()["audit_events"]) == (200, 0, 0)


@pytest.mark.parametrize("confirm", [None, "yes"])
async def test_erasure_without_confirmation_changes_nothing(service: Service, telnyx: Telnyx, confirm: str) -> None:
    assert_problem(await erase(service, confirm=confirm), 422, "not_confirmed")
    assert len(telnyx.live()) == 2


async def test_only_operators_erase_users(service: Service) -> None:
    headers = {"Authorization": f"Bearer {current_token(service, NAME)}"}
    answer = await service.client.post("/v1/admin/erasures", headers=headers, json={**ALICE, "confirm": "dialtone"})

    assert_problem(answer, 403, "insufficient_scope")


async def test_users_of_another_issuer_with_the_same_subject_keep_their_data(service: Service) -> None:
    issuer = "https://other.example.com"
    event = Decision(AuditAction.DENIED, user_key=UserKey(issuer, NAME), device_id="canary-laptop")
    await service.components.audit.record(event)

    await erase(service)

    (kept,) = await audited(service, issuer=issuer)
    assert (kept.decision.user_key, kept.decision.device_id) == (UserKey(issuer, NAME), "canary-laptop")


async def test_operator_that_acted_on_an_erased_user_stays_in_the_audit(service: Service) -> None:
    body = {**ALICE, "refuse_tokens": False}
    assert (await admin_request(service, "POST", "/revocations", body)).status_code == 202

    pseudonym = (await erase(service)).json()["pseudonym"]

    (event,) = [one for one in await audited(service, subject=pseudonym) if one.decision.reason == "asked_by_operator"]
    assert event.context.actor == UserKey(ISSUER, "olga")
    assert event.context.client_address is not None
    assert "subject" not in event.decision.details


async def test_erased_operator_leaves_the_users_that_they_acted_on(service: Service, database: str) -> None:
    headers = {"Authorization": f"Bearer {current_token(service, NAME, scope=ADMIN_SCOPE)}", **AGENT}
    body = {"issuer": ISSUER, "subject": "bob"}
    assert (await service.client.post("/v1/admin/revocations", headers=headers, json=body)).status_code == 202

    await erase(service)

    (event,) = [one for one in await audited(service, subject="bob") if one.decision.reason == "asked_by_operator"]
    assert event.decision.user_key == UserKey(ISSUER, "bob")
    assert event.context.actor is not None
    assert event.context.actor.subject.startswith("erased-")
    assert "canary-agent" not in await stored(database)


async def test_operator_that_erases_their_own_account_is_not_named(service: Service, database: str) -> None:
    headers = {"Authorization": f"Bearer {current_token(service, NAME, scope=ADMIN_SCOPE)}", **AGENT}

    done = await service.client.post("/v1/admin/erasures", headers=headers, json={**ALICE, "confirm": "dialtone"})
    await audited(service)

    assert done.is_success, done.text
    assert NAME not in await stored(database)


async def test_stolen_token_of_an_erased_user_stays_rejected(service: Service) -> None:
    stolen = current_token(service, NAME)
    service.clock.advance(timedelta(seconds=2))
    assert (await erase(service, refuse_tokens=True)).is_success

    headers = {"Authorization": f"Bearer {stolen}"}
    answer = await service.client.post("/v1/telephony-credentials", headers=headers, json={"device_id": "thief"})
    service.clock.advance(timedelta(seconds=2))
    fresh = {"Authorization": f"Bearer {current_token(service, NAME)}"}
    own = await service.client.post("/v1/telephony-credentials", headers=fresh, json={"device_id": "laptop"})

    assert_problem(answer, 401, "invalid_token")
    assert own.status_code == 201


async def test_unconfirmed_deletion_is_reported_and_retried(service: Service, telnyx: Telnyx) -> None:
    telnyx.fail("status", method="DELETE", status=500, times=1000)

    answer = await erase(service)

    assert (answer.status_code, answer.json()["unconfirmed"]) == (202, 1)
    await service.components.upkeep.sweeper.sweep()  # waits for the sweep that the erasure has started
    assert len(telnyx.live()) == 2
    telnyx.sandbox.faults.plans.clear()
    telnyx.clock.advance(HOUR)
    await service.components.upkeep.sweeper.sweep()
    assert len(telnyx.live()) == 1


async def test_event_that_was_queued_before_the_erasure_is_stored_with_the_pseudonym(
    service: Service, telnyx: Telnyx, database: str
) -> None:
    async with running_components(telnyx, database) as replica:
        pseudonym = (await erase(service)).json()["pseudonym"]
        telnyx.clock.advance(timedelta(seconds=-30))
        replica.audit.record_nowait(
            Decision(AuditAction.DENIED, user_key=UserKey(ISSUER, NAME), device_id="canary-tab")
        )
        telnyx.clock.advance(timedelta(seconds=30))
        await eventually(lambda: not replica.audit.queued)

    await audited(service)
    assert NAME not in await stored(database)
    assert any(event.decision.action is AuditAction.DENIED for event in await audited(service, subject=pseudonym))


async def test_event_about_a_lease_that_the_erasure_ended_is_stored_with_the_pseudonym(
    service: Service, telnyx: Telnyx, database: str
) -> None:
    """A sweeper that took the lease before the erasure records its deletion after it."""
    lease = (await service.components.operators.leases.dialable(UserKey(ISSUER, NAME)))[0]
    await erase(service)
    telnyx.clock.advance(timedelta(seconds=5))

    service.components.audit.record_nowait(Decision.about_lease(lease, AuditAction.SWEPT, "revoking"))
    await audited(service)

    assert NAME not in await stored(database)


async def test_other_replica_forgets_an_erased_user(service: Service, telnyx: Telnyx, database: str) -> None:
    async with running_components(telnyx, database, propagation_seconds=0) as replica:
        alice, bob = principal(NAME), principal("bob")
        for user in (alice, bob):
            await replica.telephony.issuer.issue(user, IssueRequest("canary-laptop"))
            await replica.identity.verifier.verify(current_token(service, user.subject))
        assert replica.telephony.login_cache.get(alice.user_key, "canary-laptop") is not None

        await erase(service)
        caches = (replica.telephony.login_cache, replica.identity.verifier)

        async with LoopClock() as clock:
            await eventually(lambda: all(alice.user_key not in cache.users() for cache in caches))
        assert clock.seconds < 2
        assert all(bob.user_key in cache.users() for cache in caches)


async def test_logout_event_of_the_identity_provider_does_not_keep_the_name(service: Service, database: str) -> None:
    assert (
        await service.client.post("/v1/backchannel-logout", data={"logout_token": logout_token(sub=NAME)})
    ).status_code == 200
    await audited(service)

    await erase(service)

    events = await stored(database)
    assert events.count(NAME) == 1, "only the not-before entry, which rejects stolen tokens, has the name"
