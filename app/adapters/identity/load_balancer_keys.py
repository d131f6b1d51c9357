"""Keys of AWS load balancers: each is fetched when a token names it, because AWS publishes no list of them."""

import asyncio
import re
from collections.abc import Callable

import structlog

from app.adapters.http_client import HttpClient
from app.adapters.identity.key_faults import LOAD_BALANCER_KEY, FetchFailed
from app.adapters.identity.key_sets import (
    COOLDOWN_SECONDS,
    FETCH_SECONDS,
    HARD_LIMIT_SECONDS,
    KeySetLocation,
    get_document,
)
from app.adapters.identity.keys import KeySet, VerificationKey, from_document
from app.adapters.identity.unknown_keys import MAX_PENDING, WantedKey
from app.vending.errors import SigningKeyPending
from app.vending.service_status import KeySetStatus

MAX_FETCHES = 8
"""Fetches within COOLDOWN_SECONDS that tokens may cause. A load balancer introduces one key at a time."""

NO_KID = "00000000-0000-0000-0000-000000000000"
"""A `kid` that no key has."""

MAX_CACHED_KEYS = 32
MAX_PEM_BYTES = 16 * 1024

NO_KEY_STATUSES = (403, 404)
"""Responses for an unknown `kid`. The keys are objects in S3, which returns 403 for an unknown name."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
"""The `kid` becomes a part of the URL, so its form is checked first."""

_log = structlog.get_logger("dialtone.identity")


class LoadBalancerKeySource:
    """Fetches each key once and caches it for 24 hours. The number of fetches is limited.

    As with other key sets (`unknown_keys`), a token whose key may not be fetched yet gets 503 within a limit, then 401.
    """

    def __init__(self, location: KeySetLocation, outbound: HttpClient, monotonic: Callable[[], float]) -> None:
        """`jwks_url` of the location is the URL below which the keys are."""
        self._location = location
        self._outbound = outbound
        self._monotonic = monotonic
        self._known: dict[str, tuple[VerificationKey, float]] = {}
        """By `kid`: the key, and the time of its fetch. The oldest is first."""
        self._keys = KeySet(())
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._window_began_at = -float("inf")
        self._fetches_in_window = 0
        self._absent: set[str] = set()
        self._pending: set[str] = set()
        self._fetches = 0
        self._failures = 0
        self._last_failure: tuple[str, str] | None = None
        """The reason and the fix."""

    async def current(self) -> KeySet:
        return self.cached()

    def cached(self) -> KeySet:
        oldest = next(iter(self._known.values()), None)
        if oldest is not None and self._monotonic() - oldest[1] > HARD_LIMIT_SECONDS:
            self._forget([kid for kid, (_, at) in self._known.items() if self._monotonic() - at > HARD_LIMIT_SECONDS])
        return self._keys

    async def refresh_for(self, wanted: WantedKey) -> KeySet:
        _, kid = wanted
        if kid is None or not _UUID.match(kid) or kid in self._known:
            return self._keys
        now = self._monotonic()
        if now - self._window_began_at > COOLDOWN_SECONDS:
            self._window_began_at, self._fetches_in_window = now, 0
            self._absent.clear()
            self._pending.clear()
        if kid in self._fetching or (kid not in self._absent and self._fetches_in_window < MAX_FETCHES):
            self._fetches_in_window += kid not in self._fetching
            await asyncio.shield(self._fetch(kid))
            if kid not in self._known and kid not in self._absent:
                self._pending.add(kid)
        elif kid not in self._absent and len(self._pending) < MAX_PENDING:
            self._pending.add(kid)
        if kid in self._pending and kid not in self._known:
            wait = self._window_began_at + COOLDOWN_SECONDS - now if self._fetches_in_window >= MAX_FETCHES else 1.0
            raise SigningKeyPending(retry_after_seconds=max(wait, 1.0))
        return self._keys

    async def refresh(self) -> bool:
        """Fetch the cached keys again, and forget withdrawn ones. Without cached keys, check that AWS responds."""
        failures = self._failures
        await asyncio.gather(*(asyncio.shield(self._fetch(kid)) for kid in list(self._known) or [NO_KID]))
        return self._failures == failures

    def status(self, issuer: str) -> KeySetStatus:
        reason, fix = self._last_failure or (None, None)
        return KeySetStatus(
            issuer,
            len(self._keys),
            None,
            self._fetches,
            self._failures,
            last_failure=reason,
            fix=fix,
            is_on_demand=True,
        )

    def _fetch(self, kid: str) -> asyncio.Task[None]:
        """The fetch of this key in flight, or a new one. The task never raises."""
        if kid not in self._fetching:
            self._fetching[kid] = asyncio.create_task(self._fetch_once(kid))
            self._fetching[kid].add_done_callback(lambda _: self._fetching.pop(kid))
        return self._fetching[kid]

    async def _fetch_once(self, kid: str) -> None:
        self._fetches += 1
        try:
            key = await self._get(kid)
        except FetchFailed as error:
            self._failures += 1
            self._last_failure = (str(error), error.fix)
            _log.warning("key_fetch_failed", issuer=self._location.issuer, cause=str(error))
            return
        self._last_failure = None
        if key is None:
            self._absent.add(kid)
            self._pending.discard(kid)
            self._forget([kid])
            return
        self._pending.discard(kid)
        if kid in self._known and self._known[kid][0].public == key.public:
            key = self._known[kid][0]
        elif len(self._known) >= MAX_CACHED_KEYS:
            self._known.pop(next(iter(self._known)))
        self._known.pop(kid, None)
        self._known[kid] = (key, self._monotonic())
        self._rebuild()

    async def _get(self, kid: str) -> VerificationKey | None:
        """The key; None if AWS has none with this `kid`."""
        until = asyncio.get_running_loop().time() + FETCH_SECONDS
        answer = await get_document(
            self._outbound,
            self._location,
            f"{self._location.jwks_url}/{kid}",
            LOAD_BALANCER_KEY,
            until,
            MAX_PEM_BYTES,
            absent=NO_KEY_STATUSES,
        )
        if answer.status in NO_KEY_STATUSES:
            return None
        try:
            keys = from_document({kid: answer.body.decode("ascii")}, self._location.algorithms)
            return next(iter(keys))
        except (ValueError, StopIteration):
            raise FetchFailed(
                "the key of the load balancer is not a PEM public key for the allowed algorithm",
                "check that no proxy changes responses from AWS",
            ) from None

    def _forget(self, kids: list[str]) -> None:
        for kid in kids:
            self._known.pop(kid, None)
        self._rebuild()

    def _rebuild(self) -> None:
        """A new KeySet, unless the keys are the same: cached verdicts are valid for one KeySet only."""
        keys = [key for key, _ in self._known.values()]
        if set(map(id, keys)) != set(map(id, self._keys)):
            self._keys = KeySet(keys)
