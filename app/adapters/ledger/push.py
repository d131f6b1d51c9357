"""Push objects, registrations and attachments in the ledger. Only public facts of the material are stored."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.adapters.ledger.database import Database, is_duplicate, one_at_a_time
from app.adapters.ledger.tables import push_attachments, push_objects, push_registrations
from app.vending.errors import LedgerUnavailable, PushConflict, PushLimitReached
from app.vending.models import UserKey
from app.vending.push.models import PushObject, PushObjectUse, PushRegistration, PushState, PushType, RegisteredPush

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

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- objects ------------------------------------------------------------------------------------------------

    async def object(self, fingerprint: str) -> PushObject | None:
        found = await self._objects(push_objects.c.fingerprint == fingerprint)
        return found[0] if found else None

    async def object_of_credential(self, credential_id: str) -> PushObject | None:
        found = await self._objects(push_objects.c.credential_id == credential_id)
        return found[0] if found else None

    async def open_object(self, new: PushObject) -> None:
        try:
            async with self._database.writing() as connection:
                await connection.execute(push_objects.insert().values(asdict(new)))
        except LedgerUnavailable as error:
            if is_duplicate(error.__cause__):
                raise PushConflict from None
            raise

    async def advance_object(self, before: PushObject, after: PushObject) -> PushObject:
        async with self._database.writing() as connection:
            await _advance(connection, before, after)
        return after

    async def retire_object(self, before: PushObject, after: PushObject) -> PushObject:
        async with self._database.writing() as connection:
            await _lock(connection, before.fingerprint)
            await _advance(connection, before, after, ~_IS_REGISTERED, ~_IS_ATTACHED)
        return after

    async def drop_object(self, before: PushObject) -> None:
        is_before = sa.and_(push_objects.c.fingerprint == before.fingerprint, push_objects.c.version == before.version)
        async with self._database.writing() as connection:
            if (await connection.execute(push_objects.delete().where(is_before))).rowcount != 1:
                raise PushConflict

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

    async def objects_in_use(self, limit: int) -> list[PushObjectUse]:
        """The objects, newest first."""
        at = push_registrations.c
        is_of_object = at.fingerprint == push_objects.c.fingerprint
        query = sa.select(
            push_objects,
            sa.select(sa.func.min(at.id)).where(is_of_object).scalar_subquery().label("registration_id"),
            sa.select(sa.func.count()).where(is_of_object).scalar_subquery().label("holders"),
            _IS_ATTACHED.label("is_attached"),
        )
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
        async with self._database.writing() as connection:
            if (await connection.execute(update)).rowcount != 1:
                raise PushConflict

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
        async with self._database.reading() as connection:
            return await _holders(connection, fingerprint)

    async def register(self, new: PushRegistration, most: int) -> None:
        count = sa.select(sa.func.count()).select_from(push_registrations).where(_of(new.user_key))
        async with self._writing_aliases() as connection:
            await connection.run_sync(one_at_a_time, new.user_key)
            if (await connection.scalar(count) or 0) >= most:
                raise PushLimitReached
            await _check_active(connection, new.fingerprint)
            await connection.execute(push_registrations.insert().values(asdict(new)))

    async def reregister(self, before: PushRegistration, after: PushRegistration) -> None:
        at = push_registrations.c
        is_before = sa.and_(
            at.id == before.id, at.fingerprint == before.fingerprint, at.updated_at == before.updated_at
        )
        changes = {"alias": after.alias, "fingerprint": after.fingerprint, "updated_at": after.updated_at}
        async with self._writing_aliases() as connection:
            # Locked in a fixed order. Otherwise two writers that swap the same materials could deadlock.
            for fingerprint in sorted({before.fingerprint, after.fingerprint}):
                await _lock(connection, fingerprint)
            await _check_active(connection, after.fingerprint)
            if (await connection.execute(push_registrations.update().where(is_before).values(changes))).rowcount != 1:
                raise PushConflict
            if before.fingerprint != after.fingerprint:
                await _delete_if_unused(connection, before.fingerprint, after.updated_at)

    async def deregister(self, registration: PushRegistration, now: datetime) -> None:
        async with self._database.writing() as connection:
            await _lock(connection, registration.fingerprint)
            await connection.execute(push_registrations.delete().where(push_registrations.c.id == registration.id))
            await _delete_if_unused(connection, registration.fingerprint, now)

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
        async with self._database.writing() as connection:
            await connection.execute(push_attachments.delete().where(old))
            if fingerprint is not None:
                await _check_active(connection, fingerprint)
                row = {"connection_id": connection_id, "type": push_type.value, "fingerprint": fingerprint}
                await connection.execute(push_attachments.insert().values(row))

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

    @asynccontextmanager
    async def _writing_aliases(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that raises PushConflict if the user already has the alias."""
        try:
            async with self._database.writing() as connection:
                yield connection
        except LedgerUnavailable as error:
            if is_duplicate(error.__cause__):
                raise PushConflict from None
            raise


async def _lock(connection: AsyncConnection, fingerprint: str) -> None:
    """Lock the object's row, so that registrations and deregistrations of one object are serialized."""
    query = sa.select(push_objects.c.version).where(push_objects.c.fingerprint == fingerprint)
    await connection.execute(query.with_for_update())


async def _check_active(connection: AsyncConnection, fingerprint: str) -> None:
    query = sa.select(push_objects.c.state).where(push_objects.c.fingerprint == fingerprint)
    if await connection.scalar(query.with_for_update()) != PushState.ACTIVE.value:
        raise PushConflict


async def _delete_if_unused(connection: AsyncConnection, fingerprint: str, now: datetime) -> None:
    """Mark an object for deletion if it has no registration left and no connection uses it."""
    found = (
        (await connection.execute(sa.select(push_objects).where(push_objects.c.fingerprint == fingerprint)))
        .mappings()
        .first()
    )
    if found is None or await _holders(connection, fingerprint):
        return
    used = sa.select(push_attachments.c.fingerprint).where(push_attachments.c.fingerprint == fingerprint)
    if await connection.scalar(used) is None:
        before = _object(found)
        await _advance(connection, before, before.start_deleting(now))


async def _advance(
    connection: AsyncConnection, before: PushObject, after: PushObject, *conditions: sa.ColumnElement[bool]
) -> None:
    changed = {name: value for name in _OBJECT_FIELDS if (value := getattr(after, name)) != getattr(before, name)}
    is_before = sa.and_(push_objects.c.fingerprint == before.fingerprint, push_objects.c.version == before.version)
    update = push_objects.update().where(is_before, *conditions).values(changed)
    if (await connection.execute(update)).rowcount != 1:
        raise PushConflict


async def _holders(connection: AsyncConnection, fingerprint: str) -> int:
    holders = sa.select(sa.func.count()).where(push_registrations.c.fingerprint == fingerprint)
    return await connection.scalar(holders) or 0


def _of(user_key: UserKey) -> sa.ColumnElement[bool]:
    at = push_registrations.c
    return sa.and_(at.issuer == user_key.issuer, at.subject == user_key.subject)


def _object(row: sa.RowMapping, prefix: str = "") -> PushObject:
    values = {name: row[prefix + name] for name in _OBJECT_FIELDS}
    return PushObject(**{**values, "type": PushType(values["type"]), "state": PushState(values["state"])})


def _registered(row: sa.RowMapping) -> RegisteredPush:
    registration = PushRegistration(**{name: row[f"registration_{name}"] for name in _REGISTRATION_FIELDS})
    return RegisteredPush(registration, _object(row, "object_"), row["is_attached"])
