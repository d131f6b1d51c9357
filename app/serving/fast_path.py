"""The fast path: answers a login request whose device has a cached login, without running the app.

It decides by what the request means, not by its bytes, with the parts that the middleware and the route use: the
verifier, the not-before entries, the policy, the limits, the audit and the access log. Everything that is not exactly
one plain request, or for which something has to be awaited, is left to the app.
"""

import json
import re
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, cast

from opentelemetry.trace import SpanKind, Tracer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware.auth import bearer_token
from app.api.middleware.body import JSON
from app.api.middleware.context import AccessLog, parent_trace, span_attributes
from app.api.middleware.limits import MAX_HEADERS
from app.api.problems import Problem, problem_of, rate_limit_lines
from app.api.request_scope import request_id_of
from app.api.schemas.client_settings import ClientSettings
from app.api.schemas.fields import instant
from app.api.schemas.telephony_credentials import TelephonyCredential, TelephonyCredentialRequest
from app.serving.front import Request
from app.serving.responses import header_lines, problem_lines
from app.vending.audit import REQUEST_CONTEXT, Audit, Decision, RequestContext
from app.vending.errors import RateLimited, TokenRejected
from app.vending.models import IssueRequest, Principal, RateLimitStatus
from app.vending.telephony.issue import CredentialIssuer
from app.vending.telephony.login_cache import CachedLogin, Login

MAX_BODY_BYTES = 512
MAX_HEAD_BYTES = 12 * 1024
"""Longer requests go through the middleware, which measures them exactly. A head has 1 to 3 KB, its token included."""

MAX_CACHED_ORIGINS = 64
MAX_ORIGIN_BYTES = 256

_ONLY_DEVICE_ID = re.compile(rb'\s*\{\s*"device_id"\s*:\s*"([A-Za-z0-9._:-]{1,64})"\s*\}\s*\Z')
"""The usual body. All others are parsed as the route parses them."""


class FastPathVerifier(Protocol):
    def cached_principal(self, unverified_token: str, now: datetime | None = None) -> Principal | None:
        """The principal of a token that was verified before; None if it must be verified. Raises TokenRejected."""

    def verify_now(self, unverified_token: str) -> Principal | None:
        """The principal that the token proves; None if something must be awaited. Raises TokenRejected."""


class FastPathRateLimiter(Protocol):
    def check_address(self, address: str) -> None:
        """Raises RateLimited for an address with too many rejected tokens."""

    def record_failure_locally(self, address: str) -> None:
        """Count a rejected token from this address, in memory."""

    def check_user_locally(self, principal: Principal) -> RateLimitStatus | None:
        """Count a request of the user, in memory. Raises RateLimited."""


class ResponseHeads:
    """The headers that the middleware adds to a response, by the request's `Origin`. They depend on nothing else."""

    def __init__(self, middleware: Callable[[ASGIApp], ASGIApp]) -> None:
        """`middleware` adds the headers. It must not log: it runs once for each origin."""
        self._app = middleware(_empty_response)
        self._cached = lru_cache(MAX_CACHED_ORIGINS)(self._lines)

    def lines(self, origin: bytes | None) -> bytes:
        if origin is not None and len(origin) > MAX_ORIGIN_BYTES:
            return self._lines(origin)
        return self._cached(origin)

    def _lines(self, origin: bytes | None) -> bytes:
        headers = [] if origin is None else [(b"origin", origin)]
        added: list[tuple[bytes, bytes]] = []

        async def send(message: Message) -> None:
            added.extend(message.get("headers", ()))

        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "client": None}
        running = cast("Coroutine[Any, Any, None]", self._app(scope, _no_body, send))
        with suppress(StopIteration):
            # Nothing in it waits. In a context of its own, because the middleware sets the request context.
            copy_context().run(running.send, None)
        return header_lines(header for header in added if header[0] != b"x-request-id")


class _Answered(NamedTuple):
    """An answered request, as it is recorded at the end of the round: with the returned login or the refusal."""

    context: RequestContext
    headers: dict[bytes, bytes]
    status: int
    login: Login | None
    refusal: TokenRejected | RateLimited | None
    began: float


