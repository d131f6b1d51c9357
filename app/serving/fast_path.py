"""The fast path: answers a login request whose device has a cached login, without running the app.

It decides by what the request means, not by its bytes, with the parts that the middleware and the route use: the
verifier, the not-before entries, the policy, the limits, the audit and the access log. Everything that is not exactly
one plain request, or for which something has to be awaited, is left to the app.
"""

import re
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol, TypeVar, cast

import structlog
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
from app.serving.front_host import Answer, Request
from app.serving.responses import header_lines, problem_lines
from app.vending import strict_json
from app.vending.audit import NO_REQUEST, REQUEST_CONTEXT, Audit, Decision, RequestContext
from app.vending.errors import DialtoneError, RateLimited, TokenRejected
from app.vending.grants.models import may_use_origin
from app.vending.models import IssueRequest, Principal, RateLimitStatus
from app.vending.telephony.issue import CredentialIssuer
from app.vending.telephony.login_cache import CachedLogin, Login

MAX_BODY_BYTES = 512
MAX_HEAD_BYTES = 16 * 1024
"""Longer requests go through the middleware, which measures them exactly. A head has 1 to 3 KB, its token included, and
up to 16 KB if an issuer allows tokens of 12 KB."""

MAX_CACHED_ORIGINS = 64
MAX_ORIGIN_BYTES = 256

R = TypeVar("R")

_ONLY_DEVICE_ID = re.compile(
    rb'[ \t\r\n]*\{[ \t\r\n]*"device_id"[ \t\r\n]*:[ \t\r\n]*"([A-Za-z0-9._:-]{1,64})"[ \t\r\n]*\}[ \t\r\n]*\Z'
)
"""The usual body. Other bodies are parsed as the route parses them."""


class FastPathVerifier(Protocol):
    @property
    def token_headers(self) -> frozenset[bytes]:
        """Headers with tokens that a proxy adds. Requests with one of them are left to the middleware."""

    def cached_principal(self, unverified_token: str, now: datetime | None = None) -> Principal | None:
        """The principal of a token that was verified before; None if it must be verified. Raises TokenRejected."""

    def verify_now(self, unverified_tokens: list[str]) -> list[Principal | DialtoneError | None]:
        """For each token the principal that it proves, or the error; None if something must be awaited."""


class FastPathRateLimiter(Protocol):
    def check_address(self, address: str) -> None:
        """Raises RateLimited for an address with too many rejected tokens."""

    def record_failure(self, address: str) -> None:
        """Count a rejected token from this address."""

    def check_user(self, principal: Principal) -> RateLimitStatus | None:
        """Count a request of the user. Raises RateLimited."""


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


