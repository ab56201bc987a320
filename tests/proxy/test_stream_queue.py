"""The middles of streams let what begins go ahead of them, and lose and mix nothing by it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.ledger.events import Settled
from faregate.proxy.answer_watch import TURNS
from faregate.proxy.forward import chunk
from faregate.proxy.stream_queue import TURN_NANOS_MAX, StreamQueue
from faregate.proxy.upstream import LATE_BYTES_MAX
from gates import running_gate, scenario, steered
from provider_lines import HEAD, Lines, Told

MICROS = 1_000
#: What a piece takes in these tests.
PIECE = 50 * MICROS


class Turns:
    """A queue with a clock of its own, which goes on by what pieces take, and by what else the loop does."""

    def __init__(self) -> None:
        self.now = 10**9
        self.seen: list[object] = []
        self.queue = StreamQueue(asyncio.get_running_loop(), lambda: self.now)

    async def next(self, elsewhere: int = 0) -> int:
        """Let the loop take a turn in which all else takes so long; returns how many pieces passed."""
        before = len(self.seen)
        self.now += elsewhere
        await asyncio.sleep(0)
        return len(self.seen) - before


class Waiter:
    """Something that waits, takes its time, and writes down when it was its turn."""

    def __init__(self, name: int, turns: Turns, fails: bool = False) -> None:
        self._name, self._turns, self._fails = name, turns, fails

    def take_turn(self) -> None:
        """Go on."""
        self._turns.now += PIECE
        self._turns.seen.append(self._name)
        if self._fails:
            raise RuntimeError("not foreseen")


def waiting(count: int, fails: Sequence[int] = ()) -> Turns:
    """So many that wait."""
    turns = Turns()
    for name in range(count):
        turns.queue.add(Waiter(name, turns, fails=name in fails))
    return turns


@scenario
async def test_a_turn_is_short_while_nothing_else_is_done() -> None:
    """The loop looks for what begins after a moment, or after the one piece that takes longer; all go on in order."""
    turns = waiting(10)
    passed = [await turns.next() for _ in range(5)]

    assert passed == [3, 3, 3, 1, 0]
    assert turns.seen == list(range(10))


@scenario
async def test_streams_have_as_much_time_as_all_else() -> None:
    """Beside many requests a turn is longer, up to a bound; what went before the first of them was none's wait."""
    turns = waiting(200)
    passed = [await turns.next(elsewhere) for elsewhere in (10**9, 1_000 * MICROS, 10 * MICROS, 10**9)]

    assert passed == [3, 20, 3, TURN_NANOS_MAX // PIECE]


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=60), st.integers(1, 100))
@scenario
async def test_a_piece_waits_twice_what_those_before_it_take(elsewhere: list[int], count: int) -> None:
    """Whatever else the loop does, as long as no single turn of that is longer than a turn of the queue may be."""
    turns = waiting(count)
    began = turns.now
    for each in elsewhere * 100:
        if len(turns.seen) == count:
            break
        await turns.next(min(each * MICROS, TURN_NANOS_MAX))

    first = elsewhere[0] * MICROS
    assert len(turns.seen) == count
    assert turns.now - began <= min(first, TURN_NANOS_MAX) + TURN_NANOS_MAX + 2 * count * PIECE


@scenario
async def test_who_comes_again_meanwhile_waits_for_the_next_turn() -> None:
    """A turn passes those alone that wait when it begins."""
    turns = waiting(1)

    class Again:
        def take_turn(self) -> None:
            turns.seen.append(1)
            turns.queue.add(self)

    turns.queue.add(Again())

    assert [await turns.next() for _ in range(3)] == [2, 1, 1]


