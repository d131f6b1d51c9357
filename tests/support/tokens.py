"""Access tokens and logout tokens of the test issuer, signed by joserfc, and the keys that sign them."""

import json
import time
from datetime import UTC, datetime
from functools import cache
from typing import Any

from joserfc import jws, jwt
from joserfc.jwk import ECKey, RSAKey

from app.adapters.identity.claims import LOGOUT_EVENT
from app.vending.ids import new_id
from app.vending.models import Principal

ISSUER = "https://id.example.com"
AUDIENCE = "dialtone"


@cache
def rsa_key(name: str = "first", bits: int = 2048) -> RSAKey:
    """A cached key of the test issuer."""
    return RSAKey.generate_key(bits, {"kid": name, "use": "sig", "alg": "RS256"})


@cache
def ec_key(curve: str = "P-256", name: str = "ec") -> ECKey:
    return ECKey.generate_key(curve, {"kid": name, "use": "sig"})


def claims_of(user: str = "alice", **changes: Any) -> dict[str, Any]:
    """Valid claims with changes; a change to `...` removes the claim."""
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": user, "aud": AUDIENCE, "iat": now, "exp": now + 3600, "scope": "phone"}
    return {name: value for name, value in (claims | changes).items() if value is not ...}


def token(user: str = "alice", *, header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
    """An access token of the test issuer, signed by joserfc."""
    key = key or rsa_key()
    algorithm = (header or {}).get("alg", "RS256")
    protected = {"alg": algorithm, "kid": key.kid, "typ": "at+jwt"} | (header or {})
    protected = {name: value for name, value in protected.items() if value is not ...}
    return jwt.encode(protected, claims_of(user, **changes), key, algorithms=[algorithm])


def token_of_length(length: int, **claims: Any) -> str:
    """A token of exactly this many characters. Base64 has no text of every length, so the `kid` varies too."""
    for kid in ("k", "kk", "kkk"):
        short = len(token(header={"kid": kid}, pad="", **claims))
        for pad in range((length - short) * 3 // 4 - 2, (length - short) * 3 // 4 + 3):
            text = token(header={"kid": kid}, pad="x" * pad, **claims)
            if len(text) == length:
                return text
    raise AssertionError(length)


def pem() -> str:
    return rsa_key().as_pem(private=False).decode()


def principal(user: str = "alice", *scopes: str) -> Principal:
    now = datetime.now(UTC)
    return Principal(ISSUER, user, datetime.max.replace(tzinfo=UTC), frozenset(scopes or ("phone",)), issued_at=now)


def logout_token(header: dict[str, Any] | None = None, **changes: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "iat": now,
        "exp": now + 120,
        "jti": new_id(),
        "events": {LOGOUT_EVENT: {}},
    } | changes
    claims = {name: value for name, value in claims.items() if value is not ...}
    protected = {"alg": "RS256", "kid": rsa_key().kid, "typ": "logout+jwt"} | (header or {})
    return jws.serialize_compact(protected, json.dumps(claims).encode(), rsa_key(), algorithms=["RS256"])
