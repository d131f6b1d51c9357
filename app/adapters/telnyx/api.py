"""One call to Telnyx: a total deadline, retries where they are safe, and one error class per kind of failure."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from opentelemetry.trace import NoOpTracer, SpanKind, Tracer

from app.adapters.http_client import ConnectFailed, HttpClient, HttpResponse, ResponseFailed
from app.adapters.telnyx.call_scheduler import CallScheduler, CallSlot
from app.adapters.telnyx.responses import error_codes, page_of
from app.vending.errors import (
    CredentialExpired,
    TelnyxError,
    TelnyxForbidden,
    TelnyxKeyRejected,
    TelnyxNotFound,
    TelnyxRateLimited,
    TelnyxRejected,
    TelnyxResponseInvalid,
    TelnyxServerError,
    TelnyxUnreachable,
)
from app.vending.service_status import TelnyxFailure, TelnyxStatus

CALL_SECONDS = 5.0
"""Total deadline of one operation, retries included."""

MAX_ANSWER_BYTES = 2 * 1024 * 1024
"""A page of 250 credentials is about 150 KB."""

MAX_PAGES = 4000
"""A million credentials. A longer list means that the server repeats its pages."""

ATTEMPTS = 3
"""For a read or a delete. Creates, updates and mints are sent once."""

QUEUE_SHARE = 0.5
"""The part of the remaining deadline that a call may spend in the queue. The call itself needs the rest."""

FIRST_PAUSE_SECONDS = 0.2

MAX_RETRY_AFTER_SECONDS = 60.0
"""The longest wait that Dialtone accepts from Telnyx. An invalid value counts as one second."""

_log = structlog.get_logger("dialtone.telnyx")


class TelnyxApi:
    """The transport that all operations share: one key and one connection pool. Raises TelnyxError."""

    def __init__(
        self,
        outbound: HttpClient,
        *,
        base_url: str,
        api_key: str,
        call_seconds: float = CALL_SECONDS,
        count: Callable[[str, str, float], None] = lambda operation, outcome, seconds: None,
        tracer: Tracer | None = None,
    ) -> None:
        """`count` is called after every call with the operation, `ok` or the error's class name, and the seconds."""
        self._count = count
        self._tracer = tracer or NoOpTracer()
        self.last_failure: TelnyxFailure | None = None
        self._outbound = outbound
        self._base_url = base_url.rstrip("/")
        self._call_seconds = call_seconds
        self.scheduler = CallScheduler(time.monotonic, call_seconds * QUEUE_SHARE)
        self.use_key(api_key)

    def status(self) -> TelnyxStatus:
        """The state of calls to Telnyx, of this replica."""
        return self.scheduler.status(self.last_failure)

    def use_key(self, api_key: str) -> None:
        """Use this key for all further calls."""
        self._headers = self._outbound.headers({"Authorization": f"Bearer {api_key}", "Accept": "application/json"})

    async def items(self, path: str, filters: dict[str, str], page_size: int) -> AsyncIterator[dict[str, Any]]:
        """The items of a list, page by page."""
        for number in range(1, MAX_PAGES + 1):
            params = {**filters, "page[size]": str(page_size), "page[number]": str(number)}
            found, pages = page_of(await self.send("GET", path, params=params, attempts=ATTEMPTS))
            for item in found:
                yield item
            if not found or (number >= pages if pages is not None else len(found) < page_size):
                return
        raise TelnyxResponseInvalid

    async def send(self, method: str, path: str, *, attempts: int = 1, **content: Any) -> HttpResponse:
        """A response with status 2xx within the total deadline. Otherwise raises the error of the last attempt."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._call_seconds
        for attempt in range(1, attempts + 1):
            async with self.scheduler.slot((deadline - loop.time()) * QUEUE_SHARE) as slot:
                try:
                    return await self._counted(slot, method, path, deadline - loop.time(), **content)
                except (TelnyxServerError, TelnyxUnreachable, TelnyxResponseInvalid):
                    pause = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * (0.5 + random.random())  # noqa: S311 - jitter
                    if attempt == attempts or loop.time() + pause >= deadline:
                        raise
            await asyncio.sleep(pause)
        raise AssertionError("attempts is at least 1")

    async def send_best_effort(self, method: str, path: str, seconds: float, **content: Any) -> HttpResponse:
        """As `send` with one attempt, for a look-up that must not affect logins: see `CallScheduler.best_effort_slot`.

        404 is a usual response to a look-up, so it is neither a warning in the log nor the `last_failure`.
        """
        async with self.scheduler.best_effort_slot() as slot:
            return await self._counted(slot, method, path, seconds, is_lookup=True, **content)

    async def _counted(
        self, slot: CallSlot, method: str, path: str, seconds: float, *, is_lookup: bool = False, **content: Any
    ) -> HttpResponse:
        began, outcome, operation = time.monotonic(), "abandoned", _operation(method, path)
        with self._tracer.start_as_current_span(
            f"Telnyx {operation}", kind=SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                answer = await self._send_once(slot, method, path, seconds, is_lookup=is_lookup, **content)
                outcome = "ok"
            except TelnyxError as error:
                outcome = type(error).__name__
                if not (is_lookup and isinstance(error, TelnyxNotFound)):
                    self.last_failure = TelnyxFailure(datetime.now(UTC), operation, outcome)
                raise
            finally:
                span.set_attribute("dialtone.outcome", outcome)
                self._count(operation, outcome, time.monotonic() - began)
        return answer

    async def _send_once(
        self, slot: CallSlot, method: str, path: str, seconds: float, *, is_lookup: bool, **content: Any
    ) -> HttpResponse:
        try:
            answer = await self._outbound.send(
                method,
                self._base_url + path,
                headers=self._headers,
                deadline_seconds=seconds,
                max_bytes=MAX_ANSWER_BYTES,
                **content,
            )
        except ConnectFailed as error:
            slot.failed()
            _log.warning("telnyx_unreachable", method=method, cause=str(error))
            raise TelnyxUnreachable(may_have_happened=False) from None
        except ResponseFailed as error:
            slot.failed()
            _log.warning("telnyx_no_response", method=method, cause=str(error))
            raise TelnyxUnreachable(may_have_happened=True) from None
        slot.answered(answer.status, answer.headers)
        if 200 <= answer.status < 300:
            return answer
        refusal = _error_for(answer)
        (_log.debug if is_lookup and answer.status == 404 else _log.warning)(
            "telnyx_error",
            method=method,
            status=answer.status,
            codes=error_codes(answer.body),
            error=type(refusal).__name__,
        )
        raise refusal


def _operation(method: str, path: str) -> str:
    """Method and path without the id, such as `POST /telephony_credentials/{id}/token`."""
    parts = path.split("?", 1)[0].strip("/").split("/")
    return f"{method} /" + "/".join("{id}" if number == 1 else part for number, part in enumerate(parts))


def _error_for(answer: HttpResponse) -> TelnyxError:
    """The error for a status that is not 2xx. Redirects are not followed; they count as invalid responses."""
    match answer.status:
        case 401:
            return TelnyxKeyRejected()
        case 403:
            return TelnyxForbidden()
        case 404:
            return TelnyxNotFound()
        case 429:
            return TelnyxRateLimited(retry_after_seconds=_retry_after(answer))
        case 408 | 425:
            return TelnyxServerError()
        case status if 400 <= status < 500:
            # Telnyx: {"errors": {"status": "can't update credentials in expired status"}}, here `errors` is an object
            return CredentialExpired() if b"expired status" in answer.body else TelnyxRejected()
        case status if status >= 500:
            return TelnyxServerError(retry_after_seconds=_retry_after(answer))
        case _:
            return TelnyxResponseInvalid()


def _retry_after(answer: HttpResponse) -> float:
    """Seconds to wait, from the first header with a valid value."""
    for name in ("retry-after", "x-ratelimit-reset"):
        try:
            seconds = float(answer.headers.get(name, ""))
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds > 0:
            return min(seconds, MAX_RETRY_AFTER_SECONDS)
    return 1.0