@scenario
async def test_a_mistake_of_one_stops_no_other() -> None:
    """What goes wrong with one stream is told to the loop, and all others go on."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
    turns = waiting(16, fails=(0, 5, 8))
    for _ in range(20):
        await turns.next()
    turns.queue.add(Waiter(99, turns))
    await turns.next()

    assert turns.seen == [*range(16), 99]
    assert len(told) == 3


@scenario
async def test_what_begins_goes_ahead() -> None:
    """The first piece of an answer passes before pieces of other streams that came earlier."""
    lines = Lines()
    flowing = [await lines.open(f"flows-{n}", flows=True) for n in range(4)]
    begins = await lines.open("begins", flows=False)
    for line in flowing:
        line.far.sendall(chunk(b"more"))
    begins.far.sendall(HEAD + chunk(b"first"))
    await lines.until(lambda: len(lines.seen) == 5)
    assert lines.seen[0] == ("begins", b"first")
    assert sorted(lines.seen[1:]) == [(f"flows-{n}", b"more") for n in range(4)]
    for line in (*flowing, begins):
        line.far.close()


@given(cuts=st.lists(st.integers(1, 400), max_size=12), turns=st.integers(0, 3))
def test_the_bytes_stay_in_order(cuts: list[int], turns: int) -> None:
    """However a stream's bytes come, they are handed on whole and in order, and its end after them."""
    pieces = [b"%d;" % n for n in range(60)]
    sent = b"".join(map(chunk, pieces)) + b"0\r\n\r\n"

    @scenario
    async def run() -> None:
        lines = Lines()
        line = await lines.open("one", flows=True)
        at = 0
        for cut in [*sorted(cuts), len(sent)]:
            line.far.sendall(sent[at:cut])
            at = max(at, cut)
            for _ in range(turns):
                await asyncio.sleep(0)
        await lines.until(lambda: bool(lines.seen) and lines.seen[-1][1].endswith(b"."))
        assert b"".join(data for _, data in lines.seen) == b"".join(pieces) + b"."
        line.far.close()

    run()


@scenario
async def test_nothing_is_handed_on_while_it_is_paused() -> None:
    """What waits when its reader is told to wait comes after it, in order with what comes then."""
    lines = Lines()
    line = await lines.open("one", flows=True)
    line.connection.data_received(chunk(b"a"))
    line.connection.pause()
    line.far.sendall(chunk(b"b"))
    await asyncio.sleep(0.05)
    held = list(lines.seen)
    line.connection.resume()
    await lines.until(lambda: sum(len(data) for _, data in lines.seen) == 2)
    assert held == []
    assert b"".join(data for _, data in lines.seen) == b"ab"
    line.far.close()


@scenario
async def test_what_waits_comes_before_the_end_of_its_connection() -> None:
    """A provider that sends its last piece and leaves is told of in that order."""
    lines = Lines()
    line = await lines.open("one", flows=True)
    line.connection.data_received(chunk(b"last"))
    line.connection.transport.abort()
    await lines.until(lambda: len(lines.seen) == 2)
    assert lines.seen == [("one", b"last"), ("one", b"upstream_truncated")]
    line.far.close()


