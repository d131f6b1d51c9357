"""Indexes for operators: leases by age, by user, by connection and by SIP username.

It only adds, so replicas of the previous version can run during the migration.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEXES = {
    "leases_by_age": ["created_at", "id"],
    "leases_of_a_user": ["subject", "created_at", "id"],
    "leases_of_a_connection": ["connection_id", "created_at", "id"],
    "leases_by_sip_username": ["sip_username"],
}


def upgrade() -> None:
    for name, columns in INDEXES.items():
        op.create_index(name, "leases", columns)


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, "leases")
