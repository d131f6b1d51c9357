"""The shortcut: a device whose login is at hand is answered before FastAPI's machinery, which costs more than the rest.

It decides nothing. It reads the request by the same schema as the route, asks the same issuer, answers by the same
presenter, and steps aside for whatever is not plainly that: the route says what is wrong then.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.layers import JSON, PRINCIPAL, REQUEST_ID, path_of, replay
from app.api.presenting import Presenter
from app.api.problems import problem_of
from app.api.schemas import TelephonyCredentialRequest
from app.vending.errors import DialtoneError
from app.vending.issuing import CredentialIssuer


class AtHand:
    """Innermost: behind the gate, with the whole body."""

    def __init__(
        self, app: ASGIApp, route: Any, issuer: CredentialIssuer, presenter: Presenter, clock: Callable[[], datetime]
    ) -> None:
        """`route` is the one that would answer."""
        self._app = app
        self._route = route
        self._issuer = issuer
        self._presenter = presenter
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or path_of(scope) != self._route.path:
            await self._app(scope, receive, send)
            return
        body = (await receive())["body"]
        try:
            answer = await self._answer(scope, body)
        except DialtoneError as error:
            await problem_of(error, scope[REQUEST_ID]).send(send)
            return
        if answer is None:
            await self._app(scope, replay(body, receive), send)
            return
        scope["route"] = self._route
        headers = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, scope: Scope, body: bytes) -> bytes | None:
        try:
            wanted = TelephonyCredentialRequest.model_validate(json.loads(body))
        except (ValueError, RecursionError):
            return None
        login = await self._issuer.issue_at_hand(scope[PRINCIPAL], wanted.as_noun())
        if login is None:
            return None
        return self._presenter.login(login, self._clock()).model_dump_json(exclude_none=True).encode()
