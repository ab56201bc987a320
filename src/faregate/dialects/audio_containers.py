"""How long the audio in a container plays: WAV, Ogg, MP4 and WebM, from headers, packets and sample tables.

A header that claims less than its packets play does not count; one that claims more does. Every walk is bounded, in
boxes, pages and blocks; what exceeds that is ``None``, which the caller bounds by bytes. Nothing is decoded or copied.
"""

import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate
from typing import Final, NamedTuple

from faregate.dialects.audio_frames import (
    AAC_RATES,
    FRAMES_MAX,
    OPUS_PACKET_SAMPLES_MAX,
    OPUS_RATE,
    flac_frame,
    opus_samples,
)

#: Boxes, pages, chunks and elements looked at in one file.
STEPS_MAX: Final = 300_000
#: A sample of MP4 audio of an unknown codec plays at most as long as the longest usual frame (ALAC).
FRAME_SAMPLES_MAX: Final = 4096


class Played(NamedTuple):
    """What a container says: ``seconds``, and the most that may be in it as far as it can be counted.

    ``exact`` where packets or bytes were counted and no header had to be believed.
    """

    seconds: Fraction
    most: Fraction
    exact: bool = False


# -- WAV (RIFF, RF64; Microsoft, "Multimedia Programming Interface and Data Specifications") ---------------------------

_PCM_FORMATS: Final = (1, 3, 6, 7)
_EXTENSIBLE: Final = 0xFFFE
_CHUNKS_MAX: Final = 64


def wav(body: bytes, start: int, end: int) -> Played | None:
    """PCM from its data chunks, as far as they are there; ``None`` for compressed WAV.

    Bytes that are no chunk are data: their length was written wrong, or before the end of a stream was known.
    """
    at, bytes_per_second, data = start + 12, 0, 0
    for number in range(_CHUNKS_MAX + 1):
        kind, size = body[at : min(at + 4, end)], int.from_bytes(body[at + 4 : at + 8], "little")
        rest = end - at - 8
        if rest < 0:
            break
        unknown = kind == b"data" and size in (0, 0xFFFFFFFF)
        if number == _CHUNKS_MAX or unknown or size > rest or not (kind.isascii() and kind.decode().isprintable()):
            data += rest if kind == b"data" else rest + 8
            break
        if kind == b"data":
            data += size
        elif kind == b"fmt " and size >= 16:
            told = _pcm_bytes_per_second(body, at + 8, size)
            if not told:
                return None
            bytes_per_second = min(told, bytes_per_second or told)
        at += 8 + size + (size & 1)
    if not bytes_per_second:
        return None
    seconds = Fraction(data, bytes_per_second)
    return Played(seconds, seconds, exact=True)


