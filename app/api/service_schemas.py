"""What operators are answered about the service itself: its audit, its pool, Telnyx as it sees it, its sweeps."""

from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app import __version__
from app.api.admin_schemas import IssuerName, Subject
from app.api.schemas import DeviceId, Instant, Request
from app.parts import Parts
from app.vending.audit import Action, AuditCriteria, AuditEvent, Outcome
from app.vending.audit import Activity as Counted
from app.vending.upkeep.sweep_jobs import Run, RunState

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

RUN_EXAMPLE: dict[str, Any] = {
    "id": "5b1e0c7d2f3a4b6c8d9e0f1a2b3c4d5e",
    "state": "done",
    "started_at": "2026-11-23T09:30:00.000Z",
    "ended_at": "2026-11-23T09:30:04.000Z",
    "reason": None,
    "report": {
        "dry_run": True,
        "ended": 0,
        "due": [],
        "stuck": [],
        "walked": 1204,
        "foreign": 31,
        "young": 4,
        "orphans": [{"credential": "dialtone-0b8f9d4e5a6c47d1a2b3c4d5e6f70812", "why": "no lease of that name"}],
        "deleted_orphans": 0,
    },
    "look_at": "/v1/admin/sweeps/5b1e0c7d2f3a4b6c8d9e0f1a2b3c4d5e",
}

UPSTREAM_EXAMPLE: dict[str, Any] = {
    "breaker": "closed",
    "calls_in_flight": 3,
    "calls_waiting": 0,
    "concurrency_limit": 21.4,
    "rate_limit": 50,
    "rate_remaining": 44,
    "last_error": {
        "at": "2026-11-23T09:30:00.000Z",
        "operation": "POST /telephony_credentials",
        "error": "CarrierFailed",
    },
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


class LastError(BaseModel):
    """What went wrong with Telnyx the last time."""

    model_config = ConfigDict(from_attributes=True)

    at: Instant
    operation: str
    error: str


class Upstream(BaseModel):
    """Telnyx, as this replica sees it."""

    model_config = ConfigDict(json_schema_extra={"example": UPSTREAM_EXAMPLE})

    breaker: str = Field(description="`open`: calls are not even tried for a while.", examples=["closed", "open"])
    calls_in_flight: int
    calls_waiting: int
    concurrency_limit: float
    rate_limit: float | None = Field(description="Calls in a window, as Telnyx last said.")
    rate_remaining: float | None
    last_error: LastError | None = Field(description="Since this replica started.")


class State(BaseModel):
    """How the service stands. Leases, pool and backlog are counted every so often; `telnyx` is this replica's."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "version": "0.1.0",
                "namespace": "dialtone",
                "leases": {"pending": 0, "active": 812, "pooled": 20},
                "pool_size": 20,
                "pool_ready": {"1494404757140276705": 20},
                "sweeper_backlog": 2,
                "stuck_deletions": 0,
                "orphans": 0,
                "audit_waiting": 0,
                "audit_dropped": 0,
                "telnyx": UPSTREAM_EXAMPLE,
            }
        }
    )

    version: str
    namespace: str
    leases: dict[str, int]
    pool_size: int = Field(description="How many each connection should have; 0: there is no pool.")
    pool_ready: dict[str, int] = Field(description="How many each connection has.")
    sweeper_backlog: int
    stuck_deletions: int
    orphans: int
    audit_waiting: int
    audit_dropped: int
    telnyx: Upstream

    @classmethod
    def of(cls, parts: Parts) -> Self:
        guard, error = parts.telnyx.guard.status(), parts.telnyx.last_error
        return cls(
            version=__version__,
            namespace=parts.oversight.namespace,
            leases=parts.oversight.live,
            pool_size=parts.pool.size,
            pool_ready=parts.pool.ready,
            sweeper_backlog=parts.sweeper.backlog.waiting,
            stuck_deletions=parts.sweeper.backlog.stuck,
            orphans=parts.reconciler.orphans,
            audit_waiting=parts.audit.waiting,
            audit_dropped=parts.audit.dropped,
            telnyx=Upstream(
                breaker="open" if guard.is_open else "closed",
                calls_in_flight=guard.in_flight,
                calls_waiting=guard.waiting,
                concurrency_limit=round(guard.concurrency_limit, 1),
                rate_limit=guard.rate_limit,
                rate_remaining=guard.rate_remaining,
                last_error=None if error is None else LastError.model_validate(error),
            ),
        )


class SweepRequest(Request):
    """Whether to delete, or only to say what would be."""

    dry_run: bool = True
    sure: bool = Field(False, description="Delete even by a ledger that never held a lease.")


class SweepRun(BaseModel):
    """A sweep that was asked for, and what came of it."""

    model_config = ConfigDict(json_schema_extra={"example": RUN_EXAMPLE})

    id: str
    state: RunState
    started_at: Instant
    ended_at: Instant | None
    reason: str | None = Field(description="Why it failed.")
    report: dict[str, Any] | None
    look_at: str

    @classmethod
    def of(cls, run: Run) -> Self:
        return cls(
            id=run.id,
            state=run.state,
            started_at=run.started_at,
            ended_at=run.ended_at,
            reason=run.reason,
            report=run.report,
            look_at=f"/v1/admin/sweeps/{run.id}",
        )
