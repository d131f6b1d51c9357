"""Operators' calls on the service itself: what was decided, how it stands, clean it up."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from app.api.dependencies import WithParts, only_operators
from app.api.documentation import problems_of
from app.api.presenting import decode_cursor, encode_cursor
from app.api.service_schemas import (
    Activity,
    ActivityMinute,
    AuditPage,
    AuditQuery,
    AuditRecord,
    State,
    SweepRequest,
    SweepRun,
)

router = APIRouter(prefix="/v1/admin", tags=["Operators"], dependencies=[Depends(only_operators)])

RunId = Annotated[str, Path(pattern=r"^[0-9A-Za-z]{1,64}$", description="The `id` of the sweep.")]


@router.get(
    "/audit",
    summary="What was decided",
    responses=problems_of("invalid_request", "invalid_cursor", "refused", "ledger_unavailable"),
)
async def audit(wanted: Annotated[AuditQuery, Query()], parts: WithParts) -> AuditPage:
    """Newest first. An event is in the ledger within a second of its decision."""
    after = decode_cursor(wanted.cursor) if wanted.cursor else None
    events = await parts.oversight.audit(wanted.criteria(), after, wanted.limit + 1)
    shown = events[: wanted.limit]
    return AuditPage(
        data=[AuditRecord.of(event) for event in shown],
        next_cursor=encode_cursor(shown[-1].at, shown[-1].id) if len(events) > wanted.limit else None,
    )


@router.get(
    "/activity",
    summary="How much was decided",
    responses=problems_of("invalid_request", "refused", "ledger_unavailable"),
)
async def activity(parts: WithParts, minutes: Annotated[int, Query(ge=1, le=1440)] = 60) -> Activity:
    counted = await parts.oversight.activity(timedelta(minutes=minutes))
    return Activity(data=[ActivityMinute.of(minute) for minute in counted])


@router.get("/state", summary="How the service stands", responses=problems_of("refused"))
async def state(parts: WithParts) -> State:
    return State.of(parts)


@router.post(
    "/sweeps",
    status_code=202,
    summary="Clean up now",
    responses={
        202: {"description": "Begun; `look_at` says where its outcome will be."},
        **problems_of("invalid_request", "refused", "ledger_unavailable"),
    },
)
async def sweep(wanted: SweepRequest, parts: WithParts, response: Response) -> SweepRun:
    """What has ended, what a crash left, and orphans at Telnyx. A dry run first: it only says what would be done."""
    run = SweepRun.of(await parts.cleaner.start(dry_run=wanted.dry_run, is_sure=wanted.sure))
    response.headers["Location"] = run.look_at
    return run


@router.get(
    "/sweeps/{id}",
    summary="What came of a sweep",
    responses=problems_of("invalid_request", "refused", "sweep_not_found", "ledger_unavailable"),
)
async def show(
    id: RunId,  # noqa: A002 - the name in the contract
    parts: WithParts,
) -> SweepRun:
    return SweepRun.of(await parts.cleaner.show(id))
