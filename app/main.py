"""create_app(): the ASGI app with its routers, middleware and lifespan; and serve(), which runs it."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import structlog
from fastapi import FastAPI
from opentelemetry.trace import Tracer
from starlette.types import ASGIApp

from app import __version__
from app.api import openapi
from app.api.fastapi_app import build_fastapi
from app.api.middleware.auth import BearerAuthMiddleware
from app.api.middleware.body import BodyLimitsMiddleware
from app.api.middleware.context import AccessLog, RequestContextMiddleware, build_access_log
from app.api.middleware.cors import OriginAwareCORSMiddleware
from app.api.middleware.errors import UnhandledErrorMiddleware
from app.api.middleware.limits import HeaderLimitsMiddleware
from app.api.middleware.load_shedding import LoadSheddingMiddleware, reject_overload
from app.api.readiness import CheckStatus, IdentityCheck, Readiness, ReadinessCheck, TelnyxCheck
from app.api.request_scope import HEALTH_PATHS, PROBE_PATHS
from app.api.routes import admin, backchannel_logout, docs, grants, health, ops, push_credentials, telephony_credentials
from app.api.schemas.client_settings import ClientSettings
from app.composition.build import build_components
from app.composition.components import Components, Overrides
from app.config.listeners import UNIX
from app.config.settings import Settings, SettingsError, variable_of
from app.config.variables import Variables
from app.observability import logging as logs
from app.serving import server
from app.serving.admission import ConnectionLimiter
from app.serving.fast_path import FastPath, ResponseHeads
from app.serving.listening import ListeningSockets, ListenOptions
from app.serving.responses import Rejections
from app.serving.server import Listener, ServerOptions
from app.serving.uvicorn_protocol import FrontedApp
from app.serving.workers import Supervisor, WorkerLink
from app.vending.errors import LedgerUnavailable

MAX_ADMIN_CONNECTIONS = 256
"""Open connections of the admin listener: operators, monitoring and probes."""

MAX_ADMIN_REQUESTS = 64
"""Requests of the admin listener that the app has at a time."""


def create_app(settings: Settings | None = None, overrides: Overrides | None = None) -> ASGIApp:
    """The service as one ASGI app. Settings come from the environment unless given."""
    settings = settings or Settings.load()
    return build_app(settings, build_components(settings, overrides))[0]


def serve(settings: Settings, workers: int = 1) -> None:
    """Run the service until SIGTERM or SIGINT. Raises SystemExit if an address is not available."""
    logs.configure(settings.log_level, as_json=_wants_json(settings))
    with ExitStack() as stack:
        sockets = [ListeningSockets(_listen_options(settings, settings.host, settings.port, "host"))]
        stack.callback(sockets[0].close)
        if settings.admin_hosts:
            at = _listen_options(settings, settings.admin_hosts, settings.admin_port or 0, "admin_host")
            sockets.append(ListeningSockets(at))
            stack.callback(sockets[1].close)
        if workers == 1:
            run_replica(settings, sockets)
        else:
            Supervisor(workers, partial(run_replica, settings, sockets), sockets, settings.drain_seconds).run()


def run_replica(settings: Settings, sockets: Sequence[ListeningSockets], worker: WorkerLink | None = None) -> None:
    """Run the service in this process. The sockets are those of the public and, if any, of the admin listener."""
    components = build_components(settings)
    if worker is not None:
        components.metrics.join_workers(worker.folder, worker.number, worker.workers)
    limiter, app, readiness = build_server_app(settings, components)
    listeners = [Listener(app, limiter, sockets[0], settings.root_path)]
    if len(sockets) > 1:
        admin_limiter, admin_app = build_admin_app(settings, components, readiness)
        listeners.append(Listener(admin_app, admin_limiter, sockets[1]))
    options = ServerOptions(
        trusted_proxies=settings.trusted_peers,
        drain_seconds=settings.drain_seconds,
        keep_alive_seconds=settings.keep_alive_seconds,
        shutdown_timeout_seconds=settings.shutdown_timeout_seconds,
    )
    server.run(listeners, readiness, options, lambda: reload_settings(settings, components), worker)


def _listen_options(settings: Settings, hosts: tuple[str, ...], port: int, setting: str) -> ListenOptions:
    return ListenOptions(
        hosts=tuple(host.removeprefix(UNIX) for host in hosts),
        port=port,
        socket_mode=int(settings.socket_mode, 8),
        setting=variable_of(setting),
    )


async def reload_settings(settings: Settings, components: Components) -> None:
    """Read the settings' sources again and apply them. If anything in them is wrong, nothing changes."""
    try:
        changed = settings.reread()
        log_warnings(changed)
        await components.reload(changed)
    except SettingsError as error:
        reason = str(error)
        structlog.get_logger("dialtone").error("reload_rejected", reason=reason, note="nothing was changed")


