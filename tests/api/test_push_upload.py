"""Push credential policy, validation errors, and certificate expiry over HTTP."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.problems import assert_problem
from tests.support.push_api import PATH, push_objects, push_request, register, upload_count
from tests.support.push_material import BUNDLE_ID, YEAR, cert_pem, ios, key, pem_of, same_ios, secrets_in
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, pem, token


@pytest.fixture
async def service(telnyx: Telnyx, database: str) -> AsyncIterator[Service]:
    async with running_service(telnyx, database) as service:
        yield service


async def test_policy_can_require_a_scope_or_deny_push(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    (tmp_path / "dialtone.toml").write_text(
        f"""
        [[issuers]]
        issuer = "{ISSUER}"
        audiences = ["dialtone"]
        pem = '''{pem()}'''
        [[policy.rules]]
        name = "guests"
        claims.guest = true
        push = false
        [[policy.rules]]
        name = "all"
        push_scopes = ["push:register"]
        """
    )
    async with running_service(
        telnyx, sqlite, config=str(tmp_path / "dialtone.toml"), issuer=..., audience=..., issuer_pem=...
    ) as service:
        bad = {**same_ios(), "certificate": "CANARY"}
        for body in (same_ios(), bad):
            assert_problem(await push_request(service, "POST", body=body), 403, "insufficient_scope")
        assert (await push_request(service, "POST", scope="phone push:register", body=same_ios())).status_code == 201
        headers = {"Authorization": f"Bearer {token('gina', guest=True, scope='push:register')}"}
        assert_problem(await service.client.post(PATH, headers=headers, json=same_ios()), 403, "push_not_allowed")


# -- validation -----------------------------------------------------------------------------------------------------


async def test_rejected_material_lists_each_fault_with_a_fix(service: Service) -> None:
    expired = ios(since=service.clock() - 2 * YEAR, until=service.clock() - YEAR)

    answer = await register(service, {**expired, "private_key": pem_of(key("other"))})

    assert_problem(answer, 422, "certificate_expired")
    assert answer.json()["title"].startswith("The certificate has expired")
    assert [(error["loc"], error["type"]) for error in answer.json()["errors"]] == [
        (["body", "certificate"], "certificate_expired"),
        (["body", "private_key"], "key_mismatch"),
    ]
    assert upload_count(service.telnyx) == 0


async def test_validation_stores_and_sends_nothing(service: Service) -> None:
    wanted = same_ios()
    wanted.pop("alias")

    good = (await push_request(service, "POST", "/lint", body=wanted)).json()
    bad = (await push_request(service, "POST", "/lint", body={**wanted, "private_key": "x"})).json()

    assert good["ok"] is True
    assert good["days_left"] == 364
    assert bad["ok"] is False
    assert bad["faults"][0]["code"] == "private_key_unreadable"
    assert service.telnyx.sandbox.journal.entries == []
    assert (await push_request(service, "GET")).json() == {"data": []}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "windows"},
        {"type": "ios", "alias": "x", "certificate": "CANARY"},
        {"type": "ios", "alias": "x\u202e", "certificate": "CANARY", "private_key": "CANARY"},
        {"type": "ios", "alias": "x", "certificate": ["CANARY"], "private_key": {"CANARY": 1}},
        {"type": "android", "alias": "x", "project_account_json_file": {}, "private_key": "CANARY"},
        {"type": "android", "alias": "", "project_account_json_file": {"private_key": "CANARY"}},
        ["CANARY"],
    ],
    ids=lambda value: json.dumps(value)[:50],
)
async def test_malformed_request_is_422_without_input_values(service: Service, body: Any) -> None:
    answer = await push_request(service, "POST", body=body)

    assert_problem(answer, 422, "invalid_request")
    assert "CANARY" not in answer.text


async def test_push_bodies_have_their_own_size_limit(service: Service) -> None:
    large = {**same_ios(), "certificate": "x" * 100_000}

    assert_problem(await register(service, large), 422, "material_too_large")
    assert_problem(await register(service, {**large, "private_key": "y" * 100_000}), 413, "body_too_large")


# -- expiry ---------------------------------------------------------------------------------------------------------


async def test_expiry_is_measured_and_logged_once_per_threshold(
    sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def warnings() -> list[int]:
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
        return [line["days_left"] for line in lines if line["event"] == "push_credential_expires"]

    async with telnyx_sandbox() as telnyx, running_service(telnyx, sqlite) as service:
        until = telnyx.clock().replace(microsecond=0) + timedelta(days=40)
        made = await register(service, ios(until=until))
        assert made.status_code == 201
        watch = service.components.push.expiry_alerts
        heard = []
        for left in (31, 30, 29, 14, 8, 7, 6.5, 1, 0.5, -1, -2):
            telnyx.clock.advance(until - timedelta(days=left) - telnyx.clock())
            for _ in range(2):
                await watch.check()
            heard.append(warnings())
        figures = (await service.client.get("/metrics")).text
        ready = await service.client.get("/readyz")

    assert heard == [[], [30], [], [14], [], [7], [], [1], [], [0], []]
    assert f'dialtone_push_credential_days_left{{app_id="{BUNDLE_ID}"' in figures
    assert ready.status_code == 200


async def test_certificate_that_expires_tomorrow_is_accepted(service: Service) -> None:
    soon = cert_pem(until=service.clock() + timedelta(hours=30), serial=77)

    answer = await register(service, {**same_ios(), "certificate": soon})

    assert answer.status_code == 201
    assert not any(secret in answer.text for secret in secrets_in(same_ios()))


# -- the device that is woken ---------------------------------------------------------------------------------------


async def test_device_woken_by_push_gets_its_login_and_keeps_its_identity(service: Service) -> None:
    async def log_in() -> httpx.Response:
        late = token(iat=int(service.clock().timestamp()), exp=4_000_000_000)
        headers = {"Authorization": f"Bearer {late}"}
        return await service.ask("POST", headers=headers, json={"device_id": "iphone", "platform": "ios"})

    first = (await log_in()).json()
    service.clock.advance(timedelta(hours=8))
    before = len(service.telnyx.calls())
    woken = await log_in()
    calls = len(service.telnyx.calls()) - before
    service.clock.advance(timedelta(days=20))
    after_a_holiday = (await log_in()).json()

    assert woken.status_code == 200
    assert calls == 0
    assert {first["sip_username"], woken.json()["sip_username"], after_a_holiday["sip_username"]} == {
        first["sip_username"]
    }


async def test_material_known_under_an_old_tag_key_is_uploaded_once(telnyx: Telnyx, sqlite: str) -> None:
    """The tag key is derived from the API key by default, so it changes with the API key."""
    wanted = same_ios()
    async with running_service(telnyx, sqlite, tag_key="k" * 32) as before:
        first = await register(before, wanted)
    async with running_service(telnyx, sqlite, tag_key="j" * 32) as after:
        again = [await register(after, wanted) for _ in range(3)]
        telnyx.clock.advance(timedelta(hours=1))
        await after.components.push.uploads.sweep()
        assert (await register(after, wanted)).status_code == 200

    assert {answer.status_code for answer in again} == {200}
    assert {answer.json()["id"] for answer in again} == {first.json()["id"]}
    assert upload_count(telnyx) == 2
    assert len(push_objects(telnyx)) == 1
