"""First bytes of pictures → their size."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.dialects.pictures import Size, size_of

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 480) + b"\x08\x02\x00\x00\x00"
GIF = b"GIF89a" + struct.pack("<HH", 640, 480)
FRAME = b"\xff\xc2" + struct.pack(">HBHH", 11, 8, 480, 640) + b"\x01\x01\x11\x00"
PROFILE = b"\xff\xe1" + struct.pack(">H", 10) + b"\xff\xc0EXIF\x00\x00"
JPEG = b"\xff\xd8" + PROFILE + b"\xff" + FRAME
WEBP_LOSSY = b"RIFF\x00\x00\x00\x00WEBPVP8 \x00\x00\x00\x00\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 640, 480)
WEBP_LOSSLESS = b"RIFF\x00\x00\x00\x00WEBPVP8L\x00\x00\x00\x00\x2f" + struct.pack("<I", 639 | 479 << 14)
WEBP_WIDE = b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + b"\x7f\x02\x00" + b"\xdf\x01\x00"


@pytest.mark.parametrize("data", [PNG, GIF, JPEG, WEBP_LOSSY, WEBP_LOSSLESS, WEBP_WIDE])
def test_sizes(data: bytes) -> None:
    """Every format tells width and height; none of them does when it is cut before."""
    assert size_of(data) == Size(640, 480)
    assert all(size_of(data[:end]) in (None, Size(640, 480)) for end in range(len(data)))
    assert size_of(data[:9]) is None
    assert size_of(data + b"\x00" * 100) == Size(640, 480)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"BM\x00\x00",
        PNG.replace(struct.pack(">I", 640), struct.pack(">I", 0)),
        PNG.replace(struct.pack(">I", 640), struct.pack(">I", 1 << 31)),
        b"\xff\xd8\xff\xda\x00\x02" + FRAME,
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * 1000 + FRAME,
    ],
)
def test_unknown(data: bytes) -> None:
    """Other formats, sizes that no picture has, and files that hide their size are unknown."""
    assert size_of(data) is None


@given(st.binary(max_size=64), st.sampled_from([b"", PNG[:16], b"\xff\xd8\xff", b"RIFF1234WEBPVP8", b"GIF89a"]))
def test_any_bytes(junk: bytes, start: bytes) -> None:
    """Any bytes are a size within bounds or unknown."""
    size = size_of(start + junk)
    assert size is None or min(size) >= 1
