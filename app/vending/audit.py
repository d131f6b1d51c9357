"""Audit: every decision is recorded once, with its actor, user, action, reason and outcome. Adapters store the events.

A decision holds no secret. For a login token it holds the hash, so that a leaked token can be traced to the request
that it was issued for.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from app.vending.errors import AccessDenied, DialtoneError, LogoutTokenRejected, RateLimited, TokenRejected
from app.vending.grants.models import GRANT_ISSUERS
from app.vending.models import IssueSource, UserKey
from app.vending.telephony.lease import Lease
from app.vending.visibility import ALL_ISSUERS, Visibility


class AuditAction(StrEnum):
    """The kind of a decision."""

    ISSUED = "issued"
    """A device got a new or pooled credential."""
    REUSED = "reused"
    """A device got its cached login."""
    RENEWED = "renewed"
    """A device got a new login on its existing credential, or the credential's terms changed."""
    DENIED = "denied"
    """A request was denied or failed."""
    REVOKED = "revoked"
    """Devices were logged out by their user, an operator, the identity provider or the device limit."""
    SWEPT = "swept"
    """A credential was deleted at Telnyx because its lease had ended or because it had no lease."""
    PUSH_CHANGED = "push_changed"
    """A push credential was registered, replaced, removed or attached."""
    GRANT_MINTED = "grant_minted"
    """A backend vouched for a user or a guest."""
    GRANT_USED = "grant_used"
    """A device used a grant first. The grant is bound to it."""
    GRANT_REVOKED = "grant_revoked"
    """A grant was revoked by its backend or an operator."""
    ADMIN_ACTION = "admin_action"
    """Any other operator action."""


class AuditOutcome(StrEnum):
    DONE = "done"
    UNCONFIRMED = "unconfirmed"
    """Recorded in the ledger; Telnyx has not confirmed it yet."""
    DENIED = "denied"
    """Denied by policy, authentication or a rate limit."""
    FAILED = "failed"
    """Failed because of an error of Telnyx, the ledger or the identity provider."""


_ACTIONS = {
    IssueSource.CACHED: AuditAction.REUSED,
    IssueSource.RENEWED: AuditAction.RENEWED,
    IssueSource.POOLED: AuditAction.ISSUED,
    IssueSource.CREATED: AuditAction.ISSUED,
}


class RequestContext(NamedTuple):
    """The request that led to a decision. For a CLI command, the actor is the shell user with the issuer `shell`."""

    request_id: str | None = None
    client_address: str | None = None
    user_agent: str | None = None
    """As sent by the caller; not verified."""
    actor: UserKey | None = None
    """The authenticated caller. None before authentication, and for actions of the service itself."""


NO_REQUEST = RequestContext()
REQUEST_CONTEXT: ContextVar[RequestContext] = ContextVar("request_context", default=NO_REQUEST)
"""Context of the request or command that the current task serves."""


RepeatKey = tuple[str | None, str | None, str | None]
"""Lease id, client address and user agent. The same login sent elsewhere is a new event."""


def repeat_key(lease_id: str | None) -> RepeatKey:
    """The lease's key in the current request context."""
    context = REQUEST_CONTEXT.get()
    return lease_id, context.client_address, context.user_agent


NO_DETAILS: Mapping[str, str | int] = MappingProxyType({})


