"""Audit events, and sweeps that operators start.

It only adds, so replicas of the previous version can run during the migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64)),
        sa.Column("issuer", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("device_id", sa.String(64)),
        sa.Column("lease_id", sa.String(32)),
        sa.Column("token_sha256", sa.String(64)),
        sa.Column("actor_issuer", sa.Text),
        sa.Column("actor_subject", sa.Text),
        sa.Column("request_id", sa.String(64)),
        sa.Column("client_address", sa.String(64)),
        sa.Column("user_agent", sa.Text),
        sa.Column("details", sa.JSON, nullable=False),
    )
    op.create_table(
        "activity",
        sa.Column("minute", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("action", sa.String(16), primary_key=True),
        sa.Column("outcome", sa.String(16), primary_key=True),
        sa.Column("events", sa.Integer, nullable=False),
    )
    op.create_table(
        "sweep_runs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.String(64)),
        sa.Column("report", sa.JSON),
    )
    op.create_index("sweep_runs_by_age", "sweep_runs", ["started_at"])
    op.create_index("audit_by_age", "audit_events", ["at", "id"])
    op.create_index("audit_of_a_user", "audit_events", ["subject", "at", "id"])
    op.create_index("audit_of_an_actor", "audit_events", ["actor_subject", "at", "id"])


def downgrade() -> None:
    for name in ("sweep_runs", "activity", "audit_events"):
        op.drop_table(name)
