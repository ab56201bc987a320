"""The writer: what it acknowledges is there after any crash, and a full disk refuses new calls but ends old ones."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from builders import HeldClock, intended, refused, request_id, settled
from faregate.core.ledger.events import Event, Started
from faregate.errors import Conflict, StorageFull, Unavailable
from faregate.journal.append import FileJournal
from faregate.journal.read import FileJournalReader
from faregate.journal.records import whole_records
from faregate.journal.segments import list_segments, scan_segment

SOURCE = Path(__file__).parents[2] / "src"
TESTS = Path(__file__).parents[1]


def at_once(callback: Callable[[], None]) -> None:
    callback()


def journal_in(folder: Path, **options: int) -> FileJournal:
    return FileJournal(folder, HeldClock(), at_once, **{"reserve_bytes": 4096, **options})  # type: ignore[arg-type]


def everything(folder: Path) -> list[Event]:
    reader = FileJournalReader(folder)
    found: list[Event] = []
    position = next(iter(reader.segments()))[0]
    while records := reader.read(position, 100_000):
        found += [record.event for record in records]
        position = records[-1].position
    reader.close()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_epochs_follow_each_other(folder: Path) -> None:
    """Each opening takes the next epoch and goes on at the position where the last one ended."""
    first = journal_in(folder)
    end = first.append(intended(1))
    first.close()
    second = journal_in(folder)
    assert (first.epoch, second.epoch) == (1, 2)
    assert second.recovered.position == end
    assert second.recovered.cut_bytes == 0
    second.close()
    assert everything(folder) == [Started(1, HeldClock().now), intended(1), Started(2, HeldClock().now)]


def test_only_the_owner_may_look(folder: Path) -> None:
    """Folder and files are the owner's alone."""
    journal_in(folder).close()
    modes = {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}
    assert modes == {"0o600"}
    assert oct(folder.stat().st_mode & 0o777) == "0o700"


def test_second_writer_is_refused(folder: Path) -> None:
    """Two writers would tear each other's records, so the second does not open."""
    journal = journal_in(folder)
    with pytest.raises(Conflict, match="another process writes"):
        journal_in(folder)
    journal.close()
    journal_in(folder).close()


def test_segments_roll_and_join_up(folder: Path) -> None:
    """A journal of many segments reads as one, also after it was opened again in the middle."""
    journal = journal_in(folder, segment_bytes=2_000)
    events = [event for number in range(40) for event in (intended(number), settled(number))]
    for event in events[:50]:
        journal.append(event)
    journal.close()
    journal = journal_in(folder, segment_bytes=2_000)
    for event in events[50:]:
        journal.append(event)
    journal.close()
    assert len(list_segments(folder)) > 5
    assert [event for event in everything(folder) if not isinstance(event, Started)] == events


def test_empty_last_segment_keeps_number_and_epoch(folder: Path) -> None:
    """A crash between making a segment and writing to it loses neither the sequence nor the epoch."""
    journal = journal_in(folder)
    journal.append(intended(1))
    end = journal.position
    journal.close()
    (folder / f"{end:020d}-3-1.segment").touch(mode=0o600)
    journal = journal_in(folder)
    assert journal.epoch == 2
    journal.close()
    assert everything(folder)[-1] == Started(2, HeldClock().now)


def test_closed_journal_takes_nothing(folder: Path) -> None:
    """Appending after closing is an error, never a lost record."""
    journal = journal_in(folder)
    journal.close()
    journal.close()
    with pytest.raises(Unavailable, match="closed"):
        journal.append(intended(1))


def sample(folder: Path) -> tuple[bytes, Path, list[Event]]:
    """The bytes of a small journal of one segment, its file, and its events."""
    journal = journal_in(folder)
    for number in range(8):
        journal.append(intended(number))
        journal.append(settled(number))
    journal.close()
    path = list_segments(folder)[0].path
    return path.read_bytes(), path, everything(folder)


def is_prefix(found: list[Event], of: list[Event]) -> bool:
    return found == of[: len(found)]


def recovered(folder: Path) -> list[Event]:
    """What is read after a restart, without the record of the restart itself."""
    journal_in(folder, reserve_bytes=4096).close()
    found = everything(folder)
    assert isinstance(found[-1], Started)
    return found[:-1]


def scanned(path: Path, folder: Path) -> list[Event]:
    """What a restart would keep, found without the syncs of a restart."""
    (segment,) = list_segments(folder)
    whole = scan_segment(segment).whole_bytes
    return [record.event for record in whole_records(path.read_bytes()[:whole])]


