"""Keys of the audit trail's links, even after their encryption keys were removed.

The chain's key is derived from an encryption key and doesn't reveal it. Before an
encryption key is removed, its chain key is stored here, encrypted with the newest key.
So the links that were made with it can still be verified.
"""

from contextlib import suppress

from sqlalchemy import LargeBinary, String, func, select
from sqlalchemy.orm import Mapped, mapped_column

from bulwark import crypto, settings
from bulwark.audit.trail import AuditLink, derive_chain_key
from bulwark.database import SECRET, Model, db


class ChainKey(Model):
    """The chain key of an encryption key that was, or will be, removed."""

    __tablename__ = "audit_keys"

    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    sealed_key: Mapped[bytes] = mapped_column(LargeBinary, info=SECRET)


def chain_keys() -> dict[str, bytes]:
    """Return the chain's keys by the id of the encryption key.

    Stored keys that no encryption key can decrypt are left out.
    """
    keys = settings.current().encryption_keys
    found: dict[str, bytes] = {}
    for stored in db.session.scalars(select(ChainKey)):
        with suppress(crypto.DecryptionError):
            place = place_of(stored.key_id)
            found[stored.key_id] = crypto.decrypt(
                stored.sealed_key, keys=keys, place=place
            )
    return found | {key_id: derive_chain_key(key) for key_id, key in keys.items()}


def store_former_keys() -> int:
    """Store the chain keys of all encryption keys but the newest.

    It does so in the current transaction. Return how many were not stored yet.
    """
    keys = settings.current().encryption_keys
    stored = set(db.session.scalars(select(ChainKey.key_id)))
    former = [key_id for key_id in list(keys)[1:] if key_id not in stored]
    for key_id in former:
        sealed = crypto.encrypt(
            derive_chain_key(keys[key_id]), keys=keys, place=place_of(key_id)
        )
        db.session.add(ChainKey(key_id=key_id, sealed_key=sealed))
    return len(former)


def count_links(key_id: str) -> int:
    """Return how many links need the key and would be lost with it."""
    if db.session.get(ChainKey, key_id):
        return 0
    query = select(func.count()).where(AuditLink.key_id == key_id)
    return db.session.scalar(query) or 0


def place_of(key_id: str) -> str:
    """Return the place that a stored key is encrypted for."""
    return f"audit_keys.sealed_key:{key_id}"
