"""Whether an answer is whole enough to be given to others: what its framing cannot tell.

A provider may end an answer inside a text, put something into a stream that is no event, or tell an error in the place
of an answer, all under a status of 200. Its own caller is given that as it came; nobody else is.
"""

from typing import Any, Final

import msgspec

_DONE: Final = b"[DONE]"


class _Told(msgspec.Struct, gc=False):
    """The one member that no good answer has."""

    error: Any = None


_decode: Final = msgspec.json.Decoder(_Told).decode
_decode_any: Final = msgspec.json.Decoder(msgspec.Raw).decode


def is_intact(body: bytes, *, stream: bool) -> bool:
    """Whether a JSON answer, or every event of a stream of JSON, is one, and none of it is an error."""
    return _stream(body) if stream else _is_good(body)


def _is_good(text: bytes) -> bool:
    try:
        text.decode()
        return _decode(text).error is None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _stream(body: bytes) -> bool:
    """Event by event (WHATWG HTML section 9.2); comments and fields of other names say nothing."""
    payload: list[bytes] = []
    for line in body.splitlines():
        if line.startswith(b"data:"):
            payload.append(line[5:].removeprefix(b" "))
        elif not line and payload:
            if not _event(b"\n".join(payload)):
                return False
            payload = []
    # What no empty line ends is no event.
    return not payload or _event(b"\n".join(payload))


def _event(payload: bytes) -> bool:
    if payload == _DONE:
        return True
    if payload[:1] == b"{":
        return _is_good(payload)
    try:
        _decode_any(payload)
    except msgspec.DecodeError:
        return False
    return True
