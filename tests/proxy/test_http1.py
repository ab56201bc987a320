"""Framing of requests, without sockets."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faregate.proxy.http1 import Bounds, Request, RequestParser
from soaking import examples

BOUNDS = Bounds(head=32 * 1024, fields=100, uri=8 * 1024, body=10 * 1024 * 1024)

PLAIN = (
    b"POST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: gate.example:4000\r\nAuthorization: Bearer k\r\n"
    b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    b'{"a": 1}\n'
)
CHUNKED = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'4\r\n{"a"\r\n5;x=y\r\n: 1}\n\r\n0\r\nTrailer: Host\r\n\r\n'
)


def parsed(data: bytes, *cuts: int) -> RequestParser:
    parser = RequestParser(BOUNDS)
    edges = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        if start < end and parser.problem is None:
            parser.feed(data[start:end])
    return parser


def told(request: Request) -> tuple[bytes, bytes, dict[bytes, bytes], bytes]:
    return request.method, request.target, request.headers, request.body


def code(parser: RequestParser) -> str:
    """The code a client would see for what was fed."""
    if parser.ready and parser.ready[0].problem is not None:
        return parser.ready[0].problem.code
    return parser.problem.code if parser.problem is not None else "ok"


def head(*lines: bytes, start: bytes = b"POST / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join((start, host, *lines, b"", b""))


@given(st.lists(st.integers(0, len(PLAIN + CHUNKED + PLAIN)), max_size=40))
@settings(max_examples=examples(60, 2_000))
def test_any_split_of_the_bytes_gives_the_same_requests(cuts: list[int]) -> None:
    """However the network cuts a pipeline of requests, the same requests come out."""
    expected = [told(request) for request in parsed(PLAIN + CHUNKED + PLAIN).ready]

    assert [told(request) for request in parsed(PLAIN + CHUNKED + PLAIN, *cuts).ready] == expected
    assert len(expected) == 3


def test_every_single_byte_boundary() -> None:
    """One byte at a time is as good as all at once."""
    parser = parsed(CHUNKED, *range(len(CHUNKED)))

    assert [told(request) for request in parser.ready] == [told(parsed(CHUNKED).ready[0])]
    assert parser.ready[0].body == b'{"a": 1}\n'


def test_trailers_are_dropped() -> None:
    """A trailer cannot add or change a header."""
    assert parsed(CHUNKED).ready[0].headers == {b"host": b"gate", b"transfer-encoding": b"chunked"}


@pytest.mark.parametrize(
    "data",
    [
        head(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        head(b"Content-Length: 5", b"Content-Length: 5"),
        head(b"Content-Length: +5"),
        head(b"Content-Length: 5_0"),
        head(b"Content-Length: 0x10"),
        head(b"Content-Length: 5, 5"),
        head(b"Content-Length: -1"),
        head(b"Transfer-Encoding: xchunked"),
        head(b"Transfer-Encoding: chunked, identity"),
        head(b"Transfer-Encoding: gzip, chunked"),
        head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0"),
        head(b"Transfer-Encoding: chunked") + b"1_0\r\n",
        head(b"Transfer-Encoding: chunked") + b"0x5\r\n",
        head(b"Transfer-Encoding: chunked") + b"1" * 20 + b"\r\n",
        head(b"Transfer-Encoding: chunked") + b"5\nhello\n",
        head(b"A : b"),
        head(b"A: b", b" folded"),
        head(b"A: b\rc"),
        head(b"A: b\x00c"),
        head(b"Host: b"),
        head(b"Host: a"),
        b"POST / HTTP/1.1\r\nA: b\r\n\r\n",
        b"POST / HTTP/1.1\nHost: a\n\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        head(b"Upgrade: websocket", b"Connection: Upgrade"),
    ],
)
def test_ambiguous_framing_is_refused(data: bytes) -> None:
    """Whatever two parsers could read differently is refused, never guessed at."""
    assert code(parsed(data)) == "bad_framing"


@pytest.mark.parametrize("host", [b"a/b", b"x?y", b"x#y", b"a b", b"user@host", b"a:123456", b"[::1", b""])
def test_a_host_that_is_none_is_refused(host: bytes) -> None:
    """The Host header must be a host with an optional port."""
    assert code(parsed(head(host=b"Host: " + host))) == "host_invalid"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://a/v1/models", "ok"),
        (b"https://a/v1/models", "ok"),
        (b"http://b/v1/models", "host_invalid"),
        (b"http://u@a/v1/models", "host_invalid"),
        (b"v1/models", "bad_framing"),
        (b"*", "uri_invalid"),
        (b"/" + b"x" * 9000, "uri_too_long"),
    ],
)
def test_request_targets(target: bytes, expected: str) -> None:
    """A target in absolute form is taken only for the host that the request names."""
    method = b"OPTIONS" if target == b"*" else b"GET"

    assert code(parsed(head(start=method + b" " + target + b" HTTP/1.1"))) == expected


def test_a_head_without_end_is_bounded() -> None:
    """A client that only ever sends headers is stopped at the bound."""
    parser = parsed(head()[:-2] + b"X: " + b"y" * 40_000)

    assert code(parser) == "header_too_large"


def test_too_many_fields() -> None:
    """One field over the bound is one too many."""
    assert code(parsed(head(*(b"X%d: y" % n for n in range(99))))) == "ok"
    assert code(parsed(head(*(b"X%d: y" % n for n in range(100))))) == "header_too_large"


def test_a_large_body_is_refused_before_it_is_read() -> None:
    """The declared length is enough to know."""
    assert code(parsed(head(b"Content-Length: 11534336"))) == "body_too_large"


def test_a_chunked_body_is_bounded_as_it_comes() -> None:
    """A body of unknown length stops at the bound."""
    piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    parser = parsed(head(b"Transfer-Encoding: chunked") + piece * 11)

    assert code(parser) == "body_too_large"


def test_two_different_credentials_in_one_header() -> None:
    """A repeated credential is a conflict unless it is the same."""
    assert code(parsed(head(b"api-key: a", b"api-key: b"))) == "auth_conflict"
    assert code(parsed(head(b"api-key: a", b"api-key: a"))) == "ok"


def test_a_request_after_a_broken_one_is_never_read() -> None:
    """What follows refused bytes could be smuggled, so the connection is over."""
    parser = parsed(head(b"Content-Length: 5", b"Transfer-Encoding: chunked") + PLAIN)

    assert parser.problem is not None
    assert parser.problem.close
    assert list(parser.ready) == []
