"""Parsing of Telnyx's responses: lenient in form, strict about the fields that Dialtone needs."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from app.adapters.http_client import HttpResponse
from app.vending.errors import TelnyxResponseInvalid

_ERROR_CODE = re.compile(r"\d{1,6}\Z")


def error_codes(body: bytes) -> list[str]:
    """Telnyx's numeric error codes, at most five, for the log. No other text of the response is logged."""
    try:
        errors = json.loads(body)["errors"]
        found = [str(item.get("code", "")) for item in errors if isinstance(item, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [code for code in found if _ERROR_CODE.match(code)][:5]


def json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise TelnyxResponseInvalid from None
    if not isinstance(value, dict):
        raise TelnyxResponseInvalid
    return value


def data_of(answer: HttpResponse) -> dict[str, Any]:
    data = json_object(answer.body).get("data")
    if not isinstance(data, dict):
        raise TelnyxResponseInvalid
    return data


def page_of(answer: HttpResponse) -> tuple[list[dict[str, Any]], int | None]:
    """The items of a page, and the number of pages if the response has it. Raises TelnyxResponseInvalid."""
    content = json_object(answer.body)
    items, meta = content.get("data"), content.get("meta")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise TelnyxResponseInvalid
    pages = meta.get("total_pages") if isinstance(meta, dict) else None
    return items, pages if isinstance(pages, int) and not isinstance(pages, bool) else None


def text_of(data: dict[str, Any], field: str) -> str:
    value = data.get(field)
    if not isinstance(value, str) or not 0 < len(value) <= 256 or not value.isprintable():
        raise TelnyxResponseInvalid
    return value


def time_of(value: Any) -> datetime | None:
    """An aware UTC time; None if it is unreadable. Telnyx sends times without a zone, and with Z and 3 or 6 digits."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.replace(":60", ":59", 1) if value[17:19] == "60" else value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
