"""The table of leases and the indexes that its queries use."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LIVE = "state IN ('pending', 'active')"
UNFINISHED = "state IN ('pending', 'active', 'revoking')"
LEFTOVER = "state IN ('revoking', 'expired')"
ENDED = "state IN ('revoking', 'revoked', 'expired', 'deleted', 'lost', 'failed')"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "leases",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("platform", sa.String(16), nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("connection_id", sa.Text, nullable=False),
        sa.Column("credential_name", sa.Text, nullable=False),
        sa.Column("ttl_seconds", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.Column("usable_at", moment, nullable=False),
        sa.Column("credential_id", sa.Text),
        sa.Column("sip_username", sa.Text),
        sa.Column("claimed_by", sa.String(64)),
        sa.Column("claimed_until", moment),
        sa.Column("attempted_at", moment),
        sa.Column("retry_at", moment),
        sa.Column("attempts", sa.Integer, nullable=False),
    )
    _partial("one_live_lease_a_device", ["issuer", "subject", "device_id"], LIVE, unique=True)
    _partial("unfinished_of_a_user", ["issuer", "subject", "created_at", "id"], UNFINISHED)
    _partial("leftover_by_retry", ["retry_at"], LEFTOVER)
    _partial("active_by_expiry", ["expires_at"], "state IN ('active')")
    _partial("pending_by_age", ["updated_at"], "state IN ('pending')")
    _partial("ended_by_time", ["updated_at"], ENDED)


def _partial(name: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    op.create_index(
        name, "leases", columns, unique=unique, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )


def downgrade() -> None:
    op.drop_table("leases")
