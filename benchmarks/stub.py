"""A Telnyx stub with the operations that a login needs. Each responds after STUB_SECONDS.

Unlike the sandbox, it stores nothing, so that its own cost does not affect the measurement. It counts the
calls that create and assign credentials and mint tokens. It does not count those that list credentials, which the
reconciler makes after a start.
"""

import asyncio
import base64
import itertools
import json
import os
from datetime import UTC, datetime, timedelta

from starlette.types import Receive, Scope, Send

from benchmarks.floors import live

DELAY_SECONDS = float(os.environ.get("STUB_SECONDS", "0.03"))
LOGIN_TOKEN_HOURS = 24

_numbers = itertools.count(1)
_calls = 0


def _login_token() -> bytes:
    """About 800 characters, as Telnyx's tokens."""
    exp = datetime.now(UTC) + timedelta(hours=LOGIN_TOKEN_HOURS)
    parts = ({"alg": "HS512", "typ": "JWT"}, {"exp": int(exp.timestamp()), "sub": "stub" * 120}, {"sig": "s" * 56})
    return b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)


_TOKEN = _login_token()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    global _calls
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    if scope["path"] == "/calls":
        await _answer(send, 200, b"%d" % _calls)
        return
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["method"] != "GET":
        _calls += 1
    if DELAY_SECONDS:
        await asyncio.sleep(DELAY_SECONDS)
    if scope["path"].endswith("/token"):
        await _answer(send, 201, _TOKEN, b"text/plain")
    elif scope["method"] == "POST":
        await _answer(send, 201, json.dumps({"data": _credential(json.loads(body or b"{}"))}).encode())
    elif scope["method"] == "PATCH":
        credential_id = scope["path"].rpartition("/")[2]
        await _answer(send, 200, json.dumps({"data": _credential(json.loads(body), credential_id)}).encode())
    elif scope["method"] == "DELETE":
        await _answer(send, 200, json.dumps({"data": {}}).encode())
    else:
        await _answer(send, 200, json.dumps({"data": [], "meta": {"total_pages": 1}}).encode())


def _credential(wanted: dict[str, str], credential_id: str | None = None) -> dict[str, object]:
    """A new credential, or one whose name and connection the stub does not know."""
    number = next(_numbers)
    now = datetime.now(UTC)
    return {
        "id": credential_id or f"00000000-0000-4000-8000-{number:012d}",
        "name": wanted.get("name", ""),
        "resource_id": f"connection:{wanted.get('connection_id', '')}",
        "sip_username": f"gencred{number}",
        "sip_password": "stub",
        "expires_at": wanted.get("expires_at", (now + timedelta(days=1)).isoformat()),
        "created_at": now.isoformat(),
        "expired": False,
    }


async def _answer(send: Send, status: int, body: bytes, media_type: bytes = b"application/json") -> None:
    headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
