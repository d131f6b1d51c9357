"""Token verifiers of the test issuer, and tokens with arbitrary content."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import strategies as st

from app.adapters.identity.claims import Issuer
from app.adapters.identity.key_sets import StaticKeySource
from app.adapters.identity.keys import from_jwks, from_pem
from app.adapters.identity.verifier import TokenVerifier
from app.vending.errors import TokenRejected
from tests.support.tokens import AUDIENCE, ISSUER, pem

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"})
SECRET = "s" * 32
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
)
MEMBERS = st.sampled_from(["alg", "kid", "typ", "crit", "iss", "sub", "aud", "exp", "nbf", "iat", "scope", "nonce"])
JSON_OBJECTS = st.dictionaries(MEMBERS | st.text(max_size=5), JSON, max_size=8)


def now() -> datetime:
    return datetime.now(UTC)


def verifier(clock: Any = now, **changes: Any) -> TokenVerifier:
    fields: dict[str, Any] = {
        "issuer": ISSUER,
        "audiences": frozenset({AUDIENCE}),
        "algorithms": frozenset({"RS256"}),
        "keys": StaticKeySource(from_pem(pem(), ALGORITHMS)),
    }
    return TokenVerifier((Issuer(**(fields | changes)),), clock)


def fixed_keys(*keys: Any, within: frozenset[str] = ALGORITHMS) -> StaticKeySource:
    return StaticKeySource(from_jwks({"keys": [key.as_dict(private=False) for key in keys]}, within))


async def rejection_reason(unverified_token: str, checked_by: TokenVerifier | None = None) -> str:
    with pytest.raises(TokenRejected) as refusal:
        await (checked_by or verifier()).verify(unverified_token)
    return refusal.value.reason


def raw_token(header: Any, payload: Any, signature: bytes = b"signature") -> str:
    """A token with any content; strings and bytes are used as they are."""

    def encoded(part: Any) -> str:
        data = part if isinstance(part, bytes) else (part if isinstance(part, str) else json.dumps(part)).encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    return f"{encoded(header)}.{encoded(payload)}.{encoded(signature)}"
