"""Requests of commands to the service: to one that runs elsewhere, or to one on the ledger in this process."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from app.cli.output import end, printable

if TYPE_CHECKING:
    from app.adapters.http_client import HttpResponse

Result = TypeVar("Result")
JsonObject = dict[str, Any]

MAX_PAGE = 100
"""Rows of one request. Every list of the service allows it."""


class RequestFailure(Exception):
    """The service did not do what was requested. The message is for the operator."""

    def __init__(
        self, message: str, *, exit_code: int = 1, code: str | None = None, is_retryable: bool = False
    ) -> None:
        """`code` is the problem's code; None if the service was not reached, or if it is not Dialtone.

        The message may contain text of the service, so control characters are escaped.
        """
        super().__init__(printable(message))
        self.exit_code = exit_code
        self.code = code
        self.is_retryable = is_retryable


class Fields(JsonObject):
    """An object of a response. The command exits with 1 if a member is missing that it needs, also for its output."""

    def __missing__(self, name: str) -> Any:
        end(f"The response has no `{name}`: the service has another version than this command, or is not Dialtone.")


class Transport(Protocol):
    """Sends requests to one service."""

    async def send(self, method: str, path: str, *, params: Mapping[str, str], body: Any) -> "HttpResponse":
        """Send one request. Raises RequestFailure if there is no response of Dialtone."""

    async def advance_deletions(self) -> bool:
        """Delete ended credentials at Telnyx, or wait while the service does. Returns whether to call it again."""

    def explain(self, status: int, problem: JsonObject) -> str | None:
        """A hint for the operator about a problem document; None if its title is sufficient."""


class Answer(NamedTuple):
    """The status of a response, and its JSON. None without a body."""

    status: int
    content: Any


class ServiceClient:
    """Requests of one command."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        """The object in the response. Parameters that are None are not sent. Raises RequestFailure."""
        answer = await self.exchange(method, path, params=params, body=body)
        if answer.content is None:
            raise _not_dialtone(f"status {answer.status}")
        return answer.content

    async def exchange(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> Answer:
        """As `request`, with the status."""
        sent = {name: str(value) for name, value in (params or {}).items() if value is not None}
        response = await self.transport.send(method, path, params=sent, body=body)
        content = _content(response)
        if response.status >= 400:
            raise self._failure(response, content)
        return Answer(response.status, content)

    async def rows(self, path: str, params: Mapping[str, Any], limit: int) -> list[JsonObject]:
        """The first `limit` rows of a list, from as many pages as necessary. Raises RequestFailure."""
        found: list[JsonObject] = []
        cursor = None
        while len(found) < limit:
            wanted = {**params, "limit": min(limit - len(found), MAX_PAGE), "cursor": cursor}
            page = await self.request("GET", path, params=wanted)
            rows = rows_of(page)
            found += rows
            cursor = page.get("next_cursor")
            if cursor is None or not rows:
                break
        return found

    def _failure(self, response: "HttpResponse", content: JsonObject) -> RequestFailure:
        code = str(content["code"])
        errors = found if isinstance(found := content.get("errors"), list) else []
        faults = [str(fault.get("message", "")) for fault in errors if isinstance(fault, dict)]
        text = " ".join([str(content.get("title", "The request failed.")), *faults])
        request_id = content.get("request_id")
        text += f" ({code}, request {request_id})" if request_id else f" ({code})"
        if (hint := self.transport.explain(response.status, content)) is not None:
            text += f" {hint}"
        if response.status in (429, 503) and (seconds := response.headers.get("retry-after")):
            text += f" Retry in {seconds} s."
        return RequestFailure(
            text,
            exit_code=2 if code == "invalid_request" else 1,
            code=code,
            is_retryable=bool(content.get("retryable")),
        )


def run(work: Callable[[ServiceClient], Awaitable[Result]], *, needs_remote: bool = False) -> Result:
    """Run `work` with a client of the service that the options name. Exits with one line if a request fails.

    Without `--url`, the service is in this process, unless `needs_remote` is true.
    """

    async def connected() -> Result:
        async with _open_transport(needs_remote=needs_remote) as transport:
            return await work(ServiceClient(transport))

    try:
        return asyncio.run(connected())
    except RequestFailure as failure:
        end(str(failure), failure.exit_code)


def rows_of(page: JsonObject) -> list[JsonObject]:
    """The rows of a list. Raises RequestFailure if they are no objects."""
    rows = page["data"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _not_dialtone("the list has no rows")
    return rows


def _open_transport(*, needs_remote: bool) -> AbstractAsyncContextManager[Transport]:
    from app.cli import remote

    if needs_remote or remote.is_selected():
        return remote.open_remote()
    from app.cli.in_process import open_in_process

    return open_in_process()


def _content(response: "HttpResponse") -> Any:
    """The JSON of a response. Raises RequestFailure if the response is not one of Dialtone."""
    media_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
    if response.status == 204 and not response.body:
        return None
    is_problem = response.status >= 400
    try:
        if media_type != ("application/problem+json" if is_problem else "application/json"):
            raise ValueError
        content = json.loads(response.body, object_hook=Fields)
        if not isinstance(content, dict) or (is_problem and "code" not in content):
            raise ValueError
    except (ValueError, RecursionError):
        seen = f"status {response.status}" + (f", {media_type}" if media_type else "")
        raise _not_dialtone(seen, is_retryable=response.status in (429, 502, 503, 504)) from None
    return content


def _not_dialtone(seen: str, *, is_retryable: bool = False) -> RequestFailure:
    return RequestFailure(
        f"The response is not one of Dialtone ({seen}). Check the address in DIALTONE_URL.", is_retryable=is_retryable
    )
