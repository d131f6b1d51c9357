"""`/livez`, `/readyz` and `/version`: for the machines that look after this one."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from app import __version__
from app.api.readiness import Readiness
from app.observability.metrics import Metrics


def router(readiness: Readiness, metrics: Metrics) -> APIRouter:
    routes = APIRouter(tags=["Health"])

    @routes.get("/livez", summary="Is the process alive?")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get(
        "/readyz",
        summary="Is traffic welcome?",
        responses={
            503: {
                "description": "Not now; `checks` says which dependency is missing.",
                "model": dict[str, Any],
            }
        },
    )
    async def readyz(request: Request) -> Response:
        """Per dependency: `ok`, `degraded` (devices that have a login go on) or `failed`."""
        is_ready, checks = await readiness.look()
        status = "ready" if is_ready else "draining" if readiness.is_draining else "not ready"
        headers = {} if is_ready else {"Retry-After": "1"}
        return JSONResponse({"status": status, "checks": checks}, 200 if is_ready else 503, headers)

    @routes.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
    async def figures(request: Request) -> Response:
        text, media_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    @routes.get("/version", summary="Which version is this?")
    async def version() -> dict[str, str]:
        return {"name": "dialtone", "version": __version__}

    return routes
