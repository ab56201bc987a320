"""Records of the stores beside the journal: length, checksum, payload. A torn one ends its file, as after a crash."""

import os
import struct
import zlib
from typing import BinaryIO, Final

HEADER: Final = struct.Struct("<II")


def framed(payload: bytes) -> bytes:
    """A record as it stands in its file."""
    return HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def write_whole(descriptor: int, data: bytes, size: int) -> bool:
    """Append ``data`` to a file of ``size`` bytes, all of it or nothing; whether the disk took it.

    Raises:
        OSError: it did not.
    """
    if os.write(descriptor, data) < len(data):
        os.ftruncate(descriptor, size)
        return False
    return True


def next_payload(file: BinaryIO, bytes_max: int) -> bytes | None:
    """The payload of the record that begins here; ``None`` where none is whole, or it is longer than any may be."""
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    length, checksum = HEADER.unpack(header)
    if length > bytes_max:
        return None
    payload = file.read(length)
    return payload if len(payload) == length and zlib.crc32(payload) == checksum else None
