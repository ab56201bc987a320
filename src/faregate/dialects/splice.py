"""Edits of a forwarded body as byte splices: all other bytes stay as the caller sent them (RULINGS 13).

A member that is missing goes in right after the opening brace, which needs no search. Only a member that is there
already is looked for, by a scanner that knows strings, escapes and nesting.
"""

import re
from typing import Final

import msgspec

from faregate.core.call import Call
from faregate.dialects.jsonbody import BOM

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.decode

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_SCALAR: Final = re.compile(rb"[^,}\]\s]+")
#: The next byte that nests, or a string, which is passed over whole.
_NESTING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def edit(body: bytes, call: Call, *, model: str | None, cap: int | None, cap_field: str, ask_usage: bool) -> bytes:
    """``body`` with another model name, an output cap, or a request for the usage of a stream.

    ``body`` is one that a dialect has read as ``call``. The very same object comes back when nothing changes; a byte
    order mark is dropped.
    """
    if body[:3] == BOM:
        body = body[3:]
    if model is not None:
        body = put(body, "model", _encode(model), "model" in call.members)
    if cap is not None:
        field = call.cap_field or cap_field
        body = put(body, field, b"%d" % cap, field in call.members)
    if ask_usage:
        if "stream_options" in call.members:
            options = _options(body)
            body = put(body, "stream_options", _encode(options), True)
        else:
            body = put(body, "stream_options", b'{"include_usage":true}', False)
    return body


def put(body: bytes, name: str, value: bytes, present: bool) -> bytes:
    """``body`` with the top-level member ``name`` set to the JSON text ``value``."""
    if present:
        span = span_of(body, name)
        if span is not None:
            return body[: span[0]] + value + body[span[1] :]
    at = body.index(b"{") + 1
    after = _SPACE.match(body, at)
    comma = b"" if after is not None and body[after.end() : after.end() + 1] == b"}" else b","
    return b'%b"%b":%b%b%b' % (body[:at], name.encode(), value, comma, body[at:])


def span_of(body: bytes, name: str) -> tuple[int, int] | None:
    """Where the value of a top-level member begins and ends in valid JSON; ``None`` where it is not."""
    at = body.index(b"{") + 1
    while True:
        at = _skip(body, at)
        key = _STRING.match(body, at)
        if key is None:
            return None
        start = _skip(body, _skip(body, key.end()) + 1)
        end = _value_end(body, start)
        if _decode(key[0]) == name:
            return start, end
        at = _skip(body, end)
        if body[at : at + 1] != b",":
            return None
        at += 1


def _skip(body: bytes, at: int) -> int:
    space = _SPACE.match(body, at)
    return space.end() if space is not None else at


def _value_end(body: bytes, start: int) -> int:
    first = body[start : start + 1]
    if first == b'"':
        text = _STRING.match(body, start)
        assert text is not None, "a string of valid JSON has an end"
        return text.end()
    if first not in b"{[":
        scalar = _SCALAR.match(body, start)
        assert scalar is not None, "a member of valid JSON has a value"
        return scalar.end()
    depth = 0
    for found in _NESTING.finditer(body, start):
        mark = found[0]
        if mark in b"{[":
            depth += 1
        elif mark in b"]}":
            depth -= 1
            if not depth:
                return found.end()
    raise AssertionError("an object or array of valid JSON has an end")


def _options(body: bytes) -> dict[str, object]:
    span = span_of(body, "stream_options")
    told = _decode(body[span[0] : span[1]]) if span is not None else None
    options: dict[str, object] = told if isinstance(told, dict) else {}
    return options | {"include_usage": True}
