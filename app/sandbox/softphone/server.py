"""Serves the softphone page, the SDK from `node_modules`, and a directory of online devices. For development only.

The page has its own origin, so that its requests need CORS like those of a real frontend.
"""

import json
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.sandbox.softphone.backend import GuestBackend

HERE = Path(__file__).parent
CLIENT = HERE.parents[2] / "clients" / "js"
FILES = {
    "/": (HERE / "index.html", "text/html"),
    "/softphone.js": (HERE / "softphone.js", "text/javascript"),
    "/view.js": (HERE / "view.js", "text/javascript"),
    "/style.css": (HERE / "style.css", "text/css"),
    "/sdk.js": (CLIENT / "node_modules" / "@telnyx" / "webrtc" / "lib" / "bundle.mjs", "text/javascript"),
}
DIST = CLIENT / "dist"
"""The modules of `dialtone-client` that the browser loads."""

GUEST = "guest"
"""The entry of the sign-in for callers without an account."""

PRESENT_SECONDS = 6.0
"""Time after which a page without a report is offline. Pages report every two seconds."""


class Directory:
    """The SIP addresses of the demo users that are online. In production, the voice backend has this information."""

    def __init__(self) -> None:
        self._present: dict[str, tuple[str, float]] = {}

    def announce(self, user: str, sip_uri: str) -> None:
        self._present[sip_uri] = (user, time.monotonic())

    def others(self, sip_uri: str | None) -> list[dict[str, str]]:
        now = time.monotonic()
        self._present = {uri: seen for uri, seen in self._present.items() if now - seen[1] < PRESENT_SECONDS}
        return [{"user": user, "sip_uri": uri} for uri, (user, _) in self._present.items() if uri != sip_uri]


def create_page(
    *, service: str, identity: str, signalling: str, notice: str | None = None, has_guests: bool = False
) -> ASGIApp:
    """The page as an ASGI app. Its content security policy allows requests to these three URLs only.

    `has_guests`: the service accepts grants for guests, which the page's backend mints.

    `notice` says why demo users cannot sign in. The page then shows it instead of the sign-in.
    """
    directory = Directory()
    users = ["alice", "bob", "carol", *([GUEST] if has_guests else [])]
    backend = GuestBackend(service, identity)
    config = {"service": service, "identity": identity, "users": users, "notice": notice}
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
        f"connect-src 'self' {service} {identity} {signalling}; "
        f"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )

    async def file(request: Request) -> Response:
        path, media_type = FILES[request.url.path]
        if not path.exists():
            return Response("The browser client is not built. `make dev` builds it if Node 20 is installed.", 503)
        return FileResponse(path, media_type=media_type)

    async def module(request: Request) -> Response:
        path = DIST / f"{request.path_params['name']}.js"
        if path not in DIST.glob("*.js"):
            return Response(status_code=404)
        return FileResponse(path, media_type="text/javascript")

    async def show_config(_: Request) -> Response:
        return JSONResponse(config)

    async def meet(request: Request) -> Response:
        try:
            here = json.loads(await request.body())
            sip_uri, user = here["sip_uri"], here["user"]
        except (ValueError, TypeError, KeyError):
            return Response(status_code=400)
        if sip_uri and user in users:
            directory.announce(str(user), str(sip_uri))
        return JSONResponse(directory.others(sip_uri))

    app = Starlette(
        routes=[
            *(Route(path, file, methods=["GET"]) for path in FILES),
            Route("/dialtone-client/{name}.js", module, methods=["GET"]),
            Route("/config.json", show_config, methods=["GET"]),
            Route("/directory", meet, methods=["POST"]),
            *([Route("/grant", backend.mint_grant, methods=["POST"])] if has_guests else []),
        ]
    )

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = policy
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cache-Control"] = "no-cache"
            await send(message)

        await app(scope, receive, with_headers)

    return guarded
