"""What certbot stores of the certificate: its versions, and how to renew it."""

import re
import ssl

from service import ARCHIVE, DOMAIN, LIVE, RENEWAL


def renewal_settings() -> dict[str, str]:
    """Return the settings with which certbot renews the certificate."""
    try:
        settings = RENEWAL.read_text()
    except OSError:
        return {}
    return dict(re.findall(r"^(\w+) = (.*)$", settings, re.MULTILINE))


def restore_complete_version() -> None:
    """Restore the last version of the certificate that certbot wrote completely.

    On a full disk certbot leaves empty files, and its next run installs them like a
    certificate. No proxy would start with them.
    """
    kinds = ("privkey", "cert", "chain", "fullchain")
    paths = ARCHIVE.glob("privkey*.pem")
    numbers = sorted(int(path.stem.removeprefix("privkey")) for path in paths)
    last = next(filter(is_complete, reversed(numbers)), None)
    if last is None or last == numbers[-1]:
        return
    for kind in kinds:
        for number in range(last + 1, numbers[-1] + 1):
            (ARCHIVE / f"{kind}{number}.pem").unlink(missing_ok=True)
        link = LIVE / f"{kind}.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../archive/{DOMAIN}/{kind}{last}.pem")


def is_complete(number: int) -> bool:
    """Return whether a version of the certificate exists and its key matches."""
    chain, key = (ARCHIVE / f"{kind}{number}.pem" for kind in ("fullchain", "privkey"))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
    except (FileNotFoundError, ssl.SSLError):
        return False
    return True
