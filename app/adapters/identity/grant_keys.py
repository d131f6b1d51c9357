"""The keys of grants: Dialtone's own signing keys, and the issuers that verify grants with them.

TokenVerifier verifies grants as it verifies the tokens of identity providers.
"""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from jose import jwk, jws

from app.adapters.identity import public_keys
from app.adapters.identity.claims import Issuer
from app.adapters.identity.key_sets import StaticKeySource
from app.adapters.identity.keys import from_jwks
from app.adapters.pem import blocks, canonical_pem
from app.vending.errors import AccessDenied
from app.vending.grants.models import GRANT_ISSUERS, ORIGIN_CLAIM, RESERVED_PREFIX

ALGORITHMS = frozenset({"ES256", "EdDSA"})
TOKEN_TYPE = "grant+jwt"  # noqa: S105 - a media type
"""The `typ` of grants (RFC 8725 section 3.11), so that no other token of the same key passes as a grant."""


class GrantSigningKey:
    """A private key that signs grants."""

    def __init__(self, pem: str) -> None:
        """Raises ValueError unless the text is an unencrypted P-256 or Ed25519 private key in PEM, in any spelling."""
        try:
            [block] = [block for block in blocks(pem) if block.is_private_key]
            private = load_der_private_key(block.der, None)
        except Exception:
            raise ValueError("is not an unencrypted private key in PEM") from None
        material: str | bytes
        match private:
            case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
                self._algorithm, material = "ES256", canonical_pem(private)
            case Ed25519PrivateKey():
                self._algorithm, material = "EdDSA", private.private_bytes_raw()
            case _:
                raise ValueError("must be a P-256 or an Ed25519 key")
        public_pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self._public = public_keys.from_pem(public_pem.decode())
        self.kid = _thumbprint(self._public)
        self._key = jwk.construct(material, self._algorithm)

    def public_jwk(self) -> dict[str, str]:
        return {**self._public, "kid": self.kid, "alg": self._algorithm, "use": "sig"}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JWS in compact form."""
        header = {"kid": self.kid, "typ": TOKEN_TYPE}
        token: str = jws.sign(dict(claims), self._key, headers=header, algorithm=self._algorithm)
        return token


@dataclass(frozen=True, slots=True)
class GrantKeys:
    """The signing key, and during a rotation a second key whose grants are accepted too."""

    signing: GrantSigningKey
    other: GrantSigningKey | None
    namespace: str

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys as a JWK set (RFC 7517)."""
        return {"keys": [key.public_jwk() for key in (self.signing, self.other) if key is not None]}

    @property
    def audience(self) -> str:
        """The `aud` of grants, so that a deployment with another namespace rejects them."""
        return f"{RESERVED_PREFIX}{self.namespace}"

    def issuers(self, kept_claims: frozenset[str]) -> list[Issuer]:
        """The issuers of grants, one for each kind. `kept_claims` are those that the policy reads."""
        keys = StaticKeySource(from_jwks(self.jwks(), ALGORITHMS))
        return [
            Issuer(
                issuer=issuer,
                audiences=frozenset({self.audience}),
                algorithms=ALGORITHMS,
                keys=keys,
                token_types=frozenset({TOKEN_TYPE}),
                kept_claims=kept_claims | {ORIGIN_CLAIM},
            )
            for issuer in GRANT_ISSUERS
        ]


class ActiveGrantKeys:
    """The current keys of grants. A reload replaces them."""

    def __init__(self, keys: GrantKeys | None) -> None:
        self.keys = keys

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Raises AccessDenied if grants are off."""
        if self.keys is None:
            raise AccessDenied
        return self.keys.signing.sign({**claims, "aud": self.keys.audience})

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys as a JWK set, which is empty if grants are off."""
        return {"keys": []} if self.keys is None else self.keys.jwks()


def _thumbprint(public: Mapping[str, str]) -> str:
    """RFC 7638, with the members that define the key."""
    text = json.dumps(dict(public), sort_keys=True, separators=(",", ":"))
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
