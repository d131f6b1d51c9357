"""Valid and invalid access tokens of this run's identity provider, signed with `cryptography`."""

import base64
import json
import multiprocessing
import time
from collections.abc import Sequence
from itertools import count

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from benchmarks.load import Request
from benchmarks.processes import AUDIENCE, CORES, ISSUER, signing_key

PATH = "/v1/telephony-credentials"
LIFE_SECONDS = 3600
SIGNED_TOGETHER = 500


_token_ids = count()


def token(user: str, token_id: int | None = None) -> str:
    """A new token: no other has its `jti`."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": user,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + LIFE_SECONDS,
        "scope": "phone",
        "jti": f"{next(_token_ids) if token_id is None else token_id:032x}",
    }
    signed = b".".join(_base64url(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "at+jwt"}, claims))
    signature = signing_key().sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return (signed + b"." + _base64url(signature)).decode()


def sign_all(users: Sequence[str]) -> list[str]:
    """A new token for each of these users, one after the other, signed by one process per core."""
    signing_key()  # the processes inherit it
    wanted = [(user, next(_token_ids)) for user in users]
    with multiprocessing.get_context("fork").Pool(len(CORES)) as pool:
        return pool.starmap(token, wanted, SIGNED_TOGETHER)


def with_bad_signature(number: int) -> str:
    """Distinct tokens that are well-formed and name a known issuer, with an invalid signature."""
    head, _ = token(f"mallory-{number}").rsplit(".", 1)
    return f"{head}.{_base64url(number.to_bytes(2, 'big') * 128).decode()}"


def issue(user: str, device: str = "tab-1") -> Request:
    """A login request of a device."""
    return login_request(token(user), device)


def login_request(access_token: str, device: str = "tab-1") -> Request:
    """A login request with this access token."""
    return Request(PATH, "POST", access_token, json.dumps({"device_id": device}))


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
