"""The only outbound HTTP client. Every request has a deadline and a size limit.

It is httpx on aiohttp (`httpx-aiohttp`), because httpx's own pool costs several times the CPU per call under load. The
transport is called without httpx's client: the client's cookies, redirects, netrc and proxies from the environment are
unwanted here, and they take as long as the call itself. An egress proxy is an explicit setting.
"""

import asyncio
import errno
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from types import MappingProxyType, TracebackType
from typing import Any

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver
from httpx_aiohttp import AiohttpTransport

from app.adapters.addresses import AddressForbidden, is_loopback
from app.adapters.name_lookups import IsolatedResolver

CONNECT_SECONDS = 2.0
"""Timeout of DNS, TCP and TLS. Shorter than every total deadline, so that a failure to connect can be recognized."""

TIMEOUT_EXTENSION = {"timeout": httpx.Timeout(None, connect=CONNECT_SECONDS).as_dict()}
"""httpx's timeouts of a request. Only connecting has one here; `send` enforces the total deadline."""

MAX_CONNECTIONS = 128


class FailureReason(StrEnum):
    """Why a request failed. The libraries' texts are not used, because they may contain the proxy's password."""

    UNTRUSTED_CERTIFICATE = "the TLS certificate is not trusted"
    SELF_SIGNED_CERTIFICATE = "the TLS certificate is self-signed"
    EXPIRED_CERTIFICATE = "the TLS certificate has expired"
    FUTURE_CERTIFICATE = "the TLS certificate is not valid yet"
    CERTIFICATE_OF_OTHER_HOST = "the TLS certificate is for another host name"
    TLS = "the TLS handshake failed"
    UNKNOWN_HOST = "the host name cannot be resolved"
    FORBIDDEN_ADDRESS = "the host has an address that is not allowed"
    REFUSED = "the host refuses connections to this port"
    UNREACHABLE = "the host is unreachable"
    CONNECT_TIMEOUT = f"the host did not respond within {CONNECT_SECONDS:.0f} seconds"
    UNKNOWN_PROXY = "the host name of the egress proxy cannot be resolved"
    PROXY_UNREACHABLE = "the egress proxy is unreachable"
    PROXY_TIMEOUT = f"the egress proxy made no connection within {CONNECT_SECONDS:.0f} seconds"
    PROXY_TLS = "the TLS certificate of the egress proxy is not trusted"
    PROXY_PASSWORD = "the egress proxy rejects the user or the password"  # noqa: S105 - not a password
    PROXY_REJECTED = "the egress proxy rejects the connection"
    INVALID_URL = "the URL is invalid"
    DEADLINE = "the deadline has passed"
    ENCODED = "the response is compressed"
    TOO_LARGE = "the response is too large"
    CLOSED = "the connection was closed early"
    NOT_HTTP = "the response is not valid HTTP"
    OTHER = "the connection failed"


PROXY_FAILURES = frozenset(
    {FailureReason.UNKNOWN_PROXY, FailureReason.PROXY_UNREACHABLE, FailureReason.PROXY_TIMEOUT}
    | {FailureReason.PROXY_TLS, FailureReason.PROXY_PASSWORD, FailureReason.PROXY_REJECTED}
)
"""Failures between this machine and the egress proxy, or at the proxy."""

_CERTIFICATE_FAILURES = MappingProxyType(
    {
        9: FailureReason.FUTURE_CERTIFICATE,
        10: FailureReason.EXPIRED_CERTIFICATE,
        18: FailureReason.SELF_SIGNED_CERTIFICATE,
        62: FailureReason.CERTIFICATE_OF_OTHER_HOST,
        64: FailureReason.CERTIFICATE_OF_OTHER_HOST,
    }
)
"""By OpenSSL's X509_V_ERR codes: not yet valid, expired, self-signed leaf, host name mismatch, IP address mismatch."""


