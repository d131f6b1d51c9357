"""Login cache: each device's latest login in memory, so that a repeated request needs neither Telnyx nor the ledger.

Nothing is persisted. After a restart, the next request of a device mints a new token.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.vending.models import IssueRequest, IssueSource, LoginToken, Principal, SipPassword, UserKey
from app.vending.scan_resistant_cache import ScanResistantCache
from app.vending.service_status import LoginCacheStatus
from app.vending.telephony.lease import Lease

INVALIDATION_MEMORY = timedelta(minutes=10)
"""How long an ended lease is remembered, so that a mint in flight cannot cache it again. Longer than a flight."""

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
    is_used: bool = False


class LoginCache:
    """The latest login of each device, up to `capacity` devices."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._logins: ScanResistantCache[DeviceKey, CachedLogin] = ScanResistantCache(capacity)
        self._ended: OrderedDict[str, datetime] = OrderedDict()
        self.hits = 0
        """Requests that got a cached login. Counted by the issuer, which knows whether a login may be returned."""
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
        """Cache the login, unless its lease has ended in the meantime."""
        if login.lease.id not in self._ended:
            self._logins.put((login.lease.user_key, login.lease.device_id), CachedLogin(login))

    def evict(self, lease: Lease) -> None:
        """Remove the device's login, for instance because its terms changed. The lease stays live."""
        self._logins.pop((lease.user_key, lease.device_id))

    def invalidate(self, lease: Lease, now: datetime) -> None:
        """Remove the login of an ended lease, and cache no login on that lease from now on."""
        key = (lease.user_key, lease.device_id)
        entry = self._logins.pop(key)
        if entry is not None and entry.login.lease.id != lease.id:
            self._logins.put(key, entry)  # of a later lease
        self._ended[lease.id] = now
        self._ended.move_to_end(lease.id)
        while self._ended and next(iter(self._ended.values())) < now - INVALIDATION_MEMORY:
            self._ended.popitem(last=False)
