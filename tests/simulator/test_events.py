"""A stream and a plain answer say the same, in the order and shape of the provider."""

import json
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.simulator import asks, events, plan, shapes, steering
from faregate.simulator.events import Kind


def planned(steered: dict[str, Any], *, kind: str = "chat", azure: bool = False, **fields: Any) -> plan.Plan:
    """The plan of a request."""
    key = {"chat": "messages", "completion": "prompt"}[kind]
    text = "one two three"
    body = {"model": "sim-1", key: [{"role": "user", "content": text}] if kind == "chat" else text, **fields}
    ask = asks.read(kind, json.dumps(body).encode(), "")
    return plan.make(ask, steering.steer(ask.model, ask.text, steered), "req_1", azure)


def decoded(made: plan.Plan) -> list[Any]:
    """The events of a stream, as JSON; [DONE] and comments are left out."""
    lines = [event.data.decode() for event in events.events(made)]
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


contents = st.text(st.characters(codec="utf-8"), max_size=40)


@given(
    content=st.none() | contents,
    tokens=st.none() | st.integers(0, 60),
    cap=st.none() | st.integers(1, 60),
    chunk=st.integers(1, 20),
    choices=st.integers(1, 3),
    reasoning=st.integers(0, 5),
    rejected=st.integers(0, 5),
    kind=st.sampled_from(["chat", "completion"]),
)
def test_stream_says_what_a_plain_answer_says(
    content: str | None,
    tokens: int | None,
    cap: int | None,
    chunk: int,
    choices: int,
    reasoning: int,
    rejected: int,
    kind: str,
) -> None:
    """Text, reasons and usage are the same for every steering, and a caller gets all the tokens it is billed for."""
    said = {"content": content, "output_tokens": tokens, "chunk_tokens": chunk}
    parts = {"reasoning_tokens": reasoning, "rejected_prediction_tokens": rejected}
    steered = {name: value for name, value in {**said, **parts}.items() if value is not None}
    fields: dict[str, Any] = {"n": choices} if cap is None else {"n": choices, "max_tokens": cap}
    whole = json.loads(shapes.answer(planned(steered, kind=kind, **fields)))
    streaming = planned(steered, kind=kind, stream=True, stream_options={"include_usage": True}, **fields)

    texts, reasons = [""] * choices, [""] * choices
    *parts_of_text, last = decoded(streaming)
    for event in parts_of_text:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "") if kind == "chat" else choice["text"]
            reasons[choice["index"]] += choice["finish_reason"] or ""

    assert last["usage"] == whole["usage"]
    assert [one["finish_reason"] for one in whole["choices"]] == reasons
    assert [one["message"]["content"] if kind == "chat" else one["text"] for one in whole["choices"]] == texts
    assert sum(event.tokens for event in events.events(streaming)) == last["usage"]["completion_tokens"]
    if cap is not None:
        assert last["usage"]["completion_tokens"] <= (cap + rejected) * choices


def test_usage_is_null_until_it_is_told() -> None:
    """With usage asked for, every event has the field, and only the last one a figure and no choice."""
    *before, last = decoded(planned({}, stream=True, stream_options={"include_usage": True}))

    assert all(event["usage"] is None and event["choices"] for event in before)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 16)


def test_usage_is_no_field_when_not_asked_for() -> None:
    """Without asking there is neither field nor event, unless it is steered."""
    assert not any("usage" in event for event in decoded(planned({}, stream=True)))
    assert decoded(planned({"usage": True}, stream=True))[-1]["usage"]["completion_tokens"] == 16


def test_role_comes_first() -> None:
    """The first event of each choice gives the role and no text; steered, it is left out."""
    first, second, third, *_ = decoded(planned({}, stream=True, n=2))

    assert [first["choices"][0]["index"], second["choices"][0]["index"]] == [0, 1]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert third["choices"][0]["delta"] == {"content": "the"}
    assert decoded(planned({"role_event": False}, stream=True))[0]["choices"][0]["delta"] == {"content": "the"}


def test_azure_begins_with_its_filter() -> None:
    """Azure's streams begin with an event without choices, and each choice tells the filter's verdict."""
    first, second, *_ = decoded(planned({}, stream=True, azure=True))

    assert (first["choices"], first["id"], "prompt_filter_results" in first) == ([], "", True)
    assert "content_filter_results" in second["choices"][0]
    assert "role" in decoded(planned({"filter_event": False}, stream=True, azure=True))[0]["choices"][0]["delta"]
    assert decoded(planned({"filter_event": True}, stream=True))[0]["choices"] == []


def test_empty_deltas_and_pings() -> None:
    """Events without text and comments stand between the others and hold no tokens."""
    made = planned({"empty_deltas": 2, "pings": 3, "output_tokens": 5}, stream=True)

    lines = [event for event in events.events(made) if event.kind is Kind.PING]
    assert [event.data == events.PING for event in lines] == [True, False, True, False, True]
    assert sum(event.tokens for event in events.events(made)) == 5


def test_tool_calls_join_to_json() -> None:
    """The arguments of streamed tool calls join to the JSON of the plain answer."""
    steered = {"tool_calls": 2, "content": 'say "hi" now', "chunk_tokens": 2}
    (whole,) = json.loads(shapes.answer(planned(steered)))["choices"]
    joined = ["", ""]
    for event in decoded(planned(steered, stream=True)):
        for call in event["choices"][0]["delta"].get("tool_calls", []):
            joined[call["index"]] += call["function"]["arguments"]

    assert whole["finish_reason"] == "tool_calls"
    assert [call["function"]["arguments"] for call in whole["message"]["tool_calls"]] == joined
    assert json.loads(joined[0]) == {"text": 'say "hi" now'}


def test_completions_bill_what_was_made() -> None:
    """Every prompt of a list is answered n times and billed best_of times."""
    made = planned({"output_tokens": 10}, kind="completion", prompt=["a", "b", "c"], n=2, best_of=4)
    answer = json.loads(shapes.answer(made))

    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3, 4, 5]
    assert answer["usage"]["completion_tokens"] == 3 * 4 * 10


def test_parts_are_reported_as_steered() -> None:
    """Cached, audio and reasoning tokens stand in the details, even where they cannot be true."""
    steered = {"prompt_tokens": 5, "cached_tokens": 9, "cache_write_tokens": 2, "prompt_audio_tokens": 1}
    usage = json.loads(shapes.answer(planned({**steered, "reasoning_tokens": 4, "audio_tokens": 3})))["usage"]

    assert usage["prompt_tokens"] == 5
    assert usage["prompt_tokens_details"] == {"cached_tokens": 9, "audio_tokens": 1, "cache_write_tokens": 2}
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 4
    assert usage["completion_tokens_details"]["audio_tokens"] == 3


def test_same_request_id_same_bytes() -> None:
    """Nothing in an answer comes from a clock or a counter."""
    made = planned({}, stream=True)

    assert list(events.events(made)) == list(events.events(planned({}, stream=True)))
    assert made.id in next(iter(events.events(made))).data.decode()


@pytest.mark.parametrize("tokens", [0, 10_000_000])
def test_a_stream_of_any_length_costs_no_memory_before_it_is_sent(tokens: int) -> None:
    """Events are made one by one, so the longest stream begins like the shortest."""
    made = planned({"output_tokens": tokens}, stream=True)

    assert len(list(islice(events.events(made), 3))) == 3
