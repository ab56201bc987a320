"""The thread that copies the journal into the books: tail, sync, project, and never give up silently.

It owns no position: where to go on is what the books say. Whatever goes wrong is told, and tried again for as long as
the process lives; the gate goes on admitting meanwhile, up to its backlog. It works in short bursts with rests between
them, because the gate may share its core.
"""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from faregate.errors import FaregateError
from faregate.ports import JournalReader, JournalRecord

#: What one transaction takes in, about: some 300 calls, applied in about 4 ms.
BATCH_BYTES: Final = 128 * 1024

#: How long records may gather before they are projected, so that a transaction is shared by many.
GATHER_S: Final = 0.2

#: Longest rest after a full batch; it is as long as the batch took, so that half of a core is left to others.
REST_S_MAX: Final = 0.01

#: How often a waiting projector looks whether it is to end.
_LOOK_S: Final = 0.1

#: Longest wait between two tries when something is wrong.
BACKOFF_S_MAX: Final = 5.0


class ProjectedBooks(Protocol):
    """The books, as far as the projector needs them."""

    def projected(self) -> int:
        """The journal position up to which everything is in the books."""
        ...

    def project(self, records: Sequence[JournalRecord]) -> None:
        """Apply records in one transaction with the new position."""
        ...


def _say_nothing(message: str) -> None:
    del message


@contextmanager
def _no_collections() -> Iterator[None]:
    """No cycles are looked for meanwhile: a batch makes thousands of objects, and none of them is in one.

    The collector belongs to the whole process, so this is only for moments.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Projector:
    """Projects from ``reader`` into ``books``; one at a time.

    ``on_projected`` is told the position after each batch, ``on_trouble`` a sentence whenever what is wrong changes,
    and the empty string when all is well again. Both are called in the projector's thread.
    """

    def __init__(
        self,
        reader: JournalReader,
        books: ProjectedBooks,
        on_projected: Callable[[int], None],
        on_trouble: Callable[[str], None] = _say_nothing,
        *,
        batch_bytes: int = BATCH_BYTES,
        gather_s: float = GATHER_S,
    ) -> None:
        self._reader = reader
        self._books = books
        self._on_projected = on_projected
        self._on_trouble = on_trouble
        self._batch_bytes = batch_bytes
        self._gather_s = gather_s
        #: Held while a batch is applied, and by whoever wants none to be.
        self._turn = threading.Lock()
        self._nudged = threading.Event()
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why projection does not go on, as a sentence; empty while all is well."""
        return self._trouble

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No batch is projected while this is held; entering waits for the batch that runs."""
        with self._turn:
            yield

    def nudge(self) -> None:
        """Look at the journal now. May be called from any thread."""
        self._nudged.set()

    def step(self) -> int:
        """Apply at most one batch; returns how many bytes of the journal it took in, 0 where there is nothing new.

        Raises:
            Unavailable: the books do not answer.
            JournalCorrupt: the journal cannot be read on.
        """
        with self._turn, _no_collections():
            position = self._books.projected()
            records = self._reader.read(position, self._batch_bytes)
            if not records:
                return 0
            # The books must never hold what a power cut could still take from the journal.
            self._reader.sync()
            self._books.project(records)
        reached = records[-1].position
        self._on_projected(reached)
        return reached - position

    def run(self, stop: threading.Event, leave: Callable[[float], bool] = lambda behind_s: False) -> None:
        """Project until ``stop`` is set; the body of a thread. Set ``stop`` and ``nudge`` to end it at once.

        ``leave`` is asked after each batch whether to return, with the seconds for which it has been behind: since the
        first of the full batches began, or since this one did where it is not full.
        """
        backoff_s = self._gather_s
        behind_since: float | None = None
        while not stop.is_set():
            began = time.monotonic()
            try:
                full = self.step() >= self._batch_bytes * 7 // 8
            except FaregateError as problem:
                self._tell(problem.message)
            except Exception as problem:
                # A bug must not end the only thread that keeps the books: it is told, and tried again.
                self._tell(f"projection failed: {type(problem).__name__}: {problem}")
            else:
                self._tell("")
                backoff_s = self._gather_s
                since = began if behind_since is None else behind_since
                behind_since = since if full else None
                if leave(time.monotonic() - (since if full else began)):
                    return
                self._wait(min(time.monotonic() - began, REST_S_MAX) if full else self._gather_s, stop)
                continue
            backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
            self._wait(backoff_s, stop)

    def _wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait, at most until somebody nudges; ``stop`` is looked at often enough to end soon."""
        until = time.monotonic() + seconds
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            if self._nudged.wait(min(left, _LOOK_S)):
                break
        self._nudged.clear()

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._on_trouble(trouble)
