"""Answers kept by this gateway: in memory, and in a file so that more of them fit and they outlive a restart.

One index in memory knows all that is kept, so that whoever asks for what is not there is told so at once. What lies on
disk alone is read by the file's own thread, for so many calls at once and so long; whoever asks beyond that goes on as
if nothing were kept.
"""

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from faregate.caching.index import Entry, Index, Row, fitting
from faregate.core.caching.policy import CacheLabels
from faregate.ports import CachedAnswer, Later, TellFound

if TYPE_CHECKING:
    # With it comes SQLite, which a gate without a disk does not need.
    from faregate.caching.disk import Disk

#: Answers that are read from the disk at once.
READS_MAX: Final = 64

#: How long a call waits for one.
READ_S: Final = 1.0

#: How often what has expired is forgotten, though nobody asks, and how much of it in one go: about a millisecond.
EXPIRE_S: Final = 5.0
EXPIRED_AT_ONCE: Final = 500

#: Entries that a flush looks at in one go, about a millisecond.
FLUSHED_AT_ONCE: Final = 1_000

_MAY_COME_BACK: Final = "The file of kept answers could not be changed: answers may come back with the next start."
_CLOSED: Final = "The cache is closed."


class _Question:
    """An answer that is being read, and who waits for it."""

    __slots__ = ("asked_at", "entry", "now", "timer", "waiting")

    def __init__(self, entry: Entry, now: int, asked_at: float, timer: TimerHandle) -> None:
        self.entry = entry
        self.now = now
        self.asked_at = asked_at
        self.timer = timer
        self.waiting: list[TellFound] = []


class _Flush:
    """What is being forgotten."""

    __slots__ = ("count", "then", "walked", "wanted")

    def __init__(self, wanted: CacheLabels, then: Callable[[int, str], None]) -> None:
        self.wanted = wanted
        self.then = then
        self.count = 0
        #: All that was in the index has been looked at.
        self.walked = False


