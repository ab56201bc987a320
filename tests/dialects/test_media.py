"""How long a recording plays: never less than the truth, whatever its headers claim, and in bounded time."""

from collections.abc import Callable
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialects import recordings
from dialects.recordings import Made
from faregate.dialects import audio_containers, audio_frames, media


def seconds(made: bytes) -> int:
    """Of a file that stands inside of other bytes, as in a form."""
    return media.length(b"--form\r\n" + made + b"\r\n--form", 8, 8 + len(made)).seconds


@pytest.mark.parametrize(
    "made",
    [
        recordings.wav(16_000 * 7 + 1),
        recordings.wav(8_000 * 10, 8_000),
        recordings.wav(16_000 * 7 + 1, after=b"LIST\4\0\0\0abcd"),
        recordings.mp3([128] * 300),
        recordings.mp3([32, 128, 320] * 100, tag=recordings.id3(5000)),
        recordings.flac(100),
        recordings.opus([0xF8] * 1000),
        recordings.opus([0x18, 0xE0, 0xF9] * 200),
        recordings.aac(500),
        recordings.m4a(500, claimed=11_000),
        recordings.m4a(500, fragmented=True),
        recordings.webm([0xF8] * 500),
        recordings.webm([0xF8] * 500, duration=10_000.0),
    ],
)
def test_honest_files_are_as_long_as_they_play(made: Made) -> None:
    """Each format is measured to the second, started ones counted whole."""
    data, truth = made
    assert seconds(data) == ceil(truth)


@pytest.mark.parametrize(
    "made",
    [
        recordings.wav(16_000 * 60, claimed=2),
        recordings.wav(16_000 * 60, claimed=0),
        recordings.wav(16_000 * 60, claimed=0xFFFFFFFF),
        recordings.mp3([128] * 3000, claimed=10),
        recordings.flac(1000, claimed=16_000),
        recordings.flac(1000, claimed=0),
        recordings.opus([0xF8] * 3000, claimed=48_000),
        recordings.opus([0xF8] * 3000, claimed=-1),
        recordings.m4a(3000, claimed=1),
        recordings.webm([0xF8] * 3000, duration=1.0, frozen=True),
    ],
)
def test_a_header_that_lies_makes_nothing_cheaper(made: Made) -> None:
    """What the frames play counts where a header claims less."""
    data, truth = made
    assert seconds(data) >= truth


def test_a_wav_header_cannot_hide_sound_in_another_chunk() -> None:
    """All data chunks count, and bytes that are no chunk count as data."""
    first, _ = recordings.wav(16_000)
    assert seconds(first + b"data" + (32_000).to_bytes(4, "little") + bytes(32_000)) == 2
    assert seconds(first + b"\1\2\3\4" + bytes(320_000)) == 12


def test_sound_cannot_hide_behind_a_frame_that_claims_to_be_large() -> None:
    """A lone header of another kind among the frames skips nothing."""
    small = recordings.mp3([32] * 50)[0]
    # MPEG 1, layer II, 384 kbit/s: a frame of 1,253 bytes, over twelve frames of 32 kbit/s.
    data = recordings.mp3([32])[0] + (b"\xff\xfd\xe0\xc4" + small) * 100
    assert seconds(data) >= 5000 * 1152 // 44_100


