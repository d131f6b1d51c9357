"""Generated login requests, valid and invalid, and two services' answers to them in a form that can be compared."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from tests.support.front_server import Connection
from tests.support.tokens import AUDIENCE, ec_key, token

PATH = "/v1/telephony-credentials"
DEPARTMENTS = ["desk", "desk", "sales", "denied"]
"""A claim that policy rules may examine. Without rules, it has no effect."""

USERS = [f"user-{number}" for number in range(6)]

VARYING_HEADERS = re.compile(rb"(?mi)^(date|x-request-id|ratelimit-\w+|retry-after|content-length): [^\r]*\r\n")
TIMES = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
IDS = re.compile(r"[0-9a-f]{32}|gencred\w+|eyJ[\w.-]+")

repeated_token = cache(token)


def generate_token(chance: random.Random) -> str:
    user = chance.choice(USERS)
    match chance.randrange(20):
        case 0:
            return token(user, exp=1)
        case 1:
            return token(user, aud="elsewhere")
        case 2:
            return token(user, iss="https://elsewhere.example.com")
        case 3:
            return token(user, header={"alg": "ES256"}, key=ec_key())
        case 4:
            return repeated_token(user)[:-8] + "AAAAAAAA"
        case 5:
            return chance.choice(["garbage", "a.b.c", "x" * 8192, "x" * 9000, "..", "eyJ.eyJ.eyJ", token(user) + "="])
        case 6:
            return token(user, sub=chance.choice(["", "a\nb", 7]), aud=[AUDIENCE, "other"])
        case number if number < 13:
            return token(user, department=chance.choice(DEPARTMENTS))
        case _:
            return repeated_token(user, department=chance.choice(DEPARTMENTS))


def generate_body(chance: random.Random) -> bytes:
    device = f"device-{chance.randrange(3)}"
    return chance.choice(
        [b'{"device_id": "%b"}' % device.encode()] * 12
        + [
            b' {"device_id" :"%b" }\n' % device.encode(),
            b'{"device_id": "%b", "platform": "browser"}' % device.encode(),
            b'{"device_id": "phone", "platform": "ios"}',
            b'{"device_id": "phone", "platform": "windows"}',
            b'{"device_id": "%b", "ttl_seconds": 59}' % device.encode(),
            b'{"device_id": "%b", "label": "Mine"}' % device.encode(),
            b'{"device_id": "%b", "nonsense": 1}' % device.encode(),
            b'{"device_id": 7}',
            b'{"device_id": "\\u0061"}',
            b'{"device_id": "a b"}',
            b'["device"]',
            b"[" * 300,
            b"{" + b" " * 600 + b"}",
            b"\xff",
            b"NaN",
            b"",
        ]
    )


ORIGINS = ["https://app.example.com", "https://elsewhere.example.com", "null", ""]
FORWARDED = [
    "203.0.113.7",
    "203.0.113.8, 127.0.0.1",
    "203.0.113.7, 198.51.100.2",
    "::1",
    "[2001:db8::1]:80",
    "nonsense",
    "",
]
METHODS = ["POST"] * 24 + ["GET", "PUT", "HEAD", "OPTIONS", "DELETE"]
TARGETS = [PATH] * 30 + [f"{PATH}/", f"{PATH}?a=b", f"{PATH}/none", "/livez", "/v1/%74elephony-credentials"]
MEDIA_TYPES = ["application/json"] * 12 + ["application/json; charset=utf-8", "text/plain"]
SCHEMES = ["Bearer"] * 20 + ["bearer", "Basic", "Bearer  "]
ODD_HEADERS = ["X-Request-ID: mine", "X-Request-ID: not valid", "Connection: keep-alive", "X-Empty:"]
AGENTS = ["Mozilla/5.0 (X11; Linux x86_64)", "curl/8", "\xe4gent", "a" * 300]


def generate_request(chance: random.Random) -> bytes:
    method = chance.choice(METHODS)
    headers = [f"Content-Type: {chance.choice(MEDIA_TYPES)}"]
    if chance.random() < 0.95:
        headers.append(f"Authorization: {chance.choice(SCHEMES)} {generate_token(chance)}")
    if chance.random() < 0.3:
        headers.append(f"Origin: {chance.choice(ORIGINS)}")
    if chance.random() < 0.3:
        headers.append(f"X-Forwarded-For: {chance.choice(FORWARDED)}")
    if chance.random() < 0.5:
        headers.append(f"User-Agent: {chance.choice(AGENTS)}")
    if chance.random() < 0.1:
        headers.append(chance.choice(ODD_HEADERS))
    if chance.random() < 0.05:
        headers += [f"X-{number}: a" for number in range(chance.choice([50, 99, 120]))]
    if chance.random() < 0.03:
        headers.append(chance.choice(headers))
    chance.shuffle(headers)
    headers = [line if chance.random() < 0.5 else _other_case(line) for line in headers]
    body = b"" if method in ("GET", "HEAD", "OPTIONS") and chance.random() < 0.9 else generate_body(chance)
    headers.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([f"{method} {chance.choice(TARGETS)} HTTP/1.1", "Host: a", *headers])
    return head.encode("latin-1") + b"\r\n\r\n" + body


def _other_case(line: str) -> str:
    name, _, value = line.partition(":")
    return f"{name.swapcase()}:{value}"


class Names:
    """Replaces ids by the order of their first appearance, so that two services' texts can be compared."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def plain(self, text: str) -> str:
        without_times = TIMES.sub("<time>", text)
        return IDS.sub(lambda found: f"<{self._numbers.setdefault(found[0], len(self._numbers))}>", without_times)


@dataclass
class Side:
    """A connection to one of the two services."""

    port: int
    connection: Connection | None = None
    names: Names = field(default_factory=Names)

    async def ask(self, request: bytes) -> tuple[str, list[str], str]:
        """Status line, header lines and body of the response, comparable."""
        if self.connection is None or self.connection.reader.at_eof():
            self.connection = await Connection.to(self.port)
        self.connection.writer.write(request)
        head = await self.connection.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?mi)^content-length: (\d+)", head)
        has_body = not request.startswith(b"HEAD")
        body = await self.connection.reader.readexactly(int(length[1])) if length and has_body else b""
        if re.search(rb"(?mi)^connection: close", head):
            self.connection.writer.close()
            self.connection = None
        status, *lines = VARYING_HEADERS.sub(b"", head).decode("latin-1").split("\r\n")
        return status, sorted(lines), re.sub(r'"request_id":"[^"]*"', "", self._plain_body(body))

    def _plain_body(self, body: bytes) -> str:
        text = body.decode("latin-1")
        return self.names.plain(text) if text.startswith("{") else text


def generate_requests(seed: int, count: int) -> Iterator[bytes]:
    chance = random.Random(seed)  # noqa: S311
    for _ in range(count):
        yield generate_request(chance)


ACCESS_LOG_FIELDS = ("method", "path", "client", "status")
AUDIT_FIELDS = (
    "action",
    "outcome",
    "reason",
    "subject",
    "device_id",
    "actor_subject",
    "client_address",
    "user_agent",
    "details",
)


def logged(lines: list[str]) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """The access log and the audit, comparable."""
    access, audit = [], []
    for line in lines:
        entry = json.loads(line)
        if entry["event"] == "request":
            access.append(tuple(entry.get(name) for name in ACCESS_LOG_FIELDS))
        elif "audit" in entry:
            audit.append((entry["event"], *(str(entry.get(name)) for name in AUDIT_FIELDS)))
    return access, audit
