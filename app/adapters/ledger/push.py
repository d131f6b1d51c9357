"""Push objects, registrations and attachments in the ledger. Only public facts of the material are stored."""

from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.adapters.ledger.database import Database, is_duplicate, one_at_a_time
from app.adapters.ledger.group_commit import Work
from app.adapters.ledger.outbox import EventOutbox
from app.adapters.ledger.tables import push_attachments, push_objects, push_registrations, visible
from app.vending.errors import LedgerUnavailable, PushConflict, PushLimitReached
from app.vending.events.models import push_expiring_event, push_registered_event
from app.vending.models import UserKey
from app.vending.push.models import PushObject, PushObjectUse, PushRegistration, PushState, PushType, RegisteredPush
from app.vending.visibility import Visibility

_OBJECT_FIELDS = tuple(field.name for field in fields(PushObject))
_REGISTRATION_FIELDS = tuple(field.name for field in fields(PushRegistration))
_IS_ATTACHED = (
    sa.select(push_attachments.c.fingerprint)
    .where(push_attachments.c.fingerprint == push_objects.c.fingerprint)
    .exists()
)
_IS_REGISTERED = (
    sa.select(push_registrations.c.id).where(push_registrations.c.fingerprint == push_objects.c.fingerprint).exists()
)
_REGISTERED = sa.select(
    *(column.label(f"registration_{column.name}") for column in push_registrations.c),
    *(column.label(f"object_{column.name}") for column in push_objects.c),
    _IS_ATTACHED.label("is_attached"),
).join_from(push_registrations, push_objects, push_objects.c.fingerprint == push_registrations.c.fingerprint)


