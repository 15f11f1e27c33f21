"""Signatures of cookies, links and forms: HMAC-SHA-256 in all libraries."""

import hashlib

from itsdangerous import Serializer, Signer
from itsdangerous.signer import HMACAlgorithm


def init() -> None:
    """Make each signer in this process use SHA-256.

    Flask, Flask-WTF and Flask-Security create their own signers, with the defaults of
    these classes. Values signed with SHA-1, the default before, are accepted until they
    expire: each reader checks their age.
    """
    for cls in (Signer, HMACAlgorithm):
        cls.default_digest_method = staticmethod(hashlib.sha256)
    before = {"digest_method": hashlib.sha1}
    # The second is how Flask derives the key for its cookie.
    Serializer.default_fallback_signers = [before, before | {"key_derivation": "hmac"}]
