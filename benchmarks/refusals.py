"""The cost of rejecting invalid tokens, compared with FastAPI's own 401."""

from contextlib import ExitStack

from benchmarks import processes
from benchmarks.goals import Line, at_least
from benchmarks.hot import in_turns
from benchmarks.load import Request
from benchmarks.processes import Server
from benchmarks.tokens import PATH, with_bad_signature

JUNK_BYTES = 8 * 1024
BODY = '{"device_id": "tab-1"}'


def measure(rounds: int, seconds: float) -> list[Line]:
    bad = [Request(PATH, "POST", with_bad_signature(number), BODY) for number in range(500)]
    garbage = [Request(PATH, "POST", f"garbage-{number}", BODY) for number in range(500)]
    junk = [Request(PATH, "POST", "x" * JUNK_BYTES, BODY)]
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.0))
        dialtone = stack.enter_context(processes.dialtone(f"{stub.url}/v2"))
        fastapi = stack.enter_context(processes.asgi("FastAPI's own 401", "benchmarks.floors:fastapi"))

        def named(name: str) -> Server:
            return Server(name, dialtone.url, dialtone.pid, dialtone.started_seconds)

        seen = in_turns(
            [
                (fastapi, [Request("/refused", "POST", "garbage", BODY)]),
                (named("a bad signature"), bad),
                (named("garbage"), garbage),
                (named("8 KB of junk"), junk),
            ],
            rounds,
            seconds,
        )
    own = seen["FastAPI's own 401"].requests_a_second
    return [
        at_least(f"refusing {kind} against FastAPI's own 401", goal, seen[kind].requests_a_second / own)
        for kind, goal in (("a bad signature", 2.4), ("garbage", 5.0), ("8 KB of junk", 5.0))
    ]
