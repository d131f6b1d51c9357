"""The bearer gate: before a byte of the body is read, the token is checked and the Principal put into the scope."""

from typing import Protocol

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import problems
from app.api.layers import BACKCHANNEL_LOGOUT, PRINCIPAL, REQUEST_ID, path_of
from app.api.problems import REALM, Problem, problem_of
from app.vending.errors import DialtoneError, TokenRefused
from app.vending.nouns import Principal

GUARDED = "/v1"
"""Everything under this wants a token, but the call that brings one of its own kind."""

_log = structlog.get_logger("dialtone.gate")


class Verifier(Protocol):
    async def verify(self, unverified_token: str) -> Principal:
        """Raises TokenRefused, IdentityUnavailable or LedgerUnavailable."""


class BearerGate:
    """RFC 6750: one `Authorization: Bearer <token>`, nothing in the query and nothing in the body."""

    def __init__(self, app: ASGIApp, verifier: Verifier) -> None:
        self._app = app
        self._verifier = verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_guarded(scope):
            await self._app(scope, receive, send)
            return
        problem = await self._refusal(scope)
        if problem is not None:
            await problem.send(send)
            return
        await self._app(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Problem | None:
        """Puts the Principal into the scope, or says why not."""
        request_id: str = scope[REQUEST_ID]
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, rest = header.partition(b" ")
        if scheme.lower() != b"bearer":
            _log.info("refused", reason="no_token")
            return Problem(problems.MISSING_TOKEN, request_id, (("WWW-Authenticate", REALM),))
        unverified_token = rest.strip(b" ")
        if not unverified_token or b" " in unverified_token or not unverified_token.isascii():
            _log.info("refused", reason="malformed_authorization")
            challenge = ("WWW-Authenticate", f'{REALM}, error="invalid_request"')
            return Problem(problems.BAD_AUTHORIZATION, request_id, (challenge,))
        try:
            scope[PRINCIPAL] = await self._verifier.verify(unverified_token.decode("ascii"))
        except DialtoneError as error:
            _log.info("refused", reason=error.reason if isinstance(error, TokenRefused) else type(error).__name__)
            return problem_of(error, request_id)
        return None


def _is_guarded(scope: Scope) -> bool:
    path = path_of(scope)
    return (path == GUARDED or path.startswith(GUARDED + "/")) and path != BACKCHANNEL_LOGOUT
