"""How long work on a row may take, and how often somebody else's is looked at."""

from dataclasses import dataclass
from datetime import timedelta

POLL_SECONDS = 0.05
"""How often a row that another replica is working on is looked at; doubles up to ten times that."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take."""

    request_timeout_seconds: float = 10
    """A caller's deadline."""
    flight_seconds: float = 25
    """The deadline of the work itself, which goes on when its callers have left."""
    claim: timedelta = timedelta(seconds=8)
    """How long a replica may keep a row to itself: longer than a create may take, shorter than a caller's patience.

    A holder that is slower than that does no harm: its commit fails by the row's version, and it gives way.
    """
    propagation: timedelta = timedelta(seconds=5)
    """From creation until a login works. Source: developers.telnyx.com, telephony credentials, "about 5 s"."""
