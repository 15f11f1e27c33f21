"""The terms of use that each user accepted last."""

import sqlalchemy as sa
from alembic import op

revision = "bulwark0006"
down_revision = "bulwark0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("accepted_terms_version", sa.String(64)))
    op.add_column("users", sa.Column("accepted_terms_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("users", "accepted_terms_at")
    op.drop_column("users", "accepted_terms_version")
