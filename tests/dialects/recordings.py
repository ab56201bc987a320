"""Small recordings whose length is known, written here byte by byte; what they hold is silence or nothing."""

import io
import struct
import wave
from collections.abc import Sequence
from fractions import Fraction

Made = tuple[bytes, Fraction]


def wav(samples: int, rate: int = 16_000, *, claimed: int | None = None, after: bytes = b"") -> Made:
    """PCM of 16 bits; ``claimed`` bytes of data stand in its header instead of the true ones."""
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(rate)
        opened.writeframes(bytes(2 * samples))
    data = file.getvalue()
    if claimed is not None:
        data = data[:40] + struct.pack("<I", claimed) + data[44:]
    return data + after, Fraction(samples, rate)


#: MPEG 1, layer III: header, bytes of the frame; of each 1,152 samples at 44,100 Hz.
MP3_FRAMES = {128: (b"\xff\xfb\x90\xc4", 417), 32: (b"\xff\xfb\x10\xc4", 104), 320: (b"\xff\xfb\xe0\xc4", 1044)}


def mp3(rates: Sequence[int], *, tag: bytes = b"", claimed: int | None = None) -> Made:
    """Frames of these bit rates; ``claimed`` frames stand in a Xing header, which is a frame, too."""
    frames = [head + bytes(size - 4) for head, size in (MP3_FRAMES[rate] for rate in rates)]
    if claimed is not None:
        head, size = MP3_FRAMES[128]
        frames.insert(0, (head + bytes(32) + b"Xing" + struct.pack(">II", 1, claimed)).ljust(size, b"\0"))
    return tag + b"".join(frames), Fraction(1152 * len(rates), 44_100)


def id3(size: int) -> bytes:
    """A tag of so many bytes before the sound."""
    return b"ID3\x04\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + bytes(size)


def page(packets: Sequence[bytes], position: int, *, flags: int = 0, serial: bytes = b"abcd") -> bytes:
    """A page of Ogg with whole packets; checksums are left out, as nobody here looks at them."""
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    head = b"OggS\0" + bytes([flags]) + struct.pack("<q", position) + serial + bytes(8) + bytes([len(lacing)])
    return head + lacing + b"".join(packets)


#: A first byte of Opus packets → samples at 48 kHz.
OPUS = {0xF8: 960, 0x78: 960, 0x18: 2880, 0xE0: 120, 0xF9: 1920}


def opus(kinds: Sequence[int], *, skipped: int = 312, claimed: int | None = None, in_page: int = 40) -> Made:
    """Packets of these first bytes; ``claimed`` samples stand in the last page instead of the true ones."""
    total = sum(OPUS[kind] for kind in kinds)
    head = b"OpusHead\1\1" + struct.pack("<HIhB", skipped, 48_000, 0, 0)
    data = page([head], 0, flags=2) + page([b"OpusTags" + bytes(8)], 0)
    position = 0
    for first in range(0, len(kinds), in_page):
        part = kinds[first : first + in_page]
        position += sum(OPUS[kind] for kind in part)
        told = claimed if claimed is not None and first + in_page >= len(kinds) else position
        data += page([bytes([kind]) + bytes(30) for kind in part], told)
    return data, Fraction(max(0, total - skipped), 48_000)


def flac(blocks: int, rate: int = 16_000, *, claimed: int | None = None) -> Made:
    """Frames of 4,096 samples; ``claimed`` samples stand in STREAMINFO instead of the true ones."""
    told = 4096 * blocks if claimed is None else claimed
    packed = (rate << 44 | 15 << 36 | told).to_bytes(8, "big")
    data = b"fLaC\x80\0\0\x22" + struct.pack(">HH", 4096, 4096) + bytes(6) + packed + bytes(16)
    for number in range(blocks):
        head = b"\xff\xf8\xc0\x08" + chr(number).encode()
        data += head + bytes([_crc8(head)]) + bytes(8)
    return data, Fraction(4096 * blocks, rate)


def _crc8(data: bytes) -> int:
    checksum = 0
    for byte in data:
        checksum ^= byte
        for _ in range(8):
            checksum = (checksum << 1 ^ 0x107 if checksum & 0x80 else checksum << 1) & 0xFF
    return checksum


def aac(frames: int) -> Made:
    """ADTS frames at 24 kHz."""
    return (b"\xff\xf1\x58\x40\x04\x1f\xfc" + bytes(25)) * frames, Fraction(1024 * frames, 24_000)


def box(kind: bytes, *content: bytes) -> bytes:
    """A box of MP4."""
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


def m4a(frames: int, *, claimed: int = 0, fragmented: bool = False) -> Made:
    """AAC at 44,100 Hz; ``claimed`` milliseconds stand in its headers."""
    entry = bytes(8) + bytes(8) + struct.pack(">HHHHI", 1, 16, 0, 0, 44_100 << 16)
    specific = b"\x05\x80\x80\x80\x02\x12\x10"
    esds = box(b"esds", bytes(4), b"\x03\x19\0\1\0", b"\x04\x11\x40\x15", bytes(11), specific, b"\x06\x01\x02")
    stsd = box(
        b"stsd", struct.pack(">II", 0, 1), struct.pack(">I", 8 + len(entry) + len(esds)) + b"mp4a" + entry + esds
    )
    stsz = box(b"stsz", struct.pack(">III", 0, 0, 0 if fragmented else frames))
    mdhd = box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, 1000, claimed, 0))
    hdlr = box(b"hdlr", struct.pack(">II", 0, 0), b"soun", bytes(12))
    media = box(b"mdia", mdhd, hdlr, box(b"minf", box(b"stbl", stsd, stsz)))
    moov = box(b"moov", box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1000, claimed)), box(b"trak", media))
    data = box(b"ftyp", b"M4A ") + moov
    if fragmented:
        data += box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 0, frames))))
    return data + box(b"mdat", bytes(6 * frames)), Fraction(1024 * frames, 44_100)


def element(number: int, content: bytes, *, open_ended: bool = False) -> bytes:
    """An element of WebM."""
    name = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return name + (b"\xff" if open_ended else struct.pack(">Q", len(content) | 1 << 56)) + content


def webm(kinds: Sequence[int], *, duration: float | None = None, frozen: bool = False) -> Made:
    """Opus packets of these first bytes; ``frozen`` lets every block claim the time 0."""
    info = element(0x2AD7B1, b"\x0f\x42\x40")
    if duration is not None:
        info += element(0x4489, struct.pack(">d", duration))
    track = element(0xAE, element(0xD7, b"\1") + element(0x86, b"A_OPUS"))
    data = element(0x1A45DFA3, b"") + element(0x18538067, b"", open_ended=True) + element(0x1549A966, info)
    data += element(0x1654AE6B, track)
    at = 0
    for first in range(0, len(kinds), 50):
        data += element(0x1F43B675, b"", open_ended=True) + element(
            0xE7, (0 if frozen else at // 48).to_bytes(4, "big")
        )
        start = at
        for kind in kinds[first : first + 50]:
            time = 0 if frozen else (at - start) // 48
            data += element(0xA3, b"\x81" + struct.pack(">hB", time, 0x80) + bytes([kind]) + bytes(20))
            at += OPUS[kind]
    return data, Fraction(at, 48_000)
