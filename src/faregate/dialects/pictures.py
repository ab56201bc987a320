"""How many pixels a picture has, read from its first bytes. Pure; decodes nothing.

Knows PNG, JPEG, GIF and WebP, which is what model services take. Any other, or one that is odd, is *unknown*: whoever
asks must then assume the worst.
"""

from typing import NamedTuple

#: A larger side is no picture but a trap; formats stop at 65,535, PNG does not.
SIDE_MAX = 65_535
#: A JPEG tells its size after its colour profile and its thumbnail, which stand before it.
_SEGMENTS_MAX = 256


class Size(NamedTuple):
    """Width and height in pixels, each at least 1."""

    width: int
    height: int


def size_of(data: bytes) -> Size | None:
    """The size of the picture that ``data`` begins, ``None`` where it cannot be told."""
    found = None
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        found = _big(data, 16, 4), _big(data, 20, 4)
    elif data[:6] in (b"GIF87a", b"GIF89a"):
        found = _little(data, 6, 2), _little(data, 8, 2)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = _webp(data)
    elif data[:2] == b"\xff\xd8":
        found = _jpeg(data)
    if found is None or not (1 <= found[0] <= SIDE_MAX and 1 <= found[1] <= SIDE_MAX):
        return None
    return Size(*found)


def _big(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "big") if at + length <= len(data) else 0


def _little(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "little") if at + length <= len(data) else 0


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    if kind == b"VP8L" and data[20:21] == b"\x2f" and len(data) >= 25:
        bits = _little(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """The first frame header: segments say their length, so that nothing is searched."""
    at = 2
    for _ in range(_SEGMENTS_MAX):
        if data[at : at + 1] != b"\xff":
            return None
        marker = data[at + 1] if at + 1 < len(data) else 0
        if marker == 0xFF:
            # Padding before a marker.
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return _big(data, at + 7, 2), _big(data, at + 5, 2)
        if marker in (0x01, 0xD9, 0xDA) or 0xD0 <= marker <= 0xD7:
            return None
        at += 2 + _big(data, at + 2, 2)
    return None
