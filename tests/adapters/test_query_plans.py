"""Whatever the service asks of its ledger, an index answers: no statement reads a table from end to end."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.adapters.ledger.engines import database_url, open_engine
from app.sandbox.account import DEMO_CONNECTION
from benchmarks import million
from tests.api.pushing import register
from tests.api.test_audit import operate
from tests.material import android
from tests.stage import DAY, ISSUER, Service, Telnyx, service_in_front_of, token

SMALL = {"alembic_version", "key_refreshes", "sweep_runs"}
"""A row for the schema, one an issuer, and one for each sweep that somebody asked for."""

LEASES = 3000

Statements = dict[str, Any]


@pytest.fixture
def statements() -> Iterator[Statements]:
    """Every statement that reads or changes rows, with the parameters that it came with first."""
    seen: Statements = {}

    def hear(_: Any, __: Any, statement: str, parameters: Any, ___: Any, is_many: bool) -> None:
        if re.match(r"SELECT|UPDATE|DELETE", statement) and " FROM pg_catalog" not in statement:
            seen.setdefault(statement, parameters[0] if is_many else parameters)

    sa.event.listen(sa.Engine, "before_cursor_execute", hear)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", hear)


async def everything(service: Service) -> None:
    """What users, operators and the service itself do, each once."""
    mine = (await service.issue("laptop", label="Mine")).json()["id"]
    await service.issue("phone")
    await service.ask("GET", params={"limit": 1})
    cursor = (await service.ask("GET", params={"limit": 1})).json()["next_cursor"]
    await service.ask("GET", params={"cursor": cursor})
    await service.ask("GET", f"/{mine}")
    await service.ask("PATCH", f"/{mine}", json={"label": "Ours", "ttl_seconds": 3600})
    await service.ask("POST", f"/{mine}/token")
    pushed = (await register(service, android("pushed"))).json()
    headers = {"Authorization": f"Bearer {token()}"}
    for method, path in (("GET", ""), ("GET", f"/{pushed['id']}")):
        await service.client.request(method, f"/v1/push-credentials{path}", headers=headers)
    await service.client.put(f"/v1/push-credentials/{pushed['id']}", headers=headers, json=android("pushed", key=1))
    for criteria in (
        {},
        {"subject": "alice"},
        {"subject": "alice", "issuer": ISSUER},
        {"state": "active"},
        {"connection_id": DEMO_CONNECTION},
        {"sip_username": "gencredm7"},
        {"device_id": "laptop"},
        {"platform": "browser"},
    ):
        await operate(service, "GET", "/leases", **criteria)
    page = (await operate(service, "GET", "/leases", limit=1)).json()
    await operate(service, "GET", "/leases", cursor=page["next_cursor"], limit=1)
    await operate(service, "GET", f"/leases/{mine}")
    await operate(service, "GET", "/dialable", issuer=ISSUER, subject="alice")
    await operate(service, "GET", "/sip-users/gencredm7")
    for audited in ({}, {"subject": "alice"}, {"device_id": "laptop"}, {"action": "issued"}, {"request_id": "x"}):
        await operate(service, "GET", "/audit", **audited)
    await operate(service, "GET", "/activity")
    await operate(service, "GET", "/state")
    await operate(service, "POST", "/keys/refresh", {"issuer": ISSUER})
    await service.ask("DELETE", f"/{mine}")
    await operate(service, "DELETE", f"/leases/{page['data'][0]['id']}")
    await operate(service, "POST", "/revocations", {"issuer": ISSUER, "subject": "bob", "refuse_tokens": True})
    whole = {"connection_id": "another", "confirm": "dialtone"}
    await operate(service, "POST", "/revocations", whole)
    await service.ask("DELETE")
    service.clock.advance(timedelta(hours=1))
    components = service.components
    await components.upkeep.change_poller.look()
    await components.upkeep.sweeper.sweep()
    await components.upkeep.warm_pool.tend()
    await components.upkeep.reconciler.walk()
    await components.push.uploads.sweep()
    await components.push.expiry_alerts.look()
    await components.operators.leases.count()
    await components.audit.tidy()
    service.clock.advance(40 * DAY)
    await components.upkeep.sweeper.sweep()
    await components.audit.tidy()


async def plan_of(connection: AsyncConnection, statement: str, parameters: Any) -> list[str]:
    how = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    rows = (await connection.exec_driver_sql(how + statement, parameters)).all()
    return [str(row[-1]) for row in rows]


def scans(plan: list[str]) -> list[str]:
    """Tables that are read from end to end."""
    found = []
    for line in plan:
        sqlite = re.match(r"SCAN (\w+)$", line.strip())
        postgres = re.search(r"Seq Scan on (\w+)", line)
        if match := sqlite or postgres:
            found.append(match[1])
    return [table for table in found if table not in SMALL and not table.startswith("anon")]


async def test_every_statement_goes_by_an_index(telnyx: Telnyx, database: str, statements: Statements) -> None:
    async with service_in_front_of(telnyx, database, pool_size=1) as service:
        await million.fill(database, LEASES)
        await everything(service)
    assert len(statements) > 50, "else this test would show little"

    engine = open_engine(database_url(database))
    async with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            # A planner that knows how few rows there are reads them all; what matters is what it can do with many.
            await connection.exec_driver_sql("SET enable_seqscan = off")
        without = await plan_of(connection, "SELECT id FROM leases WHERE label = 'x'", ())
        assert scans(without) == ["leases"], "a statement that no index answers is found out"
        asked = dict(statements)
        read = {sql: found for sql, values in asked.items() if (found := scans(await plan_of(connection, sql, values)))}
    await engine.dispose()

    assert read == {}
