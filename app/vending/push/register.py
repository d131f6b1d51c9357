"""Registering push credentials: a user's aliases for push material. Start reading at `PushRegistrar.register`."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
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
"""Push credentials per user: a person has few apps."""

MAX_ATTEMPTS = 5
"""How often a registration is attempted if its object is deleted or its row changes meanwhile."""

REMEMBERED_UPLOADS = 32
FIRST_GUESS_SECONDS = 0.3
"""Assumed duration of an upload until one has been measured."""


class RegisterLedger(Protocol):
    """The part of the ledger that holds registrations. Every method raises LedgerUnavailable."""

    async def registered(self, user_key: UserKey, registration_id: str) -> RegisteredPush | None: ...

    async def registered_as(self, user_key: UserKey, alias: str) -> RegisteredPush | None: ...

    async def registrations(self, user_key: UserKey) -> list[RegisteredPush]: ...

    async def register(self, new: PushRegistration, most: int) -> None:
        """Insert. Raises PushLimitReached, or PushConflict if the alias is taken or the object is not ACTIVE."""

    async def reregister(self, before: PushRegistration, after: PushRegistration) -> None:
        """Write `after`. An object without any reference left becomes DELETING in the same transaction.

        Raises PushConflict if the row changed, the alias is taken, or the new object is not ACTIVE.
        """

    async def deregister(self, registration: PushRegistration, now: datetime) -> None:
        """Delete the row. An object without any reference left becomes DELETING in the same transaction."""


class UploadEstimate:
    """Delays a registration without an upload, because its speed would reveal that another user has the material."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: deque[float] = deque(maxlen=REMEMBERED_UPLOADS)

    def now(self) -> float:
        return self._monotonic()

    def uploaded(self, began: float) -> None:
        """Record the duration of a registration with an upload."""
        self._seen.append(self._monotonic() - began)

    async def keep(self, began: float) -> None:
        """Wait until the registration has taken as long as a random recent upload."""
        usual = random.choice(self._seen) if self._seen else FIRST_GUESS_SECONDS  # noqa: S311 - a delay, not a secret
        await asyncio.sleep(max(0.0, began + usual - self._monotonic()))


