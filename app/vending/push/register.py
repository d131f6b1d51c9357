"""Registering push credentials: a user's aliases for push material. Follow `PushRegistrar.register` from the top."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from app.vending.audit import Audit, AuditAction, Decision
from app.vending.errors import (
    PushAliasTaken,
    PushConflict,
    PushCredentialNotFound,
    PushMaterialRejected,
    PushTypeMismatch,
)
from app.vending.models import Principal, UserKey
from app.vending.policy import ActivePolicy
from app.vending.push.attach import PushAttacher
from app.vending.push.material_errors import MaterialReport
from app.vending.push.models import PushMaterial, PushObject, PushRegistration, RegisteredPush
from app.vending.push.upload import PushUploader

MAX_REGISTRATIONS = 20
"""Push credentials of one user: a person has few apps."""

MAX_ATTEMPTS = 5
"""How often a registration is begun anew because its object left, or its row moved, in between."""

REMEMBERED_UPLOADS = 32
FIRST_GUESS_SECONDS = 0.3
"""How long an upload takes, as long as none was seen."""


class RegisterLedger(Protocol):
    """What is written down of registrations. Every method raises LedgerUnavailable when it cannot be."""

    async def registered(self, user_key: UserKey, registration_id: str) -> RegisteredPush | None: ...

    async def registered_as(self, user_key: UserKey, alias: str) -> RegisteredPush | None: ...

    async def registrations(self, user_key: UserKey) -> list[RegisteredPush]: ...

    async def register(self, new: PushRegistration, most: int) -> None:
        """Insert. Raises PushLimitReached, or PushConflict if the alias is taken or the object is not ACTIVE."""

    async def reregister(self, before: PushRegistration, after: PushRegistration) -> None:
        """Write `after`. An object that nothing refers to any more becomes LEAVING in the same transaction.

        Raises PushConflict if the row changed, the alias is taken, or the new object is not ACTIVE by now.
        """

    async def deregister(self, registration: PushRegistration, now: datetime) -> None:
        """Delete the row. An object that nothing refers to any more becomes LEAVING in the same transaction."""


class UploadEstimate:
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
        policy: ActivePolicy,
        ledger: RegisterLedger,
        uploads: PushUploader,
        attacher: PushAttacher,
        audit: Audit,
        estimate: UploadEstimate,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        wake_sweeper: Callable[[], None],
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._uploads = uploads
        self._attaching = attacher
        self._audit = audit
        self._pace = estimate
        self._clock = clock
        self._new_id = new_id
        self._wake_sweeper = wake_sweeper

    def authorize(self, principal: Principal) -> None:
        """Raises InsufficientScope or PushNotAllowed. To be asked before material is looked at."""
        self._policy.authorize_push(principal)

    async def register(self, principal: Principal, alias: str, report: MaterialReport) -> tuple[RegisteredPush, bool]:
        """The user's registration of checked material, and whether it is new. The same twice is the same once.

        Raises PushMaterialRejected, PushAliasTaken where the alias has other material, and what an upload raises.
        """
        self.authorize(principal)
        material = _good(report)
        for _ in range(MAX_ATTEMPTS):
            with suppress(PushConflict):
                known = await self._ledger.registered_as(principal.user_key, alias)
                if known is not None and not _is_same(known.object, material):
                    raise PushAliasTaken(known.registration.id)
                if known is not None:
                    return await self._still_held(principal, known, material), False
                held = await self._held(material)
                now = self._clock()
                new = PushRegistration(
                    self._new_id(),
                    principal.issuer,
                    principal.subject,
                    alias,
                    held.fingerprint,
                    now,
                    now,
                )
                await self._ledger.register(new, MAX_REGISTRATIONS)
                return await self._told("registered", await self.get(principal, new.id)), True
        raise PushConflict

    async def replace(
        self, principal: Principal, registration_id: str, alias: str, report: MaterialReport
    ) -> RegisteredPush:
        """Other material, another alias, or both, under the same id; no moment without a credential in between.

        A connection that uses the old material is pointed at the new one, if that is the same app's and nobody else
        holds the old one (or an operator asks). Each step can be taken again: the same PUT finishes what was left.
        """
        self.authorize(principal)
        material = _good(report)
        for _ in range(MAX_ATTEMPTS):
            with suppress(PushConflict):
                before = await self.get(principal, registration_id)
                if before.object.type is not material.type:
                    raise PushTypeMismatch
                other = await self._ledger.registered_as(principal.user_key, alias)
                if other is not None and other.registration.id != registration_id:
                    raise PushAliasTaken(other.registration.id)
                held = await self._held(material)
                if held.fingerprint != before.object.fingerprint and held.app_id == before.object.app_id:
                    await self._attaching.follow(before.object, held, is_operator=self._is_operator(principal))
                after = PushRegistration(
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
                return await self._told("replaced", await self.get(principal, registration_id))
        raise PushConflict

    async def get(self, principal: Principal, registration_id: str) -> RegisteredPush:
        """Raises PushCredentialNotFound, for another user's as for none."""
        self.authorize(principal)
        found = await self._ledger.registered(principal.user_key, registration_id)
        if found is None:
            raise PushCredentialNotFound
        return found

    async def list(self, principal: Principal) -> list[RegisteredPush]:
        self.authorize(principal)
        return await self._ledger.registrations(principal.user_key)

    async def delete(self, principal: Principal, registration_id: str) -> None:
        """Raises PushCredentialNotFound. The sweeper deletes at Telnyx what has no registration left."""
        found = await self.get(principal, registration_id)
        await self._ledger.deregister(found.registration, self._clock())
        self._wake_sweeper()
        await self._told("removed", found)

    async def _still_held(self, principal: Principal, known: RegisteredPush, material: PushMaterial) -> RegisteredPush:
        """The registration once its object is certainly there: made anew, should somebody have deleted it at Telnyx.

        Objects are told apart by a keyed hash. Where that key was changed since, the registration moves to the new one.
        """
        held = (await self._uploads.ensure(material)).object
        if held.fingerprint == known.registration.fingerprint:
            return known
        moved = replace(known.registration, fingerprint=held.fingerprint, updated_at=self._clock())
        await self._ledger.reregister(known.registration, moved)
        self._wake_sweeper()
        return await self.get(principal, moved.id)

    async def _held(self, material: PushMaterial) -> PushObject:
        """The object at Telnyx; found there or made, it takes the same time."""
        began = self._pace.now()
        uploaded = await self._uploads.ensure(material)
        if uploaded.is_new:
            self._pace.uploaded(began)
        else:
            await self._pace.keep(began)
        return uploaded.object

    async def _told(self, reason: str, registered: RegisteredPush) -> RegisteredPush:
        row, held = registered.registration, registered.object
        details = {
            "registration_id": row.id,
            "type": held.type.value,
            "app_id": held.app_id,
            "fingerprint_sha256": held.fingerprint_sha256,
        }
        user_key = UserKey(row.issuer, row.subject)
        await self._audit.record(Decision(AuditAction.PUSH_CHANGED, reason=reason, user_key=user_key, details=details))
        return registered

    def _is_operator(self, principal: Principal) -> bool:
        return self._policy.is_operator(principal)


def _good(report: MaterialReport) -> PushMaterial:
    if report.material is None:
        raise PushMaterialRejected(report.faults)
    return report.material


def _is_same(held: PushObject, material: PushMaterial) -> bool:
    return held.type is material.type and held.fingerprint_sha256 == material.fingerprint_sha256
