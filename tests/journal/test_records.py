"""Records: every event survives the trip to bytes and back, and nothing damaged is taken for whole."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import attribution, intended, progressed, recalled, refused, settled
from faregate.core.ledger.events import Awaited, Event, Intended, Lost, Settled, Started
from faregate.core.usage import Measure, Usage
from faregate.errors import Failed, JournalCorrupt
from faregate.journal import records

RARE = Usage(1, other=(Measure("images", "1024x1024/hd", 2), Measure("output_image_tokens", "", 9)))

EVENTS: list[Event] = [
    Started(3, 17),
    intended(1, who=attribution(tags=(("a", "b"), ("c", "ü")))),
    progressed(1, 12),
    Lost("req_1", 5, 502, "upstream_truncated", 12),
    Lost("req_1", 5, 200, "", 12, awaited=Awaited("resp_1", (("flex", "v2"),), b"\x00facts")),
    settled(1),
    settled(1, charge=770, usage=RARE)._replace(cost=700, charge_rule="markup 10 %"),
    settled(1)._replace(cache="miss"),
    recalled(1, charge=7),
    refused(2),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("sequence", [1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63])
def test_round_trip(event: Event, sequence: int) -> None:
    """Every event comes back as it was, with its number, whatever the number's width."""
    frame = records.encode(sequence, event)
    assert records.whole_records(frame) == [(len(frame), event, sequence)]
    assert records.sequence_at(frame, records.HEADER_BYTES) == sequence
    assert records.tag_at(frame, records.HEADER_BYTES) == records.TAGS[type(event)]


@given(st.data())
def test_no_damaged_byte_goes_unseen(data: st.DataObject) -> None:
    """Changing any byte of a record makes it no record."""
    frame = bytearray(records.encode(9, settled(4)))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    assert records.frame_at(bytes(frame), 0, len(frame)) is None
    assert records.whole_records(bytes(frame)) == []


def test_every_cut_is_not_whole() -> None:
    """A record that misses its last bytes is not there yet, however many they are."""
    frame = records.encode(9, intended(4))
    whole = [size for size in range(len(frame)) if records.whole_records(frame[:size])]
    assert whole == []


def test_record_too_large() -> None:
    """An event beyond a mebibyte is refused rather than written where no reader would take it."""
    with pytest.raises(Failed, match="exceeds 1048576"):
        records.encode(1, intended(1, who=attribution(run="r" * 1_100_000)))


def test_events_of_older_versions_are_read() -> None:
    """A journal from before there were rarer units, charge rules and a cache says that none was used and none held."""
    old_intent, old_end = list(intended(1))[:10], list(settled(1))[:17]
    old_end[5] = list(settled(1).usage)[:7]
    for event, old in ((intended(1), old_intent), (settled(1), old_end)):
        payload = msgspec.msgpack.encode((7, records.TAGS[type(event)], old))
        assert records.decode(payload) == (7, event)
    intent, end = intended(1), settled(1)
    assert (type(intent), intent.charge_rule) == (Intended, "")
    assert (type(end), end.charge_rule, end.usage.other) == (Settled, "", ())
    assert (end.cache, end.saved_cost) == ("", 0)


def test_unknown_tag_names_a_newer_version() -> None:
    """An event of a later version is corruption by name, not a guess."""
    with pytest.raises(JournalCorrupt, match="unknown tag 99: a newer version"):
        records.decode(b"\x93\x01\x63\x90")


def test_unknown_shape_is_corrupt() -> None:
    """A known tag with fields that do not fit is corruption too."""
    with pytest.raises(JournalCorrupt, match="cannot read"):
        records.decode(b"\x93\x01\x01\x91\xa1x")


def test_whole_record_behind_damage_is_found() -> None:
    """What lies behind damage is told apart from a torn end by a whole record in it."""
    first, second = records.encode(7, settled(1)), records.encode(8, settled(2))
    damaged = first[:20] + b"?" + first[21:]
    assert records.whole_record_after(damaged + second, 0, 7) == len(damaged)
    assert records.whole_record_after(damaged + second[:-1], 0, 7) is None
