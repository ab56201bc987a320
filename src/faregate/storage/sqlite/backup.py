"""One file that holds the books of an instant, and the way back from it.

The file is a tar of two members: ``manifest.json`` (what it is, and a SHA-256 of the other) and ``books.sqlite3``.
Secrets and the journal are not in it: the manifest names the journal position that the books stand at, and a restored
installation goes on from there. Marks of what was sent are part of the books, so a restored ledger sends nothing twice.
"""

import hashlib
import io
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from faregate import __version__
from faregate.errors import Conflict, Failed, Unsafe
from faregate.storage.schema import SCHEMA_VERSION
from faregate.storage.sqlite import connect

_MANIFEST: Final = "manifest.json"
_BOOKS: Final = "books.sqlite3"
_CHUNK: Final = 1024 * 1024

#: Pages copied at a time; the books can be written to between two steps.
_PAGES: Final = 2_000


#: Folder, position, next record number, epoch.
StartJournal = Callable[[Path, int, int, int], None]


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says about itself."""

    product: str
    version: str
    schema: str
    created_at: int
    bytes: int
    sha256: str
    #: The journal position, record number and epoch up to which the books go.
    position: int
    sequence: int
    epoch: int


def backup(books: Path, file: Path, now: int) -> Manifest:
    """Write the books of this instant to ``file``, which is replaced only by a whole backup.

    Raises:
        Unsafe: ``file`` is the books themselves.
        Failed: it could not be written; what was there before is untouched.
    """
    if file.exists() and file.samefile(books):
        raise Unsafe(f"{file} is the books themselves", hint="name another file")
    try:
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=file.parent) as scratch:
            copy, whole = Path(scratch) / _BOOKS, Path(scratch) / "backup.tar"
            _copy(books, copy)
            manifest = _describe(copy, now)
            _pack(whole, copy, manifest)
            os.replace(whole, file)
            _sync_folder(file.parent)
            return manifest
    except (OSError, sqlite3.Error) as problem:
        raise Failed(f"the backup could not be written: {problem}", hint="nothing was left behind") from problem


def restore_into(data_dir: Path, file: Path, start_journal: StartJournal) -> Manifest:
    """Restore a backup into a data folder that has no books and no journal yet.

    ``start_journal`` (``journal.segments.start_at``) makes the journal go on at the position where the backup stands,
    so that the next epoch finds what was in flight then and calls it unknown.

    Raises:
        Conflict: there are books or a journal already.
        Failed: the backup is damaged; nothing was changed.
        Unsafe: a newer version wrote it.
    """
    target = data_dir / _BOOKS
    if target.exists():
        raise Conflict(
            f"{data_dir} holds books already", hint="restore into an empty data folder, or move the old one away"
        )
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=data_dir) as scratch:
        copy = Path(scratch) / _BOOKS
        with _unpacking(file), tarfile.open(file, "r:") as archive:
            manifest = _manifest_of(archive, file)
            _unpack(archive, copy, manifest, file)
        _check_stored(copy, manifest, file)
        # The journal comes first: books without their place in the journal would be worse than a place alone.
        start_journal(data_dir / "journal", manifest.position, manifest.sequence + 1, manifest.epoch)
        os.replace(copy, target)
        _sync_folder(data_dir)
    return manifest


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _copy(books: Path, copy: Path) -> None:
    source = sqlite3.connect(f"file:{books}?mode=ro", uri=True, timeout=connect.BUSY_TIMEOUT_MS / 1000)
    try:
        os.close(os.open(copy, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        target = sqlite3.connect(copy)
        try:
            # A reading transaction pins the instant, so that writers in between do not make the copy start again.
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM meta").fetchone()
            source.backup(target, pages=_PAGES)
            target.execute("PRAGMA journal_mode=DELETE")
        finally:
            target.close()
    finally:
        source.close()


def _describe(copy: Path, now: int) -> Manifest:
    connection = sqlite3.connect(copy)
    try:
        position, sequence, epoch = connection.execute("SELECT position, sequence, epoch FROM meta").fetchone()
        (schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        connection.close()
    with open(copy, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Manifest("faregate", __version__, schema, now, copy.stat().st_size, digest, position, sequence, epoch)


def _pack(whole: Path, copy: Path, manifest: Manifest) -> None:
    fd = os.open(whole, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as stream:
        with tarfile.open(fileobj=stream, mode="w:", format=tarfile.PAX_FORMAT) as archive:
            text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            entry = tarfile.TarInfo(_MANIFEST)
            entry.size, entry.mode = len(text), 0o600
            archive.addfile(entry, io.BytesIO(text))
            entry = tarfile.TarInfo(_BOOKS)
            entry.size, entry.mode = copy.stat().st_size, 0o600
            with open(copy, "rb") as books:
                archive.addfile(entry, books)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _unpacking(file: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError) as problem:
        raise Failed(f"{file} is not a whole backup: {problem}", code="backup_invalid") from problem
    except OSError as problem:
        raise Failed(f"{file} cannot be read: {problem.strerror or problem}") from problem


def _manifest_of(archive: tarfile.TarFile, file: Path) -> Manifest:
    entry = archive.next()
    stream = archive.extractfile(entry) if entry is not None and entry.name == _MANIFEST and entry.isreg() else None
    if stream is None:
        raise Failed(f"{file} is not a backup of Faregate", code="backup_invalid")
    try:
        manifest = msgspec.json.decode(stream.read(_CHUNK), type=Manifest)
    except msgspec.MsgspecError as problem:
        raise Failed(f"the manifest of {file} is damaged: {problem}", code="backup_invalid") from problem
    if manifest.product != "faregate":
        raise Failed(f"{file} is not a backup of Faregate", code="backup_invalid")
    if manifest.schema > SCHEMA_VERSION:
        raise Unsafe(
            f"{file} has schema {manifest.schema}, this version of Faregate knows up to {SCHEMA_VERSION}",
            hint=f"restore it with version {manifest.version} of Faregate or later",
        )
    return manifest


def _unpack(archive: tarfile.TarFile, copy: Path, manifest: Manifest, file: Path) -> None:
    entry = archive.next()
    stream = archive.extractfile(entry) if entry is not None and entry.name == _BOOKS and entry.isreg() else None
    if stream is None or entry is None or entry.size != manifest.bytes:
        raise Failed(f"{file} is not a whole backup: the books are missing", code="backup_invalid")
    digest = hashlib.sha256()
    fd = os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as target:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    if digest.hexdigest() != manifest.sha256:
        raise Failed(f"the checksum of {file} does not hold: it is damaged", code="backup_invalid")


def _check_stored(copy: Path, manifest: Manifest, file: Path) -> None:
    """The manifest carries no checksum of its own: what it says must be what the books say."""
    with connect.told_plainly():
        said = _describe(copy, manifest.created_at)
    if (said.position, said.sequence, said.epoch, said.schema) != (
        manifest.position,
        manifest.sequence,
        manifest.epoch,
        manifest.schema,
    ):
        raise Failed(f"the manifest of {file} is damaged", code="backup_invalid")
