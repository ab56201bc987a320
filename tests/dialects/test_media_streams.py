"""Streams of images, transcripts and speech: what they say, whatever pieces they arrive in.

The transcripts are written here after OpenAI's API reference: image streaming, transcript and speech events; those that
say another page are after that one.
"""

import base64
import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.metering.meter import Metered, Report, StreamMeter
from faregate.core.usage import Measure, Usage
from faregate.dialects import DIALECTS

PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()


def event(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **members}).encode())


def chunk(members: dict[str, Any]) -> bytes:
    named = {"id": "trsl-7", "object": "translation.chunk", "created": 1, "model": "whisper-large-v3"}
    return b"data: %b\n\n" % json.dumps({**named, **members}).encode()


def image_usage(text: int, images: int, output: int, **more: Any) -> dict[str, Any]:
    parts = {"text_tokens": text, "image_tokens": images}
    told = {"total_tokens": text + images + output, "input_tokens": text + images, "output_tokens": output}
    return {**told, "input_tokens_details": parts, **more}


def partial(number: int, of: str = "image_generation") -> bytes:
    return event(f"{of}.partial_image", b64_json=PICTURE, partial_image_index=number, size="1024x1024", quality="high")


def completed(usage: Any, of: str = "image_generation") -> bytes:
    return event(f"{of}.completed", b64_json=PICTURE, size="1024x1024", background="opaque", usage=usage)


TOKENS = {
    "type": "tokens",
    "input_tokens": 14,
    "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
    "output_tokens": 3,
    "total_tokens": 17,
}


class Stream(NamedTuple):
    """A transcript and what it says."""

    operation: str
    data: bytes
    usage: Usage | None
    text: str = ""
    choices: int = 1
    finished: bool = True
    invalid: str = ""
    unknown: int = 0
    malformed: bool = False
    error: bool = False
    done: bool = False
    named: tuple[str, str] = ("", "")


def pictures(text: int, images: int, output: int) -> Usage:
    found = (Measure("input_image_tokens", "", images), Measure("output_image_tokens", "", output))
    return Usage(text, other=tuple(measure for measure in found if measure.quantity))


