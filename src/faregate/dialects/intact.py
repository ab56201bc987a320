"""Whether an answer is whole enough to be given to others: what its framing cannot tell.

A provider may end an answer inside a text, put something into a stream that is no event, answer a stream with something
else, or tell an error in the place of an answer, all under a status of 200. Its own caller is given that as it came;
nobody else is.
"""

from typing import Any, Final

import msgspec

_DONE: Final = b"[DONE]"

#: How a response says that it is none, or half of one.
_NOT_WELL: Final = ("failed", "incomplete", "cancelled")

#: All that can be wrong with JSON, and with text that is to be JSON.
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Part(msgspec.Struct, gc=False):
    error: Any = None
    status: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    finish_reason: Any = None
    error: Any = None


class _Told(_Part, gc=False):
    """Members that no good answer has, or not so."""

    response: _Part | None = None
    choices: list[_Choice] | None = None


_decode: Final = msgspec.json.Decoder(_Told).decode
_decode_any: Final = msgspec.json.Decoder(msgspec.Raw).decode


def is_intact(body: bytes, *, stream: bool) -> bool:
    """Whether a JSON answer, or every event of a stream of JSON, is one, and none of it is an error."""
    return _stream(body) if stream else _is_good(body)


def _is_good(text: bytes) -> bool:
    told = _read(text)
    # Who was to choose has chosen, and come to an end each time.
    return told is not None and (told.choices is None or (bool(told.choices) and all(map(_ended, told.choices))))


def _ended(choice: _Choice) -> bool:
    return choice.finish_reason is not None


def _read(text: bytes) -> _Told | None:
    """What JSON tells; ``None`` where it is none, or tells an error."""
    try:
        text.decode()
        told = _decode(text)
    except _UNREADABLE:
        return None
    parts = [told] if told.response is None else [told, told.response]
    if any(each.error is not None or each.status in _NOT_WELL for each in parts):
        return None
    wrong = any(each.error is not None or each.finish_reason == "error" for each in told.choices or ())
    return None if wrong else told


def _stream(body: bytes) -> bool:
    """Event by event (WHATWG HTML section 9.2); comments say nothing, and every choice that begins must end.

    A stream of choices ends with ``[DONE]``: without it something may be missing, or a client waits for it.
    """
    payload: list[bytes] = []
    begun: set[int] = set()
    ended: set[int] = set()
    events, done = 0, False
    for line in (*body.splitlines(), b""):
        if line.startswith(b"data:"):
            payload.append(line[5:].removeprefix(b" "))
        elif line.startswith(b"event:"):
            if line[6:].strip() == b"error":
                return False
        elif not line and payload:
            # What no empty line ends is no event, but some providers leave out the last one.
            text, payload = b"\n".join(payload), []
            if done or not _event(text, begun, ended):
                return False
            done = text == _DONE
            events += 1
    return events > 0 and begun <= ended and (done or not ended)


def _event(payload: bytes, begun: set[int], ended: set[int]) -> bool:
    if payload == _DONE:
        return True
    if payload[:1] == b"{":
        told = _read(payload)
        for choice in told.choices or () if told is not None else ():
            (ended if _ended(choice) else begun).add(choice.index)
        return told is not None
    try:
        _decode_any(payload)
    except _UNREADABLE:
        return False
    return True
