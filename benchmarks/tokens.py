"""Valid and invalid access tokens of this run's identity provider, signed with `cryptography`."""

import base64
import json
import time
from itertools import count

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from benchmarks.load import Request
from benchmarks.processes import AUDIENCE, ISSUER, signing_key

PATH = "/v1/telephony-credentials"
LIFE_SECONDS = 3600


_token_ids = count()


def token(user: str) -> str:
    """A new token: no other has its `jti`."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": user,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + LIFE_SECONDS,
        "scope": "phone",
        "jti": f"{next(_token_ids):032x}",
    }
    signed = b".".join(_base64url(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "at+jwt"}, claims))
    signature = signing_key().sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return (signed + b"." + _base64url(signature)).decode()


def with_bad_signature(number: int) -> str:
    """Distinct tokens that are well-formed and name a known issuer, with an invalid signature."""
    head, _ = token(f"mallory-{number}").rsplit(".", 1)
    return f"{head}.{_base64url(number.to_bytes(2, 'big') * 128).decode()}"


def issue(user: str, device: str = "tab-1") -> Request:
    """A login request of a device."""
    return Request(PATH, "POST", token(user), json.dumps({"device_id": device}))


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
