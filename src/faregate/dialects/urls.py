"""Whether an address that a provider would fetch is literally private, before it is passed on.

Judges the text of the address alone: no name is resolved here, so a public name that points inward is the provider's
to refuse. Loopback, private, link-local and other special ranges are refused in every spelling that URL parsers accept.
"""

import binascii
import ipaddress
import re
from typing import Final
from urllib.parse import unquote, urlsplit

URL_CHARACTERS_MAX: Final = 8192

_LOCAL_SUFFIXES: Final = (".localhost", ".local", ".internal", ".localdomain", ".home.arpa", ".intranet", ".lan")
_NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)\Z")
_NOT_BASE64: Final = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_BASE64: Final = bytes(set(range(256)) - set(_NOT_BASE64))


def is_public_https(url: str) -> bool:
    """Whether ``url`` is an https address of a host that is not literally private, without user or password."""
    if len(url) > URL_CHARACTERS_MAX or not url.isprintable() or "\\" in url or " " in url:
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port = parts.port
    except ValueError:
        return False
    if parts.scheme.lower() != "https" or "@" in parts.netloc or not host or port == 0:
        return False
    host = unquote(host).rstrip(".").lower()
    if not host or not host.isascii():
        # Full-width digits and dots are folded to ASCII by some resolvers, so nothing but ASCII is let through.
        return False
    return not _is_private(host)


def _is_private(host: str) -> bool:
    if "%" in host or host == "localhost" or host.endswith(_LOCAL_SUFFIXES):
        return True
    if ":" in host:
        return not is_public_address(host)
    labels = host.split(".")
    if _NUMBER.match(labels[-1]):
        # A host that ends in a number is an IPv4 address in one of inet_aton's spellings; odd ones have no honest use.
        return not _is_dotted_quad(labels) or not is_public_address(host)
    # A name without a dot is resolved by a search list, which is never public.
    return len(labels) < 2 or "" in labels


def _is_dotted_quad(labels: list[str]) -> bool:
    return len(labels) == 4 and all(label.isdigit() and (label == "0" or label[0] != "0") for label in labels)


#: Carries an IPv4 address in its last 32 bits (RFC 6052); and what only a translator of a local network understands
#: (RFC 8215), or nobody any more (RFC 4291 section 2.5.5.1): nothing of ours is there.
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_NOWHERE: Final = tuple(ipaddress.ip_network(each) for each in ("64:ff9b:1::/48", "::/96"))


def _inside(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to in the end, where it carries one."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.sixtofour or (address.teredo[1] if address.teredo else None)


def _leads_nowhere(address: ipaddress.IPv6Address) -> bool:
    return not (address.is_loopback or address.is_unspecified) and any(address in each for each in _NOWHERE)


def is_public_address(host: str) -> bool:
    """Whether ``host`` is an IP address of the public internet, also by what it carries inside."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if _leads_nowhere(address):
            return False
        inner = _inside(address)
        if inner is not None and not inner.is_global:
            return False
        if inner is not None and (address.ipv4_mapped is not None or address in _NAT64):
            return True
    return address.is_global and not address.is_multicast


#: Where a connection may lead: to the public internet, to this machine alone, or to private networks, too.
REACHES: Final = ("public", "loopback", "private")

#: Where clouds tell a machine its own secrets; no provider of models is there, whatever anybody allows.
_METADATA: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        *("169.254.0.0/16", "fe80::/10", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"),
        *("fd00:ec2::/32", "fd20:ce::254/128"),
    )
)


def may_reach(address: str, reach: str) -> bool:
    """Whether a connection that may go as far as ``reach`` (one of ``REACHES``) may go to an IP address.

    IPv4 addresses that an IPv6 address carries inside are judged as themselves.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if _leads_nowhere(found):
            return False
        inner = _inside(found)
        if inner is not None:
            return may_reach(str(inner), reach)
    if any(found in network for network in _METADATA):
        return False
    if found.is_loopback or reach == "loopback":
        return found.is_loopback and reach != "public"
    if is_public_address(str(found)):
        return True
    return reach == "private" and not (found.is_multicast or found.is_unspecified or found.is_reserved)


def data_url_problem(url: str) -> str:
    """What is wrong with a ``data:`` URL, empty when it is well-formed base64 or plain text."""
    head, comma, data = url.partition(",")
    if not comma:
        return "no comma"
    if not head.lower().endswith(";base64"):
        return ""
    if not data.isascii():
        return "characters outside base64"
    raw = data.encode("ascii")
    if raw.translate(None, _BASE64):
        return "characters outside base64"
    if len(raw) % 4 or b"=" in raw[:-2] or raw[-2:-1] == b"=" != raw[-1:]:
        return "a wrong length or padding"
    try:
        binascii.a2b_base64(raw[-4:], strict_mode=True)
    except binascii.Error:
        return "a wrong length or padding"
    return "" if raw else "no data"
