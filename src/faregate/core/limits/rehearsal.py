"""A policy rehearsed: past calls, in the order of their admission, ask proposed limits as if these had been in force.

Owns the fold over the calls and its findings. The limits are those of admission itself (``Allowances``), so a policy is
rehearsed by the very rules that would enforce it. A call asks with what it really used and holds that for as long as it
took; one that is refused posts nothing. So the answer is what the policy would have refused if callers had behaved the
same. Knows neither books nor prices: calls are handed in, and what a cheaper model costs is asked of whoever knows.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.admit import Allowances, LimitRefusal, Reservation, Standing
from faregate.core.limits.index import CompiledLimit, LimitIndex
from faregate.core.limits.terms import Action
from faregate.core.pricing.repricing import Booked

#: Records come in the order in which calls began; they are put in that of their admission within so many.
REORDERED_MAX = 5_000

#: Callers that are remembered with the limits that concern them; more of them are looked up again.
STANDINGS_MAX = 50_000

#: Values of a dimension that findings keep apart; what more of them do is under the empty name.
VALUES_MAX = 100_000

#: What refusals are summed by.
PAYERS = ("team", "project", "key")


_Key = TypeVar("_Key")


class PastCall(NamedTuple):
    """A call that was sent, with what it really used; times in nanoseconds since 1970 UTC."""

    id: str
    who: Attribution
    admitted_at: int
    ended_at: int
    #: What it asks for: its usage and charge, one request and one slot; in dollars perhaps what was held for it.
    wanted: Amounts
    #: What it posts at its end.
    posted: Amounts
    #: How its charge followed from its usage, and from which prices; ``None`` where nothing was priced.
    booked: Booked | None = None
    price_version: str = ""


#: What a call would have been charged had the model of a downgrade answered it; ``None`` where no price tells.
PriceAs = Callable[[PastCall, Action], int | None]


class Refused:
    """Calls that were refused, and what they had been charged in nano-dollars."""

    __slots__ = ("calls", "charge", "first_at", "last_at")

    def __init__(self) -> None:
        self.calls = 0
        self.charge = 0
        #: Nanoseconds since 1970 UTC, 0 while there is none.
        self.first_at = 0
        self.last_at = 0

    def add(self, call: PastCall) -> None:
        """Count one."""
        self.calls += 1
        self.charge += call.posted.usd
        self.first_at = self.first_at or call.admitted_at
        self.last_at = call.admitted_at


class LimitFindings:
    """What one limit did."""

    __slots__ = ("concerned", "downgraded", "downgraded_charge", "most", "refused", "saved", "shadowed", "subjects",
                 "unpriced")  # fmt: skip

    def __init__(self) -> None:
        #: Calls that it applies to.
        self.concerned = 0
        #: Calls that it refuses, others that refuse them, too, or not.
        self.refused = Refused()
        #: Calls that it would have refused, were it not in shadow mode.
        self.shadowed = Refused()
        #: The same by the values of what it counts each of.
        self.subjects: dict[tuple[str, ...], Refused] = {}
        #: Calls that go to a cheaper model, what they had been charged, what that saves where prices tell, and how many
        #: calls no price tells it of.
        self.downgraded = 0
        self.downgraded_charge = 0
        self.saved = 0
        self.unpriced = 0
        #: The most that was used in one window: amount, the window's start, and of whom.
        self.most: tuple[int, int, tuple[str, ...]] = (0, 0, ())

    def downgrade(self, charge: int, cheaper: int | None) -> None:
        """Count a call that an action sends to a cheaper model; what that charges is ``None`` where no price tells."""
        self.downgraded += 1
        self.downgraded_charge += charge
        if cheaper is None:
            self.unpriced += 1
        else:
            self.saved += charge - cheaper


class Rehearsal:
    """One rehearsal. Give it the balances that the limits open with, then the calls, then ``finish`` it.

    ``price_as`` tells what a call costs with the model of a downgrade.
    """

    def __init__(
        self, limits: Iterable[CompiledLimit], starts_at: int, price_as: PriceAs = lambda call, action: None
    ) -> None:
        self._index = LimitIndex(limits)
        self._allowances = Allowances()
        self._allowances.replace_limits(self._index, starts_at)
        self._starts_at = starts_at
        self._price_as = price_as
        self._standings: dict[Attribution, Standing] = {}
        #: Calls by their admission, that are not asked yet; and those under way by their end.
        self._waiting: list[tuple[int, str, PastCall]] = []
        self._running: list[tuple[int, int, Reservation, Amounts]] = []
        self._asked = 0
        #: Limit → its findings.
        self.limits: Mapping[str, LimitFindings] = {id: LimitFindings() for id in self._index.limits}
        #: All calls, and what they had been charged.
        self.calls = 0
        self.charge = 0
        #: Calls that some limit refuses, each once; also by who would have paid.
        self.refused = Refused()
        self.payers: Mapping[str, dict[str, Refused]] = {name: {} for name in PAYERS}

    def open(self, limit_id: str, balances: Iterable[tuple[tuple[str, ...], int, int]]) -> None:
        """Tell a limit what was posted before the first call, as ``Allowances.open_balance``; each one once."""
        self._allowances.open_balance(limit_id, balances, self._starts_at)

    def add(self, call: PastCall) -> None:
        """One more call. Calls come about in the order of their admission (``REORDERED_MAX``)."""
        heapq.heappush(self._waiting, (call.admitted_at, call.id, call))
        if len(self._waiting) > REORDERED_MAX:
            self._ask(heapq.heappop(self._waiting)[2])

    def finish(self) -> None:
        """There are no more calls."""
        while self._waiting:
            self._ask(heapq.heappop(self._waiting)[2])

    def _ask(self, call: PastCall) -> None:
        now = call.admitted_at
        while self._running and self._running[0][0] <= now:
            _, _, reservation, posted = heapq.heappop(self._running)
            self._allowances.settle(reservation, posted)
        self.calls += 1
        self.charge += call.posted.usd
        standing = self._standing(call.who)
        for limit in standing.limits:
            self.limits[limit.id].concerned += 1
        asked, downgraded_by = self._downgraded(call, standing)
        answer = self._allowances.reserve(call.id, standing, asked.wanted, now)
        if isinstance(answer, LimitRefusal):
            self._refuse(call, answer)
            return
        self._asked += 1
        # The number tells apart what ends at one moment.
        heapq.heappush(self._running, (max(now, call.ended_at), self._asked, answer, asked.posted))
        if downgraded_by is not None:
            downgraded_by.downgrade(call.posted.usd, None if asked is call else asked.posted.usd)
        for id in answer.shadowed:
            _add(self.limits[id].shadowed, self.limits[id].subjects, self._index.limits[id], call)
        self._measure(answer, now)

    def _standing(self, who: Attribution) -> Standing:
        standing = self._standings.get(who)
        if standing is None:
            if len(self._standings) >= STANDINGS_MAX:
                self._standings.clear()
            standing = self._standings[who] = Standing(who, self._index.matching(who))
        return standing

    def _downgraded(self, call: PastCall, standing: Standing) -> tuple[PastCall, LimitFindings | None]:
        """The call as it would go, and whose action sends it to another model, if one does.

        Where no price tells what it costs there, it goes as it is. Its limits are those of the model that was asked.
        """
        deeds = self._allowances.deeds(standing, call.admitted_at, (call.who.model,))
        action = deeds.downgrade
        if action is None:
            return call, None
        charge = self._price_as(call, action)
        if charge is None:
            return call, self.limits[deeds.limit]
        # A hold that was asked for apart stays as it is: nobody knows what it would have been there.
        held = charge if call.wanted.usd == call.posted.usd else call.wanted.usd
        cheaper = call._replace(wanted=call.wanted._replace(usd=held), posted=call.posted._replace(usd=charge))
        return cheaper, self.limits[deeds.limit]

    def _refuse(self, call: PastCall, refusal: LimitRefusal) -> None:
        self.refused.add(call)
        for id in (refusal.limit.id, *refusal.others):
            _add(self.limits[id].refused, self.limits[id].subjects, self._index.limits[id], call)
        for name, values in self.payers.items():
            _of(values, getattr(call.who, name), "").add(call)

    def _measure(self, reservation: Reservation, now: int) -> None:
        """Remember what the counters have reached with this call, where it is the most so far."""
        for allowance in reservation.holds:
            findings = self.limits[allowance.limit.id]
            if allowance.used > findings.most[0]:
                findings.most = allowance.used, allowance.window_start, allowance.subject
        for hold in reservation.moving:
            counter = hold.counter
            findings = self.limits[counter.limit.id]
            spent = counter.posted + counter.held
            if spent > findings.most[0]:
                findings.most = spent, counter.window_start or now, counter.subject


def _add(total: Refused, subjects: dict[tuple[str, ...], Refused], limit: CompiledLimit, call: PastCall) -> None:
    """Count a call that a limit refuses, in all and for its subject."""
    total.add(call)
    if limit.each:
        _of(subjects, limit.subject(call.who), ("",) * len(limit.each)).add(call)


def _of(values: dict[_Key, Refused], value: _Key, rest: _Key) -> Refused:
    """The sums of a value; those of ``rest`` where there are too many values."""
    if value not in values and len(values) >= VALUES_MAX:
        value = rest
    found = values.get(value)
    if found is None:
        found = values[value] = Refused()
    return found
