"""The thread that syncs: what it calls durable, in what order, how it ends, and what a failure of any kind does."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from faregate.journal import sync as module
from faregate.journal.mapped import FORGET_BYTES, MappedSegment, allocate
from faregate.journal.segments import FILE_MODE
from faregate.journal.spare import Spare
from faregate.journal.sync import GroupSync

CAPACITY = 2 * FORGET_BYTES
DEADLINE_S = 10.0

Trace = Callable[[FrameType, str, Any], Any]


class Written:
    """A folder with one segment, and a writer who says how far it has come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segment = self.another("first", 0)
        self.spare = Spare(folder, CAPACITY)
        self.spare.prepare(durably=False)
        self.position = 0
        self.told: list[str] = []

    def another(self, name: str, first: int) -> MappedSegment:
        """One more segment in the folder."""
        descriptor = os.open(self.folder / name, os.O_CREAT | os.O_RDWR, FILE_MODE)
        allocate(descriptor, CAPACITY)
        return MappedSegment(descriptor, CAPACITY, first)

    def reached(self) -> int:
        """What the writer has written so far."""
        return self.position

    def syncing(
        self, position: Callable[[], int] | None = None, *, interval_s: float = 0.001, deliver: Any = None
    ) -> GroupSync:
        """A thread that syncs it; callbacks run in that thread."""
        return GroupSync(
            self.folder,
            self.segment,
            self.spare,
            position or self.reached,
            deliver or (lambda callback: callback()),
            interval_s,
            self.told.append,
        )

    def close(self, group: GroupSync) -> None:
        """End both."""
        group.close()
        self.spare.close()


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def until(condition: Callable[[], object]) -> None:
    """Wait for another thread."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.001)


@pytest.fixture
def traced() -> Iterator[Callable[[Trace], None]]:
    """Follow the lines of threads that are started from now on."""
    before = threading.gettrace()
    yield threading.settrace
    threading.settrace(before)


# -- what is promised --------------------------------------------------------------------------------------------------


def test_callbacks_come_in_the_order_of_positions_and_never_early(written: Written) -> None:
    """Whoever asked for less is told before whoever asked for more, and only when it is durable."""
    group = written.syncing()
    heard: list[tuple[int, bool]] = []

    def hear(position: int) -> Callable[[], None]:
        return lambda: heard.append((position, position <= group.durable))

    for position in range(1, 200):
        group.when_durable(position, hear(position))
        if position % 7 == 0:
            written.position = position - 3
            group.wake()
    written.position = 200
    group.wake()
    until(lambda: len(heard) == 199)
    written.close(group)
    assert heard == [(position, True) for position in range(1, 200)]


def test_a_durable_position_is_told_at_once(written: Written) -> None:
    """Who asks for what is on the disk already does not wait for another sync."""
    written.position = 100
    group = written.syncing()
    group.wake()
    until(lambda: group.durable == 100)
    heard: list[threading.Thread] = []
    group.when_durable(100, lambda: heard.append(threading.current_thread()))
    assert heard == [threading.current_thread()]
    written.close(group)


def test_who_waits_does_not_wait_for_the_interval(written: Written) -> None:
    """The interval is for data that nobody waits for."""
    written.position = 100
    group = written.syncing(interval_s=3600)
    heard = threading.Event()
    group.wake()
    group.when_durable(100, heard.set)
    assert heard.wait(DEADLINE_S)
    written.close(group)


def test_closing_syncs_what_is_left_and_cuts_the_segment(written: Written) -> None:
    """The last record is on the disk, the room behind it is given back, and nothing is called a failure."""
    group = written.syncing(interval_s=3600)
    written.position = 4_242
    written.close(group)
    assert group.durable == 4_242
    assert (written.folder / "first").stat().st_size == 4_242
    assert written.told == []


def test_a_finished_segment_is_put_away(written: Written) -> None:
    """The next sync covers the segment before as well, and cuts it to what is written of it."""
    group = written.syncing()
    written.position = 5_000
    group.segment_changed(written.another("second", 3_000), 3_000)
    written.close(group)
    assert [(written.folder / name).stat().st_size for name in ("first", "second")] == [3_000, 2_000]


def test_a_loop_that_is_closed_is_nobody_to_tell(written: Written) -> None:
    """The journal outlives the event loop at the end of a process."""

    def deliver(callback: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    group = written.syncing(deliver=deliver)
    group.when_durable(10, lambda: None)
    written.position = 10
    written.close(group)
    assert (group.durable, group.failure) == (10, "")


# -- two threads at once -----------------------------------------------------------------------------------------------


class AtLine:
    """Does something in between: before the ``number``-th line of the thread's own loop."""

    def __init__(self, number: int, meanwhile: Callable[[], None]) -> None:
        self.number = number
        self.meanwhile = meanwhile
        #: Another thread waits for a thread to end.
        self.joining = threading.Event()
        self.done = threading.Event()

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        """As ``threading.settrace`` wants it."""
        if frame.f_code is threading.Thread.join.__code__:
            self.joining.set()
        in_loop = frame.f_code.co_filename == module.__file__ and frame.f_code.co_name in ("_run", "_round")
        return self._line if in_loop else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.number -= 1
            if self.number == -1:
                self.meanwhile()
                self.done.set()
        return self._line


