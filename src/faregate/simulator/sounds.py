"""Small pictures and sounds that follow from a few numbers alone, and how long a recording plays. Pure."""

import io
import wave
import zlib
from math import ceil
from struct import pack
from typing import Final

#: Rate of the speech that is answered, in samples a second.
RATE: Final = 24_000

#: An MPEG-2 frame of layer III: 64 kbit/s at 24 kHz, 576 samples, silent.
_MP3_FRAME: Final = b"\xff\xf3\x84\xc4" + bytes(188)
_MP3_SAMPLES: Final = 576
#: An ADTS frame of AAC at 24 kHz, 1,024 samples, of 32 bytes.
_AAC_FRAME: Final = b"\xff\xf1\x58\x40\x04\x1f\xfc" + bytes(25)
_AAC_SAMPLES: Final = 1024

#: Bytes for a second of a recording that is no WAV.
OTHER_BYTES_PER_SECOND: Final = 16_000


def png(side: int, shade: int) -> bytes:
    """A square picture of one grey."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([shade & 0xFF]) * side) * side
    head = pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


def speech(kind: str, samples: int) -> bytes:
    """Silence of so many samples at ``RATE``, rounded up to whole frames: ``mp3``, ``aac``, ``wav`` or ``pcm``."""
    if kind == "mp3":
        return _MP3_FRAME * ceil(samples / _MP3_SAMPLES)
    if kind == "aac":
        return _AAC_FRAME * ceil(samples / _AAC_SAMPLES)
    data = bytes(2 * samples)
    if kind == "pcm":
        return data
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(RATE)
        recording.writeframes(data)
    return file.getvalue()


def seconds_of(recording: bytes) -> float:
    """How long a recording plays: a WAV file by its frames, any other by its size."""
    try:
        with wave.open(io.BytesIO(recording)) as opened:
            seconds: float = opened.getnframes() / opened.getframerate()
            return seconds
    except (wave.Error, EOFError, ZeroDivisionError):
        return len(recording) / OTHER_BYTES_PER_SECOND
