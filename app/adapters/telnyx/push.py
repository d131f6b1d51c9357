"""Operations on push credentials and on the connections that use them. Echoed private keys are never read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from app.adapters.http_client import HttpResponse
from app.adapters.telnyx.api import ATTEMPTS, TelnyxApi
from app.adapters.telnyx.responses import data_of, text_of
from app.vending.errors import TelnyxNotFound, TelnyxResponseInvalid
from app.vending.push.models import PushType

PAGE_SIZE = 20
"""Telnyx's default here. An alias is unique, so one page contains it."""

_FIELD = {PushType.IOS: "ios_push_credential_id", PushType.ANDROID: "android_push_credential_id"}


class TelnyxPush:
    """Operations on mobile push credentials. All methods raise TelnyxError."""

    def __init__(self, api: TelnyxApi) -> None:
        self._api = api

    async def upload(self, alias: str, material: Mapping[str, Any]) -> str:
        """The id of the new object. Not retried, although a unique alias prevents a second object."""
        answer = await self._api.send("POST", "/mobile_push_credentials", json={"alias": alias, **material})
        return text_of(data_of(answer), "id")

    async def exists(self, credential_id: str) -> bool:
        try:
            await self._api.send("GET", _path(credential_id), attempts=ATTEMPTS)
        except TelnyxNotFound:
            return False
        return True

    async def by_alias(self, alias: str) -> str | None:
        """The id of the object with that alias. Compared here, because Telnyx does not document exact filters."""
        async for item in self._api.items("/mobile_push_credentials", {"filter[alias]": alias}, PAGE_SIZE):
            if item.get("alias") == alias:
                return text_of(item, "id")
        return None

    async def delete(self, credential_id: str) -> None:
        """Retried, because deletion is idempotent. Raises TelnyxNotFound if the object does not exist."""
        await self._api.send("DELETE", _path(credential_id), attempts=ATTEMPTS)


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """The settings of a credential connection."""

    is_active: bool
    sip_uri_calling: str
    """`disabled`, `internal` or `unrestricted`: whether users can call each other's SIP addresses."""
    attached: Mapping[PushType, str | None]
    answered_at: datetime | None
    """The `Date` header of the response: Telnyx's clock."""


class TelnyxConnections:
    """Operations on credential connections. All methods raise TelnyxError."""

    def __init__(self, api: TelnyxApi) -> None:
        self._api = api

    async def check(self, connection_id: str) -> None:
        """Raises TelnyxKeyRejected or TelnyxForbidden for a bad key, TelnyxNotFound for an unknown connection."""
        await self._api.send("GET", _connection(connection_id), attempts=1)

    async def get_info(self, connection_id: str) -> ConnectionInfo:
        """The connection's settings. Raises the same errors as `check`."""
        answer = await self._api.send("GET", _connection(connection_id), attempts=ATTEMPTS)
        connection = data_of(answer)
        return ConnectionInfo(
            is_active=connection.get("active") is not False,
            sip_uri_calling=str(connection.get("sip_uri_calling_preference") or "disabled"),
            attached=_attached(connection),
            answered_at=_date_of(answer),
        )

    async def attached(self, connection_id: str) -> dict[PushType, str | None]:
        """The ids of the push credentials that the connection uses, by platform."""
        return _attached(data_of(await self._api.send("GET", _connection(connection_id), attempts=ATTEMPTS)))

    async def attach(self, connection_id: str, wanted: Mapping[PushType, str | None]) -> None:
        """Set the push credentials. Platforms that are not in `wanted` stay unchanged."""
        body = {_FIELD[push_type]: credential_id for push_type, credential_id in wanted.items()}
        await self._api.send("PATCH", _connection(connection_id), json=body)


def _attached(connection: dict[str, Any]) -> dict[PushType, str | None]:
    found: dict[PushType, str | None] = {}
    for push_type, field in _FIELD.items():
        value = connection.get(field)
        if value is not None and not isinstance(value, str):
            raise TelnyxResponseInvalid
        found[push_type] = value or None
    return found


def _date_of(answer: HttpResponse) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers.get("date", ""))
    except ValueError:
        return None


def _path(credential_id: str) -> str:
    return "/mobile_push_credentials/" + quote(credential_id, safe="")


def _connection(connection_id: str) -> str:
    return "/credential_connections/" + quote(connection_id, safe="")
