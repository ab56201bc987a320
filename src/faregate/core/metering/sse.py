"""Framing of server-sent events: where events end in bytes that arrive in pieces, and what data one event carries.

Follows the WHATWG rules for line ends (LF, CRLF, CR), comments, several ``data`` lines and the byte order mark. Owns
the bounds on lines and events; knows nothing of JSON or of any provider.

Terms: an *event* begins with its first byte that is not a line end and runs through the empty line after it; line ends
between events are *filler*. So every byte of a stream belongs to one event or to filler, however it was split.
"""

import re
from collections.abc import Iterator
from typing import Final

#: Beyond these nothing is parsed; the bytes are forwarded all the same (GUARANTEES c7).
LINE_BYTES_MAX: Final = 256 * 1024
EVENT_BYTES_MAX: Final = 1024 * 1024

#: How far back an empty line or a ``[DONE]`` line that ends in new bytes can begin in old ones.
LOOK_BACK: Final = 16

_BOM: Final = b"\xef\xbb\xbf"
# A CR that an LF follows is one line end with it and never two.
_EMPTY_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LINE_ENDS: Final = (b"\n", b"\r")
_FILLER = re.compile(rb"[\r\n]*")
_DONE = re.compile(rb"(?:^|[\r\n])(?:\xef\xbb\xbf)?data: ?\[DONE\][\r\n]")


def whole_bytes(buffer: bytes | bytearray, start: int) -> int:
    """How many bytes at the front of ``buffer`` are whole events and filler.

    ``buffer`` begins where an event or filler begins; no event ends before ``start`` + 3.
    """
    end = 0
    if buffer.find(b"\r", start) < 0:
        last = buffer.rfind(b"\n\n", start)
        if last >= 0:
            end = last + 2
    else:
        for match in _EMPTY_LINE.finditer(buffer, start):
            end = match.end()
    if buffer[end : end + 1] in _LINE_ENDS:
        filler = _FILLER.match(buffer, end)
        return filler.end() if filler is not None else end
    return end


def events(whole: bytes) -> Iterator[bytes]:
    """The events in ``whole``, each with its own bytes but, where possible, without its empty line."""
    if b"\r" not in whole:
        for piece in whole.split(b"\n\n"):
            event = piece.lstrip(b"\n")
            if event:
                yield event
        return
    for start, end in spans(whole):
        yield whole[start:end]


def spans(whole: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each event in ``whole``, its empty line included; what lies between is filler."""
    position = 0
    while True:
        filler = _FILLER.match(whole, position)
        start = filler.end() if filler is not None else position
        match = _EMPTY_LINE.search(whole, start)
        if match is None:
            return
        position = match.end()
        yield start, position


def payload(event: bytes) -> bytes | None:
    """The data of one event, its lines joined by LF; ``None`` for comments and other events without data."""
    event = event.removeprefix(_BOM)
    found: list[bytes] = []
    for line in _LINE_END.split(event):
        field, _, value = line.partition(b":")
        if field == b"data":
            found.append(value[1:] if value[:1] == b" " else value)
    return b"\n".join(found) if found else None


def is_oversized(event: bytes) -> bool:
    """Whether an event or one of its lines is beyond the bounds."""
    if len(event) <= LINE_BYTES_MAX:
        return False
    return len(event) > EVENT_BYTES_MAX or any(len(line) > LINE_BYTES_MAX for line in _LINE_END.split(event))


def has_done(buffer: bytes | bytearray, start: int) -> bool:
    """Whether a ``data: [DONE]`` line ends at or after ``start``; a client may stop reading there."""
    start = max(0, start - LOOK_BACK)
    return buffer.find(b"[DONE]", start) >= 0 and _DONE.search(buffer, start) is not None
