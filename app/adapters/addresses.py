"""Which URLs may be configured: https, or plain http where the network path is private."""

import ipaddress
import re
from urllib.parse import unquote, urlsplit

PRIVATE_NETWORKS = tuple(
    ipaddress.ip_network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
"""RFC 1918 and RFC 4193. Not link-local addresses: cloud providers serve credentials of the machine there."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052. Its last 32 bits are the IPv4 address that a translator connects to."""

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")
"""RFC 9637, which Python 3.11 does not know."""

_NOT_IN_URLS = re.compile(r"[ \\\"`]")
"""RFC 3986. Programs differ in whether a backslash ends the host."""

_SINGLE_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
"""A name that only the local resolver knows. It begins with a letter: resolvers read `0x7f000001` as an address."""

_CLUSTER_SERVICE = re.compile(r"(?:[a-z0-9_-]{1,63}\.){1,3}svc(?:\.cluster\.local)?\Z")
"""A service of a Kubernetes cluster: `NAME.NAMESPACE.svc` or `NAME.NAMESPACE.svc.cluster.local`."""

_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]{1,5})?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
MAX_NAME_LENGTH = 253
"""Characters of a DNS name without its final dot (RFC 1035)."""


def has_plain_host(url: str) -> bool:
    """Whether the host is a name, or an IP address in its usual form: `192.0.2.1` or `[2001:db8::1]`.

    Resolvers also read `127.1`, `0x7f000001` and `2130706433` as addresses, and an IPv6 address can contain an IPv4
    address. The text of such a host does not show to which address a request is sent.
    """
    found = _AUTHORITY.fullmatch(urlsplit(url).netloc.lower())
    if found is None:
        return False
    name = found["name"]
    if name is None:
        return _is_plain_ipv6(found["ipv6"])
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # the URL standard reads such a host as an IPv4 address
        return _is_ipv4(name)
    return len(name) <= MAX_NAME_LENGTH and all(map(_LABEL.fullmatch, labels))


def _is_plain_ipv6(text: str) -> bool:
    try:
        return ipaddress.IPv6Address(text).ipv4_mapped is None
    except ValueError:
        return False


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def is_safe_url(url: str, *, allows_http: bool = False) -> bool:
    """True for https, or http to this machine, without credentials and without a fragment.

    `allows_http` allows http to private hosts too, but never to public ones.
    """
    if not url.isprintable() or _NOT_IN_URLS.search(url):
        return False  # urlsplit would drop line ends
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        has_valid_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    if not host or not has_valid_port or parts.username is not None or parts.password is not None or parts.fragment:
        return False
    if parts.scheme == "http":
        return is_loopback(host) or (allows_http and is_private(host))
    return parts.scheme == "https"


def is_proxy_url(url: str) -> bool:
    """True for the URL of an HTTP proxy: a scheme, optional credentials, a host and an optional port."""
    if not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        has_valid_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    has_more = parts.path.strip("/") or parts.query or parts.fragment or "@" in (parts.password or "")
    if ":" in unquote(parts.username or "") or not _is_latin(unquote(parts.netloc)):
        return False  # Basic authentication cannot express it (RFC 7617)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and has_valid_port and not has_more


def _is_latin(text: str) -> bool:
    return all(ord(character) < 256 for character in text)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class AddressForbidden(OSError):
    """A resolver's error: the host has an address to which this request may not be sent."""


def is_public(address: IpAddress) -> bool:
    """Whether the address is a unicast address of the Internet, and leads to no other IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    if address in NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    embedded = [address.sixtofour, *(address.teredo or ())]
    is_unicast = address in GLOBAL_UNICAST and address not in DOCUMENTATION and address.is_global
    return is_unicast and all(is_public(inner) for inner in embedded if inner is not None)


def is_private(host: str) -> bool:
    """Whether the host is in a private network, by its address or by a name that no public DNS has."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return bool(_SINGLE_LABEL.match(host) or _CLUSTER_SERVICE.match(host))
    return any(address in network for network in PRIVATE_NETWORKS)
