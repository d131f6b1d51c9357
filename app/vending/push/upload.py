"""Uploading push material: one object at Telnyx per material, recovered after a crash, deleted when unused.

These invariants hold across crashes:

- The intent is committed before Telnyx is called.
- An upload with a lost response is looked up by its alias, which Telnyx allows only once per account.
- The ledger does not hold the material, so only a caller that has it can create the object.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from app.vending.errors import (
    DialtoneError,
    LedgerUnavailable,
    PushConflict,
    TelnyxError,
    TelnyxNotFound,
    TelnyxRejected,
    TelnyxUnreachable,
)
from app.vending.push.models import PushMaterial, PushObject, PushState, PushType
from app.vending.replica import Replica
from app.vending.single_flight import SingleFlight
from app.vending.telephony.deadlines import POLL_SECONDS
from app.vending.telephony.recover import LIST_LAG

STALE = timedelta(minutes=10)
"""An object without a registration this long after its upload is unused."""

MIN_RETRY_DELAY = timedelta(seconds=5)
MAX_RETRY_DELAY = timedelta(minutes=10)
"""An unconfirmed deletion is retried after MIN_RETRY_DELAY, doubling up to MAX_RETRY_DELAY."""

IN_USE_RETRY = timedelta(hours=1)
"""How soon an object that a connection still uses is checked again."""

SWEEP_BATCH_SIZE = 50


class UploadLedger(Protocol):
    """The part of the ledger that holds objects. Every method raises LedgerUnavailable."""

    async def object(self, fingerprint: str) -> PushObject | None: ...

    async def open_object(self, new: PushObject) -> None:
        """Insert. Raises PushConflict if the fingerprint exists."""

    async def advance_object(self, before: PushObject, after: PushObject) -> PushObject:
        """Write `after` if the row still equals `before`. Raises PushConflict if another writer changed it first."""

    async def drop_object(self, before: PushObject) -> None:
        """Delete the row if it still equals `before`. Raises PushConflict."""

    async def unwanted_objects(self, now: datetime, stale_before: datetime, limit: int) -> list[PushObject]:
        """DELETING objects that are due, PENDING ones that no caller has resumed, ACTIVE ones without a reference."""

    async def connections(self) -> list[str]:
        """Every connection to which Dialtone attached an object that it has not detached since."""

    async def retire_object(self, before: PushObject, after: PushObject) -> PushObject:
        """Like `advance_object`; also raises PushConflict if a registration or a connection refers to the object."""


class UploadTelnyx(Protocol):
    """The Telnyx calls that uploads need. Every method raises TelnyxErrors."""

    async def upload(self, alias: str, material: Mapping[str, Any]) -> str: ...

    async def exists(self, credential_id: str) -> bool: ...

    async def by_alias(self, alias: str) -> str | None: ...

    async def delete(self, credential_id: str) -> None: ...


class UploadConnections(Protocol):
    async def attached(self, connection_id: str) -> Mapping[PushType, str | None]: ...


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An ACTIVE object, and whether it had to be uploaded."""

    object: PushObject
    is_new: bool


