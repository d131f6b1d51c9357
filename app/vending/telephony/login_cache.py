"""Login cache: each device's latest login in memory, so that a repeated request needs neither Telnyx nor the ledger.

A shared login cache is optional. Without one, the next request of a device after a restart mints a new token.
"""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from app.vending.models import (
    NO_RTC_OPTIONS,
    IssueRequest,
    IssueSource,
    LoginToken,
    Principal,
    RtcOptions,
    SipPassword,
    UserKey,
)
from app.vending.scan_resistant_cache import ScanResistantCache
from app.vending.service_status import LoginCacheStatus
from app.vending.telephony.durations import NEVER
from app.vending.telephony.lease import ENDED, Lease, LeaseState, LeaseVersion

VERSION_MEMORY = timedelta(minutes=10)
"""How long the version of a changed lease is remembered, so that a mint in flight cannot cache an earlier one. Longer
than a flight."""

MIN_VERSIONS = 1000
"""Versions are remembered for as many leases as there may be cached devices, and for at least this number."""

DeviceKey = tuple[UserKey, str]
"""A user and the device id that the client chose."""


@dataclass(frozen=True, slots=True)
class Login:
    """The login of a device: its lease, and a login token or, with the other grant, the SIP password."""

    lease: Lease
    issued_at: datetime
    expires_at: datetime
    refresh_after: datetime
    token: LoginToken | None = None
    password: SipPassword | None = None
    source: IssueSource = IssueSource.CACHED
    rtc: RtcOptions = NO_RTC_OPTIONS
    """Decided by the policy for each request. Not part of the login, so it is not shared with other replicas."""

    def with_rtc(self, rtc: RtcOptions) -> "Login":
        return self if self.rtc == rtc else replace(self, rtc=rtc)

    @property
    def is_new(self) -> bool:
        """Whether this request gave the device a new or pooled credential."""
        return self.source in (IssueSource.POOLED, IssueSource.CREATED)


DecisionInput = tuple[object, Principal, IssueRequest]
"""Input of a policy decision: the current policy, the principal and the request."""


@dataclass(slots=True)
class CachedLogin:
    """A cached login with the policy decision that allowed it."""

    login: Login
    decided_for: DecisionInput | None = None
    """The input for which the login was last allowed. The same input need not be decided again."""
    response: tuple[bytes, bytes, bytes] | None = None
    """The serialized response before its token, between token and time, and after its time."""
    replaced_at: datetime = NEVER
    """When `decided_for` no longer holds, because policy then replaces the credential."""
    is_used: bool = False

    def set_rtc(self, rtc: RtcOptions) -> None:
        """Set the options that the policy gives to the next request."""
        if self.login.rtc != rtc:
            self.login, self.response = self.login.with_rtc(rtc), None

    def outdate(self, expires_at: datetime) -> None:
        """Make the next request read the ledger, and limit the login's expiry to `expires_at`."""
        login = self.login
        self.login = replace(login, refresh_after=login.issued_at, expires_at=min(login.expires_at, expires_at))
        self.decided_for = self.response = None


class SharedLogins(Protocol):
    """Logins that all replicas share. No method raises: what cannot be read or written counts as not stored."""

    async def get(self, lease: Lease) -> Login | None:
        """A login of exactly this version of the lease that its device need not refresh yet."""

    async def put(self, login: Login) -> None:
        """Store a login with a token."""

    def discard(self, lease: Lease | LeaseVersion) -> None:
        """Delete the login of a lease that has ended, soon."""


class LoginCache:
    """The latest login of each device, up to `capacity` devices."""

    def __init__(self, capacity: int, shared: SharedLogins | None = None) -> None:
        self.capacity = capacity
        self._shared = shared
        self._logins: ScanResistantCache[DeviceKey, CachedLogin] = ScanResistantCache(capacity)
        self._versions: OrderedDict[str, tuple[int, datetime]] = OrderedDict()
        """By lease id: the latest known version, and when it became known."""
        self._max_versions = max(capacity, MIN_VERSIONS)
        self.hits = 0
        """Requests that got a cached login. Counted by the callers, which know whether a login may be returned."""
        self.misses = 0

    def __len__(self) -> int:
        return len(self._logins)

    @property
    def status(self) -> LoginCacheStatus:
        logins = self._logins
        return LoginCacheStatus(len(logins), self.capacity, self.hits, self.misses, logins.evictions)

    def get_entry(self, user_key: UserKey, device_id: str) -> CachedLogin | None:
        """The device's latest login, however old. The caller checks its times."""
        return self._logins.get((user_key, device_id))

    def get(self, user_key: UserKey, device_id: str) -> Login | None:
        """The login of `get_entry`."""
        entry = self.get_entry(user_key, device_id)
        return None if entry is None else entry.login

    def put(self, login: Login) -> None:
        """Cache the login, unless its lease has changed or ended since the login was created."""
        if not self.is_outdated(login.lease):
            self._logins.put((login.lease.user_key, login.lease.device_id), CachedLogin(login))

    async def find_current(self, lease: Lease, now: datetime) -> Login | None:
        """A login, from memory or from the shared cache, of exactly this version of a lease.

        The lease is the ledger's row, as the caller has read it. None if the device should refresh it.
        """
        login = self.get(lease.user_key, lease.device_id)
        if login is not None and _is_of(login, lease) and now < login.refresh_after:
            self.hits += 1
            return login
        if self._shared is None or self.is_outdated(lease):
            return None
        login = await self._shared.get(lease)
        if login is None or self.is_outdated(lease):
            return None
        self.put(login)
        return login

    async def store(self, login: Login) -> None:
        """Cache a new login with a token, in memory and in the shared cache."""
        self.put(login)
        if self._shared is not None:
            await self._shared.put(login)

    def is_outdated(self, lease: Lease) -> bool:
        """Whether the lease is known to have changed or ended since this version."""
        known = self._versions.get(lease.id)
        return known is not None and lease.version < known[0]

    def update(self, lease: Lease | LeaseVersion, now: datetime) -> None:
        """Apply a change or the end of a lease that was committed, here or by another replica.

        The login of an ended lease is removed. The login of a changed lease is only returned while Telnyx or the ledger
        is unavailable, and its expiry is limited to the lease's. A mint in flight on an earlier version is not cached.
        """
        known = self._versions.get(lease.id)
        if known is not None and known[0] >= lease.version:
            return
        self._versions[lease.id] = (lease.version, now)
        self._versions.move_to_end(lease.id)
        while len(self._versions) > self._max_versions or next(iter(self._versions.values()))[1] < now - VERSION_MEMORY:
            self._versions.popitem(last=False)
        if self._shared is not None and lease.state in ENDED:
            self._shared.discard(lease)
        key = (lease.user_key, lease.device_id)
        entry = self._logins.peek(key)
        if entry is None or entry.login.lease.id != lease.id or entry.login.lease.version >= lease.version:
            return
        if lease.state is LeaseState.ACTIVE:
            entry.outdate(lease.expires_at)
        else:
            self._logins.pop(key)

    def users(self) -> set[UserKey]:
        return {user_key for user_key, _ in self._logins}

    def forget(self, users: Collection[UserKey]) -> None:
        """Remove the logins of these users. Known versions stay, so that a mint in flight is not cached."""
        for key in [key for key in self._logins if key[0] in users]:
            self._logins.pop(key)


def _is_of(login: Login, lease: Lease) -> bool:
    return (login.lease.id, login.lease.version) == (lease.id, lease.version)
