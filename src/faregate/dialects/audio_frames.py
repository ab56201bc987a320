"""How long streams of audio frames play: MP3, AAC (ADTS), FLAC and Opus packets, from frame headers alone.

Counts what a decoder would decode, whatever other headers claim, in time that grows with the bytes and no faster.
Nothing is decoded and nothing copied; all functions take ``body`` with the range to look at, and never raise.
"""

import re
import struct
from collections import Counter
from fractions import Fraction
from typing import Final

#: Places that look like a frame and are none, before the rest of a file is counted at its lowest bit rate instead.
MISSES_MAX: Final = 4096
#: Frames and packets counted in one file, each of which costs a microsecond; more are bounded by their bytes.
FRAMES_MAX: Final = 500_000

#: 6 kbit/s, the lowest bit rate of Opus (RFC 6716, section 2.1.1), which codes speech the tightest of all that
#: transcription services take. What cannot be read is taken to be that.
BYTES_PER_SECOND_MIN: Final = 750

# -- MPEG audio (ISO 11172-3, 13818-3) ---------------------------------------------------------------------------------

_BIT_RATES: Final = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
#: Sample rates by the two bits of the version: 2.5, reserved, 2, 1.
_SAMPLE_RATES: Final = ((11025, 12000, 8000), (), (22050, 24000, 16000), (44100, 48000, 32000))


def _mpeg_frame(second: int, third: int) -> tuple[int, int, int]:
    """Bytes, samples and sample rate of a frame, from the second and third byte of its header; zeros for none."""
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    rate_index, bit_rate_index = third >> 2 & 3, third >> 4
    if version == 1 or layer == 4 or rate_index == 3 or not 0 < bit_rate_index < 15:
        return 0, 0, 0
    bit_rate = 1000 * _BIT_RATES[1 if version == 3 else 2, layer][bit_rate_index - 1]
    rate = _SAMPLE_RATES[version][rate_index]
    padding = third >> 1 & 1
    if layer == 1:
        return 4 * (12 * bit_rate // rate + padding), 384, rate
    samples = 1152 if layer == 2 or version == 3 else 576
    return samples // 8 * bit_rate // rate + padding, samples, rate


#: The eleven bits that every header begins with end in its second byte.
_SYNC: Final = 0xE000
#: By the second and third byte of a header, from ``_SYNC`` on: the bytes of its frame, 0 for none.
_MPEG_FRAMES: Final = tuple(_mpeg_frame(key >> 8, key & 0xFF) for key in range(_SYNC, 0x10000))
_MPEG_BYTES: Final = tuple(frame[0] for frame in _MPEG_FRAMES)
#: The bits that all frames of a stream share: version, layer and sample rate.
_KIND: Final = 0x1E0C


def mpeg_seconds(body: bytes, start: int, end: int) -> Fraction | None:
    """MPEG audio of layers I to III from its frames; ``None`` where there are none.

    A variable-rate header that claims more is believed, one that claims less is not.
    """
    found: Counter[int] = Counter()
    at, misses, first, kind = start, 0, -1, -1
    lengths = _MPEG_BYTES
    rest = 0
    while at + 4 <= end:
        if body[at] == 0xFF:
            key = (body[at + 1] << 8 | body[at + 2]) - _SYNC
            length = lengths[key] if key >= 0 else 0
            # A frame of the stream's own kind, or any that another follows; a lone sync pattern in other bytes is none.
            if length and (key & _KIND == kind or _follows(body, at + length, end)):
                if first < 0:
                    first, kind = at, key & _KIND
                found[key] += 1
                at += length
                continue
        misses += 1
        if misses > MISSES_MAX:
            rest = end - at
            break
        next_sync = body.find(b"\xff", at + 1, end)
        if next_sync < 0:
            break
        at = next_sync
    if first < 0:
        return None
    samples: Counter[int] = Counter()
    for key, times in found.items():
        samples[_MPEG_FRAMES[key][2]] += times * _MPEG_FRAMES[key][1]
    counted = _seconds(samples) + Fraction(rest, BYTES_PER_SECOND_MIN)
    return max(counted, _claimed(body, first, end))


def _follows(body: bytes, at: int, end: int) -> bool:
    if at >= end - 4:
        return True
    key = (body[at + 1] << 8 | body[at + 2]) - _SYNC
    return body[at] == 0xFF and key >= 0 and _MPEG_BYTES[key] > 0


def _claimed(body: bytes, first: int, end: int) -> Fraction:
    """What a Xing, Info or VBRI header in the first frame says; 0 without one."""
    length, samples, rate = _MPEG_FRAMES[(body[first + 1] << 8 | body[first + 2]) - _SYNC]
    stop = min(first + length, end)
    for mark, place in ((b"Xing", 8), (b"Info", 8), (b"VBRI", 14)):
        at = body.find(mark, first, stop)
        if at >= 0 and at + place + 4 <= stop:
            if mark != b"VBRI" and not body[at + 7] & 1:
                continue
            return Fraction(struct.unpack_from(">I", body, at + place)[0] * samples, rate)
    return Fraction(0)


def _seconds(samples: Counter[int]) -> Fraction:
    return sum((Fraction(count, rate) for rate, count in samples.items()), Fraction(0))


# -- AAC in ADTS (ISO 13818-7) -----------------------------------------------------------------------------------------

AAC_RATES: Final = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


def adts_seconds(body: bytes, start: int, end: int) -> Fraction | None:
    """AAC in ADTS frames; ``None`` where it does not begin with one."""
    samples: Counter[int] = Counter()
    at = start
    for _ in range(FRAMES_MAX):
        if at + 7 > end:
            break
        rate = body[at + 2] >> 2 & 15
        length = (body[at + 3] & 3) << 11 | body[at + 4] << 3 | body[at + 5] >> 5
        if body[at] != 0xFF or body[at + 1] & 0xF6 != 0xF0 or rate >= len(AAC_RATES) or length < 7:
            break
        samples[AAC_RATES[rate]] += 1024 * ((body[at + 6] & 3) + 1)
        at += length
    return _seconds(samples) + Fraction(max(end - at, 0), BYTES_PER_SECOND_MIN) if samples else None


# -- FLAC (RFC 9639) ---------------------------------------------------------------------------------------------------

_FLAC_SYNC: Final = re.compile(rb"\xff[\xf8\xf9]")
_FLAC_RATES: Final = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)


