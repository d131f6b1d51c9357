"""A log that nothing reads does not block the service."""

import asyncio
import contextlib
import io
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from app.observability import logging as logs
from app.observability.log_queue import CLOSE_SECONDS, MAX_QUEUED_LINES, LogHandler
from tests.support.replicas import STOP_SECONDS, replica
from tests.support.sandbox import Telnyx
from tests.support.waiting import eventually


async def test_unread_log_does_not_block_requests_or_the_stop(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """Its standard error is a pipe, which holds 64 KB."""
    unread, log = os.pipe()
    try:
        async with replica(telnyx.url, sqlite, tmp_path, log_to=log) as service:
            for _ in range(40):
                answers = await asyncio.gather(*(service.client.get("/livez") for _ in range(50)))
                assert {answer.status_code for answer in answers} == {200}
            assert (await service.issue()).status_code == 201
            service.process.terminate()
            assert await asyncio.to_thread(service.process.wait, STOP_SECONDS) == -signal.SIGTERM
    finally:
        os.close(log)
        os.close(unread)


async def test_last_lines_are_written_before_the_process_ends(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with replica(telnyx.url, sqlite, tmp_path) as service:
        await service.client.get("/livez")

    events = [event["event"] for event in service.events()]
    assert "request" in events
    assert "stopped" in events


class Stream(io.StringIO):
    """A stream that blocks until `gate` is set, and that can be broken."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.is_broken = False

    def write(self, text: str) -> int:
        self.gate.wait()
        if self.is_broken:
            raise BrokenPipeError
        return super().write(text)


@pytest.fixture
def stream() -> Iterator[Stream]:
    stream = Stream()
    yield stream
    stream.gate.set()


async def test_lines_beyond_the_bound_are_dropped_and_counted(stream: Stream) -> None:
    handler = LogHandler(stream)
    handler.start()
    for number in range(MAX_QUEUED_LINES * 2):
        handler.enqueue(str(number))

    assert 0 < handler.dropped <= MAX_QUEUED_LINES
    stream.gate.set()
    await eventually(lambda: handler.is_flushed)  # `stop` waits for a bounded time only
    await asyncio.to_thread(handler.stop)
    kept = [int(line) for line in stream.getvalue().splitlines()]
    assert kept == sorted(set(kept)), "lines are complete and in order"
    assert len(kept) + handler.dropped == MAX_QUEUED_LINES * 2


async def test_broken_stream_is_counted_and_does_not_raise(stream: Stream) -> None:
    stream.is_broken = True
    stream.gate.set()
    handler = LogHandler(stream)

    handler.enqueue("written at once")
    assert handler.dropped == 1
    handler.start()
    handler.enqueue("queued")

    await eventually(lambda: handler.dropped == 2)
    handler.stop()


def test_stop_waits_for_a_blocked_stream_for_a_bounded_time(stream: Stream) -> None:
    handler = LogHandler(stream)
    handler.start()
    handler.enqueue("a line")

    began = time.monotonic()
    handler.stop()

    assert CLOSE_SECONDS <= time.monotonic() - began < CLOSE_SECONDS + 20
    assert not stream.gate.is_set(), "the stream is still blocked"


class SlowStream(Stream):
    def write(self, text: str) -> int:
        self.gate.wait()
        time.sleep(0.1)
        return super().write(text)


async def test_pause_of_the_process_does_not_end_the_wait_for_queued_lines() -> None:
    """As on a busy machine, which does not run a process for more than a second."""
    stream = SlowStream()
    configure(stream)
    with logs.non_blocking():
        structlog.get_logger("x").info("the last line")
        flushing = asyncio.create_task(logs.flush())
        await asyncio.sleep(0)
        time.sleep(CLOSE_SECONDS + 0.2)  # noqa: ASYNC251 - the pause
        stream.gate.set()
        await flushing

        assert stream.getvalue().count("\n") == 1


def configure(stream: Stream, level: str = "info", *, as_json: bool = True) -> None:
    """Configure the log of this process, with that stream as its standard error."""
    with contextlib.redirect_stderr(stream):
        logs.configure(level, as_json=as_json)


async def test_lines_of_structlog_and_of_libraries_are_queued_alike(stream: Stream) -> None:
    configure(stream)
    stream.gate.set()

    with logs.non_blocking():
        structlog.get_logger("x").info("own", note="Bearer abc.def.ghi", request_id="r1")
        logging.getLogger("library").warning("Bearer abc.def.ghi\nsecond line")
        await logs.flush()

    await eventually(lambda: stream.getvalue().count("\n") == 2)
    own, foreign = (json.loads(line) for line in stream.getvalue().splitlines())
    assert {name: own[name] for name in ("event", "level", "note", "request_id")} == {
        "event": "own",
        "level": "info",
        "note": "[redacted]",
        "request_id": "r1",
    }
    assert (foreign["event"], foreign["level"]) == ("[redacted]", "warning")
    assert own["timestamp"].endswith("Z")


def test_access_log_has_the_fields_and_the_redaction_of_structlog(stream: Stream) -> None:
    configure(stream)
    stream.gate.set()
    path = '/a"b\nc/eyJhbGciOiJSUzI1NiJ9.e30.c2ln'

    logs.log_request("r1", "GET", path, 200, 1.234, None)
    fields = {"method": "GET", "path": path, "client": None, "status": 200, "milliseconds": 1.23}
    structlog.get_logger("x").info("request", request_id="r1", **fields)

    own, structlogs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert own["path"] == '/a"b\\nc/[redacted]'
    assert own | {"timestamp": ""} == structlogs | {"timestamp": ""}
    assert len(own["timestamp"]) == len(structlogs["timestamp"])


@pytest.mark.parametrize(
    ("level", "as_json", "lines"), [("warning", True, 0), ("info", False, 1), ("warning", False, 0)]
)
def test_access_log_follows_the_level_and_the_format(stream: Stream, level: str, as_json: bool, lines: int) -> None:
    configure(stream, level, as_json=as_json)
    stream.gate.set()

    logs.log_request("r1", "GET", "/a", 200, 1.234, "127.0.0.1")

    assert len(stream.getvalue().splitlines()) == lines
