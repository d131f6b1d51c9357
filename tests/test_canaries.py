"""Secrets stay inside: known secret values are searched for in every output."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.observability import logging as logs
from app.sandbox.account import DEMO_KEY
from app.vending.policy import ADMIN_SCOPE
from tests.support.admin_api import admin_request
from tests.support.grants import grant_key, granting_service, mint, minted, minted_for_guest, use
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_components, running_service
from tests.support.tokens import ISSUER, principal, token

KEYS: dict[str, Any] = {"tag_key": "TAG-KEY-CANARY-" * 3, "previous_tag_key": "FORMER-KEY-CANARY-" * 3}


class CapturedLog:
    """All log output since the start of the test."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capture.readouterr().err
        return self._text


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> CapturedLog:
    return CapturedLog(capsys)


def secrets_of(telnyx: Telnyx) -> set[str]:
    found = {DEMO_KEY, "TAG-KEY-CANARY", "FORMER-KEY-CANARY"}
    for credential in telnyx.sandbox.account.credentials.values():
        found.add(credential.sip_password)
    return found


FAULTS: list[list[dict[str, Any]]] = [
    [],
    [{"kind": "status", "status": 422, "body": '{"errors":[{"code":"10015","title":"SECRET-CANARY"}]}'}],
    [{"kind": "status", "status": 500, "body": "SECRET-CANARY"}],
    [{"kind": "garbage", "body": '{"data": {"id": "SECRET-CANARY", "sip_password": "SECRET-CANARY"}}'}],
    [{"kind": "drop", "after_commit": True}],
    [{"kind": "garbage", "path": "/token$", "body": "SECRET-CANARY"}],
    [{"kind": "status", "path": "/token$", "status": 404, "body": "SECRET-CANARY"}],
]


@pytest.mark.parametrize("faults", FAULTS, ids=lambda faults: str(faults)[:50])
@pytest.mark.parametrize("level", ["debug", "info"])
async def test_no_secret_is_in_logs_responses_metrics_audit_or_database(
    telnyx: Telnyx, tmp_path: Path, written: CapturedLog, faults: list[dict[str, Any]], level: str
) -> None:
    database = f"sqlite:///{tmp_path / 'ledger.db'}"
    users_token = token("alice", jti="USER-TOKEN-CANARY")
    headers = {"Authorization": f"Bearer {users_token}", "User-Agent": f"curl {users_token}"}
    async with running_service(telnyx, database, log_level=level, sip_password=True, **KEYS) as service:
        for fault in faults:
            telnyx.fail(**fault)
        answers = [await service.ask("POST", json={"device_id": "laptop"}, headers=headers) for _ in range(3)]
        password = await service.issue("desk", grant="sip_password")
        seen = secrets_of(telnyx)
        listed = [await service.ask("GET"), await service.ask("GET", "/" + "0" * 32)]
        refused = await service.ask("POST", json={"device_id": "x", "SECRET": "SECRET-CANARY"})
        deleted = await service.ask("DELETE")
        admin = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}
        body = {"issuer": ISSUER, "subject": "bob", "confirm": "dialtone"}
        erased = await service.client.post("/v1/admin/erasures", headers=admin, json=body)
        state = await service.client.get("/v1/admin/state", headers=admin)
        assert (erased.is_success, state.is_success) == (True, True), erased.text
        metrics = (await service.client.get("/metrics")).text
        (issued,) = {a.json()["login_token"] for a in answers if a.is_success}

    belongs = password.json()["password"]
    outputs = {
        "log": written.getvalue(),
        "answers": "".join(a.text for a in [*answers, *listed, refused, deleted, erased, state]),
        "metrics": metrics,
        "files": "".join(p.read_bytes().decode("latin-1") for p in tmp_path.iterdir()),
    }
    assert "issued" in outputs["files"] or "failed" in outputs["files"], "the audit is among them"
    assert outputs["log"].count('"event":"request"') >= 7
    assert belongs in seen
    for place, text in outputs.items():
        # The password is in the one response that was requested for it, which is not searched here.
        forbidden = [*seen, users_token, users_token.split(".")[2], "SECRET-CANARY", "canary"]
        leaked = [secret for secret in forbidden if secret in text]
        assert leaked == [], place
    assert issued not in outputs["log"] + outputs["files"]
    for secret in ("signing_secret", "tel_token", "sip_password", "user_id", "connection_id"):
        assert secret not in outputs["answers"]