class EmbeddedStore:
    """Implements ``ResponseStore`` in ``memory_bytes_max`` and, where there is one, on a disk.

    ``wall_nanos`` is asked only where nobody says what time it is: at the start, and to forget what has expired.
    """

    def __init__(
        self, memory_bytes_max: int, disk: "Disk | None", loop: AbstractEventLoop, wall_nanos: Callable[[], int]
    ) -> None:
        self._index = Index(memory_bytes_max, disk.bytes_max if disk is not None else 0)
        self._entries = self._index.entries
        self._disk = disk
        self._loop = loop
        self._wall_nanos = wall_nanos
        self._questions: dict[int, _Question] = {}
        #: Those that began before the index was read: what is still to be read of it may be theirs.
        self._early: list[_Flush] = []
        self._loading = disk is not None
        self._failures = 0
        self._closed = False
        self._sweep = loop.call_later(EXPIRE_S, self._expire)
        if disk is not None:
            disk.start(loop, self)

    def find(self, key: bytes, now: int, then: TellFound) -> CachedAnswer | Later | None:
        """At once from memory, later from the disk."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= now:
            self._index.forget(entry)
            self._pass_on()
            return None
        if entry.answer is None:
            return self._ask(entry, now, then)
        self._index.touch(entry)
        return entry.answer

    def keep(self, key: bytes, answer: CachedAnswer, now: int) -> None:
        """Keep an answer until it expires, where there is room; an earlier one of the same key is forgotten."""
        if self._closed:
            return
        row = 0
        if self._disk is not None and answer.expires_at > now:
            row = self._disk.put(key, answer)
            self._failures += not row
        self._index.keep(key, answer, now, row)
        self._pass_on()

    def flush(self, wanted: CacheLabels, then: Callable[[int, str], None]) -> None:
        """Forget all that fit ``wanted``; told once the file knows it, too."""
        if self._closed:
            self._loop.call_soon(then, 0, _CLOSED)
            return
        flush = _Flush(wanted, then)
        if self._loading:
            self._early.append(flush)
        self._go_through(flush, list(self._entries.values()), 0)

    def samples(self) -> Sequence[tuple[str, int]]:
        """What is kept, where, and what was not."""
        return (
            ("faregate_cache_entries", len(self._entries)),
            ("faregate_cache_bytes", self._index.memory_bytes),
            ("faregate_cache_disk_bytes", self._index.disk.bytes),
            ("faregate_cache_evictions_total", self._index.evictions),
            ("faregate_cache_failures_total", self._failures),
        )

    def close(self) -> None:
        """Write what waits to be written; nothing is found any more."""
        if self._closed:
            return
        self._closed = True
        self._sweep.cancel()
        for question in self._questions.values():
            question.timer.cancel()
        self._questions.clear()
        self._early.clear()
        if self._disk is not None:
            self._disk.close()
        self._index = Index(0)
        self._entries = self._index.entries

    # -- reading -------------------------------------------------------------------------------------------------------

    def _ask(self, entry: Entry, now: int, then: TellFound) -> Later | None:
        question = self._questions.get(entry.row)
        if question is None:
            if self._disk is None or len(self._questions) >= READS_MAX:
                self._failures += 1
                return None
            asked_at = self._loop.time()
            timer = self._loop.call_later(READ_S, self._too_late, entry.row)
            question = self._questions[entry.row] = _Question(entry, now, asked_at, timer)
            self._disk.read(entry.row, entry.key, partial(self._was_read, entry.row))
        elif self._loop.time() - question.asked_at >= READ_S:
            # Nobody knows when it will be read; who asks now is not to wait longer than the first one did.
            self._failures += 1
            return None
        question.waiting.append(then)
        return Later.ASKED

    def _too_late(self, row: int) -> None:
        # The question itself stays: it is in the thread's line, and counts there.
        question = self._questions[row]
        waiting, question.waiting = question.waiting, []
        self._failures += len(waiting)
        for then in waiting:
            then(None)

    def _was_read(self, row: int, answer: CachedAnswer | None) -> None:
        question = self._questions.pop(row, None)
        if question is None:
            return
        question.timer.cancel()
        entry = question.entry
        if self._entries.get(entry.key) is not entry:
            # It was forgotten meanwhile; whatever is kept now was made after somebody asked.
            answer = None
        elif answer is None or (answer.expires_at, answer.labels) != (entry.expires_at, entry.labels):
            self._index.lose_row(entry)
            self._failures += 1
            answer = None
        else:
            self._index.touch(entry)
            self._index.remember(entry, answer)
        self._pass_on()
        passed = int((self._loop.time() - question.asked_at) * 1_000_000_000)
        if answer is not None and answer.expires_at <= question.now + passed:
            answer = None
        for then in question.waiting:
            then(answer)

    # -- forgetting ----------------------------------------------------------------------------------------------------

    def _pass_on(self) -> None:
        if self._disk is not None and self._index.rows_gone:
            self._disk.remove(self._index.take_rows_gone())

    def _expire(self) -> None:
        looked = self._index.expire(self._wall_nanos(), EXPIRED_AT_ONCE)
        self._pass_on()
        self._sweep = self._loop.call_later(0.05 if looked == EXPIRED_AT_ONCE else EXPIRE_S, self._expire)

    def _go_through(self, flush: _Flush, entries: list[Entry], at: int) -> None:
        """A part at a time, so that calls go on meanwhile."""
        if self._closed:
            return
        for entry in fitting(entries[at : at + FLUSHED_AT_ONCE], flush.wanted):
            if self._entries.get(entry.key) is entry:
                self._index.forget(entry)
                flush.count += 1
        self._pass_on()
        if at + FLUSHED_AT_ONCE < len(entries):
            self._loop.call_soon(self._go_through, flush, entries, at + FLUSHED_AT_ONCE)
        else:
            flush.walked = True
            self._finish(flush)

    def _finish(self, flush: _Flush) -> None:
        if self._loading or not flush.walked:
            return

        def tell(done: bool) -> None:
            if not self._closed:
                flush.then(flush.count, "" if done else _MAY_COME_BACK)

        if self._disk is None:
            self._loop.call_soon(tell, True)
        else:
            self._disk.remove((), tell)

    # -- what the disk tells -------------------------------------------------------------------------------------------

    def loaded(self, rows: Sequence[Row], last: bool) -> None:
        """Take in a part of what an earlier process left."""
        if self._closed or self._disk is None:
            return
        now = self._wall_nanos()
        for row in rows:
            for flush in self._early:
                if row.labels.fits(flush.wanted):
                    flush.count += 1
                    self._index.rows_gone.append(row.row)
                    break
            else:
                self._index.adopt(row, now)
        self._pass_on()
        if last:
            self._loading = False
            early, self._early = self._early, []
            for flush in early:
                self._finish(flush)
        self._disk.taken()

    def written(self, used_bytes: int) -> None:
        """Let go of more where the file is larger than what is in it."""
        if not self._closed:
            self._index.shrink(used_bytes)
            self._pass_on()

    def not_written(self, rows: Sequence[tuple[bytes, int]]) -> None:
        """These are in memory alone, or nowhere."""
        for key, row in rows:
            entry = self._entries.get(key)
            self._failures += 1
            if entry is not None and entry.row == row:
                self._index.lose_row(entry)
        self._pass_on()

    def begun_anew(self, last: int) -> None:
        """The disk lost all that it had."""
        self._failures += 1
        self._index.lose_rows(last)
