"""Connections to the file: one writer, some readers, and what the driver's errors mean to others."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from faregate.errors import Conflict, Failed, FaregateError, StorageFull, Unavailable

#: How long a statement waits for another connection's lock before the books count as unavailable.
BUSY_TIMEOUT_MS: Final = 5_000

#: Readers at once; more wait their turn.
READERS_MAX: Final = 8

#: Pages the write-ahead log grows by before it is copied back: 4 MiB, which takes some 3 ms. More would save nothing,
#: because hardly any page is written twice.
_CHECKPOINT_PAGES: Final = 1_000

#: Steps of a statement after which its deadline is looked at: some tens of microseconds.
_STEPS_LOOKED_AFTER: Final = 5_000

_WRITER_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    # A power cut may take the last batches; the journal still has them, and they are projected again.
    "PRAGMA synchronous=NORMAL",
    f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-16384",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA foreign_keys=ON",
)


def writer_engine(path: Path) -> Engine:
    """An engine with the one connection that may write; the caller lets one thread at it at a time."""
    engine = create_engine(f"sqlite:///{path}", poolclass=StaticPool, connect_args=_connect_args())
    _prepare(engine, _WRITER_PRAGMAS, "BEGIN IMMEDIATE")
    return engine


def reader_engine(path: Path) -> Engine:
    """An engine whose connections cannot write, however they are asked to."""
    engine = create_engine(
        f"sqlite:///file:{_quoted(path)}?mode=ro&uri=true",
        poolclass=QueuePool,
        pool_size=READERS_MAX,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_MS / 1000,
        connect_args=_connect_args(),
    )
    _prepare(engine, ("PRAGMA query_only=ON", "PRAGMA temp_store=MEMORY"), "BEGIN")
    return engine


def _connect_args() -> dict[str, Any]:
    return {"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _prepare(engine: Engine, pragmas: tuple[str, ...], begin: str) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, record: object) -> None:
        # The driver must not begin transactions by itself: it would do so late, and never for DDL.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


@contextmanager
def transaction(driver: sqlite3.Connection) -> Iterator[None]:
    """A writing transaction on the driver's own connection: begun at once, undone by any exception."""
    driver.execute("BEGIN IMMEDIATE")
    try:
        yield
        driver.execute("COMMIT")
    except BaseException:  # Whatever went wrong, nothing of it may stay behind on the only writing connection.
        if driver.in_transaction:
            driver.execute("ROLLBACK")
        raise


#: What SQLite says of a statement that a progress handler ended.
_INTERRUPTED: Final = "interrupted"


@contextmanager
def within(connection: Connection, milliseconds: int) -> Iterator[None]:
    """End statements of a connection that take longer, all together; 0 lets them take their time."""
    driver = connection.connection.driver_connection
    if not milliseconds or driver is None:
        yield
        return
    until = time.monotonic_ns() + milliseconds * 1_000_000
    driver.set_progress_handler(lambda: time.monotonic_ns() > until, _STEPS_LOOKED_AFTER)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


def was_too_long(problem: DBAPIError) -> bool:
    """Whether a statement was ended by ``within``."""
    return str(problem.orig) == _INTERRUPTED


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn the driver's errors into ours, in this one place.

    Raises:
        Unavailable: locked for longer than the deadline, or the file cannot be reached.
        StorageFull: the disk is full.
        Conflict: a unique value exists already.
        Failed: the file is damaged, or anything else.
    """
    try:
        yield
    except DBAPIError as problem:
        original = problem.orig
        raise explain(original if isinstance(original, sqlite3.Error) else problem) from problem
    except sqlite3.Error as problem:
        raise explain(problem) from problem


def explain(problem: Exception) -> FaregateError:
    """The error of ours that a driver's error means."""
    text = str(problem)
    if isinstance(problem, sqlite3.IntegrityError):
        return Conflict(f"it exists already: {text.removeprefix('UNIQUE constraint failed: ')}")
    if "disk is full" in text:
        return StorageFull("the disk of the books is full", hint="free space in the data folder; it goes on by itself")
    if text == _INTERRUPTED:
        return Failed(
            "this search takes too long", code="search_too_long", hint="ask for less of the time, or for whom"
        )
    if isinstance(problem, sqlite3.OperationalError) and ("locked" in text or "unable to open" in text):
        return Unavailable(f"the books do not answer: {text}")
    if isinstance(problem, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
        return Failed(f"the books are damaged: {text}", code="books_corrupt", hint="restore a backup")
    return Unavailable(f"the books do not answer: {text}")
