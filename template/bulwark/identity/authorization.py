"""Who may change what: nobody grants or manages permissions that they lack."""

from collections.abc import Iterable, Sequence

from bulwark.identity.models import BaseUser, Role, permissions_of
from bulwark.web.access import ADMINISTRATOR

BEYOND = "This requires permissions that you don't have yourself."


class RefusedError(Exception):
    """The action was refused; the message gives the reason to the caller."""


class NotAllowedError(RefusedError):
    """The action requires permissions that the caller does not have."""


def may_grant(by: BaseUser | None, permissions: Iterable[str]) -> bool:
    """Return whether a user has these permissions, and so may grant them."""
    if by is None or _is_administrator(by.roles):
        return True
    return set(permissions) <= permissions_of(by.roles)


def may_manage(by: BaseUser | None, roles: Sequence[Role]) -> bool:
    """Return whether a user has every permission that these roles grant."""
    if _is_administrator(roles) and by is not None:
        return _is_administrator(by.roles)
    return may_grant(by, permissions_of(roles))


def check_grant(by: BaseUser | None, permissions: Iterable[str]) -> None:
    """Refuse to grant permissions that the caller does not have."""
    if not may_grant(by, permissions):
        raise NotAllowedError(BEYOND)


def check_rights(by: BaseUser | None, roles: Sequence[Role]) -> None:
    """Refuse changes of users or roles with permissions that the caller lacks."""
    if not may_manage(by, roles):
        raise NotAllowedError(BEYOND)


def _is_administrator(roles: Iterable[Role]) -> bool:
    return any(role.name == ADMINISTRATOR for role in roles)
