"""What a caller wants a call to be found by: an id of his own (``X-CUSTOM-EVENT-ID``) and flat facts (``X-METADATA``).

They are kept as tags with names of their own (``core.attribution``), so that records can be filtered, grouped and
limited by them. No provider sees these headers.
"""

import re
from collections.abc import Collection
from typing import Any, Final

import msgspec

from faregate.core.attribution import EVENT_ID, METADATA_PREFIX
from faregate.errors import Problem

EVENT_HEADER: Final = b"x-custom-event-id"
METADATA_HEADER: Final = b"x-metadata"

EVENT_CHARACTERS_MAX: Final = 256
METADATA_BYTES_MAX: Final = 16 * 1024
METADATA_FIELDS_MAX: Final = 64
NAME_CHARACTERS_MAX: Final = 64

_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f]+")
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_RULE: Final = (
    f"X-METADATA: expected a flat JSON object of at most {METADATA_FIELDS_MAX} texts, numbers, true, false or null, "
    f"with names of at most {NAME_CHARACTERS_MAX} printable characters, {METADATA_BYTES_MAX >> 10} KiB in all."
)


def facts_of(headers: dict[bytes, bytes], may_set: Collection[str]) -> tuple[tuple[str, str], ...] | Problem:
    """The tags that these headers stand for, none where there are none of them; or why they cannot be taken."""
    event, metadata = headers.get(EVENT_HEADER), headers.get(METADATA_HEADER)
    if event is None and metadata is None:
        return ()
    if "tags" not in may_set:
        name = "X-CUSTOM-EVENT-ID" if event is not None else "X-METADATA"
        return Problem("field_forbidden", f"{name} may not be set with this key.", name)
    facts: list[tuple[str, str]] = []
    if event is not None:
        text = event.decode("utf-8", "replace")
        if len(text) > EVENT_CHARACTERS_MAX or _PRINTABLE.fullmatch(text) is None:
            rule = f"X-CUSTOM-EVENT-ID: expected 1 to {EVENT_CHARACTERS_MAX} printable characters."
            return Problem("header_invalid", rule, "X-CUSTOM-EVENT-ID")
        facts.append((EVENT_ID, text))
    if metadata is not None:
        told = _flat(metadata)
        if told is None:
            return Problem("field_range", _RULE, "X-METADATA")
        facts += ((METADATA_PREFIX + name, value) for name, value in told.items())
    return tuple(facts)


def _flat(value: bytes) -> dict[str, str] | None:
    """The members of a flat object as texts; ``None`` where it is none, or too large."""
    if len(value) > METADATA_BYTES_MAX:
        return None
    try:
        members = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if len(members) > METADATA_FIELDS_MAX:
        return None
    told: dict[str, str] = {}
    for name, member in members.items():
        if len(name) > NAME_CHARACTERS_MAX or _PRINTABLE.fullmatch(name) is None or isinstance(member, dict | list):
            return None
        told[name] = member if isinstance(member, str) else msgspec.json.encode(member).decode()
    return told
