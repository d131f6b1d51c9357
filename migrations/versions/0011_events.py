"""Events for webhooks: one row for each event and endpoint, and one for each queue of a device.

It only adds, so replicas of the previous version can run during the migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# SQLite counts rows only in a column of type INTEGER.
SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")

INDEXES = (
    ("pending_of_a_queue", ["endpoint", "queue", "sequence"], "NOT is_dead"),
    ("pending_by_expiry", ["endpoint", "expires_at"], "NOT is_dead"),
    ("dead_by_sequence", ["sequence"], "is_dead"),
    ("dead_by_time", ["dead_at"], "is_dead"),
    ("dead_of_an_event", ["event_id"], "is_dead"),
)


def upgrade() -> None:
    op.create_table(
        "event_queues",
        sa.Column("endpoint", sa.String(64), primary_key=True),
        sa.Column("queue", sa.String(32), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_by", sa.String(64)),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
    )
    op.create_index("event_queues_by_due_time", "event_queues", ["endpoint", "due_at"])
    op.create_table(
        "event_deliveries",
        sa.Column("sequence", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("endpoint", sa.String(64), nullable=False),
        sa.Column("queue", sa.String(32), nullable=False),
        sa.Column("event_id", sa.String(32), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("about", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("lease_id", sa.String(32)),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("is_dead", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("failure", sa.String(64)),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dead_at", sa.DateTime(timezone=True)),
        sqlite_autoincrement=True,
    )
    op.create_index("deliveries_of_a_user", "event_deliveries", ["subject"])
    for name, columns, condition in INDEXES:
        where = sa.text(condition)
        op.create_index(name, "event_deliveries", columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_table("event_deliveries")
    op.drop_table("event_queues")
