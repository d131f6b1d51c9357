"""Every error of Dialtone. The docstring of a class is its message, and the title of its problem document.

    DialtoneError
    |-- TokenRejected             the access token is invalid or no longer accepted
    |-- LogoutTokenRejected       the identity provider's logout token is invalid
    |-- IdentityUnavailable       no key is available to verify a token
    |   `-- SigningKeyPending     the token's key is unknown until the next fetch of the keys
    |-- AccessDenied              policy denies an authenticated caller's request
    |   |-- InsufficientScope
    |   |-- GrantNotAllowed
    |   |-- DeviceLimitReached
    |   |-- PushNotAllowed
    |   `-- PushLimitReached
    |-- IssuerNotFound            an operator named an issuer that is not configured
    |-- NotBeforeInFuture         an operator's not-before is later than now
    |-- ConfirmationRequired      an operator's request lacks its confirmation
    |-- LeaseNotFound
    |-- LeaseEnded                revoked or expired
    |-- SweepNotFound
    |-- GrantNotFound             the grant does not exist, or another backend minted it
    |-- PushMaterialRejected      the push material has faults, each with its own code
    |-- PushCredentialNotFound
    |-- PushAliasTaken            the user's alias belongs to other material
    |-- PushTypeMismatch
    |-- ConnectionNotFound        an operator named a connection that does not exist at Telnyx
    |-- OutboundRequirementNotMet the user's connection does not meet the policy rule's requirement
    |-- OutboundLimitsUnknown     Telnyx rejects reading the limits that the requirement is about
    |-- IssueInProgress           the login is still being created
    |-- LedgerUnavailable
    |-- AuditUnavailable          the audit is required and unavailable
    |-- Overloaded                the service has more requests than it can queue
    |-- RateLimited               more requests than a limit allows
    |-- LedgerMismatch            orphans are not deleted if the ledger has never had a lease
    |-- LeaseConflict             internal: another writer changed the row first
    |-- LeaseExists               internal: the device has a live lease already
    |-- PushConflict              internal: another writer changed the row first
    `-- TelnyxError
        |-- TelnyxKeyRejected     401
        |-- TelnyxForbidden       403
        |-- TelnyxNotFound        404
        |-- TelnyxRejected        422 and other 4xx
        |   `-- CredentialExpired
        |-- TelnyxRateLimited     429
        |-- TelnyxServerError     5xx
        |-- TelnyxUnreachable     no response
        `-- TelnyxResponseInvalid a response that cannot be parsed

`api/problems.py` maps errors to status codes.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from app.vending.models import RateLimitStatus
from app.vending.push.material_errors import MaterialFault

NOTHING_EXPECTED: Mapping[str, str] = MappingProxyType({})


class DialtoneError(Exception):
    """The request failed."""

    is_jittered = False
    """Whether `retry_after_seconds` already includes jitter, so that callers do not retry at the same time."""

    is_recorded = False
    """Whether an audit event was already recorded for this error, with more context than the API layer has."""

    def __init__(self, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(type(self).__doc__)
        self.retry_after_seconds = retry_after_seconds


class TokenRejected(DialtoneError):
    """The bearer token is missing, malformed, expired, or not meant for this service."""

    def __init__(self, reason: str) -> None:
        """`reason` is an internal code such as `expired` or `bad_signature`: logged, never returned to the caller."""
        super().__init__()
        self.reason = reason
        self.expected: Mapping[str, str] = NOTHING_EXPECTED
        """The requirement of the configuration, for the log. Contains no part of the token."""


class LogoutTokenRejected(DialtoneError):
    """The logout token is malformed, is not meant for this service, or was used before."""

    def __init__(self, reason: str, expected: Mapping[str, str] = NOTHING_EXPECTED) -> None:
        """`reason` is an internal code for the log, `expected` as in TokenRejected."""
        super().__init__()
        self.reason = reason
        self.expected = expected


class IdentityUnavailable(DialtoneError):
    """The identity provider's signing keys are unavailable."""


class SigningKeyPending(IdentityUnavailable):
    """The token's signing key is unknown, and the keys were fetched too recently to fetch them again."""


class AccessDenied(DialtoneError):
    """The policy denies this request."""

    def __init__(self, rule: str | None = None) -> None:
        """`rule` is the name of the rule that denies; None if no rule matches."""
        super().__init__()
        self.rule = rule


class InsufficientScope(AccessDenied):
    """The token lacks a scope that this operation requires."""

    def __init__(self, needed: frozenset[str]) -> None:
        super().__init__()
        self.needed = needed


class GrantNotAllowed(AccessDenied):
    """The policy does not allow the login method in `grant`."""


class DeviceLimitReached(AccessDenied):
    """The user has reached the device limit. Log out another device first."""


class IssuerNotFound(DialtoneError):
    """No issuer of that name is configured."""


