"""Changes of an email address that are waiting for confirmation."""

import sqlalchemy as sa
from alembic import op

revision = "bulwark0004"
down_revision = "bulwark0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "address_changes",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("stop_token_hash", sa.String(64), nullable=False),
        sa.Column("state_hash", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_address_changes"),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name="fk_address_changes_user_id_users",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("token_hash", name="uq_address_changes_token_hash"),
        sa.UniqueConstraint(
            "stop_token_hash", name="uq_address_changes_stop_token_hash"
        ),
    )
    op.create_index("ix_address_changes_expires_at", "address_changes", ["expires_at"])


def downgrade() -> None:
    op.drop_table("address_changes")
