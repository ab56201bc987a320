"""The data folder: what lies where in it, whether it can be used, and who uses it now.

One installation uses a folder at a time; its supervisor (or a command that works on the books directly) holds a lock
on it as long as it runs. The operating system gives the lock back when its holder dies, so a lock is never stale, only
the process id written into it.
"""

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from faregate.errors import ConfigError, Conflict

#: Below it a start is refused: a segment of the journal, its spare and the books must fit.
FREE_BYTES_MIN = 256 * 1024 * 1024

#: An address of a Unix socket has 108 bytes on Linux, 104 elsewhere, with its final zero.
SOCKET_PATH_BYTES_MAX = 100

#: File systems on which SQLite's locks cannot be trusted.
NETWORK_FILE_SYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "lustre")
)

#: Where the kernel lists what is mounted, and as what.
MOUNTS = Path("/proc/self/mounts")

FOLDER_MODE = 0o700

LOCK_TRIES, LOCK_RETRY_S = 5, 0.02


class DataFolder(NamedTuple):
    """The paths of one installation."""

    root: Path

    @property
    def books(self) -> Path:
        """The ledger database."""
        return self.root / "books.sqlite3"

    @property
    def journal(self) -> Path:
        """Folder of the journal's segments."""
        return self.root / "journal"

    @property
    def contents(self) -> Path:
        """Prompts and answers, where some are kept; no backup holds it."""
        return self.root / "contents.sqlite3"

    @property
    def contents_left(self) -> Path:
        """Folder where the gate leaves them for the console."""
        return self.journal / "contents"

    @property
    def cache(self) -> Path:
        """Answers that may be given again; it can be removed whenever nobody uses the folder."""
        return self.root / "cache.sqlite3"

    @property
    def secrets(self) -> Path:
        """Peppers and the session secret, made at the first start."""
        return self.root / "secrets.json"

    @property
    def acting(self) -> Path:
        """The configuration that acts, as the trail of changes told it; no secret is in it."""
        return self.root / "acting.json"

    @property
    def lock(self) -> Path:
        """Locked by whoever uses the folder, with the process id inside."""
        return self.root / "lock"

    @property
    def gate_socket(self) -> Path:
        """Where the console speaks to the gate."""
        return self.root / "gate.sock"

    @property
    def console_socket(self) -> Path:
        """The admin API without a credential: whoever can open it is admin."""
        return self.root / "console.sock"

    @property
    def first_run(self) -> Path:
        """Keys of ``make run``, printed again at its next start."""
        return self.root / "first-run.json"

    @property
    def listening(self) -> Path:
        """Where ``serve`` listens, while it does."""
        return self.root / "listening.json"


def prepare(root: Path) -> DataFolder:
    """Make the data folder if its parent is there, and check that an installation can live in it.

    Raises:
        ConfigError: CFG-STORE: it cannot be made or written, has too little room, or is on a network file system.
    """
    folder = DataFolder(root.absolute())
    try:
        folder.root.mkdir(mode=FOLDER_MODE, exist_ok=True)
    except FileNotFoundError:
        raise _unusable(f"{folder.root.parent} does not exist", "make it, or name another folder with --data") from None
    except FileExistsError:
        raise _unusable(f"{folder.root} is not a directory", "name another folder with --data") from None
    except OSError as error:
        raise _unusable(
            f"{folder.root} cannot be made: {(error.strerror or '').lower()}", _who(folder.root.parent)
        ) from None
    problems = folder_problems(folder)
    if problems:
        raise problems[0]
    return folder


def folder_problems(folder: DataFolder, mounts: Path = MOUNTS) -> list[ConfigError]:
    """Everything that keeps an existing folder from being used."""
    problems: list[ConfigError] = []
    # The kernel is asked, not the mode, because read-only mounts and capabilities overrule modes.
    if not os.access(folder.root, os.R_OK | os.W_OK | os.X_OK):
        problems.append(_unusable(f"{folder.root} is not writable", _who(folder.root)))
        return problems
    mode = stat.S_IMODE(folder.root.stat().st_mode)
    if mode & stat.S_IWOTH:
        problems.append(
            _unusable(f"{folder.root} is writable by everybody (mode {mode:04o})", f"chmod 700 {folder.root}")
        )
    room = os.statvfs(folder.root)
    free = room.f_bavail * room.f_frsize
    if free < FREE_BYTES_MIN:
        problems.append(
            _unusable(f"{folder.root} has {free >> 20} MiB free", f"at least {FREE_BYTES_MIN >> 20} MiB are needed")
        )
    kind = file_system(folder.root, mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        problems.append(_unusable(f"{folder.root} is on a network file system ({kind})", "use a local disk"))
    return problems


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """The kind of file system that ``path`` is on; empty where the system does not tell."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # Spaces in mount points are written in octal.
        point = fields[1].replace("\\040", " ")
        if path.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def _unusable(problem: str, hint: str) -> ConfigError:
    return ConfigError(f"data folder: {problem}", code="CFG-STORE", hint=hint)


def _who(path: Path) -> str:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    return f"it belongs to uid {status.st_uid} with mode {mode:04o}, this process runs as uid {os.geteuid()}"


class Lock:
    """The right to use a data folder, until ``release`` or the end of the process."""

    def __init__(self, descriptor: int, recovered_pid: int | None) -> None:
        self._descriptor = descriptor
        #: Process id that a holder before us left behind without giving the lock back; ``None`` where there was none.
        self.recovered_pid = recovered_pid

    def release(self) -> None:
        """Give the folder back."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def take_lock(folder: DataFolder) -> Lock:
    """Become the one who uses the folder.

    Raises:
        Conflict: somebody else does; the message names the process.
    """
    descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # Whoever only looks who holds the lock has it for an instant.
            time.sleep(LOCK_RETRY_S)
    else:
        holder = _pid_in(descriptor)
        os.close(descriptor)
        raise _in_use(folder, holder)
    left = _pid_in(descriptor)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return Lock(descriptor, left)


def holder_of(folder: DataFolder) -> int | None:
    """The process id of who uses the folder now (0 where it did not say), ``None`` where nobody does."""
    try:
        descriptor = os.open(folder.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(descriptor) or 0
    finally:
        os.close(descriptor)
    return None


def _pid_in(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _in_use(folder: DataFolder, holder: int | None) -> Conflict:
    by = f"by process {holder}" if holder else "by another process"
    return Conflict(f"{folder.root} is in use {by}", code="already_running", hint="stop it, or use another --data")


def within_reach(data_dir: str) -> str:
    """``data_dir``, or ``"."`` after moving into it where its sockets' addresses would be too long otherwise.

    For a process that does nothing but serve this folder, and is handed every other file by an absolute name.
    """
    longest = DataFolder(Path(data_dir)).console_socket
    if len(os.fsencode(longest)) <= SOCKET_PATH_BYTES_MAX:
        return data_dir
    os.chdir(data_dir)
    return "."


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A way to ``path`` that is short enough for the address of a Unix socket, while the context lasts."""
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        yield str(path)
        return
    if Path("/proc/self/fd").is_dir():
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}/{path.name}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="fg-") as between:
        link = Path(between) / "d"
        link.symlink_to(path.parent, target_is_directory=True)
        yield str(link / path.name)
