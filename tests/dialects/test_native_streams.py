"""Anthropic's and Gemini's streams → what they say, whatever pieces they arrive in.

The transcripts are written by us after the pages that each names in its first line. The properties are those of
``test_streams``; these formats tell their usage unasked, so that nothing is ever hidden.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.metering.fallback import estimate
from faregate.core.metering.meter import Metered, Report, StreamMeter
from faregate.core.usage import Measure, Usage
from faregate.dialects import DIALECTS

TRANSCRIPTS = Path(__file__).parent / "native_transcripts"
CLAUDE = ("claude-sonnet-4-5-20250929", "msg_7")
FLASH = ("gemini-2.5-flash", "resp-7")
SUM = "total tokens are not the sum of input and output tokens"
HOUR = "cache writes of 5 minutes and of 1 hour do not add up to all cache writes"


class Expected(NamedTuple):
    """What a transcript says."""

    text: str
    usage: Usage | None
    invalid: str = ""
    #: The format says where it ends, and did.
    done: bool = True
    finished: bool = True
    error: bool = False
    choices: int = 1
    tier: str = ""
    unknown: int = 0
    unreported: int = 0
    named: tuple[str, str] = CLAUDE


def gemini(text: str, usage: Usage | None, **fields: Any) -> Expected:
    return Expected(text, usage, done=False, named=FLASH)._replace(**fields)


EXPECTED = {
    "anthropic_text": Expected("Grüße, 世界 🌍", Usage(input_text=7, output_text=15)),
    "anthropic_thinking_cache": Expected(
        "Let me see.27 × 453 = 12,231",
        Usage(
            input_text=21,
            input_cached=188_086,
            input_cache_write=456,
            output_text=32,
            output_reasoning=61,
            other=(Measure("cache_write_1h_tokens", "", 100),),
        ),
        tier="priority",
    ),
    "anthropic_tool_use": Expected('Okay: get_weather{"location": "Köln"}', Usage(input_text=472, output_text=89)),
    "anthropic_web_search": Expected(
        'web_search{"query":"weather"}It rains.',
        Usage(input_text=10_682, output_text=510, other=(Measure("web_searches", "", 2),)),
    ),
    "anthropic_grown_cache": Expected(
        "Hi", Usage(input_text=5, output_text=4, other=(Measure("cache_write_1h_tokens", "", 150),))
    ),
    "anthropic_error": Expected(
        "Hal", Usage(input_text=7, output_text=1), done=False, finished=False, error=True, unreported=3
    ),
    "anthropic_contradiction": Expected("Hi", None, invalid=HOUR, tier="priority"),
    "anthropic_unknown": Expected("Hi", Usage(input_text=7, output_text=5), unknown=3),
    "anthropic_data_only": Expected("Hello there", Usage(input_text=7, output_text=2)),
    "anthropic_silent": Expected("Hi", None),
    "gemini_text": gemini("Grüße, 世界 🌍", Usage(input_text=7, output_text=9)),
    "gemini_thoughts": gemini(
        "Hm.42",
        Usage(
            input_text=642 - 500 + 30,
            input_cached=500,
            input_audio=40,
            output_text=5,
            output_reasoning=44,
            output_audio=7,
            other=(
                Measure("cached_input_audio_tokens", "", 60),
                Measure("cached_input_image_tokens", "", 40),
                Measure("input_image_tokens", "", 218),
            ),
        ),
        tier="priority",
    ),
    "gemini_function": gemini('{"name":"weather","args":{"city":"Köln"}}', Usage(input_text=50, output_text=8)),
    "gemini_search": gemini("It rains.", Usage(input_text=9, output_text=3, other=(Measure("web_searches", "", 1),))),
    "gemini_search_each": gemini(
        "It rains.",
        Usage(input_text=9, output_text=3, other=(Measure("web_searches", "", 2),)),
        named=("gemini-3-pro-preview", "resp-7"),
    ),
    "gemini_two_candidates": gemini("abcd", Usage(input_text=4, output_text=4), choices=2),
    "gemini_blocked": gemini("", Usage(input_text=9), finished=False),
    "gemini_error": gemini("Hal", Usage(input_text=7, output_text=1), finished=False, error=True),
    "gemini_bad_total": gemini("Hi", None, invalid=SUM),
    "gemini_unknown": gemini("Hi", Usage(input_text=7, output_text=2), unknown=2),
}


def transcript(name: str) -> bytes:
    return (TRANSCRIPTS / f"{name}.sse").read_bytes()


def meter_of(name: str) -> StreamMeter:
    dialect = DIALECTS["messages" if name.startswith("anthropic") else "gemini.stream"]
    return StreamMeter(dialect.events(), False, EXPECTED[name].choices, dialect.last_mark)


def run(name: str, pieces: list[bytes]) -> tuple[bytes, bool, bool, Metered]:
    meter = meter_of(name)
    forwarded = b"".join(meter.feed(piece) for piece in pieces) + meter.tail()
    return forwarded, meter.done, meter.finish_seen, meter.finish("complete")


def metered(name: str) -> Metered:
    told = EXPECTED[name]
    report = Report(told.usage, told.invalid, *told.named, told.tier, told.unknown)
    return Metered(report, "complete", told.text, len(told.text), told.unreported, False, told.error)


def test_every_transcript_is_expected() -> None:
    """No transcript lies around untested, and each names the page that it was written after."""
    assert {path.stem for path in TRANSCRIPTS.glob("*.sse")} == set(EXPECTED)
    assert all(transcript(name).startswith(b": after ") for name in EXPECTED)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("name", EXPECTED)
def test_every_split(name: str, line_end: bytes) -> None:
    """Usage, text, flags and forwarded bytes are the same for every split in two and byte by byte."""
    data = transcript(name).replace(b"\n", line_end)
    expected = (data, EXPECTED[name].done, EXPECTED[name].finished, metered(name))
    assert run(name, [data]) == expected
    assert run(name, [data[at : at + 1] for at in range(len(data))]) == expected
    places = [at for at in range(len(data)) if line_end == b"\n" or at % 16 == 0 or b"\r" in data[at - 2 : at + 2]]
    for at in places:
        assert run(name, [data[:at], data[at:]]) == expected, at


@given(st.sampled_from(sorted(EXPECTED)), st.lists(st.integers(0, 3000), max_size=12), st.booleans())
def test_any_split(name: str, cuts: list[int], marked: bool) -> None:
    """Any pieces at all, with a byte order mark or without."""
    data = (b"\xef\xbb\xbf" if marked else b"") + transcript(name)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert run(name, pieces) == (data, EXPECTED[name].done, EXPECTED[name].finished, metered(name))


@pytest.mark.parametrize("name", EXPECTED)
def test_every_cut(name: str) -> None:
    """A stream that ends at any byte, inside a character too, forwards what came and says what was delivered."""
    data = transcript(name)
    for end in range(len(data)):
        forwarded, _, _, told = run(name, [data[:end]])
        assert forwarded == data[:end]
        assert EXPECTED[name].text.startswith(told.text)
        assert told.characters == len(told.text)
        assert not told.malformed


def test_the_stop_is_known_before_it_is_passed_on() -> None:
    """A client may hang up at ``message_stop``: the meter knows the end when it returns the bytes that say so."""
    for name in ("anthropic_text", "anthropic_tool_use", "anthropic_data_only"):
        meter = meter_of(name)
        events = transcript(name).split(b"\n\n")[:-1]
        done = [meter.done for event in events if meter.feed(event + b"\n\n")]
        assert (done[-1], meter.done) == (True, True)
        assert not any(done[:-1])


class Words:
    """A counter of words."""

    def count(self, text: str, encoding: str) -> int:
        return len(text.split())


def test_an_aborted_message_is_billed_what_was_delivered() -> None:
    """After the start tells the input, a cut bills that input by its kinds, and the text that came (B3)."""
    data = transcript("anthropic_thinking_cache")
    meter = meter_of("anthropic_thinking_cache")
    meter.feed(data[: data.index(b"12,231")])
    told = meter.finish("aborted")

    billed = estimate(told, Words(), "", input_tokens=99, output_tokens_max=1000)
    assert billed.source == "estimate"
    assert billed.usage == Usage(
        input_text=21,
        input_cached=188_086,
        input_cache_write=456,
        output_text=3,
        other=(Measure("cache_write_1h_tokens", "", 100),),
    )


@pytest.mark.parametrize("operation", ["messages", "gemini.stream"])
@given(
    st.dictionaries(
        st.sampled_from("type usage message delta content_block candidates usageMetadata error modelVersion".split()),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        "type text usage input_tokens output_tokens parts content promptTokenCount".split()
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_events_of_any_shape_are_survived(operation: str, event: dict[str, object]) -> None:
    """JSON of the right names and the wrong shapes never raises, and never makes up usage that is negative."""
    import json

    payload = json.dumps(event).encode()
    decode = DIALECTS[operation].events()
    meter = StreamMeter(decode, False, 1, DIALECTS[operation].last_mark)
    data = b"data: " + payload + b"\n\n"
    assert meter.feed(data) == data
    told = meter.finish("cut").report.usage
    assert told is None or (min(told[:-1]) >= 0 and all(each.quantity > 0 for each in told.other))
