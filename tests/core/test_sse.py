"""Where events end, and what data they carry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.metering import sse

streams = st.lists(st.sampled_from([b"\n", b"\r", b"data: x", b":", b"a", b"data", b" y"]), max_size=14).map(b"".join)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data:x", b"x"),
        (b"data:  x\r\n\r\n", b" x"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\rdata\rdata:b\r\r", b"a\n\nb"),
        (b"event: e\nid: 1\ndata: x\nretry: 5\n\n", b"x"),
        (b"\xef\xbb\xbfdata: x\n\n", b"x"),
        (b": comment\n\n", None),
        (b"event: ping\n\n", None),
        (b"datum: x\n\n", None),
        (b" data: x\n\n", None),
        (b"data\n\n", b""),
        (b"", None),
    ],
)
def test_payload(event: bytes, data: bytes | None) -> None:
    """Data lines are joined, one space after the colon is dropped, everything else is passed over."""
    assert sse.payload(event) == data


@pytest.mark.parametrize(
    ("buffer", "whole"),
    [
        (b"data: x\n\n", b"data: x\n\n"),
        (b"data: x\n\ndata: y", b"data: x\n\n"),
        (b"data: x\n", b""),
        (b"data: x\r\n\r\ndata", b"data: x\r\n\r\n"),
        (b"data: x\r\rdata", b"data: x\r\r"),
        (b"data: x\r\ndata", b""),
        (b"data: x\n\r\ndata", b"data: x\n\r\n"),
        (b"a\n\n\n\n\nb", b"a\n\n\n\n\n"),
        (b"\n\n\nb", b"\n\n\n"),
        (b"", b""),
    ],
)
def test_whole_bytes(buffer: bytes, whole: bytes) -> None:
    """Events end with an empty line in any of the three line ends; further line ends are filler."""
    assert buffer[: sse.whole_bytes(buffer, 0)] == whole


@given(streams)
def test_bytes_are_events_or_filler(stream: bytes) -> None:
    """Spans cover the whole part but for line ends, in order, and give the same data as the quick way."""
    whole = stream[: sse.whole_bytes(stream, 0)]
    spans = list(sse.spans(whole))
    covered = b"".join(whole[start:end] for start, end in spans)
    between = whole
    for start, end in reversed(spans):
        between = between[:start] + between[end:]
    assert len(covered) + len(between) == len(whole)
    assert not between.strip(b"\r\n")
    assert [sse.payload(whole[start:end]) for start, end in spans] == [sse.payload(e) for e in sse.events(whole)]


@given(streams, st.data())
def test_splits_agree(stream: bytes, data: st.DataObject) -> None:
    """The data of all events is the same wherever the stream is cut."""
    at = data.draw(st.integers(0, len(stream)))
    first = sse.whole_bytes(stream[:at], 0)
    rest = stream[first:]
    second = first + sse.whole_bytes(rest, 0)
    together = stream[: sse.whole_bytes(stream, 0)]
    found = [sse.payload(e) for e in [*sse.events(stream[:first]), *sse.events(stream[first:second])]]
    assert found == [sse.payload(e) for e in sse.events(together)]


@pytest.mark.parametrize(
    ("size", "lines", "oversized"),
    [
        (sse.LINE_BYTES_MAX, 1, False),
        (sse.LINE_BYTES_MAX + 1, 1, True),
        (sse.LINE_BYTES_MAX, 3, False),
        (sse.LINE_BYTES_MAX, 5, True),
    ],
)
def test_bounds(size: int, lines: int, oversized: bool) -> None:
    """A line may have 256 KiB and an event 1 MiB."""
    assert sse.is_oversized(b"\n".join([b"x" * size] * lines)) is oversized


@pytest.mark.parametrize(
    ("buffer", "done"),
    [
        (b"data: [DONE]\n\n", True),
        (b"data:[DONE]\r", True),
        (b"x\n\ndata: [DONE]\n", True),
        (b"data: [DONE]", False),
        (b'data: {"content":"data: [DONE]\\n"}\n\n', False),
        (b"xdata: [DONE]\n", False),
    ],
)
def test_done(buffer: bytes, done: bool) -> None:
    """The end mark is a line of its own, with its line end."""
    assert sse.has_done(buffer, 0) is done
