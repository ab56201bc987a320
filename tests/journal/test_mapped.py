"""Segments whose room is taken beforehand: where their data ends, what is left of them, and who follows them live."""

import mmap
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders import HeldClock, intended, request_id, settled
from faregate.core.ledger.events import Intended, Started
from faregate.errors import Failed, JournalCorrupt
from faregate.journal.append import FileJournal
from faregate.journal.mapped import MappedSegment, allocate, end_of_data
from faregate.journal.read import FileJournalReader
from faregate.journal.segments import FILE_MODE, list_segments
from faregate.journal.spare import Spare
from faregate.ports import JournalRecord

SOURCE = Path(__file__).parents[2] / "src"
TESTS = Path(__file__).parents[1]

CAPACITY = 8_000


def opened(folder: Path, segment_bytes: int = CAPACITY) -> FileJournal:
    return FileJournal(folder, HeldClock(), lambda callback: callback(), segment_bytes=segment_bytes)


def calls(journal: FileJournal, count: int) -> None:
    for number in range(count):
        journal.append(intended(number))
        journal.append(settled(number))


def everything(folder: Path, position: int = 0) -> list[JournalRecord]:
    reader = FileJournalReader(folder)
    found: list[JournalRecord] = []
    while records := reader.read(position, 100_000):
        found += records
        position = records[-1].position
    reader.close()
    return found


def as_killed(folder: Path, copy: Path) -> Path:
    """The files of a live journal as kill -9 would leave them."""
    shutil.copytree(folder, copy)
    return copy


