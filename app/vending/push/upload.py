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
    CarrierError,
    CarrierNotFound,
    CarrierRejected,
    CarrierUnreachable,
    DialtoneError,
    LedgerUnavailable,
    PushMoved,
)
from app.vending.push.models import Material, PushObject, PushType, Stage
from app.vending.replica import Replica
from app.vending.single_flight import Flights
from app.vending.telephony.recover import SETTLING
from app.vending.telephony.timing import POLL_SECONDS

STALE = timedelta(minutes=10)
"""An object that nobody registered in this time after its upload belongs to nobody."""

FIRST_RETRY = timedelta(seconds=5)
LAST_RETRY = timedelta(minutes=10)
"""A deletion that Telnyx does not confirm is tried again after FIRST_RETRY, doubling up to LAST_RETRY."""

IN_USE_RETRY = timedelta(hours=1)
"""When an object that a connection still uses is looked at again."""

ROWS_A_RUN = 50


class Ledger(Protocol):
    """What is written down of objects. Every method raises LedgerUnavailable when it cannot be."""

    async def object(self, fingerprint: str) -> PushObject | None: ...

    async def open_object(self, new: PushObject) -> None:
        """Insert. Raises PushMoved if there is one of that fingerprint."""

    async def advance_object(self, before: PushObject, after: PushObject) -> PushObject:
        """Write `after` if the row still is `before`. Raises PushMoved if another writer was first."""

    async def drop_object(self, before: PushObject) -> None:
        """Delete the row if it still is `before`. Raises PushMoved."""

    async def unwanted_objects(self, now: datetime, stale_before: datetime, limit: int) -> list[PushObject]:
        """LEAVING ones whose time has come, PENDING ones nobody came back for, ACTIVE ones that nothing refers to."""

    async def connections(self) -> list[str]:
        """Every connection that something was ever attached to here, and not detached since."""

    async def retire_object(self, before: PushObject, after: PushObject) -> PushObject:
        """As `advance_object`, but raises PushMoved too if a registration or a connection refers to it by now."""


class Carrier(Protocol):
    """What is needed of Telnyx. Every method raises a CarrierError."""

    async def upload(self, alias: str, material: Mapping[str, Any]) -> str: ...

    async def exists(self, credential_id: str) -> bool: ...

    async def by_alias(self, alias: str) -> str | None: ...

    async def delete(self, credential_id: str) -> None: ...


