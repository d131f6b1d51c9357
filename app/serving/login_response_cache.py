"""The shortcut: a device that asks again, with the very headers it asked with before, is answered as its bytes arrive.

It repeats no check that rests on bytes alone, such as lengths and forms, and makes no head anew: every layer let these
same bytes pass before, and gave that head. What may have changed since is asked each time, of those who know: the
verifier whether the token still holds, the issuer whether the login is still the one to give, the limiter whether there
is room. Whatever is not plainly that goes the way through all layers, untouched, and is told there what is wrong.
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
from app.api.schemas.client_settings import ClientSettings
from app.api.schemas.fields import instant
from app.api.schemas.telephony_credentials import TelephonyCredential, TelephonyCredentialRequest
from app.api.scope import PRINCIPAL, RAW_REQUEST, client_of, headers_of, request_id_of, route_of
from app.vending.audit import REQUEST_CONTEXT, RequestContext
from app.vending.errors import RateLimited, TokenRejected
from app.vending.models import IssueRequest, Principal, RateLimitStatus
from app.vending.telephony.issue import CredentialIssuer
from app.vending.telephony.login_cache import Login

MAX_KNOWN_REQUESTS = 4096
"""Requests remembered, about 2 KB each, their answers with them; the least recently used goes first."""

MAX_BODY_BYTES = 256

PER_REQUEST_HEADERS = (b"x-request-id", b"traceparent", b"tracestate")
"""Headers that differ from request to request, and that no layer but the outermost looks at."""

MAX_PER_REQUEST_HEADER_BYTES = 512
"""The longest of those. What is longer, or comes more often, the layers judge."""

PER_RESPONSE_HEADERS = (
    b"content-length",
    b"x-request-id",
    b"ratelimit-limit",
    b"ratelimit-remaining",
    b"ratelimit-reset",
)
"""Headers of an answer that the next one has otherwise."""

LINE = b"%b: %b\r\n"


class RawRequest(NamedTuple):
    """A request as it came: HTTP/1.1, whole, and not yet looked at."""

    peer: str | None
    """The other end of the connection, whose word may be believed about who is behind it."""
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


class CacheVerifier(Protocol):
    def fingerprint(self, unverified_token: str) -> bytes: ...

    def cached_principal_for(self, fingerprint: bytes, now: datetime) -> Principal | None:
        """Who that token proved before, if that still holds. Raises TokenRejected."""


class CacheRateLimiter(Protocol):
    def check_user_locally(self, principal: Principal) -> RateLimitStatus | None:
        """How the user stands with their limit, counted by this process. Raises RateLimited."""


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """A request that all layers let pass, and what its answer began with."""

    fingerprint: bytes
    wanted: IssueRequest
    address: str | None
    user_agent: str | None
    path: str
    route: str
    head: bytes


class LoginResponseCache:
    """Overrides all layers: one that remembers what they let pass, and what the server asks before it begins a request.

    Not for where something must be waited for: a shared limiter, an audit that is required.
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
        """`target`: the address that logins are had from; `most`: so many requests are remembered."""
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
        """How many requests `answer` recognizes."""
        return len(self._known)

    def answer(self, asked: RawRequest) -> bytes | None:
        """The answer behind its status and the server's own headers, or None: it must go through all layers."""
        began = time.perf_counter()
        headers = dict(asked.headers)
        # Nothing without a dot was ever let pass as a token, and hashes of rubbish are not worth their time.
        if b"." not in headers.get(b"authorization", b"") or len(asked.body) > MAX_BODY_BYTES:
            return None
        key = _key(asked, headers)
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
        asked: RawRequest | None = scope.get(RAW_REQUEST)
        if asked is None or asked.method != b"POST":  # their list is had from the same address
            await self.app(scope, receive, send)
            return
        head: Message = {}

        async def listening(message: Message) -> None:
            if message["type"] == "http.response.start":
                head.update(message)
            await send(message)

        await self.app(scope, receive, listening)
        if head.get("status") == 200 and PRINCIPAL in scope and len(asked.body) <= MAX_BODY_BYTES:
            self._remember(asked, scope, head["headers"])

    def _remember(self, asked: RawRequest, scope: Scope, told: Iterable[tuple[bytes, bytes]]) -> None:
        """What went through all layers well will do so again, as long as those who are asked say the same."""
        headers, unverified_token = headers_of(scope), bearer_of(scope)
        head = _written(header for header in told if header[0] not in PER_RESPONSE_HEADERS)
        if _is_special(headers) or b"\r\nconnection:" in b"\r\n" + head or not isinstance(unverified_token, str):
            return
        wanted = TelephonyCredentialRequest.model_validate(json.loads(asked.body)).to_issue_request()
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
        self._known[_key(asked, headers)] = known
        if len(self._known) > self._most:
            self._known.popitem(last=False)


class LoginResponses:
    """Answers as bytes. Of one login they differ in the server's time only, so the rest is written once."""

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
        """What stands before and behind the server's time."""
        credential = TelephonyCredential.from_login(login, self._client_settings, now)
        whole = credential.model_dump_json(exclude_none=True).encode()
        before, name, behind = whole.rpartition(b'"server_time":"')
        return before + name, behind[len(instant(now)) :]


def _key(asked: RawRequest, headers: dict[bytes, bytes]) -> bytes:
    """All that came, without what is another each time. A hash: there is a token in it."""
    peer, method, target, raw, body = asked
    if not headers.keys().isdisjoint(PER_REQUEST_HEADERS):
        own = [
            header
            for header in raw
            if header[0] in PER_REQUEST_HEADERS and len(header[1]) <= MAX_PER_REQUEST_HEADER_BYTES
        ]
        if len(own) <= len(PER_REQUEST_HEADERS):
            raw = [header for header in raw if header not in own]
    # Nothing before the body has a line break in it, and how long that is comes first: parts that are split otherwise
    # are another request.
    first = (b"%d" % len(body), str(peer).encode(), method, target)
    return hashlib.sha256(b"\n".join(chain(first, chain.from_iterable(raw), (body,)))).digest()


def _written(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([LINE % header for header in headers])


def _is_special(headers: dict[bytes, bytes]) -> bool:
    """Whether the connection is to become another, or to end, or its other end waits to be told to go on."""
    stays = headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
    return not stays or b"upgrade" in headers or b"expect" in headers
