"""The operators' page at `/ops`: static files of this package. The page gets its data from the admin API."""

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

HERE = Path(__file__).parent
FILES = {"ops.js": "text/javascript", "style.css": "text/css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/ops")
    async def page() -> Response:
        return FileResponse(HERE / "index.html", headers={"Content-Security-Policy": POLICY}, media_type="text/html")

    @routes.get("/ops/{name}")
    async def file(name: str) -> Response:
        if name not in FILES:
            return Response(status_code=404)
        return FileResponse(HERE / name, media_type=FILES[name])

    return routes
