"""What people read in bodies, and the strings of a body that are text."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.dialects.strings import texts_in, with_texts
from faregate.dialects.texts import answer_text, choice_pieces, request_text

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": '{"city": "Oslo"}'}}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {"messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}]},
            "system: Be.\n\nuser: Hi",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, PICTURE]}]},
            "user: What?\n[picture]",
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]},
            'assistant: look_up({"city": "Oslo"})',
        ),
        ({"messages": [{"role": "tool", "tool_call_id": "c", "content": "7 degrees"}]}, "tool: 7 degrees"),
        ({"prompt": "Once"}, "Once"),
        ({"prompt": ["Once", "Twice"]}, "Once\nTwice"),
        ({"input": "Embed me"}, "Embed me"),
        ({"input": ["one", "two"]}, "one\n\ntwo"),
        (
            {"instructions": "Be.", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]},
            "system: Be.\n\nuser: Hi",
        ),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "7"}]}, "7"),
        (
            {"system": "Be.", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
            "system: Be.\n\nuser: Hi",
        ),
        (
            {"contents": [{"role": "user", "parts": [{"text": "Hi"}, {"inlineData": {"data": "AA"}}]}]},
            "user: Hi\n[attachment]",
        ),
        (
            {"systemInstruction": {"parts": [{"text": "Be."}]}, "contents": [{"parts": [{"text": "Hi"}]}]},
            "system: Be.\n\nHi",
        ),
        ({"query": "fish", "documents": ["cod", {"text": "carp"}]}, "fish\n\ncod\ncarp"),
        ({"something": "else"}, '{"something": "else"}'),
    ],
)
def test_requests_are_readable_in_every_format(body: dict[str, Any], text: str) -> None:
    """Who says what; a body of no known shape as it is."""
    assert request_text(json.dumps(body).encode()) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"choices": [{"message": {"role": "assistant", "content": "Hello."}}]}, "Hello."),
        ({"choices": [{"message": {"content": "One"}}, {"message": {"content": "Two"}}]}, "One\n\nTwo"),
        ({"choices": [{"message": {"content": None, "refusal": "I won't."}}]}, "I won't."),
        ({"choices": [{"message": {"content": None, "tool_calls": [CALL]}}]}, 'look_up({"city": "Oslo"})'),
        ({"choices": [{"text": "upon a time"}]}, "upon a time"),
        ({"output_text": "Hello."}, "Hello."),
        ({"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello."}]}]}, "Hello."),
        (
            {"type": "message", "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."}]},
            "Hm.\nYes.",
        ),
        ({"candidates": [{"content": {"parts": [{"text": "Yes."}]}}]}, "Yes."),
        ({"error": {"message": "No."}}, '{"message":"No."}'),
        ({"text": "what was said"}, "what was said"),
        ({"data": [{"embedding": [0.1]}, {"embedding": "AAAA"}]}, "[2 vectors]"),
        ({"data": [{"b64_json": "AAAA", "revised_prompt": "a cat"}]}, "[picture] a cat"),
        ({"results": [1]}, '{"results": [1]}'),
    ],
)
def test_answers_are_readable_in_every_format(body: dict[str, Any], text: str) -> None:
    """All choices, refusals and calls of tools among them; errors as they are told."""
    assert answer_text(json.dumps(body).encode()) == text


@pytest.mark.parametrize("read", [request_text, answer_text])
@pytest.mark.parametrize(("body", "text"), [(b"<html>", "<html>"), (b"RIFF\0\0", ""), (b"\xff\xfe", ""), (b"", "")])
def test_bytes_of_no_shape_are_text_or_nothing(read: Any, body: bytes, text: str) -> None:
    """Sounds and pictures are no text."""
    assert read(body) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
SHAPES = st.dictionaries(
    st.sampled_from(
        ["messages", "input", "prompt", "contents", "choices", "output", "candidates", "data", "error", "system"]
    ),
    JSON
    | st.lists(
        st.dictionaries(
            st.sampled_from(["role", "content", "text", "parts", "message", "tool_calls", "delta", "index"]), JSON
        ),
        max_size=3,
    ),
    max_size=4,
)


@given(SHAPES)
def test_no_body_is_too_odd_to_be_read(body: dict[str, Any]) -> None:
    """Whatever stands where."""
    data = msgspec.json.encode(body)

    assert isinstance(request_text(data), str)
    assert isinstance(answer_text(data), str)
    assert isinstance(choice_pieces(data), list)


def test_the_events_of_several_choices_are_told_apart() -> None:
    """By their index; formats without choices tell none."""
    event = {"choices": [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]}

    assert choice_pieces(json.dumps(event).encode()) == [(1, "b"), (0, "a")]
    assert choice_pieces(b'{"type":"content_block_delta"}') == []
    assert choice_pieces(b"[DONE]") == []


# -- strings -----------------------------------------------------------------------------------------------------------


def test_texts_are_found_and_what_names_or_carries_something_is_not() -> None:
    """Roles, models, ids and pictures stay as they are."""
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, PICTURE]}],
        "stop": ["END", "STOP"],
        "metadata": {"ticket": "T-1"},
    }

    assert [each.text for each in texts_in(json.dumps(body).encode())] == ["Hi", "END", "STOP", "T-1"]


@given(SHAPES, st.text(max_size=5), st.sampled_from([None, 2]))
def test_texts_are_replaced_and_all_other_bytes_stay(body: dict[str, Any], new: str, indent: int | None) -> None:
    """The body with the new texts says the same but for these."""
    data = json.dumps(body, ensure_ascii=bool(indent), indent=indent).encode()
    places = list(texts_in(data))
    made = with_texts(data, [each._replace(text=each.text + new) for each in places])

    assert [each.text for each in texts_in(made)] == [each.text + new for each in places]
    assert with_texts(made, []) == made
    assert _shape(json.loads(made)) == _shape(json.loads(data))
    if not new:
        assert json.loads(made) == json.loads(data)


def _shape(value: Any) -> Any:
    """A value without its texts."""
    if isinstance(value, dict):
        return {name: _shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shape(each) for each in value]
    return "" if isinstance(value, str) else value


def test_a_broken_body_is_no_trouble() -> None:
    """It is refused elsewhere; here it has the strings that it has."""
    assert [each.text for each in texts_in(b'{"a": "one", "b": "tw')] == ["one"]
    assert [each.text for each in texts_in(b'{"a": "\\ud800 x"}')] == ["\\ud800 x"]
    assert [each.text for each in texts_in(b'{"a": "\xff x"}')] == ["\N{REPLACEMENT CHARACTER} x"]
    assert list(texts_in(b'"' * 100_001)) == []
