"""The backend of the softphone page's guests: it keeps a session in a cookie, and mints a grant for each session.

A real backend has a service account. This one uses a token of a demo user.
"""

import secrets
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

COOKIE = "guest_session"
SCOPE = "dialtone:grants"


class GuestBackend:
    """Vouches for the guests of the page."""

    def __init__(self, service: str, identity: str) -> None:
        self._service = service
        self._identity = identity
        self._guests: dict[str, str] = {}
        """Each session's guest. A later grant names the same guest, so that the device keeps its login."""

    async def mint_grant(self, request: Request) -> Response:
        """A grant for the guest of this session, for pages of this origin only."""
        session = request.cookies.get(COOKIE, "")
        wanted = {"kind": "guest", "subject": self._guests.get(session), "origin": request.headers.get("origin")}
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            own = await client.post(f"{self._identity}/token", json={"user": "alice", "scope": SCOPE})
            headers = {"Authorization": f"Bearer {own.json()['access_token']}"}
            answer = await client.post(f"{self._service}/v1/grants", json=wanted, headers=headers)
        grant: dict[str, Any] = answer.json()
        if answer.status_code != 201:
            return JSONResponse(grant, answer.status_code)
        response = JSONResponse({"token": grant["token"], "expires_at": grant["expires_at"]})
        if session not in self._guests:
            session = secrets.token_urlsafe()
            self._guests[session] = grant["subject"]
            response.set_cookie(COOKIE, session, httponly=True, samesite="strict")
        return response