class SqlPush:
    """Stores push credentials. Every method raises LedgerUnavailable if the database fails."""

    def __init__(self, database: Database, outbox: EventOutbox | None = None) -> None:
        """`outbox` gets the events of registrations and expiry warnings."""
        self._database = database
        self._outbox = outbox

    # -- objects ------------------------------------------------------------------------------------------------

    async def object(self, fingerprint: str) -> PushObject | None:
        found = await self._objects(push_objects.c.fingerprint == fingerprint)
        return found[0] if found else None

    async def object_of_credential(self, credential_id: str) -> PushObject | None:
        found = await self._objects(push_objects.c.credential_id == credential_id)
        return found[0] if found else None

    async def open_object(self, new: PushObject) -> None:
        def work(connection: sa.Connection) -> None:
            connection.execute(push_objects.insert().values(asdict(new)))

        await self._write_unique(work)

    async def advance_object(self, before: PushObject, after: PushObject) -> PushObject:
        await self._database.write(lambda connection: _advance(connection, before, after))
        return after

    async def retire_object(self, before: PushObject, after: PushObject) -> PushObject:
        def work(connection: sa.Connection) -> None:
            _lock(connection, before.fingerprint)
            _advance(connection, before, after, ~_IS_REGISTERED, ~_IS_ATTACHED)

        await self._database.write(work)
        return after

    async def drop_object(self, before: PushObject) -> None:
        is_before = sa.and_(push_objects.c.fingerprint == before.fingerprint, push_objects.c.version == before.version)
        await self._database.write(lambda connection: _change_one(connection, push_objects.delete().where(is_before)))

    async def unwanted_objects(self, now: datetime, stale_before: datetime, limit: int) -> list[PushObject]:
        at = push_objects.c
        is_old = at.updated_at <= stale_before
        found: list[PushObject] = []
        for condition in (
            sa.and_(at.state == PushState.DELETING.value, at.retry_at <= now),
            sa.and_(at.state == PushState.PENDING.value, is_old),
            sa.and_(at.state == PushState.ACTIVE.value, is_old, ~_IS_REGISTERED, ~_IS_ATTACHED),
        ):
            found += await self._objects(condition, limit=limit - len(found))
        return found

    async def expiring_objects(self, limit: int) -> list[PushObject]:
        expires = sa.and_(push_objects.c.not_after.is_not(None), push_objects.c.state == PushState.ACTIVE.value)
        return await self._objects(expires, order=push_objects.c.not_after, limit=limit)

    async def objects_in_use(self, visibility: Visibility, limit: int) -> list[PushObjectUse]:
        """The objects, newest first. With bound visibility, only those that users of visible issuers registered.

        Registrations of other issuers' users do not count.
        """
        at = push_registrations.c
        is_of_object = sa.and_(at.fingerprint == push_objects.c.fingerprint, visible(at.issuer, visibility))
        query = sa.select(
            push_objects,
            sa.select(sa.func.min(at.id)).where(is_of_object).scalar_subquery().label("registration_id"),
            sa.select(sa.func.count()).where(is_of_object).scalar_subquery().label("holders"),
            _IS_ATTACHED.label("is_attached"),
        )
        if visibility.issuers is not None:
            query = query.where(sa.exists().where(is_of_object))
        rows = await self._database.rows(query.order_by(push_objects.c.created_at.desc()).limit(limit))
        return [
            PushObjectUse(_object(row), row["registration_id"], row["holders"], bool(row["is_attached"]))
            for row in rows
        ]

    async def note_warning(self, before: PushObject, days: int) -> None:
        # The version stays unchanged, so that a warning does not conflict with a concurrent change.
        at = push_objects.c
        is_first = sa.or_(at.warned_days.is_(None), at.warned_days > days)
        update = push_objects.update().where(at.fingerprint == before.fingerprint, is_first).values(warned_days=days)

        def work(connection: sa.Connection) -> None:
            _change_one(connection, update)
            if self._outbox is not None and self._outbox.is_active:
                self._outbox.add(connection, [push_expiring_event(before, self._outbox.now())])

        await self._database.write(work)

    # -- registrations ------------------------------------------------------------------------------------------

    async def registered(self, user_key: UserKey, registration_id: str) -> RegisteredPush | None:
        return await self._registered(push_registrations.c.id == registration_id, _of(user_key))

    async def registered_as(self, user_key: UserKey, alias: str) -> RegisteredPush | None:
        return await self._registered(_of(user_key), push_registrations.c.alias == alias)

    async def registered_anywhere(self, registration_id: str) -> RegisteredPush | None:
        return await self._registered(push_registrations.c.id == registration_id)

    async def registrations(self, user_key: UserKey) -> list[RegisteredPush]:
        query = _REGISTERED.where(_of(user_key)).order_by(push_registrations.c.created_at, push_registrations.c.id)
        return [_registered(row) for row in await self._database.rows(query)]

    async def holders_of(self, fingerprint: str) -> int:
        (row,) = await self._database.rows(_count_holders(fingerprint))
        return int(row["holders"])

    async def register(self, new: PushRegistration, most: int) -> None:
        count = sa.select(sa.func.count()).select_from(push_registrations).where(_of(new.user_key))

        def work(connection: sa.Connection) -> None:
            one_at_a_time(connection, new.user_key)
            if (connection.scalar(count) or 0) >= most:
                raise PushLimitReached
            _check_active(connection, new.fingerprint)
            connection.execute(push_registrations.insert().values(asdict(new)))
            self._report(connection, new)

        await self._write_unique(work)

    async def reregister(self, before: PushRegistration, after: PushRegistration) -> None:
        at = push_registrations.c
        is_before = sa.and_(
            at.id == before.id, at.fingerprint == before.fingerprint, at.updated_at == before.updated_at
        )
        changes = {"alias": after.alias, "fingerprint": after.fingerprint, "updated_at": after.updated_at}

        def work(connection: sa.Connection) -> None:
            # Locked in a fixed order. Otherwise two writers that swap the same materials could deadlock.
            for fingerprint in sorted({before.fingerprint, after.fingerprint}):
                _lock(connection, fingerprint)
            _check_active(connection, after.fingerprint)
            _change_one(connection, push_registrations.update().where(is_before).values(changes))
            if before.fingerprint != after.fingerprint:
                _delete_if_unused(connection, before.fingerprint, after.updated_at)
            self._report(connection, after)

        await self._write_unique(work)

    async def deregister(self, registration: PushRegistration, now: datetime) -> None:
        def work(connection: sa.Connection) -> None:
            _lock(connection, registration.fingerprint)
            connection.execute(push_registrations.delete().where(push_registrations.c.id == registration.id))
            _delete_if_unused(connection, registration.fingerprint, now)

        await self._database.write(work)

    # -- attachments --------------------------------------------------------------------------------------------

    async def connections_of(self, fingerprint: str) -> list[str]:
        query = sa.select(push_attachments.c.connection_id).where(push_attachments.c.fingerprint == fingerprint)
        return [row["connection_id"] for row in await self._database.rows(query)]

    async def connections(self) -> list[str]:
        rows = await self._database.rows(sa.select(push_attachments.c.connection_id).distinct())
        return [row["connection_id"] for row in rows]

    async def set_attached(self, connection_id: str, push_type: PushType, fingerprint: str | None) -> None:
        at = push_attachments.c
        old = sa.and_(at.connection_id == connection_id, at.type == push_type.value)

        def work(connection: sa.Connection) -> None:
            if fingerprint is not None:
                _check_active(connection, fingerprint)
            connection.execute(push_attachments.delete().where(old))
            if fingerprint is not None:
                row = {"connection_id": connection_id, "type": push_type.value, "fingerprint": fingerprint}
                connection.execute(push_attachments.insert().values(row))

        await self._database.write(work)

    # -- rows ---------------------------------------------------------------------------------------------------

    async def _objects(
        self, *conditions: sa.ColumnElement[bool], order: sa.ColumnElement[Any] | None = None, limit: int = 1
    ) -> list[PushObject]:
        by = push_objects.c.updated_at if order is None else order
        query = sa.select(push_objects).where(*conditions).order_by(by).limit(limit)
        return [_object(row) for row in await self._database.rows(query)]

    async def _registered(self, *conditions: sa.ColumnElement[bool]) -> RegisteredPush | None:
        rows = await self._database.rows(_REGISTERED.where(*conditions))
        return _registered(rows[0]) if rows else None

    def _report(self, connection: sa.Connection, registration: PushRegistration) -> None:
        if self._outbox is not None and self._outbox.is_active:
            query = sa.select(push_objects).where(push_objects.c.fingerprint == registration.fingerprint)
            push_object = _object(connection.execute(query).mappings().one())
            self._outbox.add(connection, [push_registered_event(registration, push_object)])

    async def _write_unique(self, work: Work[None]) -> None:
        """Raises PushConflict if another row has the fingerprint or the user's alias."""
        try:
            await self._database.write(work)
        except LedgerUnavailable as error:
            if is_duplicate(error.__cause__):
                raise PushConflict from None
            raise


