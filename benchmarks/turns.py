"""Measurements in turns: every server in each round, so that other load of the machine affects all servers alike."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks import load
from benchmarks.load import Load, Once, Reading
from benchmarks.processes import LOAD_CORES, Server

Contest = Sequence[tuple[Server, Load]]


def in_turns(
    contest: Contest,
    rounds: int,
    seconds: float,
    after: Callable[[Server], None] = lambda _: None,
    cores: set[int] = LOAD_CORES,
) -> dict[str, Reading]:
    """The medians by server name; prints them. `after` is called after each run. `cores` are the load generator's."""
    seen: dict[str, list[Reading]] = {server.name: [] for server, _ in contest}
    for number in range(rounds):
        for server, wanted in contest:
            now = wanted.part(number, rounds) if isinstance(wanted, Once) else wanted
            seen[server.name].append(load.send(server.url, now, seconds, cores=cores))
            after(server)
    medians = {name: load.median(readings) for name, readings in seen.items()}
    for name, reading in medians.items():
        show(name, reading)
    return medians


def named(server: Server, name: str) -> Server:
    """The same server under another name, for another load."""
    return replace(server, name=name)


def show(name: str, reading: Reading) -> None:
    problems = [
        f"{count:,} {what}" for what, count in (("rejected", reading.refused), ("broken", reading.broken)) if count
    ]
    print(
        f"  {name:<36}{reading.requests_a_second:>10,.0f} requests/s   p50 {reading.p50_ms:8.3f} ms   "
        f"p99 {reading.p99_ms:9.3f} ms" + "".join(f"   {problem}" for problem in problems),
        flush=True,
    )
