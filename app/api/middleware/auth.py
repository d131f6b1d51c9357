"""Bearer authentication: verifies the token and sets the Principal before the body is read.

Rate limits apply here too: by address before a token is verified, by user after it.
"""

from collections.abc import Mapping
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.api.origins import AllowedOrigins
from app.api.problems import REALM, Problem, problem_of
from app.api.request_scope import (
    BACKCHANNEL_LOGOUT,
    KEY_PENDING,
    PRINCIPAL,
    RATE_LIMIT,
    REQUEST_ID,
    client_of,
    headers_of,
    path_of,
)
from app.vending.audit import REQUEST_CONTEXT, Audit, AuditAction, AuditOutcome, Decision, RequestContext
from app.vending.errors import DialtoneError, RateLimited, SigningKeyPending, TokenRejected
from app.vending.grants.models import may_use_origin
from app.vending.models import Principal, RateLimitStatus

PROTECTED_PREFIX = "/v1"
"""Every path below this requires a bearer token, except BACKCHANNEL_LOGOUT."""

INVALID_REQUEST = f'{REALM}, error="invalid_request"'
DEFAULT_PORTS = {"https": ":443", "http": ":80"}
"""Ports that browsers leave out of `Origin` (RFC 6454 section 6.1)."""


class AuthVerifier(Protocol):
    """Verifies access tokens. `header` is the request header with the token: None means `Authorization`."""

    @property
    def token_headers(self) -> frozenset[bytes]:
        """The other request headers with tokens, which a proxy adds. Each belongs to one issuer."""

    async def verify(self, unverified_token: str, header: str | None = None) -> Principal:
        """Raises TokenRejected, IdentityUnavailable or LedgerUnavailable."""

    def cached_principal(self, unverified_token: str, *, header: str | None = None) -> Principal | None:
        """The principal of a token that was verified before; None if it must be verified. Raises TokenRejected."""


class AuthRateLimiter(Protocol):
    def check_address(self, address: str) -> None:
        """Raises RateLimited for an address with too many rejected tokens."""

    def record_failure(self, address: str) -> None:
        """Count a rejected token from this address."""

    def check_user(self, principal: Principal) -> RateLimitStatus | None:
        """Count a request of the user. Raises RateLimited."""


class BearerAuthMiddleware:
    """RFC 6750: accepts one `Authorization: Bearer <token>` header, and no token in the query or the body.

    An issuer may have a header of its own instead (`TokenVerifier.token_headers`), which a proxy adds to requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifier: AuthVerifier,
        limiter: AuthRateLimiter,
        audit: Audit,
        origins: frozenset[str] = frozenset(),
    ) -> None:
        """`origins` are the origins whose pages may use a token that a proxy has added."""
        self._origins = AllowedOrigins(origins)
        self._app = app
        self._verifier = verifier
        self._limiter = limiter
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_below(PROTECTED_PREFIX, scope):
            await self._app(scope, receive, send)
            return
        address = client_of(scope) or ""
        try:
            if path_of(scope) == BACKCHANNEL_LOGOUT:
                self._limiter.check_address(address)
                await self._app(scope, receive, self._counting(address, scope, send))
                return
            presented = self._presented_token(scope)
            if isinstance(presented, Problem):
                self._audit.record_nowait(Decision(AuditAction.DENIED, AuditOutcome.DENIED, presented.kind.code))
                await presented.send(send)
                return
            unverified_token, header = presented
            # A known user is not limited by other callers' invalid tokens from the same address.
            principal = self._verifier.cached_principal(unverified_token, header=header)
            if principal is None:
                self._limiter.check_address(address)
                principal = await self._verifier.verify(unverified_token, header)
            request_id, client_address, user_agent, _ = REQUEST_CONTEXT.get()
            REQUEST_CONTEXT.set(RequestContext(request_id, client_address, user_agent, principal.user_key))
            if not may_use_origin(principal, _origin_of(scope)):
                raise TokenRejected("grant_of_other_origin")
            scope[RATE_LIMIT] = self._limiter.check_user(principal)
        except (TokenRejected, RateLimited) as error:
            if isinstance(error, RateLimited):
                scope[RATE_LIMIT] = error.rate_limit
            else:
                self._limiter.record_failure(address)
            self._audit.record_nowait(Decision.denial(error, REQUEST_CONTEXT.get().actor))
            await problem_of(error, scope[REQUEST_ID]).send(send)
            return
        except DialtoneError as error:
            if isinstance(error, SigningKeyPending):
                self._limiter.record_failure(address)  # the token may be invalid, and floods must be limited
            await problem_of(error, scope[REQUEST_ID]).send(send)
            return
        scope[PRINCIPAL] = principal
        await self._app(scope, receive, send)

    def _presented_token(self, scope: Scope) -> tuple[str, str | None] | Problem:
        """The unverified token and its header, None for `Authorization`; or a Problem."""
        headers, request_id = headers_of(scope), scope[REQUEST_ID]
        if self._verifier.token_headers.isdisjoint(headers):
            bearer = bearer_token(headers, request_id)
            return bearer if isinstance(bearer, Problem) else (bearer, None)
        return proxied_token(scope, self._verifier.token_headers, self._origins)

    def _counting(self, address: str, scope: Scope, send: Send) -> Send:
        """Count rejected logout tokens. The route verifies them, because they are in the body."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start" and (message["status"] == 400 or scope.get(KEY_PENDING)):
                self._limiter.record_failure(address)
            await send(message)

        return counting


