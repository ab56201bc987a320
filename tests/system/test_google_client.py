"""The stock ``google-genai`` package works with only its URL and key changed, and every call is booked as served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from installation import Installation, nanos
from system.calls import new_key, new_limit, record_count, truth_of
from system.natives import EMBEDDER, booked, google_cost, price

MODEL = "gemini-2.5-flash"
STEERINGS: list[dict[str, Any]] = [
    {},
    {"prompt_tokens": 90, "prompt_audio_tokens": 40, "output_tokens": 20, "reasoning_tokens": 5, "audio_tokens": 3},
    {"prompt_tokens": 90, "cached_tokens": 50},
]


@pytest.fixture(scope="module")
def secret(native: Installation) -> str:
    """A key without limits."""
    return str(new_key(native, "googles")["secret"])


def client_of(native: Installation, secret: str) -> genai.Client:
    """The client, with only its URL and key changed; it does not try again by itself."""
    return genai.Client(api_key=secret, http_options=types.HttpOptions(base_url=native.gateway_url))


@pytest.fixture
def client(native: Installation, secret: str) -> Iterator[genai.Client]:
    """The synchronous client."""
    with client_of(native, secret) as made:
        yield made


def steered(text: str = "hello", **steering: Any) -> str:
    return f"{text}\nsim: {json.dumps(steering)}"


def id_of(answer: Any) -> str:
    """The request id in the headers that the client keeps with every answer."""
    told = answer.sdk_http_response
    assert told is not None
    return str({name.lower(): value for name, value in told.headers.items()}["x-faregate-request-id"])


def usage_of(native: Installation, answer: Any) -> dict[str, Any]:
    usage: dict[str, Any] = truth_of(native, id_of(answer))["usage"]
    return usage


@pytest.mark.parametrize("steering", STEERINGS)
def test_content_is_booked_as_served(client: genai.Client, native: Installation, steering: dict[str, Any]) -> None:
    """Every kind of token is billed at its own price, in two candidates together."""
    config = types.GenerateContentConfig(max_output_tokens=30, candidate_count=2, system_instruction="Be brief.")
    answer = client.models.generate_content(model=MODEL, contents=steered(**steering), config=config)

    usage = usage_of(native, answer)
    row = booked(native, id_of(answer), google_cost(usage))
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.prompt_token_count == row["input_tokens"]
    assert answer.usage_metadata.total_token_count == row["input_tokens"] + row["output_tokens"]
    assert row["cached_input_tokens"] == usage.get("cachedContentTokenCount", 0)
    assert row["operation"] == "gemini.generate"


@pytest.mark.parametrize("steering", STEERINGS)
def test_a_stream_is_booked_as_served(client: genai.Client, native: Installation, steering: dict[str, Any]) -> None:
    """A stream passes unchanged and costs what its last event says."""
    config = types.GenerateContentConfig(max_output_tokens=30)
    pieces = list(client.models.generate_content_stream(model=MODEL, contents=steered(**steering), config=config))

    row = booked(native, id_of(pieces[0]), google_cost(usage_of(native, pieces[0])))
    told = pieces[-1].usage_metadata
    assert told is not None
    assert told.total_token_count == row["input_tokens"] + row["output_tokens"]
    assert (row["operation"], row["stream"]) == ("gemini.stream", True)


def weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


def test_functions_are_called(client: genai.Client, native: Installation) -> None:
    """A call of a function comes back as one, in a chat that sends its result after it."""
    config = types.GenerateContentConfig(
        max_output_tokens=40,
        tools=[weather],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    chat = client.chats.create(model=MODEL, config=config)
    first = chat.send_message(steered(tool_calls=1))
    assert first.function_calls
    name = first.function_calls[0].name
    assert name is not None
    result = types.Part.from_function_response(name=name, response={"result": weather("Köln")})
    second = chat.send_message([result, types.Part.from_text(text="And now?")])

    assert second.text
    for answer in (first, second):
        booked(native, id_of(answer), google_cost(usage_of(native, answer)))


def test_pictures_are_sent(client: genai.Client, native: Installation) -> None:
    """A picture in the body is bounded by its size and paid as the provider counts it."""
    picture = types.Part.from_bytes(data=b"\x89PNG\r\n\x1a\n" + bytes(64), mime_type="image/png")
    config = types.GenerateContentConfig(max_output_tokens=9)
    answer = client.models.generate_content(model=MODEL, contents=[picture, steered("What is this?")], config=config)

    row = booked(native, id_of(answer), google_cost(usage_of(native, answer)))
    assert row["input_tokens"] > 258


def test_embeddings_are_booked_as_served(client: genai.Client, native: Installation) -> None:
    """The client sends every embedding as a batch, under the caller's name of the model, and pays the input."""
    answer = client.models.embed_content(model="embedder", contents=["one two three", "four"])

    usage = usage_of(native, answer)
    assert len(answer.embeddings or ()) == 2
    row = booked(native, id_of(answer), price(EMBEDDER, input_tokens=usage["promptTokenCount"]))
    assert (row["operation"], row["output_tokens"]) == ("gemini.batch_embed", 0)


def test_counting_costs_nothing(client: genai.Client, native: Installation) -> None:
    """A count of tokens passes through and is charged nothing."""
    answer = client.models.count_tokens(model=MODEL, contents="one two three")

    assert (answer.total_tokens or 0) > 0
    counted = record_count(native, 1, operation="gemini.count_tokens")
    assert [nanos(row["charge"]) for row in counted] == [0] * len(counted)


def test_the_asynchronous_client_does_the_same(native: Installation, secret: str) -> None:
    """Content, streams and embeddings run at once, each booked as served."""

    async def use() -> list[Any]:
        client = client_of(native, secret).aio
        config = types.GenerateContentConfig(max_output_tokens=20)

        async def streamed() -> Any:
            stream = await client.models.generate_content_stream(model=MODEL, contents=steered(), config=config)
            pieces = [piece async for piece in stream]
            return pieces[0]

        plain = client.models.generate_content(model=MODEL, contents=steered(), config=config)
        answers = await asyncio.gather(plain, streamed(), streamed())
        await client.aclose()
        return list(answers)

    for answer in asyncio.run(use()):
        booked(native, id_of(answer), google_cost(usage_of(native, answer)))


def test_refusals_raise_what_the_client_knows(native: Installation, client: genai.Client) -> None:
    """Unknown keys and models, and a limit that is reached, raise the client's own errors with Google's statuses."""
    poor = new_key(native, "poor google")
    new_limit(native, {"key": poor["id"]}, "usd", "0.000001")
    for asked, model, code in (
        (client_of(native, "fg-wrong"), MODEL, {401}),
        (client, "nobody", {404}),
        (client_of(native, poor["secret"]), MODEL, {402, 429}),
    ):
        with pytest.raises(errors.ClientError) as refused:
            asked.models.generate_content(model=model, contents="hello")
        assert refused.value.code in code
        assert refused.value.status
