"""OpenAI's Responses at the simulator, through the stock client and by hand."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from simulated import KEY, Provider

PATH = "/v1/responses"


@pytest.fixture
def client(provider: Provider) -> Iterator[OpenAI]:
    """The synchronous client, without retries."""
    with OpenAI(base_url=provider.url + "/v1", api_key=KEY, max_retries=0) as made:
        yield made


def line(**steering: Any) -> str:
    return "sim: " + json.dumps(steering)


def test_an_answer_has_text_and_usage(client: OpenAI) -> None:
    """A plain response has the simulator's words and adds up."""
    answer = client.responses.create(model="sim-1", input="one two three", instructions="Be brief.")

    assert answer.output_text == "the of and to in is that it was for on are as with they at"
    assert answer.status == "completed"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (12, 16, 28)


def test_every_kind_of_token_is_steered(client: OpenAI) -> None:
    """Cached and reasoning tokens, calls of tools and the tier are told as they were steered."""
    answer = client.responses.create(
        model="sim-1",
        input=line(
            prompt_tokens=100,
            output_tokens=20,
            cached_tokens=40,
            cache_write_tokens=10,
            reasoning_tokens=5,
            hosted_calls={"web_search": 2, "code_interpreter": 1},
            service_tier="flex",
        ),
        tools=[{"type": "web_search"}],
    )

    assert answer.usage is not None
    assert answer.usage.input_tokens_details.cached_tokens == 40
    assert answer.usage.output_tokens_details.reasoning_tokens == 5
    assert [item.type for item in answer.output] == [
        "reasoning",
        "web_search_call",
        "web_search_call",
        "code_interpreter_call",
        "message",
    ]
    assert answer.service_tier == "flex"


def test_tool_calls_are_capped(client: OpenAI) -> None:
    """No more calls of hosted tools are made than the caller allows."""
    answer = client.responses.create(
        model="sim-1", input=line(hosted_calls={"web_search": 5}), tools=[{"type": "web_search"}], max_tool_calls=2
    )

    assert [item.type for item in answer.output].count("web_search_call") == 2


def test_a_stream_ends_with_the_response(client: OpenAI) -> None:
    """Deltas join to the text, and the last event holds the whole response with its usage."""
    events = list(client.responses.create(model="sim-1", input=line(chunk_tokens=5, reasoning_tokens=3), stream=True))

    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == text
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 16


def test_function_calls_stream(client: OpenAI) -> None:
    """The arguments of function calls come in parts and are JSON when they are put together."""
    with client.responses.stream(model="sim-1", input=line(tool_calls=1)) as stream:
        parts = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()

    assert json.loads("".join(parts)) == {"text": "the of and to in is that it was for on are as with they at"}
    assert final.output[0].type == "function_call"


def test_a_cap_makes_it_incomplete(client: OpenAI) -> None:
    """An answer that met its cap says so, in a stream by another last event."""
    whole = client.responses.create(model="sim-large", input="x", max_output_tokens=20)
    events = list(client.responses.create(model="sim-large", input="x", max_output_tokens=20, stream=True))

    assert whole.status == "incomplete"
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert events[-1].type == "response.incomplete"


def test_a_background_response_is_done_later(client: OpenAI) -> None:
    """It is queued, in progress for as many looks as steered, and then done with its usage."""
    answer = client.responses.create(model="sim-1", input=line(looks=1), background=True)
    first = client.responses.retrieve(answer.id)
    second = client.responses.retrieve(answer.id)

    assert (answer.status, first.status, second.status) == ("queued", "in_progress", "completed")
    assert answer.usage is None
    assert first.usage is None
    assert second.usage is not None
    assert second.usage.output_tokens == 16


def test_a_background_stream_that_is_left_is_worked_to_its_end(provider: Provider, client: OpenAI) -> None:
    """The truth of it is what the stored response tells, not what was delivered."""
    asked = {"model": "sim-1", "input": line(output_tokens=30, fault="reset_mid_stream"), "stream": True}

    heard = provider.ask({**asked, "background": True}, path=PATH, request_id="left")
    id = heard.body.partition(b'"id":"')[2].partition(b'"')[0].decode()

    told = client.responses.retrieve(id).usage
    assert told is not None
    assert provider.record("left")["usage"]["output_tokens"] == told.output_tokens == 30


def test_a_background_response_can_be_cancelled(client: OpenAI) -> None:
    """What is not done yet ends as cancelled, and tells what was used until then."""
    answer = client.responses.create(model="sim-1", input=line(looks=9), background=True)

    cancelled = client.responses.cancel(answer.id)

    assert cancelled.status == "cancelled"
    assert cancelled.usage is not None
    assert client.responses.retrieve(answer.id).status == "cancelled"


def test_what_was_made_is_kept_until_it_is_deleted(client: OpenAI) -> None:
    """A response can be continued, its input listed, and is gone once it is deleted."""
    answer = client.responses.create(model="sim-1", input="one two three")
    further = client.responses.create(model="sim-1", input="four", previous_response_id=answer.id)
    items = client.responses.input_items.list(answer.id)
    client.responses.delete(answer.id)

    assert further.usage is not None
    assert answer.usage is not None
    assert further.usage.input_tokens == answer.usage.total_tokens + 8
    assert [item.type for item in items.data] == ["message"]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="sim-1", input="five", previous_response_id=answer.id)


def test_azure_has_it_below_its_account(provider: Provider) -> None:
    """Azure's newer paths take the same bodies and Azure's credential."""
    with OpenAI(
        base_url=provider.url + "/openai/v1", api_key=KEY, default_headers={"api-key": KEY}, max_retries=0
    ) as client:
        answer = client.responses.create(model="my-gpt", input="x")

    assert answer.model == "my-gpt"


def test_looks_leave_no_record(provider: Provider) -> None:
    """The truth log holds the response once, with its calls of tools, and none of the looks at it."""
    body = {"model": "sim-1", "input": line(hosted_calls={"web_search": 2}), "tools": [{"type": "web_search"}]}
    made = provider.ask(body, path=PATH, request_id="resp-truth")
    id = json.loads(made.body)["id"]
    provider.talk(
        f"GET {PATH}/{id} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n"
        f"x-client-request-id: resp-truth\r\nconnection: close\r\n\r\n".encode()
    )

    record = provider.record("resp-truth")

    assert record["path"] == PATH
    assert record["usage"]["hosted_calls"] == {"web_search": 2}
    assert record["delivered_tokens"] == 16


@pytest.mark.parametrize(
    ("fault", "events"),
    [("no_done", "response.output_item.done"), ("error_event", "error")],
)
def test_faults_of_streams(provider: Provider, fault: str, events: str) -> None:
    """A stream may lack its last event, or end in an error."""
    heard = provider.ask({"model": "sim-1", "input": line(fault=fault), "stream": True}, path=PATH)

    assert [part.split("\r\n")[0] for part in heard.body.decode().split("event: ")][-1].split("\n")[0] == events


@pytest.mark.parametrize(
    "body",
    [
        {"input": "x"},
        {"model": "sim-1"},
        {"model": "sim-1", "input": "x", "max_tokens": 5},
        {"model": "sim-1", "input": "x", "max_output_tokens": 0},
        {"model": "sim-1", "input": "x", "background": True, "store": False},
        {"model": "sim-1", "input": [1]},
    ],
)
def test_refused_as_the_provider_refuses(provider: Provider, body: dict[str, Any]) -> None:
    """What OpenAI answers with 400 is answered so here."""
    assert provider.ask(body, path=PATH).status == 400
