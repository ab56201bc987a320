"""Counters that do not follow the calendar: rolling windows, and buckets that drain at an even pace.

Both keep a bound that is printed. A rolling window never lets more than its amount through in *any* stretch of its
length: what was taken is dropped only when all of its bucket, a sixtieth of the window, is past; limits of few
requests keep each moment. A smooth limit is the generic cell rate algorithm (ITU-T I.371; a leaky bucket as a meter):
at most ``burst + amount x t / window`` in any stretch ``t``. What a call held and did not use is given back as far as
that keeps the bound.

Plain integers: a bucket's level is counted in units x nanoseconds of the window, so that nothing is rounded.
"""

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

from faregate.core.limits.windows import MINUTE, SECOND

if TYPE_CHECKING:
    from faregate.core.limits.counters import Counter, Meter
    from faregate.core.limits.index import CompiledLimit

#: A rolling window is cut into so many buckets.
BUCKETS = 60

#: Limits of at most so many requests keep the moment of each.
MOMENTS_MAX = 1_000

#: The end of time as the books and the control socket write it.
_LAST = 1 << 63

#: More than any call holds, in units x nanoseconds: what drains where nothing bounds it.
_EVERYTHING = 1 << 127

#: Counters that nobody uses are kept at least so long, so that they are not looked through all the time.
_IDLE_MIN = 10 * SECOND


class Cell:
    """What was taken in one bucket, or at one moment, of a rolling window."""

    __slots__ = ("counted", "end", "posted", "start", "used")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        #: The last moment that it stands for: past that, by the length of the window, it is dropped.
        self.end = end
        self.posted = 0
        self.used = 0
        self.counted = True


class Hold:
    """What one call holds on a counter that does not follow the calendar; ended once, by the reservation it is of."""

    __slots__ = ("amount", "at", "cell", "counter", "drained", "later")

    def __init__(self, counter: "Counter", amount: int, at: int, cell: Cell | None) -> None:
        self.counter = counter
        #: All that is held, what was held later included.
        self.amount = amount
        self.at = at
        self.cell = cell
        #: What was held while the call ran, in the buckets of those moments.
        self.later: tuple[tuple[Cell, int], ...] = ()
        #: Of a bucket that drains: how much could have drained of it until this was taken.
        self.drained = 0


class Moving(ABC):
    """What both have in common: whose counter it is, and what is asked of it."""

    __slots__ = ("meter", "pace", "subject", "unit")

    def __init__(self, meter: "Meter", subject: tuple[str, ...]) -> None:
        self.meter = meter
        self.subject = subject
        self.unit = meter.limit.unit
        self.pace: Pace | None = None

    @property
    def limit(self) -> "CompiledLimit":
        """The limit as it stands now, after any change of its amount."""
        return self.meter.limit

    @property
    def amount(self) -> int | None:
        """What may be reached now; ``None`` where nothing bounds it."""
        return self.meter.amount

    @property
    @abstractmethod
    def posted(self) -> int:
        """What ended calls used, of what is counted, when it was counted last."""

    @property
    @abstractmethod
    def held(self) -> int:
        """What open reservations hold, of what is counted."""

    @property
    def remaining(self) -> int:
        """What still fits, when it was counted last."""
        return self.meter.left(self.posted + self.held, self.amount)

    @property
    def window_start(self) -> int:
        """Where the stretch begins that is counted, 0 where nothing is."""
        return 0

    @property
    def window_end(self) -> int:
        """When something that is counted will be free again, 0 where nothing is counted."""
        return 0

    @abstractmethod
    def spent(self, now: int) -> int:
        """What is counted now, posted and held."""

    @abstractmethod
    def take(self, amount: int, now: int) -> Hold:
        """Hold ``amount``."""

    @abstractmethod
    def put(self, amount: int, at: int, now: int) -> Hold:
        """Hold what was admitted at a moment in the past."""

    @abstractmethod
    def more(self, hold: Hold, amount: int, now: int) -> None:
        """Hold ``amount`` more."""

    @abstractmethod
    def end(self, hold: Hold, posted: int, now: int) -> None:
        """Give back a hold and count what was used instead."""

    @abstractmethod
    def fits_at(self, wanted: int, top: int, now: int) -> int:
        """The moment from which ``wanted`` fits if nothing else is taken; 0 where it never does."""