class RequestFailed(Exception):
    """Base of the failures of a request."""

    def __init__(self, reason: FailureReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class ConnectFailed(RequestFailed):
    """No connection was made, so the request was certainly not sent."""


class ResponseFailed(RequestFailed):
    """The request may have arrived, but no complete response came within the deadline and the size limit."""


@dataclass(frozen=True, slots=True, repr=False)
class HttpResponse:
    """A complete response. No repr, because bodies contain secrets."""

    status: int
    headers: httpx.Headers
    body: bytes


class HttpClient:
    """A shared connection pool. `trust_env` is off, so that no proxy from the environment receives an API key."""

    def __init__(
        self,
        user_agent: str,
        *,
        ca_pem: str | None = None,
        proxy_url: str | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`ca_pem` replaces the system's CA certificates. `proxy_url` is used for all hosts except this machine.

        Connections are made to exactly the addresses that `resolver` returns, once for each connection. It is not asked
        about hosts that are addresses. Raises ValueError for an invalid `ca_pem`.
        """
        verify = True if ca_pem is None else ssl_context(ca_pem)
        self._session = session = cache(partial(_session, verify, resolver))
        # The session's connector verifies certificates. The transport would create a second SSL context, which it does
        # not use, and read all CA certificates for it. The empty context trusts no certificate.
        unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._transport = AiohttpTransport(verify=unused, trust_env=False, client=session)
        self._proxied = self._transport
        self._proxy_host: str | None = None
        self._headers = httpx.Headers({"User-Agent": user_agent, "Accept-Encoding": "identity"})
        if proxy_url is not None:
            self.use_proxy(proxy_url)

    def use_proxy(self, proxy_url: str) -> None:
        """Send new requests through this proxy. Requests in flight keep the former one."""
        proxy = httpx.Proxy(proxy_url)
        unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._proxied = AiohttpTransport(verify=unused, trust_env=False, client=self._session, proxy=proxy)
        self._proxy_host = proxy.url.host

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
        content: bytes | None = None,
        reads_body: bool = True,
    ) -> HttpResponse:
        """Send one request without retries. Raises ConnectFailed or ResponseFailed.

        Returns a response with any status, including redirects. Without `reads_body`, the response has no body.
        """
        proxy_host: str | None = None
        try:
            async with asyncio.timeout(deadline_seconds):
                request = httpx.Request(
                    method,
                    url,
                    headers=self._headers if headers is None else headers,
                    params=params,
                    json=json,
                    content=content,
                    extensions=TIMEOUT_EXTENSION,
                )
                is_direct = self._proxy_host is None or is_loopback(request.url.host)
                proxy_host = None if is_direct else self._proxy_host
                transport = self._transport if is_direct else self._proxied
                response = await transport.handle_async_request(request)
                try:
                    body = await _body(response, max_bytes) if reads_body else b""
                    return HttpResponse(response.status_code, response.headers, body)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise ResponseFailed(FailureReason.DEADLINE) from error
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            httpx.StreamError,
            aiohttp.ClientError,
            OSError,
            ValueError,
        ) as error:
            raise (ConnectFailed if _was_not_sent(error) else ResponseFailed)(_reason(error, proxy_host)) from None


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

    def use_proxy(self, proxy_url: str) -> None:
        """Use this proxy in place of the present one."""
        if proxy_url == self._proxy_url:
            return
        self._proxy_url = proxy_url
        for (_, has_proxy), client in self._clients.items():
            if has_proxy:
                client.use_proxy(proxy_url)

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
        raise ResponseFailed(FailureReason.ENCODED)
    chunks: list[bytes] = []
    left = max_bytes
    async for chunk in response.aiter_raw():
        left -= len(chunk)
        if left < 0:
            raise ResponseFailed(FailureReason.TOO_LARGE)
        chunks.append(chunk)
    return b"".join(chunks)


def _was_not_sent(error: Exception) -> bool:
    """True if the request was certainly not sent.

    httpx-aiohttp 0.2 reports a dropped connection as ConnectTimeout, so only aiohttp's own error is reliable.
    """
    return isinstance(
        _unwrapped(error),
        aiohttp.ClientConnectorError
        | aiohttp.ClientHttpProxyError
        | aiohttp.ConnectionTimeoutError
        | aiohttp.InvalidURL,
    )


def _unwrapped(error: Exception) -> BaseException:
    """The library's own error, which httpx-aiohttp wraps in one of httpx."""
    return (error.__cause__ or error) if isinstance(error, httpx.HTTPError) else error


def _reason(error: Exception, proxy_host: str | None) -> FailureReason:
    """The kind of failure. `proxy_host` is the host of the egress proxy, if the request used it."""
    match _unwrapped(error):
        case aiohttp.ClientSSLError(host=host) if proxy_host is not None and host == proxy_host:
            return FailureReason.PROXY_TLS
        case aiohttp.ClientConnectorCertificateError(certificate_error=cause):
            code = getattr(cause, "verify_code", 0)
            return _CERTIFICATE_FAILURES.get(code, FailureReason.UNTRUSTED_CERTIFICATE)
        case aiohttp.ClientConnectorSSLError():
            return FailureReason.TLS
        case aiohttp.ClientHttpProxyError(status=status):
            return FailureReason.PROXY_PASSWORD if status == 407 else FailureReason.PROXY_REJECTED
        case aiohttp.ClientProxyConnectionError():
            return FailureReason.PROXY_UNREACHABLE
        case aiohttp.ClientConnectorDNSError(os_error=AddressForbidden()):
            return FailureReason.FORBIDDEN_ADDRESS
        case aiohttp.ClientConnectorDNSError():
            return FailureReason.UNKNOWN_HOST if proxy_host is None else FailureReason.UNKNOWN_PROXY
        case aiohttp.ClientConnectorError(os_error=cause):
            return FailureReason.REFUSED if cause.errno == errno.ECONNREFUSED else FailureReason.UNREACHABLE
        case aiohttp.ConnectionTimeoutError():
            return FailureReason.CONNECT_TIMEOUT if proxy_host is None else FailureReason.PROXY_TIMEOUT
        case aiohttp.InvalidURL() | httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return FailureReason.INVALID_URL
        case aiohttp.ClientResponseError():
            return FailureReason.NOT_HTTP
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError() | OSError():
            return FailureReason.CLOSED
        case _:
            return FailureReason.OTHER


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


def _session(verify: ssl.SSLContext | bool, resolver: AbstractResolver | None) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=MAX_CONNECTIONS,
        keepalive_timeout=15,
        ssl=verify,
        resolver=resolver or IsolatedResolver(),
        use_dns_cache=resolver is None,  # a resolver that checks addresses is asked for each connection
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )
