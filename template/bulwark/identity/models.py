"""Users, roles and passkeys. Your own columns go into `User` in `app/models.py`."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from flask import current_app
from flask_security import RoleMixin, UserMixin, WebAuthnMixin
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    LargeBinary,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import (
    Mapped,
    contains_eager,
    declared_attr,
    mapped_column,
    relationship,
)

from bulwark import config, crypto
from bulwark.database import PERSONAL, SECRET, Model, UTCDateTime, utcnow

ADMINISTRATOR = "administrator"
EMAIL_LENGTH = 254  # RFC 5321, 4.5.3.1.3, less the angle brackets

users_roles = Table(
    "users_roles",
    Model.metadata,
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "role_id",
        ForeignKey("roles.id", ondelete="CASCADE"),
        primary_key=True,
        index=True,
    ),
)


class Role(Model, RoleMixin):
    """A named set of permissions. The administrator's is every one there is."""

    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    permissions: Mapped[list[str]] = mapped_column(JSON, default=list)
    requires_second_factor: Mapped[bool] = mapped_column(default=False)

    def get_permissions(self) -> set[str]:
        """Return what the role lets people do."""
        if self.name == ADMINISTRATOR:
            return set(current_app.extensions["permissions"])
        return set(self.permissions)


class Extensions(TypeDecorator[str]):
    """What a browser said about a new passkey, as JSON; anything else reads as None."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Return what Flask-Security can show."""
        return value if value and self.are(value) else None

    @staticmethod
    def are(value: Any) -> bool:
        """Tell whether a value is a JSON object whose `credProps` is another one."""
        try:
            read = json.loads(value)
            return isinstance(read.get("credProps", {}), dict)
        except (AttributeError, RecursionError, TypeError, ValueError):
            return False


class Passkey(Model, WebAuthnMixin):
    """A passkey or security key; the columns are named as Flask-Security wants them."""

    __tablename__ = "passkeys"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(String(64))
    credential_id: Mapped[bytes] = mapped_column(
        LargeBinary, unique=True, info=PERSONAL
    )
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    sign_count: Mapped[int] = mapped_column(default=0)
    transports: Mapped[list[str] | None] = mapped_column(JSON)
    backup_state: Mapped[bool]
    device_type: Mapped[str] = mapped_column(String(64))
    extensions: Mapped[str | None] = mapped_column(Extensions)
    usage: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)
    lastuse_datetime: Mapped[datetime] = mapped_column(UTCDateTime)


class RecoveryCode(Model):
    """A recovery code that was not used yet: a keyed hash, from which none is read."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    code_hash: Mapped[str] = mapped_column(String(64), primary_key=True, info=SECRET)


class BaseUser(Model, UserMixin):
    """What the base needs to know of a person."""

    __abstract__ = True
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH), unique=True, info=PERSONAL)
    # None until a person who was invited sets one.
    password: Mapped[str | None] = mapped_column(String(255), info=SECRET)
    # False while an administrator has locked the account.
    active: Mapped[bool] = mapped_column(default=True)
    # Names the user in sessions and links; a new one ends them all.
    fs_uniquifier: Mapped[str] = mapped_column(String(64), unique=True, info=SECRET)
    confirmed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)

    # Second factors, under Flask-Security's names where it reads them.
    second_factor_required: Mapped[bool] = mapped_column(default=False)
    tf_primary_method: Mapped[str | None] = mapped_column(String(16))
    sealed_totp_secret: Mapped[bytes | None] = mapped_column(LargeBinary, info=SECRET)
    # The time step of the newest code that was accepted (RFC 6238, 5.2).
    totp_counter: Mapped[int | None] = mapped_column(BigInteger)
    fs_webauthn_user_handle: Mapped[str | None] = mapped_column(  # type: ignore[assignment]
        String(64), unique=True, info=PERSONAL
    )
    tf_phone_number = None  # Codes by SMS are not offered.

    # What the access token of this request may do; None when it came without one.
    token_permissions = cast("frozenset[str] | None", None)

    # Flask-Security fills these; it declares them as if they were never empty.
    last_login_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # type: ignore[assignment]
    current_login_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # type: ignore[assignment]
    last_login_ip: Mapped[str | None] = mapped_column(String(64), info=PERSONAL)
    current_login_ip: Mapped[str | None] = mapped_column(String(64), info=PERSONAL)
    login_count: Mapped[int | None] = mapped_column(default=0)  # type: ignore[assignment]

    @declared_attr
    def roles(cls) -> Mapped[list[Role]]:  # type: ignore[override]  # noqa: N805
        """The roles that this person has."""
        return relationship(Role, secondary=users_roles)

    @declared_attr
    def webauthn(cls) -> Mapped[list[Passkey]]:  # type: ignore[override]  # noqa: N805
        """The passkeys of this person, oldest first."""
        return relationship(
            Passkey, cascade="all, delete-orphan", order_by=Passkey.created_at
        )

    @declared_attr
    def mf_recovery_codes(cls) -> Mapped[list[RecoveryCode]]:  # type: ignore[override]  # noqa: N805
        """The recovery codes that this person has left."""
        return relationship(RecoveryCode, cascade="all, delete-orphan")

    @property
    def tf_totp_secret(self) -> str | None:
        """The seed of the authenticator app, which only this row can hold."""
        if self.sealed_totp_secret is None:
            return None
        return crypto.decrypt(
            self.sealed_totp_secret,
            keys=config.current().encryption_keys,
            place=self._place_of_totp_secret(),
        ).decode()

    @tf_totp_secret.setter
    def tf_totp_secret(self, secret: str | None) -> None:
        self.sealed_totp_secret = secret and crypto.encrypt(  # type: ignore[assignment]
            secret.encode(),
            keys=config.current().encryption_keys,
            place=self._place_of_totp_secret(),
        )

    def _place_of_totp_secret(self) -> str:
        return f"users.sealed_totp_secret:{self.id}"

    @property
    def has_second_factor(self) -> bool:
        """Whether signing in takes more than a password."""
        return self.sealed_totp_secret is not None or bool(self.webauthn)

    @property
    def must_have_second_factor(self) -> bool:
        """Whether the service, an administrator or a role requires a second factor."""
        return (
            config.current().require_second_factor
            or self.second_factor_required
            or any(role.requires_second_factor for role in self.roles)
        )

    def has_permission(self, permission: str) -> bool:
        """Tell whether they may do this, by a role and by the token that they used."""
        limits = self.token_permissions
        return (limits is None or permission in limits) and super().has_permission(
            permission
        )

    def check_tf_required_setup(self) -> bool:
        """Tell Flask-Security whether the authenticator app may not be removed."""
        return self.must_have_second_factor and not self.webauthn


def permissions_of(roles: Sequence[Role]) -> set[str]:
    """Return what somebody with these roles may do."""
    return {name for role in roles for name in role.get_permissions()}


def with_roles(query: Any, person: Any) -> Any:
    """Let a query of people load their roles too.

    SQLAlchemy's `joinedload` nests two joins, and SQLite answers the inner one first,
    for everybody: 400 ms among 100,000 people.
    """
    held = users_roles.c
    return (
        query.outerjoin(users_roles, held.user_id == person.id)
        .outerjoin(Role, Role.id == held.role_id)
        .options(contains_eager(person.roles))
    )
