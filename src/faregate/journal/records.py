"""How one event becomes the bytes of one record, and back.

A record is a frame of three parts: ``u32`` length of the payload, ``u32`` CRC-32 of the payload (both little-endian),
and the payload, which is msgpack of ``[sequence, tag, event]``. This file knows nothing of files.
Tags are part of the format: a new event takes the next number and an old number is never given away again.
"""

import struct
import zlib
from typing import Final, NamedTuple

import msgspec

from faregate.core.ledger.events import (
    Event,
    Intended,
    Lost,
    Progressed,
    Recalled,
    Redirected,
    Refused,
    Settled,
    Started,
)
from faregate.errors import Failed, JournalCorrupt
from faregate.ports import JournalRecord

#: No record is larger: a length beyond it is damage, and a reader never asks for more memory than this at once.
RECORD_BYTES_MAX: Final = 1024 * 1024

HEADER: Final = struct.Struct("<II")
HEADER_BYTES: Final = HEADER.size

TAGS: Final[dict[type[Event], int]] = {
    Started: 1,
    Intended: 2,
    Progressed: 3,
    Settled: 4,
    Refused: 5,
    Lost: 6,
    Redirected: 7,
    Recalled: 8,
}

STARTED_TAG: Final = TAGS[Started]

_encode = msgspec.msgpack.Encoder().encode
_decoders = {tag: msgspec.msgpack.Decoder(tuple[int, int, kind]).decode for kind, tag in TAGS.items()}  # type: ignore[valid-type]
_pack = HEADER.pack
_crc32 = zlib.crc32

#: Every payload begins with this byte: a msgpack array of three.
PAYLOAD_FIRST_BYTE: Final = 0x93

#: Where the tag stands, by the first byte of the sequence number; smaller numbers are that byte itself.
_TAG_AT: Final = {0xCC: 3, 0xCD: 4, 0xCE: 6, 0xCF: 10}


class Frame(NamedTuple):
    """A whole record found in a buffer: where its payload lies, and where the next frame begins."""

    payload_start: int
    end: int


def encode(sequence: int, event: Event) -> bytes:
    """The bytes of one record.

    Raises:
        Failed: the event is larger than a record may be.
    """
    payload = _encode((sequence, TAGS[type(event)], event))
    length = len(payload)
    if length > RECORD_BYTES_MAX:
        raise Failed(f"a journal record of {length} bytes exceeds {RECORD_BYTES_MAX}")
    return _pack(length, _crc32(payload)) + payload


def frame_at(buffer: bytes | memoryview, offset: int, end: int) -> Frame | None:
    """The whole, undamaged record at ``offset`` of ``buffer[:end]``; ``None`` where there is none."""
    start = offset + HEADER_BYTES
    if start > end:
        return None
    length, checksum = HEADER.unpack_from(buffer, offset)
    if not 0 < length <= RECORD_BYTES_MAX or start + length > end:
        return None
    if _crc32(buffer[start : start + length]) != checksum or buffer[start] != PAYLOAD_FIRST_BYTE:
        return None
    return Frame(start, start + length)


def tag_at(buffer: bytes | memoryview, payload_start: int) -> int:
    """The tag of a payload, without decoding it."""
    return buffer[payload_start + _TAG_AT.get(buffer[payload_start + 1], 2)]


def sequence_at(buffer: bytes | memoryview, payload_start: int) -> int:
    """The sequence number of a payload, without decoding the event."""
    first = buffer[payload_start + 1]
    if first < 0x80:
        return first
    return int.from_bytes(buffer[payload_start + 2 : payload_start + _TAG_AT.get(first, 2)], "big")


def decode(payload: bytes | memoryview) -> tuple[int, Event]:
    """Sequence number and event of a payload whose checksum holds.

    Raises:
        JournalCorrupt: a tag or a shape that this version does not know.
    """
    decoder = _decoders.get(tag_at(payload, 0))
    if decoder is None:
        raise _unknown(payload)
    try:
        sequence, _, event = decoder(payload)
    except msgspec.MsgspecError as problem:
        raise _unreadable(problem) from problem
    return sequence, event


def _unknown(payload: bytes | memoryview) -> JournalCorrupt:
    return JournalCorrupt(f"the journal holds an event of unknown tag {tag_at(payload, 0)}: a newer version wrote it")


def _unreadable(problem: msgspec.MsgspecError) -> JournalCorrupt:
    return JournalCorrupt(f"the journal holds an event that this version cannot read: {problem}")


def whole_records(data: bytes, position: int = 0, expected: int = 0) -> list[JournalRecord]:
    """The records at the start of ``data``, up to the first that is not whole.

    ``position`` is that of ``data`` in the journal, ``expected`` the number of its first record; 0 takes any.

    Raises:
        JournalCorrupt: as ``decode`` does, or a record has another number than belongs there.
    """
    found: list[JournalRecord] = []
    offset, size = 0, len(data)
    # What every record needs is at hand in this function: each call of a function would cost a tenth of a decoding.
    unpack, crc32, make, decoders, tag_at = HEADER.unpack_from, _crc32, tuple.__new__, _decoders, _TAG_AT
    try:
        while (start := offset + HEADER_BYTES) <= size:
            length, checksum = unpack(data, offset)
            offset = start + length
            if offset > size or not 0 < length <= RECORD_BYTES_MAX:
                break
            payload = data[start:offset]
            if crc32(payload) != checksum or payload[0] != PAYLOAD_FIRST_BYTE:
                break
            decoder = decoders.get(payload[tag_at.get(payload[1], 2)])
            if decoder is None:
                raise _unknown(payload)
            sequence, _, event = decoder(payload)
            if expected and sequence != expected:
                raise JournalCorrupt(
                    f"the journal holds record {sequence} where {expected} belongs, before position {position + offset}"
                )
            expected = sequence + 1
            # The constructor of a named tuple costs three times as much as the tuple's own.
            found.append(make(JournalRecord, (position + offset, event, sequence)))
    except msgspec.MsgspecError as problem:
        raise _unreadable(problem) from problem
    return found


def whole_record_after(buffer: bytes | memoryview, offset: int, sequence: int) -> int | None:
    """Where, beyond damage at ``offset``, the first whole record with a sequence number above ``sequence`` begins.

    A crash tears the end of a file and leaves nothing whole behind it, so a hit tells damage from a torn tail.
    """
    view = bytes(buffer)
    candidate = view.find(PAYLOAD_FIRST_BYTE, offset + HEADER_BYTES)
    while candidate != -1:
        frame = frame_at(view, candidate - HEADER_BYTES, len(view))
        if frame is not None and sequence_at(view, candidate) > sequence:
            return candidate - HEADER_BYTES
        candidate = view.find(PAYLOAD_FIRST_BYTE, candidate + 1)
    return None
