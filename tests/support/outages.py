"""Requests and readiness checks during an outage of the ledger."""

import asyncio

import httpx

from tests.support.tokens import token

RECOVERY_SECONDS = 30.0


async def asked(client: httpx.AsyncClient, device: str, user: str = "alice") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token(user)}"}
    return await client.post("/v1/telephony-credentials", headers=headers, json={"device_id": device})


async def readiness(client: httpx.AsyncClient, wanted: int, seconds: float = RECOVERY_SECONDS) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while (answer := await client.get("/readyz")).status_code != wanted:
        assert asyncio.get_running_loop().time() < deadline, answer.text
        await asyncio.sleep(0.1)