class Rolling(Moving):
    """What was taken within the last ``limit.rolling`` nanoseconds, by bucket or by moment."""

    __slots__ = ("_cells", "_posted", "_used")

    def __init__(self, meter: "Meter", subject: tuple[str, ...]) -> None:
        super().__init__(meter, subject)
        #: Oldest first.
        self._cells: deque[Cell] = deque()
        self._posted = 0
        self._used = 0

    @property
    def posted(self) -> int:
        """What ended calls used, of what is counted."""
        return self._posted

    @property
    def held(self) -> int:
        """What open reservations hold, of what is counted."""
        return self._used - self._posted

    @property
    def window_start(self) -> int:
        """Where the oldest bucket begins that is counted, 0 where none is."""
        return self._cells[0].start if self._cells else 0

    @property
    def window_end(self) -> int:
        """When the oldest bucket is past, 0 where none is counted."""
        return self._cells[0].end + self.meter.limit.rolling if self._cells else 0

    def spent(self, now: int) -> int:
        """What is counted now; drops what is wholly past."""
        cells, since = self._cells, now - self.meter.limit.rolling
        while cells and cells[0].end <= since:
            gone = cells.popleft()
            gone.counted = False
            self._posted -= gone.posted
            self._used -= gone.used
        return self._used

    def take(self, amount: int, now: int) -> Hold:
        """Hold ``amount`` in the bucket of ``now``."""
        cell = self._newest(now)
        self._change(cell, 0, amount)
        return Hold(self, amount, now, cell)

    def put(self, amount: int, at: int, now: int) -> Hold:
        """Hold what was admitted in the past, in the bucket of that moment; what is past is not counted."""
        self.spent(now)
        cells, cell = self._cells, self._cell(at)
        if cell.end <= now - self.meter.limit.rolling:
            cell.counted = False
        else:
            place = len(cells)
            while place and cells[place - 1].end > cell.end:
                place -= 1
            if place and cells[place - 1].end == cell.end:
                # One for each of the calls that a restart found open would be looked through by every other of them.
                cell = cells[place - 1]
            else:
                cells.insert(place, cell)
        self._change(cell, 0, amount)
        return Hold(self, amount, at, cell)

    def more(self, hold: Hold, amount: int, now: int) -> None:
        """Hold ``amount`` more, in the bucket of ``now``: it was not taken before."""
        cell = self._newest(now)
        self._change(cell, 0, amount)
        hold.amount += amount
        hold.later = (*hold.later, (cell, amount))

    def end(self, hold: Hold, posted: int, now: int) -> None:
        """Give back a hold and count what was used instead, of what was held first; what still counts."""
        if hold.cell is None:
            return
        first = hold.amount - sum(amount for _, amount in hold.later)
        takes = ((hold.cell, first), *hold.later)
        for place, (cell, amount) in enumerate(takes):
            # What was used beyond all that was held counts where the last of it was taken.
            used = posted if place == len(takes) - 1 else min(posted, amount)
            posted -= used
            self._change(cell, used, used - amount)

    def _newest(self, now: int) -> Cell:
        """The bucket of ``now``."""
        cells = self._cells
        cell = cells[-1] if cells else None
        if cell is None or now > cell.end:
            cell = self._cell(now)
            cells.append(cell)
        return cell

    def _change(self, cell: Cell, posted: int, used: int) -> None:
        if cell.counted:
            cell.posted += posted
            cell.used += used
            self._posted += posted
            self._used += used

    def fits_at(self, wanted: int, top: int, now: int) -> int:
        """The moment from which ``wanted`` fits if nothing else is taken; 0 where it never does."""
        if wanted > top:
            return 0
        excess = self.spent(now) + wanted - top
        for cell in self._cells:
            excess -= cell.used
            if excess <= 0:
                return cell.end + self.meter.limit.rolling
        return now

    def _cell(self, at: int) -> Cell:
        meter = self.meter
        if (
            meter.limit.unit_name == "requests"
            and meter.amount is not None
            and meter.amount <= MOMENTS_MAX
            # Limits that refuse nobody, and calls that were given back, would else fill the memory.
            and len(self._cells) < MOMENTS_MAX
        ):
            return Cell(at, at)
        length = -(-meter.limit.rolling // BUCKETS)
        start = at - at % length
        return Cell(start, start + length)


class Smooth(Moving):
    """A bucket that calls fill and that drains at ``amount`` units per window."""

    __slots__ = ("_at", "_drained", "_level")

    def __init__(self, meter: "Meter", subject: tuple[str, ...]) -> None:
        super().__init__(meter, subject)
        #: Units x nanoseconds of the window, as of ``_at``.
        self._level = 0
        self._at = 0
        #: All that drained since the beginning, and what would have if there had been anything: as of ``_at``.
        self._drained = 0

    @property
    def amount(self) -> int | None:
        """What the bucket takes at once; ``None`` where nothing bounds it."""
        return None if self.meter.amount is None else burst_of(self.meter.limit, self.meter.amount)

    @property
    def posted(self) -> int:
        """What has not drained yet, held or used."""
        return -(-self._level // self.meter.limit.period)

    @property
    def held(self) -> int:
        """Nothing apart: what is held drains like what was used."""
        return 0

    @property
    def window_end(self) -> int:
        """When all will have drained, 0 where it has."""
        rate = self.meter.amount
        return _moment(self._at + -(-self._level // rate)) if self._level and rate else 0

    def spent(self, now: int) -> int:
        """What has not drained until now, rounded up to whole units."""
        self._drain(now)
        return -(-self._level // self.meter.limit.period)

    def take(self, amount: int, now: int) -> Hold:
        """Fill ``amount`` in."""
        self._drain(now)
        self._level += amount * self.meter.limit.period
        self._look()
        hold = Hold(self, amount, now, None)
        hold.drained = self._drained
        return hold

    def put(self, amount: int, at: int, now: int) -> Hold:
        """Fill in what was admitted in the past, as if it were now: it is not known how much of it has drained."""
        return self.take(amount, now)

    def more(self, hold: Hold, amount: int, now: int) -> None:
        """Fill ``amount`` in, too."""
        self._drain(now)
        self._level += amount * self.meter.limit.period
        hold.amount += amount

    def end(self, hold: Hold, posted: int, now: int) -> None:
        """Give back what was not used, less what may have drained of it; what was used beyond the hold is filled in.

        Without that, a call that had held much, and long, would make room that the pace never gave.
        """
        self._drain(now)
        period = self.meter.limit.period
        unused = (hold.amount - posted) * period
        if hold.at < self.meter.free_until or self.meter.amount is None:
            # Nothing was counted of it when it was taken.
            unused = min(unused, 0)
        elif unused > 0:
            unused = max(0, unused - (self._drained - hold.drained))
        self._level = max(0, self._level - unused)
        self._look()

    def _look(self) -> None:
        """Remember a counter that is over what it takes at once: it may be idle for long and still count."""
        meter, amount = self.meter, self.amount
        if self.subject and amount is not None and self._level > amount * meter.limit.period:
            meter.over[meter.limit.key_of(self.subject)] = self

    def fits_at(self, wanted: int, top: int, now: int) -> int:
        """The moment from which ``wanted`` fits if nothing else is taken; 0 where it never does."""
        rate = self.meter.amount
        if wanted > top or not rate:
            return 0
        self._drain(now)
        return _moment(now + -(-max(0, self._level - (top - wanted) * self.meter.limit.period) // rate))

    def _drain(self, now: int) -> None:
        meter = self.meter
        if now <= self._at:
            return
        if now >= meter.changes_at:
            # A raise has begun or ended since anybody looked; this drains what drained at the pace before.
            meter.refresh(now)
        at = self._at
        rate = meter.amount
        if rate is None:
            self._level = 0
            self._drained += _EVERYTHING
        else:
            drained = 0
            if at < meter.slowed_until:
                slow = min(now, meter.slowed_until)
                drained = min(meter.slowest, rate) * (slow - at)
                at = slow
            drained += rate * (now - at)
            self._drained += drained
            self._level = max(0, self._level - drained)
        self._at = now


class Pace:
    """Calls at an even pace, none in advance: what a throttle lets through."""

    __slots__ = ("next_at", "taken_at")

    def __init__(self) -> None:
        self.next_at = 0
        #: When the last call passed.
        self.taken_at = -1

    def take(self, requests_per_minute: int, now: int) -> None:
        """A call passes; the next one may after the minute's share of it."""
        self.next_at = now + -(-MINUTE // max(1, requests_per_minute))
        self.taken_at = now


def _moment(at: int) -> int:
    """A moment to come; 0 for one that nobody can write down: what drains for centuries is never free."""
    return at if at < _LAST else 0


def burst_of(limit: "CompiledLimit", amount: int) -> int:
    """What a smooth limit lets through at once: as its terms say, else a tenth of its requests, or all of the rest."""
    if limit.terms.burst:
        return min(limit.terms.burst, amount) if amount else 0
    return max(1, amount // 10) if limit.unit_name == "requests" and amount else amount


def idle_after(limit: "CompiledLimit", amount: int | None) -> int:
    """Nanoseconds after which a counter that nobody used counts nothing any more."""
    if limit.rolling and not limit.terms.algorithm:
        return max(_IDLE_MIN, limit.rolling + -(-limit.rolling // BUCKETS))
    if not amount:
        return max(_IDLE_MIN, limit.period)
    return max(_IDLE_MIN, -(-burst_of(limit, amount) * limit.period // amount))
