"""Which store of kept answers a gate has."""

from asyncio import AbstractEventLoop
from collections.abc import Callable

from faregate.caching.embedded import EmbeddedStore
from faregate.config.folder import DataFolder
from faregate.config.settings import CacheSettings
from faregate.ports import ResponseStore


def response_store(
    settings: CacheSettings | None,
    folder: DataFolder,
    loop: AbstractEventLoop,
    secret: bytes,
    wall_nanos: Callable[[], int],
) -> ResponseStore | None:
    """The store that is configured, ``None`` where nothing is ever kept.

    What a gate does not use it does not load: neither SQLite nor the client of Redis. ``secret`` is the installation's;
    gateways that share a server share it, too.

    Raises:
        ValueError: the URL is none of a Redis or Valkey server.
    """
    if settings is None:
        return None
    if settings.store == "redis":
        from faregate.caching.shared import SharedStore

        return SharedStore(settings.url, secret, settings.timeout_ms, loop)
    disk = None
    if settings.disk_bytes_max:
        from faregate.caching.disk import Disk
        from faregate.caching.file import AnswerFile

        disk = Disk(AnswerFile(folder.cache, settings.disk_bytes_max))
    return EmbeddedStore(settings.memory_bytes_max, disk, loop, wall_nanos)
