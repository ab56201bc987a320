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

It is one long file because it has one owner: what reserves, settles, extends, replaces limits and opens balances must
agree on every counter, and could not be checked against each other apart. What one counter is, and what it says of
one call, is in ``counters``, ``moving`` and ``closer``.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from typing import Any, NamedTuple

from faregate.core.amounts import UNITS, Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits import closer
from faregate.core.limits.closer import NO_DEEDS, Deeds
from faregate.core.limits.counters import UNLIMITED, Allowance, Counter, Meter
from faregate.core.limits.figures import Figures, figures
from faregate.core.limits.in_force import NEVER
from faregate.core.limits.index import CompiledLimit, LimitIndex
from faregate.core.limits.moving import Hold
from faregate.core.limits.refusal import Binding, LimitRefusal, refuse
from faregate.core.limits.windows import window_of

#: Most counters of ``each`` limits that are kept in memory at once (about 200 bytes each).
EACH_MAX = 1_000_000

#: Counters of past windows dropped, and limits looked at for past windows, whenever a counter is made. Dropping more
#: than one for each new one keeps up with any rate; a small number keeps the pause out of sight.
_DROPPED_PER_NEW = 4
_SWEPT_PER_NEW = 16

#: A money limit with room for fewer calls like this one is tight. With more, the room is looked at again before a
#: ten-thousandth of it can be used up.
TIGHT_CALLS = 10_000
#: At the latest after so many calls the room is looked at again.
_LOOK_AFTER_MAX = 1_000


class Standing:
    """Somebody who asks, with the limits that concern it; remembers its allowances until one of their windows ends.

    Whoever asks again and again keeps its standing, so that its limits need not be looked up for each call.
    """

    __slots__ = ("allowances", "generation", "limits", "roomy_for", "special", "until", "who")

    def __init__(self, who: Attribution, limits: Iterable[CompiledLimit]) -> None:
        self.who = who
        self.limits = tuple(limits)
        self.allowances: tuple[Allowance, ...] = ()
        #: Counters that need a closer look than one comparison; none for nearly everybody.
        self.special: tuple[Counter, ...] = ()
        #: ``allowances`` are right before this moment, for the limits of this generation.
        self.until = 0
        self.generation = 0
        #: So many calls may pass before ``Allowances.tight`` is asked again.
        self.roomy_for = 0


class Reservation:
    """The holds of one exchange on all its allowances; made by ``Allowances`` and ended by it, once."""

    __slots__ = ("admitted_at", "amounts", "ended", "holds", "id", "moving", "shadowed", "unknown", "who")

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
        #: What it holds on counters that do not follow the calendar, and on those that hold no estimate.
        self.moving: tuple[Hold, ...] = ()
        #: Ids of the shadow limits that would have refused it.
        self.shadowed: tuple[str, ...] = ()
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
    #: The amount in force, what was carried over included; ``None`` is unlimited.
    amount: int | None = None


