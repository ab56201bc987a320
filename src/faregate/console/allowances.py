"""Where limits stand: asked of the gate, which counts them live, or summed from the books where no gate answers.

What must be asked of the books for that, and for a limit that begins to count, is in ``openings``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from faregate.console.compile import limit_of
from faregate.console.kept_terms import terms_of
from faregate.console.openings import questions
from faregate.console.reading import in_thread
from faregate.console.state import Console
from faregate.console.zones import zone_of
from faregate.control import AllowanceView
from faregate.core.amounts import UNITS
from faregate.core.attribution import dimension
from faregate.core.ledger.events import Intended
from faregate.core.limits.in_force import amount_at, carried
from faregate.core.limits.index import spared_subjects
from faregate.core.limits.windows import rolling_nanos, window_of
from faregate.errors import Unavailable
from faregate.ports import BalanceQuery, Balances, Books, Row

#: Looks at the books for a moment in which nothing was booked.
_TRIES: Final = 5


@dataclass
class LimitView:
    """What a limit has posted and holds in its current window; in total, and by subject for an each-limit."""

    window_start: int
    resets_at: int
    posted: int = 0
    held: int = 0
    #: The amount in force, what was carried over included; ``None`` is unlimited. Of an each-limit, that of a subject
    #: which is not among ``amounts``.
    amount_now: int | None = None
    subjects: dict[tuple[str, ...], tuple[int, int]] = field(default_factory=dict)
    amounts: dict[tuple[str, ...], int | None] = field(default_factory=dict)

    def add(self, subject: tuple[str, ...], posted: int, held: int) -> None:
        """Count something for one subject."""
        before_posted, before_held = self.subjects.get(subject, (0, 0))
        self.subjects[subject] = before_posted + posted, before_held + held
        self.posted += posted
        self.held += held


def current_window(row: Row, now: int) -> tuple[int, int]:
    """Start and end of the window of a limit's row that holds ``now``; zeros where it has no end."""
    return window_of(row["window"], zone_of(row["timezone"]), now, terms_of(row).year_start)


async def limit_views(console: Console, rows: Sequence[Row]) -> dict[str, LimitView]:
    """Where each of these limits stands now, by id."""
    now = console.clock.wall_nanos()
    if not rows:
        return {}
    if console.gate is not None and console.gate.connected:
        try:
            answer = await console.gate.allowances(tuple(row["id"] for row in rows))
        except Unavailable:
            # The gate went away between the two lines; the books know nearly as much.
            return await in_thread(lambda: by_books(console.books, rows, now))
        if not {row["id"] for row in rows} & set(answer.pending):
            return _by_gate(rows, answer.allowances, now)
    return await in_thread(lambda: by_books(console.books, rows, now))


def _by_gate(rows: Sequence[Row], views: Sequence[AllowanceView], now: int) -> dict[str, LimitView]:
    found = {row["id"]: _empty(row, now) for row in rows}
    paced = {row["id"] for row in rows if _paced(row)}
    for view in views:
        standing = found.get(view.limit)
        if standing is None:
            continue
        # A counter that nobody used since its window ended still shows the window before.
        current = view.limit in paced or view.window_start == standing.window_start
        standing.add(view.subject, view.posted if current else 0, view.held)
        if view.limit in paced:
            standing.resets_at = view.resets_at if view.posted or view.held else 0
        if current and view.amount >= 0:
            # It knows what was carried over.
            if view.subject:
                standing.amounts[view.subject] = view.amount
            else:
                standing.amount_now = view.amount
    return found


def by_books(books: Books, rows: Sequence[Row], now: int, *, held: bool = True) -> dict[str, LimitView]:
    """Where these limits stand by what is booked, by id; without ``held`` what calls under way hold is left out."""
    found = {}
    asked = [(row, moment, query) for row in rows for moment, query in questions(limit_of(row), now)]
    before: dict[str, dict[tuple[str, ...], int]] = {}
    spares = {row["id"]: spared_subjects(terms_of(row).spared, row["each"]) for row in rows}
    for row in rows:
        found[row["id"]] = _empty(row, now)
    answers, open_intents = _of_one_moment(books, [query for _, _, query in asked], held=held)
    for (row, moment, _), balances in zip(asked, answers, strict=True):
        standing, spared = found[row["id"]], spares[row["id"]]
        for subject, posted in balances:
            if spared is not None and spared(subject):
                continue
            if moment >= standing.window_start or _paced(row):
                standing.add(subject, posted, 0)
            else:
                before.setdefault(row["id"], {})[subject] = posted
    for row in rows:
        standing = found[row["id"]]
        unit, spared = UNITS.index(row["unit"]), spares[row["id"]]
        for intent in open_intents:
            if intent.admitted_at >= standing.window_start and _selects(row, intent):
                subject = tuple(dimension(intent.who, name) for name in row["each"])
                if spared is None or not spared(subject):
                    standing.add(subject, 0, intent.held[unit])
        _carry(row, standing, before.get(row["id"], {}))
    return found


def _of_one_moment(
    books: Books, queries: Sequence[BalanceQuery], *, held: bool
) -> tuple[list[Balances], list[Intended]]:
    """What was posted and what is held, with nothing booked in between: a call that ends then would count twice.

    Where booking never rests it counts not at all, which the next look mends.
    """
    for _ in range(_TRIES if held else 1):
        projected = books.projected()
        posted = books.balances_of(queries)
        open_intents: list[Intended] = [each["intent"] for each in books.open_reservations()] if held else []
        if books.projected() == projected:
            break
    return posted, open_intents


def _empty(row: Row, now: int) -> LimitView:
    """Where a limit stands that nobody has used."""
    start, end = current_window(row, now)
    amount = amount_at(row["amount"], terms_of(row), now)
    return LimitView(start, 0 if _paced(row) else end, amount_now=amount)


def _paced(row: Row) -> bool:
    """Whether its counters do not follow the calendar."""
    return bool(rolling_nanos(row["window"]) or terms_of(row).algorithm)


def _carry(row: Row, standing: LimitView, before: Mapping[tuple[str, ...], int]) -> None:
    """Add what was left of the window before, which had posted ``before``."""
    terms, amount = terms_of(row), standing.amount_now
    if amount is None or not terms.carry_max or not standing.resets_at:
        return
    start = standing.window_start
    earlier, _ = window_of(row["window"], zone_of(row["timezone"]), start - 1, terms.year_start)
    if earlier < terms.carry_from:
        return
    for subject in standing.subjects if row["each"] else ():
        standing.amounts[subject] = amount + carried(row["amount"], terms, start, before.get(subject, 0))
    standing.amount_now = amount + carried(row["amount"], terms, start, 0 if row["each"] else before.get((), 0))


def _selects(row: Row, intent: Intended) -> bool:
    return all(dimension(intent.who, name) == value for name, value in row["selector"].items())
