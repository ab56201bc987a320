"""What a chat may ask beyond text in and text out, and how each is bounded or measured."""

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.call import AUDIO_IN, AUDIO_OUT, IMAGE_IN, Call
from faregate.core.metering.meter import Event
from faregate.core.usage import Measure, Usage
from faregate.dialects import DIALECTS, openai_chat
from faregate.dialects.answers import report_of
from faregate.dialects.attachments import Attached

SEARCH = (Measure("web_searches", "", 1),)


def call_of(model: str = "gpt-4o", messages: Any = None, **fields: Any) -> Call:
    messages = messages or [{"role": "user", "content": "Hello there"}]
    call = openai_chat.read(json.dumps({"model": model, "messages": messages} | fields).encode())
    assert isinstance(call, Call), call
    return call


def holding(part: dict[str, Any]) -> Call:
    return call_of(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, part]}])


def wav(rate: int = 16_000, kind: int = 1, bits: int = 16) -> bytes:
    head = struct.pack("<HHIIHH", kind, 1, rate, rate * bits // 8, bits // 8, bits)
    return b"RIFF" + struct.pack("<I", 1_036) + b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + b"\0" * 1_000


def heard(data: bytes) -> Call:
    audio = {"data": base64.b64encode(data).decode(), "format": "wav"}
    return holding({"type": "input_audio", "input_audio": audio})


@pytest.mark.parametrize(
    ("asked", "tier"),
    [
        ("auto", ""),
        ("default", ""),
        (None, ""),
        ("flex", "flex"),
        ("priority", "priority"),
        ("fast", "priority"),
        ("scale", "scale"),
    ],
)
@pytest.mark.parametrize("operation", ["chat.completions", "completions", "embeddings", "responses"])
def test_service_tiers(operation: str, asked: str | None, tier: str) -> None:
    """The tier whose prices apply is told, the standard one by no name."""
    speaks: dict[str, dict[str, Any]] = {
        "chat.completions": {"messages": [{"content": "x"}]},
        "completions": {"prompt": "x"},
    }
    body = {"model": "m", "service_tier": asked, **speaks.get(operation, {"input": "x"})}
    call = DIALECTS[operation].read(json.dumps(body).encode())
    assert isinstance(call, Call)
    assert call.service_tier == tier


def test_a_plain_call_has_none_of_it() -> None:
    """What nearly every call is leaves all of these fields as they are."""
    plain = call_of(max_tokens=5, tools=[{"type": "function"}], metadata={"a": "b"})
    assert plain[12:] == Call("", "")[12:]


@pytest.mark.parametrize(
    "fields",
    [{"modalities": ["text", "audio"], "audio": {"voice": "x", "format": "wav"}}, {"audio": {"voice": "x"}}],
)
def test_spoken_answers(fields: dict[str, Any]) -> None:
    """An answer that may be spoken is bounded by the price of sound."""
    assert call_of(**fields).media == AUDIO_OUT
    assert call_of(modalities=["text"], audio=None).media == 0


@pytest.mark.parametrize(
    "asked",
    [
        {"model": "gpt-4o-search-preview"},
        {"model": "gpt-4o-mini-search-preview-2025-03-11"},
        {"model": "gpt-5-search-api"},
        {"web_search_options": {"search_context_size": "low"}},
    ],
)
def test_searches_are_bounded(asked: dict[str, Any]) -> None:
    """A call that searches the web is held for one search, and for a context full of what it found."""
    call = call_of(**asked)
    assert (call.at_most, call.whole_context, call.turns) == (SEARCH, True, 2)


def test_other_names_do_not_search() -> None:
    """A name that only sounds like it is an ordinary model."""
    assert call_of("research-1").at_most == ()
    assert call_of(web_search_options=None).at_most == ()


def test_searches_are_billed() -> None:
    """The report of a model that searches is one search more than its usage says, in a stream, too."""
    answer = {
        "model": "gpt-4o-search-preview-2025-03-11",
        "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    event = openai_chat.decode_event(json.dumps(answer).encode())
    assert report_of(json.dumps(answer).encode()).usage == Usage(input_text=3, output_text=2, other=SEARCH)
    assert isinstance(event, Event)
    assert event.usage == Usage(input_text=3, output_text=2, other=SEARCH)
    assert report_of(json.dumps(answer | {"model": "gpt-4o"}).encode()).usage == Usage(input_text=3, output_text=2)


@pytest.mark.parametrize("data", [wav(), wav(8_000, 7, 8), wav(48_000, 0xFFFE, 24), b"\xff\xfb\x90\x00" + b"\0" * 400])
def test_recordings_are_bounded_by_their_bytes(data: bytes) -> None:
    """Sound of a known kind has more bytes than tokens; its price is that of sound."""
    call = heard(data)
    assert (call.media, call.whole_context) == (AUDIO_IN, False)
    assert call.input_tokens_max > len(data)


@pytest.mark.parametrize(
    "data",
    [
        wav(rate=1),
        wav(kind=0x11),
        wav(bits=4),
        wav()[:30],
        b"fLaC" + b"\0" * 100,
        b"OggS" + b"\0" * 100,
        b"\xff\xf1\x50\x80" + b"\0" * 100,
        b"\xff\xeb\x90\x00" + b"\0" * 100,
        b"",
    ],
)
def test_other_recordings_are_bounded_by_the_context(data: bytes) -> None:
    """Sound of which a byte may be seconds long is bounded by what the model can read at all."""
    assert heard(data).whole_context


def test_seconds_of_a_recording_are_at_most_its_bytes() -> None:
    """The slowest WAV that is believed still has far more bytes of base64 than tokens, ten to the second."""
    for rate in (4_000, 8_000, 44_100):
        for bits in (8, 16, 24):
            seconds = 1_000 / (rate * bits / 8)
            assert heard(wav(rate, 1, bits)).input_tokens_max > 10 * seconds


def test_earlier_recordings() -> None:
    """An earlier answer that is named by id is read from where the provider keeps it."""
    said = {"role": "assistant", "audio": {"id": "audio_1"}}
    call = call_of("gpt-audio", [{"role": "user", "content": "Hi"}, said, {"role": "user", "content": "And?"}])
    assert (call.media, call.whole_context, call.objects) == (AUDIO_IN, True, ("audio_1",))


@pytest.mark.parametrize(
    ("file", "objects"),
    [
        ({"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}, ()),
        ({"file_id": "file-1"}, ("file-1",)),
    ],
)
def test_files(file: dict[str, Any], objects: tuple[str, ...]) -> None:
    """A file is bounded by the context; one that the provider keeps must be the caller's own."""
    call = holding({"type": "file", "file": file})
    assert (call.media, call.whole_context, call.objects) == (IMAGE_IN, True, objects)


def test_images_have_their_own_price() -> None:
    """An image may be dearer than text where a model says so."""
    call = holding({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})
    assert (call.media, call.whole_context) == (IMAGE_IN, False)
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 1,
        "prompt_tokens_details": {"image_tokens": 7, "text_tokens": 3},
    }
    told = report_of(json.dumps({"usage": usage}).encode())
    assert told.usage == Usage(input_text=3, output_text=1, other=(Measure("input_image_tokens", "", 7),))


def test_cached_images_count_once() -> None:
    """Image tokens that were cached are among the cached ones, and the parts still add up."""
    details = {"cached_tokens": 8, "image_tokens": 7}
    told = report_of(
        json.dumps({"usage": {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": details}}).encode()
    )
    assert told.usage is not None
    assert told.usage == Usage(input_cached=8, output_text=1, other=(Measure("input_image_tokens", "", 2),))
    assert told.usage.input_tokens == 10


def test_the_tier_that_answered() -> None:
    """The tier of the answer is told, of a whole one and of a stream."""
    answer = {"model": "m", "id": "i", "service_tier": "flex", "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    event = openai_chat.decode_event(json.dumps(answer).encode())
    assert report_of(json.dumps(answer).encode()).service_tier == "flex"
    assert isinstance(event, Event)
    assert event.service_tier == "flex"


@pytest.mark.parametrize(
    ("more", "unknown"),
    [
        ({}, 0),
        ({"searches": 3}, 1),
        ({"searches": 0, "x": None, "y": False}, 0),
        ({"prompt_tokens_details": {"video_tokens": 5}, "z": {"a": 1}}, 2),
        ({"prompt_cache_hit_tokens": 5, "total_time": 0.1}, 0),
    ],
)
def test_unknown_members_are_counted(more: dict[str, Any], unknown: int) -> None:
    """A member of a usage report that nobody knows may be billed, so it is counted; the rest is read."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7} | more
    body = json.dumps({"id": "a", "model": "m", "choices": [], "usage": usage}).encode()
    told, event = report_of(body), openai_chat.decode_event(body)
    assert isinstance(event, Event)
    assert (told.usage, told.unknown) == (Usage(input_text=5, output_text=2), unknown)
    assert (event.usage, event.unknown, event.bare) == (told.usage, unknown, True)


def test_reasoning_beside_the_output_with_unknown_members() -> None:
    """Reasoning that only the total contains is output, also in a report with members of its own (xAI)."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 35,
        "completion_tokens_details": {"reasoning_tokens": 20},
        "num_sources_used": 2,
    }
    told = report_of(json.dumps({"usage": usage}).encode())
    assert (told.usage, told.unknown) == (Usage(input_text=10, output_text=5, output_reasoning=20), 1)


@given(st.binary(max_size=60))
def test_any_recording(data: bytes) -> None:
    """Whatever is sent as a recording is bounded in one way or the other."""
    attached = Attached(forbid_private_urls=True)
    assert attached.audio(base64.b64encode(data).decode(), "x") is None
    assert attached.audio(data.decode("latin-1"), "x") is None
    assert attached.media == AUDIO_IN