def flac_seconds(body: bytes, start: int, end: int) -> Fraction | None:
    """FLAC from STREAMINFO and from its frames, whichever is more; ``None`` where it is none or has too many frames."""
    if end - start < 42 or body[start : start + 4] != b"fLaC" or body[start + 4] & 0x7F:
        return None
    packed = int.from_bytes(body[start + 18 : start + 26], "big")
    rate, total = packed >> 44, packed & 0xF_FFFF_FFFF
    if not rate:
        return None
    samples: Counter[int] = Counter()
    for number, match in enumerate(_FLAC_SYNC.finditer(body, start + 42, end)):
        if number >= FRAMES_MAX:
            return None
        block, own_rate = flac_frame(body, match.start(), end)
        samples[own_rate or rate] += block
    return max(Fraction(total, rate), _seconds(samples))


def flac_frame(body: bytes, at: int, end: int) -> tuple[int, int]:
    """Samples and own sample rate (0: the stream's) of the frame header at ``at``; no samples where it is none."""
    if at + 6 > end:
        return 0, 0
    block_code, rate_code = body[at + 2] >> 4, body[at + 2] & 15
    if not block_code or rate_code == 15 or body[at + 3] >> 4 > 10 or body[at + 3] & 1:
        return 0, 0
    place = at + 4
    # The frame's number, written like a character of UTF-8 of up to seven bytes.
    lead = body[place]
    place += 1 if lead < 0x80 else max(1, 8 - (lead ^ 0xFF).bit_length())
    rate = _FLAC_RATES[rate_code] if rate_code < 12 else 0
    if block_code == 1:
        block = 192
    elif block_code < 6:
        block = 144 << block_code
    elif block_code > 7:
        block = 1 << block_code
    else:
        width = block_code - 5
        block = int.from_bytes(body[place : place + width], "big") + 1
        place += width
    if rate_code >= 12:
        width = 1 if rate_code == 12 else 2
        rate = int.from_bytes(body[place : place + width], "big") * (1, 1, 10)[rate_code - 12]
        rate *= 1000 if rate_code == 12 else 1
        place += width
    if place >= end or _crc8(body[at:place]) != body[place]:
        return 0, 0
    return block, rate


def _crc8_of(value: int) -> int:
    for _ in range(8):
        value = (value << 1) ^ 0x107 if value & 0x80 else value << 1
    return value


_CRC8: Final = bytes(_crc8_of(value) for value in range(256))


def _crc8(header: bytes) -> int:
    checksum = 0
    for byte in header:
        checksum = _CRC8[checksum ^ byte]
    return checksum


# -- Opus packets (RFC 6716, section 3.1) ------------------------------------------------------------------------------

OPUS_RATE: Final = 48_000
#: No packet plays longer than 120 ms.
OPUS_PACKET_SAMPLES_MAX: Final = 5760


def _opus_frame(toc: int) -> int:
    config = toc >> 3
    if config < 12:
        return (480, 960, 1920, 2880)[config & 3]
    if config < 16:
        return (480, 960)[config & 1]
    return (120, 240, 480, 960)[config & 3]


#: Samples by the first byte of a packet; 0 where its second byte says how many frames it has.
OPUS_SAMPLES: Final = tuple(_opus_frame(toc) * (1, 2, 2, 0)[toc & 3] for toc in range(256))


def opus_samples(body: bytes, at: int, end: int) -> int:
    """Samples at 48 kHz of the packet that stands at ``at``; none of one that no decoder takes, as it is too long."""
    if at >= end:
        return 0
    samples = OPUS_SAMPLES[body[at]]
    if samples:
        return samples
    frames = body[at + 1] & 0x3F if at + 1 < end else 0
    samples = _opus_frame(body[at]) * frames
    return samples if samples <= OPUS_PACKET_SAMPLES_MAX else 0
