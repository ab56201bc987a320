"""One file that holds the books of an instant with their trail of changes, and the way back from it.

The file is a tar: ``manifest.json`` (what it is, and a SHA-256 of the others), ``books.sqlite3``, and ``audit.jsonl``.
Secrets and the journal are not in it: the manifest names the journal position that the books stand at, and a restored
installation goes on from there. Marks of what was sent are part of the books, so a restored ledger sends nothing twice.
"""

import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from faregate import __version__
from faregate.errors import Conflict, Failed, Unsafe
from faregate.storage.schema import SCHEMA_VERSION
from faregate.storage.sqlite import connect

_MANIFEST: Final = "manifest.json"
_BOOKS: Final = "books.sqlite3"
#: The console writes it beside the books; here it is lines of bytes, whose chain the console proves.
TRAIL: Final = "audit.jsonl"
_CHUNK: Final = 1024 * 1024
_WHOLE: Final = "backup.tar"

#: Folders that exist only while a backup or a restore runs, and all that is ever in them.
_BACKING_UP, _RESTORING = ".backup-", ".restore-"
_RANDOM = "?" * 8
_SCRATCH: Final = frozenset((_BOOKS, f"{_BOOKS}-journal", f"{_BOOKS}-wal", f"{_BOOKS}-shm", TRAIL, _WHOLE))

#: Beyond every journal position and number that a real installation reaches.
_PLACE_MAX: Final = 2**62

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
    #: Size and digest of the trail; nothing and empty where there was none, as in backups of before it was included.
    trail_bytes: int = 0
    trail_sha256: str = ""


def backup(books: Path, file: Path, now: int) -> Manifest:
    """Write the books of this instant and their trail to ``file``, which is replaced only by a whole backup.

    A line of the trail is written before its change, so the trail tells of every change in the copy, and of one more
    where one was being made.

    Raises:
        Unsafe: ``file`` is the books themselves.
        Failed: it could not be written; what was there before is untouched.
    """
    if file.exists() and file.samefile(books):
        raise Unsafe(f"{file} is the books themselves", hint="name another file")
    if not file.parent.is_dir():
        raise Failed(
            f"the backup could not be written: {file.parent} is no folder", hint="make it, or name another file"
        )
    try:
        with tempfile.TemporaryDirectory(prefix=_BACKING_UP, dir=file.parent) as scratch:
            copy, trail, whole = Path(scratch) / _BOOKS, Path(scratch) / TRAIL, Path(scratch) / _WHOLE
            _copy(books, copy, lambda: _copy_lines(books.with_name(TRAIL), trail))
            manifest = msgspec.structs.replace(
                _describe(copy, now), trail_bytes=trail.stat().st_size, trail_sha256=_digest(trail)
            )
            _pack(whole, manifest, [copy, trail])
            os.replace(whole, file)
            _sync_folder(file.parent)
            return manifest
    except (OSError, sqlite3.Error) as problem:
        raise Failed(f"the backup could not be written: {problem}", hint="nothing was left behind") from problem


def is_one(file: Path) -> bool:
    """Whether a file is a backup of Faregate by its manifest, whole or not, and of any version."""
    try:
        # Whoever opens a pipe waits for its other end.
        if not file.is_file():
            return False
        with tarfile.open(file, "r:") as archive:
            _manifest_of(archive, file)
    except Unsafe:
        # A newer version's.
        return True
    except (Failed, tarfile.TarError, EOFError, OSError):
        return False
    return True


def restore_into(data_dir: Path, file: Path, start_journal: StartJournal) -> Manifest:
    """Restore a backup into a data folder that has no books, no journal and no trail of changes yet.

    ``start_journal`` (``journal.segments.start_at``) makes the journal go on at the position where the backup stands,
    so that the next epoch finds what was in flight then and calls it unknown.

    Raises:
        Conflict: there are books, a journal or a trail already.
        Failed: the backup is damaged; nothing was changed, but for what an earlier restore that was killed left behind.
        Unsafe: a newer version wrote it.
    """
    target = data_dir / _BOOKS
    if target.exists():
        raise Conflict(
            f"{data_dir} holds books already", hint="restore into an empty data folder, or move the old one away"
        )
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_leftovers(data_dir)
    with tempfile.TemporaryDirectory(prefix=_RESTORING, dir=data_dir) as scratch:
        copy, trail = Path(scratch) / _BOOKS, Path(scratch) / TRAIL
        with _unpacking(file), tarfile.open(file, "r:") as archive:
            manifest = _manifest_of(archive, file)
            _unpack(archive, copy, manifest.bytes, manifest.sha256, file)
            if manifest.trail_bytes:
                _unpack(archive, trail, manifest.trail_bytes, manifest.trail_sha256, file)
            else:
                _expect_no_more(archive, file)
        _check_stored(copy, manifest, file)
        if manifest.trail_bytes:
            _place_trail(trail, data_dir / TRAIL)
        # The journal comes first: books without their place in the journal would be worse than a place alone.
        start_journal(data_dir / "journal", manifest.position, manifest.sequence + 1, manifest.epoch)
        os.replace(copy, target)
        _sync_folder(data_dir)
    return manifest


def remove_leftovers(data_dir: Path) -> None:
    """Remove what backups and restores that were killed left in a data folder, for whoever alone uses it now.

    A folder that holds anything which they do not make, or has not such a name as ``tempfile`` makes, is somebody
    else's, and stays.
    """
    for left in [*data_dir.glob(f"{_BACKING_UP}{_RANDOM}"), *data_dir.glob(f"{_RESTORING}{_RANDOM}")]:
        with suppress(OSError):
            if not left.is_symlink() and _SCRATCH.issuperset(os.listdir(left)):
                shutil.rmtree(left)


