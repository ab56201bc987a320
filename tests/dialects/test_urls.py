"""Which addresses a provider may be asked to fetch."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.dialects.urls import REACHES, data_url_problem, is_public_https, may_reach


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/cat.png",
        "https://EXAMPLE.com:8443/a?b=c#d",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]/x",
        "https://sub.example.co.uk./x",
    ],
)
def test_public(url: str) -> None:
    """Public https addresses pass."""
    assert is_public_https(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/",
        "https://169.254.169.254/",
        "http://[::ffff:127.0.0.1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[fd00::1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "http://2130706433/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://10.0.0.8/",
        "https://192.168.1.1/",
        "https://172.16.0.1/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://localhost/",
        "https://localhost./",
        "https://LOCALHOST/",
        "https://a.localhost/",
        "https://metadata.google.internal/",
        "https://intranet/",
        "https://%31%32%37.0.0.1/",
        "https://127.0.0.1/",
        "https://user:p@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "ftp://example.com/",
        "http://example.com/",
        "//example.com/",
        "https:///x",
        "https://",
        "https://exa mple.com/",
        "https://example.com\n/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://[::1/",
        "https://a..b/",
        "",
        "https://example.com/" + "a" * 9000,
    ],
)
def test_private(url: str) -> None:
    """Loopback, private, link-local, odd spellings, credentials and other schemes do not."""
    assert not is_public_https(url)


@given(st.text())
def test_total(text: str) -> None:
    """Any text is judged and never raises."""
    assert is_public_https("https://" + text) in (True, False)
    assert isinstance(data_url_problem("data:" + text), str)


@given(st.binary(min_size=1))
def test_good_data_url(data: bytes) -> None:
    """Well-formed base64 has no problem."""
    assert data_url_problem("data:image/png;base64," + base64.b64encode(data).decode()) == ""


@pytest.mark.parametrize("data", ["!!!!", "AAA", "A===", "AA=A", "AAAA AAAA", "AAAé", "AB==CD==", "====", ""])
def test_bad_data_url(data: str) -> None:
    """Characters outside the alphabet and wrong padding are problems."""
    assert data_url_problem("data:image/png;base64," + data)


@pytest.mark.parametrize(
    ("address", "reaches"),
    [
        ("8.8.8.8", {"public", "private"}),
        ("2001:4860:4860::8888", {"public", "private"}),
        ("127.0.0.1", {"loopback", "private"}),
        ("127.8.8.8", {"loopback", "private"}),
        ("::1", {"loopback", "private"}),
        ("::ffff:127.0.0.1", {"loopback", "private"}),
        ("10.1.2.3", {"private"}),
        ("100.64.0.1", {"private"}),
        ("192.168.0.1", {"private"}),
        ("fd12::1", {"private"}),
        ("::ffff:10.0.0.1", {"private"}),
        ("64:ff9b::a00:1", {"private"}),
        ("169.254.169.254", set()),
        ("::ffff:169.254.169.254", set()),
        ("64:ff9b::a9fe:a9fe", set()),
        ("fe80::1", set()),
        ("fe80::1%eth0", set()),
        ("fd00:ec2::254", set()),
        ("fd20:ce::254", set()),
        ("192.0.0.192", set()),
        ("::ffff:192.0.0.192", set()),
        ("2002:a9fe:a9fe::", set()),
        ("2001:0:a9fe:a9fe::5601:5601", set()),
        ("2002:7f00:1::", {"loopback", "private"}),
        ("2002:a00:1::1", {"private"}),
        ("64:ff9b:1::7f00:1", set()),
        ("64:ff9b:1::808:808", set()),
        ("::127.0.0.1", set()),
        ("::8.8.8.8", set()),
        ("168.63.129.16", set()),
        ("100.100.100.200", set()),
        ("0.0.0.0", set()),
        ("::", set()),
        ("224.0.0.1", set()),
        ("ff02::1", set()),
        ("255.255.255.255", set()),
        ("not an address", set()),
        ("", set()),
    ],
)
def test_a_connection_goes_as_far_as_it_may(address: str, reaches: set[str]) -> None:
    """Metadata and link-local addresses are out of every reach, and what an address carries inside counts."""
    assert {reach for reach in REACHES if may_reach(address, reach)} == reaches
