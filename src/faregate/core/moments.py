"""Moments as people read them: nanoseconds since 1970 UTC as text, in whole numbers."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = 1_000_000_000


def rfc3339(nanos: int) -> str:
    """RFC 3339 in UTC, to the second: ``2026-11-21T10:00:00Z``.

    Raises:
        OverflowError: the moment is after the year 9999.
    """
    return (_EPOCH + timedelta(seconds=nanos // _SECOND)).strftime("%Y-%m-%dT%H:%M:%SZ")
