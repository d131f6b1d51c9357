"""Login tokens at hand: the memory that answers a device again without asking Telnyx or the ledger.

Nothing here is written anywhere; a restart forgets it all, and the next request of a device mints anew.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.vending.models import IssueRequest, IssueSource, LoginToken, Principal, SipPassword, UserKey
from app.vending.telephony.lease import Lease

INVALIDATION_MEMORY = timedelta(minutes=10)
"""How long an ended lease is remembered, so that a mint under way cannot bring it back. Longer than a flight."""

DeviceKey = tuple[UserKey, str]
"""A user and the device id they chose."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a device gets: its lease and what to log in with (a token or, by the other grant, the SIP password)."""

    lease: Lease
    issued_at: datetime
    expires_at: datetime
    refresh_after: datetime
    token: LoginToken | None = None
    password: SipPassword | None = None
    source: IssueSource = IssueSource.CACHED

    @property
    def is_new(self) -> bool:
        """Whether the device came to have a credential by this very request."""
        return self.source in (IssueSource.POOLED, IssueSource.CREATED)


DecisionInput = tuple[object, Principal, IssueRequest]
"""What a decision rests on: the policy in force, who asks, and for what."""


@dataclass(slots=True)
class CachedLogin:
    """A login at hand."""

    login: Login
    decided_for: DecisionInput | None = None
    """The question that it was last found to answer: the same one need not be decided again."""


class LoginCache:
    """The latest login of each device, bounded: the least recently used goes first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._logins: OrderedDict[DeviceKey, CachedLogin] = OrderedDict()
        self._ended: OrderedDict[str, datetime] = OrderedDict()

    def __len__(self) -> int:
        return len(self._logins)

    def get_entry(self, user_key: UserKey, device_id: str) -> CachedLogin | None:
        """The login last handed to the device, however old. The caller judges its times."""
        key = (user_key, device_id)
        held = self._logins.get(key)
        if held is not None:
            self._logins.move_to_end(key)
        return held

    def get(self, user_key: UserKey, device_id: str) -> Login | None:
        """As `held`, only the login."""
        held = self.get_entry(user_key, device_id)
        return None if held is None else held.login

    def put(self, login: Login) -> None:
        """Remember it, unless its lease was ended in the meantime."""
        if login.lease.id in self._ended:
            return
        key = (login.lease.user_key, login.lease.device_id)
        self._logins[key] = CachedLogin(login)
        self._logins.move_to_end(key)
        if len(self._logins) > self._capacity:
            self._logins.popitem(last=False)

    def evict(self, lease: Lease) -> None:
        """Drop the device's login, for instance because its terms changed; the lease lives on."""
        self._logins.pop((lease.user_key, lease.device_id), None)

    def invalidate(self, lease: Lease, now: datetime) -> None:
        """Drop the lease's login for good: nothing minted on it is kept from now on."""
        held = self._logins.get((lease.user_key, lease.device_id))
        if held is not None and held.login.lease.id == lease.id:
            del self._logins[lease.user_key, lease.device_id]
        self._ended[lease.id] = now
        self._ended.move_to_end(lease.id)
        while self._ended and next(iter(self._ended.values())) < now - INVALIDATION_MEMORY:
            self._ended.popitem(last=False)