def _lock(connection: sa.Connection, fingerprint: str) -> None:
    """Lock the object's row, so that registrations and deregistrations of one object are serialized."""
    query = sa.select(push_objects.c.version).where(push_objects.c.fingerprint == fingerprint)
    connection.execute(query.with_for_update())


def _check_active(connection: sa.Connection, fingerprint: str) -> None:
    query = sa.select(push_objects.c.state).where(push_objects.c.fingerprint == fingerprint)
    if connection.scalar(query.with_for_update()) != PushState.ACTIVE.value:
        raise PushConflict


def _delete_if_unused(connection: sa.Connection, fingerprint: str, now: datetime) -> None:
    """Mark an object for deletion if it has no registration left and no connection uses it."""
    query = sa.select(push_objects).where(push_objects.c.fingerprint == fingerprint)
    found = connection.execute(query).mappings().first()
    if found is None or connection.scalar(_count_holders(fingerprint)):
        return
    used = sa.select(push_attachments.c.fingerprint).where(push_attachments.c.fingerprint == fingerprint)
    if connection.scalar(used) is None:
        before = _object(found)
        _advance(connection, before, before.start_deleting(now))


def _advance(
    connection: sa.Connection, before: PushObject, after: PushObject, *conditions: sa.ColumnElement[bool]
) -> None:
    changed = {name: value for name in _OBJECT_FIELDS if (value := getattr(after, name)) != getattr(before, name)}
    is_before = sa.and_(push_objects.c.fingerprint == before.fingerprint, push_objects.c.version == before.version)
    _change_one(connection, push_objects.update().where(is_before, *conditions).values(changed))


def _change_one(connection: sa.Connection, change: sa.Update | sa.Delete) -> None:
    """Raises PushConflict unless the change applies to exactly one row."""
    if connection.execute(change).rowcount != 1:
        raise PushConflict


def _count_holders(fingerprint: str) -> sa.Select[Any]:
    return sa.select(sa.func.count().label("holders")).where(push_registrations.c.fingerprint == fingerprint)


def _of(user_key: UserKey) -> sa.ColumnElement[bool]:
    at = push_registrations.c
    return sa.and_(at.issuer == user_key.issuer, at.subject == user_key.subject)


def _object(row: sa.RowMapping, prefix: str = "") -> PushObject:
    values = {name: row[prefix + name] for name in _OBJECT_FIELDS}
    return PushObject(**{**values, "type": PushType(values["type"]), "state": PushState(values["state"])})


def _registered(row: sa.RowMapping) -> RegisteredPush:
    registration = PushRegistration(**{name: row[f"registration_{name}"] for name in _REGISTRATION_FIELDS})
    return RegisteredPush(registration, _object(row, "object_"), row["is_attached"])
