"""A log that nobody reads any more stops nobody."""

import asyncio
import io
import os
import threading
from pathlib import Path

from app.observability.sink import LINES_WAITING, Sink
from tests.processes.replicas import replica
from tests.stage import Telnyx, eventually


async def test_a_service_whose_log_nobody_reads_goes_on(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    """Its standard error is a pipe, which takes 64 KB and then no more."""
    unread, log = os.pipe()
    try:
        async with replica(telnyx.url, sqlite, tmp_path, log_to=log) as service:
            for _ in range(40):
                answers = await asyncio.gather(*(service.client.get("/livez") for _ in range(50)))
                assert {answer.status_code for answer in answers} == {200}
            assert (await service.issue()).status_code == 201
            assert service.client is not None
    finally:
        os.close(log)
        os.close(unread)


class Stream(io.StringIO):
    """One that can be held, and be broken."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.is_broken = False

    def write(self, text: str) -> int:
        self.gate.wait(5)
        if self.is_broken:
            raise BrokenPipeError
        return super().write(text)


async def test_lines_wait_up_to_a_bound_and_are_counted_beyond_it() -> None:
    stream = Stream()
    sink = Sink(stream)
    for number in range(LINES_WAITING * 2):
        sink.write(f"{number}\n")

    assert 0 < sink.dropped <= LINES_WAITING
    stream.gate.set()
    await asyncio.to_thread(sink.close)
    kept = [int(line) for line in stream.getvalue().splitlines()]
    assert kept == sorted(set(kept)), "what is kept is whole, and in order"
    assert len(kept) + sink.dropped == LINES_WAITING * 2


async def test_a_stream_that_breaks_is_no_trouble_to_whoever_writes() -> None:
    stream = Stream()
    stream.is_broken = True
    stream.gate.set()
    sink = Sink(stream)

    sink.write("a line\n")

    await eventually(lambda: sink.dropped == 1)