def _pcm_bytes_per_second(body: bytes, at: int, size: int) -> int:
    """Of three ways to say one thing, the slowest counts; 0 for what is not PCM."""
    form, channels, rate, average, block, bits = struct.unpack_from("<HHIIHH", body, at)
    if form == _EXTENSIBLE and size >= 26:
        form = int.from_bytes(body[at + 24 : at + 26], "little")
    return min(average, rate * block, rate * channels * (-(-bits // 8))) if form in _PCM_FORMATS else 0


# -- Ogg (RFC 3533), Opus in it (RFC 7845), Vorbis I -------------------------------------------------------------------

_CONTINUED: Final = 1
_FIRST: Final = 2


class _Stream:
    """One logical stream: its samples so far, by its packets and by its positions."""

    __slots__ = ("counted", "flac", "last", "longest", "rate", "shortest", "skipped")

    def __init__(self, rate: int, *, longest: int = 0, shortest: int = 0, skipped: int = 0, flac: bool = False) -> None:
        self.rate = rate
        #: Most and fewest samples of a packet of Vorbis; 0 for Opus and FLAC, where each packet tells.
        self.longest = longest
        self.shortest = shortest
        #: Samples at the beginning that are not played.
        self.skipped = skipped
        self.flac = flac
        self.counted = 0
        self.last = 0

    def played(self) -> Played:
        """What it plays. The last position is believed where its packets can play that long, and no longer."""
        least = self.counted - OPUS_PACKET_SAMPLES_MAX - self.skipped
        if self.longest:
            least = self.counted * self.shortest // self.longest
        last = self.last - self.skipped
        most = Fraction(self.counted, self.rate)
        return Played(Fraction(last, self.rate) if least <= last <= self.counted else most, most, exact=True)


def ogg(body: bytes, start: int, end: int) -> Played | None:
    """All streams of Opus and Vorbis in a file, by the packets in their pages."""
    streams: dict[bytes, _Stream | None] = {}
    ended: list[_Stream] = []
    at, packets = start, 0
    for _ in range(STEPS_MAX):
        if at + 27 > end:
            break
        if body[at : at + 4] != b"OggS":
            # Broken; a player goes on with the next page.
            at = body.find(b"OggS", at + 1, end)
            if at < 0:
                break
            continue
        flags, serial, segments = body[at + 5], body[at + 14 : at + 18], body[at + 26]
        lacing = body[at + 27 : min(at + 27 + segments, end)]
        place = at + 27 + len(lacing)
        packets += len(lacing)
        if packets > FRAMES_MAX:
            return None
        if flags & _FIRST:
            # A chain may begin anew under the same number.
            streams[serial] = stream = _ogg_stream(body, place, end)
            if stream is not None:
                ended.append(stream)
        stream = streams.get(serial)
        if stream is not None:
            stream.counted += _page_samples(body, place, end, lacing, flags, stream)
            stream.last = max(stream.last, int.from_bytes(body[at + 6 : at + 14], "little", signed=True))
        at = min(place + sum(lacing), end)
    else:
        return None
    if not ended:
        return None
    played = [stream.played() for stream in ended]
    seconds = sum((one.seconds for one in played), Fraction(0))
    return Played(seconds, sum((one.most for one in played), Fraction(0)), exact=True)


def _ogg_stream(body: bytes, at: int, end: int) -> _Stream | None:
    """What the first packet of a stream says of it; ``None`` for video and for codecs that are not known here."""
    if body[at : at + 8] == b"OpusHead":
        # More than 80 ms are not skipped, whatever is said.
        return _Stream(OPUS_RATE, skipped=min(int.from_bytes(body[at + 10 : at + 12], "little"), 3840))
    if body[at : at + 7] == b"\x01vorbis" and at + 29 <= end:
        rate, sizes = int.from_bytes(body[at + 12 : at + 16], "little"), body[at + 28]
        return _Stream(rate, longest=max(1, 1 << (sizes >> 4) >> 1), shortest=1 << (sizes & 15) >> 1) if rate else None
    if body[at : at + 5] == b"\x7fFLAC" and body[at + 9 : at + 13] == b"fLaC" and at + 51 <= end:
        rate = int.from_bytes(body[at + 27 : at + 30], "big") >> 4
        return _Stream(rate, flac=True) if rate else None
    return None


def _page_samples(body: bytes, place: int, end: int, lacing: bytes, flags: int, stream: _Stream) -> int:
    """The most samples that the packets which begin in a page play."""
    if stream.longest:
        # A continued packet is counted in both of its pages, which is once too often and never too little.
        return (len(lacing) - lacing.count(255) + lacing.endswith(b"\xff")) * stream.longest
    total, begins = 0, not flags & _CONTINUED
    for size, at in zip(lacing, accumulate(lacing, initial=place), strict=False):
        if begins and stream.flac:
            block, rate = flac_frame(body, at, end) if body[at : at + 1] == b"\xff" else (0, 0)
            total += -(-block * stream.rate // rate) if rate else block
        elif begins:
            total += opus_samples(body, at, end)
        begins = size < 255
    return total


# -- MP4 (ISO 14496-12, 14496-14) --------------------------------------------------------------------------------------

_CONTAINERS: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex")
_DEPTH_MAX: Final = 8


def _boxes(body: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind and content of every box, those of containers in place of them; a last one without a kind: too many."""
    stack = [end]
    at = start
    for _ in range(STEPS_MAX):
        while at + 8 > stack[-1]:
            at = stack.pop()
            if not stack:
                return
        size, kind = int.from_bytes(body[at : at + 4], "big"), body[at + 4 : at + 8]
        head = 8
        if size == 1 and at + 16 <= stack[-1]:
            size, head = int.from_bytes(body[at + 8 : at + 16], "big"), 16
        stop = stack[-1] if size < head else min(at + size, stack[-1])
        if kind in _CONTAINERS and len(stack) < _DEPTH_MAX:
            stack.append(stop)
            at += head
        else:
            yield kind, at + head, stop
            at = stop
    yield b"", end, end


class _Sample(NamedTuple):
    """What one sample of a track plays at most; ``known`` where each plays just that."""

    seconds: Fraction
    known: bool


def mp4(body: bytes, start: int, end: int) -> Played | None:
    """From the durations of the file and of its tracks, and from the number of its samples, whichever is most."""
    told = counted = most = Fraction(0)
    sample: _Sample | None = None
    fragments = 0
    audible = known = False
    for kind, at, stop in _boxes(body, start, end):
        if not kind:
            return None
        if kind in (b"mvhd", b"mdhd"):
            told = max(told, _header_seconds(body, at, stop))
        elif kind == b"hdlr":
            audible = body[at + 8 : at + 12] == b"soun"
        elif kind == b"stsd":
            sample = _sample(body, at, stop, audible) or (sample if fragments else None)
            known |= sample is not None and sample.known
        elif kind in (b"stsz", b"stz2") and sample is not None and at + 12 <= stop:
            # A sample is a byte or more.
            seconds = sample.seconds * min(int.from_bytes(body[at + 8 : at + 12], "big"), end - start)
            most, counted = max(most, seconds), max(counted, seconds if sample.known else counted)
        elif kind == b"trun" and at + 8 <= stop:
            fragments += int.from_bytes(body[at + 4 : at + 8], "big")
    if fragments and sample is not None:
        seconds = sample.seconds * min(fragments, end - start)
        most, counted = max(most, seconds), max(counted, seconds if sample.known else counted)
    seconds = max(told, counted)
    return Played(seconds, max(seconds, most), exact=known) if seconds else None


def _header_seconds(body: bytes, at: int, stop: int) -> Fraction:
    """Duration of a movie or media header; 0 where it is not told."""
    wide = body[at : at + 1] == b"\x01"
    scale_at, width = (at + 20, 8) if wide else (at + 12, 4)
    if scale_at + 4 + width > stop:
        return Fraction(0)
    scale = int.from_bytes(body[scale_at : scale_at + 4], "big")
    units = int.from_bytes(body[scale_at + 4 : scale_at + 4 + width], "big")
    # All ones mean that it is not known.
    return Fraction(units, scale) if scale and units != (1 << 8 * width) - 1 else Fraction(0)


def _sample(body: bytes, at: int, stop: int, audible: bool) -> _Sample | None:
    """What the first sample entry of a track says; ``None`` for what is no audio."""
    if at + 44 > stop:
        return None
    kind, rate = body[at + 12 : at + 16], int.from_bytes(body[at + 40 : at + 42], "big")
    if kind == b"Opus":
        # A packet is one sample; none is longer.
        return _Sample(Fraction(12, 100), False)
    if kind == b"mp4a":
        core = _aac_rate(body, at + 44, stop)
        if core:
            return _Sample(Fraction(1024, core), True)
    elif kind == b"alac":
        # Its own box: version, samples in a frame, and at the end the rate.
        place = body.find(b"alac", at + 44, stop) + 8
        length, rate_told = int.from_bytes(body[place : place + 4], "big"), body[place + 20 : place + 24]
        if place > 7 and place + 24 <= stop and any(rate_told):
            return _Sample(Fraction(length, int.from_bytes(rate_told, "big")), True)
    elif not audible:
        return None
    return _Sample(Fraction(FRAME_SAMPLES_MAX, rate), False) if rate else None


def _aac_rate(body: bytes, at: int, stop: int) -> int:
    """The rate of the core coder in an elementary stream descriptor; 0 where there is none."""
    place = body.find(b"esds", at, stop)
    # The specific information, tag 5, with a length of one to four bytes, stands at the end of short descriptors.
    place = body.find(b"\x05", place + 8 + 13, stop) if place >= 0 else -1
    if place < 0:
        return 0
    place += 1
    while place < stop and body[place] & 0x80:
        place += 1
    if place + 3 > stop:
        return 0
    packed = int.from_bytes(body[place + 1 : place + 3], "big")
    index = packed >> 7 & 15
    return AAC_RATES[index] if packed >> 11 != 31 and index < len(AAC_RATES) else 0


# -- WebM (RFC 9559) ---------------------------------------------------------------------------------------------------

_SEGMENT: Final = 0x18538067
_INFO: Final = 0x1549A966
_SCALE: Final = 0x2AD7B1
_DURATION: Final = 0x4489
_TRACKS: Final = 0x1654AE6B
_TRACK: Final = 0xAE
_NUMBER: Final = 0xD7
_CODEC: Final = 0x86
_CLUSTER: Final = 0x1F43B675
_TIME: Final = 0xE7
_GROUP: Final = 0xA0
_BLOCKS: Final = (0xA1, 0xA3)
_INSIDE: Final = (_SEGMENT, _INFO, _TRACKS, _TRACK, _CLUSTER, _GROUP)

_LACED: Final = 0x06
#: Blocks of codecs that do not tell their length play at most about this long.
_BLOCK_SECONDS: Final = Fraction(1, 5)


def _number(body: bytes, at: int, end: int, *, marked: bool) -> tuple[int, int] | None:
    """A number of variable width and where it ends; ``marked`` leaves the bit in that tells its width."""
    if at >= end or not body[at]:
        return None
    width = 9 - body[at].bit_length()
    if at + width > end:
        return None
    value = int.from_bytes(body[at : at + width], "big")
    return value if marked else value & ((1 << 7 * width) - 1), at + width


class _Tracks:
    """What is known of the tracks of a file, and what their blocks add up to."""

    __slots__ = ("_number", "audible", "laced", "opus", "packets")

    def __init__(self) -> None:
        self._number = 0
        self.audible = False
        #: Numbers of the tracks in Opus; samples of their single packets, and the most of those that share a block.
        self.opus: set[int] = set()
        self.packets = 0
        self.laced = 0

    def member(self, number: int, content: bytes) -> None:
        """A member of a track's entry."""
        if number == _NUMBER:
            self._number = int.from_bytes(content[:8], "big")
        elif number == _CODEC:
            self.audible |= content[:2] == b"A_"
            if content[:6] == b"A_OPUS":
                self.opus.add(self._number)

    def block(self, body: bytes, at: int, stop: int) -> int:
        """Take a block; its time, from that of its cluster."""
        track = _number(body, at, stop, marked=False)
        if track is None or track[1] + 4 > stop:
            return 0
        number, at = track
        if number in self.opus:
            if body[at + 2] & _LACED:
                self.laced += (body[at + 3] + 1) * OPUS_PACKET_SAMPLES_MAX
            else:
                self.packets += opus_samples(body, at + 3, stop)
        return int.from_bytes(body[at : at + 2], "big", signed=True)


def webm(body: bytes, start: int, end: int) -> Played | None:
    """From the duration that is written, the times of blocks and the packets of Opus in them, whichever is most."""
    tracks = _Tracks()
    scale, duration, cluster, latest = 1_000_000, Fraction(0), 0, 0
    at = start
    for _ in range(STEPS_MAX):
        named = _number(body, at, end, marked=True)
        sized = _number(body, named[1], end, marked=False) if named is not None else None
        if named is None or sized is None:
            # The end, or something broken; a player goes on with the next cluster.
            at = body.find(b"\x1f\x43\xb6\x75", at + 1, end)
            if at < 0:
                break
            continue
        number, content = named[0], sized[1]
        if number in _INSIDE:
            # Its members come next. Where a container ends need not be known: no two have a member of one name.
            at = content
            continue
        at = min(content + sized[0], end)
        if number == _SCALE:
            scale = int.from_bytes(body[content : min(at, content + 8)], "big")
        elif number == _DURATION and at - content in (4, 8):
            duration = max(duration, _float(body, content, at))
        elif number in (_NUMBER, _CODEC):
            tracks.member(number, body[content : min(at, content + 64)])
        elif number == _TIME:
            cluster = int.from_bytes(body[content : min(at, content + 8)], "big")
        elif number in _BLOCKS:
            latest = max(latest, cluster + tracks.block(body, content, at))
    else:
        return None
    if not tracks.audible:
        return None
    counted = Fraction(tracks.packets, OPUS_RATE)
    timed = Fraction(latest * scale, 1_000_000_000)
    if timed > counted:
        timed += _BLOCK_SECONDS
    seconds = max(duration * scale / 1_000_000_000, timed, counted)
    return Played(seconds, max(seconds, counted + Fraction(tracks.laced, OPUS_RATE)), exact=bool(tracks.opus))


def _float(body: bytes, at: int, stop: int) -> Fraction:
    # The container writes it in binary (RFC 8794 section 7.3); from here on it is an exact fraction.
    value: float = struct.unpack_from(">f" if stop - at == 4 else ">d", body, at)[0]
    # NaN and infinity are unequal to themselves, or to themselves less themselves.
    return Fraction(value) if value - value == 0 and value > 0 else Fraction(0)
