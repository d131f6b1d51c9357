"""The bearer gate: before a byte of the body is read, the token is checked and the Principal put into the scope.

Whoever asks too often hears it here: strangers from one address before their token is looked at, users after it.
"""

from dataclasses import replace
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.api.layers import BACKCHANNEL_LOGOUT, PRINCIPAL, REQUEST_ID, client_of, path_of
from app.api.problems import REALM, Problem, problem_of, standing_headers
from app.vending.auditing import CIRCUMSTANCES, Action, Audit, Decision, Outcome
from app.vending.errors import DialtoneError, RateLimited, TokenRefused
from app.vending.nouns import Principal, Standing

GUARDED = "/v1"
"""Everything under this wants a token, but the call that brings one of its own kind."""


class Verifier(Protocol):
    async def verify(self, unverified_token: str) -> Principal:
        """Raises TokenRefused, IdentityUnavailable or LedgerUnavailable."""

    async def recall(self, unverified_token: str) -> Principal | None:
        """Who it proved before, if that still holds. Raises TokenRefused."""


class Limiter(Protocol):
    def check_address(self, address: str) -> None:
        """Raises RateLimited for an address that too many refused tokens came from."""

    async def failed(self, address: str) -> None:
        """One more came from there."""

    async def admit(self, principal: Principal) -> Standing | None:
        """How the user stands with their limit. Raises RateLimited."""


class BearerGate:
    """RFC 6750: one `Authorization: Bearer <token>`, nothing in the query and nothing in the body."""

    def __init__(self, app: ASGIApp, verifier: Verifier, limiter: Limiter, audit: Audit) -> None:
        self._app = app
        self._verifier = verifier
        self._limiter = limiter
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_below(GUARDED, scope):
            await self._app(scope, receive, send)
            return
        address = client_of(scope) or ""
        try:
            if path_of(scope) == BACKCHANNEL_LOGOUT:
                self._limiter.check_address(address)
                await self._app(scope, receive, self._counting(address, send))
                return
            unverified_token = _bearer(scope)
            if isinstance(unverified_token, Problem):
                self._audit.note(Decision(Action.REFUSED, Outcome.REFUSED, unverified_token.kind.code))
                await unverified_token.send(send)
                return
            principal = await self._verified(unverified_token, address)
            CIRCUMSTANCES.set(replace(CIRCUMSTANCES.get(), actor=principal.owner))
            standing = await self._limiter.admit(principal)
        except (TokenRefused, RateLimited) as error:
            self._audit.note(Decision.against(error, CIRCUMSTANCES.get().actor))
            await problem_of(error, scope[REQUEST_ID]).send(send)
            return
        except DialtoneError as error:
            await problem_of(error, scope[REQUEST_ID]).send(send)
            return
        scope[PRINCIPAL] = principal
        await self._app(scope, receive, send if standing is None else _telling(standing, send))

    async def _verified(self, unverified_token: str, address: str) -> Principal:
        try:
            self._limiter.check_address(address)
        except RateLimited:
            # Somebody else behind the same address may send rubbish: whoever is known goes on.
            known = await self._verifier.recall(unverified_token)
            if known is None:
                raise
            return known
        try:
            return await self._verifier.verify(unverified_token)
        except TokenRefused:
            await self._limiter.failed(address)
            raise

    def _counting(self, address: str, send: Send) -> Send:
        """The call that proves itself by what is in its body: refused there, counted here."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 400:
                await self._limiter.failed(address)
            await send(message)

        return counting


def _bearer(scope: Scope) -> str | Problem:
    """The token, as yet unverified, or what is wrong with the header."""
    request_id: str = scope[REQUEST_ID]
    header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, rest = header.partition(b" ")
    if scheme.lower() != b"bearer":
        return Problem(problems.MISSING_TOKEN, request_id, (("WWW-Authenticate", REALM),))
    unverified_token = rest.strip(b" ")
    if not unverified_token or b" " in unverified_token or not unverified_token.isascii():
        challenge = ("WWW-Authenticate", f'{REALM}, error="invalid_request"')
        return Problem(problems.BAD_AUTHORIZATION, request_id, (challenge,))
    return unverified_token.decode("ascii")


def _telling(standing: Standing, send: Send) -> Send:
    """The answer says how the user stands."""
    own = [(name.lower().encode(), value.encode()) for name, value in standing_headers(standing)]

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *own]}
        await send(message)

    return telling


def _is_below(prefix: str, scope: Scope) -> bool:
    path = path_of(scope)
    return path == prefix or path.startswith(prefix + "/")
