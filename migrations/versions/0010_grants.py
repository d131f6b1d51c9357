"""Grants: which backend vouched for whom, and the device that each grant is bound to.

It only adds, so replicas of the previous version can run during the migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "grants",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("backend_issuer", sa.Text, nullable=False),
        sa.Column("backend_subject", sa.Text, nullable=False),
        sa.Column("origin", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("device_id", sa.String(64)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )
    op.create_index("grants_by_expiry", "grants", ["expires_at"])
    op.create_index("grants_of_a_backend", "grants", ["backend_subject", "backend_issuer"])
    op.create_index("grants_of_a_user", "grants", ["subject"])


def downgrade() -> None:
    op.drop_table("grants")
