"""Sweeps on demand: start one, read its report."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.api.dependencies import ComponentsDep
from app.api.openapi import problems_of
from app.api.schemas.sweeps import SweepRequest, SweepRun

RunId = Annotated[str, Path(pattern=r"^[0-9A-Za-z]{1,64}$", description="The `id` of the sweep.")]

router = APIRouter()


@router.post(
    "/sweeps",
    status_code=202,
    summary="Clean up now",
    responses={
        202: {"description": "Begun; `look_at` says where its outcome will be."},
        **problems_of("invalid_request", "refused", "ledger_unavailable"),
    },
)
async def sweep(wanted: SweepRequest, components: ComponentsDep, response: Response) -> SweepRun:
    """What has ended, what a crash left, and orphans at Telnyx. A dry run first: it only says what would be done."""
    run = SweepRun.of(await components.upkeep.sweep_jobs.start(dry_run=wanted.dry_run, is_sure=wanted.sure))
    response.headers["Location"] = run.look_at
    return run


@router.get(
    "/sweeps/{id}",
    summary="What came of a sweep",
    responses=problems_of("invalid_request", "refused", "sweep_not_found", "ledger_unavailable"),
)
async def show(
    id: RunId,  # noqa: A002 - the name in the contract
    components: ComponentsDep,
) -> SweepRun:
    return SweepRun.of(await components.upkeep.sweep_jobs.show(id))
