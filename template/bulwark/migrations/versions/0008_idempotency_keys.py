"""Idempotency keys of APIs, and the responses to their requests."""

import sqlalchemy as sa
from alembic import op

revision = "bulwark0008"
down_revision = "bulwark0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotent_requests",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_idempotent_requests"),
    )
    op.create_index(
        "ix_idempotent_requests_expires_at", "idempotent_requests", ["expires_at"]
    )


def downgrade() -> None:
    op.drop_table("idempotent_requests")
