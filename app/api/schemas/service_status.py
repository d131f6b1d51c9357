"""The state of the service."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from app import __version__
from app.api.schemas.fields import Instant
from app.vending.service_status import ServiceStatus

TELNYX_EXAMPLE: dict[str, Any] = {
    "breaker": "closed",
    "calls_in_flight": 3,
    "calls_queued": 0,
    "concurrency_limit": 21.4,
    "rate_limit": 50,
    "rate_remaining": 44,
    "last_failure": {
        "at": "2026-11-23T09:30:00.000Z",
        "operation": "POST /telephony_credentials",
        "error": "TelnyxServerError",
    },
}


class TelnyxFailureInfo(BaseModel):
    """The last failed call to Telnyx."""

    model_config = ConfigDict(from_attributes=True)

    at: Instant
    operation: str
    error: str


class TelnyxStatusInfo(BaseModel):
    """The state of this replica's calls to Telnyx."""

    model_config = ConfigDict(json_schema_extra={"examples": [TELNYX_EXAMPLE]})

    breaker: str = Field(
        description="State of the circuit breaker. `open`: calls are suspended.", examples=["closed", "open"]
    )
    calls_in_flight: int
    calls_queued: int
    concurrency_limit: float
    rate_limit: float | None = Field(description="Calls per window, as Telnyx last reported.")
    rate_remaining: float | None
    last_failure: TelnyxFailureInfo | None = Field(description="Null if no call has failed since this replica started.")


class ServiceStatusInfo(BaseModel):
    """The status of the service. Leases, pool and backlog are counted periodically; `telnyx` is this replica's."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": "0.2.0",
                    "namespace": "dialtone",
                    "leases": {"pending": 0, "active": 812, "pooled": 3},
                    "warm_pool_target": {"1494404757140276705": 3},
                    "warm_pool_ready": {"1494404757140276705": 3},
                    "sweeper_backlog": 2,
                    "irrevocable": 0,
                    "orphans": 0,
                    "audit_queued": 0,
                    "audit_dropped": 0,
                    "telnyx": TELNYX_EXAMPLE,
                }
            ]
        }
    )

    version: str
    namespace: str
    leases: dict[str, int]
    warm_pool_target: dict[str, int] = Field(
        description="Credentials that the warm pool should have, by connection. Empty: there is no pool."
    )
    warm_pool_ready: dict[str, int] = Field(description="Ready credentials by connection.")
    sweeper_backlog: int
    irrevocable: int
    orphans: int
    audit_queued: int
    audit_dropped: int
    telnyx: TelnyxStatusInfo

    @classmethod
    def from_status(cls, status: ServiceStatus) -> Self:
        telnyx = status.telnyx
        failure = telnyx.last_failure
        return cls(
            version=__version__,
            namespace=status.namespace,
            leases=dict(status.leases),
            warm_pool_target=dict(status.warm_pool_target),
            warm_pool_ready=dict(status.warm_pool_ready),
            sweeper_backlog=status.sweeper_backlog,
            irrevocable=status.irrevocable,
            orphans=status.orphans,
            audit_queued=status.audit_queued,
            audit_dropped=status.audit_dropped,
            telnyx=TelnyxStatusInfo(
                breaker="open" if telnyx.is_breaker_open else "closed",
                calls_in_flight=telnyx.calls_in_flight,
                calls_queued=telnyx.calls_queued,
                concurrency_limit=round(telnyx.concurrency_limit, 1),
                rate_limit=telnyx.rate_limit,
                rate_remaining=telnyx.rate_remaining,
                last_failure=None if failure is None else TelnyxFailureInfo.model_validate(failure),
            ),
        )