def log_warnings(settings: Settings) -> None:
    """Log the settings that are valid but probably wrong. Raises SettingsError."""
    for warning in settings.warnings():
        structlog.get_logger("dialtone").warning(
            "doubtful_setting", setting=warning.place, reason=warning.seen, fix=warning.fix
        )


def build_server_app(settings: Settings, components: Components) -> tuple[ConnectionLimiter, ASGIApp, Readiness]:
    """The public listener's app, the connection limiter in front of it, and the readiness of the replica.

    The limiter asks the fast path first.
    """
    app, readiness = build_app(settings, components)
    access_log = build_access_log(components.telemetry.events.request)
    heads = ResponseHeads(lambda app: _with_common_headers(app, settings))
    limiter = ConnectionLimiter(
        lambda: components.telephony.issuer.in_flight,
        Rejections(heads.lines, access_log),
        health_paths=_health_paths(settings),
    )
    if not settings.audit_required:  # no audit row to wait for
        limiter.fast_path = FastPath(
            telephony_credentials.ISSUE.path,
            settings.root_path,
            verifier=components.identity.verifier,
            limiter=components.rate_limiter,
            issuer=components.telephony.issuer,
            audit=components.audit,
            heads=heads,
            client_settings=_client_settings(settings),
            access_log=access_log,
            tracer=components.telemetry.tracer,
            clock=components.clock,
        )
    return limiter, FrontedApp(app), readiness


def build_admin_app(
    settings: Settings, components: Components, readiness: Readiness
) -> tuple[ConnectionLimiter, ASGIApp]:
    """The admin listener's app, which serves every path, and its own connection limiter."""
    access_log = build_access_log(components.telemetry.events.request)
    heads = ResponseHeads(lambda app: _with_common_headers(app, settings))
    limiter = ConnectionLimiter(
        lambda: 0,
        Rejections(heads.lines, access_log),
        max_requests=MAX_ADMIN_REQUESTS,
        max_connections=MAX_ADMIN_CONNECTIONS,
    )
    app = _fastapi(settings, components, readiness, _client_settings(settings))
    return limiter, FrontedApp(_middleware(app, settings, components, HEALTH_PATHS))


def openapi_document(api: openapi.Api | None = None) -> dict[str, Any]:
    """The HTTP contract of this version, or of one half of it. It does not depend on the configuration."""
    settings = Settings.load(
        Variables({}, {}, ""),
        telnyx_api_key="none",
        telnyx_connection_id="0",
        issuer="https://issuer.example.com",
        audience="dialtone",
    )
    components = build_components(settings)
    app = _fastapi(settings, components, _readiness(components), ClientSettings(settings.sip_domain))
    return openapi.document(app, api)


def build_app(settings: Settings, components: Components) -> tuple[ASGIApp, Readiness]:
    """The public listener's app. Without an admin listener, it has the operators' routes too."""
    # Configured here and not in the command, so that logs are redacted under every server.
    logs.configure(settings.log_level, as_json=_wants_json(settings))
    readiness = _readiness(components)
    has_operator_routes = not settings.admin_hosts
    app = _fastapi(settings, components, readiness, _client_settings(settings), has_operator_routes=has_operator_routes)
    return _middleware(app, settings, components, _health_paths(settings)), readiness


