"""Account administration: invitations, locks, sign-outs and roles.

Each function records one event in the current transaction, which the caller commits.
`by` is the administrator who acts; None is the operator at the command line, who may do
everything.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from flask import current_app, render_template
from flask_security import SQLAlchemyUserDatastore
from flask_security.mail_util import EmailValidateException
from flask_security.recoverable import generate_reset_password_token
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from bulwark import mail, settings
from bulwark.audit import events
from bulwark.database import db
from bulwark.identity import sessions, tokens
from bulwark.identity.models import BaseUser, Role, permissions_of, users_roles
from bulwark.web import attempts
from bulwark.web.access import ADMINISTRATOR

ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9 _-]{0,79}")
FIRST = "the first administrator"
HOUR = timedelta(hours=1)
EMAILS_AN_HOUR = 5  # to one address, from all administrators together
BEYOND = "This requires permissions that you don't have yourself."


class RefusedError(Exception):
    """The action was refused; the message gives the reason to the caller."""


class NotAllowedError(RefusedError):
    """The action requires permissions that the caller does not have."""


# --- Accounts -------------------------------------------------------------------------


def lock(user: BaseUser, *, by: BaseUser | None, reason: str) -> None:
    """Lock an account, from its next request until `unlock`."""
    _one_at_a_time()
    check_rights(by, user.roles)
    if not user.active:
        raise RefusedError("This account is already locked.")
    _keep_an_administrator(user)
    user.active = False
    _datastore().set_uniquifier(user)  # Invalidates links sent earlier.
    sessions.end_all(user)
    _record("authn_login_lock", user, by, reason)


def unlock(user: BaseUser, *, by: BaseUser | None, reason: str) -> None:
    """Unlock an account."""
    _one_at_a_time()
    check_rights(by, user.roles)
    if user.active:
        raise RefusedError("This account is not locked.")
    user.active = True
    _record("authn_login_unlock", user, by, reason)


def sign_out(
    user: BaseUser, session_id: int | None = None, *, by: BaseUser | None, reason: str
) -> None:
    """End one session of a user, or all of them."""
    check_rights(by, user.roles)
    if session_id is None:
        ended = sessions.end_all(user)
    else:
        ended = int(sessions.end(user, session_id))
        if not ended:
            raise RefusedError("This session has already ended.")
    _record("session_revoked", user, by, reason, ended=ended)


def force_reset(user: BaseUser, *, by: BaseUser | None, reason: str) -> None:
    """Remove the password, and email the user a link to choose a new one.

    Only the user ever chooses the password. Passkeys and the authenticator app stay.
    """
    check_rights(by, user.roles)
    if not user.active:
        raise RefusedError("This account is locked. Unlock it first.")
    _count_email(user.email, by)
    user.password = None
    _datastore().set_uniquifier(user)
    sessions.end_all(user)
    tokens.revoke_all(user)
    _record("authz_admin", user, by, reason, action="force_reset")
    db.session.flush()
    subject = f"Set a new password for {settings.current().name}"
    _mail_link(user, _password_link(user), subject, "forced_reset")


def require_second_factor(
    user: BaseUser, required: bool, *, by: BaseUser | None, reason: str
) -> None:
    """Require a second factor for an account, or stop requiring one."""
    check_rights(by, user.roles)
    if user.second_factor_required == required:
        state = "already" if required else "not"
        raise RefusedError(f"A second factor is {state} required for this account.")
    user.second_factor_required = required
    action = "require_second_factor" if required else "no_longer_require_second_factor"
    _record("authz_admin", user, by, reason, action=action)


def reset_factors(user: BaseUser, *, by: BaseUser | None, reason: str) -> None:
    """Remove the authenticator app, passkeys and recovery codes of a user.

    Only for operators: it requires proof of identity as strong as when the factors were
    added (OWASP ASVS 5.0, 6.4.4), which a web page can't check.
    """
    check_rights(by, user.roles)
    if not (user.has_second_factor or user.mf_recovery_codes):
        raise RefusedError("They have no second factor.")
    user.tf_totp_secret = user.tf_primary_method = None
    user.webauthn = []
    user.mf_recovery_codes = []
    sessions.end_all(user)
    _record("authn_mfa_removed", user, by, reason, factor="all")


# --- Invitations ----------------------------------------------------------------------


def invite(email: str, *, by: BaseUser | None, reason: str) -> tuple[BaseUser, str]:
    """Create an account without a password; return it, and a link to choose one.

    An invited user who has not used their link yet gets another one.
    """
    try:
        email = current_app.extensions["security"].mail_util.validate(email)
    except EmailValidateException:
        raise RefusedError("Enter an email address such as name@example.com.") from None
    known = find(email)
    if known is not None and not known.active:
        raise RefusedError("This account is locked. Unlock it first.")
    _count_email(email, by)
    if known is None:
        user = _new(email)
        _record("user_created", user, by, reason)
        return user, _password_link(user)
    check_rights(by, known.roles)
    if known.password or known.webauthn:
        raise RefusedError(f"{email} already has an account.")
    _record("authz_admin", known, by, reason, action="invite_again")
    return known, _password_link(known)


def _count_email(email: str, by: BaseUser | None) -> None:
    """Limit the emails that administrators, but not the operator, send an address."""
    if by is None:
        return
    if attempts.count("administrator's email", email, HOUR).count > EMAILS_AN_HOUR:
        raise RefusedError(
            f"{email} got {EMAILS_AN_HOUR} links within an hour. The last one works."
        )


def mail_invitation(user: BaseUser, link: str) -> None:
    """Email a user the link that `invite` returned."""
    _mail_link(user, link, f"Your account at {settings.current().name}", "invitation")


def invitation(*, again: bool = True) -> str:
    """Return a message with a one-time link for the first administrator's password.

    Their address is the setting `admin_email`. Once they have a password, there is no
    link: like everyone else, they reset a forgotten password by email. Without `again`,
    an administrator who was already invited gets no second link.
    """
    email = settings.current().admin_email.lower()
    user, link = find(email), ""
    if user is None or (again and not user.password):
        user, link = invite(email, by=None, reason=FIRST)
    role = db.session.scalars(select(Role).where(Role.name == ADMINISTRATOR)).one()
    if role not in user.roles:
        give_role(user, role, by=None, reason=FIRST)
    if not user.password and not link:
        return (
            f"{email} has not set a password yet."
            " For a new link, run: bin/flask accounts invite"
        )
    if not link:
        return f"The administrator {email} already has a password."
    return f"Set the password of {email} here, once, within an hour:\n{link}"


# --- Roles ----------------------------------------------------------------------------


def give_role(user: BaseUser, role: Role, *, by: BaseUser | None, reason: str) -> None:
    """Assign a role to a user, from their next request on."""
    _one_at_a_time()
    check_rights(by, [*user.roles, role])
    if role in user.roles:
        raise RefusedError(f"They already have the role {role.name}.")
    user.roles.append(role)
    _record("authz_change", user, by, reason, role=role.name, given=True)


def take_role(user: BaseUser, role: Role, *, by: BaseUser | None, reason: str) -> None:
    """Remove a role from a user, from their next request on."""
    _one_at_a_time()
    check_rights(by, [*user.roles, role])
    if role not in user.roles:
        raise RefusedError(f"They do not have the role {role.name}.")
    if role.name == ADMINISTRATOR:
        _keep_an_administrator(user)
    user.roles.remove(role)
    _record("authz_change", user, by, reason, role=role.name, given=False)


def make_roles() -> Iterator[str]:
    """Create declared roles that are missing in the database; yield their names.

    Existing roles keep their permissions: these are data that administrators change.
    """
    there = set(db.session.scalars(select(Role.name)))
    for name, permissions in current_app.extensions["roles"].items():
        if name in there:
            continue
        with suppress(IntegrityError):  # another process created it meanwhile
            with db.session.begin_nested():
                db.session.add(
                    Role(
                        name=name,
                        permissions=list(permissions),
                        requires_second_factor=name == ADMINISTRATOR,
                    )
                )
            yield name


def make_role(
    name: str,
    permissions: Iterable[str],
    requires_second_factor: bool,
    *,
    by: BaseUser | None,
    reason: str,
) -> Role:
    """Create a role that the code does not declare."""
    if not ROLE_NAME.fullmatch(name):
        raise RefusedError("Use lowercase letters, digits, spaces, - and _ in names.")
    granted = sorted(permissions)
    check_grant(by, granted)
    role = Role(
        name=name, permissions=granted, requires_second_factor=requires_second_factor
    )
    db.session.add(role)
    try:
        db.session.flush()
    except IntegrityError:
        db.session.rollback()
        raise RefusedError(f"The role {name} already exists.") from None
    _record_role("made", role, by, reason, granted, [])
    return role


def change_role(
    role: Role,
    permissions: Iterable[str],
    requires_second_factor: bool,
    *,
    by: BaseUser | None,
    reason: str,
) -> None:
    """Change the permissions of a role, from the next request of its users on."""
    _one_at_a_time()
    _keep_role_of_administrators(role)
    before, after = set(role.permissions), set(permissions)
    check_rights(by, [role])
    check_grant(by, after)
    if before == after and role.requires_second_factor == requires_second_factor:
        raise RefusedError("Nothing was changed.")
    role.permissions = sorted(after)
    role.requires_second_factor = requires_second_factor
    _record_role("changed", role, by, reason, after - before, before - after)


def delete_role(role: Role, *, by: BaseUser | None, reason: str) -> None:
    """Delete a role that no one has."""
    _one_at_a_time()
    _keep_role_of_administrators(role)
    check_rights(by, [role])
    if role.name in current_app.extensions["roles"]:
        raise RefusedError("The code declares this role. Remove it there first.")
    if holders(role):
        raise RefusedError("People have this role. Remove it from them first.")
    _record_role("deleted", role, by, reason, [], role.permissions)
    db.session.delete(role)


def holders(role: Role) -> int:
    """Return the number of users who have a role."""
    query = select(func.count()).where(users_roles.c.role_id == role.id)
    return db.session.scalar(query) or 0


# --- Who may do what ------------------------------------------------------------------


def find(email: str) -> BaseUser | None:
    """Return the user with an email address, if any."""
    found: BaseUser | None = _datastore().find_user(email=email.lower())  # type: ignore[assignment]
    return found


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


def count_administrators() -> int:
    """Return the number of administrators."""
    person: Any = _datastore().user_model
    administrators = person.roles.any(Role.name == ADMINISTRATOR)
    return db.session.scalar(select(func.count()).where(administrators)) or 0


def _is_administrator(roles: Iterable[Role]) -> bool:
    return any(role.name == ADMINISTRATOR for role in roles)


def _one_at_a_time() -> None:
    """Block other changes of roles or locks until this transaction has ended.

    It locks the row of the administrator role with an update that changes nothing, as
    SQLite has no SELECT … FOR UPDATE. It expires what was read before, which may be
    stale.
    """
    db.session.flush()
    db.session.execute(
        update(Role)
        .where(Role.name == ADMINISTRATOR)
        .values(name=ADMINISTRATOR)
        .execution_options(synchronize_session=False)
    )
    db.session.expire_all()


def _keep_an_administrator(user: BaseUser) -> None:
    """Refuse to lock or demote the last administrator who can sign in."""
    person: Any = _datastore().user_model
    query = select(person.id).where(
        person.roles.any(Role.name == ADMINISTRATOR),
        person.active,
        # A pending invitation does not count.
        person.confirmed_at.is_not(None),
    )
    if list(db.session.scalars(query.limit(2))) == [user.id]:
        raise RefusedError(
            f"{user.email} is the last administrator. Appoint another one first."
        )


def _keep_role_of_administrators(role: Role) -> None:
    if role.name == ADMINISTRATOR:
        raise RefusedError("Administrators always have every permission.")


def _record(
    name: str,
    user: BaseUser | None,
    by: BaseUser | None,
    reason: str,
    **details: object,
) -> None:
    if by is None:
        details["by"] = "operator"
    events.record(name, user, actor=by, reason=reason, **details)


def _record_role(
    action: str,
    role: Role,
    by: BaseUser | None,
    reason: str,
    added: Iterable[str],
    removed: Iterable[str],
) -> None:
    _record(
        "privilege_permissions_changed",
        None,
        by,
        reason,
        role=role.name,
        action=action,
        added=sorted(added),
        removed=sorted(removed),
        requires_second_factor=role.requires_second_factor,
    )


def _datastore() -> SQLAlchemyUserDatastore:
    datastore: SQLAlchemyUserDatastore = current_app.extensions["security"].datastore
    return datastore


def _new(email: str) -> BaseUser:
    user: Any = _datastore().create_user(email=email, password=None)
    try:
        db.session.flush()
    except IntegrityError:  # Another request was faster.
        db.session.rollback()
        raise RefusedError(f"{email} already has an account.") from None
    return user  # type: ignore[no-any-return]


def _mail_link(user: BaseUser, link: str, subject: str, template: str) -> None:
    within = current_app.config["SECURITY_RESET_PASSWORD_WITHIN"]
    text = render_template(
        f"security/email/{template}.txt",
        user=user,
        link=link,
        hours=int(within.total_seconds() // 3600),
        later=mail.link("security.forgot_password"),
    )
    mail.send(subject, user.email, text)


def _password_link(user: BaseUser) -> str:
    """Return a one-time link to choose a password."""
    token: str = generate_reset_password_token(user)  # type: ignore[no-untyped-call]
    return mail.link("security.reset_password", token=token)
