"""Telnyx's REST API, as far as Dialtone needs it: the only caller of api.telnyx.com.

Replies are parsed leniently (unknown fields, times without a zone, `errors` as list or object, a JSON-quoted token) and
judged strictly: what we need must be there. Nothing but the fields named here is read, because every answer about a
credential holds its SIP password, and a create may hold more secrets.

Facts about the API: developers.telnyx.com and Telnyx's OpenAPI description of 2026-07.
"""

import asyncio
import base64
import json
import math
import random
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

import structlog

from app.adapters.outbound import Answer, NoAnswer, NotSent, Outbound
from app.vending.errors import (
    CarrierError,
    CarrierFailed,
    CarrierForbidden,
    CarrierKeyRefused,
    CarrierNotFound,
    CarrierRejected,
    CarrierThrottled,
    CarrierUnreachable,
    CarrierUnreadable,
    CredentialExpired,
)
from app.vending.nouns import Credential, LoginToken, SipPassword

CALL_SECONDS = 5.0
"""Total deadline of one operation, retries included."""

MAX_ANSWER_BYTES = 2 * 1024 * 1024
"""A page of 250 credentials is about 150 KB."""

PAGE_SIZE = 250
"""The most that Telnyx gives; its default is 50."""

MAX_PAGES = 4000
"""A list that goes on beyond a million credentials is taken for a server that repeats itself."""

ATTEMPTS = 3
"""Tries of a read or a delete. A create, an update and a mint are sent once."""

FIRST_PAUSE_SECONDS = 0.2

FALLBACK_TOKEN_LIFE = timedelta(hours=1)
"""For a login token whose `exp` cannot be read: sources disagree between 10 hours and 28 days, so be careful."""

MAX_RETRY_AFTER_SECONDS = 60.0
"""A wait that Telnyx asks for is believed up to this; anything odd counts as one second."""

_ERROR_CODE = re.compile(r"\d{1,6}\Z")
_log = structlog.get_logger("dialtone.telnyx")
T = TypeVar("T")


