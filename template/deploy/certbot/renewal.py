"""When the certificate is due for renewal: the authority's window, or a default."""

from datetime import datetime, timedelta

from certificate import Certificate
from lineage import renewal_settings
from service import CERTBOT_MISSING

try:
    import acme.errors
    import josepy.errors
    from acme.client import ClientNetwork, ClientV2
    from acme.messages import RenewalInfo
    from cryptography import x509
    from josepy.json_util import encode_b64jose
except ImportError:
    raise SystemExit(CERTBOT_MISSING) from None

NO_WINDOW = (  # the authority offers none, or no valid response came
    *(acme.errors.Error, josepy.errors.Error, x509.ExtensionNotFound),
    *(KeyError, OSError, ValueError),
)


def renewal_window(certificate: Certificate) -> tuple[datetime, datetime | None]:
    """Return when to renew: the authority's window (RFC 9773) or certbot's default."""
    try:
        return suggested_window(certificate)
    except NO_WINDOW:
        life = certificate.end - certificate.start
        # https://eff-certbot.readthedocs.io/en/stable/using.html#renewing-certificates
        age = life / 2 if life < timedelta(days=10) else life * 2 / 3
        return certificate.start + age, None


def suggested_window(certificate: Certificate) -> tuple[datetime, datetime]:
    """Fetch the authority's window.

    `ClientV2.renewal_time` of acme returns only a random time in it.
    """
    network = ClientNetwork(timeout=5)
    directory = ClientV2.get_directory(renewal_settings()["server"], network)
    base = directory["renewalInfo"].rstrip("/")
    response = network.get(f"{base}/{ari_identifier(certificate.parsed)}")
    window = RenewalInfo.from_json(response.json()).suggested_window
    if not (window.start and window.end):
        raise ValueError(window)
    return window.start, window.end


def ari_identifier(certificate: x509.Certificate) -> str:
    """Return the certificate's identifier at the authority (RFC 9773, 4.1)."""
    extension = certificate.extensions.get_extension_for_class(
        x509.AuthorityKeyIdentifier
    )
    serial = certificate.serial_number
    parts = (
        extension.value.key_identifier or b"",
        serial.to_bytes(serial.bit_length() // 8 + 1, "big"),  # with a sign bit
    )
    return ".".join(encode_b64jose(part) for part in parts)
