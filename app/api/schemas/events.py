"""Events for webhooks: queries, stored deliveries and replays."""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api.pagination import Cursor, Page
from app.api.schemas.fields import DIGITS, ENDPOINT, EVENT_ID, Instant, QueryParameters, StrictRequest
from app.vending.events.admin import Replay
from app.vending.events.models import Delivery

EndpointName = Annotated[str, StringConstraints(pattern=ENDPOINT)]
EventId = Annotated[str, StringConstraints(pattern=EVENT_ID)]

DELIVERY_EXAMPLE: dict[str, Any] = {
    "event_id": "019ab3f0e5d16a7b4c2d9e8f7a6b5c4d",
    "endpoint": "voice-backend",
    "type": "dialtone.lease.issued",
    "at": "2026-11-23T09:30:00.000Z",
    "about": "leases/0b8f9d4e5a6c47d1a2b3c4d5e6f70812",
    "issuer": "https://id.example.com",
    "subject": "alice",
    "device_id": "tab-7f3a",
    "state": "dead",
    "attempts": 41,
    "failure": "status_500",
    "expires_at": "2026-11-24T09:30:00.000Z",
    "dead_at": "2026-11-24T09:30:12.000Z",
}


class DeliveryState(StrEnum):
    PENDING = "pending"
    """Not delivered yet."""
    DEAD = "dead"
    """Given up, until an operator replays it."""


class EventsQuery(QueryParameters):
    """Filters of stored events."""

    state: DeliveryState = Field(DeliveryState.DEAD, description="Delivered events are deleted.")
    endpoint: EndpointName | None = None
    limit: Annotated[int, Field(ge=1, le=200), DIGITS] = 50
    cursor: Cursor = None


class EventDelivery(BaseModel):
    """One event for one endpoint."""

    model_config = ConfigDict(json_schema_extra={"examples": [DELIVERY_EXAMPLE]})

    event_id: str = Field(description="The `id` of the event, and the header `webhook-id`.")
    endpoint: str = Field(description="The name of the endpoint in dialtone.toml.")
    type: str
    at: Instant
    about: str = Field(description="The `subject` of the event.")
    issuer: str | None = Field(description="The issuer of the user. Null if the event concerns no single user.")
    subject: str | None
    device_id: str | None
    state: DeliveryState
    attempts: int = Field(description="Failed requests.")
    failure: str | None = Field(description="Why the last request failed.")
    expires_at: Instant = Field(description="When Dialtone stops retrying.")
    dead_at: Instant | None

    @classmethod
    def from_delivery(cls, delivery: Delivery) -> Self:
        return cls(
            event_id=delivery.event_id,
            endpoint=delivery.endpoint,
            type=delivery.type,
            at=delivery.at,
            about=delivery.about,
            issuer=delivery.issuer or None,
            subject=delivery.subject or None,
            device_id=delivery.device_id or None,
            state=DeliveryState.DEAD if delivery.is_dead else DeliveryState.PENDING,
            attempts=delivery.attempts,
            failure=delivery.failure,
            expires_at=delivery.expires_at,
            dead_at=delivery.dead_at,
        )


class EventPage(Page[EventDelivery]):
    """One page of stored events, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [DELIVERY_EXAMPLE], "next_cursor": None}]})


class ReplayRequest(StrictRequest):
    """Which dead letters to deliver again. Without a filter, all of them."""

    event_id: EventId | None = None
    endpoint: EndpointName | None = None


class ReplayResult(BaseModel):
    """The result of a replay."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"replayed": 3, "complete": True, "remaining": 0, "endpoint_removed": 0}]}
    )

    replayed: int = Field(description="Dead letters that are pending again.")
    complete: bool = Field(description="Whether `remaining` is 0. If false, repeat the request.")
    remaining: int = Field(
        description="Matching dead letters that the request did not replay. It replays at most 1,000, and skips those "
        "that another request or a replica is changing."
    )
    endpoint_removed: int = Field(
        description="Matching dead letters that cannot be replayed, because no endpoint of this name is configured."
    )

    @classmethod
    def from_replay(cls, replay: Replay) -> Self:
        return cls(
            replayed=replay.replayed,
            complete=not replay.remaining,
            remaining=replay.remaining,
            endpoint_removed=replay.endpoint_removed,
        )
