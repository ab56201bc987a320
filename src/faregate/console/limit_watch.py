"""What the watch over limits and calls sees of an installation, and how it acts on it (``jobs.watch_limits``).

Implements ``WatchedLimits`` and ``WatchedCalls``. Everything that decides is elsewhere; here rows become values, and
values become rows. All but the async methods are for threads.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from faregate.console import keys
from faregate.console.alerts import raise_alert
from faregate.console.allowances import LimitView, by_books, limit_views
from faregate.console.audit import Author, author
from faregate.console.kept_terms import stored_terms, terms_of
from faregate.console.problems import ApiProblem
from faregate.console.reading import each_row
from faregate.console.scoped_books import scoped, setter_of
from faregate.console.state import Console
from faregate.console.writing import put
from faregate.console.zones import zone_of
from faregate.core.alerts import Unpriced, Waiting
from faregate.core.attribution import DIMENSIONS, TAG_PREFIX
from faregate.core.limits.telling import Moment, Refusal, Stand, Telling, Watched
from faregate.core.limits.terms import Forced
from faregate.core.limits.thresholds import period_of, thresholds_of
from faregate.core.limits.windows import MINUTE, rolling_nanos, window_of
from faregate.core.pricing.card import PROVISIONAL
from faregate.core.slots import SLOT_NANOS
from faregate.errors import NotFound, Unavailable
from faregate.ports import BalanceQuery, Row

log = logging.getLogger(__name__)

#: Limits that the product set itself, to stop or to brake: whoever set them told of it.
_OWN_SOURCES: Final = frozenset({"stop", "brake"})

#: Refused calls that are looked at in one round; in a flood of them the same limits refuse again in the next.
REFUSALS_MAX: Final = 1_000
PROVISIONALS_MAX: Final = 100


#: What the window before spent is asked again when a two-hundredth of the window has passed, a minute at least.
_HISTORY_PART: Final = 200

#: Limits of which that is remembered.
HISTORIES_MAX: Final = 10_000

_UNPRICED: Final = "faregate_unpriced_usage_total"

#: Who changes limits and keys here, in the trail of changes.
_AUTHOR: Final = Author("alerts")

_Subject = tuple[str, ...]


class WatchedInstallation:
    """The limits and calls of one console."""

    def __init__(self, console: Console, thresholds: Sequence[int]) -> None:
        """``thresholds`` are the percentages that budgets without actions of their own are told of at."""
        self._console = console
        self._usual = tuple(thresholds)
        #: Limit → what its window before spent later, and until when that is near enough.
        self._history: dict[str, _History] = {}
        #: The newest booked record that was looked at; ``None`` before the first look.
        self._mark: str | None = None

    def now(self) -> int:
        """Nanoseconds since 1970 UTC."""
        return self._console.clock.wall_nanos()

    @property
    def reachable(self) -> bool:
        """Whether it can be learnt how limits stand; while the gate is away nothing is spent."""
        gate = self._console.gate
        return gate is None or gate.connected

    # -- limits --------------------------------------------------------------------------------------------------------

    def page(self, after: str, count: int) -> tuple[Sequence[Watched], str]:
        """What is told of so many limits after an id, and the last of these; empty at the end of them."""
        rows = self._console.books.listing("limit", after=after, limit=count)
        return self._watched(rows), rows[-1]["id"] if len(rows) == count else ""

    def named(self, ids: Sequence[str]) -> Sequence[Watched]:
        """Those limits that there are and that people are told of."""
        return self._watched(self._console.books.get_all("limit", ids).values())

    def _watched(self, rows: Iterable[Row]) -> list[Watched]:
        return [each for each in map(self._one, rows) if each.thresholds or each.window == "lifetime"]

    def _one(self, row: Row) -> Watched:
        terms, own = terms_of(row), row["source"] in _OWN_SOURCES
        # What a stop or a brake is, its owner was told when it was set.
        told = () if own else thresholds_of(row["unit"], row["window"], row["mode"], terms.actions, self._usual)
        return Watched(
            id=row["id"],
            selector=row["selector"] or {},
            each=tuple(row["each"] or ()),
            unit=row["unit"],
            # Without a window of its own nothing is said of its rest.
            window="" if own else row["window"],
            mode=row["mode"],
            thresholds=told,
            actions=terms.actions,
            forced=terms.forced,
            zone=zone_of(row["timezone"]),
            row=row,
        )

    async def live(self, limits: Sequence[Watched]) -> Mapping[str, Stand]:
        """Where limits without ``each`` stand, by id."""
        found = await limit_views(self._console, [each.row for each in limits])
        return self._stands(limits, found)

    def booked(self, limits: Sequence[Watched]) -> Mapping[str, Stand]:
        """Where limits stand by what is booked, by id."""
        found = by_books(self._console.books, [each.row for each in limits], self.now(), held=False)
        return self._stands(limits, found)

    def _stands(self, limits: Sequence[Watched], found: Mapping[str, LimitView]) -> dict[str, Stand]:
        now = self.now()
        return {each.id: _stand(each, found[each.id], now) for each in limits if each.id in found}

    def later_before(self, limit: Watched, moment: Moment) -> Mapping[_Subject, int]:
        """What the window before spent after the same part of it, by subject; only of those that spent anything."""
        known = self._history.get(limit.id)
        if known is not None and known.start == moment.start and moment.at < known.until:
            return known.later
        row = limit.row
        before, _ = window_of(row["window"], zone_of(row["timezone"]), moment.start - 1, terms_of(row).year_start)
        part = (moment.at - moment.start) * (moment.start - before) // (moment.end - moment.start)
        middle = (before + part) // SLOT_NANOS * SLOT_NANOS
        whole, rest = self._console.books.balances_of(
            [_query(limit, before, moment.start), _query(limit, max(middle, before), moment.start)]
        )
        later, spent = dict(rest), {subject for subject, posted in whole if posted}
        found = {subject: later.get(subject, 0) for subject in spent}
        until = moment.at + max((moment.end - moment.start) // _HISTORY_PART, MINUTE)
        self._history[limit.id] = _History(moment.start, until, found)
        while len(self._history) > HISTORIES_MAX:
            del self._history[next(iter(self._history))]
        return found

    def spent_since(self, limit: Watched, subject: _Subject, since: int) -> int:
        """What a subject has spent since a moment."""
        (found,) = self._console.books.balances_of([_query(limit, since // SLOT_NANOS * SLOT_NANOS)])
        return dict(found).get(subject, 0)

    def raised(self, name: str) -> bool:
        """Whether an alert of this name was raised."""
        return bool(self._console.books.listing("alert", name=name, limit=1))

    def names(self, limit: str) -> set[str]:
        """Names of all alerts that were raised about a limit; many alerts are gone through for that."""
        return {row["name"] for row in each_row(self._console.books, "alert", limit_id=limit)}

    def tell(self, limit: str, telling: Telling) -> bool:
        """Raise an alert, unless its name was raised before."""
        row = self._console.books.get("limit", limit)
        return raise_alert(
            self._console,
            kind=telling.kind,
            name=telling.name,
            severity=telling.severity,
            message=telling.message,
            limit_id=limit,
            key=telling.key,
            details={**telling.details, "of_amount": row["amount"] if row is not None else None},
        )

    # -- acting --------------------------------------------------------------------------------------------------------

    def revoke(self, key: str, limit: str, reason: str) -> bool:
        """Revoke a key, unless it is revoked or gone; false where whoever set the limit may not revoke it."""
        with self._acting():
            row, of = self._console.books.get("key", key), self._console.books.get("limit", limit)
            if row is None or row["state"] == "revoked" or of is None:
                return True
            try:
                keys.revoke(scoped(self._console, setter_of(of)), key, reason, by_limit=limit)
            except (ApiProblem, NotFound) as problem:
                log.warning("key_not_revoked", extra={"key": key, "limit": limit, "reason": str(problem)})
                return False
        log.warning("key_revoked", extra={"key": key, "reason": reason})
        return True

    def force(self, limit: Watched, forced: tuple[Forced, ...]) -> None:
        """Put actions of a limit in force, and end all others."""
        with self._acting():
            row = self._console.books.get("limit", limit.id)
            if row is None or terms_of(row).actions != limit.actions:
                # Somebody changed it meanwhile; the next look goes by what it is now.
                return
            terms = stored_terms(terms_of(row)._replace(forced=forced))
            put(self._console, "limit", {**row, "terms": terms})
        actions = [limit.actions[each.action].do for each in forced]
        log.info("forecast_acts", extra={"limit": limit.id, "in_force": ",".join(actions) or "nothing"})

    @contextmanager
    def _acting(self) -> Iterator[None]:
        """Change something, one at a time, under our own name in the trail; then the gate looks at it."""
        token = author.set(_AUTHOR)
        try:
            with self._console.changing:
                yield
        finally:
            author.reset(token)
        if self._console.gate is not None:
            self._console.gate.nudge()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def calls(self) -> tuple[list[Refusal], list[Unpriced]]:
        """What calls that were booked since the last look say: who was refused by a limit, or had no price."""
        books = self._console.books
        newest = books.requests(booked_after="", limit=1)
        mark, self._mark = self._mark, newest[0]["id"] if newest else ""
        if mark is None or mark == self._mark:
            return [], []
        refused = books.requests(booked_after=mark, status="refused", limit=REFUSALS_MAX, newest_first=False)
        refusals = [
            Refusal(row["limit_id"], row["code"], row["created_at"], _dimensions(row))
            for row in refused
            if row["limit_id"]
        ]
        unpriced = [Unpriced(row["model"], "refused", row["key"]) for row in refused if row["code"] == "price_unknown"]
        versions = books.rate_card_versions(PROVISIONAL)
        if versions:
            billed = books.requests(
                booked_after=mark, price_version=versions, limit=PROVISIONALS_MAX, newest_first=False
            )
            unpriced += [Unpriced(row["model"], "provisional", row["key"]) for row in billed]
        return refusals, unpriced

    async def waiting(self) -> Waiting | None:
        """What waits to be learnt the outcome of; ``None`` where the gate is away."""
        if self._console.gate is None:
            return None
        try:
            figures = await self._console.gate.figures()
        except Unavailable:
            return None
        unpriced = {dict(each.labels)["unit"]: each.value for each in figures.samples if each.name == _UNPRICED}
        return Waiting(figures.unknown_count, figures.unknown_nanos, unpriced)

    def raise_alert(self, kind: str, name: str, severity: str, message: str, details: Mapping[str, object]) -> bool:
        """Raise an alert about calls, unless its name was raised before."""
        key = str(details.get("key") or "")
        return raise_alert(
            self._console, kind=kind, name=name, severity=severity, message=message, key=key, details=dict(details)
        )


class _History(NamedTuple):
    start: int
    until: int
    later: dict[_Subject, int]


def _stand(limit: Watched, standing: LimitView, now: int) -> Stand:
    """What the watch goes by of where a limit stands."""
    rolling = bool(rolling_nanos(limit.window))
    end = 0 if rolling else standing.resets_at
    moment = Moment(now, standing.window_start, end, period_of(limit.window, standing.window_start, end, now))
    if not limit.each:
        return Stand(moment, {(): _figures(limit, standing.posted, standing.held, standing.amount_now)})
    amounts = standing.amounts
    return Stand(
        moment,
        {
            subject: _figures(limit, posted, held, amounts.get(subject, standing.amount_now))
            for subject, (posted, held) in standing.subjects.items()
        },
    )


def _figures(limit: Watched, posted: int, held: int, amount: int | None) -> tuple[int, int, int | None]:
    # What only is held and comes back, such as calls at a time, is what there is to be told of.
    return (held, 0, amount) if limit.unit == "concurrency" else (posted, held, amount)


def _query(limit: Watched, since: int, until: int = 0) -> BalanceQuery:
    return BalanceQuery(dict(limit.selector), limit.each, limit.unit, since, until)


def _dimensions(row: Row) -> dict[str, str]:
    """The dimensions of a record, tags included."""
    tags: Mapping[str, Any] = row["tags"] or {}
    told = {name: row[name] for name in DIMENSIONS if isinstance(row.get(name), str) and row[name]}
    return told | {f"{TAG_PREFIX}{name}": str(value) for name, value in tags.items()}
