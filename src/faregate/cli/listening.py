"""Where a running installation really listens, kept in its data folder for commands that look at it from outside.

Options of ``serve`` overrule the configuration, and port 0 takes any, so the configuration does not say.
"""

import msgspec

from faregate.config.folder import DataFolder
from faregate.config.secrets import write_private
from faregate.supervise import Address


class Listener(msgspec.Struct):
    """One address that connections are accepted at."""

    role: str
    host: str
    port: int
    tls: bool

    @property
    def address(self) -> Address:
        """The same, as the supervisor takes it."""
        return Address(self.role, self.host, self.port)


class Listeners(msgspec.Struct):
    """The content of ``listening.json``."""

    #: Who wrote it. Another holder of the folder's lock has not got as far yet.
    pid: int
    listeners: list[Listener]


def keep_listeners(folder: DataFolder, pid: int, listeners: list[Listener]) -> None:
    """Write ``listening.json``.

    Raises:
        ConfigError: CFG-STORE: it cannot be written.
    """
    content = msgspec.json.format(msgspec.json.encode(Listeners(pid, listeners)))
    write_private(folder.listening, content + b"\n")


def forget_listeners(folder: DataFolder) -> None:
    """Nothing listens any more, or yet."""
    folder.listening.unlink(missing_ok=True)


def read_listeners(folder: DataFolder, holder: int) -> list[Listener]:
    """Where the installation of process ``holder`` listens; nothing where it did not say."""
    try:
        kept = msgspec.json.decode(folder.listening.read_bytes(), type=Listeners)
    except (OSError, msgspec.DecodeError):
        return []
    return kept.listeners if kept.pid == holder else []
