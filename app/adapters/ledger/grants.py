"""Grants in the ledger, which all replicas share."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.adapters.ledger.database import Database
from app.adapters.ledger.tables import IS_LIVE, grants, leases, not_before_marks
from app.vending.grants.models import GRANT_ISSUERS, AccessGrant, GrantKind
from app.vending.models import UserKey

BY_ID = sa.select(grants).where(grants.c.id == sa.bindparam("id"))

BIND = (
    grants.update()
    .where(grants.c.id == sa.bindparam("grant_id"), grants.c.device_id.is_(None), grants.c.revoked_at.is_(None))
    .values(device_id=sa.bindparam("device"))
)
"""One conditional statement, so that concurrent requests on any replica bind the grant to one device only."""

ENTRY_KEY = (not_before_marks.c.issuer, not_before_marks.c.reach, not_before_marks.c.name)
"""The primary key of not-before entries."""


class SqlGrants:
    """Stores grants. Every method raises LedgerUnavailable if the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, grant: AccessGrant) -> None:
        row = {
            "id": grant.id,
            "kind": grant.kind.value,
            "subject": grant.subject,
            "backend_issuer": grant.backend.issuer,
            "backend_subject": grant.backend.subject,
            "origin": grant.origin,
            "created_at": grant.created_at,
            "expires_at": grant.expires_at,
        }

        def work(connection: sa.Connection) -> None:
            connection.execute(grants.insert(), row)

        await self._database.write(work)

    async def find(self, grant_id: str) -> AccessGrant | None:
        rows = await self._database.rows(BY_ID, {"id": grant_id})
        return _grant_of(rows[0]) if rows else None

    async def bind(self, grant_id: str, device_id: str) -> bool:
        def work(connection: sa.Connection) -> bool:
            return connection.execute(BIND, {"grant_id": grant_id, "device": device_id}).rowcount == 1

        return await self._database.write(work)

    async def unrevoked(self, backend: UserKey | None, limit: int) -> list[AccessGrant]:
        query = sa.select(grants).where(grants.c.revoked_at.is_(None))
        if backend is not None:
            query = query.where(grants.c.backend_subject == backend.subject, grants.c.backend_issuer == backend.issuer)
        return [_grant_of(row) for row in await self._database.rows(query.limit(limit))]

    async def mark_revoked(self, grant_id: str, now: datetime) -> None:
        update = grants.update().where(grants.c.id == grant_id).values(revoked_at=now)

        def work(connection: sa.Connection) -> None:
            connection.execute(update)

        await self._database.write(work)

    async def delete_expired(self, expired_before: datetime, limit: int) -> int:
        """Delete grants that expired before that moment, unless a live lease was made with them."""
        issuer = sa.case({kind.value: kind.issuer for kind in GrantKind}, value=grants.c.kind)
        in_use = sa.exists().where(leases.c.issuer == issuer, leases.c.session == grants.c.id, IS_LIVE)
        query = sa.select(grants.c.id).where(grants.c.expires_at < expired_before, ~in_use).limit(limit)
        if not (rows := await self._database.rows(query)):
            return 0  # the usual case: no write lock is taken
        delete = grants.delete().where(grants.c.id.in_([row["id"] for row in rows]))

        def work(connection: sa.Connection) -> int:
            return connection.execute(delete).rowcount

        return await self._database.write(work)

    async def delete_not_before(self, set_before: datetime, limit: int) -> int:
        """Delete not-before entries for users, sessions and issuers of grants that are earlier than `set_before`."""
        entry = not_before_marks.c
        is_of_grants = entry.issuer.in_(sorted(GRANT_ISSUERS))
        query = sa.select(*ENTRY_KEY).where(is_of_grants, entry.not_before < set_before)
        query = query.order_by(*ENTRY_KEY).limit(limit)  # sorted, so that two sweepers cannot deadlock
        if not (rows := await self._database.rows(query)):
            return 0  # the usual case: no write lock is taken
        # Compares the time again, because an entry may have been moved to a later time since the query.
        delete = not_before_marks.delete().where(
            *(column == sa.bindparam(f"key_{column.name}") for column in ENTRY_KEY), entry.not_before < set_before
        )
        found = [{f"key_{name}": value for name, value in row.items()} for row in rows]

        def work(connection: sa.Connection) -> None:
            connection.execute(delete, found)

        await self._database.write(work)
        return len(rows)


def _grant_of(row: sa.RowMapping) -> AccessGrant:
    values: dict[str, Any] = dict(row)
    backend = UserKey(values.pop("backend_issuer"), values.pop("backend_subject"))
    return AccessGrant(**{**values, "kind": GrantKind(values["kind"]), "backend": backend})
