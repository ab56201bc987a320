"""The simulator speaks Anthropic's and Gemini's formats, to the stock ``anthropic`` client and to raw calls.

The stock ``google-genai`` client talks to it through the gate, in ``tests/system``.
"""

import asyncio
import json
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message

from faregate.simulator.speakers import SPEAKERS
from simulated import KEY, Heard, Provider, hear, unchunk

USER: Any = [{"role": "user", "content": "one two three"}]
GENERATE = "/v1beta/models/gemini-2.5-flash:generateContent"
STREAM = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"


@pytest.fixture
def client(provider: Provider) -> Any:
    """The synchronous client, without retries."""
    with Anthropic(base_url=provider.url, api_key=KEY, max_retries=0) as made:
        yield made


def steered(**steering: Any) -> Any:
    """A user's message with a steering line."""
    return [{"role": "user", "content": [{"type": "text", "text": f"hello\nsim: {json.dumps(steering)}"}]}]


def test_message(client: Anthropic) -> None:
    """A plain message has text, a reason and usage."""
    answer = client.messages.create(model="claude-x", max_tokens=64, messages=USER)

    assert answer.content[0].type == "text"
    assert answer.content[0].text.startswith("the of and")
    assert (answer.stop_reason, answer.usage.output_tokens, answer.usage.input_tokens) == ("end_turn", 16, 11)


def test_cap_and_cache(client: Anthropic) -> None:
    """The cap is kept, and the cache's shares of the input are told apart from the rest."""
    messages = steered(output_tokens=9, prompt_tokens=100, cached_tokens=30, cache_write_tokens=20, reasoning_tokens=2)
    answer = client.messages.create(
        model="claude-x", max_tokens=5, messages=messages, cache_control={"type": "ephemeral", "ttl": "1h"}
    )

    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (50, 30, 20)
    assert usage.cache_creation is not None
    assert usage.cache_creation.ephemeral_1h_input_tokens == 20
    assert (answer.stop_reason, usage.output_tokens) == ("max_tokens", 5)
    assert usage.output_tokens_details is not None
    assert usage.output_tokens_details.thinking_tokens == 2


def test_stream(client: Anthropic) -> None:
    """The client's helper puts a stream together to the message that comes without one."""
    whole = client.messages.create(model="claude-x", max_tokens=64, messages=USER)
    with client.messages.stream(model="claude-x", max_tokens=64, messages=USER) as stream:
        text = "".join(stream.text_stream)
        put_together = stream.get_final_message()

    assert whole.content[0].type == "text"
    assert text == whole.content[0].text
    assert put_together.usage.output_tokens == 16
    assert put_together.stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client: Anthropic, stream: bool) -> None:
    """Calls of tools come whole, or piece by piece as JSON."""
    asked: Any = {"model": "claude-x", "max_tokens": 64, "messages": steered(tool_calls=2, output_tokens=4)}
    if stream:
        with client.messages.stream(**asked) as running:
            answer: Message = running.get_final_message()
    else:
        answer = client.messages.create(**asked)

    calls = [block for block in answer.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"text": "the of and to"}] * 2
    assert answer.stop_reason == "tool_use"


def test_async_client_and_count(provider: Provider) -> None:
    """The asynchronous client gets messages, streams and counts; a count leaves no record."""

    async def all_three() -> tuple[int, list[Any], int]:
        async with AsyncAnthropic(base_url=provider.url, auth_token=KEY, api_key=None, max_retries=0) as client:
            answer = await client.messages.create(model="claude-x", max_tokens=9, messages=USER)
            stream = await client.messages.create(model="claude-x", max_tokens=9, messages=USER, stream=True)
            kinds = [event.type async for event in stream]
            before = provider.simulator.truth.last_seq
            count = await client.messages.count_tokens(model="claude-x", messages=USER)
            assert provider.simulator.truth.last_seq == before
            return answer.usage.output_tokens, kinds, count.input_tokens

    output, kinds, count = asyncio.run(all_three())
    assert (output, count) == (9, 11)
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"model": "sim-missing"}, anthropic.NotFoundError),
        ({"max_tokens": -1}, anthropic.BadRequestError),
        ({"messages": steered(status=529)}, anthropic.APIStatusError),
        ({"messages": steered(status=429)}, anthropic.RateLimitError),
    ],
)
def test_errors(client: Anthropic, asked: dict[str, Any], error: type[Exception]) -> None:
    """Refusals have Anthropic's shape, so that the client raises its own errors."""
    with pytest.raises(error) as caught:
        client.messages.create(**{"model": "claude-x", "max_tokens": 9, "messages": USER, **asked})

    body = getattr(caught.value, "body", None)
    assert isinstance(body, dict)
    assert body["type"] == "error"


