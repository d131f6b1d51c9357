"""Finding again what an interrupted create may have left at Telnyx, and giving way when another replica was first."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol

from app.vending.errors import LeaseConflict, TelnyxError, TelnyxNotFound
from app.vending.models import Credential
from app.vending.telephony.lease import Lease, LeaseState

LIST_LAG = timedelta(seconds=2)
"""A list may lag behind a create: an absence is believed only this long after the create was sent."""

WINNER_TIMEOUT_SECONDS = 5.0
"""How long the loser of a race waits to see what the winner makes of the row."""


class RecoveryLedger(Protocol):
    async def find(self, lease_id: str) -> Lease | None: ...

    async def advance(self, before: Lease, after: Lease) -> Lease: ...


class RecoveryTelnyx(Protocol):
    def by_name(self, name: str) -> AsyncIterator[Credential]:
        """Every credential of that name, over all pages."""

    async def delete(self, credential_id: str) -> None:
        """Raises TelnyxNotFound if it is gone already."""


class Recovery:
    """Looks a lease's credential up by the name that only it carries."""

    def __init__(self, ledger: RecoveryLedger, telnyx: RecoveryTelnyx, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._telnyx = telnyx
        self._clock = clock

    async def find(self, lease: Lease) -> Credential | None:
        """The credential of a PENDING lease. None means: there is none, and none is on its way into the list."""
        if lease.attempted_at is None:
            return None
        credential = await self._look(lease)
        wait = (lease.attempted_at + LIST_LAG - self._clock()).total_seconds()
        if credential is None and wait > 0:
            await asyncio.sleep(wait)
            credential = await self._look(lease)
        return credential

    async def try_find(self, lease: Lease) -> Credential | None:
        """One look right after a lost answer. None says nothing: it may appear later."""
        with suppress(TelnyxError):
            return await self._look(lease)
        return None

    async def find_all(self, lease: Lease) -> list[Credential]:
        """Everything at Telnyx that carries the lease's name, oldest first.

        Whether `filter[name]` matches exactly is not documented, so the name is compared here.
        """
        found = [
            item async for item in self._telnyx.by_name(lease.credential_name) if item.name == lease.credential_name
        ]
        return sorted(found, key=lambda item: (item.created_at or datetime.max.replace(tzinfo=UTC), item.id))

    async def delete_duplicates(self, active: Lease) -> None:
        """Delete what else carries the name of a lease that has just become ACTIVE with one credential.

        Namesakes come of a create that was delayed past its successor. Only the writer that made the row ACTIVE may do
        this: anybody else could delete the very credential that the row stands for.
        """
        with suppress(TelnyxError):
            for namesake in await self.find_all(active):
                if namesake.id != active.credential_id:
                    await self.delete(namesake.id)

    async def yield_to_winner(self, lease: Lease, credential: Credential) -> None:
        """Our commit came too late. Delete what we made, unless the winner adopted exactly that."""
        row = await self._settled(lease)
        if row is None or row.state is LeaseState.PENDING or row.credential_id == credential.id:
            return
        try:
            await self.delete(credential.id)
        except TelnyxError:
            return  # the sweeper finds it by its name
        if row.state is LeaseState.REVOKING and row.credential_id is None:
            with suppress(LeaseConflict):
                await self._ledger.advance(row, row.mark_deleted(self._clock()))

    async def delete(self, credential_id: str) -> None:
        """Delete at Telnyx; gone already is as good."""
        with suppress(TelnyxNotFound):
            await self._telnyx.delete(credential_id)

    async def _look(self, lease: Lease) -> Credential | None:
        """The oldest usable one. Nothing is deleted here: whoever looks may no longer hold the row."""
        for credential in await self.find_all(lease):
            is_usable = (
                not credential.is_expired
                and (credential.expires_at is None or credential.expires_at > self._clock())
                and credential.connection_id in (None, lease.connection_id)
            )
            if is_usable:
                return credential
        return None

    async def _settled(self, lease: Lease) -> Lease | None:
        """The row once its winner is done with it, or as it stands when our patience ends."""
        deadline = asyncio.get_running_loop().time() + WINNER_TIMEOUT_SECONDS
        while True:
            row = await self._ledger.find(lease.id)
            if row is None or row.state is not LeaseState.PENDING or asyncio.get_running_loop().time() > deadline:
                return row
            await asyncio.sleep(0.1)
