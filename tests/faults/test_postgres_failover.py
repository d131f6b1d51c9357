"""PostgreSQL is restarted, or a standby is promoted: the service recovers without a restart."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import migrate_database
from tests.support.outages import asked, readiness
from tests.support.postgres_server import start_postgres
from tests.support.sandbox import Telnyx
from tests.support.service import running_service


@pytest.fixture
def server() -> Iterator[Any]:
    """A PostgreSQL server that only this test uses."""
    import psutil

    with tempfile.TemporaryDirectory(prefix="dialtone-pg-") as folder:
        server = start_postgres(folder)
        try:
            yield server
        finally:
            with suppress(psutil.NoSuchProcess):  # the test has stopped it
                server.cleanup()


def pg_ctl(server: Any, folder: Path, *arguments: str) -> None:
    """Run pg_ctl as the user of the server."""
    as_user = ["setpriv", f"--reuid={folder.owner()}", "--clear-groups"] if folder.owner() == "pgserver" else []
    done = subprocess.run(
        [*as_user, str(server.bin_path / "pg_ctl"), "-w", "-D", str(folder), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_service_recovers_from_a_restart_of_the_server(telnyx: Telnyx, server: Any, mode: str) -> None:
    address, options = server.get_uri(), ("-o", f"-h '' -k {server.pgdata}", "-l", "/dev/null")
    await migrate_database(address)
    async with running_service(telnyx, address) as service:
        assert (await asked(service.client, "before")).status_code == 201

        pg_ctl(server, server.pgdata, "-m", mode, "stop")
        assert (await asked(service.client, "during")).status_code == 503
        await readiness(service.client, 503)
        pg_ctl(server, server.pgdata, *options, "start")

        await readiness(service.client, 200)
        assert (await asked(service.client, "during")).status_code == 201
        pg_ctl(server, server.pgdata, *options, "-m", mode, "restart")
        await readiness(service.client, 200)
        assert (await asked(service.client, "after")).status_code == 201


@contextmanager
def standby_of(server: Any) -> Iterator[Path]:
    """A streaming standby of the server, with its socket in its own folder."""
    with tempfile.TemporaryDirectory(prefix="dialtone-standby-") as name:
        owner = server.pgdata.owner()
        as_user = ["setpriv", f"--reuid={owner}", "--clear-groups"] if owner == "pgserver" else []
        parent = Path(name)
        parent.chmod(0o777)
        folder = parent / "data"
        copy = [str(server.bin_path / "pg_basebackup"), "-h", str(server.pgdata), "-U", "postgres", "-D", str(folder)]
        subprocess.run([*as_user, *copy, "-R", "-X", "stream", "-c", "fast"], check=True, capture_output=True)
        for lock in folder.glob(".s.PGSQL.*"):  # the server's socket is in its data folder, which the copy includes
            lock.unlink()
        pg_ctl(server, folder, "-o", f"-h '' -k {folder}", "-l", "/dev/null", "start")
        try:
            yield folder
        finally:
            pg_ctl(server, folder, "-m", "immediate", "stop")


async def test_service_follows_a_promoted_standby(telnyx: Telnyx, server: Any) -> None:
    await migrate_database(server.get_uri())
    with standby_of(server) as standby:
        # The standby is first, and is skipped until it accepts writes.
        address = f"postgresql://postgres@/postgres?host={standby},{server.pgdata}"
        async with running_service(telnyx, address) as service:
            assert (await asked(service.client, "before")).status_code == 201

            pg_ctl(server, server.pgdata, "-m", "immediate", "stop")
            await readiness(service.client, 503)
            pg_ctl(server, standby, "promote")

            await readiness(service.client, 200)
            assert (await asked(service.client, "after")).status_code == 201
