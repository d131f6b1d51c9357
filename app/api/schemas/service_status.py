"""The state of the service."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from app import __version__
from app.api.schemas.fields import Instant
from app.composition.components import Parts

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
