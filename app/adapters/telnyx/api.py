"""One call to Telnyx: within a total deadline, retried where that is safe, its failure told apart."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from app.adapters.http_client import Answer, NoAnswer, NotSent, Outbound
from app.adapters.telnyx.call_scheduler import Guard, Turn
from app.adapters.telnyx.responses import error_codes, page_of
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

CALL_SECONDS = 5.0
"""Total deadline of one operation, retries included."""

MAX_ANSWER_BYTES = 2 * 1024 * 1024
"""A page of 250 credentials is about 150 KB."""

MAX_PAGES = 4000
"""A list that goes on beyond a million credentials is taken for a server that repeats itself."""

ATTEMPTS = 3
"""Tries of a read or a delete. A create, an update and a mint are sent once."""

QUEUE_SHARE = 0.5
"""The part of what is left of a deadline that may be spent in the queue; the call itself needs the rest."""

FIRST_PAUSE_SECONDS = 0.2

MAX_RETRY_AFTER_SECONDS = 60.0
"""A wait that Telnyx asks for is believed up to this; anything odd counts as one second."""

_log = structlog.get_logger("dialtone.telnyx")


def _no_span(name: str, kind: str) -> AbstractContextManager[Callable[[str, str], None]]:
    return nullcontext(lambda attribute, value: None)


@dataclass(frozen=True, slots=True)
class LastError:
    """What went wrong with Telnyx the last time."""

    at: datetime
    operation: str
    error: str
    """The name of our error."""


class TelnyxApi:
    """The transport that every operation shares: one key, one pool. Raises CarrierError."""

    def __init__(
        self,
        outbound: Outbound,
        *,
        base_url: str,
        api_key: str,
        call_seconds: float = CALL_SECONDS,
        count: Callable[[str, str, float], None] = lambda operation, outcome, seconds: None,
        span: Callable[..., AbstractContextManager[Callable[[str, str], None]]] = _no_span,
    ) -> None:
        """`count` hears of every call that was sent: the operation, `ok` or our error's name, and the seconds."""
        self._count = count
        self._span = span
        self.last_error: LastError | None = None
        self._outbound = outbound
        self._base_url = base_url.rstrip("/")
        self._call_seconds = call_seconds
        self.guard = Guard(time.monotonic, call_seconds * QUEUE_SHARE)
        self.use_key(api_key)

    def use_key(self, api_key: str) -> None:
        """The key of every call from now on."""
        self._headers = self._outbound.headers({"Authorization": f"Bearer {api_key}", "Accept": "application/json"})

    async def items(self, path: str, filters: dict[str, str], page_size: int) -> AsyncIterator[dict[str, Any]]:
        """Every item of a list, page after page, as they come."""
        for number in range(1, MAX_PAGES + 1):
            params = {**filters, "page[size]": str(page_size), "page[number]": str(number)}
            found, pages = page_of(await self.send("GET", path, params=params, attempts=ATTEMPTS))
            for item in found:
                yield item
            if not found or (number >= pages if pages is not None else len(found) < page_size):
                return
        raise CarrierUnreadable

    async def send(self, method: str, path: str, *, attempts: int = 1, **content: Any) -> Answer:
        """An answer of status 2xx within the total deadline, or the error that the last try ended with."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._call_seconds
        for attempt in range(1, attempts + 1):
            async with self.guard.turn((deadline - loop.time()) * QUEUE_SHARE) as turn:
                try:
                    return await self._counted(turn, method, path, deadline - loop.time(), **content)
                except (CarrierFailed, CarrierUnreachable, CarrierUnreadable):
                    pause = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * (0.5 + random.random())  # noqa: S311 - jitter
                    if attempt == attempts or loop.time() + pause >= deadline:
                        raise
            await asyncio.sleep(pause)
        raise AssertionError("attempts is at least 1")

    async def _counted(self, turn: Turn, method: str, path: str, seconds: float, **content: Any) -> Answer:
        began, outcome, operation = time.monotonic(), "abandoned", _operation(method, path)
        with self._span(f"Telnyx {operation}", "client") as note:
            try:
                answer = await self._send_once(turn, method, path, seconds, **content)
                outcome = "ok"
            except CarrierError as error:
                outcome = type(error).__name__
                self.last_error = LastError(datetime.now(UTC), operation, outcome)
                raise
            finally:
                note("dialtone.outcome", outcome)
                self._count(operation, outcome, time.monotonic() - began)
        return answer

    async def _send_once(self, turn: Turn, method: str, path: str, seconds: float, **content: Any) -> Answer:
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
            turn.failed()
            _log.warning("telnyx_unreachable", method=method, cause=str(error))
            raise CarrierUnreachable(may_have_happened=False) from None
        except NoAnswer as error:
            turn.failed()
            _log.warning("telnyx_no_answer", method=method, cause=str(error))
            raise CarrierUnreachable(may_have_happened=True) from None
        turn.answered(answer.status, answer.headers)
        if 200 <= answer.status < 300:
            return answer
        refusal = _refusal(answer)
        _log.warning(
            "telnyx_error",
            method=method,
            status=answer.status,
            codes=error_codes(answer.body),
            error=type(refusal).__name__,
        )
        raise refusal


def _operation(method: str, path: str) -> str:
    """`POST /telephony_credentials/{id}/token`: what is done, without to which."""
    parts = path.split("?", 1)[0].strip("/").split("/")
    return f"{method} /" + "/".join("{id}" if number == 1 else part for number, part in enumerate(parts))


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
