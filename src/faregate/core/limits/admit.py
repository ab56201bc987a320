"""Admission: hold an amount on every allowance that applies to a call, or on none.

Owns every counter of posted and held amounts in the gate, in memory, with one owner and no await between check and
hold; that is what makes a hard limit hard. Knows neither prices nor providers nor the journal: amounts and the time are
handed in, and what the books know arrives through ``open_balance`` and ``hold_unknown``.

Three rules keep the figures true:

* ``posted + held + wanted <= amount`` is checked for every hard limit before anything is held anywhere.
* A hold is resolved once. A call is charged to the window that admitted it: when a window ends its counters are left
  to the reservations that still hold on them, and new ones begin at zero.
* Time never goes back here: a wall clock that is set back stands still until it has caught up, for otherwise a window
  could be spent twice.

Every request passes ``reserve`` and ``settle``, so both are written for speed: slots instead of dataclasses, one pass
over allowances that a ``Standing`` remembers, and windows are computed only when one has ended.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo
from typing import Any, NamedTuple

from faregate.core.amounts import UNITS, Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.index import CompiledLimit, LimitIndex
from faregate.core.limits.refusal import Binding, LimitRefusal, refuse
from faregate.core.limits.windows import window_of

#: More than any amount; what an unlimited allowance has left.
UNLIMITED = 1 << 62

#: The moment at which a window without an end ends.
NEVER = 1 << 63

#: Most counters of ``each`` limits that are kept in memory at once (about 200 bytes each).
EACH_MAX = 1_000_000

#: Counters of past windows dropped, and limits looked at for past windows, whenever a counter is made. Dropping more
#: than one for each new one keeps up with any rate; a small number keeps the pause out of sight.
_DROPPED_PER_NEW = 4
#: A money limit with room for fewer calls like this one is tight. With more, the room is looked at again before a
#: ten-thousandth of it can be used up.
TIGHT_CALLS = 10_000
#: At the latest after so many calls the room is looked at again.
_LOOK_AFTER_MAX = 1_000
_SWEPT_PER_NEW = 16


class Allowance:
    """One limit's counter for one subject and one window."""

    __slots__ = ("meter", "posted", "subject", "unit", "used", "window_end", "window_start")

    def __init__(self, meter: "_Meter", subject: tuple[str, ...]) -> None:
        self.meter = meter
        self.subject = subject
        self.unit = meter.limit.unit
        #: What ended calls used, and that together with what is held: the figure that must stay within the amount.
        self.posted = 0
        self.used = 0
        self.window_start = meter.window_start
        #: Exclusive; 0 where the window never ends.
        self.window_end = meter.window_end

    @property
    def limit(self) -> CompiledLimit:
        """The limit as it stands now, after any change of its amount."""
        return self.meter.limit

    @property
    def held(self) -> int:
        """What open reservations hold."""
        return self.used - self.posted

    @property
    def remaining(self) -> int:
        """What still fits, at least 0; ``UNLIMITED`` where nothing bounds it."""
        ceiling = self.meter.ceiling
        return UNLIMITED if ceiling == UNLIMITED else max(0, ceiling - self.used)


class _Meter:
    """Everything counted for one limit: its current window, and the allowances of that window."""

    __slots__ = ("ceiling", "limit", "pending", "subjects", "total", "until", "window_end", "window_start")

    def __init__(self, limit: CompiledLimit, window: tuple[int, int]) -> None:
        self.limit = limit
        #: Its opening balance is not known yet, so that a hard limit admits nothing.
        self.pending = True
        #: By ``CompiledLimit.subject_of``; empty for a limit on the total.
        self.subjects: dict[Any, Allowance] = {}
        self.enter(window)
        self.set_ceiling()

    def enter(self, window: tuple[int, int]) -> None:
        """Begin a window with counters at zero."""
        self.window_start, self.window_end = window
        self.until = self.window_end or NEVER
        self.total = Allowance(self, ())
        self.subjects = {}

    def set_ceiling(self) -> None:
        """Work out what ``posted + held`` may reach: below zero while nothing at all is admitted."""
        if not self.limit.hard or self.limit.amount is None:
            self.ceiling = UNLIMITED
        elif self.pending:
            self.ceiling = -1
        else:
            self.ceiling = self.limit.amount


