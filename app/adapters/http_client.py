"""The only outbound HTTP client. Every request has a deadline and a size limit.

It is httpx on aiohttp (`httpx-aiohttp`), because httpx's own pool costs several times the CPU per call under load. The
transport is called without httpx's client: the client's cookies, redirects, netrc and proxies from the environment are
unwanted here, and they take as long as the call itself.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

CONNECT_SECONDS = 2.0
"""Timeout of DNS, TCP and TLS. Shorter than every total deadline, so that a failure to connect can be recognized."""

TIMEOUT_EXTENSION = {"timeout": httpx.Timeout(None, connect=CONNECT_SECONDS).as_dict()}
"""httpx's timeouts of a request. Only connecting has one here; `send` enforces the total deadline."""

MAX_CONNECTIONS = 128


class ConnectFailed(Exception):
    """No connection was made, so the request was certainly not sent."""


class ResponseFailed(Exception):
    """The request may have arrived, but no complete response came within the deadline and the size limit."""


@dataclass(frozen=True, slots=True, repr=False)
class HttpResponse:
    """A complete response. No repr, because bodies contain secrets."""

    status: int
    headers: httpx.Headers
    body: bytes


class HttpClient:
    """A shared connection pool. `trust_env` is off, so that no proxy from the environment receives an API key."""

    def __init__(self, user_agent: str) -> None:
        # The session's connector verifies certificates with aiohttp's own context. The transport would create a second
        # one, which it does not use, and read all CA certificates for it. The empty context trusts no certificate.
        unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._transport = AiohttpTransport(verify=unused, trust_env=False, client=_session)
        self._headers = httpx.Headers({"User-Agent": user_agent, "Accept-Encoding": "identity"})

    async def __aenter__(self) -> "HttpClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    def headers(self, own: Mapping[str, str]) -> httpx.Headers:
        """The client's headers and `own`. Build them once for many requests: building them is slow."""
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
        """Send one request without retries. Raises ConnectFailed or ResponseFailed.

        Returns a response with any status, including redirects.
        """
        try:
            async with asyncio.timeout(deadline_seconds):
                request = httpx.Request(
                    method,
                    url,
                    headers=self._headers if headers is None else headers,
                    params=params,
                    json=json,
                    extensions=TIMEOUT_EXTENSION,
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
            raise (ConnectFailed if _was_not_sent(error) else ResponseFailed)(type(error).__name__) from None


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    """The raw body. Compressed responses are rejected and never unpacked, because the request did not ask for them."""
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


def _was_not_sent(error: Exception) -> bool:
    """True if the request was certainly not sent.

    httpx-aiohttp 0.2 reports a dropped connection as ConnectTimeout, so only aiohttp's own error is reliable.
    """
    cause = error.__cause__ or error
    return isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=15),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )
