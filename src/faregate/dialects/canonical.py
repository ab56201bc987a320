"""One form for all notations of a JSON body: members sorted, no white space (in the spirit of RFC 8785).

What that form could not tell apart has none: a member that stands twice, which readers take differently, a number
beyond all bounds, text that is no Unicode.
"""

import json
from typing import Any, Final, NamedTuple

import msgspec

_BOM: Final = b"\xef\xbb\xbf"


class Canonical(NamedTuple):
    """A body that can be read in one way only."""

    members: dict[str, Any]
    text: bytes


def canonical(body: bytes) -> Canonical | None:
    """The one form of a JSON object; ``None`` where the body is none, or could be read in more than one way."""
    try:
        text = body.removeprefix(_BOM)
        value = _decode(text)
        # What is written again as it came had no member twice. Nearly all clients write no white space.
        if _encode(value) != text:
            _look_for_twins(text.decode())
        return Canonical(value, _encode_sorted(value))
    except (ValueError, OverflowError, RecursionError):
        # msgspec's own errors, and those of text and numbers, are ValueErrors.
        return None


def _each_once(members: list[tuple[str, Any]]) -> None:
    if len(dict(members)) != len(members):
        raise ValueError("a member stands twice")


_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode
_look_for_twins: Final = json.JSONDecoder(object_pairs_hook=_each_once).decode
