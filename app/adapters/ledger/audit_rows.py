"""Audit events from their rows in the ledger."""

import sqlalchemy as sa

from app.vending.audit import AuditAction, AuditEvent, AuditOutcome, Decision, RequestContext
from app.vending.models import UserKey


def event_of(row: sa.RowMapping) -> AuditEvent:
    return AuditEvent(
        row["id"],
        row["at"],
        Decision(
            AuditAction(row["action"]),
            AuditOutcome(row["outcome"]),
            row["reason"],
            _owner(row["issuer"], row["subject"]),
            row["device_id"],
            row["lease_id"],
            row["token_sha256"],
            details=row["details"],
        ),
        RequestContext(
            row["request_id"],
            row["client_address"],
            row["user_agent"],
            _owner(row["actor_issuer"], row["actor_subject"]),
        ),
    )


def _owner(issuer: str | None, subject: str | None) -> UserKey | None:
    return None if issuer is None or subject is None else UserKey(issuer, subject)
