"""The cost of rejecting invalid tokens, compared with FastAPI's own 401."""

from contextlib import ExitStack

from benchmarks import processes
from benchmarks.goals import FASTAPI_401, Line, reached
from benchmarks.load import Request
from benchmarks.tokens import PATH, with_bad_signature
from benchmarks.turns import in_turns, named

JUNK_BYTES = 8 * 1024
BODY = '{"device_id": "tab-1"}'


def measure(rounds: int, seconds: float) -> list[Line]:
    bad = [Request(PATH, "POST", with_bad_signature(number), BODY) for number in range(500)]
    garbage = [Request(PATH, "POST", f"garbage-{number}", BODY) for number in range(500)]
    junk = [Request(PATH, "POST", "x" * JUNK_BYTES, BODY)]
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.0))
        dialtone = stack.enter_context(processes.dialtone(f"{stub.url}/v2"))
        fastapi = stack.enter_context(processes.asgi(FASTAPI_401, "benchmarks.floors:fastapi"))

        seen = in_turns(
            [
                (fastapi, [Request("/refused", "POST", "garbage", BODY)]),
                (named(dialtone, "a bad signature"), bad),
                (named(dialtone, "garbage"), garbage),
                (named(dialtone, "8 KB of junk"), junk),
            ],
            rounds,
            seconds,
        )
    own = seen[FASTAPI_401]
    return [
        reached(
            f"refusing {kind}: against {FASTAPI_401}",
            seen[kind].requests_a_second / own.requests_a_second,
            f"{seen[kind].compared_with(own)}; 500 different tokens in a loop, junk: one",
        )
        for kind in ("a bad signature", "garbage", "8 KB of junk")
    ]