def uncut(folder: Path) -> None:
    """Give every segment its whole room back, as if the writer had been killed before it put them away."""
    for segment in list_segments(folder):
        os.truncate(segment.path, CAPACITY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_room_is_taken_beforehand_and_given_back(folder: Path) -> None:
    """While it is written to, a segment is as long as it may get; when it is finished, as long as its records."""
    journal = opened(folder)
    calls(journal, 60)
    live = [segment.size for segment in list_segments(folder)]
    journal.close()
    kept = list_segments(folder)
    assert live[-1] == CAPACITY
    assert len(kept) > 2
    assert [segment.first + segment.size for segment in kept] == [
        *(segment.first for segment in kept[1:]),
        journal.position,
    ]


def test_what_a_killed_writer_leaves_is_whole(folder: Path, tmp_path: Path) -> None:
    """The room behind the last record is not mistaken for damage, and is written on."""
    journal = opened(folder)
    calls(journal, 30)
    copy = as_killed(folder, tmp_path / "copy")
    again = opened(copy)
    assert (again.recovered.position, again.recovered.cut_bytes) == (journal.position, 0)
    calls(again, 30)
    journal.close()
    again.close()
    sequences = [record.sequence for record in everything(copy)]
    assert sequences == list(range(1, 1 + 2 * (1 + 60)))


def test_uncut_segments_read_as_one(folder: Path) -> None:
    """A rolled segment that is still longer than its data joins up with the next, and has the same digest."""
    journal = opened(folder)
    calls(journal, 60)
    journal.close()
    reader = FileJournalReader(folder)
    before = everything(folder)
    digests = [reader.digest(segment, "") for segment in list_segments(folder)]
    ends = list(reader.segments())
    uncut(folder)
    assert everything(folder) == before
    assert [reader.digest(segment, "") for segment in list_segments(folder)[:-1]] == digests[:-1]
    assert list(reader.segments()) == ends


def test_the_next_start_cuts_them(folder: Path) -> None:
    """What a killed writer did not put away is put away by the one after it."""
    journal = opened(folder)
    calls(journal, 60)
    journal.close()
    uncut(folder)
    again = opened(folder)
    kept = list_segments(folder)
    assert again.recovered.position == journal.position
    assert [segment.first + segment.size for segment in kept[:-1]] == [segment.first for segment in kept[1:]]
    again.close()


def test_a_power_cut_between_two_segments(folder: Path) -> None:
    """If the end of an unsynced segment is lost, those after it are set aside, and the journal goes on before them."""
    journal = opened(folder)
    calls(journal, 60)
    journal.close()
    first, torn, *lost = list_segments(folder)
    uncut(folder)
    os.truncate(first.path, torn.first)
    whole = [record for record in everything(folder) if record.position <= lost[0].first]
    with torn.path.open("r+b") as file:
        file.seek(lost[0].first - torn.first - 3)
        file.write(bytes(3))
    again = opened(folder)
    assert again.recovered.position == whole[-2].position
    assert Path(again.recovered.kept_file).name == f"cut-{lost[0].first:020d}"
    assert len(list(folder.glob("cut-*"))) == len(lost)
    again.append(intended(1_000))
    again.close()
    found = everything(folder)
    assert found[:-2] == whole[:-1]
    assert found[-1].event == intended(1_000)


def test_damage_of_a_synced_segment_sets_nothing_aside(folder: Path) -> None:
    """A segment that was cut was whole on the disk once: what is wrong with it now is for the reader to name."""
    journal = opened(folder)
    calls(journal, 60)
    journal.close()
    first, *_ = list_segments(folder)
    with first.path.open("r+b") as file:
        file.seek(first.size - 3)
        file.write(bytes(3))
    opened(folder).close()
    assert list(folder.glob("cut-*")) == []
    with pytest.raises(JournalCorrupt, match="damaged at position"):
        everything(folder)


def test_a_position_behind_the_data_is_named(folder: Path) -> None:
    """Books that are ahead of the journal are told so, though the file is long enough."""
    journal = opened(folder)
    calls(journal, 3)
    end = journal.position
    with pytest.raises(JournalCorrupt, match=f"ends at {end}, before position {end + 5}"):
        FileJournalReader(folder).read(end + 5, 1_000)
    reader = FileJournalReader(folder)
    assert list(reader.read(end, 1_000)) == []
    journal.append(intended(9))
    assert [record.event for record in reader.read(end, 1_000)] == [intended(9)]
    journal.close()


def test_an_end_with_records_behind_it_is_damage(folder: Path) -> None:
    """A header that became zeros is not taken for the end of the data."""
    journal = opened(folder)
    calls(journal, 3)
    second, third = everything(folder)[1:3]
    with list_segments(folder)[0].path.open("r+b") as file:
        file.seek(second.position)
        file.write(bytes(8))
    with pytest.raises(JournalCorrupt, match=f"damaged at position {second.position}"):
        FileJournalReader(folder).read(second.position, 1_000)
    assert FileJournalReader(folder).read(third.position, 1_000) != []
    journal.close()


def test_a_record_larger_than_a_segment_is_refused(folder: Path) -> None:
    """It would fit nowhere; the journal goes on."""
    journal = opened(folder)
    with pytest.raises(Failed, match="exceeds a segment"):
        journal.append(intended(1)._replace(idempotency_key="k" * CAPACITY))
    journal.append(intended(2))
    journal.close()
    assert everything(folder)[-1].event == intended(2)


def test_records_of_a_lost_name_do_not_come_back(folder: Path) -> None:
    """A spare that holds something, as a power cut may leave it, is emptied before it is used."""
    journal = opened(folder)
    calls(journal, 3)
    journal.close()
    (segment,) = list_segments(folder)
    shutil.copy(segment.path, folder / "spare")
    os.truncate(folder / "spare", CAPACITY)
    spare = Spare(folder, CAPACITY)
    assert spare.prepare(durably=True)
    assert (folder / "spare").read_bytes() == bytes(CAPACITY)
    spare.close()


def test_a_spare_that_finds_no_room_leaves_nothing(folder: Path) -> None:
    """What could not be made whole takes no room, and is asked for again."""
    spare = Spare(folder / "missing", CAPACITY)
    assert not spare.prepare(durably=False)
    (folder / "missing").mkdir(parents=True)
    assert spare.prepare(durably=False)
    assert (folder / "missing" / "spare").stat().st_size == CAPACITY
    spare.close()


def test_a_spare_that_cannot_be_mapped_is_refused_like_one_without_room(folder: Path) -> None:
    """Mapping says so with another error; it leaves no file and no descriptor either."""
    folder.mkdir()
    spare = Spare(folder, 0)
    before = len(os.listdir("/proc/self/fd"))
    assert not spare.prepare(durably=True)
    assert spare.refused
    assert list(folder.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_journal_of_an_older_version_goes_on(folder: Path) -> None:
    """A last segment longer than segments are now is finished as it is."""
    journal = opened(folder, 1 << 20)
    calls(journal, 60)
    journal.close()
    again = opened(folder)
    calls(again, 1)
    again.close()
    assert [segment.first for segment in list_segments(folder)] == [0, journal.position]
    assert len(everything(folder)) == 1 + 2 * 60 + 1 + 2


def test_zeros_at_the_end_of_data_may_belong_to_it(tmp_path: Path) -> None:
    """Only what must be room is called room."""
    file = tmp_path / "file"
    file.write_bytes(b"\1\0\0" + bytes(3_000_000) + b"\2\0" + bytes(3_000_000))
    descriptor = os.open(file, os.O_RDONLY)
    size = file.stat().st_size
    assert end_of_data(descriptor, 3_000_005, size) == 3_000_005
    assert end_of_data(descriptor, 10, size) == 3_000_004 + 64
    assert end_of_data(descriptor, 0, 3) == 3
    os.close(descriptor)


def resident_bytes(pages: Path) -> int:
    """What of a file counts as memory of this process."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return sum(
        int(next(line for line in lines if line.startswith("Rss:")).split()[1]) * 1024
        for line in lines
        if line.endswith(str(pages))
    )


def test_written_pages_do_not_count_as_memory(tmp_path: Path) -> None:
    """A writer that tells what is written needs no more memory for a long segment than for a short one."""
    path, size = tmp_path / "segment", 16 * 1024 * 1024
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, FILE_MODE)
    allocate(descriptor, size)
    segment = MappedSegment(descriptor, size)
    for start in range(0, size, mmap.PAGESIZE):
        segment.pages[start : start + 1] = b"x"
        segment.forget(start)
    assert resident_bytes(path) <= 2 * 1024 * 1024
    assert segment.pages[0:1] == b"x"
    segment.release(size)


FOLLOWED = """
import sys
from pathlib import Path
from builders import HeldClock, intended
from faregate.journal.append import FileJournal
journal = FileJournal(Path(sys.argv[1]), HeldClock(), lambda callback: callback(), segment_bytes=200_000)
for number in range(20_000):
    journal.append(intended(number))
journal.close()
"""


def test_a_reader_in_another_process_sees_each_record_once(folder: Path) -> None:
    """While one process writes through many segments, another reads all of it, in order, and finds no damage."""
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{TESTS}"}
    writer = subprocess.Popen([sys.executable, "-c", FOLLOWED, str(folder)], env=environment)
    reader, position = FileJournalReader(folder), 0
    found: list[JournalRecord] = []
    deadline = time.monotonic() + 60
    try:
        while len(found) < 20_001 and time.monotonic() < deadline:
            records = reader.read(position, 20_000)
            if records:
                found += records
                position = records[-1].position
                reader.sync()
    finally:
        if len(found) < 20_001:
            writer.kill()
        writer.wait()
    assert [record.sequence for record in found] == list(range(1, 20_002))
    assert isinstance(found[0].event, Started)
    ids = [record.event.id for record in found if isinstance(record.event, Intended)]
    assert ids == [request_id(number) for number in range(20_000)]
    assert len(list_segments(folder)) > 10