class ConfirmationRequired(DialtoneError):
    """This operation requires a confirmation. Send the deployment's namespace (DIALTONE_NAMESPACE) as `confirm`."""


class NotBeforeInFuture(DialtoneError):
    """The not-before cannot be in the future: it would reject tokens that are not issued yet."""


class PushNotAllowed(AccessDenied):
    """The policy does not allow this user to register push credentials."""


class PushLimitReached(AccessDenied):
    """The user has reached the maximum number of push credentials. Delete one first."""


class LeaseNotFound(DialtoneError):
    """The telephony credential does not exist."""


class LeaseEnded(DialtoneError):
    """The telephony credential has ended. Request a new one for the device."""


class SweepNotFound(DialtoneError):
    """The sweep does not exist. Old sweeps are deleted."""


class GrantNotFound(DialtoneError):
    """The grant does not exist."""


class PushMaterialRejected(DialtoneError):
    """The push material does not meet Telnyx's requirements."""

    def __init__(self, faults: Sequence[MaterialFault]) -> None:
        """`faults` holds fault codes and Dialtone's field names, and no part of the material."""
        super().__init__()
        self.faults = tuple(faults)


class PushCredentialNotFound(DialtoneError):
    """The push credential does not exist."""


class PushAliasTaken(DialtoneError):
    """The alias belongs to another push credential. Replace it with PUT at the URL in Location."""

    def __init__(self, registration_id: str) -> None:
        super().__init__()
        self.registration_id = registration_id


class PushTypeMismatch(DialtoneError):
    """A push credential of one platform cannot replace one of another platform."""


class ConnectionNotFound(DialtoneError):
    """The connection does not exist at Telnyx."""


class PushConflict(DialtoneError):
    """Another writer changed this push credential first."""


class IssueInProgress(DialtoneError):
    """The login for this device is still being created. Retry shortly."""


class OutboundRequirementNotMet(DialtoneError):
    """The user's Telnyx connection does not meet the policy's outbound requirement. An operator must correct this."""


class OutboundLimitsUnknown(DialtoneError):
    """The outbound limits of the user's Telnyx connection cannot be read. An operator must correct this."""


class LedgerUnavailable(DialtoneError):
    """The ledger is unavailable. Nothing was changed."""


class AuditUnavailable(DialtoneError):
    """The audit is unavailable, and this deployment requires it. Retry."""


class Overloaded(DialtoneError):
    """The service is overloaded. Retry after the time in Retry-After."""


class RateLimited(DialtoneError):
    """Too many requests. Retry after the time in Retry-After."""

    def __init__(self, *, retry_after_seconds: float, rate_limit: RateLimitStatus | None = None) -> None:
        """`rate_limit` is the caller's own status; None for a caller without a valid token."""
        super().__init__(retry_after_seconds=retry_after_seconds)
        self.rate_limit = rate_limit


class LedgerMismatch(DialtoneError):
    """The ledger has never had a lease, but Telnyx has credentials of this namespace. It may be the wrong ledger."""


class LeaseConflict(DialtoneError):
    """Another writer changed this lease first."""


class LeaseExists(DialtoneError):
    """The device already has a live lease."""


class TelnyxError(DialtoneError):
    """The call to Telnyx failed."""

    may_have_happened = False
    """Whether Telnyx may have executed the call without confirming it."""


class TelnyxKeyRejected(TelnyxError):
    """Telnyx rejected the API key of this service."""


class TelnyxForbidden(TelnyxError):
    """The API key of this service is not permitted to perform this operation at Telnyx."""


class TelnyxNotFound(TelnyxError):
    """The object does not exist at Telnyx."""


class TelnyxRejected(TelnyxError):
    """Telnyx rejected the request."""


class CredentialExpired(TelnyxRejected):
    """The credential has expired at Telnyx. This is final."""


class TelnyxRateLimited(TelnyxError):
    """The Telnyx rate limit is exhausted. Retry after the time in Retry-After."""

    def __init__(self, *, retry_after_seconds: float | None = None, is_spread: bool = False) -> None:
        super().__init__(retry_after_seconds=retry_after_seconds)
        self.is_spread = is_spread


class TelnyxServerError(TelnyxError):
    """Telnyx returned a server error."""

    may_have_happened = True


class TelnyxUnreachable(TelnyxError):
    """Telnyx did not respond in time."""

    def __init__(self, *, may_have_happened: bool, retry_after_seconds: float | None = None) -> None:
        """`may_have_happened` is False only if the request was never sent: DNS, connection or TLS failed."""
        super().__init__(retry_after_seconds=retry_after_seconds)
        self.may_have_happened = may_have_happened


class TelnyxResponseInvalid(TelnyxError):
    """Telnyx's response could not be parsed."""

    may_have_happened = True
