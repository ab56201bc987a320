"""The one index of all that an embedded store keeps: what is where, until when, and what has to go for want of room.

It knows no file, no loop and no clock. An answer lies in memory, on disk as a numbered row, or in both; what lies in
neither is not in the index. What it costs to know of an answer counts as memory, wherever the answer itself lies, so
that a large disk full of small answers does not fill the memory.

A look-up is one dictionary; keeping costs O(log entries) for the expiry and O(log tenants) for each answer that leaves.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from faregate.caching.shelf import Shelf, Tenant
from faregate.core.caching.policy import CacheLabels
from faregate.ports import CachedAnswer

#: What the index takes for an entry, wherever its answer lies: measured at 530 bytes, and its tables grow in steps.
ENTRY_BYTES: Final = 640

#: What an answer in memory takes beside its body: its fields, numbers and short texts.
ANSWER_BYTES: Final = 512

#: Where there is a disk, what is known of the answers on it takes up to one part in so many of the memory.
INDEX_PART: Final = 2

#: What a row takes beside the body: its line in the index, and room in pages that nothing else fits into.
ROW_BYTES: Final = 512

#: Where numbers of entries that are no more are taken out of the line of those that expire.
_STALE_MIN: Final = 64


class Row(NamedTuple):
    """An answer on disk, as the index of the file knows it."""

    row: int
    key: bytes
    expires_at: int
    #: What it takes on disk.
    size: int
    labels: CacheLabels


class Entry:
    """An answer that is kept somewhere."""

    __slots__ = ("answer", "expires_at", "key", "labels", "row")

    def __init__(self, key: bytes, expires_at: int, labels: CacheLabels) -> None:
        self.key = key
        self.expires_at = expires_at
        self.labels = labels
        #: ``None`` where it is on disk alone.
        self.answer: CachedAnswer | None = None
        #: 0 where it is in memory alone.
        self.row = 0

    @property
    def tenant(self) -> Tenant:
        """Who holds it: a project, and where there is none the key, since it shares with no other or with few."""
        labels = self.labels
        return labels[:3] if labels.project else (*labels[:3], labels.key)


def answer_size(answer: CachedAnswer) -> int:
    """Bytes that an answer counts in memory, without its entry."""
    return len(answer.body) + len(answer.content_type) + ANSWER_BYTES


def row_size(answer: CachedAnswer) -> int:
    """Bytes that an answer counts on disk; four of each page say where the next one is."""
    size = len(answer.body) + len(answer.content_type) + ROW_BYTES
    return size + size // 1024


class Index:
    """What is kept, within bounds. ``rows_gone`` collects the rows that are to be deleted from the disk."""

    def __init__(self, memory_bytes_max: int, disk_bytes_max: int = 0) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.memory, self.disk = Shelf(), Shelf()
        #: By how much the file is larger than its rows are thought to be.
        self.disk_excess = 0
        self.rows_gone: list[int] = []
        self.evictions = 0
        self._memory_max = memory_bytes_max
        self._disk_max = disk_bytes_max
        part = INDEX_PART if disk_bytes_max else 1
        self._entries_max = memory_bytes_max // part // ENTRY_BYTES
        self._expiring: list[tuple[int, bytes]] = []

    @property
    def memory_bytes(self) -> int:
        """Memory that is used, by what counts as such."""
        return self.memory.bytes + len(self.entries) * ENTRY_BYTES

    def keep(self, key: bytes, answer: CachedAnswer, now: int, row: int) -> None:
        """Keep an answer instead of any other of this key; ``row`` is where the disk has it, 0 where it has not."""
        self.forget_key(key)
        self.expire(now)
        if answer.expires_at <= now:
            self._give_back(row)
            return
        if not row and not self._fits_memory(answer):
            return
        entry = self._add(key, answer.expires_at, answer.labels)
        if row:
            self._on_disk(entry, row, row_size(answer))
        self.remember(entry, answer)
        self._make_room(entry.tenant)

    def adopt(self, row: Row, now: int) -> None:
        """Know of an answer that an earlier process left on disk, unless there is a newer one.

        A process that died may have left two of a key, of which the one with the higher number is the newer.
        """
        known = self.entries.get(row.key)
        if row.expires_at <= now or (known is not None and not 0 < known.row < row.row):
            self._give_back(row.row)
            return
        self.forget_key(row.key)
        entry = self._add(row.key, row.expires_at, row.labels)
        self._on_disk(entry, row.row, row.size)
        self._make_room(entry.tenant)

    def remember(self, entry: Entry, answer: CachedAnswer) -> None:
        """Have an answer in memory that was read from the disk, where it is small enough."""
        if entry.answer is None and self._fits_memory(answer):
            entry.answer = answer
            self.memory.put(entry.key, entry.tenant, answer_size(answer))
            self._make_room(entry.tenant)

    def touch(self, entry: Entry) -> None:
        """An answer was given just now."""
        if entry.answer is not None:
            self.memory.touch(entry.key, entry.tenant)
        if entry.row:
            self.disk.touch(entry.key, entry.tenant)

    def forget_key(self, key: bytes) -> None:
        """Keep nothing for a key."""
        entry = self.entries.get(key)
        if entry is not None:
            self.forget(entry)

    def forget(self, entry: Entry) -> None:
        """Keep an answer nowhere any more."""
        self._leave_memory(entry)
        self._leave_disk(entry)
        del self.entries[entry.key]

    def lose_row(self, entry: Entry) -> None:
        """The disk does not have an answer."""
        if entry.row:
            self._leave_disk(entry)
            if entry.answer is None:
                del self.entries[entry.key]

    def lose_rows(self, last: int) -> None:
        """The disk has nothing any more of what was given a number up to ``last``."""
        for entry in list(self.entries.values()):
            if entry.row <= last:
                self.lose_row(entry)
        self.rows_gone = [row for row in self.rows_gone if row > last]

    def expire(self, now: int, most: int = 16) -> int:
        """Forget some that have expired, the oldest first; how many were looked at."""
        looked = 0
        while looked < most and self._expiring and self._expiring[0][0] <= now:
            expires_at, key = heappop(self._expiring)
            looked += 1
            entry = self.entries.get(key)
            if entry is not None and entry.expires_at == expires_at:
                self.forget(entry)
        return looked

    def shrink(self, used: int) -> None:
        """The file takes ``used`` bytes, whatever its rows are thought to take."""
        self.disk_excess = max(0, used - self.disk.bytes)
        self._make_room(())

    def take_rows_gone(self) -> list[int]:
        """Rows that are to be deleted since this was last asked."""
        gone, self.rows_gone = self.rows_gone, []
        return gone

    # -- within bounds -------------------------------------------------------------------------------------------------

    def _add(self, key: bytes, expires_at: int, labels: CacheLabels) -> Entry:
        entry = self.entries[key] = Entry(key, expires_at, labels)
        if len(self._expiring) > _STALE_MIN + 2 * len(self.entries):
            self._expiring = [(each.expires_at, each.key) for each in self.entries.values()]
            heapify(self._expiring)
        else:
            heappush(self._expiring, (expires_at, key))
        return entry

    def _fits_memory(self, answer: CachedAnswer) -> bool:
        # What is larger than all the room there ever is would push out everybody for nothing.
        return answer_size(answer) + (self._entries_max * ENTRY_BYTES if self._disk_max else ENTRY_BYTES) <= (
            self._memory_max
        )

    def _on_disk(self, entry: Entry, row: int, size: int) -> None:
        entry.row = row
        self.disk.put(entry.key, entry.tenant, size)

    def _leave_memory(self, entry: Entry) -> None:
        if entry.answer is not None:
            entry.answer = None
            self.memory.remove(entry.key, entry.tenant)

    def _leave_disk(self, entry: Entry) -> None:
        if entry.row:
            self._give_back(entry.row)
            entry.row = 0
            self.disk.remove(entry.key, entry.tenant)

    def _give_back(self, row: int) -> None:
        if row:
            self.rows_gone.append(row)

    def _evict(self, entry: Entry) -> None:
        self.forget(entry)
        self.evictions += 1

    def _make_room(self, newcomer: Tenant) -> None:
        """Let go until all bounds hold. An answer that is in both places leaves the one that is full."""
        entries, disk, memory = self.entries, self.disk, self.memory
        while disk.bytes and disk.bytes + self.disk_excess > self._disk_max:
            entry = entries[disk.victim(newcomer)]
            if entry.answer is None:
                self._evict(entry)
            else:
                self._leave_disk(entry)
        while len(entries) > self._entries_max:
            self._evict(entries[(disk if disk.bytes else memory).victim(newcomer)])
        while memory.bytes and self.memory_bytes > self._memory_max:
            entry = entries[memory.victim(newcomer)]
            if entry.row:
                self._leave_memory(entry)
            else:
                self._evict(entry)


def fitting(entries: Iterable[Entry], wanted: CacheLabels) -> list[Entry]:
    """Those whose labels fit."""
    return [each for each in entries if each.labels.fits(wanted)]