class FastPath:
    """Answers plain login requests from the login cache, and rejects their invalid tokens."""

    def __init__(
        self,
        path: str,
        root_path: str = "",
        *,
        verifier: FastPathVerifier,
        limiter: FastPathRateLimiter,
        issuer: CredentialIssuer,
        audit: Audit,
        heads: ResponseHeads,
        client_settings: ClientSettings,
        access_log: AccessLog,
        tracer: Tracer | None,
        clock: Callable[[], datetime],
    ) -> None:
        """`path` is the route that issues logins, `root_path` the prefix that a proxy has removed from it."""
        self.target = path.encode()
        self.max_body_bytes = MAX_BODY_BYTES
        self._route = path
        self._path = root_path + path
        self._verifier = verifier
        self._limiter = limiter
        self._issuer = issuer
        self._audit = audit
        self._heads = heads
        self._client_settings = client_settings
        self._access_log = access_log
        self._tracer = tracer
        self._clock = clock
        self._answered: list[_Answered] = []
        """The requests that were answered in this round and are not recorded."""

    def answer(self, request: Request) -> tuple[int, bytes] | None:
        """The status and the response after the server's own headers; None if the app must run."""
        began = time.perf_counter()
        if not _is_plain(request):
            return None
        headers, address = request.head.by_name, request.address
        request_id = request_id_of(headers)
        unverified_token = bearer_token(headers, request_id)
        if isinstance(unverified_token, Problem):
            return None
        now = self._clock()
        principal = login = rate_limit = refusal = None
        try:
            principal = self._authenticate(unverified_token, address or "", now)
            if principal is None:
                return None
            entry = self._cached_login(request, principal, request_id, now)
            if entry is None or entry.login.token is None:
                return None
            rate_limit = self._limiter.check_user_locally(principal)
            login, body = entry.login, self._body(entry, entry.login.token.secret, now)
        except (TokenRejected, RateLimited) as error:
            refusal, body = error, b""
        user_agent = headers.get(b"user-agent")
        context = RequestContext(
            request_id,
            address,
            None if user_agent is None else user_agent.decode("latin-1"),
            None if principal is None else principal.user_key,
        )
        common = self._heads.lines(headers.get(b"origin"))
        if refusal is not None:
            status, response = _problem(refusal, request_id, common)
        else:
            status, response = 200, _success(body, rate_limit, common, request_id)
        self._answered.append(_Answered(context, headers, status, login, refusal, began))
        return status, response

    def end_round(self) -> None:
        """Record the requests that were answered in this round, in the audit, the access log, metrics and traces."""
        answered, self._answered = self._answered, []
        for request in answered:
            context, _, status, login, refusal, began = request
            before = REQUEST_CONTEXT.set(context)
            try:
                if login is not None:
                    self._issuer.record_returned(login, time.perf_counter() - began)
                elif refusal is not None:
                    self._audit.record_nowait(Decision.denial(refusal, context.actor))
            finally:
                REQUEST_CONTEXT.reset(before)
            self._access_log(
                str(context.request_id), "POST", self._path, self._route, status, began, context.client_address
            )
            if self._tracer is not None:
                self._record_span(self._tracer, request)

    def _record_span(self, tracer: Tracer, request: "_Answered") -> None:
        """The span that the middleware would have recorded. A request that is left to the app has no second one."""
        now = time.time_ns()
        tracer.start_span(
            f"POST {self._route}",
            parent_trace(request.headers),
            SpanKind.SERVER,
            span_attributes("POST", self._route, request.status, str(request.context.request_id)),
            start_time=now - int((time.perf_counter() - request.began) * 1e9),
        ).end(now)

    def _cached_login(
        self, request: Request, principal: Principal, request_id: str, now: datetime
    ) -> CachedLogin | None:
        wanted = _issue_request(request)
        if wanted is None:
            return None
        before = REQUEST_CONTEXT.set(RequestContext(request_id))  # the policy may log
        try:
            entry = self._issuer.cached_login(principal, wanted, now)
        finally:
            REQUEST_CONTEXT.reset(before)
        return entry

    def _authenticate(self, unverified_token: str, address: str, now: datetime) -> Principal | None:
        """None if something must be awaited. Raises TokenRejected or RateLimited."""
        try:
            principal = self._verifier.cached_principal(unverified_token, now)
            if principal is None:
                # A known user is not limited by other callers' invalid tokens from the same address.
                self._limiter.check_address(address)
                principal = self._verifier.verify_now(unverified_token)
        except TokenRejected:
            self._limiter.record_failure_locally(address)
            raise
        return principal

    def _body(self, entry: CachedLogin, token: str, now: datetime) -> bytes:
        """The serialized login. Responses for one login differ only in `server_time`, so the rest is cached.

        The token is left out of that, because it is most of the response and in memory already.
        """
        parts = entry.response
        if parts is None:
            credential = TelephonyCredential.from_login(entry.login, self._client_settings, now)
            before_token, after_token = credential.model_dump_json(exclude_none=True).split(token, 1)
            before_time, name, after_time = after_token.rpartition('"server_time":"')
            after_time = after_time[len(instant(now)) :]
            parts = entry.response = before_token.encode(), (before_time + name).encode(), after_time.encode()
        return b"".join((parts[0], token.encode(), parts[1], instant(now).encode(), parts[2]))


def _success(body: bytes, rate_limit: RateLimitStatus | None, common: bytes, request_id: str) -> bytes:
    return b"".join(
        (
            b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
            b"" if rate_limit is None else rate_limit_lines(rate_limit),
            common,
            b"x-request-id: %b\r\n\r\n" % request_id.encode("ascii"),
            body,
        )
    )


def _problem(error: TokenRejected | RateLimited, request_id: str, common: bytes) -> tuple[int, bytes]:
    if isinstance(error, RateLimited) and error.rate_limit is not None:
        common = rate_limit_lines(error.rate_limit) + common
    problem = problem_of(error, request_id)
    return problem.kind.status, problem_lines(problem, common)


def _is_plain(request: Request) -> bool:
    """Whether the request is one that the middleware would pass on without looking at it again."""
    head, headers = request.head, request.head.by_name
    return (
        head.method == b"POST"
        and head.version == b"1.1"
        and head.size <= MAX_HEAD_BYTES
        and len(headers) == len(head.headers) <= MAX_HEADERS
        and headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        and headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower() == JSON.encode()
    )


def _issue_request(request: Request) -> IssueRequest | None:
    """The requested login; None if the route has to validate the body."""
    usual = _ONLY_DEVICE_ID.match(request.body)
    if usual is not None:
        return IssueRequest(usual[1].decode("ascii"))
    try:
        return TelephonyCredentialRequest.model_validate(json.loads(request.body)).to_issue_request()
    except (ValueError, RecursionError):
        return None


async def _empty_response(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _no_body() -> Message:
    raise AssertionError
