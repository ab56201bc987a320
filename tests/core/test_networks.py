"""Networks that a credential is restricted to, and where a request came from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.networks import client_address, holds, network


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.0.1/33", "is not a network"),
        ("::/129", "is not a network"),
        ("example.org", "is not a network"),
        ("", "is not a network"),
        ("10.0.0.1/8", "did you mean 10.0.0.0/8?"),
        ("fe80::1%eth0", "names an interface"),
        ("::ffff:10.0.0.0/104", "write it as 10.0.0.0/8"),
    ],
)
def test_what_is_no_network_is_refused_with_the_nearest(text: str, said: str) -> None:
    """Each fault has its sentence."""
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        network(text)


@pytest.mark.parametrize(
    ("networks", "address", "held"),
    [
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "11.0.0.0", False),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("10.0.0.0/8",), "::10.1.2.3", False),
        (("192.0.2.7",), "192.0.2.7", True),
        (("192.0.2.7",), "192.0.2.8", False),
        (("2001:db8::/32", "10.0.0.0/8"), "2001:db8:1::9", True),
        (("2001:db8::/32",), "2001:db9::", False),
        (("0.0.0.0/0",), "2001:db8::", False),
        (("0.0.0.0/0", "::/0"), "2001:db8::", True),
        (("::/0",), "fe80::1%eth0", True),
        (("0.0.0.0/0", "::/0"), "", False),
        (("0.0.0.0/0", "::/0"), "unknown", False),
        (("0.0.0.0/0",), "0177.0.0.1", False),
    ],
)
def test_an_address_lies_in_a_network_by_its_bits(networks: tuple[str, ...], address: str, held: bool) -> None:
    """IPv4 in IPv6's clothes is IPv4; what is no address lies nowhere."""
    assert holds(networks, address) is held


PROXIES = ("10.0.0.0/24", "2001:db8::/64")


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("198.51.100.7", "", PROXIES, "198.51.100.7"),
        ("198.51.100.7", "10.0.0.9", PROXIES, "198.51.100.7"),
        ("10.0.0.1", "198.51.100.7", (), "10.0.0.1"),
        ("10.0.0.1", "", PROXIES, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7", PROXIES, "198.51.100.7"),
        ("::ffff:10.0.0.1", "198.51.100.7", PROXIES, "198.51.100.7"),
        ("10.0.0.1", "192.168.1.1, 198.51.100.7", PROXIES, "198.51.100.7"),
        ("10.0.0.1", "192.168.1.1, 198.51.100.7, 10.0.0.3", PROXIES, "198.51.100.7"),
        ("10.0.0.1", "10.0.0.4, 10.0.0.3", PROXIES, "10.0.0.4"),
        ("10.0.0.1", "198.51.100.7:4711", PROXIES, "198.51.100.7"),
        ("10.0.0.1", "[2001:db8:1::9]:4711", PROXIES, "2001:db8:1::9"),
        ("10.0.0.1", "2001:db8:1::9", PROXIES, "2001:db8:1::9"),
        ("10.0.0.1", "198.51.100.7, unknown", PROXIES, ""),
        ("10.0.0.1", "198.51.100.7,", PROXIES, ""),
        ("10.0.0.1", "unknown, 198.51.100.7", PROXIES, "198.51.100.7"),
    ],
)
def test_only_hops_that_trusted_proxies_wrote_are_believed(
    peer: str, forwarded: str, trusted: tuple[str, ...], address: str
) -> None:
    """From the end on, up to the first address that is no proxy of ours."""
    assert client_address(peer, forwarded, trusted) == address


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=40))
def test_what_a_client_writes_in_front_changes_nothing(forged: list[str]) -> None:
    """The hop of the last trusted proxy is the one that counts, whatever stands before it."""
    header = ", ".join([*forged, "198.51.100.7"])
    assert client_address("10.0.0.1", header, PROXIES) == "198.51.100.7"
