"""The operators' API: closed to users; not-before entries and key refreshes."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from app.vending.policy import ADMIN_SCOPE
from tests.support.http_server import serve
from tests.support.key_server import KeyServer
from tests.support.problems import assert_problem
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, rsa_key, token

CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("PUT", "/v1/admin/not-before", {"issuer": ISSUER, "subject": "alice"}),
    ("GET", "/v1/admin/keys", {}),
    ("POST", "/v1/admin/keys/refresh", {}),
    ("GET", "/v1/admin/leases", {}),
    ("GET", f"/v1/admin/dialable?issuer={ISSUER}&subject=alice", {}),
]


async def operate(service: Service, method: str, path: str, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}
    return await service.client.request(method, path, headers=headers, json=None if method == "GET" else body)


@pytest.mark.parametrize(("method", "path", "body"), CALLS, ids=[path for _, path, _ in CALLS])
async def test_user_token_is_denied_on_every_admin_route(
    service: Service, method: str, path: str, body: dict[str, Any]
) -> None:
    headers = {"Authorization": f"Bearer {token()}"}
    answer = await service.client.request(method, path, headers=headers, json=None if method == "GET" else body)

    assert_problem(answer, 403, "insufficient_scope")
    assert 'scope="dialtone:admin"' in answer.headers["www-authenticate"]
    assert (await operate(service, method, path, **body)).status_code == 200


async def test_admin_scope_alone_is_denied_if_a_policy_exists(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(rsa_key().as_pem(private=False).decode())
    path = tmp_path / "dialtone.toml"
    path.write_text(
        f"""
        [[issuers]]
        issuer = "{ISSUER}"
        audiences = ["dialtone"]
        pem_file = "{tmp_path / "key.pem"}"
        [[policy.rules]]
        name = "all"
        """
    )
    async with running_service(telnyx, sqlite, config=str(path), issuer=..., audience=..., issuer_pem=...) as service:
        assert_problem(await operate(service, "GET", "/v1/admin/keys"), 403, "access_denied")
        assert (await service.issue("laptop")).status_code == 201


async def test_tokens_issued_before_a_mark_are_rejected(service: Service) -> None:
    earlier = {"Authorization": f"Bearer {token('alice')}"}

    answer = await operate(service, "PUT", "/v1/admin/not-before", issuer=ISSUER, subject="alice")

    assert answer.json()["reach"] == "user"
    assert (await service.ask("GET", headers=earlier)).status_code == 401
    assert (await service.ask("GET", user="bob")).status_code == 200
    later = {"Authorization": f"Bearer {token(iat=int(time.time()) + 2)}"}
    assert (await service.ask("GET", headers=later)).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"issuer": "https://other.example.com"}, 404, "issuer_not_found"),
        ({"issuer": ISSUER, "not_before": "2999-01-01T00:00:00Z"}, 422, "not_before_in_future"),
        ({"issuer": ISSUER, "not_before": "2026-01-01T00:00:00"}, 422, "invalid_request"),
        ({"issuer": ISSUER, "subject": "a", "session": "b"}, 422, "invalid_request"),
        ({"issuer": ISSUER, "user": "a"}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
    ],
    ids=str,
)
async def test_invalid_not_before_mark_is_rejected(
    service: Service, body: dict[str, Any], status: int, code: str
) -> None:
    assert_problem(await operate(service, "PUT", "/v1/admin/not-before", **body), status, code)


async def test_mark_can_lie_in_the_past_and_target_a_session_or_an_issuer(service: Service) -> None:
    past = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    for reach, name in (("session", "s-1"), ("issuer", "")):
        body = {"session": name} if name else {}
        answer = await operate(service, "PUT", "/v1/admin/not-before", issuer=ISSUER, not_before=past, **body)
        assert (answer.json()["reach"], answer.json()["name"]) == (reach, name)
    old = {"Authorization": f"Bearer {token(iat=int(time.time()) - 3 * 3600)}"}

    assert (await service.ask("GET", headers=old)).status_code == 401
    assert (await service.ask("GET")).status_code == 200


async def test_keys_are_listed_refreshed_and_measured(telnyx: Telnyx, sqlite: str) -> None:
    provider = KeyServer()
    async with (
        serve(provider.app()) as url,
        running_service(telnyx, sqlite, issuer_pem=..., jwks_url=f"{url}/jwks") as service,
    ):
        await service.issue("laptop")
        (before,) = (await operate(service, "GET", "/v1/admin/keys")).json()["data"]

        answer = await operate(service, "POST", "/v1/admin/keys/refresh", issuer=ISSUER)
        provider.answer = _broken
        failed = await operate(service, "POST", "/v1/admin/keys/refresh")
        figures = (await service.client.get("/metrics")).text

    assert before["issuer"] == ISSUER
    assert before["keys"] == 1
    assert answer.json() == {"refreshed": {ISSUER: True}}
    assert failed.json() == {"refreshed": {ISSUER: False}}
    assert f'dialtone_key_set_keys{{issuer="{ISSUER}"}} 1.0' in figures
    # The replica also reads both requests in the ledger, and may have fetched again because of them.
    assert re.search(f'dialtone_key_set_fetch_failures_total{{issuer="{ISSUER}"}} [123]\\.0', figures)
    assert "dialtone_key_set_age_seconds" in figures


def _broken(_: Request) -> Response:
    return Response(status_code=500)
