"""Looks at where limits stand, raises what is to be told of them, and puts in force what a forecast or a spent limit
does to calls.

What is told is decided in ``core.limits.telling``; this asks, remembers and carries out. It never stands in the way of
a call: live figures are asked of the gate in small pieces, sums of the books take a bounded part of the time, and so
many limits are looked at in a round as can be, those first that moved last time. With up to ``PAGE`` limits each is
looked at in every round; one of 50,000 that rested is seen to move within a few minutes.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from typing import Any, Final, Protocol

from faregate.core.limits.kinds import refusal_code
from faregate.core.limits.telling import (
    LowBalance,
    Moment,
    Refusal,
    Spent,
    Stand,
    Telling,
    Watched,
    forced_by,
    revocation_reason,
    summary,
    tellings,
    with_pace,
)
from faregate.core.limits.terms import Forced
from faregate.errors import FaregateError

log = logging.getLogger(__name__)

#: Limits that a round looks at in the order of their ids, and those beside them that moved lately.
PAGE: Final = 1_000
MOVED_MAX: Final = 500

#: Limits that the gate is asked for at once: it answers between two calls, so that an answer must be short.
ASKED_AT_ONCE: Final = 50

#: Limits with ``each`` whose subjects are summed from the books at once, and the part of the time that this may take.
SUMMED_AT_ONCE: Final = 100
SUMMING_PART: Final = 20

#: Subjects of a limit that are looked at, those who spent most, and that are told of one by one in a window.
SUBJECTS_MAX: Final = 1_000
TOLD_MAX: Final = 20

#: Limits of which is remembered what was told, or whom they refused; the books know the rest.
REMEMBERED_MAX: Final = 10_000
POSTED_MAX: Final = 100_000
REFUSED_SUBJECTS_MAX: Final = 100

#: How long the pace of a balance that runs low is looked back for.
PACE_NANOS: Final = 7 * 24 * 3_600 * 1_000_000_000

_Subject = tuple[str, ...]
_Dimensions = tuple[tuple[str, str], ...]
_Figures = tuple[int, int, int | None]


class WatchedLimits(Protocol):
    """The limits of an installation, as far as the watch sees them; methods that are not async take their time."""

    @property
    def reachable(self) -> bool:
        """Whether it can be learnt how limits stand; while the gate is away nothing is spent."""
        ...

    def page(self, after: str, count: int) -> tuple[Sequence[Watched], str]:
        """What is told of so many limits after an id, in the order of their ids, and the last of these; empty at the
        end of them.
        """
        ...

    def named(self, ids: Sequence[str]) -> Sequence[Watched]:
        """Those limits that there are and that people are told of."""
        ...

    async def live(self, limits: Sequence[Watched]) -> Mapping[str, Stand]:
        """Where limits without ``each`` stand, by id."""
        ...

    def booked(self, limits: Sequence[Watched]) -> Mapping[str, Stand]:
        """Where limits stand by what is booked, by id."""
        ...

    def later_before(self, limit: Watched, moment: Moment) -> Mapping[_Subject, int]:
        """What the window before spent after the same part of it, by subject; only of those that spent anything."""
        ...

    def spent_since(self, limit: Watched, subject: _Subject, since: int) -> int:
        """What a subject has spent since a moment."""
        ...

    def raised(self, name: str) -> bool:
        """Whether an alert of this name was raised."""
        ...

    def names(self, limit: str) -> set[str]:
        """Names of all alerts that were raised about a limit; many alerts are gone through for that."""
        ...

    def tell(self, limit: str, telling: Telling) -> bool:
        """Raise an alert, unless its name was raised before."""
        ...

    def revoke(self, key: str, limit: str, reason: str) -> bool:
        """Revoke a key, unless it is revoked; false where whoever set the limit may not revoke it."""
        ...

    def force(self, limit: Watched, forced: tuple[Forced, ...]) -> None:
        """Put actions of a limit in force, and end all others."""
        ...


class LimitWatch:
    """One look after the other; ``run`` is to be called about every two seconds."""

    def __init__(self, limits: WatchedLimits, low: LowBalance) -> None:
        self._limits = limits
        self._low = low
        self._after = ""
        #: Limit → what it had posted when it was looked at last.
        self._posted: dict[str, int] = {}
        #: Limits that moved then, or refused a call since; in the order in which they are looked at.
        self._moved: dict[str, None] = {}
        #: Limit → code and whom it refused → when it did so last.
        self._refused: dict[str, dict[tuple[str, _Dimensions], int]] = {}
        #: Limit → the names that were raised, and how many of each series.
        self._told: dict[str, tuple[set[str], Counter[str]]] = {}
        #: Limits with ``each`` that wait to be summed, and the loop time from which on that may be done.
        self._to_sum: dict[str, None] = {}
        self._sum_at = 0.0

    def note(self, refusals: Iterable[Refusal]) -> None:
        """Remember which limits refused whom."""
        for each in refusals:
            subjects = self._refused.setdefault(each.limit, {})
            # Which dimensions count is the limit's to say; it is asked when it is looked at.
            who = each.code, tuple(sorted(each.dimensions.items()))
            subjects[who] = max(each.at, subjects.get(who, 0))
            _forget_oldest(subjects, REFUSED_SUBJECTS_MAX)
            self._moved[each.limit] = None
        _forget_oldest(self._refused, REMEMBERED_MAX)

    async def run(self) -> None:
        """Look at as many limits as a round may, and carry out what follows.

        Raises:
            FaregateError: the books or the gate do not answer; the next round goes on.
        """
        if not self._limits.reachable:
            return
        limits = await asyncio.to_thread(self._next)
        totals = [each for each in limits if not each.each]
        for start in range(0, len(totals), ASKED_AT_ONCE):
            some = totals[start : start + ASKED_AT_ONCE]
            stands = await self._limits.live(some)
            await asyncio.to_thread(self._conclude, some, stands)
        self._to_sum |= dict.fromkeys(each.id for each in limits if each.each)
        await self._sum()

    def _next(self) -> list[Watched]:
        """The limits of this round: the next of all, and those that moved."""
        moved, self._moved = self._moved, {}
        page, self._after = self._limits.page(self._after, PAGE)
        known = {each.id for each in page}
        more = [id for id in list(moved)[-MOVED_MAX:] if id not in known]
        return [*page, *(self._limits.named(more) if more else ())]

    async def _sum(self) -> None:
        """Sum the subjects of some limits from the books, if that is not too soon after the last time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not self._to_sum or began < self._sum_at:
            return
        ids = list(self._to_sum)[:SUMMED_AT_ONCE]
        for id in ids:
            del self._to_sum[id]

        def sum_up() -> None:
            limits = self._limits.named(ids)
            self._conclude(limits, self._limits.booked(limits))

        await asyncio.to_thread(sum_up)
        self._sum_at = loop.time() + SUMMING_PART * (loop.time() - began)

    # -- what follows --------------------------------------------------------------------------------------------------

    def _conclude(self, limits: Sequence[Watched], stands: Mapping[str, Stand]) -> None:
        for limit in limits:
            stand = stands.get(limit.id)
            if stand is None:
                continue
            try:
                self._conclude_one(limit, stand)
            except FaregateError as error:
                # One limit's trouble is no reason to look at none of the others.
                log.warning("limit_not_watched", extra={"limit": limit.id, "reason": error.message})

    def _conclude_one(self, limit: Watched, stand: Stand) -> None:
        moment = stand.moment
        posted = sum(each[0] for each in stand.subjects.values())
        if self._posted.get(limit.id, posted) != posted:
            self._moved[limit.id] = None
        self._posted[limit.id] = posted
        _forget_oldest(self._posted, POSTED_MAX)
        history = self._history(limit, moment)
        refused = self._refused_of(limit, moment)
        for subject, (used, held, amount) in _foremost(stand.subjects):
            later_before = history.get(subject) if history is not None else None
            spent = Spent(subject, used, held, amount, subject in refused, later_before)
            for telling in tellings(limit, moment, spent, self._low):
                self._tell(limit, moment, spent, telling)
            # Subjects share their limit's actions, so that one of them must not put these in force for all.
            if not limit.each and (limit.forced or history is not None):
                forced = forced_by(limit, moment, spent)
                if forced != limit.forced:
                    self._limits.force(limit, forced)

    def _history(self, limit: Watched, moment: Moment) -> Mapping[_Subject, int] | None:
        """What the window before spent later, where a forecast is asked for."""
        if not moment.end or not any(each.basis == "forecast" for each in limit.thresholds):
            return None
        return self._limits.later_before(limit, moment)

    def _refused_of(self, limit: Watched, moment: Moment) -> set[_Subject]:
        """The subjects of a limit of whom it refused a call in this window, because nothing was left for it."""
        found: set[_Subject] = set()
        full = refusal_code(limit.unit, limit.window)
        for (code, who), at in self._refused.get(limit.id, {}).items():
            # A limit also refuses for other reasons: it throttles, or waits for its balance.
            if code == full and at >= moment.start:
                dimensions = dict(who)
                found.add(tuple(dimensions.get(name, "") for name in limit.each))
        return found

    def _tell(self, limit: Watched, moment: Moment, spent: Spent, telling: Telling) -> None:
        names, counts = self._told_of(limit)
        if telling.name in names:
            return
        if not limit.each and self._limits.raised(telling.name):
            names.add(telling.name)
            return
        if limit.each and counts[telling.series] >= TOLD_MAX:
            telling = summary(limit, moment, telling, TOLD_MAX)
            if telling.name in names:
                return
        if telling.revoke:
            # Before it is told: after a crash in between it is revoked once more, which changes nothing.
            reason = revocation_reason(limit, spent, telling.details["percent"])
            done = self._limits.revoke(telling.key, limit.id, reason)
            telling = telling if done else telling._replace(message=telling.unrevoked)
        if telling.kind == "low_balance":
            lately = self._limits.spent_since(limit, spent.subject, moment.at - PACE_NANOS)
            telling = with_pace(telling, limit, spent, lately, PACE_NANOS, moment.at)
        self._limits.tell(limit.id, telling)
        names.add(telling.name)
        counts[telling.series] += 1

    def _told_of(self, limit: Watched) -> tuple[set[str], Counter[str]]:
        """What was told of a limit, as far as is remembered; how often matters only where there are subjects."""
        found = self._told.get(limit.id)
        if found is None:
            names = self._limits.names(limit.id) if limit.each else set()
            found = self._told[limit.id] = names, Counter(name.rpartition(";")[0] for name in names)
            _forget_oldest(self._told, REMEMBERED_MAX)
        return found


def _foremost(subjects: Mapping[_Subject, _Figures]) -> Iterable[tuple[_Subject, _Figures]]:
    """Those who spent most, of many."""
    if len(subjects) <= SUBJECTS_MAX:
        return sorted(subjects.items(), key=lambda each: -each[1][0])
    return nlargest(SUBJECTS_MAX, subjects.items(), key=lambda each: each[1][0])


def _forget_oldest(known: dict[Any, Any], most: int) -> None:
    while len(known) > most:
        del known[next(iter(known))]
