"""The projector's threads: idle time as long as that is enough, an ordinary thread where it is not."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from builders import HeldClock, intended, settled
from faregate.assembly.projection import Projection
from faregate.journal.append import FileJournal
from faregate.journal.projector import Projector
from faregate.journal.read import FileJournalReader
from faregate.storage.memory.books import MemoryBooks


class Watched(Projector):
    """A projector that notes which threads applied a batch."""

    def __init__(self, folder: Path, books: MemoryBooks) -> None:
        super().__init__(FileJournalReader(folder), books, lambda position: None, batch_bytes=2_000, gather_s=0.01)
        self.threads: list[str] = []

    def step(self) -> int:
        """As the real one."""
        taken = super().step()
        if taken:
            self.threads.append(threading.current_thread().name)
        return taken


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def projected(folder: Path, behind_s_max: float, ordinary_s: float) -> list[str]:
    """The threads that brought forty calls into the books, and two that came later."""
    journal = FileJournal(folder, HeldClock(), lambda callback: callback(), reserve_bytes=4096)
    books = MemoryBooks(HeldClock())

    def call(number: int) -> None:
        journal.append(intended(number))
        journal.append(settled(number))

    for number in range(1, 41):
        call(number)
    projector = Watched(folder, books)
    projection = Projection(projector, behind_s_max=behind_s_max, ordinary_s=ordinary_s)
    for number in (41, 42):
        eventually(lambda: books.projected() == journal.position)
        call(number)
    eventually(lambda: books.projected() == journal.position)
    projection.close()
    journal.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("projector")]
    return projector.threads


def test_what_keeps_up_stays_in_idle_time(tmp_path: Path) -> None:
    """As long as projection is not behind for too long, only the thread that uses idle time works."""
    assert set(projected(tmp_path, behind_s_max=60, ordinary_s=60)) == {"projector-idle"}


def test_what_falls_behind_goes_on_in_an_ordinary_thread(tmp_path: Path) -> None:
    """Once idle time is not enough, the ordinary thread takes over after the batch, for as long as it is told to."""
    threads = projected(tmp_path, behind_s_max=0, ordinary_s=60)

    assert threads[0] == "projector-idle"
    assert set(threads[1:]) == {"projector"}