class PushUploader:
    """Uploads, finds and deletes objects at Telnyx. Runs on every replica."""

    def __init__(
        self,
        *,
        ledger: UploadLedger,
        telnyx: UploadTelnyx,
        connections: UploadConnections,
        known_connections: Callable[[], Iterable[str]],
        replica: Replica,
        clock: Callable[[], datetime],
    ) -> None:
        """`known_connections` returns connections that may use an object without a record in the ledger."""
        self._ledger = ledger
        self._telnyx = telnyx
        self._connections = connections
        self._known_connections = known_connections
        self._naming = replica.naming
        self._timing = replica.timing
        self._replica = replica.id
        # A separate claim holder, so that an upload in this process also waits for a deletion in progress.
        self._sweeper = f"{replica.id}-sweeper"
        self._clock = clock
        self._flights: SingleFlight[Uploaded] = SingleFlight(replica.timing.request_timeout_seconds)

    async def ensure(self, material: PushMaterial, registered: str | None = None) -> Uploaded:
        """The material's object at Telnyx; callers share one upload. Raises IssueInProgress and TelnyxErrors.

        `registered` is the fingerprint of the caller's registration. It is kept while its key is known.
        """
        fingerprint = await self._fingerprint(material, registered)
        return await self._flights.do(fingerprint, None, lambda: self._within_deadline(fingerprint, material))

    async def _fingerprint(self, material: PushMaterial, registered: str | None) -> str:
        """The fingerprint of the material's object, which may be a hash of the previous tag key."""
        newest, *previous = self._naming.push_fingerprints(material.identity)
        if registered in previous:
            return registered
        if not previous or await self._ledger.object(newest) is not None:
            return newest
        for fingerprint in previous:
            row = await self._ledger.object(fingerprint)
            if row is not None and row.state is not PushState.DELETING:
                return fingerprint
        return newest

    async def drain(self) -> None:
        """Wait until no upload is in flight."""
        await self._flights.drain()

    async def _within_deadline(self, fingerprint: str, material: PushMaterial) -> Uploaded:
        try:
            async with asyncio.timeout(self._timing.flight_seconds):
                while True:
                    with suppress(PushConflict):
                        if (uploaded := await self._attempt(fingerprint, material)) is not None:
                            return uploaded
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise TelnyxUnreachable(may_have_happened=True) from error

    async def _attempt(self, fingerprint: str, material: PushMaterial) -> Uploaded | None:
        """One attempt, according to the row's state. None: another replica has claimed the row."""
        row = await self._ledger.object(fingerprint)
        now = self._clock()
        if row is None:
            row = self._intent(fingerprint, material, now)
            await self._ledger.open_object(row)
            return await self._upload(row, material)
        if row.is_claimed_by_other(self._replica, now):
            return None
        if row.state is PushState.ACTIVE and await self._is_there(row):
            return Uploaded(row, is_new=False)
        row = await self._ledger.advance_object(row, row.claim(self._replica, now, self._timing.claim))
        try:
            found = await self._find(row)
        except DialtoneError:
            await self._release(row)
            raise
        if found is not None:
            return await self._activate(row, found)
        return await self._upload(row, material)

    def _intent(self, fingerprint: str, material: PushMaterial, now: datetime) -> PushObject:
        return PushObject(
            fingerprint=fingerprint,
            type=material.type,
            telnyx_alias=self._naming.push_alias(fingerprint),
            state=PushState.PENDING,
            version=1,
            app_id=material.app_id,
            fingerprint_sha256=material.fingerprint_sha256,
            not_after=material.not_after,
            created_at=now,
            updated_at=now,
            claimed_by=self._replica,
            claimed_until=now + self._timing.claim,
        )

    async def _upload(self, row: PushObject, material: PushMaterial) -> Uploaded:
        try:
            credential_id = await self._telnyx.upload(row.telnyx_alias, material.upload)
        except TelnyxError as error:
            # A rejection may mean that the alias is taken by an earlier upload with a lost response.
            may_be_there = error.may_have_happened or isinstance(error, TelnyxRejected)
            found = await self._try_find(row) if may_be_there else None
            if found is None:
                await self._give_up(row, error)
                raise
            return await self._activate(row, found)
        return await self._activate(row, credential_id)

    async def _activate(self, row: PushObject, credential_id: str) -> Uploaded:
        row = await self._ledger.advance_object(row, row.activate(credential_id, self._clock()))
        return Uploaded(row, is_new=True)

    async def _give_up(self, row: PushObject, error: TelnyxError) -> None:
        with suppress(PushConflict, LedgerUnavailable):
            if error.may_have_happened:
                await self._ledger.advance_object(row, row.release(self._clock()))
            else:
                await self._ledger.drop_object(row)

    async def _release(self, row: PushObject) -> None:
        with suppress(PushConflict, LedgerUnavailable):
            await self._ledger.advance_object(row, row.release(self._clock()))

    async def _is_there(self, row: PushObject) -> bool:
        return row.credential_id is not None and await self._telnyx.exists(row.credential_id)

    async def _find(self, row: PushObject) -> str | None:
        """Look up by alias. An object counts as absent only after LIST_LAG."""
        found = await self._telnyx.by_alias(row.telnyx_alias)
        if found is None and self._clock() < row.created_at + LIST_LAG:
            await asyncio.sleep(LIST_LAG.total_seconds())
            found = await self._telnyx.by_alias(row.telnyx_alias)
        return found

    async def _try_find(self, row: PushObject) -> str | None:
        with suppress(TelnyxError):
            return await self._telnyx.by_alias(row.telnyx_alias)
        return None

    # -- sweeping ---------------------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Delete unused objects at Telnyx. Returns how many were deleted; a Telnyx error only postpones an object."""
        gone = 0
        async for row in self._unwanted():
            with suppress(PushConflict, TelnyxError):
                gone += await self._delete(row)
        return gone

    async def _unwanted(self) -> AsyncIterator[PushObject]:
        now = self._clock()
        for row in await self._ledger.unwanted_objects(now, now - STALE, SWEEP_BATCH_SIZE):
            if row.is_claimed_by_other(self._sweeper, now):
                continue
            with suppress(PushConflict):
                if row.state is not PushState.DELETING:
                    row = await self._ledger.retire_object(row, row.start_deleting(now))
                yield row

    async def _delete(self, row: PushObject) -> bool:
        """Commit the next attempt, then call Telnyx. Callers that need the object wait for the claim to end."""
        now = self._clock()
        delay = min(MIN_RETRY_DELAY * 2 ** min(row.attempts, 10), MAX_RETRY_DELAY)
        row = await self._ledger.advance_object(
            row, row.claim_deletion(self._sweeper, now, self._timing.claim, now + delay)
        )
        credential_id = row.credential_id or await self._telnyx.by_alias(row.telnyx_alias)
        if credential_id is not None:
            if await self._is_in_use(row, credential_id):
                await self._ledger.advance_object(
                    row, row.claim_deletion(self._sweeper, now, timedelta(0), now + IN_USE_RETRY)
                )
                return False
            with suppress(TelnyxNotFound):
                await self._telnyx.delete(credential_id)
        await self._ledger.drop_object(row)
        return True

    async def _is_in_use(self, row: PushObject, credential_id: str) -> bool:
        """Whether a connection uses the object without a record in the ledger, for instance through Telnyx's portal."""
        for connection_id in {*self._known_connections(), *await self._ledger.connections()}:
            with suppress(TelnyxNotFound):
                if (await self._connections.attached(connection_id)).get(row.type) == credential_id:
                    return True
        return False
