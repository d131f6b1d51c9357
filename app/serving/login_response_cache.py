"""The fast path: answers a device's repeated login request, with unchanged headers, from memory.

Checks that depend on the bytes alone, such as lengths and syntax, are not repeated, because the middleware accepted the
same bytes before. The response headers are cached too. Everything that may have changed is checked for each request:
the verifier checks the token, the issuer whether the login is still current, the limiter the user's rate. All other
requests run through the middleware unchanged, which reports any error.
"""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import NamedTuple, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware.auth import bearer_of
from app.api.middleware.context import AccessLog
from app.api.problems import rate_limit_lines
from app.api.request_scope import PRINCIPAL, RAW_REQUEST, client_of, headers_of, request_id_of, route_of
from app.api.schemas.client_settings import ClientSettings
from app.api.schemas.fields import instant
from app.api.schemas.telephony_credentials import TelephonyCredential, TelephonyCredentialRequest
from app.vending.audit import REQUEST_CONTEXT, RequestContext
from app.vending.errors import RateLimited, TokenRejected
from app.vending.models import IssueRequest, Principal, RateLimitStatus
from app.vending.telephony.issue import CredentialIssuer
from app.vending.telephony.login_cache import Login

MAX_KNOWN_REQUESTS = 4096
"""Requests that are cached, about 2 KB each with their response. The least recently used is evicted first."""

MAX_BODY_BYTES = 256

PER_REQUEST_HEADERS = (b"x-request-id", b"traceparent", b"tracestate")
"""Request headers that vary per request, and that only the request context reads. They are not part of the key."""

MAX_PER_REQUEST_HEADER_BYTES = 512
"""Maximum length of such a header. Requests with longer or repeated ones run through the middleware."""

PER_RESPONSE_HEADERS = (
    b"content-length",
    b"x-request-id",
    b"ratelimit-limit",
    b"ratelimit-remaining",
    b"ratelimit-reset",
)
"""Response headers that vary per response. They are not cached."""

LINE = b"%b: %b\r\n"


class RawRequest(NamedTuple):
    """A complete HTTP/1.1 request that was not checked yet."""

    peer: str | None
    """The address of the connection's other end, possibly a trusted proxy."""
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


class CacheVerifier(Protocol):
    def fingerprint(self, unverified_token: str) -> bytes: ...

    def cached_principal_for(self, fingerprint: bytes, now: datetime) -> Principal | None:
        """The principal of a token that was verified before; None if it must be verified. Raises TokenRejected."""


class CacheRateLimiter(Protocol):
    def check_user_locally(self, principal: Principal) -> RateLimitStatus | None:
        """Count a request of the user in memory. Raises RateLimited."""


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """A request that the middleware accepted, with its cached response headers."""

    fingerprint: bytes
    wanted: IssueRequest
    address: str | None
    user_agent: str | None
    path: str
    route: str
    head: bytes


