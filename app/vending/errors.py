"""Everything Dialtone says no with. A class's docstring is its message, and is safe to show to anybody.

    DialtoneError
    |-- TokenRefused              the caller is not who the token says, or not any more
    |-- LogoutRefused             an identity provider's logout token that is none, or was used before
    |-- IdentityUnavailable       no key to check a token with yet
    |-- Refused                   known caller, not allowed
    |   |-- InsufficientScope
    |   |-- GrantNotAllowed
    |   |-- DeviceLimitReached
    |   |-- PushNotAllowed
    |   `-- PushLimitReached
    |-- UnknownIssuer             an operator named one that is not configured
    |-- NotBeforeInFuture         an operator would shut out tokens that are not issued yet
    |-- NotConfirmed              an operator's act that reaches many lacks its confirmation
    |-- LeaseNotFound
    |-- LeaseEnded                theirs, but logged out or expired
    |-- SweepNotFound
    |-- MaterialRefused           push material with faults, each with its own code
    |-- PushNotFound
    |-- PushAliasTaken            theirs, with other material
    |-- PushTypeMismatch
    |-- ConnectionNotFound        an operator named one that Telnyx does not know
    |-- Busy                      the answer is being made elsewhere and took too long
    |-- LedgerUnavailable
    |-- AuditUnavailable          where audit is required
    |-- RateLimited               more requests than a limit allows
    |-- LedgerLooksWrong          an operator would delete by a ledger that never held a lease
    |-- LeaseMoved                internal: another writer was first
    |-- LeaseTaken                internal: the device has a live lease already
    |-- PushMoved                 internal: another writer was first
    `-- CarrierError
        |-- CarrierKeyRefused     401
        |-- CarrierForbidden      403
        |-- CarrierNotFound       404
        |-- CarrierRejected       422 and other 4xx
        |   `-- CredentialExpired
        |-- CarrierThrottled      429
        |-- CarrierFailed         5xx
        |-- CarrierUnreachable    no answer
        `-- CarrierUnreadable     an answer that says nothing we can use

Status codes are the API's business (`api/problems.py`).
"""

from collections.abc import Sequence
from typing import Protocol

from app.vending.models import Standing


class MaterialFault(Protocol):
    """What `push_faults` says of one field."""

    @property
    def code(self) -> str: ...
    @property
    def field(self) -> str: ...
    @property
    def sentence(self) -> str: ...


