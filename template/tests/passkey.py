"""A passkey in software: answers a browser's calls as an authenticator does."""

import hashlib
import json
import os
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

# Flags of authenticator data (WebAuthn Level 3, 6.1).
PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


@dataclass
class SoftwarePasskey:
    """One key for one site.

    `verifies` is whether it asks for a PIN or a finger, `counts` whether it counts its
    uses, as security keys do and phones don't.
    """

    origin: str = "https://localhost"
    verifies: bool = True
    counts: bool = True
    counter: int = 0
    id: bytes = field(default_factory=lambda: os.urandom(32))
    user_handle: str = ""
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def register(self, options: dict[str, Any]) -> str:
        """Answer `navigator.credentials.create` with the options of the page."""
        self.user_handle = options["user"]["id"]
        point = self.key.public_key().public_numbers()
        public = cbor2.dumps(
            {
                1: 2,
                3: -7,
                -1: 1,
                -2: point.x.to_bytes(32, "big"),
                -3: point.y.to_bytes(32, "big"),
            }
        )
        attested = bytes(16) + struct.pack(">H", len(self.id)) + self.id + public
        data = self._data(options["rp"]["id"], ATTESTED) + attested
        attestation = {"fmt": "none", "attStmt": {}, "authData": data}
        return self._answer(
            clientDataJSON=self._client_data("webauthn.create", options),
            attestationObject=cbor2.dumps(attestation),
        )

    def sign(self, options: dict[str, Any]) -> str:
        """Answer `navigator.credentials.get` with the options of the page."""
        data = self._data(options["rpId"], 0)
        client = self._client_data("webauthn.get", options)
        signed = data + hashlib.sha256(client).digest()
        return self._answer(
            clientDataJSON=client,
            authenticatorData=data,
            signature=self.key.sign(signed, ec.ECDSA(SHA256())),
            userHandle=urlsafe_b64decode(self.user_handle + "=="),
        )

    def _data(self, rp_id: str, more: int) -> bytes:
        self.counter += self.counts
        flags = PRESENT | (VERIFIED if self.verifies else 0) | more
        head = hashlib.sha256(rp_id.encode()).digest()
        return head + struct.pack(">BI", flags, self.counter)

    def _client_data(self, kind: str, options: dict[str, Any]) -> bytes:
        return json.dumps(
            {"type": kind, "challenge": options["challenge"], "origin": self.origin}
        ).encode()

    def _answer(self, **response: bytes) -> str:
        return json.dumps(
            {
                "id": _text(self.id),
                "rawId": _text(self.id),
                "type": "public-key",
                "response": {name: _text(value) for name, value in response.items()},
            }
        )


def _text(value: bytes) -> str:
    return urlsafe_b64encode(value).decode().rstrip("=")
