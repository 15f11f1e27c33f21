"""The password policy: rejected passwords, and the reasons shown to the user."""

import re
from typing import Any

from flask_security import PasswordUtil
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from bulwark import settings
from bulwark.identity.security.breached_passwords import is_breached
from bulwark.identity.security.common_passwords import is_common
from bulwark.identity.security.password_guesses import rate
from bulwark.web.form_limits import PASSWORD

COMMON = frozenset(FREQUENCY_LISTS["passwords"])  # 30,000, most common first
# The minimum number of guesses, as a base 10 logarithm. It is lower where short
# passwords are allowed, as these are never the only factor.
LEAST_GUESSES, LEAST_GUESSES_IF_SHORT = 9, 8
SHORT = 15  # characters; from this length on, a password may be the only factor
PADDING = "0123456789!.?*#_- "
LEAST_WORD = 4  # shorter words of a name occur in too many good passwords


class PasswordPolicy(PasswordUtil):
    """Length and guessability, no composition rules (NIST SP 800-63B-4, 3.1.1.2)."""

    def validate(
        self, password: str, is_register: bool, **fields: Any
    ) -> tuple[list[str] | None, str]:
        """Return the reasons to reject a password, and its normalized form."""
        normal = self.normalize(password)
        user = fields.get("user")
        email = fields.get("email") or (user.email if user else "")
        reason = refusal(
            normal,
            least=settings.current().password_min_length,
            service=settings.current().name,
            email=str(email),
        )
        if not reason and is_breached(normal):
            reason = "This password appeared in a data breach, so attackers try it."
        return ([reason] if reason else None), normal


def refusal(password: str, *, least: int, service: str, email: str) -> str | None:
    """Return the reason to reject a password, for the user; None if it is good."""
    if len(password) > PASSWORD:
        return f"Use {PASSWORD} characters at most."
    if _many_use(password):
        return (
            "Many people use this password, so attackers try it first. Three or four"
            " unrelated words make a good password."
        )
    if len(password) < least:
        return (
            f"Use {least} characters or more; this has {len(password)}. Three or four"
            " unrelated words make a good password."
        )
    plain = password.casefold()
    for word in _words(service):
        if word in plain:
            return f"Leave out “{word}”: attackers try this service's name first."
    for word in _words(email):
        if word in plain:
            return f"Leave out “{word}”: it is in your email address."
    enough = LEAST_GUESSES_IF_SHORT if least < SHORT else LEAST_GUESSES
    rating = rate(password, enough)
    if rating.guesses < enough:
        pattern = (
            "It consists of common words, names or passwords"
            if rating.words
            else "It contains repetitions, keyboard patterns, sequences or dates"
        )
        return f"This password is easy to guess. {pattern}. Add a word or two."
    return None


def _many_use(password: str) -> bool:
    """Return whether a password is common, ignoring padding and spaces."""
    plain = password.casefold()
    core = plain.strip(PADDING)
    return (
        plain in COMMON
        or core in COMMON
        or any(map(is_common, {plain, core, "".join(filter(str.isalnum, plain))}))
    )


def _words(name: str) -> list[str]:
    return [w for w in re.split(r"[\W_]+", name.casefold()) if len(w) >= LEAST_WORD]
