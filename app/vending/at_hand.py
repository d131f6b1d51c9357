"""Login tokens at hand: the memory that answers a device again without asking Telnyx or the ledger.

Nothing here is written anywhere; a restart forgets it all, and the next request of a device mints anew.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.vending.leases import Lease
from app.vending.nouns import LoginToken, Owner, SipPassword, Way

ENDED_MEMORY = timedelta(minutes=10)
"""How long an ended lease is remembered, so that a mint under way cannot bring it back. Longer than a flight."""

DeviceKey = tuple[Owner, str]
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
    way: Way = Way.HOT

    @property
    def is_new(self) -> bool:
        """Whether the device came to have a credential by this very request."""
        return self.way in (Way.POOLED, Way.CREATED)


class LoginsAtHand:
    """The latest login of each device, bounded: the least recently used goes first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._logins: OrderedDict[DeviceKey, Login] = OrderedDict()
        self._ended: OrderedDict[str, datetime] = OrderedDict()

    def __len__(self) -> int:
        return len(self._logins)

    def get(self, owner: Owner, device_id: str) -> Login | None:
        """The login last handed to the device, however old. The caller judges its times."""
        key = (owner, device_id)
        login = self._logins.get(key)
        if login is not None:
            self._logins.move_to_end(key)
        return login

    def keep(self, login: Login) -> None:
        """Remember it, unless its lease was ended in the meantime."""
        if login.lease.id in self._ended:
            return
        key = (login.lease.owner, login.lease.device_id)
        self._logins[key] = login
        self._logins.move_to_end(key)
        if len(self._logins) > self._capacity:
            self._logins.popitem(last=False)

    def forget(self, lease: Lease) -> None:
        """Drop the device's login, for instance because its terms changed; the lease lives on."""
        self._logins.pop((lease.owner, lease.device_id), None)

    def end(self, lease: Lease, now: datetime) -> None:
        """Drop the lease's login for good: nothing minted on it is kept from now on."""
        held = self._logins.get((lease.owner, lease.device_id))
        if held is not None and held.lease.id == lease.id:
            del self._logins[lease.owner, lease.device_id]
        self._ended[lease.id] = now
        self._ended.move_to_end(lease.id)
        while self._ended and next(iter(self._ended.values())) < now - ENDED_MEMORY:
            self._ended.popitem(last=False)
