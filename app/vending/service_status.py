"""Status of the service for operators: lease counts, backlog, and one replica's view of Telnyx and of signing keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TelnyxFailure:
    """The last failed call to Telnyx. Holds no text from Telnyx."""

    at: datetime
    operation: str
    """Method and path pattern, such as `POST /telephony_credentials`."""
    error: str
    """Class name of Dialtone's error."""


@dataclass(frozen=True, slots=True)
class TelnyxStatus:
    """State of this replica's calls to Telnyx."""

    is_breaker_open: bool
    """Whether calls are rejected without being sent, after repeated failures."""
    calls_in_flight: int
    calls_queued: int
    concurrency_limit: float
    rate_limit: float | None
    """Calls per window, as Telnyx last reported; None before its first response."""
    rate_remaining: float | None
    last_failure: TelnyxFailure | None
    """Since this replica started."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Leases, warm pool and backlog are as of the last count; audit and Telnyx are this replica's current state."""

    namespace: str
    leases: Mapping[str, int]
    """Number of leases by state."""
    warm_pool_target: Mapping[str, int]
    """Credentials that the warm pool should have, by connection. Empty: there is no pool."""
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
class SkippedKey:
    """A key of an issuer's key set that is not used."""

    kid: str | None
    """ASCII, and shortened."""
    reason: str
    is_fault: bool
    """False if the key is for another purpose, such as encryption."""


@dataclass(frozen=True, slots=True)
class KeySetStatus:
    """State of one issuer's signing keys on one replica."""

    issuer: str
    keys: int
    """Number of usable keys."""
    age_seconds: float | None
    """Since the keys were last confirmed; None for keys from the configuration, or if there are none."""
    fetches: int = 0
    failures: int = 0
    """Number of fetches that failed."""
    skipped: tuple[SkippedKey, ...] = ()
    last_failure: str | None = None
    """Why the last fetch failed; None if it succeeded."""
    fix: str | None = None
    """The fix for `last_failure`. A name in backticks is a setting of the issuer."""
    is_on_demand: bool = False
    """Whether keys are fetched one by one, for the tokens that name them."""


@dataclass(frozen=True, slots=True)
class LoginCacheStatus:
    """Use of one replica's login cache. The last three count from its start."""

    devices: int
    capacity: int
    hits: int
    misses: int
    evictions: int


@dataclass(frozen=True, slots=True)
class SharedLoginCacheStatus:
    """One replica's use of the shared login cache. The counts are from its start."""

    is_available: bool
    hits: int
    misses: int
    failures: Mapping[str, int]
    """Number of calls that failed, and of entries that could not be used, by reason."""


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """Events for one endpoint: stored ones as of the last count, and one replica's requests since its start."""

    endpoint: str
    pending: int
    dead: int
    oldest_seconds: float
    """Age of the oldest pending event; 0 if there is none."""
    delivered: int
    failed: Mapping[str, int]
    """Number of failed requests, by reason."""
    dropped: int
    """Events that were deleted without a request, because a reload excluded them from the endpoint."""
