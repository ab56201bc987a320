"""What must be asked of the books so that a limit can begin to count: which sums, and when they were spent.

A limit of the calendar needs what its window had posted, one that carries over also the window before. A counter that
does not follow the calendar needs to know when: in buckets of whole roll-up slots, each as of its last moment, so that
after a restart nothing is forgotten early.
"""

from collections.abc import Iterator
from functools import lru_cache

from faregate.console.zones import zone_of
from faregate.control import Limit
from faregate.core.limits.moving import BUCKETS
from faregate.core.limits.windows import HOUR, PERIODS, rolling_nanos, window_of
from faregate.core.slots import SLOT_NANOS
from faregate.ports import BalanceQuery


#: Fifty thousand limits are asked about at one moment, and have a handful of windows.
@lru_cache(maxsize=64)
def _window(window: str, timezone: str, at: int, year_start: str) -> tuple[int, int]:
    return window_of(window, zone_of(timezone), at, year_start)


def questions(limit: Limit, now: int) -> Iterator[tuple[int, BalanceQuery]]:
    """``(moment, query)``: what the query finds counts as spent at that moment (for the calendar: in that window)."""
    if limit.unit == "concurrency":
        return
    terms = limit.terms
    rolling = rolling_nanos(limit.window)
    if rolling or terms.algorithm:
        yield from _buckets(limit, now - (rolling or PERIODS[limit.window]), now)
        return
    start, end = _window(limit.window, limit.timezone, now, terms.year_start)
    yield start, _query(limit, start)
    if terms.carry_max and end:
        before, _ = _window(limit.window, limit.timezone, start - 1, terms.year_start)
        if before >= terms.carry_from:
            yield before, _query(limit, before, start)


def _buckets(limit: Limit, since: int, now: int) -> Iterator[tuple[int, BalanceQuery]]:
    """The stretch from ``since`` on, in as many buckets as a rolling window has, at most."""
    if now - since <= HOUR:
        # Records say it exactly, and there are few of so short a time; all of it counts as spent just now.
        yield now, _query(limit, since)
        return
    length = -(-(now - since) // (BUCKETS * SLOT_NANOS)) * SLOT_NANOS
    start = since - since % length
    while start < now:
        end = start + length
        yield min(end, now), _query(limit, start, end if end < now else 0)
        start = end


def _query(limit: Limit, since: int, until: int = 0) -> BalanceQuery:
    return BalanceQuery(limit.selector, limit.each, limit.unit, since, until)
