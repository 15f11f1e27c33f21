"""Users, roles and passkeys. Add your own columns to `User` in `app/models.py`."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from flask import current_app
from flask_security import RoleMixin, UserMixin, WebAuthnMixin, hash_password
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
    declared_attr,
    mapped_column,
    relationship,
)

from bulwark import crypto, settings
from bulwark.database import PERSONAL, SECRET, Model, UTCDateTime, utcnow
from bulwark.identity import peppers
from bulwark.web.access import ADMINISTRATOR, granted_to_everyone

EMAIL_LENGTH = 254  # RFC 5321, 4.5.3.1.3, less the angle brackets
VERSION_LENGTH = 64  # of the terms that users accept

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
    """A named set of permissions. Administrators have every permission."""

    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    permissions: Mapped[list[str]] = mapped_column(JSON, default=list)
    requires_second_factor: Mapped[bool] = mapped_column(default=False)

    def get_permissions(self) -> set[str]:
        """Return the permissions of the role."""
        if self.name == ADMINISTRATOR:
            return set(current_app.extensions["permissions"])
        return set(self.permissions)


class Extensions(TypeDecorator[str]):
    """The extensions that a browser sent with a new passkey, as JSON; else None."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the value if Flask-Security can display it."""
        return value if value and self.are(value) else None

    @staticmethod
    def are(value: Any) -> bool:
        """Return whether a value is a JSON object whose `credProps` is an object."""
        try:
            read = json.loads(value)
            return isinstance(read.get("credProps", {}), dict)
        except (AttributeError, RecursionError, TypeError, ValueError):
            return False


class Passkey(Model, WebAuthnMixin):
    """A passkey or security key, with the column names that Flask-Security expects."""

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
    """An unused recovery code, stored as a keyed hash."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    code_hash: Mapped[str] = mapped_column(String(64), primary_key=True, info=SECRET)


class BaseUser(Model, UserMixin):
    """The columns of the user that the base requires."""

    __abstract__ = True
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH), unique=True, info=PERSONAL)
    # None until an invited user sets one.
    password: Mapped[str | None] = mapped_column(String(255), info=SECRET)
    # False while an administrator has locked the account.
    active: Mapped[bool] = mapped_column(default=True)
    # Identifies the user in sessions and links; a new value invalidates all of them.
    fs_uniquifier: Mapped[str] = mapped_column(String(64), unique=True, info=SECRET)
    confirmed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)
    # The terms of use that the user accepted last.
    accepted_terms_version: Mapped[str | None] = mapped_column(String(VERSION_LENGTH))
    accepted_terms_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    # Second factors, with Flask-Security's names where it uses them.
    second_factor_required: Mapped[bool] = mapped_column(default=False)
    tf_primary_method: Mapped[str | None] = mapped_column(String(16))
    sealed_totp_secret: Mapped[bytes | None] = mapped_column(LargeBinary, info=SECRET)
    # The time step of the newest code that was accepted (RFC 6238, 5.2).
    totp_counter: Mapped[int | None] = mapped_column(BigInteger)
    fs_webauthn_user_handle: Mapped[str | None] = mapped_column(  # type: ignore[assignment]
        String(64), unique=True, info=PERSONAL
    )
    tf_phone_number = None  # Codes by SMS are not offered.

    # The permissions of this request's access token; None without a token.
    token_permissions = cast("frozenset[str] | None", None)

    # Set by Flask-Security, which declares them as never None.
    last_login_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # type: ignore[assignment]
    current_login_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # type: ignore[assignment]
    last_login_ip: Mapped[str | None] = mapped_column(String(64), info=PERSONAL)
    current_login_ip: Mapped[str | None] = mapped_column(String(64), info=PERSONAL)
    login_count: Mapped[int | None] = mapped_column(default=0)  # type: ignore[assignment]

    @declared_attr
    def roles(cls) -> Mapped[list[Role]]:  # type: ignore[override]  # noqa: N805
        """The roles of this user."""
        return relationship(Role, secondary=users_roles)

    @declared_attr
    def webauthn(cls) -> Mapped[list[Passkey]]:  # type: ignore[override]  # noqa: N805
        """The passkeys of this user, oldest first."""
        return relationship(
            Passkey, cascade="all, delete-orphan", order_by=Passkey.created_at
        )

    @declared_attr
    def mf_recovery_codes(cls) -> Mapped[list[RecoveryCode]]:  # type: ignore[override]  # noqa: N805
        """The unused recovery codes of this user."""
        return relationship(RecoveryCode, cascade="all, delete-orphan")

    @property
    def tf_totp_secret(self) -> str | None:
        """The seed of the authenticator app, encrypted for this row only."""
        if self.sealed_totp_secret is None:
            return None
        return crypto.decrypt(
            self.sealed_totp_secret,
            keys=settings.current().encryption_keys,
            place=place_of_totp_secret(self.id),
        ).decode()

    @tf_totp_secret.setter
    def tf_totp_secret(self, secret: str | None) -> None:
        self.sealed_totp_secret = secret and crypto.encrypt(  # type: ignore[assignment]
            secret.encode(),
            keys=settings.current().encryption_keys,
            place=place_of_totp_secret(self.id),
        )

    def verify_and_update_password(self, password: str) -> bool:
        """Return whether a password is correct; replace an outdated hash of it."""
        if self.password is None:
            return False
        correct = peppers.verify_password(password, self.password)
        if correct and peppers.is_outdated(self.password):
            self.password = hash_password(password)
        return correct

    @property
    def has_second_factor(self) -> bool:
        """Whether sign-in requires more than a password."""
        return self.sealed_totp_secret is not None or bool(self.webauthn)

    @property
    def must_have_second_factor(self) -> bool:
        """Whether the service, an administrator or a role requires a second factor."""
        return (
            settings.current().require_second_factor
            or self.second_factor_required
            or any(role.requires_second_factor for role in self.roles)
        )

    @property
    def is_invited(self) -> bool:
        """Whether the user was invited and has not accepted the invitation yet."""
        return self.confirmed_at is None

    @property
    def must_accept_terms(self) -> bool:
        """Whether there are terms that the user has not accepted in this version."""
        terms = current_app.extensions["sign_up"].terms
        return terms is not None and self.accepted_terms_version != terms.version

    def has_permission(self, permission: str) -> bool:
        """Return whether the user, and the access token if any, have a permission."""
        limits = self.token_permissions
        if limits is not None and permission not in limits:
            return False
        return permission in granted_to_everyone(current_app) or super().has_permission(
            permission
        )

    def check_tf_required_setup(self) -> bool:
        """Return whether Flask-Security must keep the authenticator app."""
        return self.must_have_second_factor and not self.webauthn


def place_of_totp_secret(user_id: object) -> str:
    """Return the place that the seed of a user's authenticator app is encrypted for."""
    return f"users.sealed_totp_secret:{user_id}"


def permissions_of(roles: Sequence[Role]) -> set[str]:
    """Return the permissions that these roles grant together."""
    return {name for role in roles for name in role.get_permissions()}


def permissions_for(user: BaseUser) -> set[str]:
    """Return the permissions of a user: those of their roles, and of everyone."""
    return permissions_of(user.roles) | granted_to_everyone(current_app)
