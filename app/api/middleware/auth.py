"""The bearer gate: before a byte of the body is read, the token is checked and the Principal put into the scope.

Whoever asks too often hears it here: strangers from one address before their token is looked at, users after it.
"""

from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.api.problems import REALM, Problem, problem_of
from app.api.scope import (
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
"""Everything under this wants a token, but the call that brings one of its own kind."""


class AuthVerifier(Protocol):
    async def verify(self, unverified_token: str) -> Principal:
        """Raises TokenRejected, IdentityUnavailable or LedgerUnavailable."""

    def cached_principal(self, unverified_token: str) -> Principal | None:
        """Who it proved before, if that still holds. Raises TokenRejected."""


class AuthRateLimiter(Protocol):
    def check_address(self, address: str) -> None:
        """Raises RateLimited for an address that too many refused tokens came from."""

    async def record_failure(self, address: str) -> None:
        """One more came from there."""

    async def check_user(self, principal: Principal) -> RateLimitStatus | None:
        """How the user stands with their limit. Raises RateLimited."""


class BearerAuthMiddleware:
    """RFC 6750: one `Authorization: Bearer <token>`, nothing in the query and nothing in the body."""

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
            unverified_token = bearer_of(scope)
            if isinstance(unverified_token, Problem):
                self._audit.record_nowait(Decision(AuditAction.DENIED, AuditOutcome.DENIED, unverified_token.kind.code))
                await unverified_token.send(send)
                return
            # Whoever is known goes on, though somebody else behind the same address may send rubbish.
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
        """The call that proves itself by what is in its body: refused there, counted here."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 400:
                await self._limiter.record_failure(address)
            await send(message)

        return counting


def bearer_of(scope: Scope) -> str | Problem:
    """The token, as yet unverified, or what is wrong with the header."""
    request_id: str = scope[REQUEST_ID]
    header = headers_of(scope).get(b"authorization", b"")
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
