"""Requests to the push credential API, and the push credentials that the sandbox holds."""

from typing import Any

import httpx

from tests.support.sandbox import Telnyx
from tests.support.service import Service
from tests.support.tokens import token

PATH = "/v1/push-credentials"


async def push_request(
    service: Service, method: str, path: str = "", *, user: str = "alice", scope: str = "phone", body: Any = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(user, scope=scope)}"}
    return await service.client.request(method, f"{PATH}{path}", headers=headers, json=body)


async def register(service: Service, body: dict[str, Any], user: str = "alice") -> httpx.Response:
    return await push_request(service, "POST", user=user, body=body)


def push_objects(telnyx: Telnyx) -> list[dict[str, Any]]:
    return list(telnyx.sandbox.account.push_credentials.values())


def upload_count(telnyx: Telnyx) -> int:
    entries = telnyx.sandbox.journal.entries
    return sum(e.method == "POST" and e.path.endswith("/mobile_push_credentials") for e in entries)
