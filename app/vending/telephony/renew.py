"""Renewing leases: the expiry at Telnyx and in the ledger, and the end of a lease without a usable credential."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from app.vending.errors import CredentialExpired, LeaseEnded, TelnyxNotFound
from app.vending.models import Credential, Principal
from app.vending.telephony.lease import Lease
from app.vending.telephony.login_cache import LoginCache


class RenewLedger(Protocol):
    async def advance(self, before: Lease, after: Lease, principal: Principal | None = None) -> Lease: ...


class RenewTelnyx(Protocol):
    async def extend(self, credential_id: str, expires_at: datetime) -> Credential:
        """Raises CredentialExpired or TelnyxNotFound if the credential can no longer be extended."""


class LeaseRenewer:
    """Changes ACTIVE leases."""

    def __init__(
        self, ledger: RenewLedger, telnyx: RenewTelnyx, login_cache: LoginCache, clock: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._telnyx = telnyx
        self._login_cache = login_cache
        self._clock = clock

    async def set_expiry(self, lease: Lease, until: datetime) -> Lease:
        """Set a new expiry. The ledger is shortened before Telnyx and lengthened after it.

        So no response promises a longer lifetime than Telnyx grants. Raises LeaseEnded if the credential has expired or
        is gone at Telnyx, after the ledger has recorded that.
        """
        credential_id = credential_of(lease)
        if until < lease.expires_at:
            lease = await self.change(lease, lease.extend(until, self._clock()))
        try:
            credential = await self._telnyx.extend(credential_id, until)
        except CredentialExpired:
            await self.change(lease, lease.mark_expired(self._clock()))
            raise LeaseEnded from None
        except TelnyxNotFound:
            await self.change(lease, lease.mark_lost(self._clock()))
            raise LeaseEnded from None
        until = min(until, credential.expires_at or until)
        if until == lease.expires_at:
            return lease
        return await self.change(lease, lease.extend(until, self._clock()))

    async def change(self, before: Lease, after: Lease, principal: Principal | None = None) -> Lease:
        """Commit the change or the end of an ACTIVE lease, and apply it to the login cache. Raises LeaseConflict.

        With a principal, raises TokenRejected if their token was rejected since it was verified, by a logout for
        instance.
        """
        lease = await self._ledger.advance(before, after, principal)
        self._login_cache.update(lease, self._clock())
        return lease


def credential_of(lease: Lease) -> str:
    """Telnyx's id of an ACTIVE lease's credential."""
    if lease.credential_id is None:
        raise AssertionError("an ACTIVE lease has a credential")
    return lease.credential_id