#: More than one turn of the loop has.
LINES = range(24)


@pytest.mark.parametrize("line", LINES)
def test_closing_at_any_moment_ends(written: Written, traced: Callable[[Trace], None], line: int) -> None:
    """Wherever the thread is when it is told to end, it does, and what was written is durable."""
    group: GroupSync
    closer = threading.Thread(target=lambda: group.close(), daemon=True)
    ready = threading.Event()

    def meanwhile() -> None:
        ready.wait(DEADLINE_S)
        written.position = 10
        closer.start()
        # From here on its flags are up, and it waits for this thread.
        assert at_line.joining.wait(DEADLINE_S)

    at_line = AtLine(line, meanwhile)
    traced(at_line)
    group = written.syncing()
    ready.set()
    # One turn after the other, until the line has come.
    while not at_line.done.wait(0.01):
        group.wake()
    closer.join(DEADLINE_S)
    assert not closer.is_alive()
    assert (group.durable, group.failure) == (10, "")
    written.spare.close()


@pytest.mark.parametrize("line", LINES)
def test_what_is_written_at_any_moment_becomes_durable(
    written: Written, traced: Callable[[Trace], None], line: int
) -> None:
    """A writer that wakes the thread only when it seems asleep is never forgotten."""
    group: GroupSync
    ready = threading.Event()

    def meanwhile() -> None:
        ready.wait(DEADLINE_S)
        written.position += 1
        if not group.awake:
            group.wake()

    at_line = AtLine(line, meanwhile)
    traced(at_line)
    group = written.syncing()
    ready.set()
    while not at_line.done.wait(0.01):
        written.position += 10
        if not group.awake:
            group.wake()
    until(lambda: group.durable == written.position)
    written.close(group)


# -- failures ----------------------------------------------------------------------------------------------------------


def refused_by_the_system(written: Written) -> None:
    """The system cannot sync what the descriptor stands for."""
    device = os.open("/dev/null", os.O_RDWR)
    os.dup2(device, written.segment.fd)
    os.close(device)


def refused_by_the_mapping(written: Written) -> None:
    """A mapping that was closed has no pages to give back, and says so with a ``ValueError``."""
    written.segment.pages.close()


@pytest.mark.parametrize("spoil", [refused_by_the_system, refused_by_the_mapping])
def test_a_sync_that_fails_is_told_once_and_nothing_is_durable_after_it(
    written: Written, spoil: Callable[[Written], None]
) -> None:
    """Whatever kind of error it is, nobody waits for a thread that is gone without a word."""
    group = written.syncing()
    spoil(written)
    heard: list[int] = []
    written.position = CAPACITY
    group.when_durable(CAPACITY, lambda: heard.append(1))
    until(lambda: written.told)
    assert "could not be synced" in group.failure
    group.wake()
    group.when_durable(CAPACITY, lambda: heard.append(2))
    written.close(group)
    assert written.told == [group.failure]
    assert (heard, group.durable) == ([], 0)
    assert (written.folder / "first").stat().st_size == CAPACITY


def test_any_error_of_the_thread_is_a_failed_sync(written: Written) -> None:
    """Also one that nobody thought of."""

    def position() -> int:
        raise LookupError("no such segment")

    group = written.syncing(position)
    group.wake()
    until(lambda: written.told)
    assert written.told == ["the journal could not be synced: LookupError('no such segment')"]
    written.close(group)