class Connections(Protocol):
    async def attached(self, connection_id: str) -> Mapping[PushType, str | None]: ...


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An ACTIVE object, and whether it had to be made."""

    object: PushObject
    is_new: bool


class Uploads:
    """Objects at Telnyx, on every replica."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        carrier: Carrier,
        connections: Connections,
        known_connections: Callable[[], Iterable[str]],
        replica: Replica,
        clock: Callable[[], datetime],
    ) -> None:
        """`known_connections`: those that may use an object of ours without the ledger's knowing."""
        self._ledger = ledger
        self._carrier = carrier
        self._connections = connections
        self._known_connections = known_connections
        self._naming = replica.naming
        self._timing = replica.timing
        self._replica = replica.id
        # A name of its own: an upload of this very process must wait for a deletion under way, as any other must.
        self._sweeper = f"{replica.id}-sweeper"
        self._clock = clock
        self._flights: Flights[Uploaded] = Flights(replica.timing.patience_seconds)

    async def ensure(self, material: Material) -> Uploaded:
        """The object of this material at Telnyx, whoever asked for it first. Raises Busy and CarrierErrors."""
        fingerprint = self._naming.push_fingerprint(material.identity)
        return await self._flights.join(fingerprint, None, lambda: self._within_deadline(fingerprint, material))

    async def drain(self) -> None:
        """Wait until nothing is being uploaded."""
        await self._flights.drain()

    async def _within_deadline(self, fingerprint: str, material: Material) -> Uploaded:
        try:
            async with asyncio.timeout(self._timing.flight_seconds):
                while True:
                    with suppress(PushMoved):
                        if (uploaded := await self._attempt(fingerprint, material)) is not None:
                            return uploaded
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise CarrierUnreachable(may_have_happened=True) from error

    async def _attempt(self, fingerprint: str, material: Material) -> Uploaded | None:
        """What the row says decides. None: another replica is at work on it."""
        row = await self._ledger.object(fingerprint)
        now = self._clock()
        if row is None:
            row = self._intent(fingerprint, material, now)
            await self._ledger.open_object(row)
            return await self._upload(row, material)
        if row.is_claimed_by_other(self._replica, now):
            return None
        if row.stage is Stage.ACTIVE and await self._is_there(row):
            return Uploaded(row, is_new=False)
        row = await self._ledger.advance_object(row, row.taken_over(self._replica, now, self._timing.claim))
        try:
            found = await self._find(row)
        except DialtoneError:
            await self._release(row)
            raise
        if found is not None:
            return await self._activate(row, found)
        return await self._upload(row, material)

    def _intent(self, fingerprint: str, material: Material, now: datetime) -> PushObject:
        return PushObject(
            fingerprint=fingerprint,
            type=material.type,
            telnyx_alias=self._naming.push_alias(fingerprint),
            stage=Stage.PENDING,
            version=1,
            app_id=material.app_id,
            fingerprint_sha256=material.fingerprint_sha256,
            not_after=material.not_after,
            created_at=now,
            updated_at=now,
            claimed_by=self._replica,
            claimed_until=now + self._timing.claim,
        )

    async def _upload(self, row: PushObject, material: Material) -> Uploaded:
        try:
            credential_id = await self._carrier.upload(row.telnyx_alias, material.upload)
        except CarrierError as error:
            # A refusal may mean that the alias is taken: by an upload that we did not hear the answer of.
            may_be_there = error.may_have_happened or isinstance(error, CarrierRejected)
            found = await self._glance(row) if may_be_there else None
            if found is None:
                await self._give_up(row, error)
                raise
            return await self._activate(row, found)
        return await self._activate(row, credential_id)

    async def _activate(self, row: PushObject, credential_id: str) -> Uploaded:
        row = await self._ledger.advance_object(row, row.activated(credential_id, self._clock()))
        return Uploaded(row, is_new=True)

    async def _give_up(self, row: PushObject, error: CarrierError) -> None:
        with suppress(PushMoved, LedgerUnavailable):
            if error.may_have_happened:
                await self._ledger.advance_object(row, row.released(self._clock()))
            else:
                await self._ledger.drop_object(row)

    async def _release(self, row: PushObject) -> None:
        with suppress(PushMoved, LedgerUnavailable):
            await self._ledger.advance_object(row, row.released(self._clock()))

    async def _is_there(self, row: PushObject) -> bool:
        return row.credential_id is not None and await self._carrier.exists(row.credential_id)

    async def _find(self, row: PushObject) -> str | None:
        """By alias; an absence is believed only after a list has had time to settle."""
        found = await self._carrier.by_alias(row.telnyx_alias)
        if found is None and self._clock() < row.created_at + SETTLING:
            await asyncio.sleep(SETTLING.total_seconds())
            found = await self._carrier.by_alias(row.telnyx_alias)
        return found

    async def _glance(self, row: PushObject) -> str | None:
        with suppress(CarrierError):
            return await self._carrier.by_alias(row.telnyx_alias)
        return None

    # -- cleaning up ------------------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Delete at Telnyx what nobody wants any more. How many are gone; Telnyx's trouble only postpones one."""
        gone = 0
        async for row in self._unwanted():
            with suppress(PushMoved, CarrierError):
                gone += await self._delete(row)
        return gone

    async def _unwanted(self) -> AsyncIterator[PushObject]:
        now = self._clock()
        for row in await self._ledger.unwanted_objects(now, now - STALE, ROWS_A_RUN):
            if row.is_claimed_by_other(self._sweeper, now):
                continue
            with suppress(PushMoved):
                if row.stage is not Stage.LEAVING:
                    row = await self._ledger.retire_object(row, row.leaving(now))
                yield row

    async def _delete(self, row: PushObject) -> bool:
        """The next try is written down before Telnyx is asked; who wants the object meanwhile waits for the claim."""
        now = self._clock()
        delay = min(FIRST_RETRY * 2 ** min(row.attempts, 10), LAST_RETRY)
        row = await self._ledger.advance_object(row, row.deleting(self._sweeper, now, self._timing.claim, now + delay))
        credential_id = row.credential_id or await self._carrier.by_alias(row.telnyx_alias)
        if credential_id is not None:
            if await self._is_in_use(row, credential_id):
                await self._ledger.advance_object(
                    row, row.deleting(self._sweeper, now, timedelta(0), now + IN_USE_RETRY)
                )
                return False
            with suppress(CarrierNotFound):
                await self._carrier.delete(credential_id)
        await self._ledger.drop_object(row)
        return True

    async def _is_in_use(self, row: PushObject, credential_id: str) -> bool:
        """Whether a connection was pointed at it beside us, in Telnyx's portal for instance."""
        for connection_id in {*self._known_connections(), *await self._ledger.connections()}:
            with suppress(CarrierNotFound):
                if (await self._connections.attached(connection_id)).get(row.type) == credential_id:
                    return True
        return False
