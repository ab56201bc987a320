"""Transcripts of providers' streams → what they say, whatever pieces they arrive in.

A new dialect adds its transcripts to the table and inherits every test here: every split, every line end, every hiding.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from faregate.core.metering.meter import Metered, Report, StreamMeter
from faregate.core.usage import Measure, Usage
from faregate.dialects import DIALECTS

TRANSCRIPTS = Path(__file__).parent / "transcripts"
TOLD = Usage(input_text=7, input_cached=2, output_text=3, output_reasoning=1)
GPT = ("gpt-4o-2024-08-06", "chatcmpl-7")
NEGATIVE = "output tokens are outside 0 to 1000000000"


class Expected(NamedTuple):
    """What a transcript says."""

    text: str
    usage: Usage | None = TOLD
    invalid: str = ""
    finished: bool = True
    choices: int = 1
    malformed: bool = False
    error: bool = False
    unreported: int = 0
    #: It holds an event that only reports usage.
    hides: bool = True
    #: Its last event says that nothing follows, without ``[DONE]``.
    done: bool = False
    operation: str = "chat.completions"
    #: Model, id, service tier, and how many members nobody knows.
    named: tuple[Any, ...] = GPT


RESPONSE = ("gpt-4o-2024-08-06", "resp_7")
TOLD_OF_RESPONSE = Usage(input_text=7, input_cached=2, output_text=3, output_reasoning=1)


def responses(text: str, **changed: Any) -> Expected:
    """A stream of a response: it hides nothing, and its last event ends it."""
    usual = {"usage": TOLD_OF_RESPONSE, "hides": False, "operation": "responses", "named": (*RESPONSE, "auto")}
    return Expected(text, **{**usual, "done": True, **changed})


EXPECTED = {
    "usage_event": Expected("Grüße, 世界 🌍"),
    "usage_null_on_every_chunk": Expected("Hello there"),
    "no_usage": Expected("Hello there", usage=None, hides=False),
    "many_tokens_per_event": Expected(
        'A whole paragraph, with "completion_tokens" in it,\n'
        + "and another one that says data: [DONE]\n\n and goes on. " * 3
        + "End."
    ),
    "empty_deltas": Expected("x", usage=None, hides=False),
    "azure_filter": Expected("Hi"),
    "tool_calls": Expected('weather{"city":"Köln"}', usage=None, hides=False),
    "two_choices": Expected("abcd", choices=2),
    "reasoning": Expected("Thinking.42", usage=None, hides=False),
    "refusal": Expected("I cannot."),
    "comments": Expected("Hi"),
    "several_lines_of_data": Expected("Hi"),
    "error_event": Expected("Hal", usage=None, finished=False, error=True, hides=False),
    "not_json": Expected("Hi!", malformed=True),
    "odd_shapes": Expected("Listok", usage=None, invalid="the usage report is not an object", hides=False),
    "usage_with_the_end": Expected("Hi", hides=False),
    "usage_twice": Expected("Hi"),
    "usage_then_text": Expected("Hi and more", unreported=9),
    "broken_usage": Expected("Hi", usage=None, invalid=NEGATIVE),
    "completions": Expected(
        "Once upon",
        usage=Usage(input_text=3, output_text=2),
        operation="completions",
        named=("davinci", "cmpl-1"),
    ),
    "unknown_members": Expected("Hi", named=(*GPT, "flex", 2)),
    # OpenAI, "API reference: Responses", streaming events.
    "responses": responses("Grüße, 世界 🌍", named=(*RESPONSE, "default")),
    "responses_function_call": responses('I need the weather. weather{"city":"Köln"}'),
    "responses_hosted_tools": responses(
        "print(1)Found.",
        usage=TOLD_OF_RESPONSE._replace(
            other=(
                Measure("code_sessions", "", 4),
                Measure("file_searches", "", 1),
                Measure("web_searches", "preview", 2),
            )
        ),
    ),
    "responses_incomplete": responses("I cannot."),
    "responses_failed": responses("Hal", usage=None, error=True),
    "responses_error": responses("Hal", usage=None, error=True, finished=False),
    "responses_broken_usage": responses("Hi", usage=None, invalid=NEGATIVE),
    "responses_unknown_members": responses("Hi", named=(*RESPONSE, "auto", 3)),
    "responses_without_event_lines": responses("a b c"),
}


def transcript(name: str) -> bytes:
    return (TRANSCRIPTS / f"{name}.sse").read_bytes()


def without_hidden(name: str, data: bytes) -> bytes:
    """The oracle of hiding: the one usage event cut out by hand."""
    if not EXPECTED[name].hides:
        return data
    events = [piece + b"\n\n" for piece in data.split(b"\n\n")[:-1]]
    place = next(n for n, event in enumerate(events) if b'"choices":[],"usage":{' in event)
    return b"".join(events[:place] + events[place + 1 :])


def run(name: str, pieces: list[bytes], hide: bool) -> tuple[bytes, bool, bool, Metered]:
    expected = EXPECTED[name]
    dialect = DIALECTS[expected.operation]
    meter = StreamMeter(dialect.events(), hide, expected.choices, dialect.last_mark)
    forwarded = b"".join(meter.feed(piece) for piece in pieces) + meter.tail()
    return forwarded, meter.done, meter.finish_seen, meter.finish("complete")


def metered(name: str) -> Metered:
    expected = EXPECTED[name]
    return Metered(
        Report(expected.usage, expected.invalid, *expected.named),
        "complete",
        expected.text,
        len(expected.text),
        expected.unreported,
        expected.malformed,
        expected.error,
    )


def test_every_transcript_is_expected() -> None:
    """No transcript lies around untested."""
    assert {path.stem for path in TRANSCRIPTS.glob("*.sse")} == set(EXPECTED)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("name", EXPECTED)
def test_every_split(name: str, hide: bool, line_end: bytes) -> None:
    """Usage, text, flags and forwarded bytes are the same for every split in two and byte by byte."""
    data = transcript(name)
    kept = without_hidden(name, data) if hide else data
    data, kept = data.replace(b"\n", line_end), kept.replace(b"\n", line_end)
    done = EXPECTED[name].done or b"[DONE]" + line_end in data
    expected = (kept, done, EXPECTED[name].finished, metered(name))
    assert run(name, [data], hide) == expected
    assert run(name, [data[at : at + 1] for at in range(len(data))], hide) == expected
    # The rarer line ends are cut at fewer places, all of them next to a line end among them.
    places = [at for at in range(len(data)) if line_end == b"\n" or at % 16 == 0 or b"\r" in data[at - 2 : at + 2]]
    for at in places:
        assert run(name, [data[:at], data[at:]], hide) == expected, at


@given(st.sampled_from(sorted(EXPECTED)), st.booleans(), st.lists(st.integers(0, 3000), max_size=12), st.booleans())
def test_any_split(name: str, hide: bool, cuts: list[int], marked: bool) -> None:
    """Any pieces at all, with a byte order mark or without."""
    data = (b"\xef\xbb\xbf" if marked else b"") + transcript(name)
    kept = (b"\xef\xbb\xbf" if marked else b"") + without_hidden(name, transcript(name)) if hide else data
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    done = EXPECTED[name].done or b"[DONE]\n" in data
    assert run(name, pieces, hide) == (kept, done, EXPECTED[name].finished, metered(name))


@pytest.mark.parametrize("name", EXPECTED)
def test_events_pass_as_the_same_object(name: str) -> None:
    """Whole events without anything to hide are handed back untouched, not copied."""
    meter = StreamMeter(DIALECTS[EXPECTED[name].operation].events(), hide_usage=False)
    for piece in transcript(name).split(b"\n\n")[:-1]:
        event = piece + b"\n\n"
        assert meter.feed(event) is event


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("name", EXPECTED)
def test_every_cut(name: str, hide: bool) -> None:
    """A stream that ends at any byte, inside a character too, forwards what came and says what was delivered."""
    data = transcript(name)
    kept = without_hidden(name, data)
    for end in range(len(data)):
        forwarded, _, _, told = run(name, [data[:end]], hide)
        assert EXPECTED[name].text.startswith(told.text)
        assert told.characters == len(told.text)
        if hide:
            assert kept.startswith(forwarded) or data[:end].startswith(forwarded)
        else:
            assert forwarded == data[:end]


@pytest.mark.parametrize("operation", DIALECTS)
@given(st.binary(max_size=200), st.booleans())
def test_decoding_is_total(operation: str, junk: bytes, hide: bool) -> None:
    """Any bytes are forwarded and metered without an error."""
    decode = DIALECTS[operation].events()
    decode(junk)
    meter = StreamMeter(decode, hide)
    data = b"data: " + junk + b'\n\ndata: {"choices":[],"usage":' + junk + b"}\n\n"
    assert data.startswith(meter.feed(data)[:1])
    meter.tail()
    meter.finish("cut")


PLAIN_EVENT = b'{"choices":[{"index":0,"delta":{"content":"hello "},"text":"hello "}]}'
PAYLOAD = st.sampled_from(
    [
        PLAIN_EVENT,
        PLAIN_EVENT + PLAIN_EVENT,
        PLAIN_EVENT + b"{",
        b"",
        b" ",
        b"{}",
        b"{",
        b"}",
        b'{"choices":[{"delta":{"content":"x"},"text":"x"}],',
        b'"usage":null}' + PLAIN_EVENT,
        b"\r",
        b"\xef\xbb\xbf" + PLAIN_EVENT,
        b" " + PLAIN_EVENT,
        b'{"choices":[]}',
    ]
)


@pytest.mark.parametrize("operation", ["chat.completions", "completions"])
@given(st.lists(PAYLOAD, max_size=6))
@example([PLAIN_EVENT + PLAIN_EVENT, b""])
@example([b'{"choices":[{"delta":{"content":"x"},"text":"x"}],', b'"usage":null}' + PLAIN_EVENT])
@example([PLAIN_EVENT, PLAIN_EVENT])
def test_broken_events_are_not_read_together(operation: str, payloads: list[bytes]) -> None:
    """Whatever stands in the events: together they have the text that they have one by one, or are read one by one."""
    decode = DIALECTS[operation].events()
    together = decode.plain_text(payloads)
    if together is not None:
        assert [decode(payload) for payload in payloads] == ["hello "] * len(payloads)
        assert together == "hello " * len(payloads)


def test_batches_read_like_single_events() -> None:
    """The quick way for many plain events gives the text that the careful way gives."""
    for name, expected in EXPECTED.items():
        decode = DIALECTS[expected.operation].events()
        payloads = [piece[6:] for piece in transcript(name).split(b"\n\n") if piece.startswith(b"data: {")]
        for payload in payloads:
            together = decode.plain_text([payload, payload])
            alone = decode(payload)
            assert together is None or together == f"{alone}{alone}"
