"""The audit: recorded decisions, and their number per minute."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from app.api.dependencies import ComponentsDep
from app.api.openapi import problems_of
from app.api.pagination import decode_cursor, encode_cursor
from app.api.schemas.audit import Activity, ActivityMinute, AuditPage, AuditQuery, AuditRecord

router = APIRouter()


@router.get(
    "/audit",
    summary="What was decided",
    responses=problems_of("invalid_request", "invalid_cursor", "refused", "ledger_unavailable"),
)
async def audit(wanted: Annotated[AuditQuery, Query()], components: ComponentsDep) -> AuditPage:
    """Newest first. An event is in the ledger within a second of its decision."""
    after = decode_cursor(wanted.cursor) if wanted.cursor else None
    events = await components.operators.leases.audit(wanted.criteria(), after, wanted.limit + 1)
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
async def activity(components: ComponentsDep, minutes: Annotated[int, Query(ge=1, le=1440)] = 60) -> Activity:
    counted = await components.operators.leases.activity(timedelta(minutes=minutes))
    return Activity(data=[ActivityMinute.of(minute) for minute in counted])
