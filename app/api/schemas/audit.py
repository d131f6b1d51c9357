"""What operators are answered about the service itself: its audit, its pool, Telnyx as it sees it, its sweeps."""

from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.api.schemas.fields import DeviceId, Instant, IssuerName, Request, Subject
from app.vending.audit import Action, AuditCriteria, AuditEvent, Outcome
from app.vending.audit import Activity as Counted

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


LeaseName = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z]{1,64}$")]


class AuditQuery(Request):
    """Which events; what is left out does not matter."""

    issuer: IssuerName | None = None
    subject: Subject | None = Field(None, description="The user whom it was about, or who did it.")
    device_id: DeviceId | None = None
    lease_id: LeaseName | None = None
    action: Action | None = None
    outcome: Outcome | None = None
    request_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    token_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="Of a login token that was found somewhere: which request was it made for?"
    )
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, max_length=256, description="`next_cursor` of the page before.")

    def criteria(self) -> AuditCriteria:
        return AuditCriteria(**self.model_dump(exclude={"limit", "cursor"}))


class AuditRecord(BaseModel):
    """One decision. `issuer` and `subject` are whom it was about, `actor_*` who asked."""

    model_config = ConfigDict(json_schema_extra={"example": EVENT_EXAMPLE})

    id: str
    at: Instant
    action: Action
    outcome: Outcome
    reason: str | None
    issuer: str | None
    subject: str | None
    device_id: str | None
    lease_id: str | None
    token_sha256: str | None = Field(description="Of the login token that was handed out.")
    actor_issuer: str | None = Field(description="`shell` for the command line.")
    actor_subject: str | None
    request_id: str | None
    client_address: str | None
    user_agent: str | None
    details: dict[str, str | int]

    @classmethod
    def of(cls, event: AuditEvent) -> Self:
        return cls.model_validate(event.flat())


class AuditPage(BaseModel):
    """A page of events, newest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"data": [EVENT_EXAMPLE], "next_cursor": None}})

    data: list[AuditRecord]
    next_cursor: str | None


class ActivityMinute(BaseModel):
    """How many events of one kind there were in one minute."""

    minute: Instant
    action: Action
    outcome: Outcome
    events: int

    @classmethod
    def of(cls, counted: Counted) -> Self:
        return cls(minute=counted.minute, action=counted.action, outcome=counted.outcome, events=counted.events)


class Activity(BaseModel):
    """How much was decided, minute by minute, on all replicas; minutes without events are left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "data": [{"minute": "2026-11-23T09:30:00.000Z", "action": "issued", "outcome": "done", "events": 12}]
            }
        }
    )

    data: list[ActivityMinute]
