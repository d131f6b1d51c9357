"""Operations on Telnyx's telephony credentials and their login tokens."""

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from app.adapters.http_client import HttpResponse
from app.adapters.identity.compact_jws import CompactJws
from app.adapters.telnyx.api import ATTEMPTS, TelnyxApi
from app.adapters.telnyx.responses import data_of, text_of, time_of
from app.vending.errors import TelnyxError, TelnyxForbidden, TelnyxResponseInvalid, TokenRejected
from app.vending.models import Credential, LoginToken, SipPassword

PAGE_SIZE = 250
"""Telnyx's maximum; its default is 50."""

CREATE_PAUSE = timedelta(minutes=10)
"""How long after a failed create no credential is replaced, unless a create succeeds. Other calls may still work."""


class TelnyxCredentials:
    """Every operation on telephony credentials. All methods raise TelnyxError."""

    def __init__(self, api: TelnyxApi, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._clock = clock
        self._create_failed_at: dict[str, datetime] = {}
        """By connection."""
        self._forbidden_at: datetime | None = None
        """When Telnyx last rejected a call for the permissions of the API key or the state of the account."""

    def admit(self, in_flight: int) -> None:
        self._api.scheduler.admit(in_flight)

    def can_create(self, connection_id: str) -> bool:
        """Whether a create can be expected to succeed now.

        The last call succeeded. Within CREATE_PAUSE, no create on the connection failed, and no call of this class was
        forbidden.
        """
        now, failures = self._clock(), (self._create_failed_at.get(connection_id), self._forbidden_at)
        # A failure in the future is from before the clock was set back.
        is_paused = any(at is not None and at <= now < at + CREATE_PAUSE for at in failures)
        return not is_paused and self._api.scheduler.is_available()

    async def create(
        self,
        *,
        connection_id: str,
        name: str | None = None,
        tag: str | None = None,
        expires_at: datetime | None = None,
    ) -> Credential:
        """Never retried: Telnyx has no idempotency key here, so a retry could create a second credential."""
        body = _changes(connection_id=connection_id, name=name, tag=tag, expires_at=expires_at)
        try:
            created = _credential(data_of(await self._send("POST", "/telephony_credentials", json=body)))
        except TelnyxError:
            self._create_failed_at[connection_id] = self._clock()
            raise
        self._create_failed_at.pop(connection_id, None)
        self._forbidden_at = None
        return created

    async def _send(self, method: str, path: str, **content: Any) -> HttpResponse:
        try:
            return await self._api.send(method, path, **content)
        except TelnyxForbidden:
            self._forbidden_at = self._clock()
            raise

    async def retrieve(self, credential_id: str) -> Credential:
        return _credential(data_of(await self._send("GET", _path(credential_id), attempts=ATTEMPTS)))

    async def update(
        self,
        credential_id: str,
        *,
        connection_id: str | None = None,
        name: str | None = None,
        tag: str | None = None,
        expires_at: datetime | None = None,
    ) -> Credential:
        """Change the given fields. Raises CredentialExpired: an expired credential can only be deleted."""
        body = _changes(connection_id=connection_id, name=name, tag=tag, expires_at=expires_at)
        return _credential(data_of(await self._send("PATCH", _path(credential_id), json=body)))

    async def assign(self, credential_id: str, *, tag: str, expires_at: datetime) -> Credential:
        """Assign a credential of the warm pool to a user's device."""
        return await self.update(credential_id, tag=tag, expires_at=expires_at)

    async def extend(self, credential_id: str, expires_at: datetime) -> Credential:
        return await self.update(credential_id, expires_at=expires_at)

    async def delete(self, credential_id: str) -> None:
        """Retried, because deletion is idempotent. Raises TelnyxNotFound if the credential does not exist."""
        await self._send("DELETE", _path(credential_id), attempts=ATTEMPTS)

    async def mint(self, credential_id: str) -> LoginToken:
        """A login token for the browser or mobile SDK. `exp` is read without verification: only Telnyx has the key.

        Raises TelnyxResponseInvalid for a token without a future `exp`: no device could log in with it.
        """
        answer = await self._send("POST", _path(credential_id) + "/token")
        secret = _bare_token(answer.body)
        expires_at = _expiry(secret)
        if expires_at <= self._clock():
            raise TelnyxResponseInvalid
        return LoginToken(secret, expires_at)

    async def sip_password(self, credential_id: str) -> SipPassword:
        """The SIP password. No other operation reads it from a response."""
        answer = await self._send("GET", _path(credential_id), attempts=ATTEMPTS)
        return SipPassword(text_of(data_of(answer), "sip_password"))

    def by_name(self, name: str) -> AsyncIterator[Credential]:
        return self.list(name=name)

    async def list(
        self,
        *,
        name: str | None = None,
        tag: str | None = None,
        status: str | None = None,
        connection_id: str | None = None,
        sip_username: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[Credential]:
        """Every matching credential, fetched page by page.

        Telnyx does not document whether filters match exactly: compare again before acting on an item.
        """
        wanted = {
            "filter[name]": name,
            "filter[tag]": tag,
            "filter[status]": status,
            "filter[resource_id]": None if connection_id is None else f"connection:{connection_id}",
            "filter[sip_username]": sip_username,
        }
        filters = {key: value for key, value in wanted.items() if value is not None}
        async for item in self._api.items("/telephony_credentials", filters, page_size):
            yield _credential(item)


def _credential(data: dict[str, Any]) -> Credential:
    resource = data.get("resource_id")
    kind, _, connection_id = resource.partition(":") if isinstance(resource, str) else ("", "", "")
    name = data.get("name")
    return Credential(
        id=text_of(data, "id"),
        name=name if isinstance(name, str) else "",
        connection_id=connection_id if kind == "connection" else None,
        sip_username=text_of(data, "sip_username"),
        expires_at=time_of(data.get("expires_at")),
        created_at=time_of(data.get("created_at")),
        is_expired=data.get("expired") in (True, "true"),  # a string in an older sample of Telnyx's
    )


def _bare_token(body: bytes) -> str:
    """The JWT from a body that is plain text or, as client authors report, JSON-quoted or wrapped in `data`."""
    try:
        text: Any = body.decode("ascii").strip()
        if text.startswith(("{", '"')):
            wrapped = json.loads(text)
            text = wrapped.get("data") if isinstance(wrapped, dict) else wrapped
    except (ValueError, RecursionError):
        raise TelnyxResponseInvalid from None
    if not isinstance(text, str):
        raise TelnyxResponseInvalid
    return text


def _expiry(token: str) -> datetime:
    """The unverified `exp` of a JWT. Raises TelnyxResponseInvalid if the text is no JWT, or has no `exp` in seconds."""
    try:
        jws = CompactJws.parse(token)
        jws.header()
        exp = jws.claims().get("exp")
        if isinstance(exp, bool) or not isinstance(exp, int | float):
            raise TelnyxResponseInvalid
        return datetime.fromtimestamp(int(exp), UTC)
    except (TokenRejected, ValueError, OverflowError, OSError):
        raise TelnyxResponseInvalid from None


def _changes(**fields: str | datetime | None) -> dict[str, str]:
    """A request body with the given fields, and times in Telnyx's format."""
    return {
        name: value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value
        for name, value in fields.items()
        if value is not None
    }


def _path(credential_id: str) -> str:
    return "/telephony_credentials/" + quote(credential_id, safe="")
