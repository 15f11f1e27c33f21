"""The certificate on disk, for the proxy to serve."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

from service import CERTBOT_MISSING, LIVE, Problem

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
except ImportError:
    raise SystemExit(CERTBOT_MISSING) from None


@dataclass(frozen=True)
class Certificate:
    """What the commands use of a certificate."""

    parsed: x509.Certificate

    @property
    def der(self) -> bytes:
        """Return its bytes, as a TLS connection shows them."""
        return self.parsed.public_bytes(Encoding.DER)

    @property
    def names(self) -> list[str]:
        """Return the domain names that it is valid for."""
        for extension in self.parsed.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                return extension.value.get_values_for_type(x509.DNSName)
        return []

    @property
    def issuer(self) -> str:
        """Return the authority's name (RFC 4514)."""
        return self.parsed.issuer.rfc4514_string()

    @property
    def start(self) -> datetime:
        """Return when its lifetime begins."""
        return self.parsed.not_valid_before_utc

    @property
    def end(self) -> datetime:
        """Return when its lifetime ends."""
        return self.parsed.not_valid_after_utc

    def share_left(self) -> float:
        """Return the share of its lifetime left: 1 when new, 0 or less when expired."""
        return (self.end - datetime.now(UTC)) / (self.end - self.start)


def read_certificate() -> Certificate:
    """Read this service's certificate, and check that its key matches."""
    chain, key = LIVE / "fullchain.pem", LIVE / "privkey.pem"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
        return Certificate(x509.load_pem_x509_certificate(chain.read_bytes()))
    except FileNotFoundError:
        what = f"There is no certificate with its key in {LIVE}."
    except ssl.SSLError as error:
        what = f"The certificate or the key in {LIVE} is damaged."
        if error.reason == "KEY_VALUES_MISMATCH":
            what = f"Certificate and key in {LIVE} do not match."
    except OSError as error:
        raise Problem(f"{LIVE} cannot be read: {error.strerror}.") from None
    raise Problem(what, "To get a new one: deploy/certbot/issue")