class Standing:
    """Somebody who asks, with the limits that concern it; remembers its allowances until one of their windows ends.

    Whoever asks again and again keeps its standing, so that its limits need not be looked up for each call.
    """

    __slots__ = ("allowances", "generation", "limits", "roomy_for", "until", "who")

    def __init__(self, who: Attribution, limits: Iterable[CompiledLimit]) -> None:
        self.who = who
        self.limits = tuple(limits)
        self.allowances: tuple[Allowance, ...] = ()
        #: ``allowances`` are right before this moment, for the limits of this generation.
        self.until = 0
        self.generation = 0
        #: So many calls may pass before ``Allowances.tight`` is asked again.
        self.roomy_for = 0


class Reservation:
    """The holds of one exchange on all its allowances; made by ``Allowances`` and ended by it, once."""

    __slots__ = ("admitted_at", "amounts", "ended", "holds", "id", "unknown", "who")

    def __init__(
        self, id: str, who: Attribution, amounts: Amounts, admitted_at: int, holds: tuple[Allowance, ...], unknown: bool
    ) -> None:
        self.id = id
        self.who = who
        self.amounts = amounts
        #: Nanoseconds since 1970 UTC: decides the window that the call is charged to.
        self.admitted_at = admitted_at
        #: Each holds ``amounts[allowance.unit]``.
        self.holds = holds
        self.ended = False
        #: Of an older epoch, outcome not learnt.
        self.unknown = unknown


class View(NamedTuple):
    """One allowance, to be shown; ``resets_at`` is 0 where the window never ends."""

    limit: str
    subject: tuple[str, ...]
    posted: int
    held: int
    window_start: int
    resets_at: int


