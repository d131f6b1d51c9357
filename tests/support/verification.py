"""Token verifiers of the test issuer, and tokens with arbitrary content."""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import strategies as st

from app.adapters.identity.claims import ID_TOKEN_CLAIMS, Issuer, SubjectType
from app.adapters.identity.compact_jws import MAX_CONFIGURABLE_TOKEN_LENGTH
from app.adapters.identity.key_sets import StaticKeySource
from app.adapters.identity.keys import from_jwks, from_pem
from app.adapters.identity.verifier import TokenVerifier
from app.vending.claim_conditions import ClaimCondition
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


@dataclass(frozen=True)
class Setting:
    """A setting of an issuer, and the claims that a valid token of that issuer has besides the usual ones."""

    issuer: dict[str, Any]
    claims: dict[str, Any] = field(default_factory=dict)
    permits: tuple[dict[str, Any], ...] = ()
    """Changes of claims that are wrong by default, and right with this setting."""
    unread: frozenset[str] = frozenset()
    """Claims that are read by default, and not with this setting."""

    def is_right(self, change: dict[str, Any]) -> bool:
        return change in self.permits or bool(self.unread & change.keys())


SETTINGS = {
    "default": Setting({}),
    "audience_claims": Setting({"audience_claims": ("client_id", "aud")}),
    "required_claims": Setting(
        {"required_claims": (ClaimCondition("token_use", ("access",)),)}, {"token_use": "access"}
    ),
    "id_tokens": Setting({"allowed_foreign_claims": ID_TOKEN_CLAIMS}, permits=({"nonce": "n"}, {"at_hash": "h"})),
    "tenants": Setting({"issuer": "https://{tid}.example.com", "tenants": frozenset({"id", "other"})}, {"tid": "id"}),
    "any_tenant": Setting({"issuer": "https://{tid}.example.com", "tenants": "any"}, {"tid": "id"}),
    "without_iss": Setting({"takes_tokens_without_iss": True}, permits=({"iss": ...},)),
    "integer_subject": Setting({"subject_type": SubjectType.INTEGER}, {"sub": 1}, permits=({"sub": 7},)),
    "subject_pointer": Setting(
        {"subject_claim": "/account/id"}, {"account": {"id": "alice"}}, unread=frozenset({"sub"})
    ),
    "scope_pointer": Setting(
        {"scope_claim": "/realm_access/roles"}, {"realm_access": {"roles": ["phone"]}}, unread=frozenset({"scope"})
    ),
    "max_token_length": Setting({"max_token_length": MAX_CONFIGURABLE_TOKEN_LENGTH}),
}
"""Each setting of an issuer that is off by default. All checks that a setting does not mention hold with it."""


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
