"""A read that is one chunk is seen as that at a glance, and what is told is what llhttp would have told."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from faregate.proxy.forward import chunk, chunk_data_at
from gates import scenario
from provider_lines import HEAD, Lines, Told

LONGEST = 4 * 1024


@given(st.integers(1, LONGEST - 9))
@example(0xF)
@example(0x10)
@example(0xFF)
@example(0x100)
@example(LONGEST - 7)
def test_what_we_frame_is_known(length: int) -> None:
    """Every chunk that is not too long, as the gate itself would write it."""
    framed = chunk(b"x" * length)
    assert framed[chunk_data_at(framed) : -2] == b"x" * length


@given(st.binary(max_size=40) | st.from_regex(rb"[0-9a-fA-F]{1,3}(;x)?\r\n.{0,20}\r\n", fullmatch=True))
@example(b"")
@example(b"0\r\n\r\n")
@example(b"02\r\nab\r\n")
@example(b"A\r\n0123456789\r\n")
@example(b"a\r\n0123456789\r\n")
@example(b"2\r\nab\r\n2\r\nab\r\n")
def test_what_is_known_is_what_we_frame(data: bytes) -> None:
    """Nothing else is taken for one: no extension, no leading zero, no end of an answer, no two at once."""
    at = chunk_data_at(data)
    if at:
        assert chunk(data[at:-2]) == data


def test_long_ones_are_left_to_the_parser() -> None:
    """Of a chunk that is longer than any event, nothing is said."""
    assert chunk_data_at(chunk(b"x" * LONGEST)) == 0


GOOD = [
    b"1\r\na\r\n",
    b"3\r\nabc\r\n",
    b"5\r\n1\r\na\r\n\r\n",
    b"A\r\n0123456789\r\n",
    b"4;x=y\r\nabcd\r\n",
    b"0\r\n\r\n",
]
ODD = [b"0\r\n", b"x: 1\r\n", b"\r\n", b"\r", b"\n", b"1", b"1a", b";", b"g\r\nab\r\n", b"2\r\nabc\r\n"]
PART = st.sampled_from(GOOD + ODD)


@given(st.lists(PART, max_size=12), st.lists(st.integers(1, 60), max_size=8))
@example([b"1", b"\r\n", b"1\r\na\r\n"], [1])
@example([b"1\r\na\r\n", b"1", b"1\r\na\r\n", b"0\r\n\r\n"], [6, 7])
@example([b"1\r\na\r\n", b"5\r\n1\r\na\r\n\r\n"], [6, 9, 15])
@example([b"0\r\n", b"1\r\na\r\n", b"\r\n"], [3, 9])
def test_the_parser_would_have_told_the_same(parts: list[bytes], cuts: list[int]) -> None:
    """However right or wrong bytes are cut into reads: the same data, and the same end."""
    sent = b"".join(parts)

    @scenario
    async def run() -> None:
        lines = Lines()
        at_once, cut = await lines.open("at once", flows=False), await lines.open("cut", flows=False)
        # The beginning of the body stands with the head, so that no read here is one chunk.
        at_once.connection.data_received(HEAD + chunk(b".") + sent)
        cut.connection.data_received(HEAD + chunk(b"."))
        at = 0
        for end in [*sorted(set(cuts)), len(sent)]:
            if sent[at:end]:
                cut.connection.data_received(sent[at:end])
            at = max(at, end)
        told = {name: b"".join(data for each, data in lines.seen if each == name) for name in ("at once", "cut")}
        assert told["cut"] == told["at once"]
        at_once.far.close()
        cut.far.close()

    run()


@pytest.mark.parametrize("status", [102, 103, 104, 150, 199])
@scenario
async def test_an_interim_answer_has_no_body(status: int) -> None:
    """Nothing that comes with one is taken for the answer's own, however it is framed."""
    lines = Lines()
    line = await lines.open("one", flows=False)
    line.connection.data_received(b"HTTP/1.1 %d x\r\ntransfer-encoding: chunked\r\n\r\n" % status)
    for data in (b"0\r\n\r\n", chunk(b"not of it"), HEAD, chunk(b"first")):
        line.connection.data_received(data)
    assert lines.seen in ([("one", b"first")], [("one", b"upstream_protocol")])
    line.far.close()


@scenario
async def test_it_is_seen_where_chunks_come_one_by_one() -> None:
    """Between other chunks, and not while a part of one is waited for."""
    lines = Lines()
    line = await lines.open("one", flows=False)
    told = line.connection.listener
    assert isinstance(told, Told)
    seen = []
    for data in (HEAD, chunk(b"1"), chunk(b"2"), b"3\r\nab", b"c\r\n", chunk(b"3"), chunk(b"4") * 2, chunk(b"5")):
        line.connection.data_received(data)
        seen.append(told.glances)
    assert seen == [0, 0, 1, 1, 1, 2, 2, 3]
    line.connection.data_received(b"0\r\n\r\n")
    assert b"".join(data for _, data in lines.seen) == b"12abc3445."
    line.far.close()
