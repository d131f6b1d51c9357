"""An identity provider that publishes a key set and counts its fetches, and the fault of a failed fetch."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs

from app.adapters.http_client import HttpClient
from app.adapters.identity.key_sets import KeySetLocation, RemoteKeySource
from app.vending.errors import IdentityUnavailable
from tests.support.tokens import rsa_key

ResponseFactory = Callable[[Request], Response]
INVALID_RESPONSES: dict[str, ResponseFactory] = {
    "500": lambda _: Response(status_code=500),
    "html": lambda _: Response("<html>", media_type="text/html"),
    "no keys": lambda _: JSONResponse({"keys": []}),
    "only odd keys": lambda _: JSONResponse({"keys": [{"kty": "oct", "k": "AAAA"}]}),
    "not an object": lambda _: JSONResponse([1]),
    "redirect": lambda _: RedirectResponse("http://127.0.0.1:1/"),
    "huge": lambda _: Response(json.dumps({"keys": ["x" * 300_000]})),
    "too many": lambda _: JSONResponse({"keys": [{}] * 101}),
    "gzip": lambda _: Response(b"\x1f\x8b", headers={"content-encoding": "gzip"}),
    "deep": lambda _: Response("[" * 100_000),
}


@dataclass
class KeyServer:
    """An identity provider with a configurable response of the key endpoint, which counts its fetches."""

    keys: list[Any] = field(default_factory=lambda: [rsa_key()])
    answer: ResponseFactory | None = None
    fetches: int = 0
    url: str = ""
    time: float = 1000.0

    def app(self) -> Starlette:
        async def jwks(request: Request) -> Response:
            self.fetches += 1
            if self.answer is not None:
                return self.answer(request)
            return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys]})

        async def discovery(_: Request) -> Response:
            return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}/jwks"})

        return Starlette(routes=[Route("/jwks", jwks), Route("/.well-known/openid-configuration", discovery)])


async def fetch_fault(location: KeySetLocation, client: HttpClient) -> tuple[str, str]:
    """The reason and the fix of a failed fetch, which the log has too."""
    source = RemoteKeySource(location, client, lambda: 1000.0)
    with capture_logs() as lines, pytest.raises(IdentityUnavailable):
        await source.current()
    status = source.status(location.issuer)
    assert status.last_failure is not None
    assert status.fix is not None
    assert [line["cause"] for line in lines if line["event"] == "key_set_fetch_failed"] == [status.last_failure]
    assert (status.last_failure + status.fix).isprintable()
    return status.last_failure, status.fix
