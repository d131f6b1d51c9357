"""An index of leases by the time of their last change, and the time of each device's last use.

It only adds, so replicas of the previous version can run during the migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

CHANGED = "state IN ('active', 'revoking', 'revoked', 'expired', 'deleted', 'lost', 'failed')"


def upgrade() -> None:
    op.add_column("leases", sa.Column("last_used_at", sa.DateTime(timezone=True)))
    where = sa.text(CHANGED)
    op.create_index("changed_by_time", "leases", ["updated_at"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("changed_by_time", "leases")
    op.drop_column("leases", "last_used_at")
