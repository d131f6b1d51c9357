"""Telnyx calls for one device with a hundred page loads during the lifetime of a login."""

import urllib.request

from benchmarks import processes
from benchmarks.goals import Line, at_most
from benchmarks.tokens import issue

LOADS = 100


def measure() -> list[Line]:
    with processes.stub(0.0) as stub:
        with processes.dialtone(f"{stub.url}/v2") as dialtone:
            before = _calls(stub.url)
            _load(dialtone.url)
            ours = _calls(stub.url) - before
        with processes.asgi("naive", "benchmarks.peers.naive:app", f"{stub.url}/v2") as naive:
            before = _calls(stub.url)
            _load(naive.url)
            theirs = _calls(stub.url) - before
    return [at_most("Telnyx calls for one device and 100 page loads", 2, ours, "calls", f"naive: {theirs}")]


def _load(url: str) -> None:
    """Page loads, with a new access token every ten loads."""
    pages = [issue("alice") for _ in range(LOADS // 10)]
    for number in range(LOADS):
        request = pages[number // 10]
        headers = {"Authorization": f"Bearer {request.token}", "Content-Type": "application/json"}
        asked = urllib.request.Request(url + request.path, request.body.encode(), headers, method="POST")
        with urllib.request.urlopen(asked, timeout=10) as answer:
            answer.read()


def _calls(url: str) -> int:
    with urllib.request.urlopen(url + "/calls", timeout=5) as answer:
        return int(answer.read())
