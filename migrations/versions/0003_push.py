"""Push credentials: objects at Telnyx by material, users' registrations of them, and connections that use them.

It only adds, so replicas of the previous version can run during the migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "push_objects",
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("telnyx_alias", sa.Text, nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("app_id", sa.Text, nullable=False),
        sa.Column("fingerprint_sha256", sa.String(64), nullable=False),
        sa.Column("not_after", moment),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.Column("credential_id", sa.Text),
        sa.Column("claimed_by", sa.String(64)),
        sa.Column("claimed_until", moment),
        sa.Column("retry_at", moment),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("warned_days", sa.Integer),
    )
    op.create_index("push_objects_by_stage", "push_objects", ["stage", "updated_at"])
    op.create_index("push_objects_by_expiry", "push_objects", ["not_after"])
    op.create_index("push_objects_by_credential", "push_objects", ["credential_id"])
    op.create_table(
        "push_registrations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
    )
    op.create_index("one_alias_a_user", "push_registrations", ["issuer", "subject", "alias"], unique=True)
    op.create_index("registrations_of_an_object", "push_registrations", ["fingerprint"])
    op.create_table(
        "push_attachments",
        sa.Column("connection_id", sa.Text, primary_key=True),
        sa.Column("type", sa.String(16), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
    )
    op.create_index("attachments_of_an_object", "push_attachments", ["fingerprint"])


def downgrade() -> None:
    op.drop_table("push_attachments")
    op.drop_table("push_registrations")
    op.drop_table("push_objects")
