"""Signatures of cookies, links and forms: HMAC-SHA-256, whatever library makes them."""

import hashlib

from itsdangerous import Serializer, Signer
from itsdangerous.signer import HMACAlgorithm


def init() -> None:
    """Let each signer of this process use SHA-256.

    Flask, Flask-WTF and Flask-Security make their signers themselves and take what
    these classes say. What was signed with SHA-1, their default before, is accepted for
    as long as it would have been valid: each reader asks how old it is.
    """
    for cls in (Signer, HMACAlgorithm):
        cls.default_digest_method = staticmethod(hashlib.sha256)
    before = {"digest_method": hashlib.sha1}
    # The second is how Flask derives the key for its cookie.
    Serializer.default_fallback_signers = [before, before | {"key_derivation": "hmac"}]
