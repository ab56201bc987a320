"""Answers in a SQLite file, for one thread at a time; it may lose anything and gives nothing that it was not given.

Nothing waits for stable storage, so that a cache never delays the journal's writes: a power cut may leave a file that
is damaged anywhere. Each answer therefore carries a digest of its key and of all its bytes, and whoever finds one that
does not agree begins the file anew. A crash of the process alone leaves what was committed.

What is found by is kept apart from the bodies, which would otherwise be read to learn the keys. Rows have numbers that
only grow, so neither table has an index beside itself. What is deleted is overwritten; its pages are used again, and
given back to the disk where there are many of them.
"""

import contextlib
import hashlib
import os
import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from faregate.caching.index import Row, row_size
from faregate.core.caching.key import KEY_BYTES
from faregate.core.caching.policy import CacheLabels
from faregate.ports import CachedAnswer

#: The layout below, and "faregate cache" in a number; a file that says otherwise is begun anew.
VERSION: Final = 1
APPLICATION: Final = 0x46474341

#: Another process that still has the file is waited for so long, at a start.
_BUSY_S: Final = 0.5

#: SQLite's own files beside one that is open.
_BESIDE: Final = ("", "-journal", "-wal", "-shm")

#: ``secure_delete`` overwrites what was forgotten, and ``TRUNCATE`` leaves no log of old pages beside it.
_PRAGMAS: Final = (
    "auto_vacuum=INCREMENTAL",
    "locking_mode=EXCLUSIVE",
    "journal_mode=TRUNCATE",
    "synchronous=OFF",
    "secure_delete=ON",
    "cache_size=-1024",
    "temp_store=MEMORY",
)

_TABLES: Final = (
    "CREATE TABLE answers (id INTEGER PRIMARY KEY, key BLOB NOT NULL, expires_at INTEGER NOT NULL, "
    "size INTEGER NOT NULL, labels BLOB NOT NULL)",
    "CREATE TABLE bodies (id INTEGER PRIMARY KEY, digest BLOB NOT NULL, record BLOB NOT NULL)",
)

#: The file may be larger by this than its rows may be, before SQLite itself refuses to make it larger.
_SLACK_PART: Final = 8
_SLACK_BYTES: Final = 4 * 1024 * 1024

#: Free pages beyond this go back to the disk, and so many at a time: giving back moves others.
_FREE_BYTES_MAX: Final = 8 * 1024 * 1024
_GIVEN_BACK_BYTES: Final = 2 * 1024 * 1024

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(CachedAnswer).decode
_decode_labels: Final = msgspec.msgpack.Decoder(CacheLabels).decode


class Damaged(Exception):
    """The file holds what nobody wrote into it."""


class NewRow(NamedTuple):
    """An answer that is to be written, and the number it gets."""

    row: int
    key: bytes
    answer: CachedAnswer


class Written(NamedTuple):
    """An answer in the form that it has in the file."""

    row: int
    key: bytes
    expires_at: int
    size: int
    labels: bytes
    digest: bytes
    record: bytes


def written_form(new: NewRow) -> Written:
    """What is written of an answer.

    Raises:
        ValueError, OverflowError: a text or a number in it has no such form.
    """
    answer, record = new.answer, _encode(new.answer)
    digest = _digest(new.key, record)
    return Written(new.row, new.key, answer.expires_at, row_size(answer), _encode(answer.labels), digest, record)


