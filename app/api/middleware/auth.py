"""Bearer authentication: verifies the token and sets the Principal before the body is read.

Rate limits apply here too: by address before a token is verified, by user after it.
"""

from collections.abc import Mapping
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.api.problems import REALM, Problem, problem_of
from app.api.request_scope import (
    BACKCHANNEL_LOGOUT,
    PRINCIPAL,
    RATE_LIMIT,
    REQUEST_ID,
    client_of,
    headers_of,
    path_of,
)
from app.vending.audit import REQUEST_CONTEXT, Audit, AuditAction, AuditOutcome, Decision, RequestContext
from app.vending.errors import DialtoneError, RateLimited, TokenRejected
from app.vending.models import Principal, RateLimitStatus

PROTECTED_PREFIX = "/v1"
"""Every path below this requires a bearer token, except BACKCHANNEL_LOGOUT."""


class AuthVerifier(Protocol):
    async def verify(self, unverified_token: str) -> Principal:
        """Raises TokenRejected, IdentityUnavailable or LedgerUnavailable."""

    def cached_principal(self, unverified_token: str) -> Principal | None:
        """The principal of a token that was verified before; None if it must be verified. Raises TokenRejected."""


class AuthRateLimiter(Protocol):
    def check_address(self, address: str) -> None:
        """Raises RateLimited for an address with too many rejected tokens."""

    async def record_failure(self, address: str) -> None:
        """Count a rejected token from this address."""

    async def check_user(self, principal: Principal) -> RateLimitStatus | None:
        """Count a request of the user. Raises RateLimited."""


class BearerAuthMiddleware:
    """RFC 6750: accepts one `Authorization: Bearer <token>` header, and no token in the query or the body."""

    def __init__(self, app: ASGIApp, verifier: AuthVerifier, limiter: AuthRateLimiter, audit: Audit) -> None:
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
                await self._app(scope, receive, self._counting(address, send))
                return
            unverified_token = bearer_token(headers_of(scope), scope[REQUEST_ID])
            if isinstance(unverified_token, Problem):
                self._audit.record_nowait(Decision(AuditAction.DENIED, AuditOutcome.DENIED, unverified_token.kind.code))
                await unverified_token.send(send)
                return
            # A known user is not limited by other callers' invalid tokens from the same address.
            principal = self._verifier.cached_principal(unverified_token)
            if principal is None:
                self._limiter.check_address(address)
                principal = await self._verifier.verify(unverified_token)
            request_id, client_address, user_agent, _ = REQUEST_CONTEXT.get()
            REQUEST_CONTEXT.set(RequestContext(request_id, client_address, user_agent, principal.user_key))
            scope[RATE_LIMIT] = await self._limiter.check_user(principal)
        except (TokenRejected, RateLimited) as error:
            if isinstance(error, RateLimited):
                scope[RATE_LIMIT] = error.rate_limit
            else:
                await self._limiter.record_failure(address)
            self._audit.record_nowait(Decision.denial(error, REQUEST_CONTEXT.get().actor))
            await problem_of(error, scope[REQUEST_ID]).send(send)
            return
        except DialtoneError as error:
            await problem_of(error, scope[REQUEST_ID]).send(send)
            return
        scope[PRINCIPAL] = principal
        await self._app(scope, receive, send)

    def _counting(self, address: str, send: Send) -> Send:
        """Count rejected logout tokens. The route verifies them, because they are in the body."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 400:
                await self._limiter.record_failure(address)
            await send(message)

        return counting


def bearer_token(headers: Mapping[bytes, bytes], request_id: str) -> str | Problem:
    """The unverified token, or a Problem if the header is missing or malformed."""
    header = headers.get(b"authorization", b"")
    scheme, _, rest = header.partition(b" ")
    if scheme.lower() != b"bearer":
        return Problem(problems.MISSING_TOKEN, request_id, (("WWW-Authenticate", REALM),))
    unverified_token = rest.strip(b" ")
    if not unverified_token or b" " in unverified_token or not unverified_token.isascii():
        challenge = ("WWW-Authenticate", f'{REALM}, error="invalid_request"')
        return Problem(problems.BAD_AUTHORIZATION, request_id, (challenge,))
    return unverified_token.decode("ascii")


def _is_below(prefix: str, scope: Scope) -> bool:
    path = path_of(scope)
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")
