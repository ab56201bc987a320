"""Anthropic's and Gemini's own formats pass through the gate: with the stock ``anthropic`` client, and spoken by hand.

Every call is booked to the nano-dollar as the provider's truth has it, by prices of its own for every kind of token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic

from installation import UPSTREAM_SECRET, Installation, nanos
from system.calls import CALL_SECONDS, new_key, new_limit, record, record_count, truth_of
from system.natives import CLAUDE, booked, booked_message, claude_cost, google_cost, price


@pytest.fixture(scope="module")
def secret(native: Installation) -> str:
    """A key without limits."""
    return str(new_key(native, "natives")["secret"])


@pytest.fixture
def client(native: Installation, secret: str) -> Iterator[Anthropic]:
    """The stock client, with only its URL and key changed."""
    with Anthropic(base_url=native.gateway_url, api_key=secret, max_retries=0) as made:
        yield made


def steered(text: str = "hello", **steering: Any) -> Any:
    """A user's message with a steering line."""
    return [{"role": "user", "content": [{"type": "text", "text": f"{text}\nsim: {json.dumps(steering)}"}]}]


STEERINGS: list[dict[str, Any]] = [
    {},
    {"prompt_tokens": 900, "cached_tokens": 300, "cache_write_tokens": 100, "output_tokens": 40, "reasoning_tokens": 9},
    {"tool_calls": 2, "output_tokens": 7},
]


@pytest.mark.parametrize("ttl", ["5m", "1h"])
@pytest.mark.parametrize("steering", STEERINGS)
def test_a_message_is_booked_as_served(client: Anthropic, native: Installation, steering: Any, ttl: Any) -> None:
    """A message's every kind of token is billed at its own price, and the cost stands in a header."""
    raw = client.messages.with_raw_response.create(
        model="claude",
        max_tokens=100,
        messages=steered(**steering),
        cache_control={"type": "ephemeral", "ttl": ttl},
        metadata={"user_id": "customer-7"},
    )
    answer = raw.parse()

    request_id = raw.headers["x-faregate-request-id"]
    row = booked_message(native, request_id)
    assert raw.headers["x-faregate-cost"] == row["cost"]
    assert answer.usage.output_tokens == row["output_tokens"]
    assert (row["operation"], row["model"], row["end_user"]) == ("messages", "sim-1", "customer-7")


@pytest.mark.parametrize("ttl", ["5m", "1h"])
@pytest.mark.parametrize("steering", STEERINGS)
def test_a_streamed_message_is_booked_as_served(
    client: Anthropic, native: Installation, steering: Any, ttl: Any
) -> None:
    """A stream passes unchanged to the client's own helper and costs what the provider's totals say."""
    asked: Any = {"cache_control": {"type": "ephemeral", "ttl": ttl}}
    with client.messages.stream(model="claude", max_tokens=100, messages=steered(**steering), **asked) as stream:
        message = stream.get_final_message()
        request_id = stream.response.headers["x-faregate-request-id"]

    row = booked_message(native, request_id)
    assert (message.usage.output_tokens, row["stream"]) == (row["output_tokens"], True)


TOOL: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}},
}


def test_tools_are_called_and_answered(client: Anthropic, native: Installation) -> None:
    """A call of a tool comes back whole, its result goes out with a picture in it, and both messages are booked."""
    first = client.messages.with_raw_response.create(
        model="claude", max_tokens=50, messages=steered(tool_calls=1), tools=[TOOL], thinking={"type": "disabled"}
    )
    asked = first.parse()
    called = next(block for block in asked.content if block.type == "tool_use")
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    result: Any = {"type": "tool_result", "tool_use_id": called.id, "content": [picture]}
    turns: Any = [
        *steered(),
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in asked.content]},
        {"role": "user", "content": [result, *steered("And now?")[0]["content"]]},
    ]
    second = client.messages.with_raw_response.create(model="claude", max_tokens=50, messages=turns, tools=[TOOL])

    assert asked.stop_reason == "tool_use"
    for raw in (first, second):
        booked_message(native, raw.headers["x-faregate-request-id"])


def test_the_asynchronous_client_does_the_same(native: Installation, secret: str) -> None:
    """Messages, streams, tools and counts run at once, each booked as served."""

    async def use() -> list[str]:
        async with AsyncAnthropic(base_url=native.gateway_url, api_key=secret, max_retries=0) as client:

            async def streamed(**steering: Any) -> str:
                messages = steered(**steering)
                async with client.messages.stream(model="claude", max_tokens=60, messages=messages) as stream:
                    text = "".join([piece async for piece in stream.text_stream])
                    message = await stream.get_final_message()
                    assert "".join(block.text for block in message.content if block.type == "text") == text
                    return str(stream.response.headers["x-faregate-request-id"])

            make = client.messages.with_raw_response.create
            cached = steered(prompt_tokens=800, cached_tokens=500, cache_write_tokens=70)
            counted, plain, called, *streams = await asyncio.gather(
                client.messages.count_tokens(model="claude", messages=steered()),
                make(model="claude", max_tokens=20, messages=cached, cache_control={"type": "ephemeral", "ttl": "1h"}),
                make(model="claude", max_tokens=20, messages=steered(tool_calls=2), tools=[TOOL]),
                streamed(),
                streamed(prompt_tokens=300, cached_tokens=200, cache_write_tokens=90, reasoning_tokens=5),
            )
            assert counted.input_tokens > 0
            return [raw.headers["x-faregate-request-id"] for raw in (plain, called)] + streams

    for request_id in asyncio.run(use()):
        booked_message(native, request_id)


