"""The log and the audit of a rejected token contain the requirement of the configuration, and no part of the token."""

import json
from typing import Any

import pytest

from app.observability import logging as logs
from tests.support.sandbox import Telnyx
from tests.support.service import running_service
from tests.support.tokens import AUDIENCE, ISSUER, token

PATH = "/v1/telephony-credentials"


def denials(log: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "denied"]


@pytest.mark.parametrize("is_fast", [True, False], ids=["fast path", "middleware"])
async def test_log_line_of_a_rejected_token_has_the_requirement(
    telnyx: Telnyx, sqlite: str, capsys: pytest.CaptureFixture[str], is_fast: bool
) -> None:
    text = token("CANARY", aud="elsewhere", email="CANARY@example.com")
    logs.configure("info", as_json=True)
    async with running_service(telnyx, sqlite) as service:
        if not is_fast:
            service.limiter.fast_path = None
        response = await service.client.post(
            PATH, json={"device_id": "laptop"}, headers={"Authorization": f"Bearer {text}"}
        )

    log = capsys.readouterr().err
    (denial,) = denials(log)
    assert response.json()["code"] == "invalid_token"
    assert "details" not in response.json()
    assert denial["reason"] == "wrong_audience"
    assert denial["details"] == {
        "checked": "aud",
        "expected": AUDIENCE,
        "settings": "audiences, audience_claims",
        "issuer": ISSUER,
    }
    assert not any(part in log for part in ("CANARY", "elsewhere", *text.split(".")))
