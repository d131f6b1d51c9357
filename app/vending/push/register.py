"""Registering push credentials: a user's aliases for push material. Follow `PushRegistrar.register` from the top."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from app.vending.audit import Action, Audit, Decision
from app.vending.errors import MaterialRefused, PushAliasTaken, PushMoved, PushNotFound, PushTypeMismatch
from app.vending.models import Owner, Principal
from app.vending.policy import PolicyInForce
from app.vending.push.attach import Attaching
from app.vending.push.material_errors import Report
from app.vending.push.models import Material, PushObject, Registered, Registration
from app.vending.push.upload import Uploads

MOST_REGISTRATIONS = 20
"""Push credentials of one user: a person has few apps."""

TRIES = 5
"""How often a registration is begun anew because its object left, or its row moved, in between."""

REMEMBERED_UPLOADS = 32
FIRST_GUESS_SECONDS = 0.3
"""How long an upload takes, as long as none was seen."""


class Ledger(Protocol):
    """What is written down of registrations. Every method raises LedgerUnavailable when it cannot be."""

    async def registered(self, owner: Owner, registration_id: str) -> Registered | None: ...

    async def registered_as(self, owner: Owner, alias: str) -> Registered | None: ...

    async def registrations(self, owner: Owner) -> list[Registered]: ...

    async def register(self, new: Registration, most: int) -> None:
        """Insert. Raises PushLimitReached, and PushMoved if the alias is taken or the object is not ACTIVE by now."""

    async def reregister(self, before: Registration, after: Registration) -> None:
        """Write `after`. An object that nothing refers to any more becomes LEAVING in the same transaction.

        Raises PushMoved if the row changed, the alias is taken, or the new object is not ACTIVE by now.
        """

    async def deregister(self, registration: Registration, now: datetime) -> None:
        """Delete the row. An object that nothing refers to any more becomes LEAVING in the same transaction."""


class Pace:
    """Lets a registration that needed no upload take as long as one that did: else its speed would tell of others."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: deque[float] = deque(maxlen=REMEMBERED_UPLOADS)

    def now(self) -> float:
        return self._monotonic()

    def uploaded(self, began: float) -> None:
        """An upload was made for this registration."""
        self._seen.append(self._monotonic() - began)

    async def keep(self, began: float) -> None:
        """Wait until a registration begun then might have uploaded: as long as one of the last uploads took."""
        usual = random.choice(self._seen) if self._seen else FIRST_GUESS_SECONDS  # noqa: S311 - a delay, not a secret
        await asyncio.sleep(max(0.0, began + usual - self._monotonic()))