def test_searches_of_a_message_are_billed(client: Anthropic, native: Installation) -> None:
    """A search that the answer reports is billed by its own price; a tool without a bound is refused."""
    tool: Any = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    raw = client.messages.with_raw_response.create(model="claude", max_tokens=9, messages=steered(), tools=[tool])

    request_id = raw.headers["x-faregate-request-id"]
    usage = truth_of(native, request_id)["usage"]
    assert usage["server_tool_use"]["web_search_requests"] == 1
    booked(native, request_id, claude_cost(usage))
    unbounded: Any = [{**tool, "max_uses": None}]
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(model="claude", max_tokens=9, messages=steered(), tools=unbounded)
    assert "max_uses" in str(caught.value)


def test_the_provider_sees_its_own_credential_and_not_the_callers(client: Anthropic, native: Installation) -> None:
    """The call reaches the provider under the provider's key only, and in the version that the caller asked for."""
    raw = client.messages.with_raw_response.create(model="claude", max_tokens=9, messages=steered())

    truth = truth_of(native, raw.headers["x-faregate-request-id"])
    assert (truth["credential"]["header"], truth["credential"]["last4"]) == ("x-api-key", UPSTREAM_SECRET[-4:])
    versions = [value for name, value in truth["headers"] if name == "anthropic-version"]
    assert versions == [client.default_headers["anthropic-version"]]
    assert client.api_key is not None
    assert client.api_key[-4:] not in [value[-4:] for _, value in truth["headers"]]


def test_a_message_that_its_reader_leaves_is_billed_what_came(client: Anthropic, native: Installation) -> None:
    """A client that leaves early pays the input by its kinds and the words that it was given."""
    messages = steered(prompt_tokens=500, cached_tokens=400, output_tokens=4000, delay_ms=20)
    with client.messages.create(model="claude", max_tokens=4096, messages=messages, stream=True) as stream:
        for number, _ in enumerate(stream):
            if number > 10:
                break
        request_id = stream.response.headers["x-faregate-request-id"]

    row = record(native, request_id)
    assert (row["status"], row["input_tokens"]) == ("aborted", 500)
    assert 1 <= row["output_tokens"] < 4000
    assert nanos(row["cost"]) == price(
        CLAUDE, input_tokens=100, cached_input_tokens=400, output_tokens=row["output_tokens"]
    )


