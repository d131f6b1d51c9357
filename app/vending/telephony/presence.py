"""Presence: whether devices are registered with Telnyx, looked up on demand.

A look-up is one call to Telnyx for each device, with less priority than logins. If Telnyx is unavailable or busy,
presence is unknown and nothing else fails.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from app.vending.errors import DialtoneError, TelnyxError, TelnyxRateLimited
from app.vending.single_flight import SingleFlight
from app.vending.telephony.lease import Lease, LeaseState

LOOKUP_SECONDS = 2.0
"""Deadline of all look-ups of a request. A voice backend asks while a caller waits."""

CACHE_SECONDS = 5.0
"""Longer than a burst of requests about one user, shorter than a user needs to open or close a page."""

MAX_LOOKUPS = 20
"""Look-ups of one request. Twice the default of the device limit."""

LOOKUP_CONCURRENCY = 4
"""Look-ups in flight on one replica. Telnyx publishes no rate limit for them."""


class Registrations(Protocol):
    async def is_registered(self, sip_username: str) -> bool | None:
        """None if Telnyx does not say. Raises TelnyxError."""


class Presence:
    """Looks up registrations. Results are cached for CACHE_SECONDS, and concurrent requests share them."""

    def __init__(
        self, registrations: Registrations, monotonic: Callable[[], float], lookup_seconds: float = LOOKUP_SECONDS
    ) -> None:
        self._registrations = registrations
        self._monotonic = monotonic
        self._lookup_seconds = lookup_seconds
        self._slots = asyncio.Semaphore(LOOKUP_CONCURRENCY)
        self._flights: SingleFlight[bool | None] = SingleFlight(lookup_seconds)
        self._known: dict[str, tuple[float, bool | None]] = {}
        """By SIP username: when the entry was added, and the result. Oldest entries first."""

    async def online(self, leases: Iterable[Lease]) -> dict[str, bool | None]:
        """By lease id: whether the device is registered. A lease without an entry, or with None, is unknown.

        Only active leases are looked up, and the first MAX_LOOKUPS of them that are not cached. Raises nothing.
        """
        self._drop_expired()
        names = {lease.id: lease.sip_username for lease in leases if lease.state is LeaseState.ACTIVE}
        # Copied now, because another request may drop the entries while this one waits.
        usernames = dict.fromkeys(name for name in names.values() if name is not None)
        found = {name: self._known[name][1] for name in usernames if name in self._known}
        wanted = [name for name in usernames if name not in found]
        looked_up = wanted[:MAX_LOOKUPS]
        answers = await asyncio.gather(*(self._look_up(name) for name in looked_up))
        found |= dict(zip(looked_up, answers, strict=True))
        return {lease_id: found.get(name) for lease_id, name in names.items() if name is not None}

    async def drain(self) -> None:
        """Wait until no look-up is in flight."""
        await self._flights.drain()

    async def _look_up(self, sip_username: str) -> bool | None:
        try:
            return await self._flights.do(sip_username, None, lambda: self._ask(sip_username))
        except DialtoneError:
            return None

    async def _ask(self, sip_username: str) -> bool | None:
        try:
            async with asyncio.timeout(self._lookup_seconds), self._slots:
                is_online = await self._registrations.is_registered(sip_username)
        except (TelnyxRateLimited, TimeoutError):
            return None  # not cached: the next request may find capacity
        except TelnyxError:
            is_online = None
        self._known.pop(sip_username, None)
        self._known[sip_username] = self._monotonic(), is_online
        return is_online

    def _drop_expired(self) -> None:
        oldest = self._monotonic() - CACHE_SECONDS
        while self._known:
            name, (added_at, _) = next(iter(self._known.items()))
            if added_at > oldest:
                return
            del self._known[name]
