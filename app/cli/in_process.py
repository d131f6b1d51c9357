"""The service in the process of a command: its settings, and requests to it on the ledger."""

import asyncio
import getpass
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from app.cli.output import end
from app.cli.remote import refuse_remote

if TYPE_CHECKING:
    from app.adapters.http_client import HttpResponse
    from app.cli.service_client import JsonObject
    from app.composition.components import Components
    from app.config.settings import Settings

Result = TypeVar("Result")


def settings(what: str, **given: str) -> "Settings":
    """The configuration of this machine, for the command `what`. `given` replaces variables.

    Exits with one line on standard error if the configuration is invalid, or if the options name a service elsewhere.
    """
    refuse_remote(what)
    return load_settings(**given)


def load_settings(**given: str) -> "Settings":
    """As `settings`, for commands that run the service."""
    return _load("", **given)


def _load(hint: str, /, **given: str) -> "Settings":
    from app.config.settings import Settings, SettingsError

    try:
        return Settings.load(**given)
    except SettingsError as error:
        end(f"Configuration: {error}{hint}")


def run_in_process(where: "Settings", work: Callable[["Components"], Awaitable[Result]]) -> Result:
    """Run `work` with the components of the service. Exits 1 with one line if it fails."""
    from app.vending.errors import DialtoneError

    async def opened() -> Result:
        async with _open_components(where) as components:
            return await work(components)

    try:
        return asyncio.run(opened())
    except DialtoneError as error:
        end(str(error))


@asynccontextmanager
async def open_in_process() -> AsyncIterator["LedgerTransport"]:
    """Requests to the service in this process."""
    where = _load(". To use a service on another machine, set DIALTONE_URL and DIALTONE_TOKEN_FILE.")
    async with _open_components(where) as components:
        try:
            yield LedgerTransport(components, where)
        finally:
            await components.upkeep.sweep_jobs.stop()


class LedgerTransport:
    """Sends requests to the operators' API in this process, with its components and without an access token."""

    def __init__(self, components: "Components", where: "Settings") -> None:
        from httpx import ASGITransport

        from app.api.operator_app import build_operator_app
        from app.api.schemas.client_settings import ClientSettings

        client_settings = ClientSettings(where.sip_domain, where.rtc_host, where.rtc_region)
        self._components = components
        self._http = ASGITransport(build_operator_app(components, client_settings))

    async def send(self, method: str, path: str, *, params: Mapping[str, str], body: Any) -> "HttpResponse":
        import httpx

        from app.adapters.http_client import HttpResponse

        request = httpx.Request(method, f"http://in-process{path}", params=dict(params), json=body)
        response = await self._http.handle_async_request(request)
        return HttpResponse(response.status_code, response.headers, await response.aread())

    async def advance_deletions(self) -> bool:
        return (await self._components.upkeep.sweeper.sweep()).deleted > 0

    def explain(self, status: int, problem: "JsonObject") -> str | None:
        return "`dialtone doctor` prints the reason." if problem.get("code") == "ledger_unavailable" else None


@asynccontextmanager
async def _open_components(where: "Settings") -> AsyncIterator["Components"]:
    """The components without background tasks. The actor in the audit is the shell's user."""
    from app.composition.build import build_components
    from app.observability import logging as logs
    from app.vending.audit import REQUEST_CONTEXT, RequestContext
    from app.vending.models import UserKey

    logs.silence()
    components = build_components(where)
    REQUEST_CONTEXT.set(RequestContext(actor=UserKey("shell", _person())))
    async with components.open():
        yield components


def _person() -> str:
    """The name of the shell's user, for the audit."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
