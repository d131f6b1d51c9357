"""The audit: recorded decisions, and their number per minute."""

from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from app.api.dependencies import GlobalComponentsDep, OperatorsDep
from app.api.openapi_responses import problems_of
from app.api.pagination import fetch_page
from app.api.schemas.audit import ActivityMinute, ActivityReport, AuditPage, AuditQuery, AuditRecord
from app.api.schemas.fields import DIGITS
from app.api.strict_route import StrictRoute

router = APIRouter(route_class=StrictRoute)


@router.get("/audit", summary="List audit events", responses=problems_of("invalid_request", "invalid_cursor"))
async def list_audit_events(wanted: Annotated[AuditQuery, Query()], operators: OperatorsDep) -> AuditPage:
    """Decisions that match every given filter, newest first. An event is listed within a second of its decision."""
    found = await fetch_page(
        partial(operators.leases.audit, wanted.criteria()),
        lambda event: (event.at, event.id),
        limit=wanted.limit,
        cursor=wanted.cursor,
    )
    return AuditPage(data=[AuditRecord.from_event(event) for event in found.rows], next_cursor=found.next_cursor)


@router.get("/activity", summary="Count audit events per minute", responses=problems_of("invalid_request"))
async def get_activity(
    components: GlobalComponentsDep,
    minutes: Annotated[int, Field(ge=1, le=1440), DIGITS, Query(description="How far back to count.")] = 60,
) -> ActivityReport:
    """The number of decisions of each kind in each of the last minutes, on all replicas."""
    counted = await components.operators.leases.activity(timedelta(minutes=minutes))
    return ActivityReport(data=[ActivityMinute.from_activity(minute) for minute in counted])
