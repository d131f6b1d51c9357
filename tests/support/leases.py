"""Leases and credentials as values, and ledgers that already hold many of them."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from app.adapters.ledger.database import Database
from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.leases import SqlLeases
from app.adapters.ledger.tables import lease_of, leases
from app.sandbox.account import DEMO_CONNECTION
from app.vending.errors import DeviceLimitReached
from app.vending.models import Credential, Platform, Principal
from app.vending.telephony.lease import Lease, LeaseState
from tests.support.databases import migrate_database
from tests.support.sandbox import Telnyx
from tests.support.tokens import ISSUER, principal
from tests.support.waiting import DAY

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
LEASE = Lease(
    id="0" * 32,
    issuer="https://id.example.com",
    subject="alice",
    device_id="laptop",
    platform=Platform.BROWSER,
    label=None,
    connection_id="77",
    credential_name="dialtone-" + "0" * 32,
    ttl_seconds=86_400,
    state=LeaseState.ACTIVE,
    version=3,
    created_at=NOW,
    updated_at=NOW,
    expires_at=NOW + timedelta(days=1),
    usable_at=NOW,
)


def pending_lease(device: str = "laptop", number: int = 1, **changes: Any) -> Lease:
    fields: dict[str, Any] = {
        "id": f"{number:032x}",
        "device_id": device,
        "state": LeaseState.PENDING,
        "version": 1,
        "created_at": NOW,
    }
    return replace(LEASE, **(fields | changes))


async def open_lease(ledger: SqlLeases, lease: Lease, max_devices: int = 10, holder: Principal | None = None) -> Lease:
    """Open a lease without evicting another one."""

    def reject(_: list[Lease]) -> list[Lease]:
        raise DeviceLimitReached

    return (await ledger.open(lease, max_devices, holder or principal(), reject)).lease


def credential(number: int = 1) -> Credential:
    return Credential(f"c{number}", "name", "77", f"gencred{number}", NOW + timedelta(hours=1), NOW)


async def insert_devices(telnyx: Telnyx, database: str, count: int) -> None:
    """Insert leases and credentials of `count` devices that logged in yesterday."""
    await migrate_database(database)
    now = telnyx.clock()
    rows = []
    for number in range(count):
        lease_id = f"{number:032x}"
        made = telnyx.sandbox.account.create_credential(
            {"connection_id": DEMO_CONNECTION, "name": f"dialtone-{lease_id}", "expires_at": (now + DAY).isoformat()}
        )
        rows.append(lease_of_device(number, made["id"], made["sip_username"], now + DAY - timedelta(seconds=1)))
    engine = create_async_engine(database_url(database))
    async with engine.begin() as connection:
        await connection.execute(leases.insert(), [asdict(row) for row in rows])
    await engine.dispose()


def lease_of_device(number: int, credential_id: str, sip_username: str, expires_at: object) -> Lease:
    return replace(
        LEASE,
        id=f"{number:032x}",
        issuer=ISSUER,
        subject=f"user-{number}",
        device_id="phone",
        connection_id=DEMO_CONNECTION,
        credential_name=f"dialtone-{number:032x}",
        state=LeaseState.ACTIVE,
        credential_id=credential_id,
        sip_username=sip_username,
        expires_at=expires_at,  # type: ignore[arg-type]
        ttl_seconds=86_400,
    )


async def read_leases(database: str) -> dict[str, Lease]:
    """All leases of the ledger, by id."""
    engine = open_engine(database_url(database))
    rows = await Database(engine).rows(sa.select(leases))
    await engine.dispose()
    return {lease.id: lease for lease in map(lease_of, rows)}
