"""Hosts and addresses of the network."""

from ipaddress import IPv4Address, ip_address, ip_network

LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")
# How an IPv6-only server sees each IPv4-only client: RFC 6052 and 8215.
TRANSLATED = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))


def is_local(host: str) -> bool:
    """Return whether a host, or the path of a Unix socket, is on this machine."""
    return host in LOCAL_HOSTS or host.startswith("/")


def network_of(address: str) -> str:
    """Return the network of an address: the IPv4 address itself, or the /64 of IPv6.

    One home or server has at least a /64 (RFC 6177), and could use each address once.
    Clients with a translated IPv4 address share a /64, so each address is a network.
    What is not an address, such as the name of a socket, is returned unchanged.
    """
    try:
        sender = ip_address(address)
    except ValueError:
        return address
    if isinstance(sender, IPv4Address):
        return str(sender)
    if sender.ipv4_mapped:
        return str(sender.ipv4_mapped)
    if any(sender in network for network in TRANSLATED):
        return str(sender)
    return str(ip_network((sender, 64), strict=False))
