"""Fetches the contents that the gate has left, and forgets those that are past their time."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from faregate.ports import ContentRecord

#: Forgotten in one transaction: each page of them is overwritten while nobody else can look.
FORGOTTEN_AT_ONCE: Final = 200

#: In one run; the next one goes on.
FORGOTTEN_MAX: Final = 20_000

#: Where the configuration says nothing. Texts are not kept then; lengths are, and texts of before it said so.
RETENTION_MS_DEFAULT: Final = 90 * 86_400_000

#: Bytes of all that is kept, where the configuration says nothing.
BYTES_MAX_DEFAULT: Final = 4 * 1024**3

#: A moment after every other.
NEVER: Final = 2**63 - 1

_NANOS_PER_MS: Final = 1_000_000


class Store(Protocol):
    """Where contents are kept."""

    def take(self, file: str, records: Iterable[ContentRecord]) -> int:
        """Take in the records of a file, once."""
        ...

    def taken_away(self, file: str) -> None:
        """A file that was taken in is gone."""
        ...

    def remove_before(self, at: int, most: int) -> int:
        """Forget so many of those from before a moment, the oldest first; how many those were."""
        ...

    @property
    def size(self) -> int:
        """Bytes of all that is kept."""
        ...


class Spool(Protocol):
    """What the gate has left."""

    def files(self) -> Sequence[Path]:
        """Files that are whole, oldest first."""
        ...

    def read(self, file: Path) -> Iterable[ContentRecord]:
        """The records of one."""
        ...


class ContentKeeper:
    """Runs in threads; one at a time."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        wall_nanos: Callable[[], int],
        retention_ms: int,
        bytes_max: int = BYTES_MAX_DEFAULT,
    ) -> None:
        self._store = store
        self._spool = spool
        self._wall_nanos = wall_nanos
        self._retention_ms = retention_ms
        self._bytes_max = bytes_max

    def fetch(self) -> int:
        """Take in all that the gate has left; how many records those were."""
        fetched = 0
        for file in self._spool.files():
            fetched += self._store.take(file.name, self._spool.read(file))
            # A crash just before this leaves a file whose name is known.
            file.unlink(missing_ok=True)
            self._store.taken_away(file.name)
        if fetched:
            # The journal lives on the same disk.
            self._forget_while(lambda: self._store.size > self._bytes_max, NEVER)
        return fetched

    def forget(self) -> int:
        """Remove what is older than it may be; how many records those were."""
        before = self._wall_nanos() - (self._retention_ms or RETENTION_MS_DEFAULT) * _NANOS_PER_MS
        return self._forget_while(lambda: True, before)

    def _forget_while(self, too_many: Callable[[], bool], before: int) -> int:
        forgotten = 0
        while forgotten < FORGOTTEN_MAX and too_many():
            gone = self._store.remove_before(before, FORGOTTEN_AT_ONCE)
            forgotten += gone
            if gone < FORGOTTEN_AT_ONCE:
                break
        return forgotten
