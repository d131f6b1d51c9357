"""Timeouts of requests, flights and row claims, and the interval for polling another replica's row."""

from dataclasses import dataclass
from datetime import timedelta

POLL_SECONDS = 0.05
"""First interval for polling a row that another replica has claimed; doubles up to ten times this value."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Timeouts of one replica."""

    request_timeout_seconds: float = 10
    """Deadline of a caller's request."""
    flight_seconds: float = 25
    """Deadline of the work itself, which continues after its callers have disconnected."""
    claim: timedelta = timedelta(seconds=8)
    """How long a replica may claim a row: longer than a create takes, shorter than a caller's deadline.

    A slower holder does no harm: its commit fails on the row's version, and it yields to the other writer.
    """
    propagation: timedelta = timedelta(seconds=5)
    """From creation until a login works. Source: developers.telnyx.com, telephony credentials, "about 5 s"."""
