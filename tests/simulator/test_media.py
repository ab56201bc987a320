"""Images, audio, moderations and rerank at the simulator, through the stock client and by hand."""

import base64
import io
import json
import wave
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AzureOpenAI, OpenAI

from simulated import KEY, Provider, post


@pytest.fixture
def client(provider: Provider) -> Iterator[OpenAI]:
    """The synchronous client, without retries."""
    with OpenAI(base_url=provider.url + "/v1", api_key=KEY, max_retries=0) as made:
        yield made


def recording(seconds: float, rate: int = 8000) -> bytes:
    """Silence as WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(rate)
        opened.writeframes(bytes(2 * round(seconds * rate)))
    return file.getvalue()


def line(**steering: Any) -> str:
    return "sim: " + json.dumps(steering)


PNG = b"\x89PNG\r\n\x1a\n--\r\n--not a boundary\r\n"


def test_images_are_pictures_with_usage(client: OpenAI) -> None:
    """Each image is a picture, and its tokens add up."""
    answer = client.images.generate(model="sim-1", prompt=f"a cat\n{line(output_tokens=272)}", n=2, size="1024x1024")

    assert answer.data is not None
    assert all(base64.b64decode(image.b64_json or "").startswith(b"\x89PNG") for image in answer.data)
    usage = answer.usage
    assert usage is not None
    assert (len(answer.data), usage.output_tokens, usage.total_tokens - usage.input_tokens) == (2, 544, 544)


def test_models_that_are_billed_by_image_report_nothing(client: OpenAI, provider: Provider) -> None:
    """What was made is in the truth log, not in the answer."""
    headers = {"x-client-request-id": "req-dall-e"}
    answer = client.images.generate(
        model="dall-e-3", prompt="a cat", quality="hd", size="1792x1024", response_format="url", extra_headers=headers
    )

    assert answer.usage is None
    assert answer.data is not None
    assert (answer.data[0].url or "").startswith("https://")
    assert provider.record("req-dall-e")["usage"] == {"images": 1, "size": "1792x1024", "quality": "hd"}
    provider.door("POST", "reset")


def test_edits_take_forms(client: OpenAI) -> None:
    """Pictures in a form are counted, whatever bytes they hold."""
    files = [("a.png", PNG, "image/png"), ("b.png", PNG, "image/png")]
    answer = client.images.edit(model="sim-1", image=files, mask=("m.png", PNG, "image/png"), prompt="a hat", n=2)

    assert answer.usage is not None
    assert answer.usage.input_tokens_details.image_tokens == 2 * 3 * 85
    with pytest.deprecated_call():
        varied = client.images.create_variation(model="dall-e-2", image=files[0], n=3)
    assert len(varied.data or ()) == 3


def test_a_stream_of_images_tells_each_ones_usage(client: OpenAI) -> None:
    """Partial images come before each image, which says what it took."""
    stream = client.images.generate(model="sim-1", prompt="a cat", n=2, stream=True, partial_images=2)
    events = list(stream)

    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert kinds == ["partial_image", "partial_image", "completed"] * 2
    told = [event.usage.output_tokens for event in events if event.type == "image_generation.completed"]
    assert told == [216, 216]


@pytest.mark.parametrize("answer_format", ["json", "verbose_json", "text", "srt", "vtt", "diarized_json"])
def test_transcripts_come_in_every_format(client: OpenAI, answer_format: Any) -> None:
    """The words are the same in all."""
    answer: Any = client.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", recording(2.5)), response_format=answer_format
    )

    text = answer if isinstance(answer, str) else answer.text
    assert "the of and to in is that" in text
    if answer_format == "verbose_json":
        assert (answer.duration, answer.usage.seconds) == (2.5, 3)


def test_transcripts_are_billed_by_tokens_or_seconds(client: OpenAI) -> None:
    """The model decides."""
    file = ("a.wav", recording(2.5))
    tokens: Any = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file, prompt="names: Ada")
    seconds: Any = client.audio.transcriptions.create(model="whisper-1", file=file)
    with pytest.deprecated_call():
        translated = client.audio.translations.create(model="whisper-1", file=file, prompt=line(content="Hello there"))

    assert (tokens.usage.input_token_details.audio_tokens, tokens.usage.input_tokens) == (30, 32)
    assert seconds.usage.to_dict() == {"type": "duration", "seconds": 3}
    assert translated.text == "Hello there"


def test_a_stream_of_a_transcript_ends_with_its_usage(client: OpenAI) -> None:
    """Words join to the whole transcript."""
    stream = client.audio.transcriptions.create(
        model="gpt-4o-transcribe", file=("a.wav", recording(1)), stream=True, prompt=line(output_tokens=5)
    )
    events: list[Any] = list(stream)

    assert "".join(event.delta for event in events[:-1]) == events[-1].text == "the of and to in"
    assert events[-1].usage.total_tokens == events[-1].usage.input_tokens + 5


@pytest.mark.parametrize(
    ("kind", "head"), [("mp3", b"\xff\xf3"), ("wav", b"RIFF"), ("aac", b"\xff\xf1"), ("pcm", b"\0")]
)
def test_speech_is_sound(client: OpenAI, provider: Provider, kind: Any, head: bytes) -> None:
    """Speech comes in each format, and reports nothing."""
    headers = {"x-client-request-id": f"req-{kind}"}
    answer = client.audio.speech.create(
        model="tts-1", voice="alloy", input="Hello, world", response_format=kind, extra_headers=headers
    )

    assert answer.content.startswith(head)
    assert provider.record(f"req-{kind}")["usage"] == {"characters": 12}
    provider.door("POST", "reset")


def test_a_stream_of_speech_tells_its_tokens(provider: Provider) -> None:
    """Sound comes in events, and the last one has the usage."""
    body = {"model": "gpt-4o-mini-tts", "voice": "alloy", "stream_format": "sse"}
    body["input"] = f"Hello\n{line(output_tokens=40)}"
    heard = provider.talk(post(body, path="/v1/audio/speech"))

    assert heard.data.count(b"speech.audio.delta") == 3
    assert b'{"type":"speech.audio.done","usage":{"input_tokens":' in heard.data
    assert b'"output_tokens":40' in heard.data


def test_moderations_judge_each_input(client: OpenAI) -> None:
    """Texts are judged one by one, parts together, and no model need be named."""
    texts = client.moderations.create(input=["fine", "harm"])
    parts: Any = [{"type": "text", "text": "fine"}, {"type": "image_url", "image_url": {"url": "https://a.example/b"}}]

    assert [result.flagged for result in texts.results] == [False, True]
    assert texts.model == "omni-moderation-latest"
    assert len(client.moderations.create(model="sim-1", input=parts).results) == 1


@pytest.mark.parametrize(
    ("model", "member", "told"),
    [
        ("jina-reranker", "usage", {"prompt_tokens": 9, "total_tokens": 9}),
        ("cohere-rerank", "meta", {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}),
    ],
)
def test_rerank_orders_and_bills_as_its_model_does(client: OpenAI, model: str, member: str, told: Any) -> None:
    """The best come first, as many as asked for."""
    body = {"model": model, "query": "what is it", "documents": ["a cat", {"text": "dog"}], "top_n": 1}
    answer: Any = client.post("/rerank", body=body, cast_to=object)

    assert (len(answer["results"]), answer[member]) == (1, told)


def test_azure_has_them_below_deployments(provider: Provider) -> None:
    """Azure's client gets images, transcripts and speech under a deployment's path."""
    with AzureOpenAI(
        azure_endpoint=provider.url, api_key=KEY, api_version="2024-10-21", azure_deployment="sim-1", max_retries=0
    ) as client:
        images = client.images.generate(model="sim-1", prompt="a cat")
        heard = client.audio.transcriptions.create(model="sim-1", file=("a.wav", recording(1)))
        spoken = client.audio.speech.create(model="sim-1", voice="alloy", input="Hello")

    assert images.usage is not None
    assert heard.text
    assert spoken.content


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/images/edits", {"prompt": "no form"}),
        ("/v1/images/generations", {"prompt": "a", "no_such_field": 1, "model": "sim-1"}),
        ("/v1/audio/speech", {"model": "tts-1", "voice": "alloy", "input": ""}),
        ("/v1/rerank", {"model": "sim-1", "query": "a", "documents": []}),
        ("/v1/moderations", {"input": []}),
    ],
)
def test_what_a_provider_would_refuse_is_refused(client: OpenAI, path: str, body: Any) -> None:
    """Bad requests get the provider's complaint."""
    with pytest.raises(openai.BadRequestError):
        client.post(path.removeprefix("/v1"), body=body, cast_to=object)
