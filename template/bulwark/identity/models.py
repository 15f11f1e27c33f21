"""Users and roles. Your own columns go into `User` in `app/models.py`."""

from datetime import datetime

from flask_security import RoleMixin, UserMixin
from sqlalchemy import JSON, Column, ForeignKey, String, Table
from sqlalchemy.orm import Mapped, declared_attr, mapped_column, relationship

from bulwark.database import Model, UTCDateTime, utcnow

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
    """A named set of permissions."""

    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    permissions: Mapped[list[str]] = mapped_column(JSON, default=list)


class BaseUser(Model, UserMixin):
    """What the base needs to know of a person."""

    __abstract__ = True
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH), unique=True)
    # None until a person who was invited sets one.
    password: Mapped[str | None] = mapped_column(String(255))
    active: Mapped[bool] = mapped_column(default=True)
    # Names the user in sessions and links; a new one ends them all.
    fs_uniquifier: Mapped[str] = mapped_column(String(64), unique=True)
    confirmed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utcnow)

    # Flask-Security fills these; it declares them as if they were never empty.
    last_login_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # type: ignore[assignment]
    current_login_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # type: ignore[assignment]
    last_login_ip: Mapped[str | None] = mapped_column(String(64))
    current_login_ip: Mapped[str | None] = mapped_column(String(64))
    login_count: Mapped[int | None] = mapped_column(default=0)  # type: ignore[assignment]

    @declared_attr
    def roles(cls) -> Mapped[list[Role]]:  # type: ignore[override]  # noqa: N805
        """The roles that this person has."""
        return relationship(Role, secondary=users_roles)
