"""One object at Telnyx for each push material: made once, found again after a crash, deleted when nobody wants it.

What must hold: the intent is written down before Telnyx is asked; a lost answer is looked for by alias, which Telnyx
lets an account have only once; the material is in no ledger, so that only a caller who has it can make the object.
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
from app.vending.telephony.recover import LIST_LAG
from app.vending.telephony.timing import POLL_SECONDS

STALE = timedelta(minutes=10)
"""An object that nobody registered in this time after its upload belongs to nobody."""

MIN_RETRY_DELAY = timedelta(seconds=5)
MAX_RETRY_DELAY = timedelta(minutes=10)
"""A deletion that Telnyx does not confirm is tried again after FIRST_RETRY, doubling up to LAST_RETRY."""

IN_USE_RETRY = timedelta(hours=1)
"""When an object that a connection still uses is looked at again."""

SWEEP_BATCH_SIZE = 50


class UploadLedger(Protocol):
    """What is written down of objects. Every method raises LedgerUnavailable when it cannot be."""

    async def object(self, fingerprint: str) -> PushObject | None: ...

    async def open_object(self, new: PushObject) -> None:
        """Insert. Raises PushConflict if there is one of that fingerprint."""

    async def advance_object(self, before: PushObject, after: PushObject) -> PushObject:
        """Write `after` if the row still is `before`. Raises PushConflict if another writer was first."""

    async def drop_object(self, before: PushObject) -> None:
        """Delete the row if it still is `before`. Raises PushConflict."""

    async def unwanted_objects(self, now: datetime, stale_before: datetime, limit: int) -> list[PushObject]:
        """LEAVING ones whose time has come, PENDING ones nobody came back for, ACTIVE ones that nothing refers to."""

    async def connections(self) -> list[str]:
        """Every connection that something was ever attached to here, and not detached since."""

    async def retire_object(self, before: PushObject, after: PushObject) -> PushObject:
        """As `advance_object`, but raises PushConflict too if a registration or a connection refers to it by now."""


class UploadTelnyx(Protocol):
    """What is needed of Telnyx. Every method raises a TelnyxError."""

    async def upload(self, alias: str, material: Mapping[str, Any]) -> str: ...

    async def exists(self, credential_id: str) -> bool: ...

    async def by_alias(self, alias: str) -> str | None: ...

    async def delete(self, credential_id: str) -> None: ...


class UploadConnections(Protocol):
    async def attached(self, connection_id: str) -> Mapping[PushType, str | None]: ...


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An ACTIVE object, and whether it had to be made."""

    object: PushObject
    is_new: bool


class PushUploader:
    """Objects at Telnyx, on every replica."""

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
        """`known_connections`: those that may use an object of ours without the ledger's knowing."""
        self._ledger = ledger
        self._telnyx = telnyx
        self._connections = connections
        self._known_connections = known_connections
        self._naming = replica.naming
        self._timing = replica.timing
        self._replica = replica.id
        # A name of its own: an upload of this very process must wait for a deletion under way, as any other must.
        self._sweeper = f"{replica.id}-sweeper"
        self._clock = clock
        self._flights: SingleFlight[Uploaded] = SingleFlight(replica.timing.request_timeout_seconds)

    async def ensure(self, material: PushMaterial) -> Uploaded:
        """The object of this material at Telnyx, shared by all callers. Raises IssueInProgress and TelnyxErrors."""
        fingerprint = self._naming.push_fingerprint(material.identity)
        return await self._flights.do(fingerprint, None, lambda: self._within_deadline(fingerprint, material))

    async def drain(self) -> None:
        """Wait until nothing is being uploaded."""
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
        """What the row says decides. None: another replica is at work on it."""
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
            # A refusal may mean that the alias is taken: by an upload that we did not hear the answer of.
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
        """By alias; an absence is believed only after a list has had time to settle."""
        found = await self._telnyx.by_alias(row.telnyx_alias)
        if found is None and self._clock() < row.created_at + LIST_LAG:
            await asyncio.sleep(LIST_LAG.total_seconds())
            found = await self._telnyx.by_alias(row.telnyx_alias)
        return found

    async def _try_find(self, row: PushObject) -> str | None:
        with suppress(TelnyxError):
            return await self._telnyx.by_alias(row.telnyx_alias)
        return None

    # -- cleaning up ------------------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Delete at Telnyx what nobody wants any more. How many are gone; Telnyx's trouble only postpones one."""
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
        """The next try is written down before Telnyx is asked; who wants the object meanwhile waits for the claim."""
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
        """Whether a connection was pointed at it beside us, in Telnyx's portal for instance."""
        for connection_id in {*self._known_connections(), *await self._ledger.connections()}:
            with suppress(TelnyxNotFound):
                if (await self._connections.attached(connection_id)).get(row.type) == credential_id:
                    return True
        return False
