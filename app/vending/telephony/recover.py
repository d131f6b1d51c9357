"""Recovering the credential of an interrupted create, and yielding when another replica commits first."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol

from app.vending.errors import LeaseConflict, TelnyxError, TelnyxNotFound
from app.vending.models import Credential
from app.vending.telephony.lease import Lease, LeaseState

LIST_LAG = timedelta(seconds=2)
"""A list may lag behind a create. A credential counts as absent only this long after its create was sent."""

WINNER_TIMEOUT_SECONDS = 5.0
"""How long the loser of a race waits for the winner's outcome."""


class RecoveryLedger(Protocol):
    async def find(self, lease_id: str) -> Lease | None: ...

    async def advance(self, before: Lease, after: Lease) -> Lease: ...


class RecoveryTelnyx(Protocol):
    def by_name(self, name: str) -> AsyncIterator[Credential]:
        """Every credential with that name, over all pages."""

    async def delete(self, credential_id: str) -> None:
        """Raises TelnyxNotFound if it is already gone."""


class Recovery:
    """Looks up a lease's credential by its name, which is unique to the lease."""

    def __init__(self, ledger: RecoveryLedger, telnyx: RecoveryTelnyx, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._telnyx = telnyx
        self._clock = clock

    async def find(self, lease: Lease) -> Credential | None:
        """The credential of a PENDING lease. None is certain: none exists, and none will appear in the list."""
        if lease.attempted_at is None:
            return None
        credential = await self._find_usable(lease)
        wait = (lease.attempted_at + LIST_LAG - self._clock()).total_seconds()
        if credential is None and wait > 0:
            await asyncio.sleep(wait)
            credential = await self._find_usable(lease)
        return credential

    async def try_find(self, lease: Lease) -> Credential | None:
        """One lookup right after a lost response. None is inconclusive: the credential may appear later."""
        with suppress(TelnyxError):
            return await self._find_usable(lease)
        return None

    async def find_all(self, lease: Lease) -> list[Credential]:
        """Every credential at Telnyx with the lease's name, oldest first.

        Whether `filter[name]` matches exactly is not documented, so the name is compared here.
        """
        found = [
            item async for item in self._telnyx.by_name(lease.credential_name) if item.name == lease.credential_name
        ]
        return sorted(found, key=lambda item: (item.created_at or datetime.max.replace(tzinfo=UTC), item.id))

    async def delete_duplicates(self, active: Lease) -> None:
        """Delete other credentials with the name of a lease that became ACTIVE.

        A duplicate comes from a create that was delayed past its successor. Only the writer that made the row ACTIVE
        may call this: any other caller could delete the credential that the row refers to.
        """
        with suppress(TelnyxError):
            for namesake in await self.find_all(active):
                if namesake.id != active.credential_id:
                    await self.delete(namesake.id)

    async def yield_to_winner(self, lease: Lease, credential: Credential) -> None:
        """After a failed commit, delete the credential that was created here, unless the winner has adopted it."""
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
        """Delete at Telnyx. A credential that is already gone counts as deleted."""
        with suppress(TelnyxNotFound):
            await self._telnyx.delete(credential_id)

    async def _find_usable(self, lease: Lease) -> Credential | None:
        """The oldest usable credential. Deletes nothing, because the caller may no longer hold the row."""
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
        """The row once the winner has settled it, or as it is after WINNER_TIMEOUT_SECONDS."""
        deadline = asyncio.get_running_loop().time() + WINNER_TIMEOUT_SECONDS
        while True:
            row = await self._ledger.find(lease.id)
            if row is None or row.state is not LeaseState.PENDING or asyncio.get_running_loop().time() > deadline:
                return row
            await asyncio.sleep(0.1)