@scenario
async def test_much_does_not_wait() -> None:
    """More than so many bytes of one stream are handed on at once."""
    lines = Lines()
    line = await lines.open("one", flows=True)
    piece = b"x" * (LATE_BYTES_MAX // 2)
    line.connection.data_received(chunk(piece))
    waits = list(lines.seen)
    line.connection.data_received(chunk(piece))
    assert waits == []
    assert lines.seen == [("one", piece + piece)]
    line.far.close()


@scenario
async def test_the_next_answer_of_a_connection_begins_at_once() -> None:
    """Only the middle of a stream waits, whatever its connection carried before."""
    lines = Lines()
    line = await lines.open("one", flows=True)
    line.connection.data_received(chunk(b"end") + b"0\r\n\r\n")
    await lines.until(lambda: lines.seen == [("one", b"end.")])
    line.connection.send(Told("two", lines.seen), b"POST / HTTP/1.1\r\n\r\n", b"")
    line.connection.data_received(HEAD + chunk(b"first"))
    assert lines.seen[1:] == [("two", b"first")]
    line.far.close()


USAGE = b'"usage":{"prompt_tokens":7,"completion_tokens":400,"total_tokens":407}'
LAST = (
    b'data: {"choices":[{"index":0,"delta":{"content":"end"},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],' + USAGE + b"}\n\ndata: [DONE]\n\n"
)


@pytest.mark.parametrize("end", ["the gate stops", "the client leaves"])
@scenario
async def test_what_has_come_counts_before_an_answer_is_ended(tmp_path: Path, end: str) -> None:
    """An answer whose end waits for its turn is whole, and settled by its provider's own word."""
    async with running_gate(tmp_path) as running:
        slow = steered(delay_ms=2_000, output_tokens=9, chunk_tokens=1)
        call = asyncio.create_task(running.chat(slow, stream=True))
        await running.until(lambda: running.gate.answers_open)
        (answer,) = running.gate.answers_open
        connection = answer._connection
        assert connection is not None
        await running.until(lambda: connection._patient)
        connection.data_received(chunk(LAST) + b"0\r\n\r\n")
        assert len(running.of(Settled)) == 0
        if end == "the gate stops":
            running.gate.drain()
            running.gate.drain()
        else:
            answer.client_gone()
        (settled,) = running.of(Settled)
        assert (settled.status, settled.usage_source, settled.usage.output_text) == ("ok", "provider", 400)
        await call


@scenario
async def test_an_answer_that_ends_with_its_connection_is_heard_to_its_end() -> None:
    """Its last bytes come before its end, which is the connection's."""
    lines = Lines()
    line = await lines.open("one", flows=False)
    line.connection.data_received(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nfirst")
    line.connection.let_wait()
    line.connection.data_received(b"last")
    line.connection.eof_received()
    assert lines.seen == [("one", b"first"), ("one", b"last"), ("one", b".")]
    line.far.close()


@scenario
async def test_a_mistake_ends_the_connection_that_it_is_of() -> None:
    """What goes wrong where nobody foresaw it leaves no stream that is never ended."""
    lines = Lines()
    asyncio.get_running_loop().set_exception_handler(lambda _, what: None)
    line = await lines.open("one", flows=True)
    told = line.connection.listener
    assert isinstance(told, Told)
    told.fails = True
    line.connection.data_received(chunk(b"more"))
    await lines.until(lambda: ("one", b"upstream_truncated") in lines.seen)
    line.far.close()


@scenario
async def test_a_stream_stands_in_the_queue_once() -> None:
    """However often it is paused, or sends more than may wait: whoever comes after it waits for one turn of it."""
    lines = Lines()
    line, other = await lines.open("one", flows=True), await lines.open("other", flows=True)
    piece = chunk(b"x" * (LATE_BYTES_MAX - 1_000))
    for _ in range(80):
        line.connection.data_received(piece)
        line.connection.pause()
        line.connection.resume()
    other.connection.data_received(chunk(b"more"))
    await asyncio.sleep(0)
    assert ("other", b"more") in lines.seen
    line.connection.data_received(chunk(b"y" * (2 * LATE_BYTES_MAX)))
    assert lines.seen[-1][1].endswith(b"y")
    line.far.close()
    other.far.close()


@scenario
async def test_a_connection_looks_for_its_answer_until_that_begins() -> None:
    """From the request to the first byte, and no longer."""
    lines = Lines()
    one = await lines.open("one", flows=False)
    asked = lines.looks
    one.far.sendall(HEAD)
    await lines.until(lambda: one.connection.heard)
    answered = lines.looks
    for _ in range(3):
        await asyncio.sleep(0)
    assert asked == 1
    assert answered <= lines.looks <= answered + 1 < TURNS
    other = await lines.open("other", flows=False)
    await lines.until(lambda: lines.looks >= answered + TURNS)
    one.far.close()
    other.far.close()
