"""The strings of a JSON body that people or programs wrote as text: where they stand, and the body with others instead.

Nothing is decoded but the strings themselves, and all other bytes stay as the caller sent them. What names a thing (a
model, a role, the id of a tool's call) or carries one (a picture) is no text, and is passed over by the name of its
member.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from faregate.dialects.jsonbody import DECODING_ERRORS

#: Members whose strings name or carry something: a change would break the call, and a match means nothing.
NO_TEXT: Final = frozenset(
    b"""
    model role type id object name status call_id tool_call_id tool_use_id item_id response_id previous_response_id
    conversation container file_id file_ids file_data file_uri fileUri url image_url video_url audio_url data
    inlineData inline_data mime_type mimeType media_type format encoding_format detail voice service_tier signature
    thoughtSignature thought_signature encrypted_content logprobs prompt_cache_key safety_identifier $ref required
    include modalities
    """.split()
)

#: Possessive, so that a broken body is not gone through again and again.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SPACE: Final = b" \t\r\n"
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(str).decode


class Placed(NamedTuple):
    """A string and the bytes that it stands in, quotes included."""

    start: int
    end: int
    text: str


def texts_in(body: bytes) -> Iterator[Placed]:
    """The strings of a JSON body that are text, in their order; those of a list belong to the member that it is of."""
    name = b""
    for found in _STRING.finditer(body):
        start, end = found.span()
        at = end
        while body[at : at + 1] in (b" ", b"\t", b"\r", b"\n"):
            at += 1
        if body[at : at + 1] == b":":
            name = body[start + 1 : end - 1]
        elif end - start > 2 and name not in NO_TEXT:
            yield Placed(start, end, _text(body[start:end]))


def with_texts(body: bytes, changes: Sequence[Placed]) -> bytes:
    """``body`` with other texts in some places, which are in their order."""
    parts: list[bytes] = []
    at = 0
    for start, end, text in changes:
        parts += (body[at:start], _encode(text))
        at = end
    return b"".join((*parts, body[at:]))


def _text(quoted: bytes) -> str:
    try:
        return _decode(quoted)
    except DECODING_ERRORS:
        # Half a character, or no UTF-8: what else it holds can be searched all the same.
        return quoted[1:-1].decode("utf-8", "replace")