STREAMS = {
    "one_image": Stream(
        "images.generations",
        partial(0) + partial(1) + completed(image_usage(10, 0, 4360)),
        pictures(10, 0, 4360),
    ),
    "two_images_report_each_for_itself": Stream(
        "images.edits",
        partial(0, "image_edit")
        + completed(image_usage(10, 40, 272), "image_edit")
        + completed(image_usage(10, 40, 280), "image_edit"),
        pictures(20, 80, 552),
        choices=2,
    ),
    "one_of_two_images": Stream(
        "images.generations", completed(image_usage(10, 0, 272)), pictures(10, 0, 272), choices=2, finished=False
    ),
    "unknown_members_of_images": Stream(
        "images.generations", completed(image_usage(10, 0, 272, thinking_tokens=5)), pictures(10, 0, 272), unknown=1
    ),
    "broken_usage_of_an_image": Stream(
        "images.generations",
        completed(image_usage(10, 0, -5)),
        None,
        invalid="image tokens are not a whole number within reason",
    ),
    "image_error": Stream(
        "images.generations",
        partial(0) + event("error", error={"code": "moderation_blocked", "message": "No."}),
        None,
        finished=False,
        error=True,
    ),
    "transcript": Stream(
        "audio.transcriptions",
        event("transcript.text.delta", delta="Grüße, ")
        + event("transcript.text.delta", delta="世界 🌍", logprobs=[])
        + event("transcript.text.done", text="Grüße, 世界 🌍", usage=TOKENS),
        Usage(4, input_audio=10, output_text=3),
        text="Grüße, 世界 🌍",
        done=True,
    ),
    "transcript_without_usage": Stream(
        "audio.transcriptions",
        event("transcript.text.delta", delta="Hi") + event("transcript.text.done", text="Hi"),
        None,
        text="Hi",
        done=True,
    ),
    "transcript_with_speakers": Stream(
        "audio.transcriptions",
        event("transcript.text.delta", delta="Hi", segment_id="seg_0")
        + event("transcript.text.segment", id="seg_0", start=0.0, end=1.0, speaker="A", text="Hi")
        + event("transcript.text.done", text="Hi", usage=TOKENS),
        Usage(4, input_audio=10, output_text=3),
        text="Hi",
        done=True,
    ),
    "transcript_cut": Stream(
        "audio.transcriptions", event("transcript.text.delta", delta="Hal"), None, text="Hal", finished=False
    ),
    "transcript_not_json": Stream(
        "audio.transcriptions",
        event("transcript.text.delta", delta="Hi")
        + b"data: {not JSON\n\n"
        + event("transcript.text.done", usage=TOKENS),
        Usage(4, input_audio=10, output_text=3),
        text="Hi",
        malformed=True,
        done=True,
    ),
    # vLLM, "OpenAI-compatible server", Translations API.
    "translation_in_chunks": Stream(
        "audio.translations",
        chunk({"choices": [{"index": 0, "delta": {"content": "Greetings, "}, "finish_reason": None}]})
        + chunk({"choices": [{"index": 0, "delta": {"content": "世界"}, "finish_reason": "stop"}]})
        + chunk({"choices": [], "usage": {"prompt_tokens": 14, "completion_tokens": 3, "total_tokens": 17}})
        + b"data: [DONE]\n\n",
        Usage(14, output_text=3),
        text="Greetings, 世界",
        named=("whisper-large-v3", "trsl-7"),
        done=True,
    ),
    "translation_in_chunks_without_usage": Stream(
        "audio.translations",
        chunk({"choices": [{"delta": {"content": "Hi"}}, 5, {"delta": 5}], "usage": None})
        + chunk({"choices": [{"delta": {"content": " you"}, "finish_reason": "stop"}]})
        + b"data: [DONE]\n\n",
        None,
        text="Hi you",
        named=("whisper-large-v3", "trsl-7"),
        done=True,
    ),
    "speech": Stream(
        "audio.speech",
        event("speech.audio.delta", audio="AAAA")
        + event("speech.audio.done", usage={"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}),
        Usage(14, output_audio=101),
        done=True,
    ),
}


def run(stream: Stream, pieces: list[bytes]) -> tuple[bytes, bool, bool, Metered]:
    dialect = DIALECTS[stream.operation]
    meter = StreamMeter(dialect.events(), dialect.asks_usage, stream.choices, dialect.last_mark)
    forwarded = b"".join(meter.feed(piece) for piece in pieces) + meter.tail()
    return forwarded, meter.done, meter.finish_seen, meter.finish("complete")


def expected(stream: Stream) -> tuple[bytes, bool, bool, Metered]:
    report = Report(stream.usage, stream.invalid, *stream.named, unknown=stream.unknown)
    told = Metered(report, "complete", stream.text, len(stream.text), 0, stream.malformed, stream.error)
    return stream.data, stream.done, stream.finished, told


@pytest.mark.parametrize("name", STREAMS)
def test_every_split(name: str) -> None:
    """Usage, text, flags and forwarded bytes are the same for every split in two and byte by byte."""
    stream = STREAMS[name]
    assert run(stream, [stream.data]) == expected(stream)
    assert run(stream, [stream.data[at : at + 1] for at in range(len(stream.data))]) == expected(stream)
    for at in range(len(stream.data)):
        assert run(stream, [stream.data[:at], stream.data[at:]]) == expected(stream), at


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
@pytest.mark.parametrize("name", STREAMS)
def test_every_line_end(name: str, line_end: bytes) -> None:
    """All line ends of the standard mean the same."""
    stream = STREAMS[name]
    other = stream._replace(data=stream.data.replace(b"\n", line_end))
    for size in (1, 7, len(other.data)):
        pieces = [other.data[at : at + size] for at in range(0, len(other.data), size)]
        assert run(other, pieces) == expected(other)


@pytest.mark.parametrize("name", STREAMS)
def test_every_cut(name: str) -> None:
    """A stream that ends at any byte forwards what came and says what was delivered."""
    stream = STREAMS[name]
    for end in range(len(stream.data)):
        forwarded, _, _, told = run(stream, [stream.data[:end]])
        assert forwarded == stream.data[:end]
        assert stream.text.startswith(told.text)


@pytest.mark.parametrize("megabytes", [0.3, 0.9, 1.5, 6.0])
@pytest.mark.parametrize("piece", [1 << 14, 1 << 20, 1 << 24])
def test_a_large_image_hides_no_usage(megabytes: float, piece: int) -> None:
    """An image beyond all bounds of an event is not decoded, and its usage at the end is read all the same."""
    large = json.dumps("A" * round(megabytes * (1 << 20))).encode()
    data = b""
    for kind, rest in (
        ("partial_image", b"}"),
        ("completed", b',"usage":%b}' % json.dumps(image_usage(5, 0, 9)).encode()),
    ):
        data += b'event: x\ndata: {"type":"image_generation.%b","b64_json":%b%b\n\n' % (kind.encode(), large, rest)
    stream = Stream("images.generations", data, pictures(5, 0, 9))
    forwarded, _, finished, told = run(stream, [data[at : at + piece] for at in range(0, len(data), piece)])

    assert forwarded == data
    assert finished
    assert told.told == stream.usage


@given(st.sampled_from(["images.generations", "audio.transcriptions", "audio.speech"]), st.binary(max_size=200))
def test_decoding_is_total(operation: str, junk: bytes) -> None:
    """Any bytes are forwarded and metered without an error."""
    dialect = DIALECTS[operation]
    decode = dialect.events()
    decode(junk)
    meter = StreamMeter(decode, hide_usage=False, last_mark=dialect.last_mark)
    data = b"data: " + junk + b'\n\ndata: {"type":"transcript.text.done","usage":' + junk + b"}\n\n"
    assert meter.feed(data) == data
    meter.tail()
    meter.finish("cut")
