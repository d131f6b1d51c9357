"""The shared login cache: encrypted logins in a store, which all replicas share. Without an entry, Dialtone mints."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from app.adapters.login_cache.sealing import InvalidEntry, LoginSealer
from app.vending.service_status import SharedLoginCacheStatus
from app.vending.telephony.lease import Lease, LeaseVersion
from app.vending.telephony.login_cache import Login

MAX_DELETIONS = 20_000
"""Entries of ended leases that wait for their deletion. Beyond this, the oldest expire by themselves."""

DELETION_BATCH_SIZE = 500

MAX_ENTRY_BYTES = 16 * 1024
"""A login token has about one kilobyte. More bytes of an entry are not read."""


class StoreFailed(Exception):
    """The call to the store failed."""

    def __init__(self, reason: str) -> None:
        """`reason` is a word for a metric."""
        super().__init__(reason)
        self.reason = reason


class StoreUnavailable(StoreFailed):
    """The call was not made, because the store is unavailable."""

    def __init__(self) -> None:
        super().__init__("unavailable")


class LoginStore(Protocol):
    """Values by name. Every method that raises raises StoreFailed."""

    @property
    def is_available(self) -> bool:
        """False until `probe` has succeeded, and after failures."""

    def use_login(self, url: str) -> None:
        """Connect with this address at the next `probe`; until then, the store is unavailable."""

    async def get(self, name: str) -> bytes | None:
        """The value, of which at most one byte more than MAX_ENTRY_BYTES is read; None if there is none."""

    async def put(self, name: str, value: bytes, expires_in_ms: int) -> None: ...

    async def delete(self, names: Sequence[str]) -> None: ...

    async def check(self) -> None:
        """Write and read one value."""

    async def probe(self) -> None:
        """Check an unavailable store. Never raises."""

    async def close(self) -> None: ...


class SharedLoginCache:
    """Logins that all replicas share."""

    def __init__(self, store: LoginStore, sealer: LoginSealer, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._hits = 0
        self._misses = 0
        self._failures: Counter[str] = Counter()
        self._deletions: OrderedDict[str, None] = OrderedDict()

    @property
    def status(self) -> SharedLoginCacheStatus:
        return SharedLoginCacheStatus(self._store.is_available, self._hits, self._misses, dict(self._failures))

    def use_login(self, url: str) -> None:
        """Use this address from the next `maintain` on. It differs in the user or the password only."""
        self._store.use_login(url)

    async def get(self, lease: Lease) -> Login | None:
        """The login of this version of the lease, unless its device should refresh it. The lease is from the ledger."""
        login = await self._find(lease)
        if login is None or self._clock() >= login.refresh_after:
            self._misses += 1
            return None
        self._hits += 1
        return login

    async def put(self, login: Login) -> None:
        """Store a login with a token until its device should refresh it."""
        lifetime = (login.refresh_after - self._clock()) // timedelta(milliseconds=1)
        if lifetime > 0:
            try:
                await self._store.put(self._sealer.names(login.lease)[0], self._sealer.seal(login), lifetime)
            except StoreFailed as error:
                self._count(error)

    def discard(self, lease: Lease | LeaseVersion) -> None:
        """Delete the entry of a lease that has ended, with the next `maintain`. No request uses it any more."""
        for name in self._sealer.names(lease):
            self._deletions[name] = None
        while len(self._deletions) > MAX_DELETIONS:
            self._deletions.popitem(last=False)

    async def maintain(self) -> None:
        """Probe the store if it is unavailable, and delete entries of ended leases. Never raises."""
        if not self._store.is_available:
            await self._store.probe()
        while self._deletions:
            names = list(self._deletions)[:DELETION_BATCH_SIZE]
            try:
                await self._store.delete(names)
            except StoreFailed as error:
                self._count(error)
                return
            for name in names:
                self._deletions.pop(name, None)

    async def check(self) -> str | None:
        """Why the store cannot be used; None if it can."""
        try:
            await self._store.check()
        except StoreFailed as error:
            return error.reason
        return None

    async def close(self) -> None:
        await self._store.close()

    async def _find(self, lease: Lease) -> Login | None:
        for number, name in enumerate(self._sealer.names(lease)):
            try:
                entry = await self._store.get(name)
                if entry is None:
                    continue
                if len(entry) > MAX_ENTRY_BYTES:
                    raise StoreFailed("oversized")
                return self._sealer.open(lease, number, entry)
            except InvalidEntry:
                self._failures["invalid"] += 1
            except StoreFailed as error:
                self._count(error)
        return None

    def _count(self, error: StoreFailed) -> None:
        if not isinstance(error, StoreUnavailable):
            self._failures[error.reason] += 1
