"""Login requests as bytes."""

from functools import cache

from tests.support.tokens import token

PATH = "/v1/telephony-credentials"
BODY = b'{"device_id": "laptop"}'

cached_token = cache(token)
"""The same token each time, as a page sends it."""


def request_bytes(
    *more: str,
    user: str = "alice",
    bearer: str | None = None,
    body: bytes = BODY,
    method: str = "POST",
    target: str = PATH,
    version: str = "1.1",
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: a", f"Authorization: Bearer {bearer or cached_token(user)}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
