"""`dialtone audit tail --follow`: new events once each, through outages, until Ctrl-C."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app.api.schemas.audit import EVENT_EXAMPLE
from tests.support.http_server import serve
from tests.support.replicas import command, environment, take_interrupts
from tests.support.waiting import eventually

BEGIN = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
PAGE = 2


@dataclass
class AuditServer:
    """A service that lists events, newest first, in small pages."""

    events: list[dict[str, Any]] = field(default_factory=list)
    is_down: bool = False
    fails_at: int | None = None
    """The number of the request at which an outage begins."""
    requests: int = 0
    rejects: int = 0

    def add(self, name: str, seconds: float) -> None:
        at = (BEGIN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.events.append(EVENT_EXAMPLE | {"id": name, "at": at})
        self.events.sort(key=lambda event: (event["at"], event["id"]), reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        query = Request(scope).query_params
        since = query.get("since", "")
        found = [event for event in self.events if not since or _time(event["at"]) >= _time(since)]
        first = int(query.get("cursor", 0))
        size = min(int(query["limit"]), PAGE)
        more = first + size < len(found)
        page = {"data": found[first : first + size], "next_cursor": str(first + size) if more else None}
        response: Response = JSONResponse(page)
        self.is_down |= self.requests == self.fails_at
        if self.is_down:
            self.rejects += 1
            problem = {"title": "The ledger is unavailable.", "code": "ledger_unavailable", "retryable": True}
            response = JSONResponse(problem, 503, media_type="application/problem+json")
        await response(scope, receive, send)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


@dataclass
class Follower:
    process: asyncio.subprocess.Process
    out: Path
    err: Path

    def ids(self) -> list[str]:
        return [json.loads(line)["id"] for line in self.out.read_text().splitlines()]


@asynccontextmanager
async def following(server: AuditServer, folder: Path, *arguments: str) -> AsyncIterator[Follower]:
    out, err = folder / "out", folder / "err"
    (folder / "token").write_text("token")
    async with serve(server, has_lifespan=False) as url:
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *command("audit", "tail", "--follow", "--json", *arguments),
                env=environment(DIALTONE_URL=url, DIALTONE_TOKEN_FILE=str(folder / "token")),
                stdout=stdout,
                stderr=stderr,
                preexec_fn=take_interrupts,
            )
        try:
            yield Follower(process, out, err)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_each_new_event_is_printed_once_and_in_order(tmp_path: Path) -> None:
    server = AuditServer()
    for number in range(5):
        server.add(f"old-{number}", number)
    async with following(server, tmp_path, "-n", "3") as follower:
        await eventually(lambda: len(follower.ids()) == 3, 20)
        for number in range(5):
            server.add(f"new-{number}", 60 + number)
        await eventually(lambda: len(follower.ids()) == 8, 20)
        server.add("late", 59)
        await eventually(lambda: len(follower.ids()) == 9, 20)

    news = [f"new-{number}" for number in range(5)]
    assert follower.ids() == ["old-2", "old-3", "old-4", *news, "late"]


async def test_follower_starts_with_an_empty_audit(tmp_path: Path) -> None:
    server = AuditServer()
    async with following(server, tmp_path, "-n", "0") as follower:
        await eventually(lambda: server.requests, 20)
        server.add("first", 0)
        await eventually(lambda: follower.ids() == ["first"], 20)

    assert follower.err.read_text() == ""


async def test_outage_is_noted_once_and_survived(tmp_path: Path) -> None:
    server = AuditServer()
    server.add("before", 0)
    async with following(server, tmp_path) as follower:
        await eventually(lambda: follower.ids() == ["before"], 20)
        server.is_down = True
        await eventually(lambda: server.rejects >= 2, 20)
        server.add("during", 30)
        server.is_down = False
        await eventually(lambda: follower.ids() == ["before", "during"], 20)

        follower.process.send_signal(signal.SIGINT)
        assert await follower.process.wait() == 130

    assert follower.err.read_text() == "The ledger is unavailable. (ledger_unavailable) Retrying ...\n"


async def test_outage_at_the_start_ends_the_command_before_it_prints(tmp_path: Path) -> None:
    server = AuditServer(fails_at=2)
    server.add("before", 0)
    async with following(server, tmp_path) as follower:
        assert await follower.process.wait() == 1

    assert follower.ids() == []
    assert follower.err.read_text() == "The ledger is unavailable. (ledger_unavailable)\n"
