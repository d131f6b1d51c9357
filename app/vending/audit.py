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

from app.vending.errors import DialtoneError, LogoutRefused, RateLimited, Refused, TokenRefused
from app.vending.models import Owner, Way
from app.vending.telephony.lease import Lease


class Action(StrEnum):
    """What was decided."""

    ISSUED = "issued"
    """A device came to have a credential."""
    REUSED = "reused"
    """It got the login that was at hand."""
    RENEWED = "renewed"
    """It got a new login on the credential that it had, or other terms for it."""
    REFUSED = "refused"
    """Somebody asked for what they could not have."""
    REVOKED = "revoked"
    """Devices were logged out, by their user, an operator, the identity provider or the device limit."""
    SWEPT = "swept"
    """A credential was deleted at Telnyx after its lease had ended, or because no lease stood for it."""
    PUSHED = "pushed"
    """A push credential was registered, replaced, removed or attached."""
    ADMINISTERED = "administered"
    """An operator's other acts."""


class Outcome(StrEnum):
    DONE = "done"
    UNCONFIRMED = "unconfirmed"
    """Written down here; Telnyx has yet to confirm."""
    REFUSED = "refused"
    """By a rule."""
    FAILED = "failed"
    """By trouble: Telnyx, the ledger or the identity provider."""


_ACTIONS = {Way.HOT: Action.REUSED, Way.RENEWED: Action.RENEWED, Way.POOLED: Action.ISSUED, Way.CREATED: Action.ISSUED}


class Circumstances(NamedTuple):
    """How a decision came to be asked for. A command's actor is the user of the shell, under the issuer `shell`."""

    request_id: str | None = None
    client_address: str | None = None
    user_agent: str | None = None
    """As the caller says."""
    actor: Owner | None = None
    """Who asks, proved. None: nobody yet, or the service itself."""


NOBODY_ASKED = Circumstances()
CIRCUMSTANCES: ContextVar[Circumstances] = ContextVar("circumstances", default=NOBODY_ASKED)
"""Of the request, or the command, that the current task serves."""


Going = tuple[str | None, str | None, str | None]
"""A lease, and the address and user agent that its login goes to: from elsewhere it is another event at once."""


def going_to(lease_id: str | None) -> Going:
    """In the circumstances of now."""
    circumstances = CIRCUMSTANCES.get()
    return lease_id, circumstances.client_address, circumstances.user_agent


class Decision(NamedTuple):
    """One thing that was decided."""

    action: Action
    outcome: Outcome = Outcome.DONE
    reason: str | None = None
    """A short code of ours."""
    owner: Owner | None = None
    """Whose device or push credential it is about."""
    device_id: str | None = None
    lease_id: str | None = None
    token_sha256: str | None = None
    """Of the login token that was handed out."""
    way: Way | None = None
    seconds: float | None = None
    """What it took to give a login."""
    details: Mapping[str, str | int] = MappingProxyType({})

    @property
    def is_refusal(self) -> bool:
        return self.action is Action.REFUSED

    @classmethod
    def about(cls, lease: Lease, action: Action, reason: str, outcome: Outcome = Outcome.DONE) -> "Decision":
        owner = None if lease.is_nobodys else lease.owner
        return cls(action, outcome, reason, owner, lease.device_id, lease.id)

    @classmethod
    def handed_out(cls, lease: Lease, way: Way, seconds: float, token_sha256: str | None) -> "Decision":
        """A login. Without a token it was the SIP password, which leaves no trace here."""
        grant = "sip_password" if token_sha256 is None else "login_token"
        return cls(
            _ACTIONS[way],
            reason=grant,
            owner=lease.owner,
            device_id=lease.device_id,
            lease_id=lease.id,
            token_sha256=token_sha256,
            way=way,
            seconds=seconds,
        )

    @classmethod
    def against(cls, error: DialtoneError, owner: Owner | None, device_id: str | None = None) -> "Decision":
        """A refusal, or a failure; the reason is the error's own code or name."""
        is_rule = isinstance(error, Refused | TokenRefused | LogoutRefused | RateLimited)
        reason = error.reason if isinstance(error, TokenRefused | LogoutRefused) else type(error).__name__
        return cls(Action.REFUSED, Outcome.REFUSED if is_rule else Outcome.FAILED, reason, owner, device_id)


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A decision, when it was made, and how it came to be asked for."""

    id: str
    at: datetime
    decision: Decision
    circumstances: Circumstances

    def flat(self) -> dict[str, Any]:
        """Field by field, for tables, lines and answers. `issuer` and `subject` are whom it was about."""
        decision, circumstances = self.decision, self.circumstances
        owner, actor = decision.owner, circumstances.actor
        return {
            "id": self.id,
            "at": self.at,
            "action": decision.action.value,
            "outcome": decision.outcome.value,
            "reason": decision.reason,
            "issuer": owner and owner.issuer,
            "subject": owner and owner.subject,
            "device_id": decision.device_id,
            "lease_id": decision.lease_id,
            "token_sha256": decision.token_sha256,
            "actor_issuer": actor and actor.issuer,
            "actor_subject": actor and actor.subject,
            "request_id": circumstances.request_id,
            "client_address": circumstances.client_address,
            "user_agent": circumstances.user_agent,
            "details": dict(decision.details),
        }


@dataclass(frozen=True, slots=True)
class Activity:
    """How many events of one kind there were in one minute, on all replicas."""

    minute: datetime
    action: Action
    outcome: Outcome
    events: int


@dataclass(frozen=True, slots=True)
class AuditCriteria:
    """Which events; what is None does not matter."""

    issuer: str | None = None
    subject: str | None = None
    """The user whom it was about, or who did it."""
    device_id: str | None = None
    lease_id: str | None = None
    action: Action | None = None
    outcome: Outcome | None = None
    request_id: str | None = None
    token_sha256: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Audit(Protocol):
    """Hears of decisions."""

    def note(self, decision: Decision) -> None:
        """Told, whatever becomes of it: for refusals, and for what the service does by itself."""

    def is_repeat(self, going: Going, seconds: float) -> bool:
        """Whether the device got this very login a moment ago too: such a one is counted now, and told with the next
        that is not. Never, where audit is required."""

    async def record(self, decision: Decision) -> None:
        """Told before its outcome is given away. Where audit is required, raises AuditUnavailable if it is not kept."""
