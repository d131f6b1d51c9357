"""The head of a browser's request behind a reverse proxy: 15 headers, and two that the proxy adds."""

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.load import Request

BROWSER = (
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("accept", "*/*"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("origin", "https://app.example.com"),
    ("referer", "https://app.example.com/"),
    ("sec-ch-ua", '"Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"'),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", '"Linux"'),
    ("sec-fetch-dest", "empty"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "cross-site"),
)
"""With `Authorization`, `Content-Type` and `Content-Length`, 15 headers."""


def behind_proxy(requests: Sequence[Request], addresses: int) -> list[Request]:
    """The requests with a browser's head, each with its own request id, from this number of addresses in turn."""
    return [
        replace(request, headers=(*BROWSER, *_proxy_headers(number, number % addresses)))
        for number, request in enumerate(requests)
    ]


def empty_route(requests: Sequence[Request]) -> list[Request]:
    """Requests to a floor's empty route with the same heads, without a body."""
    return [replace(request, method="GET", path="/", body="") for request in requests]


def _proxy_headers(number: int, address: int) -> tuple[tuple[str, str], tuple[str, str]]:
    ip = f"10.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"
    return ("x-forwarded-for", ip), ("x-request-id", f"{number:08x}-0000-4000-8000-{number:012x}")
