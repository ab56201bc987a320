"""The stock OpenAI clients work against the simulator as they do against the provider."""

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI

from simulated import KEY, Provider

USER: Any = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def client(provider: Provider) -> Any:
    """The synchronous client, without retries."""
    with OpenAI(base_url=provider.url + "/v1", api_key=KEY, max_retries=0) as made:
        yield made


def test_chat(client: OpenAI) -> None:
    """A plain chat has text, a reason and usage."""
    answer = client.chat.completions.create(model="sim-1", messages=USER)

    assert answer.choices[0].message.content == "the of and to in is that it was for on are as with they at"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (10, 16, 26)
    assert answer.choices[0].finish_reason == "stop"


def test_cap_is_kept(client: OpenAI) -> None:
    """An answer never exceeds the cap and says when it met it."""
    answer = client.chat.completions.create(model="sim-large", messages=USER, max_completion_tokens=5)

    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (5, "length")


def test_stream(client: OpenAI) -> None:
    """A stream joins to the plain answer and ends with usage when asked for."""
    stream = client.chat.completions.create(
        model="sim-fast", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(text.split()) == 32
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 32


def test_async_client(provider: Provider) -> None:
    """The asynchronous client gets plain answers and streams."""

    async def both() -> tuple[str | None, int]:
        async with AsyncOpenAI(base_url=provider.url + "/v1", api_key=KEY, max_retries=0) as client:
            answer = await client.chat.completions.create(model="sim-1", messages=USER)
            stream = await client.chat.completions.create(model="sim-1", messages=USER, stream=True, n=2)
            return answer.choices[0].message.content, len([chunk async for chunk in stream])

    text, chunks = asyncio.run(both())

    assert text is not None
    assert chunks == 2 * (1 + 16 + 1)


def test_azure_client(provider: Provider) -> None:
    """Azure's client gets Azure's shapes under Azure's paths."""
    with AzureOpenAI(
        azure_endpoint=provider.url, api_key=KEY, api_version="2024-10-21", azure_deployment="my-gpt", max_retries=0
    ) as client:
        answer = client.chat.completions.create(model="sim-1", messages=USER)
        stream = client.chat.completions.create(model="sim-1", messages=USER, stream=True)
        chunks = list(stream)
        vectors = client.embeddings.create(model="sim-embed", input="one two")

    assert answer.model_extra is not None
    assert "prompt_filter_results" in answer.model_extra
    assert chunks[0].choices == []
    assert len(chunks) == 1 + 1 + 16 + 1
    assert vectors.usage.prompt_tokens == 2


def test_completions(client: OpenAI) -> None:
    """Text completions are answered plainly and as a stream, capped at sixteen tokens unless told."""
    answer = client.completions.create(model="sim-large", prompt=["one", "two"], n=2)
    stream = client.completions.create(model="sim-large", prompt="one", max_tokens=40, stream=True)

    assert answer.usage is not None
    assert (len(answer.choices), answer.usage.completion_tokens) == (4, 64)
    assert len("".join(chunk.choices[0].text for chunk in stream).split()) == 40


def test_embeddings_are_the_same_in_both_encodings(client: OpenAI) -> None:
    """The client asks for base64 by itself; floats say the same, and follow from the text alone."""
    packed = client.embeddings.create(model="sim-embed", input=["a", "b"], dimensions=8)
    plain = client.embeddings.create(model="sim-embed", input=["b", "a"], dimensions=8, encoding_format="float")

    assert [one.embedding for one in packed.data] == [one.embedding for one in reversed(plain.data)]
    assert packed.data[0].embedding != packed.data[1].embedding
    assert len(client.embeddings.create(model="sim-embed", input="a").data[0].embedding) == 1536
    assert (packed.usage.prompt_tokens, packed.usage.total_tokens) == (2, 2)


def test_tools(client: OpenAI) -> None:
    """Steered tool calls arrive as tool calls."""
    messages: Any = [{"role": "user", "content": 'sim: {"tool_calls": 2, "output_tokens": 4}'}]
    answer = client.chat.completions.create(model="sim-1", messages=messages)

    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert [json.loads(call.function.arguments) for call in calls if call.type == "function"] == [
        {"text": "the of and to"},
        {"text": "the of and to"},
    ]


def test_models(client: OpenAI) -> None:
    """Models can be listed and looked at; one is missing on purpose."""
    assert {"sim-1", "sim-fast", "sim-slow", "sim-large"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("sim-1").id == "sim-1"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("sim-missing")
    with pytest.raises(openai.NotFoundError) as refusal:
        client.chat.completions.create(model="sim-missing", messages=USER)
    assert refusal.value.code == "model_not_found"


def test_steered_errors(client: OpenAI) -> None:
    """A steered status is raised as the client's error of that status, with the steered headers."""
    steering = {"status": 429, "headers": {"retry-after": "7"}}
    messages: Any = [{"role": "user", "content": f"sim: {json.dumps(steering)}"}]
    with pytest.raises(openai.RateLimitError) as refusal:
        client.chat.completions.create(model="sim-1", messages=messages, stream=True)

    assert refusal.value.response.headers["retry-after"] == "7"
    assert refusal.value.type == "rate_limit_error"


def test_bad_bodies(client: OpenAI) -> None:
    """A body the provider would refuse is refused in its shape."""
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model="sim-1", messages=USER, extra_body={"no_such_field": 1})

    assert refusal.value.param == "no_such_field"
    assert "Unrecognized request argument" in refusal.value.message