def rewrite(path: Path, data: bytes) -> None:
    """Replace a file's bytes in place: emptying it first would make the system sync it."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def test_torn_at_every_byte(folder: Path) -> None:
    """Cut at any byte, what is recovered is exactly the records that were whole."""
    whole, path, events = sample(folder)
    ends = [record.position for record in FileJournalReader(folder).read(0, len(whole))]
    for size in range(len(whole)):
        # Behind the torn end lies nothing, or the room that was taken beforehand, whose zeros may be just what was cut.
        for room in (b"", bytes(9_000)):
            rewrite(path, whole[:size] + room)
            expected = events[: sum(end <= size or (room != b"" and not any(whole[size:end])) for end in ends)]
            assert scanned(path, folder) == expected, size
            if size % 300 == 0:
                assert recovered(folder) == expected, size


def test_damage_anywhere_leaves_a_prefix(folder: Path) -> None:
    """Cut or flipped at 2,000 random places, what is recovered is a prefix, never a mix."""
    whole, path, events = sample(folder)
    seed = random.randrange(2**32)
    print("seed", seed)
    places = random.Random(seed)
    for number in range(2_000):
        damaged = bytearray(whole[: places.randint(1, len(whole))])
        if places.random() < 0.5:
            for _ in range(places.randint(1, 4)):
                damaged[places.randrange(len(damaged))] ^= places.randint(1, 255)
        damaged += bytes(places.choice((0, 5_000)))
        rewrite(path, bytes(damaged))
        found = scanned(path, folder)
        assert is_prefix(found, events), seed
        if number % 200 == 0:
            assert recovered(folder) == found, seed


def test_whole_records_behind_damage_are_kept_aside(folder: Path) -> None:
    """Damage in the middle costs what follows it, but those bytes are kept in a file that is named."""
    whole, path, _ = sample(folder)
    path.write_bytes(whole[:100] + b"\0" + whole[101:])
    journal = journal_in(folder)
    kept = Path(journal.recovered.kept_file)
    journal.close()
    assert kept.read_bytes() == (whole[:100] + b"\0" + whole[101:])[journal.recovered.position :]
    assert journal.recovered.cut_bytes == len(whole) - journal.recovered.position


WRITER = """
import sys, threading
from pathlib import Path
from builders import HeldClock, intended, settled
from faregate.journal.append import FileJournal
journal = FileJournal(Path(sys.argv[1]), HeldClock(), lambda callback: callback(), segment_bytes=20_000)
number = int(sys.argv[2])
while True:
    journal.append(intended(number))
    journal.append(settled(number))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""


def run_writer(folder: Path, *arguments: str, script: str = WRITER, wrapper: tuple[str, ...] = ()) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{TESTS}"}
    process = subprocess.Popen(
        [*wrapper, sys.executable, "-c", script, str(folder), *arguments], env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.decode().strip())
        if len(lines) == 200:
            break
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().decode().splitlines()
    process.stdout.close()
    process.wait()
    return lines


def test_killed_writer_loses_nothing_acknowledged(folder: Path) -> None:
    """After kill -9, five times, every record that was acknowledged is read, in order and once."""
    told: list[int] = []
    for run in range(5):
        lines = run_writer(folder, str(run * 1_000_000))
        told += [int(line) for line in lines if line.isdigit()]
    found = [event for event in everything(folder) if not isinstance(event, Started)]
    wanted = {request_id(number) for number in told}
    acknowledged = [event for event in found if event.id in wanted]
    assert acknowledged == [event for number in told for event in (intended(number), settled(number))]
    # Beyond these there is at most what each run had written and not yet told.
    assert len(found) - len(acknowledged) <= 2 * 5


def test_durable_is_told_after_the_sync(folder: Path) -> None:
    """Whoever waits is called once the records are durable, all waiters of one sync together."""
    journal = journal_in(folder)
    called: list[int] = []
    done = threading.Event()
    for number in range(5):
        position = journal.append(intended(number))
        journal.when_durable(position, lambda position=position: called.append(position))  # type: ignore[misc]
    journal.when_durable(journal.position, done.set)
    assert done.wait(10)
    assert len(called) == 5
    assert journal.durable >= max(called)
    journal.close()


def test_background_sync_without_anybody_waiting(folder: Path) -> None:
    """Unsynced records reach the disk by themselves, and a closed journal is wholly durable."""
    journal = journal_in(folder, segment_bytes=1_000)
    for number in range(20):
        journal.append(intended(number))
    journal.close()
    assert journal.durable == journal.position


