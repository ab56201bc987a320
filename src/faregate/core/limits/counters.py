"""The counters of limits: one ``Meter`` for each limit, one counter for each subject of it.

Owns what a counter is and what it may reach now. Who asks, and whether all of a call's counters have room, is decided
in ``admit``; counters that do not follow the calendar are in ``moving``.
"""

from typing import Any

from faregate.core.limits.in_force import NEVER, amount_at, carried, changes_at
from faregate.core.limits.index import CompiledLimit
from faregate.core.limits.moving import Moving, Pace, Rolling, Smooth, idle_after

#: More than any amount; what an unlimited allowance has left.
UNLIMITED = 1 << 62


#: So many counters are brought up to date when a pace changes; more of them only when they are used.
_COUNTED_AT_ONCE = 1_000


class Allowance:
    """One limit's counter for one subject and one window of the calendar."""

    __slots__ = ("before", "meter", "pace", "posted", "subject", "unit", "used", "window_end", "window_start")

    def __init__(self, meter: "Meter", subject: tuple[str, ...]) -> None:
        self.meter = meter
        self.subject = subject
        self.unit = meter.limit.unit
        #: What ended calls used, and that together with what is held: the figure that must stay within the amount.
        self.posted = 0
        self.used = 0
        self.window_start = meter.window_start
        #: Exclusive; 0 where the window never ends.
        self.window_end = meter.window_end
        #: The same subject's counter of the window before, where something is carried over from it.
        self.before: Allowance | None = None
        #: When the next call may pass, once an action has throttled.
        self.pace: Pace | None = None

    @property
    def limit(self) -> CompiledLimit:
        """The limit as it stands now, after any change of its amount."""
        return self.meter.limit

    @property
    def held(self) -> int:
        """What open reservations hold."""
        return self.used - self.posted

    @property
    def amount(self) -> int | None:
        """What may be reached now, what was carried over included; ``None`` where nothing bounds it."""
        meter = self.meter
        if meter.amount is None or not meter.carries:
            return meter.amount
        # It grows while calls of the window before settle for less than they held.
        limit, before = meter.limit, self.before
        spent = before.used if before is not None else 0
        return meter.amount + carried(limit.amount, limit.terms, meter.window_start, spent)

    @property
    def remaining(self) -> int:
        """What still fits, at least 0; ``UNLIMITED`` where nothing bounds it."""
        return self.meter.left(self.used, self.amount)


Counter = Allowance | Moving


