"""`dialtone serve --workers 2`: its rate and CPU time against one worker's, and the Telnyx calls of a new device.

With two cores, the load generator shares them with the workers, so CPU time is compared as well as the rate.
"""

from contextlib import ExitStack

from benchmarks import fresh, processes
from benchmarks.goals import CPU_TIME, ONE_WORKER, RATE, TWO_WORKERS, TWO_WORKERS_CALLS, Figure, Line, Missing, reached
from benchmarks.load import Once
from benchmarks.processes import ALL_CORES
from benchmarks.shared_cache import NO_REDIS, shared_login_cache
from benchmarks.tokens import issue
from benchmarks.turns import in_turns
from benchmarks.warm import telnyx_calls, warm

PASSES = 10
"""Page loads of each device before the measurement, after which nearly all devices are cached by both workers."""

NEW_DEVICES = 200


def measure(rounds: int, seconds: float) -> list[Line]:
    known, new = fresh.requests()
    names = {1: ONE_WORKER, 2: TWO_WORKERS}
    with ExitStack() as stack:
        stub = stack.enter_context(processes.stub(0.0))
        servers = {
            count: stack.enter_context(
                processes.dialtone(f"{stub.url}/v2", name=name, cores=ALL_CORES, more={"DIALTONE_WORKERS": str(count)})
            )
            for count, name in names.items()
        }
        for server in servers.values():
            for _ in range(PASSES):
                warm(server, known)
        before = {count: server.cpu_seconds for count, server in servers.items()}
        seen = in_turns([(server, Once(new)) for server in servers.values()], rounds, seconds, cores=ALL_CORES)
        took = {count: server.cpu_seconds - before[count] for count, server in servers.items()}
    one, two = seen[ONE_WORKER], seen[TWO_WORKERS]
    details = f"{two.compared_with(one)}; {len(ALL_CORES)} cores, which the load generator shares"
    lines: list[Line] = [
        reached(f"{TWO_WORKERS}: {RATE}, against one worker", two.requests_a_second / one.requests_a_second, details)
    ]
    for count, name in names.items():
        lines.append(Figure(f"{name}: {CPU_TIME}", took[count] / seen[name].requests * 1e6, "us"))
    return [*lines, _calls()]


def _calls() -> Line:
    """Telnyx calls of new devices, each of which reaches both workers."""
    devices = [issue(f"user-{number}") for number in range(NEW_DEVICES)]
    with ExitStack() as stack:
        settings = stack.enter_context(shared_login_cache())
        if settings is None:
            return Missing(TWO_WORKERS_CALLS, NO_REDIS)
        stub = stack.enter_context(processes.stub(0.0))
        server = stack.enter_context(
            processes.dialtone(f"{stub.url}/v2", cores=ALL_CORES, more=settings | {"DIALTONE_WORKERS": "2"})
        )
        for _ in range(PASSES):
            warm(server, devices)
        details = f"{NEW_DEVICES} devices with {PASSES} page loads each"
        return reached(TWO_WORKERS_CALLS, telnyx_calls(stub) / NEW_DEVICES, details)