class TelnyxClient:
    """Every operation on telephony credentials, over one shared pool. All methods raise CarrierError."""

    def __init__(
        self,
        outbound: Outbound,
        *,
        base_url: str,
        api_key: str,
        clock: Callable[[], datetime],
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self._outbound = outbound
        self._base_url = base_url.rstrip("/")
        self._clock = clock
        self._call_seconds = call_seconds
        self.use_key(api_key)

    def use_key(self, api_key: str) -> None:
        """The key of every call from now on."""
        self._headers = {"Authorization": f"Bearer {api_key}", "Accept": "application/json"}

    async def create(
        self,
        *,
        connection_id: str,
        name: str | None = None,
        tag: str | None = None,
        expires_at: datetime | None = None,
    ) -> Credential:
        """Not retried: Telnyx has no idempotency key here, so a second try could make a second credential."""
        body = _changes(connection_id=connection_id, name=name, tag=tag, expires_at=expires_at)
        return _credential(_data(await self._send("POST", "/telephony_credentials", json=body)))

    async def retrieve(self, credential_id: str) -> Credential:
        return _credential(_data(await self._send("GET", _path(credential_id), attempts=ATTEMPTS)))

    async def update(
        self,
        credential_id: str,
        *,
        connection_id: str | None = None,
        name: str | None = None,
        tag: str | None = None,
        expires_at: datetime | None = None,
    ) -> Credential:
        """Change what is given. Raises CredentialExpired for an expired one: that is final, only delete is left."""
        body = _changes(connection_id=connection_id, name=name, tag=tag, expires_at=expires_at)
        return _credential(_data(await self._send("PATCH", _path(credential_id), json=body)))

    async def extend(self, credential_id: str, expires_at: datetime) -> Credential:
        return await self.update(credential_id, expires_at=expires_at)

    async def delete(self, credential_id: str) -> None:
        """Raises CarrierNotFound if it is gone already. Safe to repeat, so it is."""
        await self._send("DELETE", _path(credential_id), attempts=ATTEMPTS)

    async def mint(self, credential_id: str) -> LoginToken:
        """A login token for the browser or mobile SDK. Its `exp` is read as data: the signature is Telnyx's own."""
        answer = await self._send("POST", _path(credential_id) + "/token")
        secret = _bare_token(answer.body)
        return LoginToken(secret, _expiry(secret) or self._clock() + FALLBACK_TOKEN_LIFE)

    async def sip_password(self, credential_id: str) -> SipPassword:
        """The one operation that reads the password out of an answer."""
        answer = await self._send("GET", _path(credential_id), attempts=ATTEMPTS)
        return SipPassword(_text(_data(answer), "sip_password"))

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
        """Every matching credential, page after page, as they come.

        Whether a filter matches exactly is not documented: compare again before acting on an item.
        """
        wanted = {
            "filter[name]": name,
            "filter[tag]": tag,
            "filter[status]": status,
            "filter[resource_id]": None if connection_id is None else f"connection:{connection_id}",
            "filter[sip_username]": sip_username,
            "page[size]": str(page_size),
        }
        params = {key: value for key, value in wanted.items() if value is not None}
        for number in range(1, MAX_PAGES + 1):
            answer = await self._send(
                "GET",
                "/telephony_credentials",
                params={**params, "page[number]": str(number)},
                attempts=ATTEMPTS,
            )
            items, pages = _page(answer)
            for item in items:
                yield _credential(item)
            if not items or (number >= pages if pages is not None else len(items) < page_size):
                return
        raise CarrierUnreadable

    async def check_connection(self, connection_id: str) -> None:
        """Raises CarrierKeyRefused or CarrierForbidden for a bad key, CarrierNotFound for an unknown connection."""
        await self._send("GET", "/credential_connections/" + quote(connection_id, safe=""), attempts=1)

    async def _send(self, method: str, path: str, *, attempts: int = 1, **content: Any) -> Answer:
        """An answer of status 2xx within the total deadline, or the error that the last try ended with."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._call_seconds
        for attempt in range(1, attempts + 1):
            try:
                return await self._send_once(method, path, deadline - loop.time(), **content)
            except (CarrierFailed, CarrierUnreachable, CarrierUnreadable):
                pause = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * (0.5 + random.random())  # noqa: S311 - jitter
                if attempt == attempts or loop.time() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("attempts is at least 1")

    async def _send_once(self, method: str, path: str, seconds: float, **content: Any) -> Answer:
        try:
            answer = await self._outbound.send(
                method,
                self._base_url + path,
                headers=self._headers,
                deadline_seconds=seconds,
                max_bytes=MAX_ANSWER_BYTES,
                **content,
            )
        except NotSent as error:
            _log.warning("telnyx_unreachable", method=method, cause=str(error))
            raise CarrierUnreachable(may_have_happened=False) from None
        except NoAnswer as error:
            _log.warning("telnyx_no_answer", method=method, cause=str(error))
            raise CarrierUnreachable(may_have_happened=True) from None
        if 200 <= answer.status < 300:
            return answer
        refusal = _refusal(answer)
        _log.warning(
            "telnyx_error",
            method=method,
            status=answer.status,
            codes=_codes(answer.body),
            error=type(refusal).__name__,
        )
        raise refusal


def _refusal(answer: Answer) -> CarrierError:
    """The error behind a status. 2xx never comes here; a redirect is not followed and says nothing we can use."""
    match answer.status:
        case 401:
            return CarrierKeyRefused()
        case 403:
            return CarrierForbidden()
        case 404:
            return CarrierNotFound()
        case 429:
            return CarrierThrottled(retry_after_seconds=_retry_after(answer))
        case 408 | 425:
            return CarrierFailed()
        case status if 400 <= status < 500:
            # Telnyx: {"errors": {"status": "can't update credentials in expired status"}}, an object for once
            return CredentialExpired() if b"expired status" in answer.body else CarrierRejected()
        case status if status >= 500:
            return CarrierFailed(retry_after_seconds=_retry_after(answer))
        case _:
            return CarrierUnreadable()


def _retry_after(answer: Answer) -> float:
    """Seconds to wait, from whichever header holds something sensible."""
    for name in ("retry-after", "x-ratelimit-reset"):
        try:
            seconds = float(answer.headers.get(name, ""))
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds > 0:
            return min(seconds, MAX_RETRY_AFTER_SECONDS)
    return 1.0


def _codes(body: bytes) -> list[str]:
    """Telnyx's numeric error codes, for the log. No other text of the answer goes there."""
    try:
        errors = json.loads(body)["errors"]
        found = [str(item.get("code", "")) for item in errors if isinstance(item, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [code for code in found if _ERROR_CODE.match(code)][:5]


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise CarrierUnreadable from None
    if not isinstance(value, dict):
        raise CarrierUnreadable
    return value


def _data(answer: Answer) -> dict[str, Any]:
    data = _json(answer.body).get("data")
    if not isinstance(data, dict):
        raise CarrierUnreadable
    return data


def _page(answer: Answer) -> tuple[list[dict[str, Any]], int | None]:
    """The items, and how many pages there are, if it says."""
    content = _json(answer.body)
    items, meta = content.get("data"), content.get("meta")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise CarrierUnreadable
    pages = meta.get("total_pages") if isinstance(meta, dict) else None
    return items, pages if isinstance(pages, int) and not isinstance(pages, bool) else None


def _credential(data: dict[str, Any]) -> Credential:
    resource = data.get("resource_id")
    kind, _, connection_id = resource.partition(":") if isinstance(resource, str) else ("", "", "")
    name = data.get("name")
    return Credential(
        id=_text(data, "id"),
        name=name if isinstance(name, str) else "",
        connection_id=connection_id if kind == "connection" else None,
        sip_username=_text(data, "sip_username"),
        expires_at=_time(data.get("expires_at")),
        created_at=_time(data.get("created_at")),
        is_expired=data.get("expired") in (True, "true"),  # an older sample of Telnyx's has it as text
    )


def _text(data: dict[str, Any], field: str) -> str:
    value = data.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= 256 or not value.isprintable():
        raise CarrierUnreadable
    return value


def _time(value: Any) -> datetime | None:
    """Aware UTC. Telnyx's samples come without a zone, with Z and 3 digits, and with Z and 6."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.replace(":60", ":59", 1) if value[17:19] == "60" else value)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _bare_token(body: bytes) -> str:
    """The JWT out of a body that is bare text, or, as clients in the wild report, quoted or wrapped in `data`."""
    try:
        text: Any = body.decode("ascii").strip()
        if text.startswith(("{", '"')):
            wrapped = json.loads(text)
            text = wrapped.get("data") if isinstance(wrapped, dict) else wrapped
    except (ValueError, RecursionError):
        raise CarrierUnreadable from None
    if not isinstance(text, str) or len(text) > 8192 or not re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", text, re.ASCII):
        raise CarrierUnreadable
    return text


def _expiry(token: str) -> datetime | None:
    """`exp` of a login token, unverified: it only tells when to ask for the next one."""
    payload = token.split(".")[1]
    try:
        exp = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        return datetime.fromtimestamp(int(exp), UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return None


def _changes(**fields: str | datetime | None) -> dict[str, str]:
    """A request body of what is given, times as Telnyx writes them."""
    return {
        name: value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value
        for name, value in fields.items()
        if value is not None
    }


def _path(credential_id: str) -> str:
    return "/telephony_credentials/" + quote(credential_id, safe="")
