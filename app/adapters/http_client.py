"""The only outbound HTTP client. Every request has a deadline and a size limit.

It is httpx on aiohttp (`httpx-aiohttp`), because httpx's own pool costs several times the CPU per call under load. The
transport is called without httpx's client: the client's cookies, redirects, netrc and proxies from the environment are
unwanted here, and they take as long as the call itself. An egress proxy is an explicit setting.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import TracebackType
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from app.adapters.addresses import is_loopback

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

    def __init__(self, user_agent: str, *, ca_pem: str | None = None, proxy_url: str | None = None) -> None:
        """`ca_pem` replaces the system's CA certificates. `proxy_url` is used for all hosts except this machine.

        Raises ValueError for an invalid `ca_pem`.
        """
        session = cache(partial(_session, True if ca_pem is None else ssl_context(ca_pem)))
        # The session's connector verifies certificates. The transport would create a second SSL context, which it does
        # not use, and read all CA certificates for it. The empty context trusts no certificate.
        unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._transport = AiohttpTransport(verify=unused, trust_env=False, client=session)
        self._proxied = self._transport
        if proxy_url is not None:
            self._proxied = AiohttpTransport(
                verify=unused, trust_env=False, client=session, proxy=httpx.Proxy(proxy_url)
            )
        self._headers = httpx.Headers({"User-Agent": user_agent, "Accept-Encoding": "identity"})

    async def __aenter__(self) -> "HttpClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.aclose()
        await self._proxied.aclose()

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
        has_proxy = False
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
                has_proxy = self._proxied is not self._transport and not is_loopback(request.url.host)
                transport = self._proxied if has_proxy else self._transport
                response = await transport.handle_async_request(request)
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
            raise (ConnectFailed if _was_not_sent(error) else ResponseFailed)(
                _reason(error, has_proxy=has_proxy)
            ) from None


class HttpClients:
    """A shared client, and one for each other combination of CA certificates and proxy use."""

    def __init__(self, user_agent: str, proxy_url: str | None = None) -> None:
        self._user_agent = user_agent
        self._proxy_url = proxy_url
        self._clients: dict[tuple[str | None, bool], HttpClient] = {}

    async def __aenter__(self) -> "HttpClients":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.__aexit__(kind, error, trace)

    def get(self, ca_pem: str | None = None, *, uses_proxy: bool = True) -> HttpClient:
        """The client with these CA certificates (None: the system's). Raises ValueError if they are invalid."""
        has_proxy = uses_proxy and self._proxy_url is not None
        key = (ca_pem, has_proxy)
        if key not in self._clients:
            proxy_url = self._proxy_url if has_proxy else None
            self._clients[key] = HttpClient(self._user_agent, ca_pem=ca_pem, proxy_url=proxy_url)
        return self._clients[key]


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
    return isinstance(
        error.__cause__ or error,
        aiohttp.ClientConnectorError
        | aiohttp.ClientHttpProxyError
        | aiohttp.ConnectionTimeoutError
        | aiohttp.InvalidURL,
    )


def _reason(error: Exception, *, has_proxy: bool) -> str:
    """The kind of failure. The messages of the errors are not used, because they may contain the proxy's password."""
    match error.__cause__ or error:
        case aiohttp.ClientConnectorCertificateError():
            return "the TLS certificate is not trusted"
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return "the egress proxy is unreachable or rejected the request"
        case aiohttp.ClientConnectorDNSError():
            return f"the host name {'of the egress proxy ' if has_proxy else ''}cannot be resolved"
        case _:
            return type(error).__name__


def ssl_context(ca_pem: str) -> ssl.SSLContext:
    """A context that trusts only these CA certificates. Raises ValueError if the text contains none.

    Text around the certificates, such as names in any language, is ignored.
    """
    try:
        text = ca_pem.encode("ascii", "ignore").decode("ascii").strip()
        if not text:
            raise ValueError  # with an empty text, Python would trust the system's certificates
        return ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError("contains no CA certificate in PEM format") from None


def checked_ca_pem(ca_pem: str) -> str:
    """The text, if it contains CA certificates. Raises ValueError if not."""
    ssl_context(ca_pem)
    return ca_pem


def _session(verify: ssl.SSLContext | bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=15, ssl=verify),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )
