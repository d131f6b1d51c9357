"""Pseudonyms: they replace an erased user in the audit and in the rows of ended leases.

A pseudonym is a keyed hash, so it cannot be reversed or guessed without the key. It is the same in all rows of one
user, so that an incident stays readable.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from app.vending.audit import AuditEvent, RequestContext
from app.vending.models import UserKey

PSEUDONYM_PREFIX = "erased-"

IMPERSONAL_DETAILS = frozenset(
    {"app_id", "connection_id", "fingerprint_sha256", "folded", "issuer", "leases", "not_before", "platform", "reach"}
    | {"state", "type"}
)
"""Details of an audit event that do not identify a user. All others are removed."""


class ErasedUser(NamedTuple):
    """A user whose data up to a time is erased. Later data of the same user is that of a new user."""

    user_key: UserKey
    pseudonym: str
    erased_before: datetime

    @property
    def alias(self) -> UserKey:
        """The pseudonym as a user of the same issuer."""
        return UserKey(self.user_key.issuer, self.pseudonym)


Opaque = Callable[[ErasedUser, str], str]
"""A keyed hash of one of the user's values, such as a device id. Equal values have equal hashes."""


def pseudonymize(event: AuditEvent, erased: ErasedUser, opaque: Opaque) -> AuditEvent:
    """The event without the user. Data about another user, who is the actor or the target, stays."""
    decision, context, alias = event.decision, event.context, erased.alias
    is_target, is_actor = decision.user_key == erased.user_key, context.actor == erased.user_key
    if is_target or (is_actor and decision.user_key is None):
        decision = decision._replace(
            user_key=alias if is_target else None,
            device_id=_opaque(decision.device_id, erased, opaque),
            details=_impersonal(decision.details),
        )
    if is_actor or (is_target and context.actor is None):
        context = RequestContext(
            request_id=_opaque(context.request_id, erased, opaque), actor=alias if is_actor else None
        )
    return replace(event, decision=decision, context=context)


def _opaque(value: str | None, erased: ErasedUser, opaque: Opaque) -> str | None:
    return None if value is None else opaque(erased, value)


def _impersonal(details: Mapping[str, str | int]) -> Mapping[str, str | int]:
    return MappingProxyType({name: value for name, value in details.items() if name in IMPERSONAL_DETAILS})