class Decision(NamedTuple):
    """One decision, before it gets an id and a time."""

    action: AuditAction
    outcome: AuditOutcome = AuditOutcome.DONE
    reason: str | None = None
    """A short internal code."""
    user_key: UserKey | None = None
    """The user that owns the device or push credential."""
    device_id: str | None = None
    lease_id: str | None = None
    token_sha256: str | None = None
    """Hash of the login token that was returned."""
    source: IssueSource | None = None
    seconds: float | None = None
    """How long it took to return the login."""
    details: Mapping[str, str | int] = NO_DETAILS

    @property
    def is_denial(self) -> bool:
        return self.action is AuditAction.DENIED

    @classmethod
    def about_lease(
        cls, lease: Lease, action: AuditAction, reason: str, outcome: AuditOutcome = AuditOutcome.DONE
    ) -> "Decision":
        user_key = None if lease.is_unassigned else lease.user_key
        return cls(action, outcome, reason, user_key, lease.device_id, lease.id)

    @classmethod
    def login_returned(cls, lease: Lease, source: IssueSource, seconds: float, token_sha256: str | None) -> "Decision":
        """A returned login. Without a token it is the SIP password, of which nothing is recorded here."""
        return cls(
            _ACTIONS[source],
            reason="sip_password" if token_sha256 is None else "login_token",
            user_key=lease.user_key,
            device_id=lease.device_id,
            lease_id=lease.id,
            token_sha256=token_sha256,
            source=source,
            seconds=seconds,
            details={"grant_id": lease.session} if lease.session and lease.issuer in GRANT_ISSUERS else NO_DETAILS,
        )

    @classmethod
    def denial(cls, error: DialtoneError, user_key: UserKey | None, device_id: str | None = None) -> "Decision":
        """A denied or failed request. The reason is the error's own code, or else its class name."""
        if isinstance(error, TokenRejected | LogoutTokenRejected):
            return cls(
                AuditAction.DENIED, AuditOutcome.DENIED, error.reason, user_key, device_id, details=error.expected
            )
        outcome = AuditOutcome.DENIED if isinstance(error, AccessDenied | RateLimited) else AuditOutcome.FAILED
        rule = error.rule if isinstance(error, AccessDenied) else None
        details = {} if rule is None else {"rule": rule}
        return cls(AuditAction.DENIED, outcome, type(error).__name__, user_key, device_id, details=details)


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A decision with its id, time and request context."""

    id: str
    at: datetime
    decision: Decision
    context: RequestContext

    def visible_to(self, visibility: Visibility) -> "AuditEvent":
        """The event without its caller, if the caller belongs to an issuer that is not visible."""
        actor = self.context.actor
        if actor is None or visibility.includes(actor.issuer):
            return self
        return replace(self, context=RequestContext(self.context.request_id))

    def flat(self) -> dict[str, Any]:
        """One flat dict for tables, log lines and responses. `issuer` and `subject` name the user that it is about."""
        decision, context = self.decision, self.context
        user_key, actor = decision.user_key, context.actor
        return {
            "id": self.id,
            "at": self.at,
            "action": decision.action.value,
            "outcome": decision.outcome.value,
            "reason": decision.reason,
            "issuer": user_key and user_key.issuer,
            "subject": user_key and user_key.subject,
            "device_id": decision.device_id,
            "lease_id": decision.lease_id,
            "token_sha256": decision.token_sha256,
            "actor_issuer": actor and actor.issuer,
            "actor_subject": actor and actor.subject,
            "request_id": context.request_id,
            "client_address": context.client_address,
            "user_agent": context.user_agent,
            "details": dict(decision.details),
        }


@dataclass(frozen=True, slots=True)
class ActivityCount:
    """Number of events of one kind in one minute, on all replicas."""

    minute: datetime
    action: AuditAction
    outcome: AuditOutcome
    events: int


@dataclass(frozen=True, slots=True)
class AuditCriteria:
    """Filter for audit events. None matches every value."""

    issuer: str | None = None
    subject: str | None = None
    """The user that the event is about, or its actor."""
    device_id: str | None = None
    lease_id: str | None = None
    action: AuditAction | None = None
    outcome: AuditOutcome | None = None
    request_id: str | None = None
    token_sha256: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    visibility: Visibility = ALL_ISSUERS
    """Only events about these issuers match, and callers of other issuers match no filter."""


class Audit(Protocol):
    """Records decisions."""

    def record_nowait(self, decision: Decision) -> None:
        """Record without waiting for the result: for denials, and for actions of the service itself."""

    def is_repeat(self, going: RepeatKey, seconds: float) -> bool:
        """Whether this login was returned under the same key a moment ago.

        A repeat is only counted, and the next event that is not a repeat includes the count. Always False if the audit
        is required.
        """

    async def record(self, decision: Decision) -> None:
        """Record before the outcome is returned. If the audit is required, raises AuditUnavailable on failure."""
