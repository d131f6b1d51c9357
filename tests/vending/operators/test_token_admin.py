"""Operators' refreshes of signing keys."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

from app.vending.operators.token_admin import TokenAdmin

ISSUERS = ["https://a.example.com", "https://b.example.com"]


class WaitingKeys:
    """Keys of issuers that respond only once all are asked. Also the notices and the audit, which do nothing."""

    def __init__(self) -> None:
        self._barrier = asyncio.Barrier(len(ISSUERS))

    def issuers(self) -> list[str]:
        return ISSUERS

    async def refresh_keys(self, issuer: str) -> bool:
        await self._barrier.wait()
        return issuer == ISSUERS[0]

    async def request_key_refresh(self, _: Any) -> None: ...

    async def record(self, _: Any) -> None: ...


async def test_keys_of_all_issuers_are_fetched_at_the_same_time() -> None:
    keys = cast("Any", WaitingKeys())
    admin = TokenAdmin(cast("Any", None), keys, keys, keys, lambda: datetime.now(UTC))

    async with asyncio.timeout(30):
        refreshed = await admin.refresh_keys(None)

    assert refreshed == {ISSUERS[0]: True, ISSUERS[1]: False}
