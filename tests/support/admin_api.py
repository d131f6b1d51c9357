"""Calls of the operators' API."""

from typing import Any

import httpx

from app.vending.policy import ADMIN_SCOPE
from tests.support.service import Service
from tests.support.tokens import token


async def admin_request(service: Service, method: str, path: str, body: Any = None, **params: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {current_token(service, 'olga', scope=ADMIN_SCOPE)}"}
    return await service.client.request(method, f"/v1/admin{path}", headers=headers, json=body, params=params)


def current_token(service: Service, user: str = "alice", **changes: Any) -> str:
    """A token that is valid at the sandbox's clock."""
    now = int(service.clock().timestamp())
    return token(user, **{"iat": now, "exp": now + 3600, **changes})
