"""Networks that a credential is restricted to, and the address that a request came from.

Pure: it reads texts and compares numbers. Who the peer of a connection is, and which proxies are believed, is told to
it. An IPv4 address that came in IPv6's clothes (``::ffff:10.0.0.1``) counts as the IPv4 address that it is.
"""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

#: More entries are a sign that the restriction belongs into a firewall.
NETWORKS_MAX: Final = 64

#: Hops of ``X-Forwarded-For`` that are looked at; a longer list is nobody's honest one.
HOPS_MAX: Final = 32

_ADDRESS_CHARACTERS_MAX: Final = 64


class Network(NamedTuple):
    """A block of addresses: of which version, and the bits that all of them share."""

    version: int
    bits: int
    #: How many low bits differ.
    free: int


def network(text: str) -> Network:
    """``10.0.0.0/8``, ``2001:db8::/32`` or a single address.

    Raises:
        ValueError: it is none; the message is a sentence, with the nearest network where there is one.
    """
    try:
        block = ip_network(text)
    except ValueError:
        try:
            near = ip_network(text, strict=False)
        except ValueError:
            raise ValueError("is not a network; write one as 10.0.0.0/8 or 2001:db8::/32") from None
        raise ValueError(f"has bits set behind its prefix; did you mean {near}?") from None
    if "%" in text:
        raise ValueError("names an interface; write the network without it")
    if isinstance(block, IPv6Network) and block.network_address.ipv4_mapped is not None:
        raise ValueError("is an IPv4 network in IPv6's form; write it as 10.0.0.0/8")
    free = block.max_prefixlen - block.prefixlen
    return Network(block.version, int(block.network_address) >> free, free)


@lru_cache(maxsize=4_096)
def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Networks that were checked before, ready to be compared with; the same texts are read once.

    Raises:
        ValueError: one of them is none.
    """
    return tuple(map(network, texts))


@lru_cache(maxsize=1_024)
def inside(texts: tuple[str, ...], wide: tuple[str, ...]) -> tuple[str, ...]:
    """Those of some networks that lie wholly in one of others; both were checked before."""
    blocks = frozenset(networks(wide))
    # A few sizes among many networks: one look for each of them, rather than one for each network.
    sizes = {(each.version, each.free) for each in blocks}
    return tuple(
        text
        for text, each in zip(texts, networks(texts), strict=True)
        if any(
            version == each.version and free >= each.free and (version, each.bits >> (free - each.free), free) in blocks
            for version, free in sizes
        )
    )


def _numbers(text: str) -> tuple[int, int] | None:
    """Version and number of an address; ``None`` where it is none."""
    if len(text) > _ADDRESS_CHARACTERS_MAX:
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version, int(address)


def holds(texts: tuple[str, ...], address: str) -> bool:
    """Whether an address lies in one of some networks; what is no address lies in none."""
    found = _numbers(address)
    if found is None:
        return False
    version, number = found
    return any(each.version == version and number >> each.free == each.bits for each in networks(texts))


def _bare(hop: str) -> str:
    """A hop without the port that some proxies write behind it."""
    hop = hop.strip().strip('"')
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def client_address(peer: str, forwarded: str, trusted: tuple[str, ...]) -> str:
    """The address that a request came from: the peer's, or what proxies that are ``trusted`` say of it.

    ``forwarded`` is ``X-Forwarded-For``, whose last hop was written by the peer. Hops are believed from the end on for
    as long as trusted proxies wrote them; the first other address is the client's, whatever stands before it, because
    that is the client's own word. Empty where a trusted proxy wrote something that is no address.
    """
    if not trusted or not forwarded or not holds(trusted, peer):
        return peer
    hops = forwarded.rsplit(",", HOPS_MAX)
    address = peer
    for hop in reversed(hops):
        if not holds(trusted, address):
            break
        address = _bare(hop)
        if _numbers(address) is None:
            return ""
    return address
