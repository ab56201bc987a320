"""The reader: follows a writer, calls a half-written record nothing yet, and names damage by its position."""

from pathlib import Path

import pytest

from builders import HeldClock, intended, settled
from faregate.errors import JournalCorrupt
from faregate.journal.append import FileJournal
from faregate.journal.read import FileJournalReader
from faregate.journal.records import RECORD_BYTES_MAX
from faregate.journal.segments import list_segments, start_at


def filled(folder: Path, calls: int, *, segment_bytes: int = 1 << 20) -> FileJournal:
    journal = FileJournal(
        folder, HeldClock(), lambda callback: callback(), segment_bytes=segment_bytes, reserve_bytes=4096
    )
    for number in range(calls):
        journal.append(intended(number))
        journal.append(settled(number))
    return journal


def walk(reader: FileJournalReader) -> int:
    position = 0
    while found := reader.read(position, 100_000):
        position = found[-1].position
    return position


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_no_journal_is_nothing_yet(folder: Path) -> None:
    """A reader that comes before the writer finds nothing, and no error."""
    reader = FileJournalReader(folder)
    assert list(reader.read(0, 1_000)) == []
    assert list(reader.segments()) == []


def test_follows_the_writer(folder: Path) -> None:
    """What was appended meanwhile is read on, across segments, with positions and numbers without a gap."""
    journal = filled(folder, 0, segment_bytes=1_500)
    reader = FileJournalReader(folder)
    position, numbers = 0, []
    for number in range(30):
        journal.append(intended(number))
        for record in reader.read(position, 10_000):
            numbers.append(record.sequence)
            position = record.position
    journal.close()
    numbers += [record.sequence for record in reader.read(position, 10_000)]
    assert numbers == list(range(1, 32))
    assert position == journal.position


def test_reads_about_what_was_asked_for(folder: Path) -> None:
    """A batch is bounded, yet one record comes even where it is larger than what was asked for."""
    filled(folder, 50).close()
    reader = FileJournalReader(folder)
    assert len(reader.read(0, 1)) >= 1
    few, all_of_them = reader.read(0, 2_000), reader.read(0, 1_000_000)
    assert len(few) < 20
    assert len(all_of_them) == 101


def test_half_a_record_is_nothing_yet(folder: Path) -> None:
    """The torn end is skipped until the writer has finished it."""
    filled(folder, 3).close()
    (segment,) = list_segments(folder)
    whole = segment.path.read_bytes()
    segment.path.write_bytes(whole[:-7])
    reader = FileJournalReader(folder)
    found = reader.read(0, 100_000)
    assert len(found) == 6
    assert list(reader.read(found[-1].position, 100_000)) == []
    segment.path.write_bytes(whole)
    assert len(reader.read(found[-1].position, 100_000)) == 1


def test_damage_in_the_middle_is_named(folder: Path) -> None:
    """A bad record with whole ones behind it is corruption at its position."""
    filled(folder, 3).close()
    (segment,) = list_segments(folder)
    reader = FileJournalReader(folder)
    second = reader.read(0, 100_000)[1].position
    whole = bytearray(segment.path.read_bytes())
    whole[second + 30] ^= 1
    segment.path.write_bytes(whole)
    found = FileJournalReader(folder).read(0, 100_000)
    assert found[-1].position == second
    with pytest.raises(JournalCorrupt, match=f"damaged at position {second}"):
        reader.read(second, 100_000)


def test_damage_at_the_end_of_a_finished_segment(folder: Path) -> None:
    """Nothing torn may be left where the writer went on in the next segment."""
    filled(folder, 20, segment_bytes=2_000).close()
    first, after, *_ = list_segments(folder)
    whole = bytearray(first.path.read_bytes())
    whole[-3] ^= 1
    first.path.write_bytes(whole)
    reader = FileJournalReader(folder)
    with pytest.raises(JournalCorrupt, match="damaged at position"):
        walk(reader)
    assert list(reader.read(after.first, 100_000)) != []


def test_missing_segment_is_named(folder: Path) -> None:
    """A segment that is gone from the middle is named by the position it began at."""
    filled(folder, 20, segment_bytes=2_000).close()
    _, second, *_ = list_segments(folder)
    second.path.unlink()
    reader = FileJournalReader(folder)
    with pytest.raises(JournalCorrupt, match=f"misses the bytes from position {second.first}"):
        walk(reader)


def test_removed_beginning_is_named(folder: Path) -> None:
    """Asking for positions whose segment was removed is an error, not an empty answer."""
    filled(folder, 20, segment_bytes=2_000).close()
    list_segments(folder)[0].path.unlink()
    with pytest.raises(JournalCorrupt, match="misses the bytes from position 0"):
        FileJournalReader(folder).read(0, 1_000)


def test_journal_that_ends_before_the_books(folder: Path) -> None:
    """A position beyond the end says that the journal lost what the books have."""
    end = filled(folder, 2)
    end.close()
    with pytest.raises(JournalCorrupt, match=f"ends at {end.position}, before position {end.position + 5}"):
        FileJournalReader(folder).read(end.position + 5, 1_000)


def test_missing_number_is_named(folder: Path) -> None:
    """A record cut out of the middle is missed by its number, though every checksum holds."""
    filled(folder, 3).close()
    (segment,) = list_segments(folder)
    ends = [record.position for record in FileJournalReader(folder).read(0, 100_000)]
    whole = segment.path.read_bytes()
    segment.path.write_bytes(whole[: ends[1]] + whole[ends[2] :])
    with pytest.raises(JournalCorrupt, match="record 4 where 3 belongs"):
        FileJournalReader(folder).read(0, 100_000)


def test_restored_journal_goes_on_where_the_backup_stands(folder: Path) -> None:
    """A journal that begins at a later position keeps positions, numbers and epochs of the one before."""
    start_at(folder, 5_000, 42, 7)
    journal = filled(folder, 1)
    journal.close()
    found = FileJournalReader(folder).read(5_000, 100_000)
    assert [record.sequence for record in found] == [42, 43, 44]
    assert journal.epoch == 8
    assert found[-1].position == journal.position


def test_largest_record_is_read(folder: Path) -> None:
    """A record near the bound is read whole even where less was asked for."""
    journal = filled(folder, 0)
    large = intended(1)._replace(idempotency_key="k" * (RECORD_BYTES_MAX - 1_000))
    journal.append(large)
    journal.close()
    reader = FileJournalReader(folder)
    position = reader.read(0, 100)[-1].position
    assert reader.read(position, 100)[0].event == large


def test_removable_segments_leave_chained_digests(folder: Path) -> None:
    """Only what is projected, old and not the last may go; each digest sums its segment and is chained."""
    journal = filled(folder, 20, segment_bytes=2_000)
    journal.close()
    reader = FileJournalReader(folder)
    kept = list_segments(folder)
    assert reader.removable(journal.position, older_than=0) == []
    old = reader.removable(kept[3].first, older_than=1 << 62)
    assert old == kept[:3]
    assert reader.removable(journal.position, older_than=1 << 62) == kept[:-1]
    before, digests = "", []
    for segment in old:
        digests.append(reader.digest(segment, before))
        before = digests[-1].sha256
        reader.remove(segment)
    assert [digest.end for digest in digests] == [segment.first for segment in kept[1:4]]
    assert sum(digest.records for digest in digests) == kept[3].sequence - 1
    assert len({digest.sha256 for digest in digests}) == 3
    assert [first for first, _ in reader.segments()] == [segment.first for segment in kept[3:]]