class PushRegistrar:
    """A user's own push credentials."""

    def __init__(
        self,
        *,
        policy: PolicyInForce,
        ledger: Ledger,
        uploads: Uploads,
        attaching: Attaching,
        audit: Audit,
        pace: Pace,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        wake_sweeper: Callable[[], None],
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._uploads = uploads
        self._attaching = attaching
        self._audit = audit
        self._pace = pace
        self._clock = clock
        self._new_id = new_id
        self._wake_sweeper = wake_sweeper

    def admit(self, principal: Principal) -> None:
        """Raises InsufficientScope or PushNotAllowed. To be asked before material is looked at."""
        self._policy.admit_push(principal)

    async def register(self, principal: Principal, alias: str, report: Report) -> tuple[Registered, bool]:
        """The user's registration of checked material, and whether it is new. The same twice is the same once.

        Raises MaterialRefused, PushAliasTaken where the alias has other material, and what an upload raises.
        """
        self.admit(principal)
        material = _good(report)
        for _ in range(TRIES):
            with suppress(PushMoved):
                known = await self._ledger.registered_as(principal.owner, alias)
                if known is not None and not _is_same(known.object, material):
                    raise PushAliasTaken(known.registration.id)
                if known is not None:
                    return await self._still_held(principal, known, material), False
                held = await self._held(material)
                now = self._clock()
                new = Registration(
                    self._new_id(),
                    principal.issuer,
                    principal.subject,
                    alias,
                    held.fingerprint,
                    now,
                    now,
                )
                await self._ledger.register(new, MOST_REGISTRATIONS)
                return await self._told("registered", await self.show(principal, new.id)), True
        raise PushMoved

    async def replace(self, principal: Principal, registration_id: str, alias: str, report: Report) -> Registered:
        """Other material, another alias, or both, under the same id; no moment without a credential in between.

        A connection that uses the old material is pointed at the new one, if that is the same app's and nobody else
        holds the old one (or an operator asks). Each step can be taken again: the same PUT finishes what was left.
        """
        self.admit(principal)
        material = _good(report)
        for _ in range(TRIES):
            with suppress(PushMoved):
                before = await self.show(principal, registration_id)
                if before.object.type is not material.type:
                    raise PushTypeMismatch
                other = await self._ledger.registered_as(principal.owner, alias)
                if other is not None and other.registration.id != registration_id:
                    raise PushAliasTaken(other.registration.id)
                held = await self._held(material)
                if held.fingerprint != before.object.fingerprint and held.app_id == before.object.app_id:
                    await self._attaching.follow(before.object, held, is_operator=self._is_operator(principal))
                after = Registration(
                    registration_id,
                    principal.issuer,
                    principal.subject,
                    alias,
                    held.fingerprint,
                    before.registration.created_at,
                    self._clock(),
                )
                await self._ledger.reregister(before.registration, after)
                self._wake_sweeper()
                return await self._told("replaced", await self.show(principal, registration_id))
        raise PushMoved

    async def show(self, principal: Principal, registration_id: str) -> Registered:
        """Raises PushNotFound, for another user's as for none."""
        self.admit(principal)
        found = await self._ledger.registered(principal.owner, registration_id)
        if found is None:
            raise PushNotFound
        return found

    async def all_of(self, principal: Principal) -> list[Registered]:
        self.admit(principal)
        return await self._ledger.registrations(principal.owner)

    async def leave(self, principal: Principal, registration_id: str) -> None:
        """Raises PushNotFound. What nobody registers any more the sweeper deletes at Telnyx, in its own time."""
        found = await self.show(principal, registration_id)
        await self._ledger.deregister(found.registration, self._clock())
        self._wake_sweeper()
        await self._told("removed", found)

    async def _still_held(self, principal: Principal, known: Registered, material: Material) -> Registered:
        """The registration once its object is certainly there: made anew, should somebody have deleted it at Telnyx.

        Objects are told apart by a keyed hash. Where that key was changed since, the registration moves to the new one.
        """
        held = (await self._uploads.ensure(material)).object
        if held.fingerprint == known.registration.fingerprint:
            return known
        moved = replace(known.registration, fingerprint=held.fingerprint, updated_at=self._clock())
        await self._ledger.reregister(known.registration, moved)
        self._wake_sweeper()
        return await self.show(principal, moved.id)

    async def _held(self, material: Material) -> PushObject:
        """The object at Telnyx; found there or made, it takes the same time."""
        began = self._pace.now()
        uploaded = await self._uploads.ensure(material)
        if uploaded.is_new:
            self._pace.uploaded(began)
        else:
            await self._pace.keep(began)
        return uploaded.object

    async def _told(self, reason: str, registered: Registered) -> Registered:
        row, held = registered.registration, registered.object
        details = {
            "registration_id": row.id,
            "type": held.type.value,
            "app_id": held.app_id,
            "fingerprint_sha256": held.fingerprint_sha256,
        }
        owner = Owner(row.issuer, row.subject)
        await self._audit.record(Decision(Action.PUSHED, reason=reason, owner=owner, details=details))
        return registered

    def _is_operator(self, principal: Principal) -> bool:
        return self._policy.is_operator(principal)


def _good(report: Report) -> Material:
    if report.material is None:
        raise MaterialRefused(report.faults)
    return report.material


def _is_same(held: PushObject, material: Material) -> bool:
    return held.type is material.type and held.fingerprint_sha256 == material.fingerprint_sha256
