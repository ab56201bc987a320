"""The console's part of the anomaly brake: a key that tripped gets a limit, and the gate is told what is usual.

A brake is an ordinary limit of few requests a minute on the key, with a reason and an end: one row for each key, which
holds when it was braked of late. Removing the row lifts the brake, and says that the spending was meant: it counts as
usual from then on. What a brake ended by itself does not, so that a loop does not teach the brake that loops are usual.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from faregate.console import limit_entries
from faregate.console.alerts import raise_alert
from faregate.console.audit import Author, author
from faregate.console.kept_terms import stored_terms
from faregate.console.outside_usage import SERVICE as REPORTED
from faregate.console.reading import each_row, in_thread
from faregate.console.state import Console
from faregate.console.texts import time_text
from faregate.console.writing import APPLIED_SECONDS_MAX
from faregate.console.writing import remove as remove_row
from faregate.control import Brakes, Habits
from faregate.core import money
from faregate.core.limits.habits import (
    HISTORY,
    TRIPS_MAX,
    Braked,
    BrakeRules,
    Habit,
    Trip,
    braked_again,
    braked_because,
    habit_of,
    history_from,
    reason_of,
)
from faregate.core.limits.terms import PLAIN
from faregate.core.tokens import ID_PREFIX
from faregate.errors import Unavailable
from faregate.ports import Row

log = logging.getLogger(__name__)

#: ``source`` of the limits that are brakes, and who is told to have set them.
SOURCE: Final = "brake"

#: What is settled, or told, long after it was sent says nothing about how fast a key spends; the gate does not count it
#: either.
_NOT_COUNTED: Final = frozenset({"batches", REPORTED})

#: Rows of brakes that are long over are removed this often.
_CARE_NANOS: Final = 3_600 * 10**9

_CHANGES: Final = 10_000

#: So many keys' pasts are read at once: five weeks of quarters of an hour of each, some ten milliseconds.
_KEYS_AT_ONCE: Final = 10


class BrakingGate(Protocol):
    """The gate as far as brakes are concerned; its methods raise ``Unavailable`` where it does not answer."""

    def nudge(self) -> None:
        """Look at the change feed now."""
        ...

    async def applied(self, within_s: float) -> bool:
        """Whether the gate works from every change made so far."""
        ...

    async def brakes(self) -> Brakes:
        """Keys that tripped, and those whose past the gate wants to know."""
        ...

    async def tell_habits(self, habits: Habits) -> None:
        """Tell the past of keys, and which trips are limits by now."""
        ...


class KeyBrakes:
    """A job: each run is one round of questions and answers with the gate. Not for several at once."""

    def __init__(self, console: Console, gate: BrakingGate, rules: BrakeRules) -> None:
        self._console = console
        self._gate = gate
        self._rules = rules
        #: Limit → its key and its end, of all brakes that have a row; ``None`` before they were read.
        self._known: dict[str, tuple[str, int]] | None = None
        self._sequence = 0
        self._cared_at = 0

    async def run(self) -> None:
        """Make limits of what tripped, notice what was lifted, and tell the gate what it wants to know."""
        author.set(Author(SOURCE))
        try:
            told = await self._gate.brakes()
        except Unavailable:
            # It comes back with what it has not told yet, or as a new one that has nothing to tell.
            return
        lifted = await in_thread(self._changed)
        for trip in told.trips:
            await in_thread(partial(self._take, trip))
        taken: tuple[tuple[str, int], ...] = ()
        if told.trips:
            self._gate.nudge()
            if await self._gate.applied(APPLIED_SECONDS_MAX):
                taken = tuple((trip.key, trip.at) for trip in told.trips)
        held = self._held()
        # A gate that was started anew knows none of those that are in force.
        forgotten = held if told.in_force < len(held) and not told.trips else ()
        keys = tuple(dict.fromkeys((*(key for key, _ in taken), *lifted, *forgotten, *told.wanted)))
        for first in range(0, len(keys), _KEYS_AT_ONCE):
            habits = await in_thread(partial(self.habits, keys[first : first + _KEYS_AT_ONCE]))
            try:
                await self._gate.tell_habits(Habits(habits, taken))
            except Unavailable:
                return
            taken = ()

    # -- brakes are limits ---------------------------------------------------------------------------------------------

    def _take(self, trip: Trip) -> None:
        """Make a limit of a trip, unless that was done before, and tell people."""
        console = self._console
        with console.changing:
            key = console.books.get("key", trip.key)
            if key is None and trip.key.startswith(ID_PREFIX):
                # A caller without a key is known by its id alone.
                key = {"name": trip.key}
            if key is None:
                # Nobody can call with it any more.
                return
            row = self._row_of(trip.key)
            if row is None or trip.at not in (each.at for each in braked_before(row)):
                row = self._brake(trip, row)
        self._tell(trip, key, row)

    def _brake(self, trip: Trip, before: Row | None) -> Row:
        """Write the limit of a key that tripped; ``before`` is that of its last brake."""
        console, now = self._console, self._console.clock.wall_nanos()
        earlier = braked_before(before) if before is not None else []
        braked = braked_again(earlier, trip.at, self._rules.duration)
        reason = braked_because(trip)
        row: Row = {
            "id": before["id"] if before is not None else console.new_id("lim_"),
            "name": f"{SOURCE};{trip.key}",
            "selector": {"key": trip.key},
            "each": [],
            "unit": "requests",
            "amount": self._rules.requests_per_minute,
            "window": "minute",
            "timezone": "UTC",
            "mode": "hard",
            "contact": "",
            "clamp": 0,
            "source": SOURCE,
            "terms": stored_terms(PLAIN._replace(until=braked.until, reason=reason)),
            "details": {"braked": [list(each) for each in (*earlier, braked)][-TRIPS_MAX:]},
            "created_at": before["created_at"] if before is not None else now,
            "updated_at": now,
        }
        told = limit_entries.entry(
            console,
            before,
            row,
            "create" if before is None else "set",
            reason,
            amount=row["amount"],
            reference=f"{SOURCE};{trip.at}",
            details={"until": braked.until},
        )
        limit_entries.write(console, before, row, reason, [told])
        assert self._known is not None
        self._known[row["id"]] = trip.key, braked.until
        log.warning("key_braked", extra={"key": trip.key, "limit": row["id"], "until": time_text(braked.until)})
        return row

    def _tell(self, trip: Trip, key: Row, row: Row) -> None:
        until = next(each.until for each in braked_before(row) if each.at == trip.at)
        raise_alert(
            self._console,
            kind="anomaly",
            name=f"anomaly;{trip.key};{trip.at}",
            severity="critical",
            message=(
                f"Key {key['name']} ({trip.key}) is braked until {time_text(until)}: {reason_of(trip)}. "
                f"If that was meant, lift it: faregate limit clear {row['id']}"
            ),
            limit_id=row["id"],
            key=trip.key,
            details=_details(trip, until),
        )

    def _row_of(self, key: str) -> Row | None:
        """The row of a key's brake, in force or over."""
        found = self._console.books.listing("limit", name=f"{SOURCE};{key}", limit=1)
        return found[0] if found else None

    # -- what was lifted -----------------------------------------------------------------------------------------------

    def _changed(self) -> Sequence[str]:
        """Keys whose brake was lifted or changed by somebody since the last look."""
        books, now = self._console.books, self._console.clock.wall_nanos()
        if self._known is None:
            self._sequence = books.newest_change()
            self._known = {row["id"]: _key_and_end(row) for row in each_row(books, "limit", source=SOURCE)}
        if now - self._cared_at >= _CARE_NANOS:
            self._cared_at = now
            self._forget_old(now)
        found: dict[str, None] = {}
        while changes := books.changes(self._sequence, _CHANGES):
            for limit in {id for _, kind, id in changes if kind == "limit"} & set(self._known):
                found[self._known[limit][0]] = None
                row = books.get("limit", limit)
                if row is None:
                    del self._known[limit]
                else:
                    self._known[limit] = _key_and_end(row)
            self._sequence = changes[-1][0]
        return tuple(found)

    def _held(self) -> Sequence[str]:
        """Keys that are braked now."""
        now = self._console.clock.wall_nanos()
        return [key for key, until in (self._known or {}).values() if until > now]

    def _forget_old(self, now: int) -> None:
        """Remove brakes that ended longer ago than anybody looks back."""
        assert self._known is not None
        for limit in list(self._known):
            with self._console.changing:
                row = self._console.books.get("limit", limit)
                if row is not None and all(each.until < now - HISTORY for each in braked_before(row)):
                    remove_row(self._console, "limit", limit)
                    row = None
            if row is None:
                del self._known[limit]

    # -- what is usual -------------------------------------------------------------------------------------------------

    def habits(self, keys: Iterable[str]) -> tuple[Habit, ...]:
        """What the books say of the past of these keys, by their roll-ups."""
        wanted, now = tuple(dict.fromkeys(keys)), self._console.clock.wall_nanos()
        since, until = history_from(now)
        by_quarter: dict[str, dict[int, int]] = {key: {} for key in wanted}
        for key, service, start, spent in self._console.books.spending(wanted, since, until):
            if service not in _NOT_COUNTED:
                by_quarter[key][start] = by_quarter[key].get(start, 0) + spent
        known = {key for key, _ in (self._known or {}).values()}
        rows = {key: self._row_of(key) if key in known else None for key in wanted}
        return tuple(_habit(key, quarters, rows[key], now) for key, quarters in by_quarter.items())


def _habit(key: str, quarters: dict[int, int], row: Row | None, now: int) -> Habit:
    """The habit of a key whose brake, in force or over, has ``row``."""
    if row is None:
        return habit_of(key, quarters.items(), (), now)
    _, until = _key_and_end(row)
    return habit_of(key, quarters.items(), braked_before(row), now, until if until > now else 0)


def _key_and_end(row: Row) -> tuple[str, int]:
    """The key that a brake's row is about, and when it ends."""
    return row["selector"]["key"], int((row["terms"] or {}).get("until", 0))


def braked_before(row: Row) -> list[Braked]:
    """When the key of a brake's row was braked, oldest first."""
    return [Braked(*each) for each in (row["details"] or {}).get("braked", ())]


def _details(trip: Trip, until: int) -> dict[str, Any]:
    return {
        "cause": trip.cause,
        "window_seconds": trip.window_s,
        "spent": money.dollars(trip.spent),
        "allowed": money.dollars(trip.allowed),
        "usual": money.dollars(trip.usual) if trip.usual >= 0 else None,
        "repeats": trip.repeats or None,
        "braked_until": time_text(until),
    }