@pytest.mark.parametrize("junk", [b"\xff", b"\xff\xfb", b"\0", b"OggS", b"fLaC", b"RIFF0000WAVE", b"ID3\4\0\0\0\0\0\0"])
def test_what_cannot_be_read_is_taken_at_the_lowest_bit_rate(junk: bytes) -> None:
    """No format is free: unknown bytes count as speech of 6 kbit/s."""
    data = junk * (7500 // len(junk))
    assert media.length(data, 0, len(data)) == media.Length(
        ceil(Fraction(len(data), 750)), ceil(Fraction(len(data), 750))
    )


@pytest.mark.parametrize(
    ("least", "pattern"),
    [
        (audio_containers.STEPS_MAX, recordings.page([], 0)),
        (audio_containers.STEPS_MAX, b"\0\0\0\x08ftyp"),
        (audio_frames.FRAMES_MAX, b"\xff\xf8\x12\x00"),
        (audio_frames.FRAMES_MAX, b"\xff\xf1\x58\x40\x00\xff\xfc"),
        (audio_frames.MISSES_MAX, b"\xff\xe3\xf4"),
    ],
)
def test_walks_are_bounded(least: int, pattern: bytes) -> None:
    """Beyond so many frames, pages or boxes, the bytes alone bound the length."""
    head = recordings.flac(1)[0] if pattern[:2] == b"\xff\xf8" else b""
    data = head + pattern * (least + 10)
    assert media.length(data, 0, len(data)).most >= len(data) * 9 // 10 // audio_frames.BYTES_PER_SECOND_MIN


frames = st.lists(st.sampled_from([32, 128, 320]), min_size=2, max_size=200)
packets = st.lists(st.sampled_from(sorted(recordings.OPUS)), min_size=1, max_size=300)
claims = st.one_of(st.none(), st.integers(0, 2**31 - 1))

MAKERS: dict[str, st.SearchStrategy[Made]] = {
    "wav": st.builds(recordings.wav, st.integers(1, 50_000), st.sampled_from([8_000, 16_000, 44_100]), claimed=claims),
    "mp3": st.builds(recordings.mp3, frames, claimed=claims, tag=st.builds(recordings.id3, st.integers(0, 300))),
    "ogg": st.builds(
        recordings.opus, packets, skipped=st.integers(0, 3840), claimed=claims, in_page=st.integers(1, 100)
    ),
    "flac": st.builds(recordings.flac, st.integers(1, 120), claimed=claims),
    "aac": st.builds(recordings.aac, st.integers(1, 300)),
    "m4a": st.builds(recordings.m4a, st.integers(1, 500), claimed=st.integers(0, 10_000), fragmented=st.booleans()),
    "webm": st.builds(recordings.webm, packets, duration=st.one_of(st.none(), st.floats(0, 1e6)), frozen=st.booleans()),
}


@pytest.mark.parametrize("kind", MAKERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_length_is_never_below_the_truth(kind: str, data: Any) -> None:
    """Whatever is claimed, what would be decoded is counted, and the bound is no less."""
    made, truth = data.draw(MAKERS[kind])
    length = media.length(made, 0, len(made))
    # The last position of Opus may trim the end, as it does in players, by no more than a packet.
    trimmed = Fraction(12, 100) if kind == "ogg" else 0
    assert length.seconds >= truth - trimmed
    assert length.most >= length.seconds


@given(
    st.sampled_from(
        [b"", b"RIFF1234WAVE", b"OggS", b"fLaC\0\0\0\x22", b"\0\0\0\x18ftyp", b"\x1aE\xdf\xa3", b"\xff\xf1", b"ID3"]
    ),
    st.binary(max_size=400),
)
def test_junk_never_raises(head: bytes, junk: bytes) -> None:
    """Any bytes behind any beginning have a length."""
    data = head + junk
    length = media.length(data, 0, len(data))
    assert 0 <= length.seconds <= length.most


@pytest.mark.parametrize("kind", MAKERS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_broken_files_never_raise(kind: str, data: Any) -> None:
    """A file that is cut, or has some bytes changed, has a length."""
    made, _ = data.draw(MAKERS[kind])
    broken = bytearray(made[: data.draw(st.integers(0, len(made)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if broken:
            broken[data.draw(st.integers(0, min(len(broken), 300) - 1))] = data.draw(st.integers(0, 255))
    length = media.length(bytes(broken), 0, len(broken))
    assert 0 <= length.seconds <= length.most


def test_a_file_ends_where_it_is_said_to_end() -> None:
    """What follows a file in the same bytes is not part of it, in any format."""
    makers: list[Callable[[], Made]] = [lambda: recordings.mp3([128] * 50), lambda: recordings.flac(30)]
    makers += [lambda: recordings.opus([0xF8] * 50), lambda: recordings.webm([0xF8] * 50), lambda: recordings.aac(50)]
    for make in makers:
        made, truth = make()
        twice = made + made
        assert media.length(twice, 0, len(made)).seconds == ceil(truth)