def _expect_no_more(archive: tarfile.TarFile, file: Path) -> None:
    """Where the manifest knows of no trail there must be none: it has no checksum of its own to show an edit."""
    entry = archive.next()
    if entry is not None and entry.size > 0:
        raise Failed(f"the manifest of {file} is damaged", code="backup_invalid")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _place_trail(trail: Path, target: Path) -> None:
    """A restore that was cut short leaves the same trail, which is no conflict."""
    if target.exists() and _digest(target) != _digest(trail):
        raise Conflict(f"{target} exists already", hint="restore into an empty data folder, or move the old one away")
    os.replace(trail, target)


def _copy(books: Path, copy: Path, pinned: Callable[[], None]) -> None:
    """Copy the books of one instant; ``pinned`` is called at that instant."""
    source = sqlite3.connect(f"file:{books}?mode=ro", uri=True, timeout=connect.BUSY_TIMEOUT_MS / 1000)
    try:
        os.close(os.open(copy, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        target = sqlite3.connect(copy)
        try:
            # A reading transaction pins the instant, so that writers in between do not make the copy start again.
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM meta").fetchone()
            pinned()
            source.backup(target, pages=_PAGES)
            target.execute("PRAGMA journal_mode=DELETE")
        finally:
            target.close()
    finally:
        source.close()


def _copy_lines(trail: Path, copy: Path) -> None:
    """Copy the whole lines that the trail has now; of one that is being written nothing."""
    fd = os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as target:
        if not trail.exists():
            return
        whole = 0
        with open(trail, "rb") as source:
            left = os.fstat(source.fileno()).st_size
            while left and (chunk := source.read(min(left, _CHUNK))):
                end = chunk.rfind(b"\n") + 1
                whole = target.tell() + end if end else whole
                target.write(chunk)
                left -= len(chunk)
        target.truncate(whole)


def _digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _describe(copy: Path, now: int) -> Manifest:
    connection = sqlite3.connect(copy)
    try:
        place = connection.execute("SELECT position, sequence, epoch FROM meta").fetchone()
        version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        connection.close()
    if place is None or version is None:
        missing = "where in the journal they stand" if version else "their schema"
        problem = f"the books are damaged: they do not say {missing}"
        raise Failed(problem, code="books_corrupt", hint="restore a backup")
    size, digest = copy.stat().st_size, _digest(copy)
    return Manifest("faregate", __version__, version[0], now, size, digest, *place)


def _pack(whole: Path, manifest: Manifest, files: Iterable[Path]) -> None:
    fd = os.open(whole, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as stream:
        with tarfile.open(fileobj=stream, mode="w:", format=tarfile.PAX_FORMAT) as archive:
            text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            entry = tarfile.TarInfo(_MANIFEST)
            entry.size, entry.mode = len(text), 0o600
            archive.addfile(entry, io.BytesIO(text))
            for file in files:
                entry = tarfile.TarInfo(file.name)
                entry.size, entry.mode = file.stat().st_size, 0o600
                with open(file, "rb") as content:
                    archive.addfile(entry, content)
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
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise Failed(f"the manifest of {file} is damaged: {problem}", code="backup_invalid") from problem
    if manifest.product != "faregate":
        raise Failed(f"{file} is not a backup of Faregate", code="backup_invalid")
    places = (manifest.position, manifest.sequence, manifest.epoch)
    no_trail = manifest.trail_sha256 in ("", hashlib.sha256().hexdigest())
    if not all(0 <= place < _PLACE_MAX for place in places) or (manifest.trail_bytes > 0) == no_trail:
        raise Failed(f"the manifest of {file} is damaged", code="backup_invalid")
    if manifest.schema > SCHEMA_VERSION:
        raise Unsafe(
            f"{file} has schema {manifest.schema}, this version of Faregate knows up to {SCHEMA_VERSION}",
            hint=f"restore it with version {manifest.version} of Faregate or later",
        )
    return manifest


def _unpack(archive: tarfile.TarFile, copy: Path, size: int, sha256: str, file: Path) -> None:
    """Unpack the next member, which must have the name of ``copy``, and the size and digest that the manifest tells."""
    entry = archive.next()
    stream = archive.extractfile(entry) if entry is not None and entry.name == copy.name and entry.isreg() else None
    if stream is None or entry is None or entry.size != size:
        raise Failed(f"{file} is not a whole backup: {copy.name} is missing", code="backup_invalid")
    digest = hashlib.sha256()
    fd = os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as target:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    if digest.hexdigest() != sha256:
        raise Failed(f"the checksum of {file} does not hold: it is damaged", code="backup_invalid")


def _check_stored(copy: Path, manifest: Manifest, file: Path) -> None:
    """The manifest carries no checksum of its own: what it says must be what the books say."""
    try:
        said = _describe(copy, manifest.created_at)
    except (Failed, sqlite3.Error) as problem:
        # The copy is nobody else's: whatever is wrong with it was so in the backup.
        why = str(problem).removeprefix("the books are damaged: ")
        raise Failed(
            f"the books in {file} are damaged: {why}", code="backup_invalid", hint="restore another backup"
        ) from problem
    if (said.position, said.sequence, said.epoch, said.schema) != (
        manifest.position,
        manifest.sequence,
        manifest.epoch,
        manifest.schema,
    ):
        raise Failed(f"the manifest of {file} is damaged", code="backup_invalid")