async def test_error_messages_contain_no_secrets(telnyx: Telnyx, sqlite: str) -> None:
    from app.vending.errors import DialtoneError
    from app.vending.models import IssueRequest

    async with running_components(telnyx, sqlite, **KEYS) as components:
        for fault in FAULTS[1:]:
            telnyx.fail(**fault[0])
            try:
                await components.telephony.issuer.issue(
                    principal(f"user-{time.monotonic_ns()}"), IssueRequest("laptop")
                )
            except DialtoneError as error:
                text = "".join(str(e) + repr(e) for e in (error, error.__cause__, error.__context__))
                assert "SECRET-CANARY" not in text
                assert not [secret for secret in secrets_of(telnyx) if secret in text]


async def test_line_breaks_in_values_cannot_forge_log_lines(service: Service, written: CapturedLog) -> None:
    logs.configure("info", as_json=False)

    await service.client.get("/livez%0d%0a%1b[31mforged level=info")

    assert "forged" in written.getvalue()
    assert not [line for line in written.getvalue().splitlines() if line.startswith("forged")]
    assert "\x1b[31mforged" not in written.getvalue()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("note", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"),
        ("note", "Authorization: Bearer abc.def.ghi"),
        ("note", "KEY0123456789ABCDEF_secret"),
        ("note", "postgresql://user:hunter2@db/x"),
        ("note", "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----"),
        ("note", "0123456789abcdef0123456789abcdef"),
        ("note", {"deep": ["eyJhbGciOiJSUzI1NiJ9.e30.c2ln"]}),
        ("sip_password", "hunter2"),
        ("api_key", "hunter2"),
        ("login_token", "hunter2"),
        ("data", {"private_key": "hunter2"}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_that_look_like_secrets_are_masked_in_logs(written: CapturedLog, field: str, value: object) -> None:
    logs.configure("info", as_json=True)

    structlog.get_logger("x").info("something", **{field: value})
    logging.getLogger("foreign").warning("%s", value if isinstance(value, str) and field == "note" else "")

    for secret in ("hunter2", "eyJ", "abc", "0123456789"):
        assert secret not in written.getvalue()
    assert "[redacted]" in written.getvalue()


def test_exception_messages_are_not_logged_but_their_tracebacks_are(written: CapturedLog) -> None:
    logs.configure("info", as_json=True)

    try:
        raise ValueError("hunter2")
    except ValueError:
        structlog.get_logger("x").exception("broke")
        logging.getLogger("foreign").exception("broke\nhunter2")

    assert "hunter2" not in written.getvalue()
    assert written.getvalue().count('"exception":"ValueError"') == 2
    assert "test_canaries.py" in written.getvalue()


async def test_tokens_and_keys_of_grants_are_in_no_log_and_no_database(
    telnyx: Telnyx, tmp_path: Path, written: CapturedLog
) -> None:
    database = f"sqlite:///{tmp_path / 'ledger.db'}"
    (tmp_path / "configuration").mkdir()
    async with granting_service(telnyx, database, tmp_path / "configuration", log_level="debug") as service:
        grant, guest = await minted(service), await minted_for_guest(service, origin="https://app.example.com")
        answers = [
            await use(service, grant),
            await use(service, grant),
            await use(service, grant, "other"),
            await use(service, guest),
            await use(service, guest, Origin="https://app.example.com"),
            await mint(service, backend="alice"),
            await admin_request(service, "POST", "/grant-revocations", {"grant_id": grant["id"]}),
            await use(service, grant),
            await admin_request(service, "GET", "/audit"),
            await service.client.get("/.well-known/jwks.json"),
        ]
        metrics = (await service.client.get("/metrics")).text

    outputs = {
        "log": written.getvalue(),
        "answers": "".join(answer.text for answer in answers),
        "metrics": metrics,
        "files": "".join(p.read_bytes().decode("latin-1") for p in tmp_path.iterdir() if p.is_file()),
    }
    key_lines = [line for line in grant_key().splitlines() if "-----" not in line]
    for place, text in outputs.items():
        forbidden = [*key_lines, *(token[part:] for token in (grant["token"], guest["token"]) for part in (0, -60))]
        assert [secret for secret in forbidden if secret in text] == [], place
    assert "grant_minted" in outputs["files"]
    assert '"d":' not in outputs["answers"]