class AnswerFile:
    """The file ``path``, whose answers take up to ``bytes_max``.

    Every method may raise ``sqlite3.Error``, ``OSError`` or ``Damaged``; ``remove`` and ``open`` begin anew.
    """

    def __init__(self, path: Path, bytes_max: int) -> None:
        self.path = path
        self.bytes_max = bytes_max
        self._driver: sqlite3.Connection | None = None
        self._page_bytes = 4096

    def open(self) -> int:
        """Open what is there, or make it; the highest number of a row in it."""
        # Before SQLite makes it, which would ask nobody who else may read it. What is no file of ours alone is refused.
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise Damaged("it can be read by others")
        # One thread at a time uses it; which one changes once, after it was opened.
        driver = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        self._driver = driver
        for pragma in _PRAGMAS:
            driver.execute(f"PRAGMA {pragma}").fetchall()
        if not status.st_size:
            self._make(driver)
        made_by = (self._number("user_version"), self._number("application_id"))
        if made_by != (VERSION, APPLICATION):
            raise Damaged("another version of Faregate made it")
        self._page_bytes = self._number("page_size")
        slack = self.bytes_max // _SLACK_PART + _SLACK_BYTES
        self._number(f"max_page_count={(self.bytes_max + slack) // self._page_bytes}")
        return int(driver.execute("SELECT coalesce(max(id), 0) FROM answers").fetchone()[0])

    def _make(self, driver: sqlite3.Connection) -> None:
        driver.execute("BEGIN IMMEDIATE")
        for statement in _TABLES:
            driver.execute(statement)
        driver.execute(f"PRAGMA application_id={APPLICATION}")
        driver.execute(f"PRAGMA user_version={VERSION}")
        driver.execute("COMMIT")

    def remove(self) -> None:
        """Remove what is there."""
        self.close()
        for suffix in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.path}{suffix}")

    def rows(self, after: int, until: int, most: int) -> list[Row]:
        """So many of the rows with numbers above ``after`` and up to ``until``, in their order."""
        statement = "SELECT id, key, expires_at, size, labels FROM answers WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
        found = []
        for row, key, expires_at, size, labels in self._open.execute(statement, (after, until, most)):
            if not (isinstance(key, bytes) and len(key) == KEY_BYTES and isinstance(labels, bytes)):
                raise Damaged("a row of its index is none")
            if not (isinstance(expires_at, int) and isinstance(size, int) and size > 0):
                raise Damaged("a row of its index is none")
            try:
                found.append(Row(row, key, expires_at, size, _decode_labels(labels)))
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise Damaged("a row of its index is none") from None
        return found

    def read(self, row: int, key: bytes) -> CachedAnswer | None:
        """The answer with a number, ``None`` where there is none; it is the one that was written for this key."""
        found = self._open.execute("SELECT digest, record FROM bodies WHERE id = ?", (row,)).fetchone()
        if found is None:
            return None
        digest, record = found
        if not isinstance(record, bytes) or digest != _digest(key, record):
            raise Damaged("an answer is not what was written")
        return _decode(record)

    def write(self, new: Sequence[Written], gone: Sequence[int]) -> None:
        """Write some and delete others, all of it or nothing."""
        driver = self._open
        driver.execute("BEGIN IMMEDIATE")
        try:
            # First, so that their pages are used again.
            numbers = [(row,) for row in gone]
            driver.executemany("DELETE FROM answers WHERE id = ?", numbers)
            driver.executemany("DELETE FROM bodies WHERE id = ?", numbers)
            driver.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", [each[:5] for each in new])
            driver.executemany("INSERT INTO bodies VALUES (?, ?, ?)", [(each[0], *each[5:]) for each in new])
            driver.execute("COMMIT")
        except BaseException:  # Whatever went wrong, no transaction may stay open on the only connection.
            if driver.in_transaction:
                driver.execute("ROLLBACK")
            raise
        if gone and self._number("freelist_count") * self._page_bytes > _FREE_BYTES_MAX:
            # Each step gives back a page, and ``execute`` takes but one of a statement without columns.
            driver.executescript(f"PRAGMA incremental_vacuum({_GIVEN_BACK_BYTES // self._page_bytes})")

    @property
    def used_bytes(self) -> int:
        """Bytes of the file that hold something."""
        return (self._number("page_count") - self._number("freelist_count")) * self._page_bytes

    def close(self) -> None:
        """Let go of the file; closed again, nothing happens."""
        driver, self._driver = self._driver, None
        if driver is not None:
            with contextlib.suppress(sqlite3.Error):
                driver.close()

    @property
    def _open(self) -> sqlite3.Connection:
        if self._driver is None:
            raise Damaged("it is not open")
        return self._driver

    def _number(self, pragma: str) -> int:
        return int(self._open.execute(f"PRAGMA {pragma}").fetchone()[0])


def _digest(key: bytes, record: bytes) -> bytes:
    return hashlib.blake2b(record, digest_size=16, key=key).digest()