def test_refusals_have_the_shape_that_the_client_knows(native: Installation, secret: str) -> None:
    """Errors of the gate raise the client's own exceptions, in Anthropic's shape; the provider's pass unchanged."""
    with (
        Anthropic(base_url=native.gateway_url, api_key="fg-wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError) as refused,
    ):
        stranger.messages.create(model="claude", max_tokens=9, messages=steered())
    body: Any = refused.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")
    with Anthropic(base_url=native.gateway_url, api_key=secret, max_retries=0) as client:
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(model="nobody", max_tokens=9, messages=steered())
        with pytest.raises(anthropic.APIStatusError) as overloaded:
            client.messages.create(model="claude", max_tokens=9, messages=steered(status=529))
    error: Any = overloaded.value.body
    assert (overloaded.value.status_code, error["error"]["message"]) == (529, "The simulator was asked for this error.")


def test_counting_costs_nothing(client: Anthropic, native: Installation) -> None:
    """A count of tokens passes through and is charged nothing."""
    raw = client.messages.with_raw_response.count_tokens(model="claude", messages=steered())

    assert raw.parse().input_tokens > 0
    assert nanos(raw.headers.get("x-faregate-cost", "0")) == 0
    counted = record_count(native, 1, operation="messages.count_tokens")
    assert [nanos(row["charge"]) for row in counted] == [0] * len(counted)


def test_a_hard_limit_is_hard_for_messages(native: Installation) -> None:
    """With little money left a message is refused before it is sent, in Anthropic's shape."""
    key = new_key(native, "poor")
    new_limit(native, {"key": key["id"]}, "usd", "0.000001")
    with (
        Anthropic(base_url=native.gateway_url, api_key=key["secret"], max_retries=0) as client,
        pytest.raises(anthropic.APIStatusError) as refused,
    ):
        client.messages.create(model="claude", max_tokens=100, messages=steered())
    body: Any = refused.value.body
    assert refused.value.status_code in (402, 429)
    assert body["type"] == "error"


# -- Gemini -----------------------------------------------------------------------------------------------------------


def generate(
    native: Installation,
    secret: str,
    body: Mapping[str, Any],
    *,
    verb: str = "generateContent",
    model: str = "",
    headers: Mapping[str, str] | None = None,
) -> httpx2.Response:
    """One call to a model of Gemini's, as its clients make it."""
    url = f"{native.gateway_url}/v1beta/models/{model or 'gemini-2.5-flash'}:{verb}"
    with httpx2.Client(trust_env=False, timeout=CALL_SECONDS) as http:
        return http.post(url, json=body, headers={"x-goog-api-key": secret} if headers is None else dict(headers))


def contents(**steering: Any) -> dict[str, Any]:
    """A body with a steering line."""
    return {"contents": [{"role": "user", "parts": [{"text": f"hello\nsim: {json.dumps(steering)}"}]}]}


GEMINI_STEERINGS: list[dict[str, Any]] = [
    {},
    {"prompt_tokens": 90, "prompt_audio_tokens": 40, "output_tokens": 20, "reasoning_tokens": 5, "audio_tokens": 3},
    {"prompt_tokens": 90, "cached_tokens": 50},
]


@pytest.mark.parametrize("verb", ["generateContent", "streamGenerateContent?alt=sse"])
@pytest.mark.parametrize("steering", GEMINI_STEERINGS)
def test_gemini_content_is_booked_as_served(native: Installation, secret: str, verb: str, steering: Any) -> None:
    """Content, whole and streamed, is billed by its kinds of tokens."""
    got = generate(native, secret, {**contents(**steering), "generationConfig": {"candidateCount": 2}}, verb=verb)
    assert got.status_code == 200, got.text

    request_id = got.headers["x-faregate-request-id"]
    truth = truth_of(native, request_id)
    row = booked(native, request_id, google_cost(truth["usage"]))
    assert row["operation"] == ("gemini.stream" if "stream" in verb else "gemini.generate")
    assert (truth["credential"]["header"], truth["credential"]["last4"]) == ("x-goog-api-key", UPSTREAM_SECRET[-4:])
    assert truth["path"] == f"/v1beta/models/sim-1:{verb.partition('?')[0]}"


def test_gemini_streams_server_sent_events_only(native: Installation, secret: str) -> None:
    """Without ``alt=sse`` the provider would stream one long JSON array: it is refused, with the remedy."""
    got = generate(native, secret, contents(), verb="streamGenerateContent")
    assert got.status_code == 400
    assert "alt=sse" in got.text


def test_a_gemini_search_is_billed_once(native: Installation, secret: str) -> None:
    """However many queries a prompt of this family makes, it is one search."""
    got = generate(native, secret, {**contents(), "tools": [{"googleSearch": {}}]})
    assert got.status_code == 200, got.text
    request_id = got.headers["x-faregate-request-id"]
    usage = truth_of(native, request_id)["usage"]
    # The simulator answers as the model sim-1, whose queries count each.
    booked(native, request_id, google_cost(usage, searches=2))


def test_gemini_embeddings_and_counts(native: Installation, secret: str) -> None:
    """An embedding costs its input; a count costs nothing."""
    content = contents()["contents"][0]
    got = generate(native, secret, {"content": content}, verb="embedContent", model="embedder")
    assert got.status_code == 200, got.text
    usage = truth_of(native, got.headers["x-faregate-request-id"])["usage"]
    booked(native, got.headers["x-faregate-request-id"], usage["promptTokenCount"] * 150)
    counted = generate(native, secret, contents(), verb="countTokens")
    assert counted.json()["totalTokens"] > 0
    assert nanos(counted.headers.get("x-faregate-cost", "0")) == 0


def test_gemini_without_a_cap_gets_one_where_money_is_short(native: Installation) -> None:
    """Where the model's whole answer does not fit, a cap is injected inside ``generationConfig``."""
    key = new_key(native, "short")
    new_limit(native, {"key": key["id"]}, "usd", "0.005")
    got = generate(native, key["secret"], {**contents(output_tokens=4000), "generationConfig": {"topK": 1}})
    assert got.status_code == 200, got.text
    assert got.json()["candidates"][0]["finishReason"] == "MAX_TOKENS"


@pytest.mark.parametrize(
    ("body", "verb", "header", "status", "name"),
    [
        (contents(), "generateContent", "fg-wrong", 401, "UNAUTHENTICATED"),
        ({"contents": 5}, "generateContent", "", 400, "INVALID_ARGUMENT"),
        ({**contents(), "cachedContent": "cachedContents/1"}, "generateContent", "", 400, "INVALID_ARGUMENT"),
        (contents(status=503), "generateContent", "", 503, "UNAVAILABLE"),
    ],
)
def test_gemini_refusals_have_the_shape_that_clients_know(
    native: Installation, secret: str, body: Any, verb: str, header: str, status: int, name: str
) -> None:
    """Errors of the gate are Google's; the provider's pass unchanged."""
    got = generate(native, secret, body, verb=verb, headers={"x-goog-api-key": header or secret})
    assert got.status_code == status
    error = got.json()["error"]
    assert (error["code"], error["status"]) == (status, name)
