"""Events for webhooks: list undelivered ones, and replay dead letters."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.dependencies import GlobalComponentsDep
from app.api.openapi_responses import problems_of
from app.api.pagination import Position, fetch_page
from app.api.schemas.events import (
    DeliveryState,
    EventDelivery,
    EventPage,
    EventsQuery,
    ReplayRequest,
    ReplayResult,
)
from app.api.strict_route import StrictRoute
from app.vending.events.models import Delivery

router = APIRouter(route_class=StrictRoute)


@router.get("/events", summary="List undelivered events", responses=problems_of("invalid_request", "invalid_cursor"))
async def list_events(wanted: Annotated[EventsQuery, Query()], components: GlobalComponentsDep) -> EventPage:
    """Events that are not delivered, newest first: dead letters, or pending events."""

    async def fetch(after: Position | None, limit: int) -> list[Delivery]:
        return await components.events.admin.deliveries(
            is_dead=wanted.state is DeliveryState.DEAD, endpoint=wanted.endpoint, after=after, limit=limit
        )

    found = await fetch_page(
        fetch, lambda event: (event.at, f"{event.sequence:032x}"), limit=wanted.limit, cursor=wanted.cursor
    )
    return EventPage(data=[EventDelivery.from_delivery(event) for event in found.rows], next_cursor=found.next_cursor)


@router.post("/events/replays", summary="Replay dead letters", responses=problems_of("invalid_request"))
async def replay_events(wanted: ReplayRequest, components: GlobalComponentsDep) -> ReplayResult:
    """Delivers dead letters again, for another day. Their ids stay the same."""
    return ReplayResult.from_replay(await components.events.admin.replay(wanted.event_id, wanted.endpoint))
