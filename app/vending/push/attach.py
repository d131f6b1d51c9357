"""Attaching push credentials to Telnyx connections. A connection uses one push credential per platform."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from app.vending.audit import Audit, AuditAction, Decision
from app.vending.errors import ConnectionNotFound, PushCredentialNotFound, PushTypeMismatch, TelnyxNotFound
from app.vending.push.models import PushObject, PushState, PushType, RegisteredPush


class AttachLedger(Protocol):
    async def registered_anywhere(self, registration_id: str) -> RegisteredPush | None:
        """The registration with that id, of any user."""

    async def connections_of(self, fingerprint: str) -> list[str]:
        """Connections that use the object, according to the ledger."""

    async def set_attached(self, connection_id: str, push_type: PushType, fingerprint: str | None) -> None:
        """Raises PushConflict if the object is not ACTIVE."""

    async def holders_of(self, fingerprint: str) -> int:
        """Number of registrations of the object."""

    async def object_of_credential(self, credential_id: str) -> PushObject | None: ...


class AttachTelnyx(Protocol):
    """Both methods raise TelnyxNotFound for an unknown connection, and other TelnyxErrors."""

    async def attached(self, connection_id: str) -> Mapping[PushType, str | None]: ...

    async def attach(self, connection_id: str, wanted: Mapping[PushType, str | None]) -> None: ...


@dataclass(frozen=True, slots=True)
class Attachment:
    """The push credentials that a connection used before and uses now for one platform, by Telnyx's id."""

    push_type: PushType
    before: str | None
    before_object: PushObject | None
    """The ledger's row; None for an object created outside Dialtone."""
    now: str | None
    now_object: PushObject | None


class PushAttacher:
    """Attaches push credentials to connections."""

    def __init__(self, ledger: AttachLedger, telnyx: AttachTelnyx, audit: Audit) -> None:
        self._audit = audit
        self._ledger = ledger
        self._telnyx = telnyx

    async def attach(self, connection_id: str, wanted: Mapping[PushType, str | None]) -> list[Attachment]:
        """Attach these registrations' objects (None: detach). Returns before and after, for both platforms.

        Raises ConnectionNotFound, PushCredentialNotFound or PushTypeMismatch without changing anything.
        """
        objects = {push_type: await self._object(push_type, name) for push_type, name in wanted.items()}
        try:
            before = await self._telnyx.attached(connection_id)
            if objects:
                await self._point(connection_id, objects)
        except TelnyxNotFound:
            raise ConnectionNotFound from None
        if objects:
            apps = {push_type.value: "-" if found is None else found.app_id for push_type, found in objects.items()}
            details = {"connection_id": connection_id, **apps}
            await self._audit.record(Decision(AuditAction.PUSH_CHANGED, reason="attached", details=details))
        return [await self._attachment(push_type, before, objects) for push_type in PushType]

    async def _point(self, connection_id: str, objects: Mapping[PushType, PushObject | None]) -> None:
        # Committed first, so that the sweeper does not delete an object while it is being attached.
        for push_type, found in objects.items():
            if found is not None:
                await self._ledger.set_attached(connection_id, push_type, found.fingerprint)
        ids = {push_type: None if found is None else found.credential_id for push_type, found in objects.items()}
        await self._telnyx.attach(connection_id, ids)
        for push_type, found in objects.items():
            if found is None:
                await self._ledger.set_attached(connection_id, push_type, None)

    async def follow(self, old: PushObject, new: PushObject, *, is_operator: bool) -> None:
        """Attach the new object wherever the old one is, if the caller is its only holder or an operator.

        An operator of some issuers does not count: other holders may belong to other issuers.
        """
        if not is_operator and await self._ledger.holders_of(old.fingerprint) > 1:
            return
        for connection_id in await self._ledger.connections_of(old.fingerprint):
            # A connection that was changed in Telnyx's portal is left alone.
            if (await self._telnyx.attached(connection_id)).get(old.type) in (old.credential_id, new.credential_id):
                await self._telnyx.attach(connection_id, {new.type: new.credential_id})
                await self._ledger.set_attached(connection_id, new.type, new.fingerprint)

    async def _object(self, push_type: PushType, registration_id: str | None) -> PushObject | None:
        if registration_id is None:
            return None
        found = await self._ledger.registered_anywhere(registration_id)
        if found is None or found.object.state is not PushState.ACTIVE:
            raise PushCredentialNotFound
        if found.object.type is not push_type:
            raise PushTypeMismatch
        return found.object

    async def _attachment(
        self, push_type: PushType, before: Mapping[PushType, str | None], objects: Mapping[PushType, PushObject | None]
    ) -> Attachment:
        was = before.get(push_type)
        was_object = None if was is None else await self._ledger.object_of_credential(was)
        if push_type not in objects:
            return Attachment(push_type, was, was_object, was, was_object)
        found = objects[push_type]
        return Attachment(push_type, was, was_object, None if found is None else found.credential_id, found)
