"""The one outbound HTTP client, and the only way it is used: bounded in time, size and trust.

httpx with aiohttp underneath (`httpx-aiohttp`): httpx's own pool costs several times the CPU per call under load. Its
transport is asked without httpx's client around it. What that adds, cookies, redirects, netrc and proxies of the
environment, is what must not happen here, and it takes as long as the call itself.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

CONNECT_SECONDS = 2.0
"""Names, routes and TLS get this long. Less than every total deadline, so that a failure to connect is told apart."""

PATIENCE = {"timeout": httpx.Timeout(None, connect=CONNECT_SECONDS).as_dict()}
"""For everything else each request has a deadline of its own."""

MAX_CONNECTIONS = 128


class ConnectFailed(Exception):
    """No connection came about, so the request certainly did not arrive."""


class ResponseFailed(Exception):
    """The request may have arrived; no complete answer came back within the deadline and the size cap."""


@dataclass(frozen=True, slots=True, repr=False)
class HttpResponse:
    """A complete answer. No repr: bodies hold secrets."""

    status: int
    headers: httpx.Headers
    body: bytes


class HttpClient:
    """A shared connection pool. `trust_env` is off: no proxy and no netrc of the environment sees a bearer key."""

    def __init__(self, user_agent: str) -> None:
        self._transport = AiohttpTransport(trust_env=False, client=_session)
        self._headers = httpx.Headers({"User-Agent": user_agent, "Accept-Encoding": "identity"})

    async def __aenter__(self) -> "HttpClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    def headers(self, own: Mapping[str, str]) -> httpx.Headers:
        """What a request carries that has headers of its own. Made once for many: each time it costs a layer."""
        return httpx.Headers({**self._headers, **own})

    async def send(
        self,
        method: str,
        url: str,
        *,
        deadline_seconds: float,
        max_bytes: int,
        headers: httpx.Headers | None = None,
        params: dict[str, str] | None = None,
        json: Any = None,
    ) -> HttpResponse:
        """One request, once. Raises ConnectFailed or ResponseFailed; every status is an answer, a redirect too."""
        try:
            async with asyncio.timeout(deadline_seconds):
                request = httpx.Request(
                    method,
                    url,
                    headers=self._headers if headers is None else headers,
                    params=params,
                    json=json,
                    extensions=PATIENCE,
                )
                response = await self._transport.handle_async_request(request)
                try:
                    return HttpResponse(response.status_code, response.headers, await _body(response, max_bytes))
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise ResponseFailed("deadline") from error
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            httpx.StreamError,
            aiohttp.ClientError,
            OSError,
            ValueError,
        ) as error:
            raise (ConnectFailed if _never_left(error) else ResponseFailed)(type(error).__name__) from None


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    """The bytes as they came. Compressed answers are refused, never unpacked: we asked for none."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise ResponseFailed("encoded")
    chunks: list[bytes] = []
    left = max_bytes
    async for chunk in response.aiter_raw():
        left -= len(chunk)
        if left < 0:
            raise ResponseFailed("too large")
        chunks.append(chunk)
    return b"".join(chunks)


def _never_left(error: Exception) -> bool:
    """httpx-aiohttp 0.2 reports a dropped connection as ConnectTimeout, so only aiohttp's own error can be believed."""
    cause = error.__cause__ or error
    return isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=15),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )
