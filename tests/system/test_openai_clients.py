"""The stock ``openai`` package works with only its URL and key changed, and every call is booked as it was served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from installation import UPSTREAM_SECRET, Installation
from system.calls import assert_booked_as_served, new_key, new_limit, record_count, truth_of

Clients = Callable[..., Any]
API_VERSION = "2024-10-21"
HELLO: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def secret(running: Installation) -> str:
    """A key without limits."""
    return str(new_key(running, "clients")["secret"])


def _options(running: Installation, secret: str, azure: bool) -> dict[str, Any]:
    if azure:
        return {"azure_endpoint": running.gateway_url, "api_key": secret, "api_version": API_VERSION}
    return {"base_url": f"{running.gateway_url}/v1", "api_key": secret}


@pytest.fixture(params=[False, True], ids=["OpenAI", "AzureOpenAI"])
def client(request: pytest.FixtureRequest, running: Installation, secret: str) -> Iterator[Any]:
    """Both synchronous clients."""
    kind: Clients = openai.AzureOpenAI if request.param else openai.OpenAI
    with kind(**_options(running, secret, request.param)) as made:
        yield made


@asynccontextmanager
async def _async_client(running: Installation, secret: str, azure: bool) -> AsyncIterator[Any]:
    kind: Clients = openai.AsyncAzureOpenAI if azure else openai.AsyncOpenAI
    async with kind(**_options(running, secret, azure)) as made:
        yield made


def _model(client: Any) -> str:
    return "azure-sim" if isinstance(client, openai.AzureOpenAI | openai.AsyncAzureOpenAI) else "sim-1"


def test_chat_is_answered_and_booked_as_served(client: Any, running: Installation) -> None:
    """A chat call answers with the provider's usage, tells its cost in a header, and is booked to the nano-dollar."""
    raw = client.chat.completions.with_raw_response.create(model=_model(client), messages=HELLO, max_tokens=20)
    answer = raw.parse()

    row = assert_booked_as_served(running, raw.headers["x-faregate-request-id"])
    assert answer.choices[0].message.content
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (row["input_tokens"], row["output_tokens"])
    assert raw.headers["x-faregate-cost"] == row["cost"]
    assert answer._request_id == row["id"]
    assert row["operation"] == "chat.completions"


def test_the_provider_sees_its_own_credential_and_not_the_callers(client: Any, running: Installation) -> None:
    """The call reaches the provider under the provider's key only."""
    raw = client.chat.completions.with_raw_response.create(model=_model(client), messages=HELLO)

    truth = truth_of(running, raw.headers["x-faregate-request-id"])
    assert truth["credential"]["last4"] == UPSTREAM_SECRET[-4:]
    assert client.api_key[-4:] not in [value[-4:] for _, value in truth["headers"]]


def test_a_stream_hides_the_usage_that_nobody_asked_for(client: Any, running: Installation) -> None:
    """A stream arrives in many chunks, none with usage, and its tokens are booked all the same."""
    with client.chat.completions.create(model=_model(client), messages=HELLO, max_tokens=20, stream=True) as stream:
        chunks = list(stream)

    row = assert_booked_as_served(running, stream.response.headers["x-faregate-request-id"])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(text.split()) == row["output_tokens"]
    assert [chunk.usage for chunk in chunks if chunk.usage is not None] == []
    assert row["stream"] is True


def test_a_stream_shows_the_usage_to_a_caller_who_asked(client: Any, running: Installation) -> None:
    """With ``include_usage`` the last chunk holds the provider's usage."""
    stream = client.chat.completions.create(
        model=_model(client), messages=HELLO, max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1]

    row = assert_booked_as_served(running, stream.response.headers["x-faregate-request-id"])
    assert last.choices == []
    assert last.usage.completion_tokens == row["output_tokens"]


def test_text_completions_are_booked_as_served(client: Any, running: Installation) -> None:
    """Text completions work, plain and streamed."""
    raw = client.completions.with_raw_response.create(model=_model(client), prompt="Once upon a time", max_tokens=12)
    stream = client.completions.create(model=_model(client), prompt="Once upon", max_tokens=12, stream=True)
    text = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)

    plain = assert_booked_as_served(running, raw.headers["x-faregate-request-id"])
    streamed = assert_booked_as_served(running, stream.response.headers["x-faregate-request-id"])
    assert raw.parse().usage.completion_tokens == plain["output_tokens"]
    assert len(text.split()) == streamed["output_tokens"]


def test_embeddings_are_booked_as_served(client: Any, running: Installation) -> None:
    """Embeddings come back one vector per input, and only their input is charged."""
    raw = client.embeddings.with_raw_response.create(model="sim-embed", input=["one two three", "four"])

    row = assert_booked_as_served(running, raw.headers["x-faregate-request-id"])
    assert len(raw.parse().data) == 2
    assert (row["operation"], row["output_tokens"]) == ("embeddings", 0)


def test_models_are_listed(client: Any) -> None:
    """The list of models names what this key may call."""
    assert {"sim-1", "sim-fast", "sim-slow"} <= {model.id for model in client.models.list()}


@pytest.mark.parametrize("azure", [False, True], ids=["AsyncOpenAI", "AsyncAzureOpenAI"])
def test_the_asynchronous_clients_do_the_same(running: Installation, secret: str, azure: bool) -> None:
    """Chat, streams, completions and embeddings run at once through the asynchronous clients, each booked as served."""

    async def use() -> list[str]:
        async with _async_client(running, secret, azure) as client:
            model = _model(client)

            async def streamed() -> str:
                stream = await client.chat.completions.create(model=model, messages=HELLO, max_tokens=9, stream=True)
                words = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
                assert len("".join(words).split()) == 9
                return str(stream.response.headers["x-faregate-request-id"])

            plain = [
                client.chat.completions.with_raw_response.create(model=model, messages=HELLO, max_tokens=20),
                client.completions.with_raw_response.create(model=model, prompt="Once upon", max_tokens=5),
                client.embeddings.with_raw_response.create(model="sim-embed", input="one two"),
            ]
            *raw, first, second = await asyncio.gather(*plain, streamed(), streamed())
            names = [model.id async for model in client.models.list()]
        assert "sim-1" in names
        return [each.headers["x-faregate-request-id"] for each in raw] + [first, second]

    ids = asyncio.run(use())

    assert len(set(ids)) == 5
    for request_id in ids:
        assert_booked_as_served(running, request_id)


def test_a_refused_call_raises_rate_limit_error_once(running: Installation) -> None:
    """A spent budget is ``RateLimitError`` with the documented code, and the client does not try again in vain."""
    key = new_key(running, "spent")
    new_limit(running, {"key": key["id"]}, "usd", "0.000001")
    client = openai.OpenAI(base_url=f"{running.gateway_url}/v1", api_key=key["secret"])

    with client, pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model="sim-1", messages=HELLO, max_tokens=20)

    rows = record_count(running, 1, key=key["id"])
    assert (refused.value.status_code, refused.value.code) == (429, "budget_exhausted")
    assert [(row["status"], row["code"]) for row in rows] == [("refused", "budget_exhausted")]


@pytest.mark.parametrize("azure", [False, True], ids=["OpenAI", "AzureOpenAI"])
def test_an_unknown_key_raises_authentication_error(running: Installation, azure: bool) -> None:
    """A key that nobody gave out is ``AuthenticationError`` in either client."""
    kind: Clients = openai.AzureOpenAI if azure else openai.OpenAI

    with kind(**_options(running, "sk-fg-nobody", azure)) as client, pytest.raises(openai.AuthenticationError) as error:
        client.chat.completions.create(model="sim-1", messages=HELLO)

    assert error.value.status_code == 401


def test_an_unknown_model_raises_not_found_error(client: Any) -> None:
    """A model that is not served is ``NotFoundError``, as at the provider."""
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="no-such-model", messages=HELLO)

    assert error.value.code == "model_not_found"


def test_a_providers_error_raises_what_the_provider_meant(running: Installation, secret: str) -> None:
    """A provider's 400 reaches the caller with its own message, and nothing is charged."""
    client = openai.OpenAI(base_url=f"{running.gateway_url}/v1", api_key=secret, max_retries=0)
    told = {"error": {"message": "that picture shows a cat", "type": "invalid_request_error", "code": "cat"}}
    line = f"sim: {json.dumps({'status': 400, 'body': told})}"

    with client, pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="sim-1", messages=[{"role": "user", "content": line}])

    row = record_count(running, 1, status="failed")[0]
    assert error.value.body == told["error"]
    assert (row["status"], row["http_status"], row["cost"]) == ("failed", 400, "0")
