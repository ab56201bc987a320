"""What whole answers say they used, and what is made of reports that cannot be true."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.metering.meter import Event, Report
from faregate.core.usage import Usage
from faregate.dialects import DIALECTS
from faregate.dialects.answers import NAME_CHARACTERS_MAX, report_of, usage_in_tail

MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}


def answer(usage: Any = ..., **changed: Any) -> bytes:
    value = {"id": "chatcmpl-1", "model": "gpt-4o-2024", "choices": [MESSAGE]} | changed
    return json.dumps(value if usage is ... else value | {"usage": usage}).encode()


def test_reported() -> None:
    """Totals and parts become leaves; model, id and end are told."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 40,
        "total_tokens": 140,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 30, "accepted_prediction_tokens": 1, "audio_tokens": None},
    }
    expected = Usage(input_text=40, input_cached=60, output_text=10, output_reasoning=30)
    assert report_of(answer(usage)) == Report(expected, "", "gpt-4o-2024", "chatcmpl-1")


def test_a_name_without_end_is_cut() -> None:
    """Whatever a provider calls its model and its answer, a settlement fits into a record of the journal."""
    endless = "m" * 2_000_000
    told = answer({"prompt_tokens": 1, "completion_tokens": 1}, model=endless, id=endless)
    loosely = answer({"prompt_tokens": "?"}, model=endless, id=endless)
    event = DIALECTS["chat.completions"].events()(answer(model=endless, id=endless))
    assert isinstance(event, Event)
    for named in (report_of(told), report_of(loosely), event):
        assert (len(named.model), len(named.id)) == (NAME_CHARACTERS_MAX, NAME_CHARACTERS_MAX)


def test_reasoning_beside_the_output() -> None:
    """Reasoning that only the total contains is output, too."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 35,
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert report_of(answer(usage)).usage == Usage(input_text=10, output_text=5, output_reasoning=20)


@pytest.mark.parametrize("body", [answer(), answer(None)])
def test_absent(body: bytes) -> None:
    """No report is not a broken report."""
    assert report_of(body) == Report(None, "", "gpt-4o-2024", "chatcmpl-1")


@pytest.mark.parametrize(
    ("usage", "rule"),
    [
        ({"prompt_tokens": -1, "completion_tokens": 1}, "input tokens are outside 0 to 1000000000"),
        ({"prompt_tokens": 1, "completion_tokens": 10**12}, "output tokens are outside 0 to 1000000000"),
        ({"prompt_tokens": 1, "completion_tokens": 10**30}, "output tokens are outside 0 to 1000000000"),
        ({"prompt_tokens": 1, "completion_tokens": float("nan")}, "output tokens are not a whole number"),
        ({"prompt_tokens": "5", "completion_tokens": 1}, "input tokens are not a whole number"),
        ({"prompt_tokens": 5.0, "completion_tokens": 1}, "input tokens are not a whole number"),
        ({"prompt_tokens": True, "completion_tokens": 1}, "input tokens are not a whole number"),
        ({"prompt_tokens": 5}, "input or output tokens are missing"),
        ({}, "input or output tokens are missing"),
        (
            {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 11},
            "total tokens are not the sum of input and output tokens",
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}},
            "cached, cache-write and audio input tokens exceed input tokens",
        ),
        ("many", "the usage report is not an object"),
        ([1], "the usage report is not an object"),
    ],
)
def test_broken(usage: Any, rule: str) -> None:
    """A report that cannot be true is named by the rule it breaks, and the rest is still read."""
    assert report_of(answer(usage)) == Report(None, rule, "gpt-4o-2024", "chatcmpl-1")


def test_embeddings() -> None:
    """Embeddings report their input alone."""
    body = b'{"model":"e","data":[{"embedding":"AAAA"}],"usage":{"prompt_tokens":7,"total_tokens":7}}'
    assert DIALECTS["embeddings"].usage_of(body) == Report(Usage(input_text=7), "", "e", "")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"usage":', b"\xff", b"[" * 100_000])
def test_not_an_answer(body: bytes) -> None:
    """Bytes that are no JSON object report nothing that could be believed."""
    assert report_of(body).invalid == "the answer is not a JSON object"


@given(st.binary(max_size=60))
def test_total(junk: bytes) -> None:
    """Any bytes give a report and a text."""
    for dialect in DIALECTS.values():
        for body in (junk, b'{"usage":' + junk + b"}", b'{"choices":' + junk + b"}"):
            assert isinstance(dialect.usage_of(body), Report)
            assert isinstance(dialect.answer_text(body), str)


def test_chat_text() -> None:
    """Content, refusals, reasoning and tool calls of all choices are billed text."""
    choices = [
        {"message": {"role": "assistant", "content": "a", "reasoning_content": "b", "reasoning": "b"}},
        {"message": {"content": None, "refusal": "c"}},
        {"message": {"tool_calls": [{"id": "x", "type": "function", "function": {"name": "d", "arguments": "{e}"}}]}},
    ]
    assert DIALECTS["chat.completions"].answer_text(answer(choices=choices)) == "abcd{e}"


def test_completion_text() -> None:
    """The text of every choice, and nothing of their labels."""
    choices = [{"text": "a", "finish_reason": "stop", "logprobs": {"tokens": ["x"]}}, {"text": "b"}]
    assert DIALECTS["completions"].answer_text(answer(choices=choices)) == "ab"


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b'0.25]}],"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}', 8),
        (b'..."usage": {"prompt_tokens": 8, "prompt_tokens_details": {"cached_tokens": 0}, "total_tokens": 8}} ', 8),
        (b'"usage":null}', None),
        (b'"usage":{"prompt_tokens":8', None),
        (b"nothing of the kind", None),
    ],
)
def test_the_usage_at_the_end_of_a_large_answer(tail: bytes, expected: int | None) -> None:
    """An answer too large to be held whole still tells its usage in its last bytes."""
    report = usage_in_tail(tail, lambda body: report_of(body, outputs=False))

    assert (report.usage.input_tokens if report.usage else None) == expected