class Meter:
    """Everything counted for one limit: its current window, and the counters of that window."""

    __slots__ = (
        "amount",
        "before",
        "before_start",
        "carries",
        "ceiling",
        "changes_at",
        "free_until",
        "limit",
        "over",
        "pending",
        "slowed_until",
        "slowest",
        "subjects",
        "total",
        "turns_at",
        "until",
        "window_end",
        "window_start",
    )

    def __init__(self, limit: CompiledLimit, window: tuple[int, int], before_start: int, now_nanos: int) -> None:
        self.limit = limit
        #: Its opening balance is not known yet, so that a hard limit admits nothing.
        self.pending = True
        #: What ``posted + held`` may reach in the one comparison that ordinary limits need: below zero while nothing at
        #: all is admitted. Those of ``CompiledLimit.moving`` are looked at closer.
        self.ceiling = UNLIMITED
        #: The amount in force now, ``None`` where nothing bounds it.
        self.amount: int | None = None
        self.window_start, self.window_end = window
        #: Where the window before began, of a limit that carries over, and whether it does from there.
        self.before_start = before_start
        self.carries = False
        #: Of a smooth limit: the smallest amount that was in force before a moment, for what was not counted since.
        self.slowest = 0
        self.slowed_until = 0
        #: And the last moment at which it bounded nothing, so that what is held from before was never counted.
        self.free_until = 0
        #: When another window or generation begins, when the amount changes with time, and the earlier of both.
        self.turns_at = NEVER
        self.changes_at = NEVER
        self.until = NEVER
        #: By ``CompiledLimit.subject_of``; empty for a limit on the total.
        self.subjects: dict[Any, Counter] = {}
        #: Those of the generation before this one, where they still matter.
        self.before: dict[Any, Counter] = {}
        #: Of a smooth limit: those that once were over what they take at once, which nearly none ever is.
        self.over: dict[Any, Smooth] = {}
        self.total: Counter = self.counter(())
        self._begin(now_nanos)

    def turn(self, window: tuple[int, int], before_start: int, now_nanos: int) -> None:
        """Begin another window with counters at zero.

        Counters that do not follow the calendar go on; those that nobody used for a whole generation are dropped.
        """
        follows = self.window_end > 0 and window[0] == self.window_end
        self.window_start, self.window_end = window
        self.before_start = before_start
        if self.limit.paced:
            over = self._still_over(now_nanos)
            self.before, self.subjects = self.subjects, over
        else:
            kept = follows and self.limit.terms.carry_max > 0
            self.before, self.subjects = self.subjects if kept else {}, {}
            old, self.total = self.total, self.counter(())
            if kept and isinstance(old, Allowance) and isinstance(self.total, Allowance):
                old.before = None
                self.total.before = old
        self._begin(now_nanos)

    def _still_over(self, now_nanos: int) -> dict[Any, Counter]:
        """Take out the counters that are over: they are kept however long nobody used them, for they still count."""
        kept: dict[Any, Counter] = {}
        for key, counter in self.over.items():
            for place in (self.subjects, self.before):
                if place.get(key) is counter and counter.spent(now_nanos):
                    kept[key] = place.pop(key)
        self.over = {key: counter for key, counter in self.over.items() if key in kept}
        return kept

    def _begin(self, now_nanos: int) -> None:
        limit = self.limit
        self.carries = limit.terms.carry_max > 0 and limit.terms.carry_from <= self.before_start
        self.refresh(now_nanos)
        if not limit.paced:
            self.turns_at = self.window_end or NEVER
        elif limit.each:
            self.turns_at = now_nanos + idle_after(limit, self.amount)
        self.until = min(self.until, self.turns_at)

    def refresh(self, now_nanos: int) -> None:
        """Work out what may be reached from ``now_nanos`` on, after a change of the limit or with time."""
        limit = self.limit
        before, amount = self.amount, limit.amount
        changes = NEVER
        if limit.timed:
            amount = amount_at(limit.amount, limit.terms, now_nanos)
            changes = changes_at(limit.terms, now_nanos)
        if limit.terms.algorithm and (amount != before or self.changes_at <= now_nanos):
            self._change_pace(amount, now_nanos)
        self.changes_at = changes
        self.amount = amount
        if not limit.hard or self.amount is None:
            self.ceiling = UNLIMITED
        elif self.pending:
            self.ceiling = -1
        else:
            self.ceiling = self.amount
        self.until = min(self.turns_at, changes)

    def _change_pace(self, amount: int | None, now_nanos: int) -> None:
        """What is counted lazily must not drain, looking back, at another rate than it did.

        It may be long after a raise has begun or ended that somebody looks: each stretch drains at its own rate.
        """
        limit = self.limit
        few = len(self.subjects) + len(self.before) <= _COUNTED_AT_ONCE
        kept = (self.total, *self.subjects.values(), *self.before.values()) if few else (self.total,)
        rates = [amount]
        moment = min(self.changes_at, now_nanos)
        self.changes_at = NEVER
        while True:
            rates.append(self.amount)
            for counter in kept:
                if not isinstance(counter, Allowance):
                    counter.spent(moment)
            if self.amount is None:
                self.free_until = moment
            if moment >= now_nanos:
                break
            self.amount = amount_at(limit.amount, limit.terms, moment)
            moment = min(changes_at(limit.terms, moment), now_nanos)
        bound = [rate for rate in rates if rate is not None]
        if not few and bound:
            # So many would keep the gate: they drain at the slowest of these rates up to now.
            self.slowest = min(bound) if not self.slowed_until else min(self.slowest, *bound)
            self.slowed_until = now_nanos
        if limit.each:
            self.turns_at = now_nanos + idle_after(limit, min((rate for rate in bound if rate), default=None))

    def counter(self, subject: tuple[str, ...]) -> Counter:
        """A counter at zero for a subject; it is not kept."""
        limit = self.limit
        if limit.terms.algorithm:
            return Smooth(self, subject)
        if limit.rolling:
            return Rolling(self, subject)
        allowance = Allowance(self, subject)
        if self.before and subject:
            old = self.before.get(limit.key_of(subject))
            if isinstance(old, Allowance):
                old.before = None
                allowance.before = old
        return allowance

    def known(self, key: Any) -> Counter | None:
        """The counter that is kept of a subject, by its key as of ``CompiledLimit.subject_of``."""
        counter = self.subjects.get(key)
        if counter is None and self.before and self.limit.paced:
            # One of the generation before is used again.
            counter = self.before.pop(key, None)
            if counter is not None:
                self.subjects[key] = counter
        return counter

    def left(self, spent: int, amount: int | None) -> int:
        """What is left of ``amount`` for those whom the limit stops; ``UNLIMITED`` where it stops nobody."""
        if not self.limit.hard or amount is None:
            return UNLIMITED
        return 0 if self.pending else max(0, amount - spent)
