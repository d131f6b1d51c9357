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
from app.api.middleware.context import Tell
from app.api.problems import standing_lines
from app.api.schemas.client_settings import ClientSettings
from app.api.schemas.fields import instant
from app.api.schemas.telephony_credentials import TelephonyCredential, TelephonyCredentialRequest
from app.api.scope import ASKED, PRINCIPAL, client_of, headers_of, request_id_of, route_of
from app.vending.audit import CIRCUMSTANCES, Circumstances
from app.vending.errors import RateLimited, TokenRefused
from app.vending.models import IssueRequest, Principal, Standing
from app.vending.telephony.issue import CredentialIssuer
from app.vending.telephony.login_cache import Login

KNOWN = 4096
"""Requests remembered, about 2 KB each, their answers with them; the least recently used goes first."""

LONGEST_BODY_BYTES = 256

OWN_EACH_TIME = (b"x-request-id", b"traceparent", b"tracestate")
"""Headers that differ from request to request, and that no layer but the outermost looks at."""

LONGEST_OWN_BYTES = 512
"""The longest of those. What is longer, or comes more often, the layers judge."""

TOLD_EACH_TIME = (b"content-length", b"x-request-id", b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset")
"""Headers of an answer that the next one has otherwise."""

LINE = b"%b: %b\r\n"


class Asked(NamedTuple):
    """A request as it came: HTTP/1.1, whole, and not yet looked at."""

    peer: str | None
    """The other end of the connection, whose word may be believed about who is behind it."""
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Verifier(Protocol):
    def fingerprint(self, unverified_token: str) -> bytes: ...

    def recall_by(self, fingerprint: bytes, now: datetime) -> Principal | None:
        """Who that token proved before, if that still holds. Raises TokenRefused."""


class Limiter(Protocol):
    def count(self, principal: Principal) -> Standing | None:
        """How the user stands with their limit, counted by this process. Raises RateLimited."""


@dataclass(frozen=True, slots=True)
class Known:
    """A request that all layers let pass, and what its answer began with."""

    fingerprint: bytes
    wanted: IssueRequest
    address: str | None
    user_agent: str | None
    path: str
    route: str
    head: bytes


class AtHand:
    """Overrides all layers: one that remembers what they let pass, and what the server asks before it begins a request.

    Not for where something must be waited for: a shared limiter, an audit that is required.
    """

    def __init__(
        self,
        app: ASGIApp,
        target: str,
        *,
        verifier: Verifier,
        limiter: Limiter,
        issuer: CredentialIssuer,
        client_settings: ClientSettings,
        tell: Tell,
        clock: Callable[[], datetime],
        most: int = KNOWN,
    ) -> None:
        """`target`: the address that logins are had from; `most`: so many requests are remembered."""
        self.app = app
        self.target = target.encode()
        self._verifier = verifier
        self._limiter = limiter
        self._issuer = issuer
        self._answers = Answers(client_settings, most)
        self._tell = tell
        self._most = most
        self._clock = clock
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    @property
    def cached_requests(self) -> int:
        """How many requests `answer` recognizes."""
        return len(self._known)

    def answer(self, asked: Asked) -> bytes | None:
        """The answer behind its status and the server's own headers, or None: it must go through all layers."""
        began = time.perf_counter()
        headers = dict(asked.headers)
        # Nothing without a dot was ever let pass as a token, and hashes of rubbish are not worth their time.
        if b"." not in headers.get(b"authorization", b"") or len(asked.body) > LONGEST_BODY_BYTES:
            return None
        key = _key(asked, headers)
        known = self._known.get(key)
        if known is None:
            return None
        now = self._clock()
        try:
            principal = self._verifier.recall_by(known.fingerprint, now)
            login = None if principal is None else self._issuer.at_hand(principal, known.wanted, now)
            if principal is None or login is None:
                return None
            standing = self._limiter.count(principal)
        except (TokenRefused, RateLimited):
            return None
        self._known.move_to_end(key)
        request_id = request_id_of(headers)
        seconds = time.perf_counter() - began
        if not self._issuer.is_repeat(login, known.address, known.user_agent, seconds):
            before = CIRCUMSTANCES.set(Circumstances(request_id, known.address, known.user_agent, principal.owner))
            try:
                self._issuer.hand_out(login, seconds)
            finally:
                CIRCUMSTANCES.reset(before)
        body = self._answers.render(login, now)
        self._tell(request_id, "POST", known.path, known.route, 200, began, known.address)
        return b"%bcontent-length: %d\r\n%bx-request-id: %b\r\n\r\n%b" % (
            known.head,
            len(body),
            b"" if standing is None else standing_lines(standing),
            request_id.encode("ascii"),
            body,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked: Asked | None = scope.get(ASKED)
        if asked is None or asked.method != b"POST":  # their list is had from the same address
            await self.app(scope, receive, send)
            return
        head: Message = {}

        async def listening(message: Message) -> None:
            if message["type"] == "http.response.start":
                head.update(message)
            await send(message)

        await self.app(scope, receive, listening)
        if head.get("status") == 200 and PRINCIPAL in scope and len(asked.body) <= LONGEST_BODY_BYTES:
            self._remember(asked, scope, head["headers"])

    def _remember(self, asked: Asked, scope: Scope, told: Iterable[tuple[bytes, bytes]]) -> None:
        """What went through all layers well will do so again, as long as those who are asked say the same."""
        headers, unverified_token = headers_of(scope), bearer_of(scope)
        head = _written(header for header in told if header[0] not in TOLD_EACH_TIME)
        if _is_special(headers) or b"\r\nconnection:" in b"\r\n" + head or not isinstance(unverified_token, str):
            return
        wanted = TelephonyCredentialRequest.model_validate(json.loads(asked.body)).to_issue_request()
        user_agent = CIRCUMSTANCES.get().user_agent
        known = Known(
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


class Answers:
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


def _key(asked: Asked, headers: dict[bytes, bytes]) -> bytes:
    """All that came, without what is another each time. A hash: there is a token in it."""
    peer, method, target, raw, body = asked
    if not headers.keys().isdisjoint(OWN_EACH_TIME):
        own = [header for header in raw if header[0] in OWN_EACH_TIME and len(header[1]) <= LONGEST_OWN_BYTES]
        if len(own) <= len(OWN_EACH_TIME):
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
