"""Runs of jobs, and addresses that unsubscribed from emails."""

import sqlalchemy as sa
from alembic import op

revision = "bulwark0007"
down_revision = "bulwark0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "background_runs",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=True),
        sa.Column("arguments", sa.LargeBinary(), nullable=True),
        sa.Column("is_scheduled", sa.Boolean(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(500), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_background_runs"),
        sa.ForeignKeyConstraint(
            ["owner_id"],
            ["users.id"],
            name="fk_background_runs_owner_id_users",
            ondelete="SET NULL",
        ),
    )
    op.create_index("ix_background_runs_name", "background_runs", ["name"])
    op.create_index("ix_background_runs_owner_id", "background_runs", ["owner_id"])
    op.create_index(
        "ix_background_runs_state_due_at", "background_runs", ["state", "due_at"]
    )
    op.create_table(
        "mail_opt_outs",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_mail_opt_outs"),
    )


def downgrade() -> None:
    op.drop_table("mail_opt_outs")
    op.drop_table("background_runs")
