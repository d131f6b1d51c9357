"""The audit: queries, recorded decisions, and their number per minute."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api.pagination import Cursor, Page
from app.api.schemas.fields import (
    DIGITS,
    REQUEST_ID,
    SHA256,
    DeviceId,
    Instant,
    IssuerName,
    Moment,
    QueryParameters,
    ResourceId,
    Subject,
)
from app.vending.audit import ActivityCount, AuditAction, AuditCriteria, AuditEvent, AuditOutcome

EVENT_EXAMPLE: dict[str, Any] = {
    "id": "3f0e5d1f6a7b4c2d9e8f7a6b5c4d3e2f",
    "at": "2026-11-23T09:30:00.000Z",
    "action": "issued",
    "outcome": "done",
    "reason": "login_token",
    "issuer": "https://id.example.com",
    "subject": "alice",
    "device_id": "tab-7f3a",
    "lease_id": "0b8f9d4e5a6c47d1a2b3c4d5e6f70812",
    "token_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "actor_issuer": "https://id.example.com",
    "actor_subject": "alice",
    "request_id": "7a1c2b9e4d5f4a0e8b6c3d2e1f0a9b8c",
    "client_address": "203.0.113.7",
    "user_agent": "Mozilla/5.0",
    "details": {},
}


class AuditQuery(QueryParameters):
    """Filters of the audit. An omitted filter matches every event."""

    issuer: IssuerName | None = Field(
        None, description="The issuer that the event concerns, or the issuer of the user who caused it."
    )
    subject: Subject | None = Field(None, description="The user whom the event concerns, or the user who caused it.")
    device_id: DeviceId | None = None
    lease_id: ResourceId | None = None
    action: AuditAction | None = None
    outcome: AuditOutcome | None = None
    request_id: Annotated[str, StringConstraints(pattern=REQUEST_ID)] | None = None
    token_sha256: Annotated[str, StringConstraints(pattern=SHA256)] | None = Field(
        None, description="SHA-256 of a login token. Finds the request that issued it."
    )
    since: Moment | None = None
    until: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=200), DIGITS] = 50
    cursor: Cursor = None

    def criteria(self) -> AuditCriteria:
        return AuditCriteria(**self.model_dump(exclude={"limit", "cursor"}))


class AuditRecord(BaseModel):
    """One audit event. `issuer` and `subject` name the user whom it concerns, `actor_*` the caller."""

    model_config = ConfigDict(json_schema_extra={"examples": [EVENT_EXAMPLE]})

    id: str
    at: Instant
    action: AuditAction
    outcome: AuditOutcome
    reason: str | None
    issuer: str | None
    subject: str | None
    device_id: str | None
    lease_id: str | None
    token_sha256: str | None = Field(description="SHA-256 of the login token that was issued.")
    actor_issuer: str | None = Field(description="`shell` for the command line.")
    actor_subject: str | None
    request_id: str | None
    client_address: str | None
    user_agent: str | None
    details: dict[str, str | int]

    @classmethod
    def from_event(cls, event: AuditEvent) -> Self:
        return cls.model_validate(event.flat())


class AuditPage(Page[AuditRecord]):
    """A page of audit events, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [EVENT_EXAMPLE], "next_cursor": None}]})


class ActivityMinute(BaseModel):
    """The number of events of one kind in one minute."""

    minute: Instant
    action: AuditAction
    outcome: AuditOutcome
    events: int

    @classmethod
    def from_activity(cls, activity: ActivityCount) -> Self:
        return cls(minute=activity.minute, action=activity.action, outcome=activity.outcome, events=activity.events)


class ActivityReport(BaseModel):
    """The number of events per minute, on all replicas. Minutes without events are omitted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"data": [{"minute": "2026-11-23T09:30:00.000Z", "action": "issued", "outcome": "done", "events": 12}]}
            ]
        }
    )

    data: list[ActivityMinute]
