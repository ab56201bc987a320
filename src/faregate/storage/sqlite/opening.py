"""Opens the books: makes the file, brings its schema up to date after a backup, and checks that it is sound."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from faregate.errors import Failed, Unavailable, Unsafe
from faregate.ports import Clock, TrailMark
from faregate.storage.schema import SCHEMA_VERSION
from faregate.storage.sqlite import backup, chain, connect
from faregate.storage.sqlite.books import SqliteBooks

FILE_NAME: Final = "books.sqlite3"

#: The first schema with a chain. Older books are sealed when all migrations have run, by the rules of today.
_CHAINED: Final = "0008"

_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700


def open_books(path: Path, clock: Clock, *, look_ms: int = 0) -> SqliteBooks:
    """The books in the file at ``path``, which is made where there is none.

    An older schema is brought up to date, after a backup beside it. The file is looked through for damage for at most
    ``look_ms``, 0 for as long as that takes; the books say whether that was enough.

    Raises:
        Unsafe: a newer version of Faregate wrote the file.
        Failed: the file is damaged, or is something else.
        Unavailable: it cannot be reached, or somebody keeps it locked.
    """
    try:
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _FILE_MODE))
        path.chmod(_FILE_MODE)
    except OSError as problem:
        raise Unavailable(f"the books cannot be opened: {problem.strerror}: {path}") from problem
    # The books have one owner, so no backup is being made now, and none is being restored.
    backup.remove_leftovers(path.parent)
    version = schema_version(path)
    if version != SCHEMA_VERSION:
        if version:
            backup.backup(path, path.with_name(f"{path.name}.before-{SCHEMA_VERSION}.tar"), clock.wall_nanos())
        _migrate(path, version, clock.wall_nanos())
    books = SqliteBooks(path, clock)
    try:
        wrong = books.check(look_ms)
    except BaseException:  # Nobody gets these books, whatever kept them from being looked at.
        books.close()
        raise
    if wrong:
        books.close()
        raise Failed(f"the books are damaged: {wrong[0]}", code="books_corrupt", hint="restore a backup")
    return books


def schema_version(path: Path) -> str:
    """The schema version of the file, empty for a new one.

    Raises:
        Unsafe: it is newer than this version of Faregate knows; both are named.
        Failed: the file is damaged, or is something else.
    """
    with connect.told_plainly():
        connection = sqlite3.connect(path, timeout=connect.BUSY_TIMEOUT_MS / 1000)
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return ""
            if "alembic_version" not in tables:
                raise Failed(f"{path} is a database, but not Faregate's books")
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.close()
    version = str(row[0]) if row else ""
    if version > SCHEMA_VERSION:
        raise Unsafe(
            f"the books have schema {version}, this version of Faregate knows up to {SCHEMA_VERSION}",
            hint="run the newer version again, or restore a backup made with this one",
        )
    return version


def _migrate(path: Path, before: str, now: int) -> None:
    # Only a new or an older file pays for loading the migration machinery.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "faregate.storage:migrations")
    config.set_main_option("path_separator", "os")
    engine = connect.writer_engine(path)
    try:
        # One transaction for everything: a crash in the middle leaves the schema as it was.
        with connect.told_plainly(), engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, SCHEMA_VERSION)
            if before < _CHAINED:
                driver = connection.connection.driver_connection
                assert driver is not None
                chain.seal(driver.cursor(), now, _trail_of(path) if before else None)
    finally:
        engine.dispose()


def _trail_of(path: Path) -> TrailMark | None:
    """The lines of the trail of changes beside books of before the chain; ``None`` where there are none."""
    last = b""
    with suppress(FileNotFoundError), open(path.with_name(backup.TRAIL), "rb") as trail:
        for line in trail:
            last = line if line.endswith(b"\n") else last
    if not last:
        return None
    facts = msgspec.json.decode(last)
    return TrailMark(1, int(facts["n"]), str(facts["chain"]))
