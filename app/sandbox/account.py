"""A Telnyx account in memory: credentials, push credentials, connections, and Telnyx's rules for them.

The responses follow developers.telnyx.com and Telnyx's OpenAPI description of 2026-07, with their irregularities: a
delete returns the object, an update of an expired credential returns an `errors` *object*, times have three formats,
and every response about a credential contains its SIP password.
"""

import base64
import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

CREDENTIALS_PER_TAG = 1000
DEMO_CONNECTION = "1293384261075731499"
DEMO_KEY = "KEY_SANDBOX_0000000000000000"
TOKEN_LIFE = timedelta(hours=24)
"""Maximum lifetime of a login token. It never outlives its credential."""

UNDATED_LIFE = timedelta(days=20 * 365)
"""Lifetime of a credential that is created without an expiry. Undocumented; in a sample of Telnyx's it is 22 years."""


class ApiError(Exception):
    """An error response: status, Telnyx's code and title, and the location of the fault."""

    def __init__(self, status: int, code: str, title: str, detail: str = "", **source: str) -> None:
        super().__init__(title)
        self.status = status
        error: dict[str, Any] = {"code": code, "title": title}
        if detail:
            error["detail"] = detail
        if source:
            error["source"] = source
        error["meta"] = {"url": f"https://developers.telnyx.com/docs/overview/errors/{code}"}
        self.body: dict[str, Any] = {"errors": [error]}


def expired_credential() -> ApiError:
    """The only documented response whose `errors` is an object."""
    refusal = ApiError(422, "10015", "Bad Request")
    refusal.body = {"errors": {"status": "can't update credentials in expired status"}}
    return refusal


def not_found() -> ApiError:
    return ApiError(
        404, "10005", "Resource not found", "The requested resource or URL could not be found.", pointer="/"
    )


