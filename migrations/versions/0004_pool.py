"""Indexes of pooled leases by connection, of leases without a user, and of leases that the sweeper must delete.

It only adds, so replicas of the previous version can run during the migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

POOLED = "state IN ('pooled')"
LEFTOVER = "state IN ('revoking', 'expired', 'lost')"
NOBODYS = "issuer = '' AND state IN ('pooled', 'pending')"


def upgrade() -> None:
    for name, columns, where in (
        ("pooled_of_a_connection", ["connection_id", "usable_at"], POOLED),
        ("leases_of_nobody", ["created_at"], NOBODYS),
        ("leftover_or_lost_by_retry", ["retry_at"], LEFTOVER),
    ):
        op.create_index(name, "leases", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade() -> None:
    op.drop_index("leftover_or_lost_by_retry", "leases")
    op.drop_index("leases_of_nobody", "leases")
    op.drop_index("pooled_of_a_connection", "leases")
