"""`/livez`, `/readyz`, `/metrics` and `/version`: for orchestrators, load balancers and monitoring."""

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, PlainTextResponse, Response

from app import __version__
from app.api.openapi_responses import HEALTH, problems_of
from app.api.readiness import Readiness
from app.api.schemas.health import Liveness, ReadinessReport, Version
from app.observability.metrics import Metrics

_PROBLEMS = problems_of(common=HEALTH)


def router(readiness: Readiness, metrics: Metrics | None) -> APIRouter:
    """Without `metrics`, `/metrics` does not exist."""
    routes = APIRouter(tags=["Health"])

    @routes.get("/livez", summary="Check that the process is alive", responses=_PROBLEMS)
    async def get_liveness() -> Liveness:
        """Returns 200 while the process runs. Checks no dependency."""
        return Liveness()

    @routes.get(
        "/readyz",
        summary="Check that the replica is ready",
        response_model=ReadinessReport,
        responses={
            **_PROBLEMS,
            503: {
                "model": ReadinessReport,
                "description": "Not ready. `checks` names the dependency that has failed.",
                "headers": {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}},
            },
        },
    )
    async def get_readiness(request: Request) -> Response:
        """For each dependency: `ok`, `degraded` (devices that have a login keep working) or `failed`."""
        is_ready, checks = await readiness.check()
        status = "ready" if is_ready else "draining" if readiness.is_draining else "not ready"
        headers = {} if is_ready else {"Retry-After": "1"}
        return JSONResponse({"status": status, "checks": checks}, 200 if is_ready else 503, headers)

    if metrics is not None:
        _add_metrics(routes, metrics)

    @routes.get("/version", summary="Get the version", responses=_PROBLEMS)
    async def get_version() -> Version:
        """The version of the running service."""
        return Version(version=__version__)

    for route in list(routes.routes):
        if isinstance(route, APIRoute):  # monitoring often sends HEAD; the server leaves the body out
            routes.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)
    return routes


def _add_metrics(routes: APIRouter, metrics: Metrics) -> None:
    @routes.get("/metrics", summary="Get the metrics", response_class=PlainTextResponse, responses=_PROBLEMS)
    async def get_metrics(request: Request) -> Response:
        """The metrics of this replica, with all its workers.

        In the text format of Prometheus, or of OpenMetrics if `Accept` requests it.
        """
        text, media_type = await metrics.exposition(request.headers.get("accept", ""))
        return Response(text, media_type=media_type)
