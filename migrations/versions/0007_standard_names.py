"""Stored names follow the terms of version 0.2: audit actions and outcomes, and the state of push objects.

A replica of version 0.1 cannot read the new values: stop all replicas, migrate, and start the new version.
"""

from collections.abc import Mapping
from types import MappingProxyType

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

AUDIT_NAMES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "action": {"refused": "denied", "pushed": "push_changed", "administered": "admin_action"},
        "outcome": {"refused": "denied"},
    }
)
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "TokenRefused": "TokenRejected",
        "LogoutRefused": "LogoutTokenRejected",
        "Refused": "AccessDenied",
        "UnknownIssuer": "IssuerNotFound",
        "NotConfirmed": "ConfirmationRequired",
        "MaterialRefused": "PushMaterialRejected",
        "PushNotFound": "PushCredentialNotFound",
        "PushMoved": "PushConflict",
        "Busy": "IssueInProgress",
        "LedgerLooksWrong": "LedgerMismatch",
        "LeaseMoved": "LeaseConflict",
        "LeaseTaken": "LeaseExists",
        "CarrierKeyRefused": "TelnyxKeyRejected",
        "CarrierForbidden": "TelnyxForbidden",
        "CarrierNotFound": "TelnyxNotFound",
        "CarrierRejected": "TelnyxRejected",
        "CarrierThrottled": "TelnyxRateLimited",
        "CarrierFailed": "TelnyxServerError",
        "CarrierUnreachable": "TelnyxUnreachable",
        "CarrierUnreadable": "TelnyxResponseInvalid",
        "not_before_mark": "not_before",
    }
)
"""Reasons of audit events and of sweeps: class names of errors, and one code."""


def upgrade() -> None:
    for column, names in AUDIT_NAMES.items():
        for old, new in names.items():
            _rename_value("audit_events", column, old, new)
            _rename_value("activity", column, old, new)
    for old, new in REASONS.items():
        _rename_value("audit_events", "reason", old, new)
        _rename_value("sweep_runs", "reason", old, new)
    _rename_report_key("stuck", "irrevocable")
    op.drop_index("push_objects_by_stage", "push_objects")
    op.execute("ALTER TABLE push_objects RENAME COLUMN stage TO state")
    _rename_value("push_objects", "state", "leaving", "deleting")
    op.create_index("push_objects_by_state", "push_objects", ["state", "updated_at"])


def downgrade() -> None:
    op.drop_index("push_objects_by_state", "push_objects")
    _rename_value("push_objects", "state", "deleting", "leaving")
    op.execute("ALTER TABLE push_objects RENAME COLUMN state TO stage")
    op.create_index("push_objects_by_stage", "push_objects", ["stage", "updated_at"])
    _rename_report_key("irrevocable", "stuck")
    for old, new in REASONS.items():
        _rename_value("audit_events", "reason", new, old)
        _rename_value("sweep_runs", "reason", new, old)
    for column, names in AUDIT_NAMES.items():
        for old, new in names.items():
            _rename_value("audit_events", column, new, old)
            _rename_value("activity", column, new, old)


def _rename_value(table: str, column: str, old: str, new: str) -> None:
    values = sa.table(table, sa.column(column, sa.String))
    op.execute(values.update().where(values.c[column] == old).values({column: new}))


def _rename_report_key(old: str, new: str) -> None:
    """In the JSON of stored sweeps, which are few."""
    runs = sa.table("sweep_runs", sa.column("id", sa.String), sa.column("report", sa.JSON))
    connection = op.get_bind()
    for row in connection.execute(sa.select(runs.c.id, runs.c.report).where(runs.c.report.is_not(None))).all():
        report = row.report
        if isinstance(report, dict) and old in report:
            report[new] = report.pop(old)
            connection.execute(runs.update().where(runs.c.id == row.id).values(report=report))
