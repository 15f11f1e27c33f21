"""Second factors, passkeys, sessions, known devices, access tokens, security events."""

import sqlalchemy as sa
from alembic import op

revision = "bulwark0002"
down_revision = "bulwark0001"
branch_labels = None
depends_on = None

moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("roles") as roles:
        roles.add_column(
            sa.Column(
                "requires_second_factor",
                sa.Boolean(),
                nullable=False,
                server_default=sa.false(),
            )
        )
    with op.batch_alter_table("roles") as roles:
        roles.alter_column("requires_second_factor", server_default=None)
    op.execute(
        "UPDATE roles SET requires_second_factor = TRUE WHERE name = 'administrator'"
    )
    with op.batch_alter_table("users") as users:
        users.add_column(
            sa.Column(
                "second_factor_required",
                sa.Boolean(),
                nullable=False,
                server_default=sa.false(),
            )
        )
        users.add_column(sa.Column("tf_primary_method", sa.String(16)))
        users.add_column(sa.Column("sealed_totp_secret", sa.LargeBinary()))
        users.add_column(sa.Column("totp_counter", sa.BigInteger()))
        users.add_column(sa.Column("fs_webauthn_user_handle", sa.String(64)))
        users.create_unique_constraint(
            "uq_users_fs_webauthn_user_handle", ["fs_webauthn_user_handle"]
        )
    # Until now someone else may have chosen it; a reset by email proves who owns it.
    op.execute("UPDATE users SET password = NULL WHERE confirmed_at IS NULL")
    with op.batch_alter_table("users") as users:
        users.alter_column("second_factor_required", server_default=None)
    op.create_table(
        "passkeys",
        sa.Column("id", sa.Integer(), nullable=False),
        _owner("passkeys"),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("credential_id", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", sa.Integer(), nullable=False),
        sa.Column("transports", sa.JSON()),
        sa.Column("backup_state", sa.Boolean(), nullable=False),
        sa.Column("device_type", sa.String(64), nullable=False),
        sa.Column("extensions", sa.Text()),
        sa.Column("usage", sa.String(16), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("lastuse_datetime", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_passkeys"),
        sa.UniqueConstraint("credential_id", name="uq_passkeys_credential_id"),
    )
    op.create_index("ix_passkeys_user_id", "passkeys", ["user_id"])
    op.create_table(
        "recovery_codes",
        _owner("recovery_codes"),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "code_hash", name="pk_recovery_codes"),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        _owner("sessions"),
        sa.Column("signed_in", sa.Boolean(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("last_used_at", moment, nullable=False),
        sa.Column("address", sa.String(64)),
        sa.Column("user_agent", sa.String(256)),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.UniqueConstraint("token_hash", name="uq_sessions_token_hash"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_index("ix_sessions_last_used_at", "sessions", ["last_used_at"])
    op.create_table(
        "known_devices",
        _owner("known_devices"),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("last_seen_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "token_hash", name="pk_known_devices"),
    )
    op.create_index("ix_known_devices_last_seen_at", "known_devices", ["last_seen_at"])
    op.create_table(
        "access_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        _owner("access_tokens"),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("permissions", sa.JSON(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.Column("last_used_at", moment),
        sa.Column("revoked_at", moment),
        sa.PrimaryKeyConstraint("id", name="pk_access_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_access_tokens_token_hash"),
    )
    op.create_index("ix_access_tokens_user_id", "access_tokens", ["user_id"])
    op.create_table(
        "guesses",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_guesses"),
    )
    op.create_index("ix_guesses_expires_at", "guesses", ["expires_at"])
    op.create_table(
        "security_events",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
        ),
        sa.Column("at", moment, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("user_id", sa.Integer()),
        sa.Column("actor_id", sa.Integer()),
        sa.Column("address", sa.String(64)),
        sa.Column("user_agent", sa.String(256)),
        sa.Column("session", sa.String(16)),
        sa.Column("request_id", sa.String(64)),
        sa.Column("method", sa.String(16)),
        sa.Column("route", sa.String(256)),
        sa.Column("reason", sa.String(256)),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_security_events"),
    )
    op.create_index("ix_security_events_at", "security_events", ["at"])
    op.create_index(
        "ix_security_events_user_id_at", "security_events", ["user_id", "at"]
    )


def downgrade() -> None:
    for table in (
        "security_events",
        "guesses",
        "access_tokens",
        "known_devices",
        "sessions",
        "recovery_codes",
        "passkeys",
    ):
        op.drop_table(table)
    with op.batch_alter_table("users") as users:
        users.drop_constraint("uq_users_fs_webauthn_user_handle", type_="unique")
        users.drop_column("fs_webauthn_user_handle")
        users.drop_column("totp_counter")
        users.drop_column("sealed_totp_secret")
        users.drop_column("tf_primary_method")
        users.drop_column("second_factor_required")
    with op.batch_alter_table("roles") as roles:
        roles.drop_column("requires_second_factor")


def _owner(table: str) -> sa.Column[int]:
    return sa.Column(
        "user_id",
        sa.Integer(),
        sa.ForeignKey("users.id", name=f"fk_{table}_user_id_users", ondelete="CASCADE"),
        nullable=False,
    )
