"""The meter's bounds, its end, and what it holds back; what streams mean is tested with the dialects."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.metering import sse
from faregate.core.metering.meter import (
    HELD_BYTES_MAX,
    TEXT_CHARACTERS_MAX,
    Event,
    Metered,
    Report,
    StreamMeter,
    metered_answer,
)
from faregate.core.usage import Contradiction, Usage

FIVE = Usage(input_text=2, output_text=3)


class Plain:
    """A wire format of its own: a JSON string is text, an object is an event, anything else cannot be read."""

    def __call__(self, payload: bytes) -> Event | str:
        try:
            value = json.loads(payload)
        except ValueError:
            return Event(malformed=True)
        if isinstance(value, str):
            return value
        usage = None
        if "completion_tokens" in value:
            output = value["completion_tokens"]
            usage = Usage(2, output_text=output) if output >= 0 else Contradiction("negative")
        return Event(value.get("text", ""), value.get("end", 0), usage, "text" not in value, "error" in value)

    def plain_text(self, payloads: list[bytes]) -> str | None:
        texts = [self(payload) for payload in payloads]
        return "".join(str(text) for text in texts) if all(isinstance(text, str) for text in texts) else None


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


USAGE = event({"completion_tokens": 3})
DONE = b"data: [DONE]\n\n"


def test_usage_event_is_hidden() -> None:
    """The event that only the gate asked for does not reach the caller."""
    meter = StreamMeter(Plain(), hide_usage=True)
    assert meter.feed(event("a") + USAGE + DONE) == event("a") + DONE
    assert meter.finish("complete").told == FIVE


def test_usage_event_is_shown() -> None:
    """A caller that asked for it gets it."""
    meter = StreamMeter(Plain(), hide_usage=False)
    data = event("a") + USAGE + DONE
    assert meter.feed(data) is data
    assert meter.finish("complete").told == FIVE


def test_done_is_known_before_it_is_forwarded() -> None:
    """The end is seen in the very piece that brings it, so that settling comes first."""
    meter = StreamMeter(Plain(), hide_usage=False)
    meter.feed(event("a") + b"data: [DO")
    assert not meter.done
    meter.feed(b"NE]\n")
    assert meter.done


def test_end_that_is_held_back_is_not_done() -> None:
    """What is held back is not delivered: the end counts when it goes out."""
    meter = StreamMeter(Plain(), hide_usage=True)
    assert meter.feed(b"data: [DONE]\n") == b""
    assert not meter.done
    assert meter.feed(b"\n") == DONE
    assert meter.done


def test_finish_loses_nothing() -> None:
    """Bytes held back when an exchange is settled still go out."""
    meter = StreamMeter(Plain(), hide_usage=True)
    assert meter.feed(DONE + b": by") == DONE
    meter.finish("complete")
    assert meter.feed(b"e\n") == b""
    assert meter.tail() == b": bye\n"
    assert meter.tail() == b""


def test_tail_after_an_early_finish() -> None:
    """An end that was understood too early hides nothing that comes later."""
    meter = StreamMeter(Plain(), hide_usage=True)
    meter.feed(USAGE.rstrip())
    meter.finish("complete")
    assert meter.feed(b"\n\n: bye") == b""
    assert meter.tail() == b": bye"


def test_at_most_one_incomplete_event_is_held_back() -> None:
    """Whole events pass at once, and an incomplete one beyond the bound passes, too, and is never hidden."""
    meter = StreamMeter(Plain(), hide_usage=True)
    assert meter.feed(event("a") + b"data: ") == event("a")
    large = b'{"completion_tokens": 3, "x": "' + b"x" * HELD_BYTES_MAX
    assert meter.feed(large) == b"data: " + large
    assert meter.feed(b'"}\n\n') == b'"}\n\n'


def test_large_piece_with_its_end_is_not_hidden() -> None:
    """How an event beyond the bound arrives does not decide whether it is hidden."""
    data = event({"completion_tokens": 3, "x": "x" * HELD_BYTES_MAX})
    assert StreamMeter(Plain(), hide_usage=True).feed(data) == data


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("piece", [1 << 30, 100_000, 65_537])
def test_oversized_event(hide: bool, piece: int) -> None:
    """An event beyond all bounds is forwarded unread and counted by its bytes; what follows is read again."""
    huge = b"data: " + b"x" * (sse.EVENT_BYTES_MAX + 10) + b"\n\n"
    data = event("a") + huge + event("b") + USAGE
    meter = StreamMeter(Plain(), hide)
    forwarded = b"".join(meter.feed(data[at : at + piece]) for at in range(0, len(data), piece)) + meter.tail()
    assert forwarded == (data.removesuffix(USAGE) if hide else data)
    told = meter.finish("complete")
    assert (told.text, told.malformed, told.report.usage) == ("ab", True, FIVE)
    assert told.characters == len("ab") + len(huge.rstrip())


def test_endless_event_is_bounded() -> None:
    """Bytes without any end pass through, and are not kept."""
    meter = StreamMeter(Plain(), hide_usage=True)
    forwarded = b"".join(meter.feed(b"x" * 100_000) for _ in range(40)) + meter.tail()
    assert forwarded == b"x" * 4_000_000
    told = meter.finish("cut")
    assert told.malformed
    assert told.characters == 4_000_000


def test_text_is_kept_within_a_bound() -> None:
    """Only the beginning of a long answer is kept; all of it is counted."""
    meter = StreamMeter(Plain(), hide_usage=False)
    for _ in range(5_000):
        meter.feed(event("12345678"))
    told = meter.finish("cut")
    assert (len(told.text), told.characters) == (TEXT_CHARACTERS_MAX, 40_000)


def test_first_token() -> None:
    """The first token is the first billed text, not the first event."""
    meter = StreamMeter(Plain(), hide_usage=False)
    meter.feed(event({"text": ""}) + event(""))
    assert not meter.first_token
    meter.feed(event("a"))
    assert meter.first_token


@pytest.mark.parametrize(("choices", "seen"), [(1, True), (2, True), (3, False)])
def test_finish_seen(choices: int, seen: bool) -> None:
    """The answer is at its end when every choice is."""
    meter = StreamMeter(Plain(), False, choices)
    meter.feed(event("a") + event({"text": "", "end": 1}) + event({"text": "", "end": 1}))
    assert meter.finish_seen is seen


def test_figures_while_it_runs() -> None:
    """Progress, errors and reports can be asked for at any time."""
    meter = StreamMeter(Plain(), hide_usage=False)
    meter.feed(event("abc"))
    meter.feed(event("de"))
    assert meter.delivered_characters == 5
    meter.feed(event({"error": 1}) + b"data: oops\n\n" + USAGE)
    assert meter.error_event
    assert meter.malformed
    assert meter.report == Report(FIVE)


def test_later_usage_wins() -> None:
    """The last report that can be true stands; a broken one after it takes the trust away."""
    meter = StreamMeter(Plain(), hide_usage=False)
    meter.feed(event({"completion_tokens": 1}) + USAGE)
    told = meter.finish("complete")
    assert told.told == FIVE
    meter = StreamMeter(Plain(), hide_usage=False)
    meter.feed(USAGE + event({"completion_tokens": -1}))
    told = meter.finish("complete")
    assert (told.told, told.report.usage, told.report.invalid) == (None, FIVE, "negative")


def test_text_after_usage_is_unreported() -> None:
    """Usage that more text followed is not the whole truth."""
    meter = StreamMeter(Plain(), hide_usage=False)
    meter.feed(event("ab") + USAGE + event("cde"))
    told = meter.finish("complete")
    assert (told.told, told.unreported) == (None, 3)


def test_usage_event_without_its_empty_line() -> None:
    """A stream that ends right after the usage is believed, and the event stays hidden."""
    meter = StreamMeter(Plain(), hide_usage=True)
    assert meter.feed(event("a") + USAGE.rstrip()) == event("a")
    assert meter.tail() == b""
    assert meter.finish("complete").told == FIVE


def test_event_cut_in_half() -> None:
    """Half an event is forwarded and says nothing; the cut is not called malformed."""
    meter = StreamMeter(Plain(), hide_usage=True)
    assert meter.feed(event("a") + b'data: "b') + meter.tail() == event("a") + b'data: "b'
    assert meter.finish("cut") == Metered(Report(), "cut", "a", 1)


def test_answer_in_one_piece() -> None:
    """An answer without a stream is metered like one that is over."""
    assert metered_answer(Report(FIVE), "").told == FIVE
    assert metered_answer(Report(), "x" * 20_000).characters == 20_000


pieces = st.lists(
    st.sampled_from(
        [
            event("a"),
            event("bc"),
            USAGE,
            event({"completion_tokens": 4}),
            event({"text": "t", "end": 1}),
            b": ping\n\n",
            b"data: oops\n\n",
            b"\n",
            b"\r",
            b"\r\n",
            b"data: ",
            DONE,
        ]
    ),
    max_size=8,
).map(b"".join)


@given(
    pieces, st.booleans(), st.lists(st.integers(0, 300), max_size=8), st.sampled_from(["complete", "cut", "aborted"])
)
def test_every_split_is_the_same(stream: bytes, hide: bool, cuts: list[int], outcome: str) -> None:
    """However odd a stream is, its pieces do not matter."""
    whole = StreamMeter(Plain(), hide)
    forwarded = whole.feed(stream) + whole.tail()
    split = StreamMeter(Plain(), hide)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    again = b"".join(split.feed(stream[a:b]) for a, b in pairwise(edges)) + split.tail()
    assert again == forwarded
    assert split.done == whole.done
    assert split.finish("error") == whole.finish("error")
    if not hide:
        assert forwarded == stream


# -- the text while it comes -------------------------------------------------------------------------------------------


def test_the_watcher_is_called_once_when_so_many_bytes_of_text_have_come() -> None:
    """Bytes count, not characters, and of the text alone; after the call it is not watched any more."""
    meter = StreamMeter(Plain(), hide_usage=False)
    called: list[int] = []
    meter.watch(6, lambda: called.append(meter.text_bytes))
    meter.feed(event("世"))
    meter.feed(event({"end": 0}))
    assert called == []
    meter.feed(event("abc" + "x" * 2_000) + event("y" * 2_000))
    assert called == [2_006]
    meter.feed(event("z" * 2_000))
    assert meter.delivered_characters == 6_004
    assert called == [2_006]
    assert meter.text_bytes == 6_006


def test_a_watcher_may_ask_to_be_called_again() -> None:
    """Each call can set the next mark, as a count does that leaves something over."""
    meter = StreamMeter(Plain(), hide_usage=False)
    called: list[int] = []

    def watcher() -> None:
        called.append(meter.text_bytes)
        meter.watch(meter.text_bytes + 3_000, watcher)

    meter.watch(1, watcher)
    for _ in range(10):
        meter.feed(event("x" * 2_000))
    assert called == [2_000, 6_000, 10_000, 14_000, 18_000]


def test_text_that_was_counted_is_not_counted_again() -> None:
    """At the end only what came since the last count is text, and the tokens of the rest are known."""
    meter = StreamMeter(Plain(), hide_usage=False)
    meter.feed(event("a" * 2_000))
    text, characters = meter.uncounted()
    assert (len(text), characters) == (2_000, 2_000)
    meter.feed(event("b" * 2_000))
    meter.count(len(text), characters, 500)
    text, characters = meter.uncounted()
    assert (text, characters) == ("b" * 2_000, 2_000)
    told = meter.finish("cut")
    assert (told.text, told.characters) == ("b" * 2_000, 4_000)
    assert (told.counted_characters, told.counted_tokens) == (2_000, 500)


def test_what_cannot_be_read_is_watched_and_told_apart() -> None:
    """An event beyond all bounds may be text of one token a byte, or none at all."""
    meter = StreamMeter(Plain(), hide_usage=False)
    called: list[int] = []
    meter.watch(sse.LINE_BYTES_MAX, lambda: called.append(meter.unread))
    meter.feed(event("a"))
    meter.feed(event("x" * sse.LINE_BYTES_MAX))
    meter.finish("cut")
    assert called == [meter.unread]
    assert meter.unread > sse.LINE_BYTES_MAX
    assert meter.uncounted() == ("a", 1)


def test_an_event_that_has_not_ended_is_told() -> None:
    """How many of the bytes that were passed belong to an event whose end has not come."""
    meter = StreamMeter(Plain(), hide_usage=False)
    meter.feed(event("a"))
    assert meter.unfinished_bytes == 0
    meter.feed(event("b") + b"data: ")
    assert meter.unfinished_bytes == 6
    meter.feed(b'"c"')
    assert meter.unfinished_bytes == 9
    meter.feed(b"\n\n")
    assert meter.unfinished_bytes == 0
