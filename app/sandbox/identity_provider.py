"""A small identity provider for demo users: discovery, keys that can be rotated, and sign-in without a password.

It is the demo provider, or simulates one of `app.sandbox.providers` with that provider's addresses, keys and claims.
"""

import time
from contextlib import suppress
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.sandbox.openid.endpoints import NO_STORE, OpenIdEndpoints
from app.sandbox.openid.tokens import TOKEN_SECONDS, Clock, TokenIssuer, TokenRequestError
from app.sandbox.providers import DEMO, simulate

FORM = "application/x-www-form-urlencoded"


def create_identity_provider(
    base: str,
    backchannel_logout_uri: str | None = None,
    provider: str = DEMO,
    *,
    access_token_seconds: int = TOKEN_SECONDS,
    clock: Clock = time.time,
) -> Starlette:
    """The provider as an ASGI app, served at the URL `base`. Sends logout tokens to `backchannel_logout_uri`.

    `access_token_seconds` is the lifetime of the access tokens that applications get for a code or a refresh token.
    Raises UnknownProvider.
    """
    simulated = simulate(provider, base)
    tokens = TokenIssuer(simulated, clock)

    async def token(request: Request) -> Response:
        """Issue a token for a code, for a refresh token, or for `{"user": "alice"}`.

        The JSON object may contain `kind`, `scope`, `audience` and `ttl_seconds` too.
        """
        wanted = await _json(request)
        if not wanted and request.headers.get("content-type", "").startswith(FORM):
            return await openid.token(request)
        try:
            answer = tokens.issue(wanted)
        except TokenRequestError as error:
            return JSONResponse(error.body, 400)
        return JSONResponse(answer, headers=NO_STORE)

    async def send_logout(uri: str, logout_token: str) -> int:
        """The status of the service's response."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return (await client.post(uri, data={"logout_token": logout_token})).status_code

    async def end_session(user: str) -> None:
        logout_token = tokens.end_session(user)
        if backchannel_logout_uri is not None and logout_token is not None:
            with suppress(httpx.HTTPError):  # the user is signed out here although the service is unavailable
                await send_logout(backchannel_logout_uri, logout_token)

    async def log_out(request: Request) -> Response:
        """End the session of `{"user": "alice"}`, and send the service a logout token."""
        user = (await _json(request)).get("user")
        logout_token = tokens.end_session(str(user)) if backchannel_logout_uri is not None else None
        if backchannel_logout_uri is None or logout_token is None:
            return JSONResponse({"error": "no backchannel_logout_uri is configured, or the user has no session"}, 400)
        status = await send_logout(backchannel_logout_uri, logout_token)
        return JSONResponse({"logout_sent_to": backchannel_logout_uri, "status": status})

    async def rotate(_: Request) -> Response:
        return JSONResponse({"kid": tokens.signer.rotate()})

    openid = OpenIdEndpoints(tokens, clock, access_token_seconds=access_token_seconds, end_session=end_session)
    return Starlette(
        # Every page on this machine may request tokens: they are not valid anywhere else.
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])],
        routes=[
            Route("/token", token, methods=["POST"]),
            Route("/logout", log_out, methods=["POST"]),
            Route("/rotate", rotate, methods=["POST"]),
            *openid.routes,
            *_documents(tokens),
        ],
    )


def _documents(tokens: TokenIssuer) -> list[Route]:
    """The routes of the discovery document and of the keys, at the provider's own paths."""
    simulated, signer = tokens.simulated, tokens.signer

    async def discovery(_: Request) -> Response:
        return JSONResponse(simulated.discovery())

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
