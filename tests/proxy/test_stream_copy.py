"""The copy of an answer: whatever passes, it is what passed; and a stream's takes a fraction of it."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.proxy.stream_copy import StreamCopy, common_length

ENVELOPE = (
    'data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1790000000,"model":"some-model",'
    '"system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n'
)
WORDS = "The quick brown fox jumps over the lazy dog and then sleeps in the shade of a tree".split()


def copy_of(pieces: list[bytes]) -> StreamCopy:
    copy = StreamCopy()
    for piece in pieces:
        copy.add(piece)
    return copy


def size_of(copy: StreamCopy) -> int:
    """Bytes of memory that the parts take, each object once."""
    parts = copy._parts
    return sys.getsizeof(parts) + sum(sys.getsizeof(part) for part in {id(part): part for part in parts}.values())


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.tuples(st.sampled_from([b"a" * 100, b"a" * 64 + b"b" * 64, b"b" * 63]), st.binary(max_size=40)).map(
                b"".join
            ),
        ),
        max_size=30,
    )
)
def test_a_copy_is_what_passed(pieces: list[bytes]) -> None:
    """Whatever they have in common, and where that changes from one to the next."""
    assert copy_of(pieces).joined() == b"".join(pieces)


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=100))
def test_what_two_pieces_begin_with_is_found_to_the_byte(same: bytes, one: bytes, other: bytes) -> None:
    """No byte more, for that would be another answer; and none less."""
    found = common_length(same + one, same + other)

    assert found >= len(same)
    assert (same + one)[:found] == (same + other)[:found]
    assert (same + one)[found : found + 1] != (same + other)[found : found + 1] or found == len(same + one)


@pytest.mark.parametrize("first", ["", "event: ping\n\n", ENVELOPE % "A first one that is much longer than the rest"])
def test_the_copy_of_a_stream_takes_less_than_half_of_it(first: str) -> None:
    """The envelopes of events are stored once, whatever comes before them."""
    pieces = [(ENVELOPE % word).encode() for word in WORDS * 10]
    if first:
        pieces.insert(0, first.encode())
    copy = copy_of(pieces)

    assert copy.joined() == b"".join(pieces)
    assert size_of(copy) < sum(sys.getsizeof(piece) for piece in pieces) / 2


CREATED = 'event: %s\ndata: {"type":"%s","response":{"id":"resp_0123456789","object":"response","model":"some"}}\n\n'
DELTA = (
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":"msg_0123456789abcdef",'
    '"output_index":0,"content_index":0,"delta":"%s"}\n\n'
)
BLOCK = (
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
    '"text":"%s"}}\n\n'
)
PING = 'event: ping\ndata: {"type": "ping"}\n\n'


@pytest.mark.parametrize(
    "events",
    [
        [
            *(CREATED % (kind, kind) for kind in ("response.created", "response.in_progress")),
            'event: response.output_item.added\ndata: {"output_index":0,"item":{"id":"msg_0123456789abcdef"}}\n\n',
            'event: response.content_part.added\ndata: {"part":{"type":"output_text","text":""}}\n\n',
            *(DELTA % word for word in WORDS * 10),
        ],
        [BLOCK % word if n % 20 else PING for n, word in enumerate(WORDS * 10)],
        [": OPENROUTER PROCESSING\n\n"] * 8 + [ENVELOPE % word for word in WORDS * 10],
        [part for word in WORDS * 10 for part in (ENVELOPE % word, "")],
    ],
    ids=["responses", "pings", "comments", "nothing between"],
)
def test_what_stands_between_the_events_of_a_stream_changes_little(events: list[str]) -> None:
    """Openings, pings, comments and pieces without bytes are not what the rest has in common."""
    pieces = [event.encode() for event in events]
    copy = copy_of(pieces)

    assert copy.joined() == b"".join(pieces)
    assert size_of(copy) < sum(sys.getsizeof(piece) for piece in pieces if piece) * 0.6


def test_pieces_that_have_nothing_in_common_take_what_they_are() -> None:
    """Looking for what they begin with costs no memory."""
    pieces = [bytes([n]) * 300 for n in range(200)]
    copy = copy_of(pieces)

    assert copy.joined() == b"".join(pieces)
    assert size_of(copy) < sum(sys.getsizeof(piece) for piece in pieces) * 1.1


def test_a_body_that_is_known_whole_takes_the_place_of_its_pieces() -> None:
    """What is kept of an answer that was held is what its caller was given."""
    copy = copy_of([b"not this"])
    copy.only(b"but this")

    assert copy.joined() == b"but this"
