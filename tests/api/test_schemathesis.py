"""Schemathesis calls every documented operation as a user and as an operator: no 5xx, no undocumented response."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from app.vending.policy import ADMIN_SCOPE
from tests.support.sandbox import Telnyx
from tests.support.service import running_service
from tests.support.tokens import token

EXAMPLES = os.environ.get("CONTRACT_EXAMPLES", "5")
"""Random requests per operation, besides the examples and the boundary values of every field."""

FOREIGN = "https://fuzz.example.com"
"""Not the issuer of the document's examples: one of them revokes all tokens of an issuer."""

CHECKS = ",".join(
    (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "unsupported_method",
        "allow_header_conformance",
        "ignored_auth",
    )
)


@pytest.mark.no_cover
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("scope", "database"),
    [("phone", "sqlite"), (f"phone {ADMIN_SCOPE}", "postgres")],
    indirect=["database"],
    ids=["a user", "an operator"],
)
async def test_every_response_is_documented(telnyx: Telnyx, tmp_path: Path, database: str, scope: str) -> None:
    settings: dict[str, Any] = {"limit_user": "none", "limit_failures": "none", "max_devices": 900, "issuer": FOREIGN}
    bearer = token("olga", scope=scope, iss=FOREIGN)
    async with running_service(telnyx, database, **settings) as service:
        run = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "schemathesis"),
            "run",
            f"{service.url}/openapi.json",
            *("--header", f"Authorization: Bearer {bearer}"),
            *("--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES),
            *("--continue-on-failure", "--warnings", "off", "--seed", "7"),
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
            | {"NO_COLOR": "1", "COLUMNS": "160"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await run.communicate()

    assert run.returncode == 0, said.decode()
    assert b"Tested: " in said
