"""FastAPI apps without routes, for the listeners of the service and for commands."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from app import __version__
from app.api import exception_handlers, openapi
from app.api.schemas.client_settings import ClientSettings
from app.composition.components import Components

NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,  # would record the texts of exceptions and of rejected input
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI's own instrumentation is off: Dialtone decides what of a request may leave the process."""


def build_fastapi(
    components: Components,
    client_settings: ClientSettings,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    """An app whose routes get the components, and whose errors are problem documents."""
    app = FastAPI(
        title="Dialtone",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        generate_unique_id_function=openapi.operation_id,
    )
    app.state.components = components
    app.state.client_settings = client_settings
    exception_handlers.install(app, components.audit)
    return app
