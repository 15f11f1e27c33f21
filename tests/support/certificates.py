"""Certificates for the servers of tests, from authorities that nothing else trusts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

LIFE = timedelta(hours=25)
COMMON_NAME_LENGTH = 64  # characters at most, RFC 5280, appendix A.1


def certify(domain: str, certificate: Path, key: Path, *, left: float = 0.96) -> None:
    """Write a certificate for a domain, and its P-256 key, as certbot does.

    `left` is the share of its life of 25 hours that is left. The certificate file
    includes its authority, so clients can trust that file.
    """
    authority = trustme.CA()
    name = domain if len(domain) <= COMMON_NAME_LENGTH else None
    begin = datetime.now(UTC) - LIFE * (1 - left)
    issued = authority.issue_cert(
        domain, common_name=name, not_before=begin, not_after=begin + LIFE
    )
    _write(issued, certificate, key)
    authority.cert_pem.write_to_path(certificate, append=True)


def issue(authority: trustme.CA, host: str, certificate: Path, key: Path) -> None:
    """Write a certificate for a host, and its key, issued by an authority."""
    _write(authority.issue_cert(host), certificate, key)


def _write(issued: trustme.LeafCert, certificate: Path, key: Path) -> None:
    for pem in issued.cert_chain_pems:
        pem.write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
