"""The state of the service, as operators see it: counts, backlog, and Telnyx as seen by one replica."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TelnyxFailure:
    """The last failed call to Telnyx. Holds no text of Telnyx's."""

    at: datetime
    operation: str
    """Method and path pattern, such as `POST /telephony_credentials`."""
    error: str
    """The class name of our error."""


@dataclass(frozen=True, slots=True)
class TelnyxStatus:
    """How this replica's calls to Telnyx are doing."""

    is_breaker_open: bool
    """Whether calls are rejected without being sent, after repeated failures."""
    calls_in_flight: int
    calls_queued: int
    concurrency_limit: float
    rate_limit: float | None
    """Calls in a window, as Telnyx last reported; None before its first answer."""
    rate_remaining: float | None
    last_failure: TelnyxFailure | None
    """Since this replica started."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Leases, warm pool and backlog are of the last count; audit and Telnyx are of this replica, now."""

    namespace: str
    leases: Mapping[str, int]
    """Number of leases by state."""
    warm_pool_size: int
    """Target for each connection; 0: no warm pool."""
    warm_pool_ready: Mapping[str, int]
    """Ready credentials by connection."""
    sweeper_backlog: int
    irrevocable: int
    """Leases whose deletion at Telnyx keeps failing."""
    orphans: int
    audit_queued: int
    audit_dropped: int
    telnyx: TelnyxStatus


@dataclass(frozen=True, slots=True)
class KeySetStatus:
    """The signing keys of one issuer, as one replica has them."""

    issuer: str
    keys: int
    """Usable ones."""
    age_seconds: float | None
    """Since they were last confirmed; None if the configuration holds them, or if there are none."""
    fetches: int = 0
    failures: int = 0
    """Of those fetches."""