class Allowances:
    """The one owner of all counters. Not for several threads; every method runs to its end without waiting.

    ``reserve`` takes limits of the index that was last given to ``replace_limits``.
    """

    def __init__(self, each_max: int = EACH_MAX) -> None:
        self._each_max = each_max
        self._index = LimitIndex()
        self._meters: dict[str, Meter] = {}
        #: Ids of those whose opening balance is not known yet, in their order.
        self._pending: dict[str, None] = {}
        self._latest = 0
        #: Which limits a ``Standing`` was found for.
        self._generation = 1
        self._windows: dict[tuple[str, tzinfo | None, str], tuple[int, int]] = {}
        self._open: set[Reservation] = set()
        #: Nano-dollars held by open reservations, those of unknown outcome apart.
        self.held_total_usd = 0
        self.unknown_total_usd = 0
        self.unknown_count = 0
        # Counters of ``each`` limits in memory: of current windows, and of past ones that wait to be dropped.
        self._counters = 0
        self._past: list[dict[Any, Counter]] = []
        self._each_meters: list[Meter] = []
        self._swept = 0
        #: Shadow limit → how many calls it would have refused.
        self.shadow_refusals: dict[str, int] = {}

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
        fresh: list[Counter] = []
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
        special = standing.special
        looked = closer.look(special, amounts, now_nanos) if special else None
        if looked is not None and looked.bindings:
            _give_back(allowances, amounts, None)
            return self._refusal(standing, amounts, now_nanos)
        if fresh and not self._keep(fresh, now_nanos):
            _give_back(allowances, amounts, None)
            standing.until = 0
            return self._too_many(fresh[-1], amounts, now_nanos)
        self.held_total_usd += amounts[0]
        reservation = Reservation(id, standing.who, amounts, now_nanos, allowances, False)
        if looked is not None:
            plain, reservation.moving = closer.take(special, amounts, now_nanos)
            reservation.holds = allowances + plain
            reservation.shadowed = looked.shadowed
            for limit in looked.shadowed:
                self.shadow_refusals[limit] = self.shadow_refusals.get(limit, 0) + 1
        self._open.add(reservation)
        return reservation

    def extend(self, reservation: Reservation, more: Amounts, now_nanos: int) -> bool:
        """Hold ``more`` for a call that runs, on all that it holds on or on nothing; false where it does not fit.

        It counts in the windows that admitted the call. Nothing more is held for one that has ended. A limit of which
        nothing more is asked, such as one of concurrency that was lowered meanwhile, is not in the way.
        """
        now_nanos = self._at(now_nanos)
        if reservation.ended:
            return False
        counters: list[Counter] = [*reservation.holds, *(hold.counter for hold in reservation.moving)]
        for counter in counters:
            if now_nanos >= counter.meter.until:
                self._roll(counter.meter, now_nanos)
        if not all(self._is_kept(hold.counter) for hold in reservation.moving):
            # Its counter was dropped as idle and another one counts now, which knows nothing of what it holds.
            return False
        for allowance in reservation.holds:
            if more[allowance.unit] and not self._has_room(allowance, more[allowance.unit], now_nanos):
                return False
        for hold in reservation.moving:
            wanted = more[hold.counter.unit]
            if wanted and not closer.may_hold_more(hold.counter, wanted, now_nanos):
                return False
        for allowance in reservation.holds:
            allowance.used += more[allowance.unit]
        for hold in reservation.moving:
            closer.hold_more(hold, more[hold.counter.unit], now_nanos)
        if reservation.unknown:
            self.unknown_total_usd += more[0]
        else:
            self.held_total_usd += more[0]
        reservation.amounts = Amounts(*map(sum, zip(reservation.amounts, more, strict=True)))
        return True

    def _has_room(self, allowance: Allowance, more: int, now_nanos: int) -> bool:
        if allowance.meter.limit.moving:
            return closer.may_hold_more(allowance, more, now_nanos)
        return allowance.used + more <= allowance.meter.ceiling

    def deeds(self, standing: Standing, now_nanos: int, models: Sequence[str] = ()) -> Deeds:
        """What the actions of limits do to the calls of ``standing`` now, beside refusing them.

        ``models`` are the names of the model that is asked for; without them any model is meant.
        """
        now_nanos = self._at(now_nanos)
        if now_nanos >= standing.until or standing.generation != self._generation:
            self._find(standing, [], now_nanos)
        return closer.deeds(standing.special, now_nanos, models) if standing.special else NO_DEEDS

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
        for hold in reservation.moving:
            self._find_again(hold, posted[hold.counter.unit])
            closer.end(hold, posted[hold.counter.unit], self._latest)
        self._end(reservation)
        return True

    def release(self, reservation: Reservation, sent: bool = False) -> bool:
        """End a reservation that cost nothing; false where it had ended before.

        One that was ``sent`` keeps the turn that a throttle gave it.
        """
        if reservation.ended:
            return False
        _give_back(reservation.holds, reservation.amounts, None)
        for hold in reservation.moving:
            closer.end(hold, 0, self._latest)
        if not sent:
            for counter in (*reservation.holds, *(hold.counter for hold in reservation.moving)):
                closer.give_back_turn(counter, reservation.admitted_at)
        self._end(reservation)
        return True

    def room(self, standing: Standing, now_nanos: int) -> Amounts:
        """The most that fits right now in each unit, over all hard limits; ``UNLIMITED`` where none bounds it."""
        room = [UNLIMITED] * len(UNITS)
        now_nanos = self._at(now_nanos)
        for allowance in self._find(standing, [], now_nanos):
            room[allowance.unit] = min(room[allowance.unit], allowance.remaining)
        for counter in standing.special:
            room[counter.unit] = min(room[counter.unit], closer.room(counter, now_nanos))
        return Amounts(*room)

    def fits(self, standing: Standing, amounts: Amounts, now_nanos: int) -> bool:
        """Whether ``reserve`` would hold ``amounts`` right now; nothing is held.

        More than ``room`` it knows of limits that let no call through for a moment, whatever it asks.
        """
        now_nanos = self._at(now_nanos)
        fresh: list[Counter] = []
        allowances = self._find(standing, fresh, now_nanos)
        if fresh and self._counters + len(fresh) > self._each_max:
            return False
        if any(each.used + amounts[each.unit] > each.meter.ceiling for each in allowances):
            return False
        return not closer.look(standing.special, amounts, now_nanos).bindings

    def figures(self, standing: Standing, now_nanos: int, hidden: Collection[str] = ()) -> Figures:
        """What is left of the limits of ``standing``, but of those whose ids are ``hidden``, for headers.

        Limits that were replaced since it was found are told as they were, as long as their windows last.
        """
        now_nanos = self._at(now_nanos)
        if now_nanos >= standing.until and standing.generation in (0, self._generation):
            self._find(standing, [], now_nanos)
        return figures((*standing.allowances, *standing.special), now_nanos, hidden)

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
        if index.changed_from is self._index.edition:
            # Limits change one at a time, and calls wait meanwhile: of fifty thousand the others are not looked at.
            ids: Iterable[str] = index.changed_ids
        else:
            ids = dict.fromkeys((*self._meters, *index.limits))
        fresh: dict[str, Meter] = {}
        gone: list[Meter] = []
        for id in ids:
            meter, limit = self._meters.get(id), index.limits.get(id)
            if limit is not None and meter is not None:
                if meter.limit is limit:
                    continue
                if meter.limit.counts_as(limit):
                    if meter.limit.terms.algorithm:
                        # Until now it drained at the pace that it had.
                        meter.refresh(now_nanos)
                    meter.limit = limit
                    meter.refresh(now_nanos)
                    continue
            if meter is not None:
                gone.append(meter)
            if limit is not None:
                window = self._window(limit, now_nanos)
                fresh[id] = Meter(limit, window, self._before(limit, window), now_nanos)
        self._index = index
        self._generation += 1
        self._exchange(gone, fresh)
        if fresh and self._open:
            applying = LimitIndex(meter.limit for meter in fresh.values())
            for reservation in self._open:
                for limit in applying.matching(reservation.who):
                    self._hold_also(reservation, limit, now_nanos)
        return self.pending()

    def _exchange(self, gone: Iterable[Meter], fresh: Mapping[str, Meter]) -> None:
        """Forget the meters that are ``gone`` and go on with the ``fresh`` ones, which wait for their balances."""
        each_changed = False
        for meter in gone:
            id = meter.limit.id
            self._detach(meter)
            del self._meters[id]
            self._pending.pop(id, None)
            each_changed = each_changed or bool(meter.limit.each)
        for id, meter in fresh.items():
            self._meters[id] = meter
            self._pending[id] = None
            each_changed = each_changed or bool(meter.limit.each)
        if each_changed:
            self._each_meters = [meter for meter in self._meters.values() if meter.limit.each]
            self._swept = 0

    def open_balance(self, limit_id: str, balances: Iterable[tuple[tuple[str, ...], int, int]], now_nanos: int) -> bool:
        """Add ``(subject, window start, posted)`` from the books to a pending limit, which then admits calls.

        Balances of a window that has ended since are left out, but those of the one before where something is carried
        over from it. Of a counter that does not follow the calendar the second figure is the latest moment at which the
        third can have been spent. False where the limit is gone or was opened before: a repeated message must not post
        twice.
        """
        meter = self._meters.get(limit_id)
        if meter is None or not meter.pending:
            return False
        now_nanos = self._at(now_nanos)
        if now_nanos >= meter.until:
            self._roll(meter, now_nanos)
        for subject, window_start, posted in balances:
            counter: Counter | None
            if meter.limit.paced:
                counter = self._counter(meter, subject)
                if not isinstance(counter, Allowance):
                    closer.end_past(counter, posted, min(window_start, now_nanos), now_nanos)
                continue
            if meter.window_start <= window_start < (meter.window_end or NEVER):
                counter = self._counter(meter, subject)
            elif meter.limit.terms.carry_max and meter.before_start <= window_start < meter.window_start:
                counter = self._counter_before(meter, subject)
            else:
                continue
            if isinstance(counter, Allowance):
                counter.posted += posted
                counter.used += posted
        meter.pending = False
        del self._pending[limit_id]
        meter.refresh(now_nanos)
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

    def count_try(self, who: Attribution, admitted_at: int, now_nanos: int) -> None:
        """Count a request that was sent to a place in vain, on limits of requests to that very place.

        All others count the call once, where it is answered.
        """
        now_nanos = self._at(now_nanos)
        tried = Reservation("", who, Amounts(requests=1), admitted_at, (), True)
        for limit in self._index.matching(who):
            if limit.unit_name == "requests" and limit.of_place:
                self._hold_also(tried, limit, now_nanos)
        self._open.add(tried)
        self.unknown_count += 1
        self.settle(tried, Amounts(requests=1))

    # -- looking -------------------------------------------------------------------------------------------------------

    def pending(self, limit_ids: Iterable[str] | None = None) -> tuple[str, ...]:
        """Ids of those limits, of some or of all, whose opening balance is not known yet."""
        if limit_ids is None:
            return tuple(self._pending)
        return tuple(id for id in limit_ids if id in self._pending)

    def views(self, now_nanos: int, limit_ids: Iterable[str] | None = None) -> Iterator[View]:
        """The allowances of current windows, of some limits or of all; ids that do not exist are left out."""
        now_nanos = self._at(now_nanos)
        for id in list(self._meters) if limit_ids is None else limit_ids:
            meter = self._meters.get(id)
            if meter is None:
                continue
            if now_nanos >= meter.until:
                self._roll(meter, now_nanos)
            counters = list(meter.subjects.values()) if meter.limit.each else [meter.total]
            if meter.limit.paced:
                counters += meter.before.values()
            for counter in counters:
                start, end = counter.window_start, counter.window_end
                if not isinstance(counter, Allowance):
                    counter.spent(now_nanos)
                    start, end = now_nanos - meter.limit.period, counter.window_end
                yield View(id, counter.subject, counter.posted, counter.held, start, end, counter.amount)

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
        if limit.paced:
            return 0, 0
        key = (limit.window, limit.zone, limit.terms.year_start)
        known = self._windows.get(key)
        if known is None or now_nanos >= (known[1] or NEVER):
            known = self._windows[key] = window_of(limit.window, limit.zone, now_nanos, limit.terms.year_start)
        return known

    def _before(self, limit: CompiledLimit, window: tuple[int, int]) -> int:
        """Where the window before this one began, of a limit that carries over."""
        if not limit.terms.carry_max or not window[1]:
            return 0
        return window_of(limit.window, limit.zone, window[0] - 1, limit.terms.year_start)[0]

    def _roll(self, meter: Meter, now_nanos: int) -> None:
        """Go on with time: another amount, or a new window whose counters begin at zero.

        The old ones belong to the reservations that still hold on them.
        """
        if now_nanos < meter.turns_at:
            meter.refresh(now_nanos)
            return
        left = (meter.subjects, meter.before)
        window = self._window(meter.limit, now_nanos)
        meter.turn(window, self._before(meter.limit, window), now_nanos)
        self._past += [each for each in left if each and each is not meter.before]

    def _detach(self, meter: Meter) -> None:
        """Forget a limit that is gone; open reservations may go on holding on its counters, which bind nobody."""
        meter.ceiling = UNLIMITED
        meter.amount = None
        meter.until = meter.turns_at = NEVER
        meter.over = {}
        self.shadow_refusals.pop(meter.limit.id, None)
        self._past += [each for each in (meter.subjects, meter.before) if each]
        meter.subjects, meter.before = {}, {}

    def _find(self, standing: Standing, fresh: list[Counter], now_nanos: int) -> tuple[Allowance, ...]:
        """The allowances of ``standing`` now. Those that do not exist yet are put into ``fresh`` and not kept.

        A refused call must not leave a counter behind, or refusals could fill the memory.
        """
        who = standing.who
        until = NEVER
        found: list[Allowance] = []
        special: list[Counter] = []
        for limit in standing.limits:
            meter = self._meters[limit.id]
            if now_nanos >= meter.until:
                self._roll(meter, now_nanos)
            until = min(until, meter.until)
            known = meter.total
            if limit.subject_of is not None:
                kept = meter.known(limit.subject_of(who))
                if kept is None:
                    kept = meter.counter(limit.subject(who))
                    fresh.append(kept)
                known = kept
            if limit.moving:
                special.append(known)
            elif isinstance(known, Allowance):
                found.append(known)
        allowances = tuple(found)
        standing.special = tuple(special)
        # Fresh ones are remembered the next time, when they are kept.
        standing.allowances = allowances
        standing.until = 0 if fresh else until
        standing.generation = self._generation
        return allowances

    def _keep(self, fresh: Sequence[Counter], now_nanos: int) -> bool:
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

    def _counter(self, meter: Meter, subject: tuple[str, ...]) -> Counter:
        """The counter of a subject, made where it is missing: what was spent counts even beyond ``each_max``."""
        if not meter.limit.each:
            return meter.total
        key = meter.limit.key_of(subject)
        counter = meter.known(key)
        if counter is None:
            counter = meter.subjects[key] = meter.counter(subject)
            self._counters += 1
        return counter

    def _counter_before(self, meter: Meter, subject: tuple[str, ...]) -> Counter:
        """The counter of a subject in the window before, of a limit that carries over."""
        if not meter.limit.each:
            total = meter.total
            assert isinstance(total, Allowance), "what is carried over follows the calendar"
            if total.before is None:
                total.before = Allowance(meter, ())
            return total.before
        key = meter.limit.key_of(subject)
        counter = meter.before.get(key)
        if counter is None:
            counter = meter.before[key] = Allowance(meter, subject)
            self._counters += 1
            now = meter.subjects.get(key)
            if isinstance(now, Allowance) and isinstance(counter, Allowance):
                now.before = counter
        return counter

    def _is_kept(self, counter: Counter) -> bool:
        """Whether it is the counter in use of its subject; one that was dropped as idle, and not replaced, is again."""
        meter = counter.meter
        if not (meter.limit.paced and meter.limit.each) or self._meters.get(meter.limit.id) is not meter:
            return True
        key = meter.limit.key_of(counter.subject)
        known = meter.known(key)
        if known is None:
            meter.subjects[key] = counter
            self._counters += 1
        return known is None or known is counter

    def _find_again(self, hold: Hold, posted: int) -> None:
        """A call may run so long that its counter was dropped as idle: what it used counts on the one there is now."""
        meter = hold.counter.meter
        if self._is_kept(hold.counter):
            return
        known = meter.known(meter.limit.key_of(hold.counter.subject))
        if known is not None and (meter.limit.terms.algorithm or not meter.limit.terms.estimate):
            # What it held is not held there, and has drained.
            hold.counter, hold.amount = known, min(hold.amount, posted)

    def _hold_also(self, reservation: Reservation, limit: CompiledLimit, now_nanos: int) -> None:
        """Put a reservation's hold on one more limit, if it was admitted in the limit's current window."""
        meter = self._meters[limit.id]
        if now_nanos >= meter.until:
            self._roll(meter, now_nanos)
        at, subject = reservation.admitted_at, limit.subject(reservation.who)
        if limit.paced or at >= meter.window_start:
            counter = self._counter(meter, subject)
        elif limit.terms.carry_max and at >= meter.before_start:
            counter = self._counter_before(meter, subject)
        else:
            return
        amount = reservation.amounts[counter.unit]
        if isinstance(counter, Allowance) and limit.terms.estimate:
            counter.used += amount
            reservation.holds = (*reservation.holds, counter)
        else:
            reservation.moving = (*reservation.moving, closer.hold_anyway(counter, amount, at, now_nanos))

    def _refusal(self, standing: Standing, amounts: Amounts, now_nanos: int) -> LimitRefusal:
        """Look at every limit again and say which of them bind."""
        bindings = [
            _binding(allowance, amounts)
            for allowance in standing.allowances
            if allowance.used + amounts[allowance.unit] > allowance.meter.ceiling
        ]
        bindings += closer.look(standing.special, amounts, now_nanos).bindings
        return refuse(bindings, now_nanos)

    def _too_many(self, newest: Counter, amounts: Amounts, now_nanos: int) -> LimitRefusal:
        """The refusal of a call that would need one counter too many."""
        binding = _binding(newest, amounts)._replace(code="too_many_values")
        return refuse([binding], now_nanos)


def _give_back(allowances: Iterable[Allowance], amounts: Amounts, before: Allowance | None) -> None:
    """Take the hold of ``amounts`` off ``allowances``: all of them, or those that come ``before`` one."""
    for allowance in allowances:
        if allowance is before:
            return
        allowance.used -= amounts[allowance.unit]


def _binding(allowance: Counter, wanted: Amounts) -> Binding:
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
        meter.amount,
        meter.limit.unit_name,
        meter.limit.window,
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
