"""The top level of a JSON request body: each member's name with its untouched bytes, or the reason why it is refused.

A body is read once, in C, without decoding its values. That no name occurs twice is then proved by arithmetic: the
lengths of all names and values, their quotes, colons and commas add up to the body only if nothing was dropped. Bodies
with white space between members are proved by counting colons instead, and whatever stays in doubt is parsed strictly
and slowly. This module knows no field of any dialect.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec

from faregate.dialects.quoting import echo, expected
from faregate.errors import Problem

#: Deeper nesting is refused; real calls stay below 20.
DEPTH_MAX: Final = 64

BOM: Final = b"\xef\xbb\xbf"

Members = dict[str, msgspec.Raw]

#: What the decoders raise at a caller's bytes.
DECODING_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_decode_members = msgspec.json.Decoder(Members).decode
_anything = msgspec.json.Decoder(Any).decode
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode
_SQUARE_RUN: Final = b"]" * (DEPTH_MAX + 1)
_CURLY_RUN: Final = b"}" * (DEPTH_MAX + 1)
#: Possessive, and whole without its last quote: a search that goes back is quadratic where a string never ends.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
#: Commas of a body that is looked at value by value, as only odd and broken ones are: nobody else is served meanwhile.
_COMMAS_MAX: Final = 65_536
_BRACKETS = re.compile(r"[\[\]{}]")
_SPACE: Final = b" \t\r\n"


def members(body: bytes, long_field: str) -> Members | Problem:
    """The members of the object that ``body`` is, each value as its own bytes.

    ``long_field`` names the member that makes up most of a body; a byte order mark before the object is passed over.
    """
    try:
        found = _decode_members(body)
    except DECODING_ERRORS:
        if body.startswith(BOM):
            return members(body[len(BOM) :], long_field)
        return explain(body)
    # Braces without the comma that the last member lacks; then two quotes, a colon and a comma for each.
    compact = 1
    for name, value in found.items():
        compact += len(name) + len(value) + 4
    if compact != len(body) and not _colons_agree(body, found, long_field):
        problem = _duplicate(body)
        if problem is not None:
            return problem
    return found


def too_deep(value: bytes) -> Problem | None:
    """The refusal of a value that is nested too deeply.

    Only a run of closing brackets, which is how deep nesting ends when nobody hides it, makes a scan worth its time;
    whatever escapes this meets the decoder's own bound.
    """
    if _SQUARE_RUN in value or _CURLY_RUN in value:
        return _too_deep(value.decode("utf-8", "replace"))
    return None


def _colons_agree(body: bytes, found: Members, long_field: str) -> bool:
    """Whether the colons outside the long value are those of the members found and of their values.

    A member that was dropped as a duplicate brings a colon more. The long value is cut out where its bytes stand, so
    that only the small rest is counted.
    """
    others = b"".join(value for name, value in found.items() if name != long_field)
    rest = body
    if long_field in found:
        name = b'"%s"' % long_field.encode()
        value = bytes(found[long_field])
        start = body.find(name) + len(name)
        while start < len(body) and body[start] in b": \t\r\n":
            start += 1
        if not body.startswith(value, start):
            return False
        rest = body[:start] + body[start + len(value) :]
    return rest.count(b":") == len(found) + others.count(b":")


class _Pairs:
    """An object with its members as they were written, twice where they stand twice."""

    __slots__ = ("members",)

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        self.members = members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


#: Numbers stay text: neither their size nor their precision is of interest here.
_strict = json.JSONDecoder(
    object_pairs_hook=_Pairs, parse_constant=_refuse_constant, parse_int=str, parse_float=str
).decode


def _duplicate(body: bytes) -> Problem | None:
    """The refusal of a body whose top level says a name twice, however it is spelt."""
    if body.count(b",") > _COMMAS_MAX:
        rule = "whether a member stands twice cannot be told among so many values; send each once, without colons"
        return Problem("json_dup_key", f"Body is not valid: {rule} in their names.")
    text = body.decode("utf-8", "replace")
    deep = _too_deep(text)
    if deep is not None:
        return deep
    try:
        pairs = _strict(text)
    except ValueError:
        return explain(body)
    for name, times in Counter(name for name, _ in pairs.members).items():
        if times > 1:
            shown = echo(name)
            return Problem(
                "json_dup_key",
                f"Body is not valid: the member {shown} stands {times} times at the top level; send it once.",
                param=shown,
            )
    return None


def _too_deep(text: str) -> Problem | None:
    depth = 0
    for match in _BRACKETS.finditer(_STRING.sub('""', text)):
        depth += 1 if match[0] in "[{" else -1
        if depth > DEPTH_MAX:
            return Problem("json_depth", f"Body nests deeper than {DEPTH_MAX} levels; flatten it.")
    return None


def explain(body: bytes) -> Problem:
    """Why ``body`` is not a JSON object in UTF-8, with line and column where there is one."""
    if not body:
        return Problem("body_empty", "Body is empty; send a JSON object.")
    if body[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in body[:4]:
        return Problem("json_utf8", "Body is not UTF-8 but looks like UTF-16 or UTF-32; send UTF-8.")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        line, column = _position(body[: error.start].decode())
        return Problem("json_utf8", f"Body is not UTF-8 at line {line} column {column}: {error.reason}; send UTF-8.")
    deep = _too_deep(text)
    if deep is not None:
        return deep
    if body.count(b",") > _COMMAS_MAX:
        return Problem("json_invalid", "Body is not a valid JSON object, and too large to say where; correct it.")
    try:
        value = _strict(text)
    except json.JSONDecodeError as error:
        return _invalid(error.lineno, error.colno, error.msg)
    except ValueError as error:
        return _invalid(*_position(text[: _constant_at(text)]), str(error))
    except RecursionError:
        return Problem("json_depth", f"Body nests deeper than {DEPTH_MAX} levels; flatten it.")
    if not isinstance(value, _Pairs):
        return expected("field_type", "$", "an object", _kind(text.lstrip()[:1]), "send a JSON object")
    return Problem(
        "json_utf8", "Body holds half of a surrogate pair (\\ud800 to \\udfff alone); send whole characters."
    )


def _invalid(line: int, column: int, why: str) -> Problem:
    return Problem("json_invalid", f"Body is not valid JSON at line {line} column {column}: {why}; correct it.")


def _constant_at(text: str) -> int:
    found = re.search(r"-?Infinity|NaN", _STRING.sub(lambda match: " " * len(match[0]), text))
    return found.start() if found else 0


def _position(before: str) -> tuple[int, int]:
    """Line and column, both from 1, of what follows ``before``."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