class Clock:
    """The system clock, which tests can advance."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def advance(self, step: timedelta) -> None:
        self._ahead += step


@dataclass(slots=True)
class StoredCredential:
    """A telephony credential. As at Telnyx, `tag` can be set and used as a filter, but no response contains it."""

    id: str
    name: str
    tag: str | None
    connection_id: str
    sip_username: str
    sip_password: str
    expires_at: datetime
    created_at: datetime
    updated_at: datetime

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at <= now

    def as_json(self, now: datetime, user_id: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "record_type": "credential",
            "name": self.name,
            "resource_id": f"connection:{self.connection_id}",
            "user_id": user_id,
            "sip_username": self.sip_username,
            "sip_password": self.sip_password,
            "expired": self.is_expired(now),
            "expires_at": self.expires_at.strftime("%Y-%m-%dT%H:%M:%S"),
            "created_at": self.created_at.strftime("%Y-%m-%dT%H:%M:%S"),
            "updated_at": self.updated_at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }


@dataclass(slots=True)
class Account:
    """The objects that one API key gives access to."""

    clock: Callable[[], datetime]
    api_keys: tuple[str, ...] = (DEMO_KEY,)
    token_life: timedelta = TOKEN_LIFE
    credentials: dict[str, StoredCredential] = field(default_factory=dict)
    push_credentials: dict[str, dict[str, Any]] = field(default_factory=dict)
    connections: dict[str, dict[str, Any]] = field(default_factory=dict)
    user_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    _signing_key: bytes = field(default_factory=lambda: secrets.token_bytes(64), repr=False)

    def add_demo_connection(self) -> None:
        self._store_connection(
            DEMO_CONNECTION,
            {
                "connection_name": "dialtone demo",
                "user_name": "dialtonedemo",
                "password": secrets.token_hex(16),
                "sip_uri_calling_preference": "internal",
            },
        )

    # -- telephony credentials ----------------------------------------------------------------------------------

    def create_credential(self, body: dict[str, Any]) -> dict[str, Any]:
        connection_id = _required(body, "connection_id")
        if connection_id not in self.connections:
            raise ApiError(
                422,
                "10017",
                "Associated resource does not exist",
                "Connection not found",
                pointer="/connection_id",
            )
        now = self.clock()
        tag = _optional_text(body, "tag")
        self._check_tag(tag)
        credential = StoredCredential(
            id=str(uuid.uuid4()),
            name=_optional_text(body, "name") or now.strftime("%Y-%m-%d %H:%M:%S.%fZ"),
            tag=tag,
            connection_id=connection_id,
            sip_username="gencred" + secrets.token_hex(21),
            sip_password=secrets.token_hex(16),
            expires_at=_expiry(body, now) or now + UNDATED_LIFE,
            created_at=now,
            updated_at=now,
        )
        self.credentials[credential.id] = credential
        # Telnyx's reference shows these secrets in responses to a create. A service must not read them.
        extras = {
            "kid": secrets.token_hex(8),
            "tel_token": "canary" + secrets.token_hex(64),
            "signing_secret": "canary" + secrets.token_hex(32),
        }
        return credential.as_json(now, self.user_id) | extras

    def credential(self, credential_id: str) -> StoredCredential:
        found = self.credentials.get(credential_id)
        if found is None:
            raise not_found()
        return found

    def show_credential(self, credential_id: str) -> dict[str, Any]:
        return self.credential(credential_id).as_json(self.clock(), self.user_id)

    def update_credential(self, credential_id: str, body: dict[str, Any]) -> dict[str, Any]:
        credential = self.credential(credential_id)
        now = self.clock()
        if credential.is_expired(now):
            raise expired_credential()
        tag = _optional_text(body, "tag")
        connection_id = _optional_text(body, "connection_id")
        if connection_id is not None and connection_id not in self.connections:
            raise ApiError(422, "10017", "Associated resource does not exist", pointer="/connection_id")
        expires_at = _expiry(body, now)
        if tag is not None and tag != credential.tag:
            self._check_tag(tag)
            credential.tag = tag
        credential.name = _optional_text(body, "name") or credential.name
        credential.connection_id = connection_id or credential.connection_id
        credential.expires_at = expires_at or credential.expires_at
        credential.updated_at = now
        return credential.as_json(now, self.user_id)

    def delete_credential(self, credential_id: str) -> dict[str, Any]:
        credential = self.credential(credential_id)
        del self.credentials[credential_id]
        return credential.as_json(self.clock(), self.user_id)

    def find_credentials(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        """Exact matches, newest first. Filters that Telnyx does not document are ignored."""
        now = self.clock()

        def matches(credential: StoredCredential) -> bool:
            facts = {
                "name": credential.name,
                "tag": credential.tag,
                "sip_username": credential.sip_username,
                "resource_id": f"connection:{credential.connection_id}",
                "status": "expired" if credential.is_expired(now) else "active",
            }
            return all(facts[name] == value for name, value in filters.items() if name in facts)

        found = [item for item in self.credentials.values() if matches(item)]
        return [item.as_json(now, self.user_id) for item in reversed(found)]

    def mint_token(self, credential_id: str) -> str:
        """A login JWT whose payload `atob` can decode, because the browser SDK decodes it as plain base64."""
        credential = self.credential(credential_id)
        now = self.clock()
        if credential.is_expired(now):
            raise expired_credential()
        expires_at = min(now + self.token_life, credential.expires_at)
        header = _base64url(json.dumps({"alg": "HS512", "typ": "JWT"}).encode())
        while True:
            claims = {
                "aud": "telnyx_telephony",
                "iss": "telnyx_telephony",
                "iat": int(now.timestamp()),
                "nbf": int(now.timestamp()) - 1,
                "exp": int(expires_at.timestamp()),
                "jti": str(uuid.uuid4()),
                "sub": credential.id,
                "tel_token": secrets.token_urlsafe(96),
                "typ": "access",
            }
            payload = _base64url(json.dumps(claims, separators=(",", ":")).encode())
            if "-" not in payload and "_" not in payload:
                break
        signature = hmac.new(self._signing_key, f"{header}.{payload}".encode(), hashlib.sha512).digest()
        return f"{header}.{payload}.{_base64url(signature)}"

    def credential_of_token(self, token: str) -> StoredCredential | None:
        """The credential of a login token; None if the sandbox did not sign the token, or if it has expired."""
        try:
            signed, _, signature = token.rpartition(".")
            expected = _base64url(hmac.new(self._signing_key, signed.encode(), hashlib.sha512).digest())
            payload = signed.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (ValueError, IndexError):
            return None
        if not hmac.compare_digest(signature.encode(), expected.encode()) or claims["exp"] <= self.clock().timestamp():
            return None
        return self.credentials.get(claims["sub"])

    def credential_of_login(self, sip_username: str, sip_password: str) -> StoredCredential | None:
        for credential in self.credentials.values():
            if credential.sip_username == sip_username:
                return credential if hmac.compare_digest(credential.sip_password, sip_password) else None
        return None

    def _check_tag(self, tag: str | None) -> None:
        if tag is not None and sum(item.tag == tag for item in self.credentials.values()) >= CREDENTIALS_PER_TAG:
            raise ApiError(422, "10015", "Bad Request", "A tag can hold at most 1000 credentials", pointer="/tag")

    # -- mobile push credentials --------------------------------------------------------------------------------

    def create_push_credential(self, body: dict[str, Any]) -> dict[str, Any]:
        kind, alias = _required(body, "type"), _required(body, "alias")
        match kind:
            case "ios":
                material = {name: _required(body, name) for name in ("certificate", "private_key")}
            case "android" if isinstance(body.get("project_account_json_file"), dict):
                material = {"project_account_json_file": body["project_account_json_file"]}
            case "android":
                raise ApiError(422, "10004", "Missing required parameter", pointer="/project_account_json_file")
            case _:
                raise ApiError(422, "10015", "Bad Request", "is not ios or android", pointer="/type")
        if any(item["alias"] == alias for item in self.push_credentials.values()):
            raise ApiError(422, "10015", "Bad Request", "has already been taken", pointer="/mobile_push_credentials")
        now = self.clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        made = {
            "id": str(uuid.uuid4()),
            "record_type": "push_credential",
            "alias": alias,
            "type": kind,
            **material,
            "created_at": now,
            "updated_at": now,
        }
        self.push_credentials[made["id"]] = made
        return made

    def push_credential(self, push_credential_id: str) -> dict[str, Any]:
        found = self.push_credentials.get(push_credential_id)
        if found is None:
            raise not_found()
        return found

    def delete_push_credential(self, push_credential_id: str) -> None:
        self.push_credential(push_credential_id)
        del self.push_credentials[push_credential_id]

    def find_push_credentials(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        return [
            item
            for item in self.push_credentials.values()
            if all(item[name] == value for name, value in filters.items() if name in ("type", "alias"))
        ]

    # -- credential connections ---------------------------------------------------------------------------------

    def create_connection(self, body: dict[str, Any]) -> dict[str, Any]:
        user_name = _required(body, "user_name")
        password = _required(body, "password")
        _required(body, "connection_name")
        if not (4 <= len(user_name) <= 32 and user_name.isalnum()):
            raise ApiError(422, "10015", "Bad Request", "must be 4 to 32 letters or digits", pointer="/user_name")
        if not 8 <= len(password) <= 128:
            raise ApiError(422, "10015", "Bad Request", "must have 8 to 128 characters", pointer="/password")
        return self._store_connection(str(secrets.randbelow(9 * 10**18) + 10**18), body)

    def connection(self, connection_id: str) -> dict[str, Any]:
        found = self.connections.get(connection_id)
        if found is None:
            raise not_found()
        return found

    def update_connection(self, connection_id: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = self.connection(connection_id)
        for name in ("ios_push_credential_id", "android_push_credential_id"):
            if body.get(name) is not None and body[name] not in self.push_credentials:
                raise ApiError(422, "10017", "Associated resource does not exist", pointer=f"/{name}")
        # As at Telnyx, unknown fields are ignored.
        connection.update({name: value for name, value in body.items() if name in connection and name != "id"})
        connection["updated_at"] = self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        return self.shown_connection(connection)

    def delete_connection(self, connection_id: str) -> dict[str, Any]:
        connection = self.connection(connection_id)
        del self.connections[connection_id]
        return self.shown_connection(connection)

    def find_connections(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        wanted = filters.get("connection_name][contains", "")
        return [self.shown_connection(c) for c in self.connections.values() if wanted in c["connection_name"]]

    def shown_connection(self, connection: dict[str, Any]) -> dict[str, Any]:
        """The connection with its password masked, as Telnyx returns it to primary accounts since 2026-09."""
        return connection | {"password": "********"}

    def _store_connection(self, connection_id: str, body: dict[str, Any]) -> dict[str, Any]:
        now = self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        connection: dict[str, Any] = {
            "id": connection_id,
            "record_type": "credential_connection",
            "active": True,
            "ios_push_credential_id": None,
            "android_push_credential_id": None,
            "sip_uri_calling_preference": "disabled",
            "inbound": {"simultaneous_ringing": "disabled"},
            "outbound": {"outbound_voice_profile_id": None, "call_parking_enabled": False},
            "connection_name": "",
            "user_name": "",
            "password": "",
            "created_at": now,
            "updated_at": now,
        }
        connection.update({name: value for name, value in body.items() if name in connection and name != "id"})
        self.connections[connection_id] = connection
        return self.shown_connection(connection)


def _required(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None or value == "":
        raise ApiError(422, "10004", "Missing required parameter", f"{name} is required", pointer=f"/{name}")
    if not isinstance(value, str):
        raise ApiError(422, "10015", "Bad Request", "must be text", pointer=f"/{name}")
    return value


def _optional_text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise ApiError(422, "10015", "Bad Request", "must be text", pointer=f"/{name}")
    return value


def _expiry(body: dict[str, Any], now: datetime) -> datetime | None:
    text = _optional_text(body, "expires_at")
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ApiError(422, "10015", "Bad Request", "is not ISO 8601", pointer="/expires_at") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if moment <= now:
        raise ApiError(422, "10015", "Bad Request", "must be in the future", pointer="/expires_at")
    return moment.replace(microsecond=0)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
