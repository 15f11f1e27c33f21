"""Which passwords are refused, and the words that say why."""

import re
from typing import Any

from flask_security import PasswordUtil
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from bulwark import config
from bulwark.identity.breached_passwords import is_breached
from bulwark.identity.common_passwords import is_common
from bulwark.identity.password_guesses import rate
from bulwark.lengths import PASSWORD

COMMON = frozenset(FREQUENCY_LISTS["passwords"])  # 30,000, most used first
# The least guesses, as a base 10 logarithm; less where short passwords are allowed,
# which are never the only factor.
LEAST_GUESSES, LEAST_GUESSES_IF_SHORT = 9, 8
SHORT = 15  # characters, from where a password may be the only factor
PADDING = "0123456789!.?*#_- "
LEAST_WORD = 4  # shorter words of a name are in too many good passwords


class PasswordPolicy(PasswordUtil):
    """Length and guessability, no composition rules (NIST SP 800-63B-4, 3.1.1.2)."""

    def validate(
        self, password: str, is_register: bool, **fields: Any
    ) -> tuple[list[str] | None, str]:
        """Return the reasons to refuse the password, and it as it will be hashed."""
        normal = self.normalize(password)
        user = fields.get("user")
        email = fields.get("email") or (user.email if user else "")
        reason = refusal(
            normal,
            least=config.current().password_min_length,
            service=config.current().name,
            email=str(email),
        )
        if not reason and is_breached(normal):
            reason = "This password was leaked from some site, so attackers try it."
        return ([reason] if reason else None), normal


def refusal(password: str, *, least: int, service: str, email: str) -> str | None:
    """Return why a password is refused, in words for its owner; None if it is good."""
    if len(password) > PASSWORD:
        return f"Use {PASSWORD} characters at most."
    if _many_use(password):
        return (
            "Many people use this password, so attackers try it first. Three or four"
            " words that have nothing to do with each other make a good one."
        )
    if len(password) < least:
        return (
            f"Use {least} characters or more; this has {len(password)}. Three or four"
            " words that have nothing to do with each other make a good one."
        )
    plain = password.casefold()
    for word in _words(service):
        if word in plain:
            return f"Leave out “{word}”: this service's name is the first guess."
    for word in _words(email):
        if word in plain:
            return f"Leave out “{word}”: it is in your e-mail address."
    enough = LEAST_GUESSES_IF_SHORT if least < SHORT else LEAST_GUESSES
    rating = rate(password, enough)
    if rating.guesses < enough:
        pattern = (
            "It is made of common words, names or passwords"
            if rating.words
            else "It repeats itself, or follows the keyboard, the alphabet or a date"
        )
        return f"This is easy to guess. {pattern}. Add a word or two."
    return None


def _many_use(password: str) -> bool:
    """Tell whether it is a common password, padding and spaces apart."""
    plain = password.casefold()
    core = plain.strip(PADDING)
    return (
        plain in COMMON
        or core in COMMON
        or any(map(is_common, {plain, core, "".join(filter(str.isalnum, plain))}))
    )


def _words(name: str) -> list[str]:
    return [w for w in re.split(r"[\W_]+", name.casefold()) if len(w) >= LEAST_WORD]
