"""Stored names follow the terms of version 0.2: audit actions and outcomes, and the state of push objects.

A replica of version 0.1 cannot read the new values: stop all replicas, migrate, start.
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


def upgrade() -> None:
    for column, names in AUDIT_NAMES.items():
        for old, new in names.items():
            _rename_value("audit_events", column, old, new)
            _rename_value("activity", column, old, new)
    op.drop_index("push_objects_by_stage", "push_objects")
    op.execute("ALTER TABLE push_objects RENAME COLUMN stage TO state")
    _rename_value("push_objects", "state", "leaving", "deleting")
    op.create_index("push_objects_by_state", "push_objects", ["state", "updated_at"])


def downgrade() -> None:
    op.drop_index("push_objects_by_state", "push_objects")
    _rename_value("push_objects", "state", "deleting", "leaving")
    op.execute("ALTER TABLE push_objects RENAME COLUMN state TO stage")
    op.create_index("push_objects_by_stage", "push_objects", ["stage", "updated_at"])
    for column, names in AUDIT_NAMES.items():
        for old, new in names.items():
            _rename_value("audit_events", column, new, old)
            _rename_value("activity", column, new, old)


def _rename_value(table: str, column: str, old: str, new: str) -> None:
    values = sa.table(table, sa.column(column, sa.String))
    op.execute(values.update().where(values.c[column] == old).values({column: new}))
