"""create_app(settings): the ASGI app, its layers and lifespan."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from app import __version__
from app.api import (
    admin,
    admin_leases,
    admin_service,
    backchannel,
    documentation,
    handlers,
    health,
    ops,
    push,
    telephony,
)
from app.api.at_hand import AtHand
from app.api.body import Body
from app.api.gate import BearerGate
from app.api.health import Condition, IdentityProbe, Probe, Readiness, TelnyxProbe
from app.api.layers import Caps, Catch, Edge, Origins, Tell, telling
from app.api.presenting import Presenter
from app.api.turnstile import Turnstile, turned_away
from app.observability import logging as logs
from app.parts import Outside, Parts
from app.server import Door, DrainingServer, Reloading
from app.settings import Settings
from app.vending.errors import LedgerUnavailable
from app.wiring import join

EXPOSED_HEADERS = (
    "X-Request-ID",
    "Retry-After",
    "WWW-Authenticate",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)
PREFLIGHT_SECONDS = 600
NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,  # would record the texts of exceptions and of refused input
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI's own instrumentation is off: it is not ours to say what of a request may leave the process."""


def create_app(settings: Settings | None = None, outside: Outside | None = None) -> ASGIApp:
    """The service as one ASGI app. Settings come from the environment unless given."""
    settings = settings or Settings.load()
    return assemble(settings, join(settings, outside))[0]


def serve(settings: Settings) -> None:
    """Listen until told to stop. Raises SystemExit if the port is taken."""
    parts = join(settings)
    door, app, readiness = house(settings, parts)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        http=door,  # type: ignore[arg-type]  # anything that makes protocols will do
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=settings.grace_seconds,
    )
    with logs.unblocking():
        DrainingServer(config, door, readiness, settings.drain_seconds, Reloading(settings, parts)).run()


def house(settings: Settings, parts: Parts) -> tuple[Door, ASGIApp, Readiness]:
    """The app, and the door in front of it, which asks the shortcut first."""
    door = Door(lambda: parts.issuer.under_way)
    app, readiness = assemble(settings, parts, lambda: door.is_crowded)
    if parts.spans is None and settings.redis_url is None and not settings.audit_required:
        door.shortcut = app  # no trace to begin, no shared counter and no row to wait for
    return door, app, readiness


def openapi_document() -> dict[str, Any]:
    """The HTTP contract of this version, whatever the configuration."""
    settings = Settings.load(
        _env_file=None,
        telnyx_api_key="none",
        telnyx_connection_id="0",
        issuer="https://issuer.example.com",
        audience="dialtone",
    )
    parts = join(settings)
    return documentation.document(_framework(settings, parts, _readiness(parts)))


def assemble(
    settings: Settings, parts: Parts, is_crowded: Callable[[], bool] = lambda: False
) -> tuple[AtHand, Readiness]:
    """AtHand, Turnstile, Edge, Origins (CORS), Catch, Caps, gate, Body, FastAPI."""
    # Here and not in the command only: whoever serves this app gets logs that hold no secrets.
    logs.configure(settings.log_level, as_json=_wants_json(settings))
    readiness = _readiness(parts)
    presenter = Presenter(settings.sip_domain, settings.rtc_host, settings.rtc_region)
    framework = _framework(settings, parts, readiness)
    framework.state.presenter = presenter
    app: ASGIApp = Caps(BearerGate(Body(framework), parts.verifier, parts.limiter, parts.audit))
    tell = telling(parts.traffic.request)
    inside, refusal = (_edge(settings, parts, is_crowded, tell, inner) for inner in (Catch(app), turned_away))
    at_hand = AtHand(
        Turnstile(inside, refusal),
        telephony.ISSUE.path,
        verifier=parts.verifier,
        limiter=parts.limiter,
        issuer=parts.issuer,
        presenter=presenter,
        tell=tell,
        clock=parts.clock,
    )
    return at_hand, readiness


def _edge(settings: Settings, parts: Parts, is_crowded: Callable[[], bool], tell: Tell, app: ASGIApp) -> ASGIApp:
    """What every answer carries."""
    own_headers: tuple[tuple[bytes, bytes], ...] = ()
    if settings.cors_origins:
        own_headers += ((b"vary", b"Origin"),)
        cors = CORSMiddleware(
            app,
            allow_origins=sorted(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=EXPOSED_HEADERS,
            max_age=PREFLIGHT_SECONDS,
        )
        app = Origins(app, cors)
    if settings.is_sandboxed:
        own_headers += ((b"x-dialtone-sandbox", b"true"),)
    return Edge(app, own_headers, tell, is_crowded, parts.spans)


def _wants_json(settings: Settings) -> bool:
    return settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())


def _framework(settings: Settings, parts: Parts, readiness: Readiness) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        log = structlog.get_logger("dialtone")
        log.info("started", version=__version__, namespace=settings.namespace)
        if settings.is_sandboxed:
            log.warning("sandbox", note="TELNYX_BASE_URL is this machine: credentials made here ring nowhere")
        async with parts.running():
            try:
                await parts.check_ledger()
            except LedgerUnavailable:
                log.warning("ledger_not_ready", hint="is the database reachable, and did `dialtone migrate` run?")
            yield
            readiness.is_draining = True
        log.info("stopped")

    framework = FastAPI(
        title="Dialtone",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    framework.state.parts = parts
    handlers.install(framework, parts.audit)
    framework.include_router(telephony.router)
    framework.include_router(push.router)
    framework.include_router(backchannel.router)
    framework.include_router(admin.router)
    framework.include_router(admin_leases.router)
    framework.include_router(admin_service.router)
    framework.include_router(health.router(readiness, parts.metrics))
    if settings.docs:
        framework.include_router(documentation.docs_router(framework))
    if settings.ops_page:
        framework.include_router(ops.router())
    return framework


def _readiness(parts: Parts) -> Readiness:
    async def ledger() -> Condition:
        await parts.check_ledger()
        return Condition.OK

    return Readiness(
        {
            "ledger": Probe(ledger, fresh_seconds=2),
            "identity": Probe(IdentityProbe(parts.verifier.issuers, parts.verifier.missing_keys), fresh_seconds=5),
            "telnyx": Probe(TelnyxProbe(parts.check_telnyx), fresh_seconds=60),
        }
    )
