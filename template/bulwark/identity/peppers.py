"""Generations of the pepper: each password hash names its own, so it can change.

A pepper that begins with `gen2.` is of the second generation. The first has no mark,
and neither do its hashes. A sign-in replaces a hash that has a former pepper.
"""

import base64
import hashlib
import hmac
import re

from flask import current_app

from bulwark import settings

MARK = "$pepper={}"  # before a hash, from the second generation on
MARKED = re.compile(r"\$pepper=(\d+)(.+)", re.DOTALL)
GENERATION = re.compile(r"gen(\d+)\.")
BCRYPT_BYTES = 72  # of a password, after which bcrypt ignores the rest


def generation_of(pepper: str) -> int:
    """Return the generation of a pepper."""
    found = GENERATION.match(pepper)
    return int(found[1]) if found else 1


def known() -> dict[int, str]:
    """Return the peppers by generation, the current one first."""
    config = settings.current()
    peppers = (config.password_pepper, *config.password_pepper_fallbacks)
    found: dict[int, str] = {}
    for pepper in peppers:
        found.setdefault(generation_of(pepper), pepper)
    return found


def mark(hashed: str) -> str:
    """Return the stored form of a hash that was made with the current pepper."""
    generation = generation_of(settings.current().password_pepper)
    return hashed if generation == 1 else MARK.format(generation) + hashed


def split(stored: str) -> tuple[int, str]:
    """Return the generation of a stored hash, and the hash."""
    found = MARKED.fullmatch(stored)
    return (int(found[1]), found[2]) if found else (1, stored)


def verify_password(password: str | bytes, stored: str) -> bool:
    """Return whether a password is correct, in the same time if its pepper is gone."""
    generation, hashed = split(stored)
    pepper = known().get(generation)
    plain = password.encode() if isinstance(password, str) else password
    # As Flask-Security does it, with the current pepper only.
    mac = hmac.digest((pepper or "").encode(), plain, hashlib.sha512)
    shortened = base64.b64encode(mac)[:BCRYPT_BYTES]
    correct = current_app.extensions["security"].pwd_context.verify(shortened, hashed)
    return pepper is not None and bool(correct)


def is_outdated(stored: str) -> bool:
    """Return whether a hash has a former pepper, or a former algorithm or cost."""
    generation, hashed = split(stored)
    context = current_app.extensions["security"].pwd_context
    current = generation_of(settings.current().password_pepper)
    return generation != current or bool(context.needs_update(hashed))
