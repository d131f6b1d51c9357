"""How many credentials the warm pool keeps ready for a connection, from the rate of its new devices."""

import math
from datetime import timedelta
from typing import NamedTuple

MIN_READY = 3
"""Ready credentials of a connection without new devices."""

MAX_READY = 100

REPLACEMENT_SECONDS = 20.0
"""From the claim of a pooled credential until its replacement works at Telnyx: the call, queues and propagation."""

RECENT = timedelta(minutes=1)
LONGER = timedelta(minutes=5)
"""The rate is the higher one of these two periods: it rises within a minute, and falls within five."""


class NewDevices(NamedTuple):
    """Number of new devices of a connection in the last RECENT and the last LONGER."""

    recent: int
    longer: int


def target_size(seen: NewDevices) -> int:
    """Enough for the devices that arrive until a replacement works, and for two standard deviations more.

    The standard deviation is that of independent arrivals (a Poisson process).
    """
    rate = max(seen.recent / RECENT.total_seconds(), seen.longer / LONGER.total_seconds())
    arrivals = rate * REPLACEMENT_SECONDS
    return min(MAX_READY, max(MIN_READY, math.ceil(arrivals + 2 * math.sqrt(arrivals))))
