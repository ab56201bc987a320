"""Prompts and answers in a SQLite file of their own, so that the books and their backups hold none of them.

The file is its owner's alone. What is deleted is overwritten, and no log of old pages stays beside it: a text that was
removed, or is past its time, is on the disk no more. Nothing here is about money, so a lost record is only that.
"""

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from faregate.errors import Failed
from faregate.ports import ContentRecord, KeptText
from faregate.storage.sqlite.connect import told_plainly, transaction

#: How long a statement waits for another one to end.
_BUSY_S: Final = 5.0

#: Freed pages go back to the disk (which must be said before the first table is made), what is deleted is overwritten,
#: and the journal of a transaction is cut to nothing at its end.
_PRAGMAS: Final = ("auto_vacuum=INCREMENTAL", "journal_mode=TRUNCATE", "secure_delete=ON", "temp_store=MEMORY")

#: The layout below; a file with another number is refused.
VERSION: Final = 1

_TABLES: Final = (
    """
    CREATE TABLE contents (
        id TEXT NOT NULL UNIQUE, at INTEGER NOT NULL, kept TEXT NOT NULL, stream INTEGER NOT NULL,
        http_status INTEGER NOT NULL, code TEXT NOT NULL,
        prompt TEXT NOT NULL, prompt_characters INTEGER NOT NULL, prompt_bytes INTEGER NOT NULL,
        prompt_truncated INTEGER NOT NULL,
        answer TEXT NOT NULL, answer_characters INTEGER NOT NULL, answer_bytes INTEGER NOT NULL,
        answer_truncated INTEGER NOT NULL, found TEXT NOT NULL
    )
    """,
    "CREATE INDEX contents_by_at ON contents (at)",
    # Files that were taken in and may still be there, should the process die between the two.
    "CREATE TABLE taken (file TEXT PRIMARY KEY) WITHOUT ROWID",
)

_COLUMNS: Final = (
    "id, at, kept, stream, http_status, code, prompt, prompt_characters, prompt_bytes, prompt_truncated, "
    "answer, answer_characters, answer_bytes, answer_truncated, found"
)

_encode: Final = msgspec.json.Encoder().encode
_decode_found: Final = msgspec.json.Decoder(tuple[tuple[str, str, str, int], ...]).decode


class ContentStore:
    """Implements ``Contents``. Safe to use from several threads; for one process.

    The file is made with the first content, and opened for each question: there are few, and nothing is to be closed.
    Methods raise ``Failed`` where another version of Faregate made the file, ``Unavailable`` where it does not answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        with self._lock, told_plainly():
            # Before SQLite makes it, which would ask nobody who else may read it.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            driver = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
            try:
                for pragma in _PRAGMAS:
                    driver.execute(f"PRAGMA {pragma}")
                self._prepare(driver)
                yield driver
            finally:
                driver.close()

    def _prepare(self, driver: sqlite3.Connection) -> None:
        version = driver.execute("PRAGMA user_version").fetchone()[0]
        if version == VERSION:
            return
        if version:
            raise Failed(f"{self.path} was made by another version of Faregate", hint="move the file away")
        with transaction(driver):
            for statement in _TABLES:
                driver.execute(statement)
            driver.execute(f"PRAGMA user_version={VERSION}")

    @property
    def _empty(self) -> bool:
        """Nothing was ever kept, and asking shall make no file."""
        return not self.path.exists()

    # -- writing -------------------------------------------------------------------------------------------------------
    def take(self, file: str, records: Iterable[ContentRecord]) -> int:
        """Take in the records of a file, once, however often it comes; how many those were."""
        rows = [_row(record) for record in records]
        with self._alone() as driver, transaction(driver):
            if driver.execute("SELECT 1 FROM taken WHERE file = ?", (file,)).fetchone():
                return 0
            marks = ", ".join("?" * (_COLUMNS.count(",") + 1))
            driver.executemany(f"INSERT OR REPLACE INTO contents ({_COLUMNS}) VALUES ({marks})", rows)  # noqa: S608
            driver.execute("INSERT INTO taken VALUES (?)", (file,))
        return len(rows)

    def taken_away(self, file: str) -> None:
        """A file that was taken in is gone."""
        with self._alone() as driver:
            driver.execute("DELETE FROM taken WHERE file = ?", (file,))

    def remove(self, id: str) -> bool:
        """Forget what is kept of a request, for good; false where nothing was."""
        if self._empty:
            return False
        with self._alone() as driver:
            gone = driver.execute("DELETE FROM contents WHERE id = ?", (id,)).rowcount > 0
            if gone:
                self._give_back(driver)
            return gone

    def remove_before(self, at: int, most: int) -> int:
        """Forget so many of those from before a moment, the oldest first; how many those were."""
        if self._empty:
            return 0
        with self._alone() as driver:
            chosen = "SELECT id FROM contents WHERE at < ? ORDER BY at LIMIT ?"
            gone = driver.execute(f"DELETE FROM contents WHERE id IN ({chosen})", (at, most)).rowcount  # noqa: S608
            if gone:
                self._give_back(driver)
            return gone

    def _give_back(self, driver: sqlite3.Connection) -> None:
        # Each step gives back a page, and ``execute`` takes but one of a statement without columns.
        driver.executescript("PRAGMA incremental_vacuum")

    @property
    def size(self) -> int:
        """Bytes of all that is kept, on the disk."""
        return 0 if self._empty else self.path.stat().st_size

    # -- looking -------------------------------------------------------------------------------------------------------
    def get(self, id: str) -> ContentRecord | None:
        """What is kept of a request."""
        if self._empty:
            return None
        with self._alone() as driver:
            found = driver.execute(f"SELECT {_COLUMNS} FROM contents WHERE id = ?", (id,)).fetchone()  # noqa: S608
        return _record(found) if found is not None else None

    def newest(self, before: str, limit: int, since: int = 0, until: int = 0) -> list[ContentRecord]:
        """Those before an id (all, where it is empty), the newest first."""
        if self._empty:
            return []
        where, values = _within(before, since, until)
        statement = f"SELECT {_COLUMNS} FROM contents WHERE {where} ORDER BY id DESC LIMIT ?"  # noqa: S608
        with self._alone() as driver:
            return [_record(row) for row in driver.execute(statement, (*values, limit))]

    def containing(self, text: str, before: str, among: int, since: int = 0, until: int = 0) -> tuple[list[str], str]:
        """Ids of the newest before an id whose prompt or answer holds a text, and the last id that was looked at."""
        if self._empty:
            return [], ""
        where, values = _within(before, since, until)
        like = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        holds = "prompt LIKE ? ESCAPE '\\' OR answer LIKE ? ESCAPE '\\'"
        statement = f"SELECT id, {holds} FROM contents WHERE {where} ORDER BY id DESC LIMIT ?"  # noqa: S608
        with self._alone() as driver:
            rows = driver.execute(statement, (like, like, *values, among)).fetchall()
        return [id for id, found in rows if found], rows[-1][0] if len(rows) == among else ""


def _within(before: str, since: int, until: int) -> tuple[str, tuple[Any, ...]]:
    chosen: list[tuple[str, Any]] = [("id < ?", before)] if before else []
    chosen += [("at >= ?", since)] if since else []
    chosen += [("at < ?", until)] if until else []
    return " AND ".join(condition for condition, _ in chosen) or "1", tuple(value for _, value in chosen)


def _row(record: ContentRecord) -> tuple[Any, ...]:
    prompt, answer = record.prompt, record.answer
    return (*record[:6], *prompt, *answer, _encode(record.found).decode())


def _record(row: Sequence[Any]) -> ContentRecord:
    id, at, kept, stream, http_status, code = row[:6]
    prompt = KeptText(row[6], row[7], row[8], bool(row[9]))
    answer = KeptText(row[10], row[11], row[12], bool(row[13]))
    return ContentRecord(id, at, kept, bool(stream), http_status, code, prompt, answer, _decode_found(row[14]))