class PushRegistrar:
    """A user's own push credentials."""

    def __init__(
        self,
        *,
        policy: ActivePolicy,
        check_known: Callable[[Principal], Awaitable[None]],
        ledger: RegisterLedger,
        uploads: PushUploader,
        attacher: PushAttacher,
        audit: Audit,
        estimate: UploadEstimate,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        wake_sweeper: Callable[[], None],
    ) -> None:
        """`check_known` rejects a grant without a row: see `DeviceBinding.check_known`."""
        self._policy = policy
        self._check_known = check_known
        self._ledger = ledger
        self._uploads = uploads
        self._attacher = attacher
        self._audit = audit
        self._estimate = estimate
        self._clock = clock
        self._new_id = new_id
        self._wake_sweeper = wake_sweeper

    async def authorize(self, principal: Principal) -> None:
        """Raises InsufficientScope, PushNotAllowed or TokenRejected. Call it before material is parsed."""
        self._policy.authorize_push(principal)
        await self._check_known(principal)

    async def register(self, principal: Principal, alias: str, report: MaterialReport) -> tuple[RegisteredPush, bool]:
        """Register checked material. Returns the registration and whether it is new. Idempotent.

        Raises PushMaterialRejected, PushAliasTaken if the alias belongs to other material, and what an upload raises.
        """
        await self.authorize(principal)
        material = _valid_material(report)
        for _ in range(MAX_ATTEMPTS):
            with suppress(PushConflict):
                known = await self._ledger.registered_as(principal.user_key, alias)
                if known is not None and not _is_same(known.object, material):
                    raise PushAliasTaken(known.registration.id)
                if known is not None:
                    return await self._confirm_object(principal, known, material), False
                push_object = await self._ensure_object(material)
                now = self._clock()
                new = PushRegistration(
                    self._new_id(),
                    principal.issuer,
                    principal.subject,
                    alias,
                    push_object.fingerprint,
                    now,
                    now,
                )
                await self._ledger.register(new, MAX_REGISTRATIONS)
                await self._record("registered", new, push_object)
                return await self.get(principal, new.id), True
        raise PushConflict

    async def replace(
        self, principal: Principal, registration_id: str, alias: str, report: MaterialReport
    ) -> RegisteredPush:
        """Change the material, the alias or both under the same id. At every moment, one credential is registered.

        A connection that uses the old material is switched to the new one if both are of the same app, and either the
        user is the only holder of the old one or the caller is an operator of all issuers. Every step can be
        repeated: the same PUT completes an interrupted one.
        """
        await self.authorize(principal)
        material = _valid_material(report)
        for _ in range(MAX_ATTEMPTS):
            with suppress(PushConflict):
                before = await self.get(principal, registration_id)
                if before.object.type is not material.type:
                    raise PushTypeMismatch
                other = await self._ledger.registered_as(principal.user_key, alias)
                if other is not None and other.registration.id != registration_id:
                    raise PushAliasTaken(other.registration.id)
                push_object = await self._ensure_object(material)
                if push_object.fingerprint != before.object.fingerprint and push_object.app_id == before.object.app_id:
                    is_operator = self._policy.is_operator_of_all(principal)
                    await self._attacher.follow(before.object, push_object, is_operator=is_operator)
                after = PushRegistration(
                    registration_id,
                    principal.issuer,
                    principal.subject,
                    alias,
                    push_object.fingerprint,
                    before.registration.created_at,
                    self._clock(),
                )
                await self._ledger.reregister(before.registration, after)
                self._wake_sweeper()
                await self._record("replaced", after, push_object)
                return await self.get(principal, registration_id)
        raise PushConflict

    async def get(self, principal: Principal, registration_id: str) -> RegisteredPush:
        """Raises PushCredentialNotFound, also for another user's registration."""
        await self.authorize(principal)
        found = await self._ledger.registered(principal.user_key, registration_id)
        if found is None:
            raise PushCredentialNotFound
        return found

    async def list(self, principal: Principal) -> list[RegisteredPush]:
        await self.authorize(principal)
        return await self._ledger.registrations(principal.user_key)

    async def delete(self, principal: Principal, registration_id: str) -> None:
        """Raises PushCredentialNotFound. The sweeper deletes the object at Telnyx if no registration is left."""
        found = await self.get(principal, registration_id)
        await self._ledger.deregister(found.registration, self._clock())
        self._wake_sweeper()
        await self._record("removed", found.registration, found.object)

    async def _confirm_object(
        self, principal: Principal, known: RegisteredPush, material: PushMaterial
    ) -> RegisteredPush:
        """The registration, after its object is uploaded again in case it was deleted at Telnyx.

        Objects are identified by a keyed hash. If the key has changed since, the registration moves to the new object.
        """
        push_object = (await self._uploads.ensure(material, known.registration.fingerprint)).object
        if push_object.fingerprint == known.registration.fingerprint:
            return known
        moved = replace(known.registration, fingerprint=push_object.fingerprint, updated_at=self._clock())
        await self._ledger.reregister(known.registration, moved)
        self._wake_sweeper()
        return await self.get(principal, moved.id)

    async def _ensure_object(self, material: PushMaterial) -> PushObject:
        """The object at Telnyx. This takes the same time whether it exists or is uploaded now."""
        began = self._estimate.now()
        uploaded = await self._uploads.ensure(material)
        if uploaded.is_new:
            self._estimate.uploaded(began)
        else:
            await self._estimate.keep(began)
        return uploaded.object

    async def _record(self, reason: str, registration: PushRegistration, push_object: PushObject) -> None:
        """Record a change, before the ledger is read again: that may fail, and a repeated request changes nothing."""
        details = {
            "registration_id": registration.id,
            "type": push_object.type.value,
            "app_id": push_object.app_id,
            "fingerprint_sha256": push_object.fingerprint_sha256,
        }
        await self._audit.record(
            Decision(AuditAction.PUSH_CHANGED, reason=reason, user_key=registration.user_key, details=details)
        )


def _valid_material(report: MaterialReport) -> PushMaterial:
    if report.material is None:
        raise PushMaterialRejected(report.faults)
    return report.material


def _is_same(push_object: PushObject, material: PushMaterial) -> bool:
    return push_object.type is material.type and push_object.fingerprint_sha256 == material.fingerprint_sha256
