"""Images, audio, moderations and rerank pass the gate through the stock client, and each is booked by its own unit.

What must have been paid is worked out here from the provider's truth log, in a few lines of ``Fraction``.
"""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import httpx2
import openai
import pytest

from installation import CONFIG, Installation, nanos
from system.calls import ask, new_key, new_limit, record, truth_of

#: Model → unit (with its variant) → dollars for one.
PRICES: dict[str, dict[tuple[str, str], str]] = {
    "dall-e-3": {("images", "1024x1024"): "0.04", ("images", "1024x1024/hd"): "0.08", ("images", "1792x1024"): "0.07"},
    "dall-e-2": {("images", "256x256"): "0.016"},
    "gpt-image-2": {
        ("input_tokens", ""): "0.000005",
        ("input_image_tokens", ""): "0.000008",
        ("output_tokens", ""): "0",
        ("output_image_tokens", ""): "0.00003",
    },
    "whisper-1": {("seconds", ""): "0.0001"},
    "gpt-4o-transcribe": {
        ("input_tokens", ""): "0.0000025",
        ("input_audio_tokens", ""): "0.000006",
        ("output_tokens", ""): "0.00001",
    },
    "tts-1": {("characters", ""): "0.000015"},
    "gpt-4o-mini-tts": {("input_tokens", ""): "0.0000006", ("output_tokens", ""): "0.000012"},
    "omni-moderation-latest": {("requests", ""): "0"},
    "cohere-rerank": {("search_units", ""): "0.002"},
    "jina-reranker": {("input_tokens", ""): "0.00000002"},
}

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


def _overrides() -> str:
    lines = []
    for model, prices in PRICES.items():
        for (unit, variant), dollars in prices.items():
            named = f', variant: "{variant}"' if variant else ""
            price = f'per: 1000000, price: "{Decimal(dollars) * 1_000_000:f}"'
            row = f"provider: sim, model: {model}, unit: {unit}{named}, {price}"
            lines.append(f"    - {{{{{row}}}}}\n")
    return "".join(lines)


def _models() -> str:
    return "".join(f"  - {{{{name: {model}, to: [sim/{model}]}}}}\n" for model in PRICES)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that knows these models at these prices."""
    config = CONFIG.replace("pricing:\n", _models() + "pricing:\n") + _overrides()
    with Installation(tmp_path_factory.mktemp("media"), config=config) as running:
        yield running


@pytest.fixture(scope="module")
def secret(gate: Installation) -> str:
    """A key without limits."""
    return str(new_key(gate, "media")["secret"])


@pytest.fixture(scope="module")
def client(gate: Installation, secret: str) -> Iterator[openai.OpenAI]:
    """The stock client."""
    with openai.OpenAI(base_url=f"{gate.gateway_url}/v1", api_key=secret, max_retries=0) as made:
        yield made


def recording(seconds: float) -> bytes:
    """Silence as WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(8000)
        opened.writeframes(bytes(2 * round(seconds * 8000)))
    return file.getvalue()


def steered(text: str, **steering: Any) -> str:
    return f"{text}\nsim: {json.dumps(steering)}"


def cost_of(model: str, quantities: Mapping[tuple[str, str], int]) -> int:
    """Nano-dollars, rounded half to even once."""
    return round(sum(Fraction(PRICES[model][place]) * count * 10**9 for place, count in quantities.items()))