def _health_paths(settings: Settings) -> tuple[str, ...]:
    """The public listener's paths that bypass its queues."""
    return PROBE_PATHS if settings.admin_hosts else HEALTH_PATHS


def _middleware(app: ASGIApp, settings: Settings, components: Components, health_paths: tuple[str, ...]) -> ASGIApp:
    """The middleware of a listener, outside in, around its FastAPI app."""
    access_log = build_access_log(components.telemetry.events.request)
    app = BearerAuthMiddleware(
        BodyLimitsMiddleware(app),
        components.identity.verifier,
        components.rate_limiter,
        components.audit,
        settings.cors_origins,
    )
    app = UnhandledErrorMiddleware(HeaderLimitsMiddleware(app))
    accepted, rejected = (
        _with_common_headers(app, settings, access_log, components.telemetry.tracer) for app in (app, reject_overload)
    )
    return LoadSheddingMiddleware(accepted, rejected, health_paths=health_paths)


def _with_common_headers(
    app: ASGIApp, settings: Settings, access_log: AccessLog = lambda *_: None, tracer: Tracer | None = None
) -> ASGIApp:
    """The middleware that adds the headers of every response of this deployment."""
    vary = ((b"vary", b"Origin"),) if settings.cors_origins else ()
    sandbox = ((b"x-dialtone-sandbox", b"true"),) if settings.is_sandboxed else ()
    if settings.cors_origins:
        app = OriginAwareCORSMiddleware(app, settings.cors_origins, settings.cors_headers)
    return RequestContextMiddleware(app, vary + sandbox, access_log, tracer)


def _client_settings(settings: Settings) -> ClientSettings:
    return ClientSettings(settings.sip_domain, settings.rtc_host, settings.rtc_region)


def _wants_json(settings: Settings) -> bool:
    return settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())


def _fastapi(
    settings: Settings,
    components: Components,
    readiness: Readiness,
    client_settings: ClientSettings,
    *,
    has_operator_routes: bool = True,
) -> FastAPI:
    """Without operator routes, their paths are unknown paths."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        log = structlog.get_logger("dialtone")
        log.info("started", version=__version__, namespace=settings.namespace)
        log_warnings(settings)
        components.identity.key_sets.log_plain_http()
        if settings.is_sandboxed:
            log.warning("sandbox", note="TELNYX_BASE_URL is on this machine: these credentials cannot make real calls")
        async with components.run(), components.metrics.workers or nullcontext():
            try:
                await components.ledger.check()
            except LedgerUnavailable:
                log.warning("ledger_not_ready", hint="Is the database reachable? Has `dialtone migrate` run?")
            yield
            readiness.is_draining = True
        log.info("stopped")

    app = build_fastapi(components, client_settings, lifespan)
    app.include_router(telephony_credentials.router)
    app.include_router(health.router(readiness, components.metrics if has_operator_routes else None))
    app.include_router(push_credentials.router)
    app.include_router(grants.router)
    app.include_router(backchannel_logout.router)
    if has_operator_routes:
        app.include_router(admin.router)
    if has_operator_routes and settings.docs:
        app.include_router(docs.router(app, components.identity.sign_in))
    if has_operator_routes and settings.ops_page:
        app.include_router(ops.router(components.identity.sign_in))
    return app


def _readiness(components: Components) -> Readiness:
    async def ledger() -> CheckStatus:
        await components.ledger.check()
        return CheckStatus.OK

    return Readiness(
        {
            "ledger": ReadinessCheck(ledger, fresh_seconds=2),
            "identity": ReadinessCheck(
                IdentityCheck(components.identity.verifier.issuers, components.identity.verifier.missing_keys),
                fresh_seconds=5,
            ),
            "telnyx": ReadinessCheck(TelnyxCheck(components.telnyx.check), fresh_seconds=60),
        }
    )