class DialtoneError(Exception):
    """Dialtone could not do this."""

    is_spread = False
    """Whether `retry_after_seconds` differs from caller to caller already, so that they do not come back in step."""

    is_noted = False
    """Whether the audit was told of it, where more was known than at the edge."""

    def __init__(self, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(type(self).__doc__)
        self.retry_after_seconds = retry_after_seconds


class TokenRefused(DialtoneError):
    """The bearer token is missing, malformed, expired, or not meant for this service."""

    def __init__(self, reason: str) -> None:
        """`reason` is a short code of ours (`expired`, `bad_signature`): for the log, never for the answer."""
        super().__init__()
        self.reason = reason


class LogoutRefused(DialtoneError):
    """The logout token is malformed, not meant for this service, or was used before."""

    def __init__(self, reason: str) -> None:
        """`reason` is a short code of ours, for the log."""
        super().__init__()
        self.reason = reason


class IdentityUnavailable(DialtoneError):
    """The identity provider's keys cannot be had at the moment."""


class Refused(DialtoneError):
    """Policy does not allow this."""


class InsufficientScope(Refused):
    """The token lacks a scope that this call needs."""

    def __init__(self, needed: frozenset[str]) -> None:
        super().__init__()
        self.needed = needed


class GrantNotAllowed(Refused):
    """Policy does not allow this grant."""


class DeviceLimitReached(Refused):
    """This user already has as many devices as policy allows; log one out first."""


class UnknownIssuer(DialtoneError):
    """No issuer of that name is configured."""


class NotConfirmed(DialtoneError):
    """This reaches more than one user: send the deployment's namespace (DIALTONE_NAMESPACE) as `confirm`."""


class NotBeforeInFuture(DialtoneError):
    """A mark cannot lie in the future: it would refuse tokens that are not issued yet."""


class PushNotAllowed(Refused):
    """Policy does not let this user register push credentials."""


class PushLimitReached(Refused):
    """This user has as many push credentials as a user can have; delete one first."""


class LeaseNotFound(DialtoneError):
    """There is no such telephony credential."""


class LeaseEnded(DialtoneError):
    """This telephony credential has ended; ask for a new one for the device."""


class SweepNotFound(DialtoneError):
    """There is no such sweep; old ones are forgotten."""


class MaterialRefused(DialtoneError):
    """The push material is not what Telnyx needs."""

    def __init__(self, faults: Sequence[MaterialFault]) -> None:
        """`faults` holds codes and field names of ours; nothing of the material."""
        super().__init__()
        self.faults = tuple(faults)


class PushNotFound(DialtoneError):
    """There is no such push credential."""


class PushAliasTaken(DialtoneError):
    """You have other material under this alias; replace it with PUT at the address in Location."""

    def __init__(self, registration_id: str) -> None:
        super().__init__()
        self.registration_id = registration_id


class PushTypeMismatch(DialtoneError):
    """A push credential of one platform cannot take the place of the other's."""


class ConnectionNotFound(DialtoneError):
    """The telephony carrier does not know that connection."""


class PushMoved(DialtoneError):
    """Another writer changed this push credential first."""


class Busy(DialtoneError):
    """The login for this device is still being made; ask again shortly."""


class LedgerUnavailable(DialtoneError):
    """The ledger cannot be reached, so nothing can be written down; nothing was done."""


class AuditUnavailable(DialtoneError):
    """What was decided cannot be written down in the audit, which this deployment requires; try again."""


class RateLimited(DialtoneError):
    """Too many requests; come back when Retry-After says so."""

    def __init__(self, *, retry_after_seconds: float, standing: Standing | None = None) -> None:
        """`standing` is the caller's own; of a stranger's there is nothing to tell."""
        super().__init__(retry_after_seconds=retry_after_seconds)
        self.standing = standing


class LedgerLooksWrong(DialtoneError):
    """The ledger never held a lease, and yet there are credentials of this namespace: it may be the wrong one."""


class LeaseMoved(DialtoneError):
    """Another writer changed this lease first."""


class LeaseTaken(DialtoneError):
    """The device already has a live lease."""


class CarrierError(DialtoneError):
    """The telephony carrier did not do what was asked."""

    may_have_happened = False
    """Whether the carrier may have carried the call out although it did not say so."""


class CarrierKeyRefused(CarrierError):
    """The telephony carrier does not accept this service's key."""


class CarrierForbidden(CarrierError):
    """The telephony carrier forbids this to this service's key."""


class CarrierNotFound(CarrierError):
    """The telephony carrier does not know the object."""


class CarrierRejected(CarrierError):
    """The telephony carrier rejected the request."""


class CredentialExpired(CarrierRejected):
    """The credential has expired at the telephony carrier, which is final."""


class CarrierThrottled(CarrierError):
    """The telephony carrier asks for fewer requests."""

    def __init__(self, *, retry_after_seconds: float | None = None, is_spread: bool = False) -> None:
        super().__init__(retry_after_seconds=retry_after_seconds)
        self.is_spread = is_spread


class CarrierFailed(CarrierError):
    """The telephony carrier had an error of its own."""

    may_have_happened = True


class CarrierUnreachable(CarrierError):
    """The telephony carrier did not answer in time."""

    def __init__(self, *, may_have_happened: bool, retry_after_seconds: float | None = None) -> None:
        """`may_have_happened` is False only where the request certainly never left: name, route or TLS failed."""
        super().__init__(retry_after_seconds=retry_after_seconds)
        self.may_have_happened = may_have_happened


class CarrierUnreadable(CarrierError):
    """The telephony carrier's answer could not be understood."""

    may_have_happened = True
