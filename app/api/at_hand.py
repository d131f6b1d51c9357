"""The shortcut: a device that asks again, with the very headers it asked with before, is answered before all layers.

It repeats no check that rests on bytes alone, such as lengths and forms: every layer let these same bytes pass before.
What may have changed since is asked anew each time, of those who know: the verifier whether the token still holds, the
issuer whether the login is still the one to give, the limiter whether there is room. Whatever is not plainly that goes
the way through all layers, untouched, and is told there what is wrong.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.body import JSON, arrived, followed_by
from app.api.gate import bearer_of
from app.api.presenting import Presenter
from app.api.problems import problem_of
from app.api.schemas import TelephonyCredentialRequest, instant
from app.api.scope import BODY, PRINCIPAL, REQUEST_ID, STANDING, STATUS, headers_of, path_of
from app.vending.at_hand import Login
from app.vending.auditing import CIRCUMSTANCES, Circumstances
from app.vending.errors import DialtoneError, RateLimited, TokenRefused
from app.vending.issuing import CredentialIssuer
from app.vending.nouns import IssueRequest, Principal, Standing

KNOWN = 4096
"""Requests remembered, about 2 KB each, their answers with them; the least recently used goes first."""

LONGEST_BODY_BYTES = 256

OWN_EACH_TIME = (b"x-request-id", b"traceparent", b"tracestate")
"""Headers that differ from request to request, and that no layer but the outermost looks at."""


class Verifier(Protocol):
    def fingerprint(self, unverified_token: str) -> bytes: ...

    def recall_by(self, fingerprint: bytes) -> Principal | None:
        """Who that token proved before, if that still holds. Raises TokenRefused."""


class Limiter(Protocol):
    async def admit(self, principal: Principal) -> Standing | None:
        """How the user stands with their limit. Raises RateLimited."""


@dataclass(frozen=True, slots=True)
class Known:
    """A request that all layers let pass."""

    fingerprint: bytes
    body: bytes
    wanted: IssueRequest


class AtHand:
    """Outside the guards, and inside whatever every answer goes through."""

    def __init__(
        self,
        app: ASGIApp,
        route: Any,
        *,
        verifier: Verifier,
        limiter: Limiter,
        issuer: CredentialIssuer,
        presenter: Presenter,
        clock: Callable[[], datetime],
        most: int = KNOWN,
    ) -> None:
        """`route` is the one that would answer; `most`: so many requests are remembered."""
        self._app = app
        self._route = route
        self._path: str = route.path
        self._verifier = verifier
        self._limiter = limiter
        self._issuer = issuer
        self._answers = Answers(presenter, most)
        self._most = most
        self._clock = clock
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_asked = scope["type"] == "http" and scope["method"] == "POST" and path_of(scope) == self._path
        # Nothing without a dot was ever let pass as a token, and hashes of rubbish are not worth their time.
        if not is_asked or scope["query_string"] or b"." not in headers_of(scope).get(b"authorization", b""):
            await self._app(scope, receive, send)
            return
        key = _key(scope)
        known = self._known.get(key)
        principal = None if known is None else self._recalled(known)
        if known is not None and principal is not None and (message := arrived(receive)) is not None:
            if _is_whole(message, known.body) and await self._is_answered(known, principal, scope, send):
                self._known.move_to_end(key)
                return
            receive = followed_by(message, receive)
        await self._app(scope, receive, send)
        self._remember(key, scope)

    def _recalled(self, known: Known) -> Principal | None:
        try:
            return self._verifier.recall_by(known.fingerprint)
        except TokenRefused:
            return None

    async def _is_answered(self, known: Known, principal: Principal, scope: Scope, send: Send) -> bool:
        offer = self._issuer.at_hand(principal, known.wanted)
        if offer is None:
            return False
        request_id, address, user_agent, _ = CIRCUMSTANCES.get()
        CIRCUMSTANCES.set(Circumstances(request_id, address, user_agent, principal.owner))
        try:
            scope[STANDING] = await self._limiter.admit(principal)
            login = await self._issuer.hand_out(offer)
        except RateLimited:
            return False
        except DialtoneError as error:
            await problem_of(error, scope[REQUEST_ID]).send(send)
            return True
        scope["route"] = self._route
        answer = self._answers.render(login, self._clock())
        headers = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
        return True

    def _remember(self, key: bytes, scope: Scope) -> None:
        """What went through all layers well will do so again, as long as those who are asked say the same."""
        body: bytes = scope.get(BODY, b"")
        if scope.get(STATUS) not in (200, 201) or PRINCIPAL not in scope or len(body) > LONGEST_BODY_BYTES:
            return
        unverified_token = bearer_of(scope)
        if isinstance(unverified_token, str):
            wanted = TelephonyCredentialRequest.model_validate(json.loads(body)).as_noun()
            self._known[key] = Known(self._verifier.fingerprint(unverified_token), body, wanted)
            if len(self._known) > self._most:
                self._known.popitem(last=False)


class Answers:
    """Answers as bytes. Of one login they differ in the server's time only, so the rest is written once."""

    def __init__(self, presenter: Presenter, most: int) -> None:
        self._presenter = presenter
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
        whole = self._presenter.login(login, now).model_dump_json(exclude_none=True).encode()
        before, name, behind = whole.rpartition(b'"server_time":"')
        return before + name, behind[len(instant(now)) :]


def _key(scope: Scope) -> bytes:
    """All headers as they came, but those that are another each time. Their hash: there is a token among them."""
    raw = scope["headers"]
    if not headers_of(scope).keys().isdisjoint(OWN_EACH_TIME):
        raw = [header for header in raw if header[0] not in OWN_EACH_TIME]
    # No name and no value has a line break in it: those that are split otherwise are other headers.
    return hashlib.sha256(b"\n".join([part for header in raw for part in header])).digest()


def _is_whole(message: Message, body: bytes) -> bool:
    """Whether that body came, and is all."""
    return message["type"] == "http.request" and message.get("body") == body and not message.get("more_body")