def bearer_token(headers: Mapping[bytes, bytes], request_id: str) -> str | Problem:
    """The unverified token, or a Problem if the header is missing or malformed."""
    if not is_bearer(headers):
        return Problem(problems.MISSING_TOKEN, request_id, (("WWW-Authenticate", REALM),))
    unverified_token = headers[b"authorization"].partition(b" ")[2].strip(b" ")
    if not unverified_token or b" " in unverified_token or not unverified_token.isascii():
        return Problem(problems.BAD_AUTHORIZATION, request_id, (("WWW-Authenticate", INVALID_REQUEST),))
    return unverified_token.decode("ascii")


def proxied_token(scope: Scope, token_headers: frozenset[bytes], origins: AllowedOrigins) -> tuple[str, str] | Problem:
    """The unverified token that a proxy has added, and its header; or a Problem.

    The proxy adds it to every request that has the user's cookie, even if a page of another origin made the request.
    Therefore the origin must be allowed. BodyLimitsMiddleware rejects bodies that a form of such a page can send.
    """
    headers, request_id = headers_of(scope), scope[REQUEST_ID]
    names = [name for name, _ in scope["headers"]]
    found = [name for name in names if name in token_headers]
    if len(found) > 1 or is_bearer(headers):
        return Problem(problems.SEVERAL_TOKENS, request_id, (("WWW-Authenticate", INVALID_REQUEST),))
    if names.count(b"origin") > 1 or not _has_allowed_origin(scope, origins):
        return Problem(problems.ORIGIN_NOT_ALLOWED, request_id, (("WWW-Authenticate", REALM),))
    unverified_token = headers[found[0]].strip(b" ")
    if not unverified_token or b" " in unverified_token or not unverified_token.isascii():
        return Problem(problems.BAD_AUTHORIZATION, request_id, (("WWW-Authenticate", INVALID_REQUEST),))
    return unverified_token.decode("ascii"), found[0].decode("ascii")


def _has_allowed_origin(scope: Scope, origins: AllowedOrigins) -> bool:
    """Whether the request comes from a listed origin or from this service's own.

    Browsers send `Origin` with every request that may change something (Fetch standard, section 3.2).
    """
    headers = headers_of(scope)
    origin = headers.get(b"origin")
    if origin is None:
        return scope["method"] in ("GET", "HEAD")
    scheme, host = scope["scheme"], headers.get(b"host", b"").decode("latin-1").lower()
    own = f"{scheme}://{host.removesuffix(DEFAULT_PORTS.get(scheme, ''))}"
    return bool(host) and (origin.decode("latin-1") in origins or origin.decode("latin-1") == own)


def _origin_of(scope: Scope) -> str | None:
    """The request's origin. None if there is none, or several."""
    found = [value for name, value in scope["headers"] if name == b"origin"]
    return found[0].decode("latin-1") if len(found) == 1 else None


def is_bearer(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"authorization", b"").partition(b" ")[0].lower() == b"bearer"


def _is_below(prefix: str, scope: Scope) -> bool:
    path = path_of(scope)
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")
