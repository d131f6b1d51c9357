"""Not-before marks, used logout tokens, requested key refreshes, and the session of a lease.

It only adds, so replicas of the previous version can run during the migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LIVE = "state IN ('pending', 'active')"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("leases", sa.Column("session", sa.Text))
    op.create_index(
        "live_of_a_session",
        "leases",
        ["issuer", "session"],
        sqlite_where=sa.text(LIVE),
        postgresql_where=sa.text(LIVE),
    )
    op.create_table(
        "not_before_marks",
        sa.Column("issuer", sa.Text, primary_key=True),
        sa.Column("reach", sa.String(16), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("not_before", moment, nullable=False),
        sa.Column("made_at", moment, nullable=False),
    )
    op.create_index("marks_by_time", "not_before_marks", ["made_at"])
    op.create_table(
        "logout_tokens",
        sa.Column("issuer", sa.Text, primary_key=True),
        sa.Column("token_id", sa.Text, primary_key=True),
        sa.Column("expires_at", moment, nullable=False),
    )
    op.create_index("logout_tokens_by_expiry", "logout_tokens", ["expires_at"])
    op.create_table(
        "key_refreshes",
        sa.Column("issuer", sa.Text, primary_key=True),
        sa.Column("requested_at", moment, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("key_refreshes")
    op.drop_table("logout_tokens")
    op.drop_table("not_before_marks")
    op.drop_index("live_of_a_session", "leases")
    op.drop_column("leases", "session")
