"""Where limits stand: asked of the gate, which counts them live, or summed from the books where no gate answers.

It also owns what the link needs for a new limit: its balance in the window that holds now.
"""

import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import lru_cache

from faregate.console.reading import in_thread
from faregate.console.state import Console
from faregate.control import AllowanceView
from faregate.core.amounts import UNITS
from faregate.core.attribution import dimension
from faregate.core.ledger.events import Intended
from faregate.core.limits.windows import window_of
from faregate.errors import Unavailable
from faregate.ports import Books, Row


@dataclass
class Standing:
    """What a limit has posted and holds in its current window; in total, and by subject for an each-limit."""

    window_start: int
    resets_at: int
    posted: int = 0
    held: int = 0
    subjects: dict[tuple[str, ...], tuple[int, int]] = field(default_factory=dict)

    def add(self, subject: tuple[str, ...], posted: int, held: int) -> None:
        """Count something for one subject."""
        before_posted, before_held = self.subjects.get(subject, (0, 0))
        self.subjects[subject] = before_posted + posted, before_held + held
        self.posted += posted
        self.held += held


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


def current_window(row: Row, now: int) -> tuple[int, int]:
    """Start and end of the window of a limit's row that holds ``now``; zeros where it has no end."""
    return window_of(row["window"], zone_of(row["timezone"]), now)


def posted_balances(books: Books, row: Row, since: int) -> list[tuple[tuple[str, ...], int]]:
    """``(subject, posted)`` of one limit by the books, from ``since`` on; nothing for what is not posted."""
    if row["unit"] == "concurrency":
        return []
    return books.balances(row["selector"], tuple(row["each"]), row["unit"], since)


async def standings(console: Console, rows: Sequence[Row]) -> dict[str, Standing]:
    """Where each of these limits stands now, by id."""
    now = console.clock.wall_nanos()
    if not rows:
        return {}
    if console.gate is not None and console.gate.connected:
        try:
            answer = await console.gate.allowances(tuple(row["id"] for row in rows))
        except Unavailable:
            # The gate went away between the two lines; the books know nearly as much.
            return await in_thread(lambda: _by_books(console.books, rows, now))
        if not {row["id"] for row in rows} & set(answer.pending):
            return _by_gate(rows, answer.allowances, now)
    return await in_thread(lambda: _by_books(console.books, rows, now))


def _by_gate(rows: Sequence[Row], views: Sequence[AllowanceView], now: int) -> dict[str, Standing]:
    found = {row["id"]: Standing(*current_window(row, now)) for row in rows}
    for view in views:
        standing = found.get(view.limit)
        if standing is not None:
            # A counter that nobody used since its window ended still shows the window before.
            posted = view.posted if view.window_start == standing.window_start else 0
            standing.add(view.subject, posted, view.held)
    return found


def _by_books(books: Books, rows: Sequence[Row], now: int) -> dict[str, Standing]:
    found = {}
    open_intents: list[Intended] = [each["intent"] for each in books.open_reservations()]
    for row in rows:
        standing = found[row["id"]] = Standing(*current_window(row, now))
        for subject, posted in posted_balances(books, row, standing.window_start):
            standing.add(subject, posted, 0)
        unit = UNITS.index(row["unit"])
        for intent in open_intents:
            if intent.admitted_at >= standing.window_start and _selects(row, intent):
                standing.add(tuple(dimension(intent.who, name) for name in row["each"]), 0, intent.held[unit])
    return found


def _selects(row: Row, intent: Intended) -> bool:
    return all(dimension(intent.who, name) == value for name, value in row["selector"].items())
