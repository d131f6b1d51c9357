"""Push keys are passed to Telnyx and appear nowhere else, whatever fails on the way."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.adapters.push_validation import apns, fcm
from app.vending.errors import DialtoneError
from tests.support.push_material import android, key, pem_of, same_ios, secrets_in
from tests.support.sandbox import Telnyx
from tests.support.service import running_components, running_service
from tests.support.tokens import principal, token

UPLOAD = {"method": "POST", "path": "mobile_push_credentials"}
ECHO = json.dumps({"data": {"id": "x\n", "private_key": pem_of(key()), "certificate": "SECRET-CANARY"}})

FAULTS: dict[str, list[dict[str, Any]]] = {
    "no fault": [],
    "422 that echoes": [{"kind": "status", "status": 422, "body": ECHO}],
    "500 that echoes": [{"kind": "status", "status": 500, "body": ECHO}],
    "an unreadable response": [{"kind": "garbage", "body": ECHO}],
    "a lost response": [{"kind": "drop", "after_commit": True}],
    "no response": [{"kind": "hang", "after_commit": True}],
    "a huge response": [{"kind": "huge"}],
}


KEYS: dict[str, Any] = {"tag_key": "TAG-KEY-CANARY-" * 3, "previous_tag_key": "FORMER-KEY-CANARY-" * 3}
"""Keys of the hashes by which push material is found in the ledger and named at Telnyx."""


def everything_in(folder: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("wanted", [same_ios(), android()], ids=["ios", "android"])
async def test_no_push_key_is_in_responses_logs_database_or_journal(
    telnyx: Telnyx,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    faults: list[dict[str, Any]],
    wanted: dict[str, Any],
) -> None:
    users = {"Authorization": f"Bearer {token()}"}
    answers = []
    async with running_service(telnyx, f"sqlite:///{tmp_path / 'ledger.db'}", log_level="debug", **KEYS) as service:
        for fault in faults:
            telnyx.fail(**UPLOAD, **fault)

        async def send(method: str, path: str, **content: Any) -> None:
            headers = users | content.pop("headers", {})
            answers.append(
                await service.client.request(method, f"/v1/push-credentials{path}", headers=headers, **content)
            )

        await send("POST", "", json=wanted)
        await send("POST", "", json=wanted)
        made = (await service.client.get("/v1/push-credentials", headers=users)).json()["data"]
        for item in made:
            await send("GET", f"/{item['id']}")
            await send("PUT", f"/{item['id']}", json={**wanted, "alias": "renamed"})
        # Requests that are rejected for different reasons: format, type, path, method, permissions.
        await send("POST", "", json={**wanted, "unknown": wanted})
        await send("POST", "", json={**wanted, "alias": wanted})
        await send("POST", "", content=json.dumps(wanted), headers={"Content-Type": "text/plain"})
        await send("POST", "", data={"material": json.dumps(wanted)})
        await send("POST", "", content=json.dumps(wanted)[:-1], headers={"Content-Type": "application/json"})
        await send("PATCH", "", json=wanted)
        await send("POST", "/nowhere", json=wanted)
        await send("POST", "/lint", json={name: value for name, value in wanted.items() if name != "alias"})
        await send("POST", "", json=wanted, headers={"Authorization": "Bearer x"})
        answers.append(await service.client.get("/metrics"))
        telnyx.sandbox.faults.plans.clear()
        journal = json.dumps(telnyx.sandbox.journal.as_json())

    outputs = {
        "log": capsys.readouterr().err,
        "answers": "".join(answer.text + str(answer.headers) for answer in answers),
        "files": everything_in(tmp_path),
        "journal": journal,
    }
    assert outputs["log"].count('"event":"request"') >= 12
    for place, text in outputs.items():
        forbidden = (*secrets_in(wanted), "SECRET-CANARY", "KEY-CANARY")
        assert [secret for secret in forbidden if secret in text] == [], place


@pytest.mark.parametrize("wanted", [same_ios(), android()], ids=["ios", "android"])
async def test_unhandled_error_during_an_upload_reveals_nothing_and_can_be_retried(
    telnyx: Telnyx, tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: dict[str, Any]
) -> None:
    secret = secrets_in(wanted)
    given = iter(["replica", None, "registration"])

    def ids() -> str:
        found = next(given)
        if found is None:
            raise RuntimeError(f"crashed with {secret}")
        return found

    users = {"Authorization": f"Bearer {token()}"}
    async with running_service(telnyx, f"sqlite:///{tmp_path / 'ledger.db'}", ids=ids) as service:
        broken = await service.client.post("/v1/push-credentials", headers=users, json=wanted)
        again = await service.client.post("/v1/push-credentials", headers=users, json=wanted)

    written = capsys.readouterr().err
    assert broken.json()["code"] == "internal_error"
    assert again.status_code == 201
    assert len(telnyx.sandbox.account.push_credentials) == 1
    assert "RuntimeError" in written
    for text in (broken.text, written, everything_in(tmp_path)):
        assert not [piece for piece in secret if piece in text]


async def test_error_messages_contain_no_push_keys(telnyx: Telnyx, sqlite: str) -> None:
    raised = 0
    async with running_components(telnyx, sqlite) as components:
        for wanted in (same_ios(), android()):
            reports = {
                "ios": lambda wanted: apns.validate(wanted["certificate"], wanted["private_key"], telnyx.clock()),
                "android": lambda wanted: fcm.validate(wanted["project_account_json_file"]),
            }
            report = reports[wanted["type"]](wanted)
            for name, faults in FAULTS.items():
                for fault in faults:
                    telnyx.fail(**UPLOAD, **fault)
                try:
                    await components.push.registrar.register(principal(name.replace(" ", "-")), "alias", report)
                except DialtoneError as error:
                    raised += 1
                    text = "".join(str(e) + repr(e) for e in (error, error.__cause__, error.__context__))
                    assert not [secret for secret in (*secrets_in(wanted), "SECRET-CANARY") if secret in text]
                telnyx.sandbox.faults.plans.clear()
                telnyx.sandbox.account.push_credentials.clear()
    assert raised >= 4