class Allowances:
    """The one owner of all counters. Not for several threads; every method runs to its end without waiting.

    ``reserve`` takes limits of the index that was last given to ``replace_limits``.
    """

    def __init__(self, each_max: int = EACH_MAX) -> None:
        self._each_max = each_max
        self._index = LimitIndex()
        self._meters: dict[str, _Meter] = {}
        self._latest = 0
        #: Which limits a ``Standing`` was found for.
        self._generation = 1
        self._windows: dict[tuple[str, tzinfo | None], tuple[int, int]] = {}
        self._open: set[Reservation] = set()
        #: Nano-dollars held by open reservations, those of unknown outcome apart.
        self.held_total_usd = 0
        self.unknown_total_usd = 0
        self.unknown_count = 0
        # Counters of ``each`` limits in memory: of current windows, and of past ones that wait to be dropped.
        self._counters = 0
        self._past: list[dict[Any, Allowance]] = []
        self._each_meters: list[_Meter] = []
        self._swept = 0

    # -- one exchange --------------------------------------------------------------------------------------------------

    def reserve(self, id: str, standing: Standing, amounts: Amounts, now_nanos: int) -> Reservation | LimitRefusal:
        """Hold ``amounts`` on every limit of ``standing`` or on none of them.

        Raises:
            KeyError: a limit is not of the index in use.
        """
        if now_nanos > self._latest:
            self._latest = now_nanos
        else:
            now_nanos = self._latest
        fresh: list[Allowance] = []
        if now_nanos < standing.until and standing.generation == self._generation:
            allowances = standing.allowances
        else:
            allowances = self._find(standing, fresh, now_nanos)
        for allowance in allowances:
            used = allowance.used + amounts[allowance.unit]
            if used > allowance.meter.ceiling:
                _give_back(allowances, amounts, allowance)
                return self._refusal(standing, amounts, now_nanos)
            allowance.used = used
        if fresh and not self._keep(fresh, now_nanos):
            _give_back(allowances, amounts, None)
            standing.until = 0
            return self._too_many(fresh[-1], amounts, now_nanos)
        self.held_total_usd += amounts[0]
        reservation = Reservation(id, standing.who, amounts, now_nanos, allowances, False)
        self._open.add(reservation)
        return reservation

    def settle(self, reservation: Reservation, posted: Amounts) -> bool:
        """End a reservation: give back what it holds and post what was used; false where it had ended before.

        ``posted`` may exceed the hold, where a provider billed more than its cap allows: the allowances are over then
        and admit nothing until their window ends.
        """
        if reservation.ended:
            return False
        amounts = reservation.amounts
        for allowance in reservation.holds:
            unit = allowance.unit
            used = posted[unit]
            allowance.posted += used
            allowance.used += used - amounts[unit]
        self._end(reservation)
        return True

    def release(self, reservation: Reservation) -> bool:
        """End a reservation that cost nothing and was never sent; false where it had ended before."""
        if reservation.ended:
            return False
        _give_back(reservation.holds, reservation.amounts, None)
        self._end(reservation)
        return True

    def room(self, standing: Standing, now_nanos: int) -> Amounts:
        """The most that fits right now in each unit, over all hard limits; ``UNLIMITED`` where none bounds it."""
        room = [UNLIMITED] * len(UNITS)
        for allowance in self._find(standing, [], self._at(now_nanos)):
            room[allowance.unit] = min(room[allowance.unit], allowance.remaining)
        return Amounts(*room)

    def tight(self, standing: Standing, amounts: Amounts, now_nanos: int) -> bool:
        """Whether some hard money limit has room for few calls like this one, so that a closer bound is worth its time.

        Where none is, ``standing.roomy_for`` says for how many calls that need not be asked again.
        """
        calls = self.room(standing, now_nanos).usd // max(1, amounts.usd)
        if calls < TIGHT_CALLS:
            return True
        standing.roomy_for = min(calls // TIGHT_CALLS, _LOOK_AFTER_MAX)
        return False

    # -- changes of the limits, and what the books know ----------------------------------------------------------------

    def replace_limits(self, index: LimitIndex, now_nanos: int) -> tuple[str, ...]:
        """Work by the limits of ``index`` from now on; returns the ids of those that wait for their balance.

        A limit that counts the same as before keeps its counters and takes its new amount and mode at once; what is
        held stays held. A new one starts with the holds of the open reservations that it applies to, and admits
        nothing until ``open_balance`` has told what the window had posted before.
        """
        now_nanos = self._at(now_nanos)
        meters: dict[str, _Meter] = {}
        new: list[CompiledLimit] = []
        for id, limit in index.limits.items():
            meter = self._meters.get(id)
            if meter is not None and (meter.limit is limit or meter.limit.counts_as(limit)):
                if meter.limit is not limit:
                    meter.limit = limit
                    meter.set_ceiling()
            else:
                meter = _Meter(limit, self._window(limit, now_nanos))
                new.append(limit)
            meters[id] = meter
        for id, meter in self._meters.items():
            if meters.get(id) is not meter:
                self._detach(meter)
        self._meters = meters
        self._generation += 1
        self._index = index
        self._each_meters = [meter for meter in meters.values() if meter.limit.each]
        self._swept = 0
        if new:
            applying = LimitIndex(new)
            for reservation in self._open:
                for limit in applying.matching(reservation.who):
                    self._hold_also(reservation, limit, now_nanos)
        return self.pending()

    def open_balance(self, limit_id: str, balances: Iterable[tuple[tuple[str, ...], int, int]], now_nanos: int) -> bool:
        """Add ``(subject, window start, posted)`` from the books to a pending limit, which then admits calls.

        Balances of a window that has ended since are left out. False where the limit is gone or was opened before: a
        repeated message must not post twice.
        """
        meter = self._meters.get(limit_id)
        if meter is None or not meter.pending:
            return False
        now_nanos = self._at(now_nanos)
        if now_nanos >= meter.until:
            self._roll(meter, now_nanos)
        for subject, window_start, posted in balances:
            if meter.window_start <= window_start < meter.until:
                allowance = self._counter(meter, subject)
                allowance.posted += posted
                allowance.used += posted
        meter.pending = False
        meter.set_ceiling()
        return True

    def hold_unknown(
        self, id: str, who: Attribution, amounts: Amounts, admitted_at: int, now_nanos: int
    ) -> Reservation:
        """Hold what an exchange of an older epoch held, on every limit that applies to it and without a check.

        Its concurrency slot is free: the process that used it is gone. Windows that have ended are left alone.
        """
        now_nanos = self._at(now_nanos)
        amounts = amounts._replace(concurrency=0)
        reservation = Reservation(id, who, amounts, admitted_at, (), True)
        for limit in self._index.matching(who):
            self._hold_also(reservation, limit, now_nanos)
        self._open.add(reservation)
        self.unknown_count += 1
        self.unknown_total_usd += amounts.usd
        return reservation

    # -- looking -------------------------------------------------------------------------------------------------------

    def pending(self) -> tuple[str, ...]:
        """Ids of the limits whose opening balance is not known yet."""
        return tuple(id for id, meter in self._meters.items() if meter.pending)

    def views(self, now_nanos: int, limit_ids: Iterable[str] | None = None) -> Iterator[View]:
        """The allowances of current windows, of some limits or of all; ids that do not exist are left out."""
        now_nanos = self._at(now_nanos)
        for id in list(self._meters) if limit_ids is None else limit_ids:
            meter = self._meters.get(id)
            if meter is None:
                continue
            if now_nanos >= meter.until:
                self._roll(meter, now_nanos)
            for allowance in list(meter.subjects.values()) if meter.limit.each else (meter.total,):
                yield View(
                    id, allowance.subject, allowance.posted, allowance.held, meter.window_start, meter.window_end
                )

    @property
    def open_count(self) -> int:
        """Reservations that have not ended, unknown ones included."""
        return len(self._open)

    @property
    def counters(self) -> int:
        """Counters of ``each`` limits in memory, those of past windows that wait to be dropped included."""
        return self._counters

    # -- inside --------------------------------------------------------------------------------------------------------

    def _at(self, now_nanos: int) -> int:
        """The time, which never goes back."""
        self._latest = max(self._latest, now_nanos)
        return self._latest

    def _end(self, reservation: Reservation) -> None:
        """Count a reservation as ended."""
        reservation.ended = True
        self._open.discard(reservation)
        if reservation.unknown:
            self.unknown_count -= 1
            self.unknown_total_usd -= reservation.amounts[0]
        else:
            self.held_total_usd -= reservation.amounts[0]

    def _window(self, limit: CompiledLimit, now_nanos: int) -> tuple[int, int]:
        """The current window of a limit; computed once for all limits of the same window and zone."""
        key = (limit.window, limit.zone)
        known = self._windows.get(key)
        if known is None or now_nanos >= (known[1] or NEVER):
            known = self._windows[key] = window_of(limit.window, limit.zone, now_nanos)
        return known

    def _roll(self, meter: _Meter, now_nanos: int) -> None:
        """Begin a new window; the old counters belong to the reservations that still hold on them."""
        if meter.subjects:
            self._past.append(meter.subjects)
        meter.enter(self._window(meter.limit, now_nanos))

    def _detach(self, meter: _Meter) -> None:
        """Forget a limit that is gone; open reservations may go on holding on its counters, which bind nobody."""
        meter.ceiling = UNLIMITED
        if meter.subjects:
            self._past.append(meter.subjects)
            meter.subjects = {}

    def _find(self, standing: Standing, fresh: list[Allowance], now_nanos: int) -> tuple[Allowance, ...]:
        """The allowances of ``standing`` now. Those that do not exist yet are put into ``fresh`` and not kept.

        A refused call must not leave a counter behind, or refusals could fill the memory.
        """
        who = standing.who
        until = NEVER
        found: list[Allowance] = []
        for limit in standing.limits:
            meter = self._meters[limit.id]
            if now_nanos >= meter.until:
                self._roll(meter, now_nanos)
            until = min(until, meter.until)
            if limit.subject_of is None:
                found.append(meter.total)
                continue
            known = meter.subjects.get(limit.subject_of(who))
            if known is None:
                known = Allowance(meter, limit.subject(who))
                fresh.append(known)
            found.append(known)
        allowances = tuple(found)
        # Fresh ones are remembered the next time, when they are kept.
        standing.allowances = allowances
        standing.until = 0 if fresh else until
        standing.generation = self._generation
        return allowances

    def _keep(self, fresh: Sequence[Allowance], now_nanos: int) -> bool:
        """Make room for new counters and keep them; false where there is none."""
        meters = self._each_meters[self._swept : self._swept + _SWEPT_PER_NEW]
        self._swept = self._swept + len(meters) if len(meters) == _SWEPT_PER_NEW else 0
        for meter in meters:
            if now_nanos >= meter.until:
                self._roll(meter, now_nanos)
        self._drop_past(_DROPPED_PER_NEW * len(fresh))
        if self._counters + len(fresh) > self._each_max:
            return False
        for allowance in fresh:
            meter = allowance.meter
            meter.subjects[meter.limit.key_of(allowance.subject)] = allowance
        self._counters += len(fresh)
        return True

    def _drop_past(self, count: int) -> None:
        """Drop up to ``count`` counters of past windows."""
        while self._past and count:
            subjects = self._past[-1]
            subjects.popitem()
            if not subjects:
                self._past.pop()
            self._counters -= 1
            count -= 1

    def _counter(self, meter: _Meter, subject: tuple[str, ...]) -> Allowance:
        """The counter of a subject, made where it is missing: what was spent counts even beyond ``each_max``."""
        if not meter.limit.each:
            return meter.total
        key = meter.limit.key_of(subject)
        allowance = meter.subjects.get(key)
        if allowance is None:
            allowance = meter.subjects[key] = Allowance(meter, subject)
            self._counters += 1
        return allowance

    def _hold_also(self, reservation: Reservation, limit: CompiledLimit, now_nanos: int) -> None:
        """Put a reservation's hold on one more limit, if it was admitted in the limit's current window."""
        meter = self._meters[limit.id]
        if now_nanos >= meter.until:
            self._roll(meter, now_nanos)
        if reservation.admitted_at >= meter.window_start:
            allowance = self._counter(meter, limit.subject(reservation.who))
            allowance.used += reservation.amounts[allowance.unit]
            reservation.holds = (*reservation.holds, allowance)

    def _refusal(self, standing: Standing, amounts: Amounts, now_nanos: int) -> LimitRefusal:
        """Look at every limit again and say which of them bind."""
        return refuse(
            [
                _binding(allowance, amounts)
                for allowance in standing.allowances
                if allowance.used + amounts[allowance.unit] > allowance.meter.ceiling
            ],
            now_nanos,
        )

    def _too_many(self, newest: Allowance, amounts: Amounts, now_nanos: int) -> LimitRefusal:
        """The refusal of a call that would need one counter too many."""
        binding = _binding(newest, amounts)._replace(code="too_many_values")
        return refuse([binding], now_nanos)


def _give_back(allowances: Iterable[Allowance], amounts: Amounts, before: Allowance | None) -> None:
    """Take the hold of ``amounts`` off ``allowances``: all of them, or those that come ``before`` one."""
    for allowance in allowances:
        if allowance is before:
            return
        allowance.used -= amounts[allowance.unit]


def _binding(allowance: Allowance, wanted: Amounts) -> Binding:
    """The figures of an allowance that a call does not fit."""
    meter = allowance.meter
    return Binding(
        meter.limit,
        "limit_pending" if meter.pending else meter.limit.code,
        allowance.subject,
        allowance.posted,
        allowance.held,
        wanted[allowance.unit],
        allowance.window_start,
        allowance.window_end,
    )


__all__ = [
    "EACH_MAX",
    "UNLIMITED",
    "Allowance",
    "Allowances",
    "CompiledLimit",
    "LimitIndex",
    "LimitRefusal",
    "Reservation",
    "Standing",
    "View",
]