_KINDS: Final = {"[": "an array", "{": "an object", '"': "a string", "t": "a boolean", "f": "a boolean", "n": "null"}


def _kind(first: str) -> str:
    return _KINDS.get(first, "a number")


def kind_of(value: msgspec.Raw) -> str:
    """What sort of JSON value this is, for a message: ``a string``, ``an array`` …"""
    return _kind(bytes(memoryview(value)[:1]).decode("latin-1"))


def undecodable(name: str, error: Exception) -> Problem | None:
    """The refusal of a member whose bytes are no text or nest too deeply; ``None`` where something else is wrong."""
    if isinstance(error, UnicodeDecodeError):
        return Problem("json_utf8", f"{name}: the text is not UTF-8; send UTF-8.", param=name)
    if isinstance(error, RecursionError):
        return Problem("json_depth", f"{name}: nested deeper than {DEPTH_MAX} levels; flatten it.", param=name)
    return None


def anything(raw: bytes, name: str) -> Any | Problem:
    """The value of a member that may be anything, or its refusal."""
    deep = too_deep(raw)
    if deep is not None:
        return deep
    try:
        return _anything(raw)
    except DECODING_ERRORS as error:
        half = f"{name}: a text holds half of a character; send whole ones."
        return undecodable(name, error) or Problem("json_utf8", half, param=name)


def bad_item(raw: bytes, name: str, decode: Callable[[bytes], object], wanted: str, error: Exception) -> Problem:
    """Why the list ``raw`` of objects with ``content`` cannot be decoded: which of them, and what is wrong with it."""
    problem = undecodable(name, error)
    if problem is not None:
        return problem
    for index, item in enumerate(_values(raw)):
        where = f"{name}[{index}]"
        if kind_of(item) != "an object":
            return expected("field_type", where, "an object", kind_of(item))
        try:
            decode(item)
        except DECODING_ERRORS:
            return expected("field_type", f"{where}.content", "text or a list of parts", "something else")
    return expected("field_type", name, wanted, "something else")


def loose_members(body: bytes) -> dict[str, Any]:
    """The members of a body that was read before, all of them decoded; none where it is no JSON object."""
    try:
        value = msgspec.json.decode(body.removeprefix(BOM))
    except DECODING_ERRORS:
        return {}
    return value if isinstance(value, dict) else {}