def booked(
    gate: Installation, request_id: str, model: str, quantities: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    """The record, which must cost just that."""
    row = record(gate, request_id)
    assert nanos(row["cost"]) == cost_of(model, quantities)
    assert (row["status"], row["model"]) == ("ok", model)
    return row


def told_tokens(truth: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """A true usage of images as what it is billed by."""
    parts = truth["input_tokens_details"]
    return {
        ("input_tokens", ""): parts["text_tokens"],
        ("input_image_tokens", ""): parts["image_tokens"],
        ("output_image_tokens", ""): truth["output_tokens"],
    }


@pytest.mark.parametrize(
    ("asked", "variant"),
    [({}, "1024x1024"), ({"quality": "hd"}, "1024x1024/hd"), ({"size": "1792x1024", "n": 3}, "1792x1024")],
)
def test_images_are_paid_by_size_and_quality(
    client: openai.OpenAI, gate: Installation, asked: dict[str, Any], variant: str
) -> None:
    """n × size × quality costs what its row says."""
    raw = client.images.with_raw_response.generate(model="dall-e-3", prompt="a cat", **asked)

    booked(gate, raw.headers["x-faregate-request-id"], "dall-e-3", {("images", variant): asked.get("n", 1)})


def test_an_image_of_a_size_without_a_price_is_refused(client: openai.OpenAI) -> None:
    """Nothing passes that nobody has a price for."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(model="dall-e-3", prompt="a cat", size="512x512")
    assert refused.value.code == "price_unknown"


def test_images_in_tokens_are_paid_as_they_are_told(client: openai.OpenAI, gate: Installation) -> None:
    """Text, pictures read and pictures made each have their price, in plain answers and edits."""
    made = client.images.with_raw_response.generate(
        model="gpt-image-2", prompt=steered("a cat", output_tokens=272), n=2, size="1024x1024", quality="low"
    )
    edited = client.images.with_raw_response.edit(
        model="gpt-image-2", image=[("a.png", PNG), ("b.png", PNG)], prompt="a hat"
    )

    for raw in (made, edited):
        request_id = raw.headers["x-faregate-request-id"]
        booked(gate, request_id, "gpt-image-2", told_tokens(truth_of(gate, request_id)["usage"]))
        assert raw.headers["x-faregate-cost"] == record(gate, request_id)["cost"]


def test_a_stream_of_images_is_paid_for_all_of_them(client: openai.OpenAI, gate: Installation) -> None:
    """Each image of a stream tells its own usage, and all are booked."""
    stream = client.images.generate(
        model="gpt-image-2", prompt=steered("a cat", output_tokens=50), n=2, partial_images=1, stream=True
    )
    with stream:
        events = list(stream)

    request_id = stream.response.headers["x-faregate-request-id"]
    assert len(events) == 4
    booked(gate, request_id, "gpt-image-2", told_tokens(truth_of(gate, request_id)["usage"]))


def test_variations_are_paid_by_size(client: openai.OpenAI, gate: Installation) -> None:
    """The oldest of the image calls is metered like the others."""
    with pytest.deprecated_call():
        raw = client.images.with_raw_response.create_variation(
            model="dall-e-2", image=("a.png", PNG), n=2, size="256x256"
        )

    booked(gate, raw.headers["x-faregate-request-id"], "dall-e-2", {("images", "256x256"): 2})


@pytest.mark.parametrize("answer_format", ["json", "verbose_json", "text", "srt", "vtt"])
def test_transcripts_are_paid_by_started_seconds(client: openai.OpenAI, gate: Installation, answer_format: Any) -> None:
    """Duration is billed whether the answer tells it or not, and the text arrives as it was sent."""
    raw = client.audio.transcriptions.with_raw_response.create(
        model="whisper-1", file=("a.wav", recording(2.5)), response_format=answer_format
    )

    assert b"the of and to in is that" in raw.content
    booked(gate, raw.headers["x-faregate-request-id"], "whisper-1", {("seconds", ""): 3})


def test_transcripts_in_tokens_are_paid_as_they_are_told(client: openai.OpenAI, gate: Installation) -> None:
    """Audio, text and output tokens each have their price, streamed or not."""
    file = ("a.wav", recording(2.5))
    raw = client.audio.transcriptions.with_raw_response.create(
        model="gpt-4o-transcribe", file=file, prompt="names: Ada"
    )
    stream = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file, stream=True)
    with stream:
        assert list(stream)[-1].type == "transcript.text.done"

    for headers in (raw.headers, stream.response.headers):
        request_id = headers["x-faregate-request-id"]
        truth = truth_of(gate, request_id)["usage"]
        parts = truth["input_token_details"]
        paid = {("input_tokens", ""): parts["text_tokens"], ("input_audio_tokens", ""): parts["audio_tokens"]}
        booked(gate, request_id, "gpt-4o-transcribe", {**paid, ("output_tokens", ""): truth["output_tokens"]})


def test_translations_are_paid_by_started_seconds(client: openai.OpenAI, gate: Installation) -> None:
    """Translations are metered like transcripts."""
    with pytest.deprecated_call():
        raw = client.audio.translations.with_raw_response.create(model="whisper-1", file=("a.wav", recording(1)))

    booked(gate, raw.headers["x-faregate-request-id"], "whisper-1", {("seconds", ""): 1})


def test_speech_is_paid_by_characters(client: openai.OpenAI, gate: Installation) -> None:
    """Sound passes as it is, and costs its text."""
    raw = client.audio.speech.with_raw_response.create(model="tts-1", voice="alloy", input="Grüße, 世界")

    assert raw.content.startswith(b"\xff\xf3")
    assert raw.headers["content-type"] == "audio/mpeg"
    booked(gate, raw.headers["x-faregate-request-id"], "tts-1", {("characters", ""): 9})


def test_speech_in_tokens_is_never_free(client: openai.OpenAI, gate: Installation) -> None:
    """Sound reports nothing: its length is counted, within a frame of the truth."""
    text = steered("Hello there", output_tokens=500)
    raw = client.audio.speech.with_raw_response.create(model="gpt-4o-mini-tts", voice="alloy", input=text)

    request_id = raw.headers["x-faregate-request-id"]
    row = record(gate, request_id)
    output = Fraction(PRICES["gpt-4o-mini-tts"]["output_tokens", ""]) * 10**9
    assert 500 * output <= nanos(row["cost"]) <= 540 * output
    assert row["usage_source"] == "counted"


def test_a_transcript_in_tokens_that_tells_none_is_never_free(client: openai.OpenAI, gate: Installation) -> None:
    """Plain text reports nothing: what was heard and written is counted."""
    raw = client.audio.transcriptions.with_raw_response.create(
        model="gpt-4o-transcribe", file=("a.wav", recording(2.5)), response_format="text"
    )

    row = record(gate, raw.headers["x-faregate-request-id"])
    heard = 30 * Fraction(PRICES["gpt-4o-transcribe"]["input_audio_tokens", ""]) * 10**9
    assert heard < nanos(row["cost"]) < 10 * heard
    assert row["usage_source"] == "counted"


def test_moderations_have_a_price_of_nothing(client: openai.OpenAI, gate: Installation) -> None:
    """They are recorded, and cost the nothing that somebody wrote down."""
    raw = client.moderations.with_raw_response.create(model="omni-moderation-latest", input=["fine", "harm"])

    assert [result.flagged for result in raw.parse().results] == [False, True]
    row = booked(gate, raw.headers["x-faregate-request-id"], "omni-moderation-latest", {("requests", ""): 1})
    assert row["operation"] == "moderations"


def test_rerank_is_paid_by_search_units_or_tokens(gate: Installation, secret: str) -> None:
    """Whichever its model has a price for."""
    for model, unit, quantity in (("cohere-rerank", "search_units", 2), ("jina-reranker", "input_tokens", 101 * 3)):
        body = {"model": model, "query": "what is", "documents": ["cat"] * 101, "top_n": 3}
        answer = ask(gate, secret, body, path="/v1/rerank")
        assert len(answer.json["results"]) == 3
        booked(gate, answer.id, model, {(unit, ""): quantity})


def test_a_limit_holds_the_most_that_an_image_may_cost(gate: Installation) -> None:
    """A call whose bound does not fit is never sent, and one that fits is."""
    key = new_key(gate, "poor")
    new_limit(gate, {"key": key["id"]}, "usd", "0.10")
    with openai.OpenAI(base_url=f"{gate.gateway_url}/v1", api_key=str(key["secret"]), max_retries=0) as poor:
        poor.images.generate(model="dall-e-3", prompt="a cat", quality="hd")
        with pytest.raises(openai.RateLimitError) as refused:
            poor.images.generate(model="dall-e-3", prompt="a cat")
        with pytest.raises(openai.RateLimitError):
            poor.images.generate(model="gpt-image-2", prompt="a cat")
    assert refused.value.code == "budget_exhausted"


def test_a_limit_counts_images_and_seconds(gate: Installation) -> None:
    """Limits in units of their own hold what a request declares."""
    key = new_key(gate, "counted")
    new_limit(gate, {"key": key["id"]}, "images", 3)
    new_limit(gate, {"key": key["id"]}, "seconds", 5)
    with openai.OpenAI(base_url=f"{gate.gateway_url}/v1", api_key=str(key["secret"]), max_retries=0) as counted:
        counted.images.generate(model="dall-e-3", prompt="a cat", n=2)
        counted.audio.transcriptions.create(model="whisper-1", file=("a.wav", recording(2.5)))
        with pytest.raises(openai.RateLimitError):
            counted.images.generate(model="dall-e-3", prompt="a cat", n=2)
        with pytest.raises(openai.RateLimitError):
            counted.audio.transcriptions.create(model="whisper-1", file=("a.wav", recording(2.5)))


def test_a_limit_counts_the_pieces_of_what_is_paid_by_tokens(gate: Installation) -> None:
    """Images, seconds and characters are posted whether they are the price or not, and cost nothing beside it."""
    key = new_key(gate, "pieces")
    limits = {unit: new_limit(gate, {"key": key["id"]}, unit, 50) for unit in ("seconds", "characters")}
    limits["images"] = new_limit(gate, {"key": key["id"]}, "images", 2)
    with openai.OpenAI(base_url=f"{gate.gateway_url}/v1", api_key=str(key["secret"]), max_retries=0) as counted:
        transcripts, speech = counted.audio.transcriptions.with_raw_response, counted.audio.speech.with_raw_response
        drawn = counted.images.with_raw_response.generate(model="gpt-image-2", prompt="a cat", n=2)
        with pytest.raises(openai.RateLimitError):
            counted.images.generate(model="gpt-image-2", prompt="a cat", n=1)
        for answer_format in ("json", "text"):
            heard = transcripts.create(
                model="gpt-4o-transcribe", file=("a.wav", recording(20)), response_format=answer_format
            )
        with pytest.raises(openai.RateLimitError):
            counted.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", recording(20)))
        for _ in range(2):
            said = speech.create(model="gpt-4o-mini-tts", voice="alloy", input="eighteen letters..")
        with pytest.raises(openai.RateLimitError):
            counted.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="eighteen letters..")

    shown = {unit: gate.admin("GET", f"/api/v1/limits/{limit['id']}") for unit, limit in limits.items()}
    assert {unit: (row["posted"], row["held"]) for unit, row in shown.items()} == {
        "images": (2, 0), "seconds": (40, 0), "characters": (36, 0),
    }  # fmt: skip
    request_id = drawn.headers["x-faregate-request-id"]
    row = booked(gate, request_id, "gpt-image-2", told_tokens(truth_of(gate, request_id)["usage"]))
    assert {"unit": "images", "variant": "1024x1024", "quantity": 2} in row["units"]
    for raw in (heard, said):
        assert record(gate, raw.headers["x-faregate-request-id"])["usage_source"] == "counted"
    metrics = httpx2.get(f"{gate.console_url}/metrics", trust_env=False).text
    assert 'faregate_unpriced_usage_total{unit="images"}' not in metrics


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"content-type": "multipart/form-data; boundary=other"}, b"--XyZ\r\n\r\n\r\n--XyZ--", "form_invalid"),
        ({"content-type": "multipart/form-data; boundary=XyZ"}, b"--XyZ\r\nno header\r\n--XyZ--", "form_invalid"),
        ({"content-type": "application/json"}, b"{}", "media_unsupported"),
        ({"content-type": "multipart/form-data"}, b"--XyZ--", "media_unsupported"),
    ],
)
def test_bad_forms_are_refused(
    gate: Installation, secret: str, headers: dict[str, str], body: bytes, code: str
) -> None:
    """A form that two readers could read differently never reaches a provider."""
    with httpx2.Client(trust_env=False, headers={**headers, "authorization": f"Bearer {secret}"}) as client:
        answer = client.post(f"{gate.gateway_url}/v1/audio/transcriptions", content=body)
    assert answer.json()["error"]["code"] == code
