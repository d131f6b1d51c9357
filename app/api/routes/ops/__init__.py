"""The operators' page at `/ops`: static files of this package. The page gets its data from the admin API."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.responses import FileResponse, JSONResponse, Response

from app.vending.errors import IdentityUnavailable
from app.vending.operators.sign_in import SignIn, SignInSource

HERE = Path(__file__).parent
FILES = {"style.css": "text/css"} | {path.name: "text/javascript" for path in HERE.glob("*.js")}
HEADERS = {"Referrer-Policy": "no-referrer"}
"""After a sign-in, the URL of the page contains the provider's code until the page has read it."""


def router(sign_in: SignInSource) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/ops")
    async def page() -> Response:
        policy = {"Content-Security-Policy": _policy(await available_sign_in(sign_in))}
        return FileResponse(HERE / "index.html", headers=HEADERS | policy, media_type="text/html")

    @routes.get("/ops/sign-in.json")
    async def sign_in_settings() -> Response:
        """The settings of the page's sign-in. They contain no secret: the client has none."""
        return JSONResponse(_settings(sign_in, await available_sign_in(sign_in)))

    @routes.get("/ops/{name}")
    async def file(name: str) -> Response:
        if name not in FILES:
            return Response(status_code=404)
        return FileResponse(HERE / name, media_type=FILES[name])

    return routes


async def available_sign_in(sign_in: SignInSource) -> SignIn | None:
    """None if operators cannot sign in now, because it is not configured or the provider is unavailable."""
    try:
        return await sign_in.current()
    except IdentityUnavailable:
        return None


def _policy(found: SignIn | None) -> str:
    """The page may connect to this service, and to the provider's token endpoint."""
    token_endpoint = "" if found is None else f" {found.token_endpoint}"
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'{token_endpoint}; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def _settings(sign_in: SignInSource, found: SignIn | None) -> dict[str, Any]:
    if found is None:
        return {"status": "not_configured" if sign_in.client is None else "unavailable"}
    client = found.client
    return {
        "status": "available",
        "issuer": client.issuer,
        "client_id": client.client_id,
        "scope": " ".join(client.scopes),
        "audience": client.audience,
        "token": "id_token" if client.uses_id_token else "access_token",
        "authorization_endpoint": found.authorization_endpoint,
        "token_endpoint": found.token_endpoint,
        "end_session_endpoint": found.end_session_endpoint,
    }
