"""A small identity provider for demo users: discovery, keys that can be rotated, and tokens without a password.

It is the demo provider, or simulates one of `app.sandbox.providers` with that provider's addresses, keys and claims.
"""

import time
import uuid
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.sandbox.provider import DEMO_USERS, SimulatedProvider, UnknownKind
from app.sandbox.providers import DEMO, simulate
from app.sandbox.signing import Signer

TOKEN_SECONDS = 3600
LOGOUT_SECONDS = 120


class TokenRequestError(Exception):
    """A request that the token endpoint rejects, with the JSON body of the response."""

    def __init__(self, **body: Any) -> None:
        super().__init__(body["error"])
        self.body = body


class TokenIssuer:
    """Issues the tokens of one provider, and keeps a session for each user."""

    def __init__(self, simulated: SimulatedProvider) -> None:
        self.simulated = simulated
        self.signer = Signer(simulated.provider.algorithm)
        self._sessions: dict[str, str] = {}

    def issue(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """The body of the token endpoint's response. Raises TokenRequestError."""
        try:
            user, kind = str(wanted["user"]), str(wanted.get("kind") or self.simulated.accepted_kind)
            ttl = int(wanted.get("ttl_seconds", TOKEN_SECONDS))
        except (ValueError, TypeError, KeyError):
            raise TokenRequestError(error="invalid_request") from None
        if user not in DEMO_USERS:
            raise TokenRequestError(error="invalid_grant", demo_users=DEMO_USERS)
        changes: dict[str, Any] = {}
        if "audience" in wanted:
            changes["aud"] = wanted["audience"]
        try:
            token = self.simulated.opaque_token(kind) or self._jwt(user, kind, ttl, changes, wanted.get("scope"))
        except UnknownKind:
            raise TokenRequestError(error="unsupported_kind", kinds=self.simulated.kinds) from None
        return {"access_token": token, "token_type": "Bearer", "expires_in": ttl, "kind": kind}

    def end_session(self, user: str) -> str | None:
        """A logout token; None if the user has no session."""
        if user not in self._sessions:
            return None
        token = self._jwt(user, "logout", LOGOUT_SECONDS, {})
        del self._sessions[user]
        return token

    def _jwt(self, user: str, kind: str, ttl: int, changes: dict[str, Any], scope: str | None = None) -> str:
        session = self._sessions.setdefault(user, uuid.uuid4().hex[:16])
        claims = self.simulated.claims(user, kind, now=int(time.time()), ttl_seconds=ttl, session=session) | changes
        if scope is not None:
            name = self.simulated.scope_claim()
            claims[name] = scope.split() if isinstance(claims.get(name), list) else scope
        header, claims = self.simulated.token_parts(claims, kind, self.signer.keys[0].kid)
        return self.signer.sign(header, claims, is_padded=self.simulated.is_load_balancer)


def create_identity_provider(base: str, backchannel_logout_uri: str | None = None, provider: str = DEMO) -> Starlette:
    """The provider as an ASGI app, served at the URL `base`. Sends logout tokens to `backchannel_logout_uri`.

    Raises UnknownProvider.
    """
    simulated = simulate(provider, base)
    tokens = TokenIssuer(simulated)

    async def token(request: Request) -> Response:
        """Issue a token for `{"user": "alice"}`, optionally with `kind`, `scope`, `audience` and `ttl_seconds`."""
        try:
            answer = tokens.issue(await _json(request))
        except TokenRequestError as error:
            return JSONResponse(error.body, 400)
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    async def log_out(request: Request) -> Response:
        """End the session of `{"user": "alice"}`, and send the service a logout token."""
        user = (await _json(request)).get("user")
        logout_token = tokens.end_session(str(user)) if backchannel_logout_uri is not None else None
        if backchannel_logout_uri is None or logout_token is None:
            return JSONResponse({"error": "no backchannel_logout_uri is configured, or the user has no session"}, 400)
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            response = await client.post(backchannel_logout_uri, data={"logout_token": logout_token})
        return JSONResponse({"logout_sent_to": backchannel_logout_uri, "status": response.status_code})

    async def rotate(_: Request) -> Response:
        return JSONResponse({"kid": tokens.signer.rotate()})

    return Starlette(
        # Every page on this machine may request tokens: they are not valid anywhere else.
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])],
        routes=[
            Route("/token", token, methods=["POST"]),
            Route("/logout", log_out, methods=["POST"]),
            Route("/rotate", rotate, methods=["POST"]),
            *_documents(tokens, f"{base}/token"),
        ],
    )


def _documents(tokens: TokenIssuer, token_endpoint: str) -> list[Route]:
    """The routes of the discovery document and of the keys, at the provider's own paths."""
    simulated, signer = tokens.simulated, tokens.signer

    async def discovery(_: Request) -> Response:
        return JSONResponse(simulated.discovery(token_endpoint))

    async def jwks(_: Request) -> Response:
        keys = [key.jwk(simulated.jwk_members()) for key in signer.keys]
        return JSONResponse({"keys": keys}, headers={"Cache-Control": "public, max-age=60"})

    async def certificates(_: Request) -> Response:
        return JSONResponse({key.kid: key.certificate_pem() for key in signer.keys})

    async def public_key(request: Request) -> Response:
        found = next((key for key in signer.keys if key.kid == request.path_params["kid"]), None)
        return Response(status_code=403) if found is None else PlainTextResponse(found.public_pem())

    pem = simulated.provider.pem
    published = [
        (simulated.discovery_path, discovery),
        (simulated.provider.jwks, jwks),
        (pem, public_key if pem is not None and "{kid}" in pem else certificates),
    ]
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in published if path is not None]


async def _json(request: Request) -> dict[str, Any]:
    """The body of a request; empty if it is not a JSON object."""
    try:
        found = await request.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
