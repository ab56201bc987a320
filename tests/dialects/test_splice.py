"""Edits change one member and no other byte."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.call import Call
from faregate.dialects import openai_chat
from faregate.dialects.splice import edit, put, span_of

NAMES = ("model", "max_tokens", "max_completion_tokens", "stream_options", "messages", "tools", "x", 'q"model', "a\\")
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(['"model":', '{"model":"x"}', ',"model":1', "}]", "\\", '\\"', "model"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
_objects = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), _values, max_size=6)
_separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", " :  ")])


def read(body: bytes) -> Call:
    call = openai_chat.read(body)
    assert isinstance(call, Call)
    return call


@given(_objects, _separators, st.booleans(), st.sampled_from(NAMES[:5]), _values)
def test_put_changes_one_member(
    value: dict[str, Any], separators: tuple[str, str], escaped: bool, name: str, new: Any
) -> None:
    """The edited body decodes to the same JSON but for the member, and all other bytes stand as they stood."""
    body = json.dumps(value, separators=separators, ensure_ascii=escaped).encode()
    text = json.dumps(new).encode()
    edited = put(body, name, text, name in value)
    assert json.loads(edited) == value | {name: new}
    span = span_of(edited, name)
    assert span is not None
    assert edited[span[0] : span[1]] == text
    if name in value:
        old = span_of(body, name)
        assert old is not None
        assert (edited[: span[0]], edited[span[1] :]) == (body[: old[0]], body[old[1] :])
    else:
        assert edited.endswith(body[1:])


@given(_objects, _separators)
def test_spans(value: dict[str, Any], separators: tuple[str, str]) -> None:
    """Every member's span holds exactly its value, however names and brackets hide in strings."""
    body = json.dumps(value, separators=separators).encode()
    for name, inner in value.items():
        span = span_of(body, name)
        assert span is not None
        assert json.loads(body[span[0] : span[1]]) == inner
    assert span_of(body, "absent") is None


def test_escaped_name_is_found() -> None:
    """A name spelt with escapes is the same name."""
    body = rb'{"messages":[{"role":"user","content":"x","model":"y"}],"mod\u0065l":"a"}'
    assert put(body, "model", b'"b"', True) == body.replace(b'"a"', b'"b"')


MESSAGES = b'"messages":[{"role":"user","content":"say \\"model\\": \\"x\\""}]'


def test_nothing_to_do_is_the_same_object() -> None:
    """Without a change the very same bytes go on."""
    body = b'{"model":"a",' + MESSAGES + b"}"
    assert edit(body, read(body), model=None, cap=None, cap_field="max_tokens", ask_usage=False) is body
    assert edit(body, read(body), model="a", cap=None, cap_field="max_tokens", ask_usage=False) is body


@pytest.mark.parametrize(
    ("body", "arguments", "edited"),
    [
        (b'{"model":"a",%b}', {"model": "b"}, b'{"model":"b",%b}'),
        (b'{%b,"model" : "a"}', {"model": 'b"'}, b'{%b,"model" : "b\\""}'),
        (b'{"model":"a",%b}', {"cap": 7}, b'{"max_completion_tokens":7,"model":"a",%b}'),
        (b'{"model":"a","max_tokens":9,%b}', {"cap": 7}, b'{"model":"a","max_tokens":7,%b}'),
        (b'{"model":"a","max_tokens":null,%b}', {"cap": 7}, b'{"model":"a","max_tokens":7,%b}'),
        (
            b'{"model":"a","stream":true,%b}',
            {"ask_usage": True},
            b'{"stream_options":{"include_usage":true},"model":"a","stream":true,%b}',
        ),
        (
            b'{"model":"a","stream":true,"stream_options":{"x": [1]},%b}',
            {"ask_usage": True},
            b'{"model":"a","stream":true,"stream_options":{"include_usage":true,"x": [1]},%b}',
        ),
        (
            b'{"model":"a","stream":true,%b,"stream_options":{ "include_usage": false, "x":1 }}',
            {"ask_usage": True},
            b'{"model":"a","stream":true,%b,"stream_options":{ "include_usage": true, "x":1 }}',
        ),
        (
            b'{"model":"a","stream":true,%b,"stream_options":null}',
            {"ask_usage": True},
            b'{"model":"a","stream":true,%b,"stream_options":{"include_usage":true}}',
        ),
        (b'\xef\xbb\xbf{"model":"a",%b}', {}, b'{"model":"a",%b}'),
    ],
)
def test_edits(body: bytes, arguments: dict[str, Any], edited: bytes) -> None:
    """Model, cap and the wish for usage are put where they belong; a byte order mark is dropped."""
    body, edited = body % MESSAGES, edited % MESSAGES
    wishes: dict[str, Any] = {"model": None, "cap": None, "cap_field": "max_completion_tokens", "ask_usage": False}
    assert edit(body, read(body), **wishes | arguments) == edited
