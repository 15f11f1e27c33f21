"""Which passwords are refused, and the words that say why."""

import re
from typing import Any

from flask_security import PasswordUtil
from zxcvbn import zxcvbn
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from bulwark import config

COMMON = frozenset(FREQUENCY_LISTS["passwords"])  # 30,000, most used first
MAX_LENGTH = 1024  # far over the 64 of NIST SP 800-63B-4; bounds the work of a request
MAX_LENGTH_RATED = 72  # what zxcvbn takes
LEAST_GUESSES = 10**8  # where zxcvbn's "safely unguessable" begins
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
        return ([reason] if reason else None), normal


def refusal(password: str, *, least: int, service: str, email: str) -> str | None:
    """Return why a password is refused, in words for its owner; None if it is good."""
    plain = password.casefold()
    if plain in COMMON or plain.strip("0123456789!.?*#_- ") in COMMON:
        return (
            "Many people use this password, so attackers try it first. Three or four"
            " words that have nothing to do with each other make a good one."
        )
    if len(password) < least:
        return (
            f"Use {least} characters or more; this has {len(password)}. Three or four"
            " words that have nothing to do with each other make a good one."
        )
    if len(password) > MAX_LENGTH:
        return f"Use {MAX_LENGTH} characters at most."
    for word in _words(service):
        if word in plain:
            return f"Leave out “{word}”: this service's name is the first guess."
    for word in _words(email):
        if word in plain:
            return f"Leave out “{word}”: it is in your e-mail address."
    rating = zxcvbn(plain[:MAX_LENGTH_RATED])
    if rating["guesses"] < LEAST_GUESSES:
        hint = rating["feedback"]["warning"] or "It follows a pattern"
        return f"This is easy to guess. {hint.rstrip('.')}. Add a word or two."
    return None


def _words(name: str) -> list[str]:
    return [w for w in re.split(r"[\W_]+", name.casefold()) if len(w) >= LEAST_WORD]