class _Call:
    """A login request on the fast path, with the results of the steps so far."""

    __slots__ = ("began", "context", "login", "principal", "refusal", "request", "request_id", "status", "token")

    def __init__(self, request: Request, request_id: str, unverified_token: str, began: float) -> None:
        self.request = request
        self.request_id = request_id
        self.token = unverified_token
        self.began = began
        self.principal: Principal | None = None
        self.refusal: TokenRejected | RateLimited | None = None
        self.login: Login | None = None
        """The login that is returned."""
        self.context = NO_REQUEST
        self.status = 200

    @property
    def address(self) -> str:
        return self.request.address or ""


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

    def answer(self, requests: Sequence[Request]) -> list[Answer | None]:
        """An answer for each request; None if the app must run.

        Each step is done for all requests before the next step begins, so that its code and data are in the
        processor's caches. Answering the requests one after the other takes twice the CPU time.
        """
        now, token_headers = self._clock(), self._verifier.token_headers
        before = REQUEST_CONTEXT.set(NO_REQUEST)
        try:
            calls = [_read(request, token_headers) for request in requests]
            self._authenticate([call for call in calls if call is not None], now)
            responses = [None if call is None else _guarded(self._respond, call, now) for call in calls]
            for call, response in zip(calls, responses, strict=True):
                if call is not None and response is not None:
                    _guarded(self._record, call)
        finally:
            REQUEST_CONTEXT.reset(before)
        return responses

    def _authenticate(self, calls: Sequence[_Call], now: datetime) -> None:
        """Find or verify each caller. Neither principal nor refusal is set if something must be awaited."""
        unknown = []
        for call in calls:
            try:
                call.principal = self._verifier.cached_principal(call.token, now)
                if call.principal is None:
                    self._limiter.check_address(call.address)
                    unknown.append(call)
            except RateLimited as error:
                call.refusal = error
            except TokenRejected as error:
                self._limiter.record_failure(call.address)
                call.refusal = error
        if not unknown:
            return
        for call, verified in zip(unknown, self._verifier.verify_now([call.token for call in unknown]), strict=True):
            try:
                # Again: earlier requests of the batch may have used up the limit, which does not apply to known users.
                self._limiter.check_address(call.address)
            except RateLimited as error:
                call.refusal = error
                continue
            if isinstance(verified, TokenRejected):
                self._limiter.record_failure(call.address)
                call.refusal = verified
            elif not isinstance(verified, DialtoneError):
                call.principal = verified

    def _respond(self, call: _Call, now: datetime) -> Answer | None:
        headers, principal, body = call.request.head.by_name, call.principal, b""
        user_agent = headers.get(b"user-agent")
        context = call.context = RequestContext(
            call.request_id,
            call.request.address,
            None if user_agent is None else user_agent.decode("latin-1"),
            None if principal is None else principal.user_key,
        )
        rate_limit = None
        if principal is not None:
            REQUEST_CONTEXT.set(context)  # the policy may log
            origin = headers.get(b"origin")
            if not may_use_origin(principal, None if origin is None else origin.decode("latin-1")):
                return None  # the middleware rejects the token
            wanted = _issue_request(call.request)
            entry = None if wanted is None else self._issuer.cached_login(principal, wanted, now)
            if entry is None or entry.login.token is None:
                return None
            try:
                rate_limit = self._limiter.check_user(principal)
            except RateLimited as error:
                call.refusal = error
            else:
                call.login, body = entry.login, self._body(entry, entry.login.token.secret, now)
        common = self._heads.lines(headers.get(b"origin"))
        if call.refusal is not None:
            call.status, response = _problem(call.refusal, call.request_id, common)
            return call.status, response
        return None if principal is None else (200, _success(body, rate_limit, common, call.request_id))

    def _record(self, call: _Call) -> None:
        """Record an answered request: audit, access log, metrics and traces."""
        REQUEST_CONTEXT.set(call.context)
        if call.login is not None:
            self._issuer.record_returned(call.login, time.perf_counter() - call.began)
        elif call.refusal is not None:
            self._audit.record_nowait(Decision.denial(call.refusal, call.context.actor))
        self._access_log(
            call.request_id, "POST", self._path, self._route, call.status, call.began, call.request.address
        )
        if self._tracer is not None:
            self._record_span(self._tracer, call)

    def _record_span(self, tracer: Tracer, call: _Call) -> None:
        """The span that the middleware would have recorded. A request that is left to the app has no second one."""
        now = time.time_ns()
        tracer.start_span(
            f"POST {self._route}",
            parent_trace(call.request.head.by_name),
            SpanKind.SERVER,
            span_attributes("POST", self._route, call.status, call.request_id),
            start_time=now - int((time.perf_counter() - call.began) * 1e9),
        ).end(now)

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


def _guarded(step: Callable[..., R], call: _Call, *more: Any) -> R | None:
    """The step's result; None if it fails. The other requests must not run again in the app, and be counted twice."""
    try:
        return step(call, *more)
    except Exception:
        structlog.get_logger("dialtone").exception("fast_path_failed", request_id=call.request_id)
        return None


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


def _problem(error: TokenRejected | RateLimited, request_id: str, common: bytes) -> Answer:
    if isinstance(error, RateLimited) and error.rate_limit is not None:
        common = rate_limit_lines(error.rate_limit) + common
    problem = problem_of(error, request_id)
    return problem.kind.status, problem_lines(problem, common)


def _read(request: Request, token_headers: frozenset[bytes]) -> _Call | None:
    """The request, unless the app must run: it is not exactly one plain request, or it has no token."""
    began = time.perf_counter()
    if not _is_plain(request):
        return None
    headers = request.head.by_name
    if not token_headers.isdisjoint(headers):
        return None
    request_id = request_id_of(headers)
    unverified_token = bearer_token(headers, request_id)
    return None if isinstance(unverified_token, Problem) else _Call(request, request_id, unverified_token, began)


def _is_plain(request: Request) -> bool:
    """Whether the middleware would pass the request on unchanged."""
    head, headers = request.head, request.head.by_name
    return (
        head.method == b"POST"
        and head.version == b"1.1"
        and head.size <= MAX_HEAD_BYTES
        and len(headers) == len(head.headers) <= MAX_HEADERS
        and headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        and b"content-encoding" not in headers
        and headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower() == JSON.encode()
    )


def _issue_request(request: Request) -> IssueRequest | None:
    """The requested login; None if the route has to validate the body."""
    usual = _ONLY_DEVICE_ID.match(request.body)
    if usual is not None:
        return IssueRequest(usual[1].decode("ascii"))
    try:
        return TelephonyCredentialRequest.model_validate(strict_json.parse(request.body)).to_issue_request()
    except ValueError:
        return None


async def _empty_response(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _no_body() -> Message:
    raise AssertionError
