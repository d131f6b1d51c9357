"""Erasures of users, so that events which replicas write later do not name them again.

It only adds, so replicas of the previous version can run during the migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("user_hash", sa.String(64), primary_key=True),
        sa.Column("pseudonym", sa.Text, nullable=False),
        sa.Column("erased_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("erasures_by_time", "erasures", ["recorded_at"])


def downgrade() -> None:
    op.drop_table("erasures")
