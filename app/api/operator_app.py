"""The operators' API for commands: no listener serves it, and the caller is the user of the shell."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.fastapi_app import build_fastapi
from app.api.request_scope import REQUEST_ID, VISIBILITY
from app.api.routes import admin
from app.api.schemas.client_settings import ClientSettings
from app.composition.components import Components
from app.vending.visibility import ALL_ISSUERS


def build_operator_app(components: Components, client_settings: ClientSettings) -> ASGIApp:
    """The routes below /v1/admin without authentication: a user with the settings has all rights of the service."""
    app = build_fastapi(components, client_settings)
    for resource in admin.RESOURCES:
        app.include_router(resource.router, prefix=admin.PREFIX)

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        # No log has this request, so it has no id to ask for.
        await app({**scope, REQUEST_ID: "", VISIBILITY: ALL_ISSUERS}, receive, send)

    return handle
