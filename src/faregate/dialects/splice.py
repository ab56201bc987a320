"""Edits of a forwarded body as byte splices: all other bytes stay as the caller sent them (RULINGS 13).

A member that is missing goes in right after the opening brace, which needs no search. One that is there is first looked
for where clients put it, near the front or the end, and that place is then proved to be the top level; only if that
fails are strings, escapes and nesting scanned from the start.
"""

import re
from typing import Final

import msgspec

from faregate.core.call import Call
from faregate.dialects.jsonbody import BOM, DECODING_ERRORS

_encode: Final = msgspec.json.Encoder().encode
_decode_name: Final = msgspec.json.Decoder(str).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_COLON: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_SCALAR: Final = re.compile(rb"[^,}\]\s]+")
#: The next byte that nests, or a string, which is passed over whole.
_NESTING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
#: How far into a body a member counts as being near its front.
_FRONT_BYTES: Final = 256


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
        body = _ask_usage(body, "stream_options" in call.members)
    return body


def _ask_usage(body: bytes, present: bool) -> bytes:
    told = span_of(body, "stream_options") if present else None
    if told is None:
        return put(body, "stream_options", b'{"include_usage":true}', False)
    options = body[told[0] : told[1]]
    if options[:1] != b"{":
        options = b"{}"
    options = put(options, "include_usage", b"true", span_of(options, "include_usage") is not None)
    return body[: told[0]] + options + body[told[1] :]


def put(body: bytes, name: str, value: bytes, present: bool) -> bytes:
    """``body`` with the top-level member ``name`` set to the JSON text ``value``."""
    if present:
        span = span_of(body, name)
        if span is not None and body[span[0] : span[1]] == value:
            return body
        if span is not None:
            return body[: span[0]] + value + body[span[1] :]
    at = body.index(b"{") + 1
    after = _SPACE.match(body, at)
    comma = b"" if after is not None and body[after.end() : after.end() + 1] == b"}" else b","
    return b'%b"%b":%b%b%b' % (body[:at], name.encode(), value, comma, body[at:])


def span_of(body: bytes, name: str) -> tuple[int, int] | None:
    """Where the value of a top-level member begins and ends in valid JSON; ``None`` where it is not."""
    return _likely_span(body, name) or _scanned_span(body, name)


def _likely_span(body: bytes, name: str) -> tuple[int, int] | None:
    """The span at the first place near the front, or the last of all, that is proved to be at the top level.

    Quotes inside strings are escaped, so a quoted name that no backslash precedes is a whole string. It is a member of
    the top level if what comes before it, or what comes after it, makes an object by itself.
    """
    quoted = b'"%b"' % name.encode()
    at = body.find(quoted, 0, _FRONT_BYTES)
    front = at >= 0
    if not front:
        at = body.rfind(quoted)
    colon = _COLON.match(body, at + len(quoted))
    before = body[max(0, at - 64) : max(0, at)].rstrip(b" \t\r\n")
    if at < 0 or colon is None or before[-1:] not in (b"{", b","):
        return None
    try:
        _decode_members(body[:at] + b'"":0}' if front else b"{" + body[at:])
    except DECODING_ERRORS:
        return None
    return colon.end(), _value_end(body, colon.end())


def _scanned_span(body: bytes, name: str) -> tuple[int, int] | None:
    at = body.index(b"{") + 1
    while True:
        at = _skip(body, at)
        key = _STRING.match(body, at)
        if key is None:
            return None
        start = _skip(body, _skip(body, key.end()) + 1)
        end = _value_end(body, start)
        if _decode_name(key[0]) == name:
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