NO_ROOM = """
import resource, sys, time
from pathlib import Path
from builders import HeldClock, intended, settled
from faregate.errors import StorageFull
from faregate.journal.append import FileJournal
journal = FileJournal(Path(sys.argv[1]), HeldClock(), lambda callback: callback(), segment_bytes=20_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, resource.RLIM_INFINITY))
def fits(event):
    before = journal.position
    try:
        journal.append(event)
    except StorageFull:
        assert journal.position == before
        return False
    return True
calls = ends = 0
while fits(intended(calls)): calls += 1
while fits(settled(ends)): ends += 1
assert not fits(intended(calls))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
deadline = time.monotonic() + 20
while not fits(intended(calls)):
    assert time.monotonic() < deadline
    time.sleep(0.02)
journal.close()
print(calls, ends)
"""


def test_without_room_nothing_of_a_record_remains_and_it_heals(folder: Path) -> None:
    """Where no further file can be made a record is refused whole, and the next goes in when there is room again."""
    (line,) = run_writer(folder, script=NO_ROOM)
    calls, ends = (int(part) for part in line.split())
    found = [event for event in everything(folder) if not isinstance(event, Started)]
    assert found == [*map(intended, range(calls)), *map(settled, range(ends)), intended(calls)]
    # New calls left half a segment of room.
    assert ends * 200 > 5_000


FULL_DISK = """
import os, sys, time
from pathlib import Path
from builders import HeldClock, intended, refused, settled
from faregate.errors import StorageFull
from faregate.journal.append import FileJournal
folder = Path(sys.argv[1])
os.system(f"mount -t tmpfs -o size=2m,mode=700 tmpfs {folder.parent}") == 0 or sys.exit("no mount")
ballast = folder.parent / "ballast"
written = []
def opened():
    return FileJournal(folder, HeldClock(), lambda callback: callback(), segment_bytes=320 * 1024)
def fits(event):
    before = journal.position
    try:
        journal.append(event)
    except StorageFull:
        assert journal.position == before
        return False
    written.append(event)
    return True
def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
def fill_disk():
    with open(ballast, "ab", buffering=0) as file:
        try:
            while True: file.write(bytes(4096))
        except OSError: pass
journal = opened()
until((folder / "spare").exists)
fill_disk()
number = 0
while fits(intended(number)): number += 1
assert number > 1_000
# The reserve is half a segment here.
for each in range(500): fits(settled(each)) or sys.exit("a call could not end")
for event in (intended(number), refused(number)):
    if fits(event): sys.exit("a new call was taken without a reserve")
each = 500
while fits(settled(each)): each += 1
journal.close()
fill_disk()
ballast.unlink()
journal = opened()
until(lambda: fits(settled(each)))
until(lambda: fits(intended(number)))
until((folder / "spare").exists)
journal.close()
fill_disk()
# What was cut off at the stop is gone, yet a start finds room for itself, and for the ends of calls.
journal = opened()
fits(settled(number)) or sys.exit("no room after a start on a full disk")
journal.close()
from faregate.journal.read import FileJournalReader
reader, position, found = FileJournalReader(folder), 0, []
while records := reader.read(position, 100_000):
    found += [record.event for record in records if type(record.event).__name__ != "Started"]
    position = records[-1].position
assert found == written
print("healed", number)
"""


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    )
    return tried.returncode == 0


@pytest.mark.skipif(not may_mount(), reason="a disk of its own needs a mount namespace")
def test_full_disk_refuses_new_calls_and_ends_old_ones(folder: Path) -> None:
    """On a full disk intents are refused, settlements land in the reserve's room, and space heals everything."""
    (line,) = run_writer(folder, script=FULL_DISK, wrapper=("unshare", "-rm"))
    assert line.startswith("healed ")
    assert int(line.split()[1]) > 0


def test_no_room_for_a_segment(folder: Path) -> None:
    """A journal that cannot even record its start says so, and opens once there is room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        with pytest.raises(StorageFull, match="disk of the journal is full"):
            journal_in(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal = journal_in(folder)
    journal.append(refused(1))
    journal.close()
    assert everything(folder)[1:] == [refused(1)]


def test_a_segment_is_never_filled_to_its_last_byte(folder: Path) -> None:
    """Whatever the size of a segment, one that was rolled has room left: by that a power cut's tear is found."""
    for size in range(6_000, 6_060):
        here = folder / str(size)
        journal = journal_in(here, segment_bytes=size)
        for n in range(120):
            journal.append(settled(n))
        first, *rest = list_segments(here)
        lengths = [after.first - before.first for before, after in zip([first, *rest], rest, strict=False)]
        journal.close()

        assert len(lengths) > 1
        assert max(lengths) < size
