"""An installation that does not run, for one command: its books under the lock, or a look at them from outside."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from faregate.assembly.clock import SystemClock
from faregate.assembly.compiler import CatalogueCompiler
from faregate.assembly.made import secret_box
from faregate.assembly.workshop import Workshop, console_secrets
from faregate.config.environment import process_environment
from faregate.config.findings import Invalid
from faregate.config.folder import DataFolder, prepare, take_lock
from faregate.config.load import Loaded, load
from faregate.config.schema import Config
from faregate.config.secrets import read_secrets, secrets_of
from faregate.config.tree import Environment
from faregate.errors import ConfigError, FaregateError
from faregate.ports import Books
from faregate.storage.sqlite.opening import open_books

logger = logging.getLogger("faregate.offline")


def open_console(root: Path) -> tuple[Any, Callable[[], None], str]:
    """The console's ASGI application on the books of a stopped installation, what gives them back, and why the
    configuration could not be used, empty where it was or there is none.

    Every request is root's, because whoever can open the books is that.
    Without a configuration that can be read here there are no providers: keys and limits can be made, prices cannot.

    Raises:
        Conflict: the installation runs; speak to its socket instead.
        FaregateError: its books cannot be used.
    """
    from faregate.console.app import create_app
    from faregate.console.doors import trusted

    folder = prepare(root)
    with contextlib.ExitStack() as stack:
        stack.callback(take_lock(folder).release)
        environment = process_environment()
        loaded, unread = _configuration(environment)
        config = loaded.config if loaded is not None else Config.model_construct(providers=())
        kept = secrets_of(folder, os.urandom).secrets
        box = secret_box(kept)
        compiler = CatalogueCompiler(
            config,
            loaded.folder if loaded is not None else Path.cwd(),
            environment,
            box.open if box is not None else None,
        )
        secrets = console_secrets(kept)
        clock = SystemClock()
        books = open_books(folder.books, clock)
        stack.callback(books.close)
        app = create_app(Workshop(config, folder, compiler, secrets, clock, books).still())
        return trusted(app), stack.pop_all().close, unread


def _configuration(environment: Environment) -> tuple[Loaded | None, str]:
    """The configuration that `serve` would use here; ``None`` where there is none, or where it is not whole, and why.

    A command line often lacks the variables with the providers' secrets, and needs none of them.
    """
    file = Path(environment.get("FAREGATE_CONFIG") or "faregate.yaml")
    try:
        return load(file, environment), ""
    except Invalid as invalid:
        why = invalid.findings[0].line()
        logger.debug("configuration_not_used", extra={"why": why})
        return None, why if file.exists() else ""


def restore(folder: DataFolder, file: Path) -> dict[str, Any]:
    """Restore a backup into a data folder that holds no books; what the backup says about itself.

    ``trail_fault`` is what is wrong with the trail of changes in it, empty where its chain holds.

    Raises:
        Conflict: there are books, a journal or a trail already.
        Failed: the backup is damaged; nothing was changed.
        Unsafe: a newer version wrote it.
    """
    from faregate.console.audit import AuditTrail
    from faregate.journal.segments import start_at
    from faregate.storage.sqlite.backup import restore_into

    manifest: dict[str, Any] = msgspec.to_builtins(restore_into(folder.root, file, start_at))
    return {**manifest, "trail_fault": AuditTrail(folder.root).fault()}


def look(folder: DataFolder) -> Iterator[tuple[str, str, str]]:
    """``(name, state, detail)`` of the books and the journal of a stopped installation; nothing is changed."""
    from faregate.journal.read import FileJournalReader
    from faregate.storage.schema import SCHEMA_VERSION
    from faregate.storage.sqlite.books import SqliteBooks
    from faregate.storage.sqlite.opening import schema_version

    try:
        version = schema_version(folder.books)
        yield "books", "ok", f"schema {version or 'none'}, this version has {SCHEMA_VERSION}"
        if version != SCHEMA_VERSION:
            return
        books = SqliteBooks(folder.books, SystemClock())
        try:
            projected = books.projected()
            yield from _peppers(folder, books)
        finally:
            books.close()
        kept = list(FileJournalReader(folder.journal).segments())
        backlog = max(sum(kept[-1]) - projected, 0) if kept else 0
        yield "journal", "ok", f"{backlog} bytes are not in the books yet; the next start books them"
    except FaregateError as error:
        yield "books", "failed", error.message


def last_backup(folder: DataFolder) -> str | None:
    """When the newest backup was made, by the trail of changes; ``None`` where it tells of none."""
    from faregate.console.audit import FILE_NAME

    newest: str | None = None
    try:
        with (folder.root / FILE_NAME).open("rb") as trail:
            # Most lines tell of something else, and need not be read as JSON.
            for line in trail:
                if b'"backup"' not in line:
                    continue
                try:
                    told = msgspec.json.decode(line)
                except msgspec.DecodeError:
                    continue
                if isinstance(told, dict) and told.get("kind") == "backup":
                    newest = str(told.get("at"))
    except OSError:
        return None
    return newest


def has_admin_key(folder: DataFolder) -> bool:
    """Whether some key opens the console; true where it cannot be told before the books were brought up to date."""
    from faregate.storage.schema import SCHEMA_VERSION
    from faregate.storage.sqlite.books import SqliteBooks
    from faregate.storage.sqlite.opening import schema_version

    if not folder.books.exists():
        return False
    if schema_version(folder.books) != SCHEMA_VERSION:
        return True
    books = SqliteBooks(folder.books, SystemClock())
    try:
        return any(books.listing("key", role=role, state="active", limit=1) for role in ("root", "admin"))
    finally:
        books.close()


def _peppers(folder: DataFolder, books: Books) -> Iterator[tuple[str, str, str]]:
    """Whether the secrets are those that the keys in the books need."""
    from faregate.console.accounts import keys_without_pepper

    try:
        peppers = console_secrets(read_secrets(folder.secrets)).pepper_keys
    except (FileNotFoundError, ConfigError):
        # Whoever looks at the folder is told of it already.
        return
    try:
        lost = keys_without_pepper(books, peppers, SystemClock().wall_nanos())
    except ConfigError as error:
        yield "peppers", "failed", f"{error.message}; {error.hint}"
        return
    if lost:
        yield "peppers", "warning", f"{lost} keys fail: their pepper is not in {folder.secrets.name}"
    else:
        yield "peppers", "ok", "secrets and books belong together"
