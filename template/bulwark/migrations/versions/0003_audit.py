"""The audit trail: links between events, and triggers that protect both."""

import sqlalchemy as sa
from alembic import op

revision = "bulwark0003"
down_revision = "bulwark0002"
branch_labels = None
depends_on = None

number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
APPEND_ONLY = ("security_events", "audit_chain")
REFUSED = "the audit trail is only ever added to"
FUNCTION = f"""
CREATE FUNCTION refuse_to_change_the_audit_trail() RETURNS trigger AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM audit_permits) THEN
        RAISE EXCEPTION '{REFUSED}';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$ LANGUAGE plpgsql
"""


def upgrade() -> None:
    op.create_table(
        "audit_chain",
        sa.Column("position", number, autoincrement=False, nullable=False),
        sa.Column("event_id", number, nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_audit_chain"),
        sa.UniqueConstraint("event_id", name="uq_audit_chain_event_id"),
    )
    op.create_table(
        "audit_permits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_permits"),
    )
    postgresql = op.get_bind().dialect.name == "postgresql"
    if postgresql:
        op.execute(FUNCTION)
    for table in APPEND_ONLY:
        for change in ("UPDATE", "DELETE"):
            trigger = f"{table}_refuses_{change.lower()}"
            op.execute(
                f"CREATE TRIGGER {trigger} BEFORE {change} ON {table} FOR EACH ROW"
                " EXECUTE FUNCTION refuse_to_change_the_audit_trail()"
                if postgresql
                else f"CREATE TRIGGER {trigger} BEFORE {change} ON {table}"
                " WHEN NOT EXISTS (SELECT 1 FROM audit_permits)"
                f" BEGIN SELECT RAISE(ABORT, '{REFUSED}'); END"
            )
        if postgresql:
            op.execute(
                f"CREATE TRIGGER {table}_refuses_truncate BEFORE TRUNCATE ON {table}"
                " FOR EACH STATEMENT"
                " EXECUTE FUNCTION refuse_to_change_the_audit_trail()"
            )


def downgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    for change in ("update", "delete", *(["truncate"] if postgresql else [])):
        where = " ON security_events" if postgresql else ""
        op.execute(f"DROP TRIGGER security_events_refuses_{change}{where}")
    op.drop_table("audit_permits")
    op.drop_table("audit_chain")
    if postgresql:
        op.execute("DROP FUNCTION refuse_to_change_the_audit_trail")