def test_a_stream_breaks_with_an_error(client: Anthropic) -> None:
    """An error in the middle of a stream is an event that the client raises."""
    with pytest.raises(anthropic.APIStatusError):
        list(client.messages.create(model="claude-x", max_tokens=9, messages=steered(fault="error_event"), stream=True))


def ask(provider: Provider, path: str, body: object, header: str = "x-goog-api-key", request_id: str = "") -> Heard:
    """Post with a format's own credential."""
    return provider.talk(ask_bytes(path, body, header, request_id))


def ask_bytes(path: str, body: object, header: str, request_id: str) -> bytes:
    """The bytes of such a request."""
    data = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "host: s",
        "connection: close",
        f"content-length: {len(data)}",
        f"{header}: {KEY}",
    ]
    if request_id:
        lines.append(f"x-client-request-id: {request_id}")
    return "\r\n".join([*lines, "", ""]).encode() + data


def contents(text: str = "one two three") -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}


def test_gemini_content(provider: Provider) -> None:
    """Content has candidates, a reason and usage; the truth is in the same shape."""
    body = {**contents(), "generationConfig": {"maxOutputTokens": 5, "candidateCount": 2}}
    answer = json.loads(ask(provider, GENERATE, body, request_id="gemini-1").body)

    assert [each["finishReason"] for each in answer["candidates"]] == ["MAX_TOKENS", "MAX_TOKENS"]
    assert answer["candidates"][0]["content"]["parts"] == [{"text": "the of and to in"}]
    assert (answer["usageMetadata"]["candidatesTokenCount"], answer["usageMetadata"]["totalTokenCount"]) == (10, 17)
    record = provider.record("gemini-1")
    assert record["usage"] == answer["usageMetadata"]
    assert (record["model"], record["delivered_tokens"]) == ("gemini-2.5-flash", 10)
    assert record["credential"]["header"] == "x-goog-api-key"


def test_gemini_stream(provider: Provider) -> None:
    """Every event is an answer with the usage so far; the last one tells why it ended."""
    text = f"hi\nsim: {json.dumps({'output_tokens': 6, 'reasoning_tokens': 2, 'audio_tokens': 1, 'chunk_tokens': 2})}"
    heard = ask(provider, STREAM, contents(text), request_id="gemini-2")
    events = [json.loads(event[6:]) for event in unchunk(heard.body).split(b"\n\n") if event]

    assert b"content-type: text/event-stream" in heard.head
    told = [event["usageMetadata"]["totalTokenCount"] for event in events]
    assert told == sorted(told)
    last = events[-1]
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert (last["usageMetadata"]["thoughtsTokenCount"], last["usageMetadata"]["candidatesTokenCount"]) == (2, 4)
    assert provider.record("gemini-2")["usage"] == last["usageMetadata"]


