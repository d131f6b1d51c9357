"""A PostgreSQL role that may only read and write rows, after `dialtone migrate` ran as another role."""

import asyncio
import re
import subprocess
from pathlib import Path

import pytest

from app.adapters.ledger.engines import database_url, open_engine
from app.adapters.ledger.migrate import migrate
from app.vending.policy import ADMIN_SCOPE
from tests.support.replicas import command, replica, replica_environment
from tests.support.sandbox import Telnyx
from tests.support.tokens import token
from tests.support.waiting import eventually

USER = {"Authorization": f"Bearer {token()}"}
OPERATOR = {"Authorization": f"Bearer {token('olga', scope=ADMIN_SCOPE)}"}


@pytest.fixture
async def restricted(postgres: str) -> str:
    """The URL of a migrated database, with a role that cannot change tables."""
    url = database_url(postgres)
    await migrate(url)
    engine = open_engine(url)
    role = f"serving_{url.database}"
    async with engine.begin() as connection:
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
        ):
            await connection.exec_driver_sql(statement)
    await engine.dispose()
    address = postgres.replace("postgres:@", f"{role}@").replace("postgresql+asyncpg", "postgresql")
    assert role in address
    return address


async def test_role_cannot_change_tables(restricted: str) -> None:
    engine = open_engine(database_url(restricted))
    async with engine.connect() as connection:
        for statement in ("CREATE TABLE x (id int)", "ALTER TABLE leases ADD COLUMN x int", "DROP TABLE leases"):
            with pytest.raises(Exception, match=r"permission denied|must be owner"):
                await connection.exec_driver_sql(statement)
            await connection.rollback()
    await engine.dispose()


async def test_role_without_rights_to_change_tables_serves_users_and_operators(
    telnyx: Telnyx, restricted: str, tmp_path: Path
) -> None:
    settings = {"DIALTONE_WARM_POOL_SIZE": "1", "DIALTONE_LOG_FORMAT": "json"}
    async with replica(telnyx.url, restricted, tmp_path, settings, migrate=False) as service:
        issued = await service.issue()
        listed = await service.client.get("/v1/telephony-credentials", headers=USER)
        ended = await service.client.delete(f"/v1/telephony-credentials/{issued.json()['id']}", headers=USER)
        swept = await service.client.post("/v1/admin/sweeps", headers=OPERATOR, json={})
        state = await service.client.get("/v1/admin/state", headers=OPERATOR)
        audit = await service.client.get("/v1/admin/audit", headers=OPERATOR)
        await eventually(lambda: telnyx.created() >= 2)  # the warm pool's too
        await asyncio.sleep(1)  # background tasks

        assert [answer.status_code for answer in (issued, listed, state, audit)] == [201, 200, 200, 200]
        assert ended.status_code in (202, 204)
        assert swept.status_code == 202
        assert (await service.client.get("/readyz")).status_code == 200
        assert not re.search(
            r"permission denied|must be owner|InsufficientPrivilege|ledger_unavailable", service.log.read_text()
        )


def test_migrate_as_that_role_changes_nothing_if_the_database_is_migrated(restricted: str, tmp_path: Path) -> None:
    """The systemd unit and the Kubernetes manifests run it before each start."""
    ended = subprocess.run(
        command("migrate"),
        env=replica_environment("http://127.0.0.1:1/v2", restricted),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("The ledger is at revision ")
