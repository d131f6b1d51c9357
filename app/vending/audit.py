"""Auditing: every decision is told once, with who, what, why and the outcome. Who listens is not decided here.

A decision holds no secret: of a login token that was handed out it has the hash, so that a token found somewhere can be
traced to the request that it was made for.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from app.vending.errors import AccessDenied, DialtoneError, LogoutTokenRejected, RateLimited, TokenRejected
from app.vending.models import IssueSource, UserKey
from app.vending.telephony.lease import Lease


class AuditAction(StrEnum):
    """What was decided."""

    ISSUED = "issued"
    """A device came to have a credential."""
    REUSED = "reused"
    """It got the login that was at hand."""
    RENEWED = "renewed"
    """It got a new login on the credential that it had, or other terms for it."""
    DENIED = "denied"
    """Somebody asked for what they could not have."""
    REVOKED = "revoked"
    """Devices were logged out, by their user, an operator, the identity provider or the device limit."""
    SWEPT = "swept"
    """A credential was deleted at Telnyx after its lease had ended, or because no lease stood for it."""
    PUSH_CHANGED = "push_changed"
    """A push credential was registered, replaced, removed or attached."""
    ADMIN_ACTION = "admin_action"
    """An operator's other acts."""


class AuditOutcome(StrEnum):
    DONE = "done"
    UNCONFIRMED = "unconfirmed"
    """Written down here; Telnyx has yet to confirm."""
    DENIED = "denied"
    """By a rule."""
    FAILED = "failed"
    """By trouble: Telnyx, the ledger or the identity provider."""


_ACTIONS = {
    IssueSource.CACHED: AuditAction.REUSED,
    IssueSource.RENEWED: AuditAction.RENEWED,
    IssueSource.POOLED: AuditAction.ISSUED,
    IssueSource.CREATED: AuditAction.ISSUED,
}


class RequestContext(NamedTuple):
    """How a decision came to be asked for. A command's actor is the user of the shell, under the issuer `shell`."""

    request_id: str | None = None
    client_address: str | None = None
    user_agent: str | None = None
    """As the caller says."""
    actor: UserKey | None = None
    """Who asks, proved. None: nobody yet, or the service itself."""


NO_REQUEST = RequestContext()
REQUEST_CONTEXT: ContextVar[RequestContext] = ContextVar("circumstances", default=NO_REQUEST)
"""Of the request, or the command, that the current task serves."""


RepeatKey = tuple[str | None, str | None, str | None]
"""A lease, and the address and user agent that its login goes to: from elsewhere it is another event at once."""


def repeat_key(lease_id: str | None) -> RepeatKey:
    """In the circumstances of now."""
    context = REQUEST_CONTEXT.get()
    return lease_id, context.client_address, context.user_agent


class Decision(NamedTuple):
    """One thing that was decided."""

    action: AuditAction
    outcome: AuditOutcome = AuditOutcome.DONE
    reason: str | None = None
    """A short code of ours."""
    user_key: UserKey | None = None
    """Whose device or push credential it is about."""
    device_id: str | None = None
    lease_id: str | None = None
    token_sha256: str | None = None
    """Of the login token that was handed out."""
    source: IssueSource | None = None
    seconds: float | None = None
    """What it took to give a login."""
    details: Mapping[str, str | int] = MappingProxyType({})

    @property
    def is_refusal(self) -> bool:
        return self.action is AuditAction.DENIED

    @classmethod
    def about_lease(
        cls, lease: Lease, action: AuditAction, reason: str, outcome: AuditOutcome = AuditOutcome.DONE
    ) -> "Decision":
        user_key = None if lease.is_unassigned else lease.user_key
        return cls(action, outcome, reason, user_key, lease.device_id, lease.id)

    @classmethod
    def login_returned(cls, lease: Lease, source: IssueSource, seconds: float, token_sha256: str | None) -> "Decision":
        """A login. Without a token it was the SIP password, which leaves no trace here."""
        grant = "sip_password" if token_sha256 is None else "login_token"
        return cls(
            _ACTIONS[source],
            reason=grant,
            user_key=lease.user_key,
            device_id=lease.device_id,
            lease_id=lease.id,
            token_sha256=token_sha256,
            source=source,
            seconds=seconds,
        )

    @classmethod
    def denial(cls, error: DialtoneError, user_key: UserKey | None, device_id: str | None = None) -> "Decision":
        """A refusal, or a failure; the reason is the error's own code or name."""
        is_rule = isinstance(error, AccessDenied | TokenRejected | LogoutTokenRejected | RateLimited)
        reason = error.reason if isinstance(error, TokenRejected | LogoutTokenRejected) else type(error).__name__
        return cls(
            AuditAction.DENIED, AuditOutcome.DENIED if is_rule else AuditOutcome.FAILED, reason, user_key, device_id
        )


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A decision, when it was made, and how it came to be asked for."""

    id: str
    at: datetime
    decision: Decision
    context: RequestContext

    def flat(self) -> dict[str, Any]:
        """Field by field, for tables, lines and answers. `issuer` and `subject` are whom it was about."""
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
    """How many events of one kind there were in one minute, on all replicas."""

    minute: datetime
    action: AuditAction
    outcome: AuditOutcome
    events: int


@dataclass(frozen=True, slots=True)
class AuditCriteria:
    """Which events; what is None does not matter."""

    issuer: str | None = None
    subject: str | None = None
    """The user whom it was about, or who did it."""
    device_id: str | None = None
    lease_id: str | None = None
    action: AuditAction | None = None
    outcome: AuditOutcome | None = None
    request_id: str | None = None
    token_sha256: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Audit(Protocol):
    """Hears of decisions."""

    def record_nowait(self, decision: Decision) -> None:
        """Told, whatever becomes of it: for refusals, and for what the service does by itself."""

    def is_repeat(self, going: RepeatKey, seconds: float) -> bool:
        """Whether the device got this very login a moment ago too: such a one is counted now, and told with the next
        that is not. Never, where audit is required."""

    async def record(self, decision: Decision) -> None:
        """Told before its outcome is given away. Where audit is required, raises AuditUnavailable if it is not kept."""
