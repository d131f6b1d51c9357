"""Reading Telnyx's answers: leniently in form, strictly in what we need."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from app.adapters.http_client import HttpResponse
from app.vending.errors import TelnyxResponseInvalid

_ERROR_CODE = re.compile(r"\d{1,6}\Z")


def error_codes(body: bytes) -> list[str]:
    """Telnyx's numeric error codes, for the log. No other text of the answer goes there."""
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
    """The items, and how many pages there are, if it says."""
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
    """Aware UTC. Telnyx's samples come without a zone, with Z and 3 digits, and with Z and 6."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.replace(":60", ":59", 1) if value[17:19] == "60" else value)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
