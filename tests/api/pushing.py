"""How tests register push credentials, and look at what Telnyx holds of them."""

from typing import Any

import httpx

from tests.stage import Service, Telnyx, token

PATH = "/v1/push-credentials"


async def ask(
    service: Service, method: str, path: str = "", *, user: str = "alice", scope: str = "phone", body: Any = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(user, scope=scope)}"}
    return await service.client.request(method, f"{PATH}{path}", headers=headers, json=body)


async def register(service: Service, body: dict[str, Any], user: str = "alice") -> httpx.Response:
    return await ask(service, "POST", user=user, body=body)


def objects(telnyx: Telnyx) -> list[dict[str, Any]]:
    return list(telnyx.sandbox.account.push_credentials.values())


def uploads(telnyx: Telnyx) -> int:
    entries = telnyx.sandbox.journal.entries
    return sum(e.method == "POST" and e.path.endswith("/mobile_push_credentials") for e in entries)


# -- the six calls --------------------------------------------------------------------------------------------------
