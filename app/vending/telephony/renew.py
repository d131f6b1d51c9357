"""A credential's expiry, at Telnyx and in the ledger together; and the end of a lease whose credential is no more."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from app.vending.errors import CarrierNotFound, CredentialExpired, LeaseEnded
from app.vending.models import Credential
from app.vending.telephony.lease import Lease
from app.vending.telephony.login_cache import LoginsAtHand


class Ledger(Protocol):
    async def advance(self, before: Lease, after: Lease) -> Lease: ...


class Carrier(Protocol):
    async def extend(self, credential_id: str, expires_at: datetime) -> Credential:
        """Raises CredentialExpired or CarrierNotFound when there is nothing left to extend."""


class Expiry:
    """Sets when an ACTIVE lease ends."""

    def __init__(self, ledger: Ledger, carrier: Carrier, at_hand: LoginsAtHand, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._carrier = carrier
        self._at_hand = at_hand
        self._clock = clock

    async def set(self, lease: Lease, until: datetime) -> Lease:
        """Shorten in the ledger before Telnyx, lengthen after: no answer ever promises more than Telnyx keeps.

        Raises LeaseEnded if the credential has expired or is gone at Telnyx; the ledger says so then.
        """
        credential_id = credential_of(lease)
        if until < lease.expires_at:
            lease = await self._ledger.advance(lease, lease.extended(until, self._clock()))
            self._at_hand.forget(lease)
        try:
            credential = await self._carrier.extend(credential_id, until)
        except CredentialExpired:
            await self.end(lease, lease.expired(self._clock()))
            raise LeaseEnded from None
        except CarrierNotFound:
            await self.end(lease, lease.lost(self._clock()))
            raise LeaseEnded from None
        until = min(until, credential.expires_at or until)
        if until == lease.expires_at:
            return lease
        return await self._ledger.advance(lease, lease.extended(until, self._clock()))

    async def end(self, lease: Lease, ended: Lease) -> None:
        """Write the end down, and hand out nothing more that was minted on it."""
        await self._ledger.advance(lease, ended)
        self._at_hand.end(lease, self._clock())


def credential_of(lease: Lease) -> str:
    """Telnyx's id of an ACTIVE lease's credential."""
    if lease.credential_id is None:
        raise AssertionError("an ACTIVE lease has a credential")
    return lease.credential_id
