"""The audit chain's keys of encryption keys that were removed."""

import sqlalchemy as sa
from alembic import op

revision = "bulwark0005"
down_revision = "bulwark0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_keys",
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_audit_keys"),
    )


def downgrade() -> None:
    op.drop_table("audit_keys")
