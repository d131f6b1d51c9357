"""The front with its fast path, and the app alone, answer generated requests alike: responses, audit and access log.

`DIFFERENTIAL_REQUESTS` sets how many; 100,000 take some minutes. `tests/processes/test_workers.py` has a short form
with two workers.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.observability import logging as logs
from tests.support.configuration import configured_by
from tests.support.databases import sqlite_url
from tests.support.generated_requests import Side, generate_requests, logged
from tests.support.redis_server import redis_server
from tests.support.sandbox import Telnyx, telnyx_sandbox
from tests.support.service import running_service
from tests.support.shared_logins import sharing
from tests.support.tokens import AUDIENCE, ISSUER, pem

REQUESTS = int(os.environ.get("DIFFERENTIAL_REQUESTS", "1500"))


class StepClock:
    """The same time for both services, however long each takes."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


RULES = f"""
[[issuers]]
issuer = "{ISSUER}"
audiences = ["{AUDIENCE}"]
pem = '''{pem()}'''
[[policy.rules]]
name = "desk"
claims.department = "desk"
max_lease_age_seconds = 3600
[policy.rules.rtc]
region = "eu"
caller_id_name = "Example \\"desk\\" ✆"
caller_id_number = "+3224850111"
client_options = {{ trickleIce = true }}
[[policy.rules]]
name = "others"
claims.department = {{ not = "denied" }}
"""


@pytest.fixture(params=["own", "shared", "own with rules"])
def variant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Settings: with a replica's own login cache only, with a shared one, and with the options of policy rules."""
    if request.param == "own":
        yield {}
        return
    if request.param == "own with rules":
        yield configured_by(tmp_path, RULES)
        return
    with redis_server(tmp_path) as server:
        yield sharing(server.url)


@pytest.mark.timeout(1800)
async def test_front_and_app_answer_generated_requests_alike(
    telnyx: Telnyx,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    variant: dict[str, Any],
) -> None:
    databases = [sqlite_url(tmp_path_factory.mktemp(name)) for name in ("front", "app")]
    seed = random.randrange(1_000_000)  # noqa: S311 - printed when the test fails
    limits: dict[str, Any] = {"limit_failures": "100/minute", "limit_user": "200/minute", "telnyx_call_seconds": 30.0}
    clock = StepClock()
    async with (
        telnyx_sandbox() as other,
        running_service(telnyx, databases[0], monotonic=clock, **limits, **variant) as front,
        running_service(other, databases[1], monotonic=clock, **limits, **variant) as app,
    ):
        logs.configure("info", as_json=True)
        app.limiter.fast_path = None
        sides = (Side(front.port), Side(app.port))
        seen: list[list[str]] = [[], []]
        capsys.readouterr()
        for number, request in enumerate(generate_requests(seed, REQUESTS)):
            clock.now += 0.05
            answers = []
            for side, lines in zip(sides, seen, strict=True):
                answers.append(await side.ask(request))
                lines += capsys.readouterr().err.splitlines()
            assert answers[0] == answers[1], (seed, number, request)
        for service in (front, app):
            await service.components.audit.close()
        by_front, by_app = (logged(lines) for lines in seen)
        answered_by_front = app.app.requests - front.app.requests

    assert by_front[0] == by_app[0], seed
    assert by_front[1] == by_app[1], seed
    assert answered_by_front > REQUESTS // 8