def test_gemini_embeddings_and_counts(provider: Provider) -> None:
    """An embedding has numbers and tells its input; a count is a number and leaves no record."""
    path = "/v1beta/models/gemini-embedding-001:"
    body = {"content": contents()["contents"][0], "outputDimensionality": 8}
    embedded = json.loads(ask(provider, path + "embedContent", body).body)
    assert (len(embedded["embedding"]["values"]), embedded["usageMetadata"]["promptTokenCount"]) == (8, 3)
    one = {"model": "models/gemini-embedding-001", **body}
    batch = json.loads(ask(provider, path + "batchEmbedContents", {"requests": [one, one]}).body)
    assert batch["embeddings"] == [embedded["embedding"]] * 2
    assert batch["usageMetadata"]["promptTokenCount"] == 6
    assert ask(provider, path + "batchEmbedContents", {"requests": [body]}).status == 400
    before = provider.simulator.truth.last_seq
    assert json.loads(ask(provider, path + "countTokens", contents()).body) == {"totalTokens": 7}
    assert provider.simulator.truth.last_seq == before


@pytest.mark.parametrize(
    ("path", "body", "header", "status", "name"),
    [
        (GENERATE, contents(), "authorization", 401, "UNAUTHENTICATED"),
        (GENERATE, {"contents": []}, "x-goog-api-key", 400, "INVALID_ARGUMENT"),
        (STREAM.partition("?")[0], contents(), "x-goog-api-key", 400, "INVALID_ARGUMENT"),
        ("/v1beta/models/sim-missing:generateContent", contents(), "x-goog-api-key", 404, "NOT_FOUND"),
        (GENERATE, contents('sim: {"status":503}'), "x-goog-api-key", 503, "UNAVAILABLE"),
    ],
)
def test_gemini_errors(provider: Provider, path: str, body: object, header: str, status: int, name: str) -> None:
    """Refusals have Google's shape."""
    heard = ask(provider, path, body, header)
    assert heard.status == status
    error = json.loads(heard.body)["error"]
    assert (error["code"], error["status"]) == (status, name)


FAULTS = ["usage_negative", "usage_float", "usage_nan", "usage_text", "usage_huge", "usage_missing", "usage_twice"]
FAULTS += ["usage_bad_total", "usage_early", "no_done", "cut_utf8", "not_json", "error_event", "over_cap"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["message", "message stream", "generate", "generate stream"])
def test_faults_work_for_every_format(provider: Provider, kind: str, fault: str) -> None:
    """Each fault that needs no patience is answered in every format, and leaves exactly one record."""
    line = f"hi\nsim: {json.dumps({'fault': fault, 'output_tokens': 6})}"
    id = f"{kind}-{fault}".replace(" ", "-")
    if kind.startswith("message"):
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": line}]}
        heard = ask(provider, "/v1/messages", {**body, "stream": "stream" in kind}, "x-api-key", id)
    else:
        heard = ask(provider, STREAM if "stream" in kind else GENERATE, contents(line), "x-goog-api-key", id)

    assert heard.status in (200, 500)
    assert heard.end in ("closed", "reset")
    assert provider.record(id)["fault"] == fault


def test_a_speaker_has_its_methods(provider: Provider) -> None:
    """Another method than those of a path is 405 in the format's own shape, and the hint names the right one."""
    heard = provider.talk(b"GET /v1/messages HTTP/1.1\r\nhost: s\r\nconnection: close\r\n\r\n")
    error = json.loads(heard.body)
    assert heard.status == 405
    assert (error["type"], "use POST" in error["error"]["message"]) == ("error", True)


def test_speakers_are_found_by_one_path_each() -> None:
    """No two speakers answer the same method of a path, and each has a kind of its own."""
    kinds = [speaker.kind for speaker in SPEAKERS]
    assert len(set(kinds)) == len(kinds)
    assert len({(speaker.method, speaker.path.pattern) for speaker in SPEAKERS}) == len(kinds)


def test_holds_and_delays_work_for_every_format(provider: Provider) -> None:
    """A held answer waits for its release, whichever format it has."""
    body = {"model": "m", "max_tokens": 2, "messages": steered(hold=True, first_delay_ms=1)}
    request = ask_bytes("/v1/messages", body, "x-api-key", "held-1")
    with provider.connect() as connection:
        connection.sendall(request)
        provider.until(held=1)
        assert provider.door("POST", "release")[1] == {"released": 1}
        heard = hear(connection, 10)
    assert heard.status == 200
    assert provider.record("held-1")["complete"] is True
