"""How many seconds of audio a file holds, found without decoding it: what transcription is held and billed by.

What a file is, its first bytes tell, as they do to those who decode it; names and content types do not count. A header
that lies does not make it cheaper (see ``audio_frames`` and ``audio_containers``), and a file that cannot be read is
taken to be coded at the lowest bit rate of speech, so that no format is free.
"""

from collections.abc import Callable
from fractions import Fraction
from math import ceil
from typing import Final, NamedTuple

from faregate.dialects import audio_containers, audio_frames
from faregate.dialects.audio_containers import Played
from faregate.dialects.audio_frames import BYTES_PER_SECOND_MIN

#: A longer file is not one file of speech, so that its bound says nothing: one day.
SECONDS_MAX: Final = 86_400


class Length(NamedTuple):
    """Whole seconds, started ones counted: what is there, and the most that may be there where that is in doubt."""

    seconds: int
    most: int
    #: Packets and bytes were counted. Otherwise a header is believed that nothing here can check.
    counted: bool = True


def length(body: bytes, start: int, end: int) -> Length:
    """The length of the audio that stands from ``start`` to ``end`` of ``body``. Never raises.

    Where a format is known but believed on its word alone, ``most`` is bounded by its bytes at the lowest bit rate;
    where it is not known, so is ``seconds``.
    """
    slowest = Fraction(max(end - start, 0), BYTES_PER_SECOND_MIN)
    played = _played(body, start, end)
    if played is None or not played.seconds:
        whole = ceil(slowest)
        return Length(whole, whole)
    most = played.most if played.exact else max(played.most, slowest)
    return Length(ceil(played.seconds), ceil(most), played.exact)


def _played(body: bytes, start: int, end: int) -> Played | None:
    begin = _after_tags(body, start, end)
    head = body[begin : begin + 12]
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return audio_containers.wav(body, begin, end)
    if head[:4] == b"OggS":
        return audio_containers.ogg(body, begin, end)
    if head[4:8] == b"ftyp":
        return audio_containers.mp4(body, begin, end)
    if head[:4] == b"\x1aE\xdf\xa3":
        return audio_containers.webm(body, begin, end)
    if head[:4] == b"fLaC":
        return _counted(audio_frames.flac_seconds, body, begin, end)
    if head[:1] == b"\xff" and head[1:2] and head[1] & 0xF6 == 0xF0:
        return _counted(audio_frames.adts_seconds, body, begin, end)
    return _counted(audio_frames.mpeg_seconds, body, begin, end)


def _counted(count: Callable[[bytes, int, int], Fraction | None], body: bytes, start: int, end: int) -> Played | None:
    seconds = count(body, start, end)
    return Played(seconds, seconds, exact=True) if seconds is not None else None


def _after_tags(body: bytes, start: int, end: int) -> int:
    """Where ID3v2 tags before the audio end; a tag that claims more than the file is none."""
    at = start
    for _ in range(8):
        if body[at : at + 3] != b"ID3" or at + 10 > end:
            break
        size = 0
        for byte in body[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        after = at + 10 + size + (10 if body[at + 5] & 0x10 else 0)
        if after >= end:
            break
        at = after
    return at


def seconds_told(body: bytes) -> Fraction | None:
    """The length of a whole file as its frames or headers tell it; ``None`` where they tell nothing."""
    played = _played(body, 0, len(body))
    return played.seconds if played is not None and played.seconds else None
