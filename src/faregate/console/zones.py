"""Time zones by their IANA names, as the packaged time zone data has them."""

import zoneinfo
from datetime import tzinfo
from functools import lru_cache


@lru_cache(maxsize=1_024)
def zone_of(name: str) -> tzinfo:
    """The IANA time zone of this name.

    Raises:
        zoneinfo.ZoneInfoNotFoundError: there is none.
        ValueError: this cannot be a name of one.
    """
    return zoneinfo.ZoneInfo(name)


def zone_known(name: str) -> bool:
    """Whether there is such a time zone."""
    try:
        zone_of(name)
    # A folder of the zone data, a name with a NUL or one that is too long for a file each fail in a way of their own.
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
