"""What calls for images, audio, moderations and rerank ask, and what their answers used."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects import recordings
from faregate.core.call import AUDIO_IN, AUDIO_OUT, IMAGE_IN, IMAGE_OUT, Call
from faregate.core.metering.meter import Report
from faregate.core.usage import Measure, Usage
from faregate.dialects import DIALECTS, forms, openai_audio, openai_images, rerank
from faregate.errors import Problem

OPERATIONS = (
    "images.generations",
    "images.edits",
    "images.variations",
    "audio.transcriptions",
    "audio.translations",
    "audio.speech",
    "moderations",
    "rerank",
)
PNG = b"\x89PNG\r\n\x1a\n"
WAV, _ = recordings.wav(16_000 * 5 + 1)


def raw(**value: Any) -> bytes:
    return json.dumps(value).encode()


def form(*parts: tuple[str, bytes | str], **fields: str) -> bytes:
    """A form with these files and fields."""
    body = b""
    for name, data in (*parts, *fields.items()):
        filename = b"" if isinstance(data, str) else b'; filename="f"'
        content = data.encode() if isinstance(data, str) else data
        body += b'--XyZ\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (
            name.encode(),
            filename,
            content,
        )
    return body + b"--XyZ--\r\n"


def call_of(operation: str, body: bytes, model: str = "") -> Call:
    call = DIALECTS[operation].read(body, model)
    assert isinstance(call, Call), call
    return call


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "declared"),
    [
        ({}, ("1024x1024", 1)),
        ({"n": 3, "size": "512x512"}, ("512x512", 3)),
        ({"size": "1792x1024", "quality": "hd"}, ("1792x1024/hd", 1)),
        ({"size": "1024x1024", "quality": "standard", "n": None}, ("1024x1024", 1)),
        ({"size": "auto", "quality": "auto"}, ("1024x1024", 1)),
        ({"size": "1x1", "quality": "odd"}, ("1x1/odd", 1)),
    ],
)
def test_images_are_declared_by_size_and_quality(asked: dict[str, Any], declared: tuple[str, int]) -> None:
    """n × size × quality is known from the request; a size that nobody prices stays what it is."""
    call = call_of("images.generations", raw(model="dall-e-3", prompt="a cat", **asked))
    assert call.declared == (Measure("images", *declared),)


@pytest.mark.parametrize(
    ("size", "quality", "tokens"),
    [
        # OpenAI, "Image generation", calculating costs: the largest of all models.
        ("1024x1024", "high", 7024),
        ("1536x1024", "high", 6208),
        ("1024x1536", "high", 6240),
        ("1024x1536", "medium", 1584),
        ("1024x1024", "low", 1756),
        ("1024x1024", "max", 7024),
        ("3840x2160", "high", 13_342),
        ("2880x2880", "high", 23_719),
        ("", "", 23_719),
        ("auto", "auto", 23_719),
        ("auto", "medium", 5930),
        ("odd", "odd", 23_719),
        ("0x5", "high", 23_719),
    ],
)
def test_an_image_has_at_most_so_many_tokens(size: str, quality: str, tokens: int) -> None:
    """By the documented tables; what is automatic or unknown is the dearest."""
    assert openai_images.image_tokens_max(size, quality) == tokens


def test_an_image_call() -> None:
    """Text is read once for each image, partial images cost their own tokens, and nothing can be capped."""
    body = raw(
        model="gpt-image-2",
        prompt="a cat",
        n=2,
        size="1024x1024",
        quality="high",
        stream=True,
        partial_images=3,
        user="u",
    )
    assert call_of("images.generations", body) == Call(
        "images.generations",
        "gpt-image-2",
        stream=True,
        choices=2,
        output_cap=7024,
        input_tokens_max=2 * len(body),
        extra_output_tokens=600,
        end_user="u",
        members=("model", "prompt", "n", "size", "quality", "stream", "partial_images", "user"),
        media=IMAGE_OUT,
        declared=(Measure("images", "1024x1024/high", 2),),
        sealed=True,
    )


def test_a_gif_has_as_many_images_as_frames() -> None:
    """Each frame may cost what an image does."""
    one = call_of("images.generations", raw(model="m", prompt="a", size="1024x1024", quality="high"))
    gif = call_of(
        "images.generations", raw(model="m", prompt="a", size="1024x1024", quality="high", output_format="gif")
    )
    few = call_of(
        "images.generations",
        raw(model="m", prompt="a", size="1024x1024", quality="high", output_format="gif", frame_count=2),
    )
    assert (gif.output_cap, few.output_cap) == (9 * (one.output_cap or 0), 2 * (one.output_cap or 0))


def test_an_edit_counts_its_pictures_and_not_their_bytes() -> None:
    """Files are no text; each is as many tokens as the largest picture."""
    pictures = [("image[]", PNG * 1000), ("image[]", PNG * 1000), ("mask", PNG)]
    body = form(*pictures, model="gpt-image-2", prompt="a hat", n="2", quality="low", size="1024x1024")
    call = call_of("images.edits", body)

    text = len(body) - 2001 * len(PNG)
    assert call.input_tokens_max == 2 * (text + 3 * openai_images.INPUT_IMAGE_TOKENS_MAX)
    assert (call.choices, call.media, call.declared) == (
        2,
        IMAGE_IN | IMAGE_OUT,
        (Measure("images", "1024x1024/low", 2),),
    )
    assert call.members == ("image[]", "mask", "model", "prompt", "n", "quality", "size")


def test_a_variation_is_an_image_of_its_size() -> None:
    """Variations have a size and no quality."""
    call = call_of("images.variations", form(("image", PNG), model="dall-e-2", n="4", size="256x256"))
    assert call.declared == (Measure("images", "256x256", 4),)


TOLD_OF_IMAGES = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens": 50,
    "total_tokens": 100,
}


@pytest.mark.parametrize(
    ("told", "usage", "unknown"),
    [
        # OpenAI, API reference, "Create image": the response object.
        (
            TOLD_OF_IMAGES,
            Usage(10, other=(Measure("input_image_tokens", "", 40), Measure("output_image_tokens", "", 50))),
            0,
        ),
        (
            {**TOLD_OF_IMAGES, "output_tokens_details": {"text_tokens": 8, "image_tokens": 42}},
            Usage(
                10, output_text=8, other=(Measure("input_image_tokens", "", 40), Measure("output_image_tokens", "", 42))
            ),
            0,
        ),
        (
            {"input_tokens": 7, "output_tokens": 5, "planning_tokens": 9, "input_tokens_details": {"video_tokens": 1}},
            Usage(7, other=(Measure("output_image_tokens", "", 5),)),
            2,
        ),
        (None, None, 0),
    ],
)
def test_usage_of_images(told: Any, usage: Usage | None, unknown: int) -> None:
    """Text and images are told apart; what nobody knows is counted."""
    body = raw(created=1, data=[{"b64_json": "A" * 5000}], usage=told)
    assert openai_images.usage_of(body) == Report(usage, unknown=unknown)


@pytest.mark.parametrize(
    "told",
    [
        {**TOLD_OF_IMAGES, "total_tokens": 99},
        {**TOLD_OF_IMAGES, "input_tokens_details": {"image_tokens": 51}},
        {**TOLD_OF_IMAGES, "output_tokens_details": {"image_tokens": 51}},
        {**TOLD_OF_IMAGES, "input_tokens_details": {"image_tokens": -1}},
        {**TOLD_OF_IMAGES, "input_tokens_details": {"image_tokens": "40"}},
        {**TOLD_OF_IMAGES, "output_tokens": float("nan")},
        {**TOLD_OF_IMAGES, "output_tokens": 1e30},
        {"output_tokens": 5},
        [5],
        "many",
    ],
)
def test_usage_that_cannot_be_true_is_named(told: Any) -> None:
    """A contradiction is never billed as it stands."""
    report = openai_images.usage_of(raw(data=[], usage=told))
    assert report.usage is None
    assert report.invalid


def test_tokens_of_another_model_raise_the_alarm() -> None:
    """Drawings are refused, but whoever bills them all the same is noticed."""
    body = raw(data=[], usage=TOLD_OF_IMAGES, svg_usage={"model": "gpt-5", "input_tokens": 5})
    assert openai_images.usage_of(body).unknown == 1


# -- audio -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["audio.transcriptions", "audio.translations"])
def test_a_recording_is_declared_by_its_seconds(operation: str) -> None:
    """Seconds are known from the file, tokens are bounded by them."""
    body = form(("file", WAV), model="whisper-1", prompt="names: Ada", stream="true", user="u")
    assert call_of(operation, body) == Call(
        operation,
        "whisper-1",
        stream=True,
        output_cap=2000,
        input_tokens_max=len(body) - len(WAV) + 6 * 32,
        end_user="u",
        members=("file", "model", "prompt", "stream", "user"),
        media=AUDIO_IN,
        declared=(Measure("seconds", "", 6),),
        sealed=True,
    )


def test_a_file_that_cannot_be_measured_is_bounded_by_its_bytes() -> None:
    """Unknown formats are billed at the lowest bit rate, and refused where that is absurd."""
    call = call_of("audio.transcriptions", form(("file", b"unknown" * 1000), model="m"))
    assert call.declared == (Measure("seconds", "", 10),)
    refused = DIALECTS["audio.transcriptions"].read(form(("file", bytes(70_000_000)), model="m"))
    assert isinstance(refused, Problem)
    assert (refused.code, refused.param) == ("feature_unbounded", "file")


def test_speakers_may_be_heard_too() -> None:
    """Samples of known speakers add to what is held, not to what is billed."""
    body = form(("file", WAV), ("known_speaker_references[]", "data:audio/wav;base64,AAAA"), model="m")
    call = call_of("audio.transcriptions", body)
    assert (call.declared, call.at_most) == ((Measure("seconds", "", 6),), (Measure("seconds", "", 10),))


def test_azure_names_the_model_in_the_path() -> None:
    """The path's deployment stands for the form's model."""
    assert call_of("audio.transcriptions", form(("file", WAV), model="other"), "my-whisper").model == "my-whisper"


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        # OpenAI, API reference, "Create transcription": the objects of each format.
        (raw(text="Hi", usage={"type": "duration", "seconds": 9}), Usage(other=(Measure("seconds", "", 9),))),
        (raw(text="Hi", duration=8.47, language="english"), Usage(other=(Measure("seconds", "", 9),))),
        (raw(text="Hi", duration="8.0"), Usage(other=(Measure("seconds", "", 8),))),
        (
            raw(text="Hi", duration=8.47, usage={"type": "duration", "seconds": 8.0}),
            Usage(other=(Measure("seconds", "", 8),)),
        ),
        (
            raw(
                text="Hi",
                duration=3,
                usage={
                    "type": "tokens",
                    "input_tokens": 14,
                    "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
                    "output_tokens": 45,
                    "total_tokens": 59,
                },
            ),
            Usage(input_text=4, input_audio=10, output_text=45),
        ),
        (raw(text="Hi"), None),
        (b"Just text, with a brace: {\n", None),
        (b"{ text that is not JSON", None),
        (b"1\n00:00:00,000 --> 00:00:02,000\nHi\n\n", None),
    ],
)
def test_usage_of_transcripts(answer: bytes, usage: Usage | None) -> None:
    """Tokens or seconds as they are told, started seconds whole; text and subtitles tell nothing."""
    assert openai_audio.usage_of(answer) == Report(usage)


@pytest.mark.parametrize("seconds", [-1, "many", None, float("nan"), float("inf"), 1e30, [9], True])
def test_seconds_that_cannot_be_true_are_named(seconds: Any) -> None:
    """Broken durations are no report."""
    report = openai_audio.usage_of(raw(text="Hi", usage={"type": "duration", "seconds": seconds}))
    assert report.usage is None
    assert report.invalid


def test_a_speech_call() -> None:
    """Characters are known from the text, as characters and not as bytes."""
    body = raw(model="tts-1", voice="alloy", input="Grüße, 世界", speed=0.5, stream_format="sse")
    call = call_of("audio.speech", body)
    assert call.declared == (Measure("characters", "", 9),)
    assert (call.stream, call.media, call.output_cap, call.sealed) == (True, AUDIO_OUT, (1000 + 12 * 15) * 2, True)


@pytest.mark.parametrize(
    ("made", "tokens"),
    [(recordings.wav(24_000 * 6, 24_000)[0], 125), (recordings.aac(150)[0], 134), (bytes(48_000 * 6), 125)],
)
def test_speech_without_a_report_is_counted_by_its_length(made: bytes, tokens: int) -> None:
    """1,250 tokens a minute, and never more than was held; raw samples have no header."""
    call = call_of("audio.speech", raw(model="m", voice="v", input="a" * 100))
    assert openai_audio.counted_speech(made, call).output_audio == tokens
    assert openai_audio.counted_speech(made * 1000, call).output_audio == call.output_cap


def test_what_is_billed_by_tokens_and_tells_none_is_counted() -> None:
    """No answer is free because it says nothing: transcripts by their length, images by the most that they can be."""
    heard = call_of("audio.transcriptions", form(("file", WAV), model="m", response_format="text"))
    counted = DIALECTS["audio.transcriptions"].counted
    assert counted is not None
    told = counted(b"Hello there, you all", heard)
    assert (told.input_audio, told.output_text) == (60, 5)
    asked = call_of("images.generations", GOOD["images.generations"])
    most = openai_images.counted_images(b"{}", asked)
    assert (most.input_tokens, most.output_tokens) == (asked.input_tokens_max, 2 * (asked.output_cap or 0))
    assert rerank.counted_rerank(b"{}", call_of("rerank", GOOD["rerank"])).input_text > 0


# -- moderations and rerank --------------------------------------------------------------------------------------------


def test_a_moderation_call() -> None:
    """No model need be named; there is no output."""
    call = call_of("moderations", raw(input=["a", "b"]))
    assert (call.model, call.has_output, call.declared, call.media) == ("omni-moderation-latest", False, (), 0)
    picture = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}
    assert call_of("moderations", raw(input=[{"type": "text", "text": "a"}, picture])).media == IMAGE_IN


def test_a_moderation_that_tells_nothing_is_counted() -> None:
    """A verdict alone is no report, so that models with a price of tokens are not free; others tell tokens."""
    usage_of = DIALECTS["moderations"].usage_of
    assert usage_of(raw(id="modr-1", model="m", results=[])) == Report(None, "", "m", "modr-1")
    assert usage_of(raw(results=[], usage={"prompt_tokens": 4, "total_tokens": 4})).usage == Usage(4)
    assert usage_of(raw(error={"message": "no"})).usage is None


def test_a_rerank_call() -> None:
    """One search unit for a hundred documents; long ones count as several in what is held."""
    call = call_of("rerank", raw(model="m", query="what", documents=["a"] * 101))
    assert (call.declared, call.at_most) == ((Measure("search_units", "", 2),), ())
    assert call.input_tokens_max >= 101 * len("what")
    long = call_of("rerank", raw(model="m", query="q" * 1000, documents=["a" * 250 * 101, {"text": "b"}]))
    assert (long.declared, long.at_most) == ((Measure("search_units", "", 1),), (Measure("search_units", "", 1),))


@pytest.mark.parametrize(
    ("answer", "report"),
    [
        # Cohere, API reference, "Rerank"; Jina, "Reranker API"; vLLM, "OpenAI-compatible server".
        (
            {"id": "r", "results": [], "meta": {"billed_units": {"search_units": 2}}},
            Report(Usage(other=(Measure("search_units", "", 2),)), id="r"),
        ),
        ({"results": [], "model": "m", "usage": {"total_tokens": 815}}, Report(Usage(815), model="m")),
        ({"results": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}}, Report(Usage(9))),
        ({"results": [], "meta": {"billed_units": {"total_tokens": 7}}}, Report(Usage(7))),
        ({"results": [], "meta": {"billed_units": {"images": 7}}}, Report(unknown=1)),
        (
            {"meta": {"billed_units": {"search_units": -1}}},
            Report(invalid="search units are not a number within reason"),
        ),
        ({"results": []}, Report()),
    ],
)
def test_usage_of_rerank(answer: dict[str, Any], report: Report) -> None:
    """Search units or tokens, as each service tells them."""
    assert rerank.usage_of(raw(**answer)) == report


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "body", "param", "code"),
    [
        ("images.generations", raw(model="m"), "prompt", "field_missing"),
        ("images.generations", raw(prompt="a"), "model", "field_missing"),
        ("images.generations", raw(model="m", prompt="a", n=0), "n", "field_range"),
        ("images.generations", raw(model="m", prompt="a", n=11), "n", "field_range"),
        ("images.generations", raw(model="m", prompt="a", n=1.5), "n", "field_type"),
        ("images.generations", raw(model="m", prompt="a", size="1024x1024/hd"), "size", "field_range"),
        ("images.generations", raw(model="m", prompt="a", size="9" * 65), "size", "field_range"),
        ("images.generations", raw(model="m", prompt="a", size=5), "size", "field_type"),
        ("images.generations", raw(model="m", prompt="a", output_format="svg"), "output_format", "feature_unbounded"),
        ("images.generations", raw(model="m", prompt="a", svg={"model": "gpt-5"}), "svg", "feature_unbounded"),
        ("images.generations", raw(model="m", prompt="a", partial_images=4), "partial_images", "field_range"),
        ("images.generations", raw(model="m", prompt="a", api_base="x"), "api_base", "field_forbidden"),
        ("images.generations", b'{"model":"m","prompt":"a","n":1,"n":9}', "n", "json_dup_key"),
        ("images.edits", form(("image", PNG), prompt="a"), "model", "field_missing"),
        ("images.edits", form(model="m", prompt="a"), "image", "field_missing"),
        ("images.edits", form(*[("image[]", PNG)] * 19, model="m"), "image", "field_range"),
        ("images.edits", form(("image", PNG), ("n", "1"), ("n", "9"), model="m"), "n", "field_conflict"),
        ("images.edits", form(("image", PNG), ("svg[model]", "x"), model="m"), "svg[model]", "field_type"),
        ("images.edits", form(("image", PNG), model="m", output_format="svg"), "output_format", "feature_unbounded"),
        ("images.edits", raw(model="m", prompt="a"), None, "form_invalid"),
        ("audio.transcriptions", form(model="m"), "file", "field_missing"),
        ("audio.transcriptions", form(("file", b""), model="m"), "file", "field_range"),
        ("audio.transcriptions", form(("file", WAV)), "model", "field_missing"),
        ("audio.transcriptions", form(("file", WAV), model=""), "model", "field_range"),
        ("audio.transcriptions", form(("file", WAV), ("file", WAV), model="m"), "file", "field_conflict"),
        ("audio.transcriptions", form(("file[]", WAV), model="m"), "file[]", "field_type"),
        ("audio.transcriptions", form(("file", WAV), model="m", stream="maybe"), "stream", "field_type"),
        ("audio.transcriptions", form(("file", WAV), model="m", base_url="x"), "base_url", "field_forbidden"),
        (
            "audio.transcriptions",
            form(("file", WAV), model="m", service_tier="flex"),
            "service_tier",
            "feature_unbounded",
        ),
        ("audio.transcriptions", b"", None, "body_empty"),
        ("audio.speech", raw(model="m", voice="v"), "input", "field_missing"),
        ("audio.speech", raw(model="m", voice="v", input=""), "input", "field_range"),
        ("audio.speech", raw(model="m", voice="v", input=5), "input", "field_type"),
        ("audio.speech", raw(model="m", voice="v", input="a", speed=0.01), "speed", "field_range"),
        ("audio.speech", raw(model="m", voice="v", input="a", speed="fast"), "speed", "field_type"),
        ("audio.speech", raw(model="m", voice="v", input="a", stream_format="other"), "stream_format", "field_range"),
        ("moderations", raw(model="m"), "input", "field_missing"),
        ("moderations", raw(input=[]), "input", "field_range"),
        ("moderations", raw(input=5), "input", "field_type"),
        ("moderations", raw(input=[{"type": "video"}]), "input[0]", "feature_unbounded"),
        (
            "moderations",
            raw(input=[{"type": "image_url", "image_url": {"url": "http://10.0.0.1/a"}}]),
            "input[0].image_url.url",
            "url_forbidden",
        ),
        ("rerank", raw(model="m", query="a"), "documents", "field_missing"),
        ("rerank", raw(model="m", documents=["a"]), "query", "field_missing"),
        ("rerank", raw(model="m", query="a", documents=[]), "documents", "field_range"),
        ("rerank", raw(model="m", query="a", documents=["a"] * 10_001), "documents", "field_range"),
        ("rerank", raw(model="m", query="a", documents=[5]), "documents[0]", "field_type"),
        ("rerank", raw(model="m", query="a", documents=[{"image": "x"}]), "documents[0]", "feature_unbounded"),
        ("rerank", raw(model="m", query="a", documents=["a"], top_n=0), "top_n", "field_range"),
    ],
)
def test_refused(operation: str, body: bytes, param: str | None, code: str) -> None:
    """Each refusal names its field."""
    problem = DIALECTS[operation].read(body)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.param) == (code, param)


GOOD = {
    "images.generations": raw(model="m", prompt="a b", n=2),
    "images.edits": form(("image", PNG), model="m", prompt="a b", n="2"),
    "images.variations": form(("image", PNG), model="m", n="2"),
    "audio.transcriptions": form(("file", WAV), model="m", prompt="a b"),
    "audio.translations": form(("file", WAV), model="m", prompt="a b"),
    "audio.speech": raw(model="m", voice="v", input="a b", instructions="c"),
    "moderations": raw(model="m", input=["a b", {"type": "text", "text": "c"}]),
    "rerank": raw(model="m", query="a b", documents=["c", {"text": "d"}]),
}
TEXTS = {
    "images.generations": ["a b", "a b"],
    "images.edits": ["a b", "a b"],
    "images.variations": [],
    "audio.transcriptions": ["a b"],
    "audio.translations": ["a b"],
    "audio.speech": ["a b", "c"],
    "moderations": ["a b", "c"],
    "rerank": ["a b", "a b", "c", '{"text":"d"}'],
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_prompts_are_counted_exactly_within_the_bound_by_length(operation: str) -> None:
    """The texts to count, and an overhead that never falls below what else is read."""
    dialect, call = DIALECTS[operation], call_of(operation, GOOD[operation])
    assert dialect.prompt_text(GOOD[operation]) == TEXTS[operation]
    assert dialect.prompt_tokens_overhead(GOOD[operation]) <= call.input_tokens_max


@pytest.mark.parametrize("operation", OPERATIONS)
def test_another_model_is_put_into_every_format(operation: str) -> None:
    """Forwarding under another name changes the name and nothing else."""
    dialect, call = DIALECTS[operation], call_of(operation, GOOD[operation])
    told = dialect.edit(GOOD[operation], call, model="other", cap=None, cap_field="", ask_usage=False)
    again = call_of(operation, told)
    assert again.model == "other"
    assert again.declared == call.declared


@pytest.mark.parametrize("operation", OPERATIONS)
@given(junk=st.binary(max_size=300), spoiled=st.integers(0, 2000))
def test_nothing_raises(operation: str, junk: bytes, spoiled: int) -> None:
    """Any request is read or refused, and any answer understood as far as it goes."""
    dialect, good = DIALECTS[operation], bytearray(GOOD[operation])
    good[spoiled % len(good)] ^= 1 + spoiled % 255
    for body in (junk, b"{" + junk, b"--XyZ\r\n" + junk, bytes(good), bytes(good[: spoiled % len(good)])):
        assert isinstance(dialect.read(body), Call | Problem)
        dialect.prompt_text(body)
        assert dialect.prompt_tokens_overhead(body) >= 0
    for answer in (
        junk,
        b'{"usage":' + junk + b"}",
        b'{"duration":' + junk + b',"meta":{"billed_units":' + junk + b"}}",
    ):
        report = dialect.usage_of(answer)
        assert report.usage is None or min(report.usage[:-1]) >= 0
        dialect.answer_text(answer)


def test_the_reader_of_forms_is_the_one_that_edits_them() -> None:
    """Every operation that takes a form splices forms."""
    for operation in OPERATIONS:
        dialect = DIALECTS[operation]
        assert (dialect.edit is forms.edit) is (dialect.media == "form")
