"""A small identity provider for demo users: discovery, a key set that can be rotated, and tokens without a password.

It signs with `cryptography` and not with python-jose, so that the service's verifier is tested against another
implementation.
"""

import base64
import json
import time
import uuid
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DEMO_USERS = ("alice", "bob", "carol")
DEMO_AUDIENCE = "dialtone"
TOKEN_SECONDS = 3600
LOGOUT_SECONDS = 120
KEYS_KEPT = 2
"""Keys in the set. After a rotation, the previous key remains for the tokens that it signed."""


class Signer:
    """The provider's RSA keys, newest first."""

    def __init__(self) -> None:
        self._keys: list[tuple[str, rsa.RSAPrivateKey]] = []
        self.rotate()

    def rotate(self) -> str:
        """Create a new signing key, and return its `kid`."""
        kid = uuid.uuid4().hex[:12]
        self._keys.insert(0, (kid, rsa.generate_private_key(public_exponent=65537, key_size=2048)))
        del self._keys[KEYS_KEPT:]
        return kid

    def jwks(self) -> dict[str, Any]:
        return {"keys": [_public_jwk(kid, key) for kid, key in self._keys]}

    def sign(self, claims: dict[str, Any], typ: str = "at+jwt") -> str:
        kid, key = self._keys[0]
        header = {"alg": "RS256", "kid": kid, "typ": typ}
        signing_input = ".".join(
            _base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)
        )
        signature = key.sign(signing_input.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signing_input}.{_base64url(signature)}"


def create_identity_provider(issuer: str, backchannel_logout_uri: str | None = None) -> Starlette:
    """The provider as an ASGI app, served at the URL `issuer`. Sends logout tokens to `backchannel_logout_uri`."""
    signer = Signer()
    sessions: dict[str, str] = {}

    async def discovery(_: Request) -> Response:
        return JSONResponse(
            {
                "issuer": issuer,
                "jwks_uri": f"{issuer}/jwks.json",
                "token_endpoint": f"{issuer}/token",
                "backchannel_logout_supported": True,
                "backchannel_logout_session_supported": True,
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def jwks(_: Request) -> Response:
        return JSONResponse(signer.jwks(), headers={"Cache-Control": "public, max-age=60"})

    async def token(request: Request) -> Response:
        """Issue an access token for `{"user": "alice"}`, optionally with `scope`, `audience` and `ttl_seconds`."""
        try:
            wanted = await request.json()
            user = wanted["user"]
            ttl = int(wanted.get("ttl_seconds", TOKEN_SECONDS))
        except (ValueError, TypeError, KeyError):
            return JSONResponse({"error": "invalid_request"}, 400)
        if user not in DEMO_USERS:
            return JSONResponse({"error": "invalid_grant", "demo_users": DEMO_USERS}, 400)
        now = int(time.time())
        claims = {
            "iss": issuer,
            "sub": user,
            "aud": wanted.get("audience", DEMO_AUDIENCE),
            "iat": now,
            "exp": now + ttl,
            "jti": uuid.uuid4().hex,
            "sid": sessions.setdefault(user, uuid.uuid4().hex[:16]),
            "scope": wanted.get("scope", "phone"),
        }
        access = {"access_token": signer.sign(claims), "token_type": "Bearer", "expires_in": ttl}
        return JSONResponse(access, headers={"Cache-Control": "no-store"})

    async def log_out(request: Request) -> Response:
        """End the session of `{"user": "alice"}`, and send the service a logout token."""
        try:
            user = (await request.json())["user"]
        except (ValueError, TypeError, KeyError):
            return JSONResponse({"error": "invalid_request"}, 400)
        if backchannel_logout_uri is None or user not in sessions:
            return JSONResponse({"error": "no backchannel_logout_uri is configured, or the user has no session"}, 400)
        now = int(time.time())
        claims = {
            "iss": issuer,
            "aud": DEMO_AUDIENCE,
            "iat": now,
            "exp": now + LOGOUT_SECONDS,
            "jti": uuid.uuid4().hex,
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
            "sub": user,
            "sid": sessions.pop(user),
        }
        logout_token = signer.sign(claims, typ="logout+jwt")
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            response = await client.post(backchannel_logout_uri, data={"logout_token": logout_token})
        return JSONResponse({"logout_sent_to": backchannel_logout_uri, "status": response.status_code})

    async def rotate(_: Request) -> Response:
        return JSONResponse({"kid": signer.rotate()})

    return Starlette(
        # Every page on this machine may request tokens: they are not valid anywhere else.
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])],
        routes=[
            Route("/.well-known/openid-configuration", discovery, methods=["GET"]),
            Route("/jwks.json", jwks, methods=["GET"]),
            Route("/token", token, methods=["POST"]),
            Route("/logout", log_out, methods=["POST"]),
            Route("/rotate", rotate, methods=["POST"]),
        ],
    )


def _public_jwk(kid: str, key: rsa.RSAPrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": kid,
        "n": _base64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)),
        "e": _base64url(numbers.e.to_bytes(3)),
    }


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
