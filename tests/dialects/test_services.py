"""Paths, headers and masks of services behind the gate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.metering.service import ServiceTerms, Told, may_pass
from faregate.dialects.services import Below, Place, StreamMask, below, length_of
from faregate.errors import Problem

SECRET = "sk-aab-aabaab"


def place(base_url: str = "http://h:1/base", **terms: object) -> Place:
    """A service."""
    made = ServiceTerms(**terms)  # type: ignore[arg-type]
    return Place("svc", made, base_url, {"authorization": f"Bearer {SECRET}"}, (SECRET,))


@pytest.mark.parametrize(
    ("target", "service", "asked"),
    [
        (b"/services/a", "a", ""),
        (b"/services/a/", "a", "/"),
        (b"/services/a?x=1", "a", "?x=1"),
        (b"/services/A.b_c-1/x.y/..z/.hidden", "A.b_c-1", "/x.y/..z/.hidden"),
        (b"/services/a/%C3%A4%20b;p=1?q=a%2Fb", "a", "/%C3%A4%20b;p=1?q=a%2Fb"),
        (b"/services/a/x?", "a", "/x"),
        (b"/services/a/x?subscription-key=K", "a", "/x"),
        (b"/services/a/x?a=1&subscription%2Dkey=K&b&Subscription-Key=K&&c=", "a", "/x?a=1&b&&c="),
        (b"/services/a/x?my-subscription-key=1", "a", "/x?my-subscription-key=1"),
    ],
)
def test_paths_below_services(target: bytes, service: str, asked: str) -> None:
    """The name of the service, and what is asked of it, as it was written."""
    assert below(target) == Below(service, asked)


@given(st.binary(max_size=40))
def test_no_path_leaves_its_service(tail: bytes) -> None:
    """Whatever is written below a service: what passes is resolved by nobody to anything above or beside it."""
    found = below(b"/services/a/" + tail)
    if found is None or isinstance(found, Problem):
        return
    path = found.target.partition("?")[0]
    decoded = bytes(path, "ascii")
    for code in range(256):
        decoded = decoded.replace(b"%%%02X" % code, bytes((code,))).replace(b"%%%02x" % code, bytes((code,)))
    assert decoded.count(b"/") == path.count("/")
    assert not {b".", b".."} & {segment.partition(b";")[0] for segment in decoded.split(b"/")}
    assert not {b"\\"[0], *range(32), 127} & set(decoded)
    assert found.target.isascii()
    assert not any(character.isspace() for character in found.target)


@given(st.lists(st.sampled_from(["aa", "b", "-", "sk-", "x", SECRET, SECRET[:7], SECRET[3:]]), max_size=12), st.data())
def test_a_secret_is_masked_however_it_is_cut(parts: list[str], data: st.DataObject) -> None:
    """Cut anywhere, the stream is what it would be in one piece, and the secret is not in it."""
    text = "".join(parts).encode()
    mask = StreamMask((SECRET.encode(),))
    out = b""
    at = 0
    while at < len(text):
        size = data.draw(st.integers(1, len(text) - at))
        out += mask.feed(text[at : at + size])
        assert SECRET.encode() not in out
        at += size
    assert out + mask.end() == text.replace(SECRET.encode(), b"***")


def test_the_request_head_has_a_path_in_any_case() -> None:
    """A service at the root of its host, asked for nothing, is asked for the root."""
    head = place("http://h:1").request_head(b"GET", "?x=1", {}, b"", 0)
    assert head.startswith(b"GET /?x=1 HTTP/1.1\r\nhost: h:1\r\nauthorization: Bearer " + SECRET.encode())
    assert place("http://h:1").request_head(b"GET", "", {}, b"", 0).startswith(b"GET / HTTP/1.1\r\n")
    assert place().request_head(b"POST", "", {}, b"", 0).startswith(b"POST /base HTTP/1.1\r\n")
    assert b"content-length: 0\r\n" in place().request_head(b"POST", "", {}, b"", 0)


def test_headers_of_an_answer() -> None:
    """Usual ones, configured ones and those that tell units pass, without secrets; those of one connection do not."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nX-Own: %b\r\nX-Units: 3\r\nSet-Cookie: a\r\nConnection: X-Page\r\n"
        b"X-Page: 1\r\nLocation: /\r\nServer: s\r\nconnection: close\r\ncontent-length: 12"
    ) % SECRET.encode()
    made = place(headers=("x-own", "x-page"), told=(Told("units", "", "x-units", 5),))
    assert made.passed_headers(head) == b"content-type: a/b\r\nx-own: ***\r\nx-units: 3\r\n"
    assert (made.told(head), made.told(head + b"\r\nx-units: 3"), made.told(b"HTTP/1.1 200 OK")) == (
        (3,),
        (None,),
        (None,),
    )
    assert (length_of(head), length_of(b"HTTP/1.1 200 OK\r\ncontent-length: x")) == (12, None)


@pytest.mark.parametrize(
    "name", ["connection", "authorization", "cookie", "x-faregate-user", "host", "sec-websocket-key"]
)
def test_what_never_passes(name: str) -> None:
    """No configuration lets credentials, cookies and what is about one connection pass."""
    assert not may_pass(name)
    assert may_pass(f"x-own-{name}")