class LoginResponseCache:
    """Middleware that caches accepted requests, and the fast path that answers their repetitions.

    Not used with a shared rate limiter or a required audit, because the fast path cannot wait.
    """

    def __init__(
        self,
        app: ASGIApp,
        target: str,
        *,
        verifier: CacheVerifier,
        limiter: CacheRateLimiter,
        issuer: CredentialIssuer,
        client_settings: ClientSettings,
        access_log: AccessLog,
        clock: Callable[[], datetime],
        most: int = MAX_KNOWN_REQUESTS,
    ) -> None:
        """`target` is the path that issues logins, `most` the maximum number of cached requests."""
        self.app = app
        self.target = target.encode()
        self._verifier = verifier
        self._limiter = limiter
        self._issuer = issuer
        self._answers = LoginResponses(client_settings, most)
        self._access_log = access_log
        self._most = most
        self._clock = clock
        self._known: OrderedDict[bytes, KnownRequest] = OrderedDict()

    @property
    def cached_requests(self) -> int:
        """Number of cached requests."""
        return len(self._known)

    def answer(self, request: RawRequest) -> bytes | None:
        """The response after the status line and the server's own headers; None if the middleware must run."""
        began = time.perf_counter()
        headers = dict(request.headers)
        # A token without a dot was never accepted, so the request needs no hash.
        if b"." not in headers.get(b"authorization", b"") or len(request.body) > MAX_BODY_BYTES:
            return None
        key = _key(request, headers)
        known = self._known.get(key)
        if known is None:
            return None
        now = self._clock()
        try:
            principal = self._verifier.cached_principal_for(known.fingerprint, now)
            login = None if principal is None else self._issuer.cached_login(principal, known.wanted, now)
            if principal is None or login is None:
                return None
            rate_limit = self._limiter.check_user_locally(principal)
        except (TokenRejected, RateLimited):
            return None
        self._known.move_to_end(key)
        request_id = request_id_of(headers)
        seconds = time.perf_counter() - began
        if not self._issuer.is_repeat(login, known.address, known.user_agent, seconds):
            before = REQUEST_CONTEXT.set(
                RequestContext(request_id, known.address, known.user_agent, principal.user_key)
            )
            try:
                self._issuer.record_returned(login, seconds)
            finally:
                REQUEST_CONTEXT.reset(before)
        body = self._answers.render(login, now)
        self._access_log(request_id, "POST", known.path, known.route, 200, began, known.address)
        return b"%bcontent-length: %d\r\n%bx-request-id: %b\r\n\r\n%b" % (
            known.head,
            len(body),
            b"" if rate_limit is None else rate_limit_lines(rate_limit),
            request_id.encode("ascii"),
            body,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request: RawRequest | None = scope.get(RAW_REQUEST)
        if request is None or request.method != b"POST":  # GET on this path lists devices
            await self.app(scope, receive, send)
            return
        head: Message = {}

        async def listening(message: Message) -> None:
            if message["type"] == "http.response.start":
                head.update(message)
            await send(message)

        await self.app(scope, receive, listening)
        if head.get("status") == 200 and PRINCIPAL in scope and len(request.body) <= MAX_BODY_BYTES:
            self._remember(request, scope, head["headers"])

    def _remember(self, request: RawRequest, scope: Scope, response_headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Cache an accepted request, unless its connection has special headers."""
        headers, unverified_token = headers_of(scope), bearer_of(scope)
        head = _written(header for header in response_headers if header[0] not in PER_RESPONSE_HEADERS)
        if _is_special(headers) or b"\r\nconnection:" in b"\r\n" + head or not isinstance(unverified_token, str):
            return
        wanted = TelephonyCredentialRequest.model_validate(json.loads(request.body)).to_issue_request()
        user_agent = REQUEST_CONTEXT.get().user_agent
        known = KnownRequest(
            self._verifier.fingerprint(unverified_token),
            wanted,
            client_of(scope),
            user_agent,
            scope["path"],
            route_of(scope),
            head,
        )
        self._known[_key(request, headers)] = known
        if len(self._known) > self._most:
            self._known.popitem(last=False)


class LoginResponses:
    """Serialized responses. Responses for one login differ only in `server_time`, so the rest is cached."""

    def __init__(self, client_settings: ClientSettings, most: int) -> None:
        self._client_settings = client_settings
        self._most = most
        self._parts: OrderedDict[str, tuple[Login, bytes, bytes]] = OrderedDict()

    def render(self, login: Login, now: datetime) -> bytes:
        found = self._parts.get(login.lease.id)
        if found is None or found[0] is not login:
            found = self._parts[login.lease.id] = (login, *self._written(login, now))
            if len(self._parts) > self._most:
                self._parts.popitem(last=False)
        return b"%b%b%b" % (found[1], instant(now).encode(), found[2])

    def _written(self, login: Login, now: datetime) -> tuple[bytes, bytes]:
        """The response before and after `server_time`."""
        credential = TelephonyCredential.from_login(login, self._client_settings, now)
        whole = credential.model_dump_json(exclude_none=True).encode()
        before, name, behind = whole.rpartition(b'"server_time":"')
        return before + name, behind[len(instant(now)) :]


def _key(request: RawRequest, headers: dict[bytes, bytes]) -> bytes:
    """The hash of the request without PER_REQUEST_HEADERS. Hashed, because the request contains a token."""
    peer, method, target, raw, body = request
    if not headers.keys().isdisjoint(PER_REQUEST_HEADERS):
        own = [
            header
            for header in raw
            if header[0] in PER_REQUEST_HEADERS and len(header[1]) <= MAX_PER_REQUEST_HEADER_BYTES
        ]
        if len(own) <= len(PER_REQUEST_HEADERS):
            raw = [header for header in raw if header not in own]
    # The parts before the body contain no line break, and the body's length comes first. So different requests never
    # produce the same bytes.
    first = (b"%d" % len(body), str(peer).encode(), method, target)
    return hashlib.sha256(b"\n".join(chain(first, chain.from_iterable(raw), (body,)))).digest()


def _written(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([LINE % header for header in headers])


def _is_special(headers: dict[bytes, bytes]) -> bool:
    """True if the connection is to be upgraded or closed, or if the client waits for `100 Continue`."""
    stays = headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
    return not stays or b"upgrade" in headers or b"expect" in headers
