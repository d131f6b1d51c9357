"""Sweeps: start one, and get its report."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.api.dependencies import GlobalComponentsDep
from app.api.openapi_responses import problems_of
from app.api.schemas.fields import ResourceId
from app.api.schemas.sweeps import SweepRequest, SweepRun
from app.api.strict_route import StrictRoute

SweepId = Annotated[ResourceId, Path(description="The `id` of the sweep.")]

router = APIRouter(route_class=StrictRoute)


@router.post(
    "/sweeps",
    status_code=202,
    summary="Start a sweep",
    responses={
        202: {
            "description": "Started; `status_url` is the path of its report.",
            "headers": {"Location": {"$ref": "#/components/headers/Location"}},
        },
        **problems_of("invalid_request"),
    },
)
async def start_sweep(wanted: SweepRequest, components: GlobalComponentsDep, response: Response) -> SweepRun:
    """Deletes ended credentials, leftovers of a crash and orphans at Telnyx. A dry run only reports them."""
    run = SweepRun.from_run(await components.upkeep.sweep_jobs.start(dry_run=wanted.dry_run, force=wanted.force))
    response.headers["Location"] = run.status_url
    return run


@router.get("/sweeps/{id}", summary="Get a sweep", responses=problems_of("invalid_request", "sweep_not_found"))
async def get_sweep(
    id: SweepId,  # noqa: A002 - the name in the contract
    components: GlobalComponentsDep,
) -> SweepRun:
    """The state of a sweep, and its report when it is done."""
    return SweepRun.from_run(await components.upkeep.sweep_jobs.get(id))
