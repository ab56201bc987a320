"""What of a configuration that was read again can act at once, and what waits for the next start.

A key is either taken over whole or left as it was: nothing runs by half of one.
"""

from collections.abc import Collection
from typing import Final

from pydantic import BaseModel

from faregate.config.schema import Config

#: Keys that belong to what a process is made of: where it listens, how it writes, how much it has room for.
NEED_RESTART: Final = (
    ("gateway", "host"),
    ("gateway", "port"),
    ("gateway", "tls"),
    ("gateway", "behind_proxy"),
    ("console", "host"),
    ("console", "port"),
    ("console", "tls"),
    ("console", "behind_proxy"),
    ("storage",),
    ("durability",),
    ("limits", "each_max"),
    ("journal", "segment"),
    ("journal", "sync_interval"),
    ("cache", "enabled"),
    ("cache", "store"),
    ("cache", "memory_bytes_max"),
    ("cache", "disk"),
    ("cache", "disk_bytes_max"),
    ("cache", "url"),
    ("cache", "timeout"),
    ("logging", "level"),
    ("logging", "format"),
)


def effective(running: Config, wanted: Config) -> tuple[Config, tuple[str, ...]]:
    """``wanted`` with everything that only a new start can change as in ``running``, and the keys that wait for one."""
    waiting: list[str] = []
    for path in NEED_RESTART:
        section, key = (path[0], path[1]) if len(path) > 1 else ("", path[0])
        before: BaseModel = getattr(running, section) if section else running
        after: BaseModel = getattr(wanted, section) if section else wanted
        kept = getattr(before, key)
        if getattr(after, key) == kept:
            continue
        waiting.append(".".join(path))
        changed = after.model_copy(update={key: kept})
        wanted = wanted.model_copy(update={section: changed}) if section else wanted.model_copy(update={key: kept})
    return wanted, tuple(waiting)


def still_referred(running: Collection[str], wanted: Collection[str]) -> frozenset[str]:
    """The paths of values from references, in what ``effective`` gives for configurations with these."""
    kept = tuple(".".join(path) for path in NEED_RESTART)

    def stays(path: str) -> bool:
        return any(path == each or path.startswith(f"{each}.") for each in kept)

    return frozenset(path for path in running if stays(path)) | {path for path in wanted if not stays(path)}
