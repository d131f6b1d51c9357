"""Every statement of the service is answered by an index: none scans a whole table."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.adapters.ledger.engines import database_url, open_engine
from app.sandbox.account import DEMO_CONNECTION
from benchmarks import million
from tests.support.admin_api import admin_request
from tests.support.http_server import free_port
from tests.support.push_api import register
from tests.support.push_material import android
from tests.support.sandbox import Telnyx
from tests.support.service import Service, running_service
from tests.support.tokens import ISSUER, token
from tests.support.waiting import DAY
from tests.support.webhooks import Receiver, configure_endpoints

SMALL = {"alembic_version", "key_refreshes", "sweep_runs"}
"""Small tables: one row for the schema, one per issuer, one per requested sweep."""

LEASES = 3000

Statements = dict[str, Any]


@pytest.fixture
def statements() -> Iterator[Statements]:
    """Every statement that reads or changes rows, with its first parameters."""
    seen: Statements = {}

    def record(_: Any, __: Any, statement: str, parameters: Any, ___: Any, is_many: bool) -> None:
        if re.match(r"SELECT|UPDATE|DELETE", statement) and " FROM pg_catalog" not in statement:
            seen.setdefault(statement, parameters[0] if is_many else parameters)

    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", record)


async def use_every_operation(service: Service) -> None:
    """Run every operation of users, operators and the service once."""
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
        await admin_request(service, "GET", "/leases", **criteria)
    page = (await admin_request(service, "GET", "/leases", limit=1)).json()
    await admin_request(service, "GET", "/leases", cursor=page["next_cursor"], limit=1)
    await admin_request(service, "GET", f"/leases/{mine}")
    await admin_request(service, "GET", "/dialable", issuer=ISSUER, subject="alice")
    await admin_request(service, "GET", "/sip-users/gencredm7")
    for audited in ({}, {"subject": "alice"}, {"device_id": "laptop"}, {"action": "issued"}, {"request_id": "x"}):
        await admin_request(service, "GET", "/audit", **audited)
    await admin_request(service, "GET", "/activity")
    await admin_request(service, "GET", "/state")
    await admin_request(service, "POST", "/keys/refresh", {"issuer": ISSUER})
    await service.ask("DELETE", f"/{mine}")
    await admin_request(service, "DELETE", f"/leases/{page['data'][0]['id']}")
    await admin_request(service, "POST", "/revocations", {"issuer": ISSUER, "subject": "bob", "refuse_tokens": True})
    whole = {"connection_id": "another", "confirm": "dialtone"}
    await admin_request(service, "POST", "/revocations", whole)
    await service.ask("DELETE")
    for changes in ({"dry_run": True}, {"confirm": "dialtone"}):
        await admin_request(service, "POST", "/erasures", {"issuer": ISSUER, "subject": "alice", **changes})
    service.clock.advance(timedelta(hours=1))
    components = service.components
    await components.upkeep.change_poller.poll()
    await components.upkeep.sweeper.sweep()
    await components.upkeep.warm_pool.refill()
    await components.upkeep.reconciler.reconcile()
    await components.push.uploads.sweep()
    await components.push.expiry_alerts.check()
    await components.operators.leases.refresh_counts()
    await components.audit.delete_expired()
    await use_events(service)
    service.clock.advance(40 * DAY)
    await components.upkeep.sweeper.sweep()
    await components.audit.delete_expired()


async def use_events(service: Service) -> None:
    """Deliver, give up, list and replay events, which the requests above have caused."""
    deliverer = service.components.events.deliverer
    await deliverer.start()
    await deliverer.finish()
    await admin_request(service, "GET", "/events", state="pending")
    await service.components.ledger.deliveries.bury_oldest("backend", 1, service.clock())
    service.clock.advance(2 * DAY)
    await deliverer.maintain()
    for criteria in ({}, {"endpoint": "backend"}):
        await admin_request(service, "GET", "/events", **criteria)
    page = (await admin_request(service, "GET", "/events", limit=1)).json()
    await admin_request(service, "GET", "/events", cursor=page["next_cursor"])
    for body in ({"event_id": page["data"][0]["event_id"]}, {"endpoint": "backend"}, {}):
        await admin_request(service, "POST", "/events/replays", body)
    service.clock.advance(10 * DAY)
    await deliverer.maintain()


async def plan_of(connection: AsyncConnection, statement: str, parameters: Any) -> list[str]:
    how = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    rows = (await connection.exec_driver_sql(how + statement, parameters)).all()
    return [str(row[-1]) for row in rows]


def scans(plan: list[str]) -> list[str]:
    """Tables that are scanned completely."""
    found = []
    for line in plan:
        sqlite = re.match(r"SCAN (\w+)$", line.strip())
        postgres = re.search(r"Seq Scan on (\w+)", line)
        if match := sqlite or postgres:
            found.append(match[1])
    return [table for table in found if table not in SMALL and not table.startswith("anon")]


@pytest.mark.timeout(300)
async def test_every_statement_uses_an_index(
    telnyx: Telnyx, database: str, statements: Statements, tmp_path: Path
) -> None:
    changes = configure_endpoints(tmp_path, {"backend": Receiver(url=f"https://localhost:{free_port()}/")})
    async with running_service(telnyx, database, warm_pool_size=..., **changes) as service:
        await million.fill(database, LEASES)
        statements.clear()  # of the migrations, which run once
        await use_every_operation(service)
    assert len(statements) > 50, "the recorder has seen the statements"

    engine = open_engine(database_url(database))
    async with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            # Without this, PostgreSQL scans small tables; the test is about large ones.
            await connection.exec_driver_sql("SET enable_seqscan = off")
        without = await plan_of(connection, "SELECT id FROM leases WHERE label = 'x'", ())
        assert scans(without) == ["leases"], "a statement without an index is detected"
        asked = dict(statements)
        read = {sql: found for sql, values in asked.items() if (found := scans(await plan_of(connection, sql, values)))}
    await engine.dispose()

    assert read == {}
