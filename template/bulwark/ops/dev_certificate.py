"""The development certificate, whose authority is valid for this machine only."""

import ipaddress
import os
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bulwark.database import utcnow

LIFE = timedelta(days=397)  # the longest that browsers accept from any authority
RENEW_BEFORE = timedelta(days=30)
LOOPBACK = (
    ipaddress.ip_network("127.0.0.1/32"),
    ipaddress.ip_network("::1/128"),
)


def make(folder: Path, service: str) -> bool:
    """Write `authority.pem`, `localhost.pem` and `localhost.key` unless they are valid.

    The authority's own key is never stored. So trusting the authority means trusting
    this one certificate, for names of this machine only. Return whether files were
    written.
    """
    leaf_path, key_path = folder / "localhost.pem", folder / "localhost.key"
    if leaf_path.is_file() and key_path.is_file():
        leaf = x509.load_pem_x509_certificate(leaf_path.read_bytes())
        if leaf.not_valid_after_utc - utcnow() > RENEW_BEFORE:
            return False
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _authority(service, authority_key)
    leaf = _leaf(authority, authority_key, key)
    with os.fdopen(
        os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
    ) as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    leaf_path.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    pem = authority.public_bytes(serialization.Encoding.PEM)
    (folder / "authority.pem").write_bytes(pem)
    return True


def _authority(service: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # A common name has at most 64 bytes (RFC 5280, appendix A.1).
    name = _name(f"Development of {service}".encode()[:64].decode(errors="ignore"))
    only_here = [x509.DNSName("localhost"), *map(x509.IPAddress, LOOPBACK)]
    return (
        _certificate(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints(only_here, None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )


def _leaf(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    names = [
        x509.DNSName("localhost"),
        *(x509.IPAddress(network.network_address) for network in LOOPBACK),
    ]
    return (
        _certificate(_name("localhost"), authority.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                authority_key.public_key()
            ),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = utcnow()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFE)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
