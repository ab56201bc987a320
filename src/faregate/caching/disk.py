"""The thread that owns the file of kept answers, behind lines that are bounded.

Reads go first, because somebody waits for them. What is written and what is deleted goes in batches; where too much
waits, an answer is not written, and counted. A row that was never written costs nothing, one that was not deleted would
come back at the next start: deletions are never dropped.

What goes wrong with the file is told to nobody who asked: it is begun anew with a line in the log, and where that does
not help, the store goes on in memory. On a full disk the answers stay that are there, and none are added for a while.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final, Protocol

from faregate.caching.file import AnswerFile, Damaged, NewRow, Written, written_form
from faregate.caching.index import Row
from faregate.ports import CachedAnswer

logger = logging.getLogger("faregate.cache")

#: Answers that wait to be written, and their bytes.
WAITING_MAX: Final = 4_000
WAITING_BYTES_MAX: Final = 32 * 1024 * 1024

#: How long what nobody waits for is gathered before it is written, so that a busy gate has few and large transactions.
GATHER_S: Final = 0.1

#: Of one transaction: a read waits for it, some milliseconds.
BATCH_MAX: Final = 512
BATCH_BYTES_MAX: Final = 2 * 1024 * 1024
BATCH_GONE_MAX: Final = 1_000

#: Rows of the index that are read at once at the start; the loop takes them in within a millisecond or two.
LOADED_AT_ONCE: Final = 100

#: On a full disk nothing is tried for so long.
FULL_S: Final = 10.0

#: A file that has to be begun anew twice in so short a time is left alone.
ANEW_S: Final = 60.0

#: At a stop, for what still waits.
CLOSE_S: Final = 2.0

_ERRORS: Final = (sqlite3.Error, OSError, Damaged, ValueError)


class Heard(Protocol):
    """Whoever uses a disk; all of it is told on his loop."""

    def loaded(self, rows: Sequence[Row], last: bool) -> None:
        """Answers that an earlier process left; ``last`` where there are no more."""
        ...

    def written(self, used_bytes: int) -> None:
        """The file holds so many bytes now."""
        ...

    def not_written(self, rows: Sequence[tuple[bytes, int]]) -> None:
        """Keys and numbers of answers that were to be written and were not."""
        ...

    def begun_anew(self, last: int) -> None:
        """Nothing is left of what had a number up to ``last``."""
        ...


class Disk:
    """Numbered answers in a file, which is opened at once. For one loop, which ``start`` says."""

    def __init__(self, file: AnswerFile) -> None:
        self.bytes_max = file.bytes_max
        self._file = file
        self._wake = threading.Condition()
        self._reads: deque[tuple[int, bytes, Callable[[CachedAnswer | None], None]]] = deque()
        self._pending: dict[int, NewRow] = {}
        self._pending_bytes = 0
        self._gone: list[int] = []
        self._barriers: list[Callable[[bool], None]] = []
        self._stopping = False
        #: The loop has not taken in the last part of the index yet.
        self._taking = False
        self._full_until = self._anew_at = -ANEW_S
        self._thread: threading.Thread | None = None
        self._loop: AbstractEventLoop | None = None
        self._heard: Heard
        #: Whether the file can be used at all.
        self.usable = True
        #: It cannot be used, and may hold what was to be removed.
        self._left_behind = False
        self.last_row = self._loaded_to = self._load_until = 0
        try:
            self.last_row = self._load_until = self._file.open()
        except _ERRORS as error:
            self._begin_anew(error)

    def start(self, loop: AbstractEventLoop, heard: Heard) -> None:
        """Read what an earlier process left, and take orders from now on."""
        self._loop, self._heard = loop, heard
        if self.usable:
            self._thread = threading.Thread(target=self._run, name="cache-file", daemon=True)
            self._thread.start()
        if self._loaded_to > self._load_until:
            # Already when it was opened it had to be begun anew.
            loop.call_soon(heard.loaded, (), True)

    # -- on the loop ---------------------------------------------------------------------------------------------------

    def put(self, key: bytes, answer: CachedAnswer) -> int:
        """Let an answer be written some time; its number, or 0 where it will not be."""
        size = len(answer.body)
        with self._wake:
            if len(self._pending) >= WAITING_MAX or self._pending_bytes + size > WAITING_BYTES_MAX:
                return 0
            if not self.usable or self._stopping or time.monotonic() < self._full_until:
                return 0
            self.last_row += 1
            self._pending[self.last_row] = NewRow(self.last_row, key, answer)
            self._pending_bytes += size
            if len(self._pending) == 1:
                # Whoever comes next finds it awake.
                self._wake.notify()
            return self.last_row

    def read(self, row: int, key: bytes, then: Callable[[CachedAnswer | None], None]) -> None:
        """Let an answer be read, and ``then`` be told on the loop; whoever asks bounds how many he asks for."""
        with self._wake:
            self._reads.append((row, key, then))
            self._wake.notify()

    def remove(self, rows: Sequence[int], then: Callable[[bool], None] | None = None) -> None:
        """Let rows be deleted, and ``then`` be told on the loop once all are, or that they may come back."""
        with self._wake:
            for row in rows:
                pending = self._pending.pop(row, None)
                if pending is not None:
                    self._pending_bytes -= len(pending.answer.body)
                else:
                    self._gone.append(row)
            if then is not None:
                self._barriers.append(then)
            self._wake.notify()
            if not self.usable:
                self._gone.clear()
                self._tell_barriers(not self._left_behind)

    def taken(self) -> None:
        """The last part of the index was taken in."""
        with self._wake:
            self._taking = False
            self._wake.notify()

    def close(self) -> None:
        """Write what waits, as far as time allows, and let go of the file."""
        with self._wake:
            self._stopping = True
            self._reads.clear()
            self._barriers.clear()
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        else:
            self._file.close()

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._has_work():
                    if self._stopping:
                        self._file.close()
                        return
                    self._wake.wait()
                if not self._is_urgent():
                    # Many at once cost a tenth of as many one by one.
                    self._wake.wait(GATHER_S)
                read = self._reads.popleft() if self._reads else None
                loads = read is None and self._loads()
                self._taking = self._taking or loads
                pending = self._pending.get(read[0]) if read is not None else None
            try:
                if read is not None:
                    row, key, then = read
                    answer = pending.answer if pending is not None else self._read(row, key)
                    self._tell(partial(then, answer))
                elif loads:
                    self._load()
                else:
                    self._write()
            except Exception as error:  # A thread that ends would leave all who wait to their deadlines, for ever.
                self._begin_anew(error)

    def _is_urgent(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self._reads or self._barriers or self._stopping or self._loads())

    def _has_work(self) -> bool:
        return bool(self._reads or self._pending or self._gone or self._barriers or self._loads())

    def _loads(self) -> bool:
        return not self._taking and not self._stopping and self._loaded_to <= self._load_until

    def _load(self) -> None:
        try:
            rows = self._file.rows(self._loaded_to, self._load_until, LOADED_AT_ONCE)
        except _ERRORS as error:
            self._begin_anew(error)
            rows = []
        last = len(rows) < LOADED_AT_ONCE
        self._loaded_to = self._load_until + 1 if last else rows[-1].row
        self._tell(partial(self._heard.loaded, rows, last))

    def _read(self, row: int, key: bytes) -> CachedAnswer | None:
        try:
            return self._file.read(row, key)
        except _ERRORS as error:
            self._begin_anew(error)
            return None

    def _write(self) -> None:
        with self._wake:
            new: list[NewRow] = []
            size = 0
            for each in islice(self._pending.values(), BATCH_MAX):
                size += len(each.answer.body)
                if new and size > BATCH_BYTES_MAX:
                    break
                new.append(each)
            gone = self._gone[:BATCH_GONE_MAX]
        forms = [form for each in new if (form := _form_of(each)) is not None]
        try:
            written = self._try_to_write(forms, gone)
        except _ERRORS as error:
            self._begin_anew(error)
            return
        with self._wake:
            for each in new:
                if self._pending.pop(each.row, None) is None:
                    # It was to be removed while it was written.
                    self._gone.append(each.row)
                else:
                    self._pending_bytes -= len(each.answer.body)
            del self._gone[: len(gone)]
            if not self._gone:
                self._tell_barriers(True)
        there = {form.row for form in forms} if written else set()
        if len(there) < len(new):
            self._tell(
                partial(self._heard.not_written, [(each.key, each.row) for each in new if each.row not in there])
            )
        self._tell(partial(self._heard.written, self._file.used_bytes))

    def _try_to_write(self, new: Sequence[Written], gone: Sequence[int]) -> bool:
        try:
            self._file.write(new, gone)
            return True
        except sqlite3.Error as error:
            if _code(error) != sqlite3.SQLITE_FULL:
                raise
        logger.warning("cache_disk_full", extra={"path": str(self._file.path), "seconds": FULL_S})
        self._full_until = time.monotonic() + FULL_S
        # What is to be forgotten must not stay for want of room to say so; where this fails too, the file goes.
        self._file.write((), gone)
        return False

    def _begin_anew(self, error: Exception) -> None:
        """Remove the file, whatever is wrong with it, and go on with an empty one or with none."""
        if self.usable:
            told = {"path": str(self._file.path), "why": str(error) or type(error).__name__}
            # Should it stay, what was to be forgotten is in it still. One that another process has locked stays his:
            # SQLite finds what belongs to a file by its name.
            self._left_behind = True
            self.usable = _code(error) != sqlite3.SQLITE_BUSY and self._replaced()
            logger.warning("cache_file_begun_anew" if self.usable else "cache_file_given_up", extra=told)
        with self._wake:
            self._pending.clear()
            self._pending_bytes = 0
            self._gone.clear()
            self._loaded_to = self._load_until + 1
            self._tell_barriers(not self._left_behind)
            last = self.last_row
        if self._loop is not None:
            self._tell(partial(self._heard.begun_anew, last))
            self._tell(partial(self._heard.loaded, (), True))

    def _replaced(self) -> bool:
        now = time.monotonic()
        again, self._anew_at = now - self._anew_at < ANEW_S, now
        try:
            self._file.remove()
            self._left_behind = False
            if not again:
                self._file.open()
        except _ERRORS:
            self._file.close()
            return False
        return not again

    def _tell_barriers(self, done: bool) -> None:
        barriers, self._barriers = self._barriers, []
        for each in barriers:
            self._tell(partial(each, done))

    def _tell(self, what: Callable[[], None]) -> None:
        # A loop that is closed has nobody left to be told.
        with contextlib.suppress(RuntimeError):
            assert self._loop is not None
            self._loop.call_soon_threadsafe(what)


def _form_of(new: NewRow) -> Written | None:
    try:
        return written_form(new)
    except (ValueError, OverflowError):
        # Half of a character in a name: nothing is wrong with the file.
        return None


def _code(error: Exception) -> int:
    """SQLite's own number for what happened, 0 where it was something else."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
