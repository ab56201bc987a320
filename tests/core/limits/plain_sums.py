"""What any kind of limit may admit, by adding up every call there ever was: slow, obvious, and none of the product's.

A limit is looked at from both sides. ``least`` is what must be counted, so that a call that is admitted beside it keeps
the bound that is printed; ``most`` is what may be counted, so that a call that is refused was not refused for nothing.
For windows of the calendar both are the same sum.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution, dimension
from faregate.core.limits.index import CompiledLimit
from faregate.core.limits.windows import window_of

FOREVER = 1 << 70


class Call:
    """One admitted call: what it holds from when on, and what it posted once it ended."""

    def __init__(self, who: Attribution, at: int, held: Amounts) -> None:
        self.who = who
        self.at = at
        #: Every time at which it held more, with how much more; the first is its admission.
        self.takes: list[tuple[int, Amounts]] = [(at, held)]
        self.posted: Amounts | None = None
        self.ended_at = 0
        #: Its outcome was unknown after a crash: its slot was given up.
        self.unknown = False

    @property
    def held(self) -> Amounts:
        """All that it held or holds."""
        return Amounts(*map(sum, zip(*(amounts for _, amounts in self.takes), strict=True)))

    def weight(self, limit: CompiledLimit) -> int:
        """What counts of it now: its hold, or what it posted; the slot of an unknown one is free."""
        if self.posted is not None:
            return self.posted[limit.unit]
        if not limit.terms.estimate or (self.unknown and limit.unit_name == "concurrency"):
            return 0
        return self.held[limit.unit]


class Between(NamedTuple):
    """What must be counted, and what may be."""

    least: int
    most: int


def covered(limit: CompiledLimit, who: Attribution) -> bool:
    """Whether a limit concerns a caller."""
    return all(dimension(who, name) == value for name, value in limit.selector)


def counted(calls: Iterable[Call], limit: CompiledLimit, who: Attribution) -> list[Call]:
    """The calls that share the counter of ``who``."""
    subject = [dimension(who, name) for name in limit.each]
    return [
        call for call in calls if covered(limit, call.who) and [dimension(call.who, n) for n in limit.each] == subject
    ]


def spent(calls: Iterable[Call], limit: CompiledLimit, who: Attribution, now: int) -> Between:
    """What is posted and held for the counter of ``who`` over a window of the calendar, or a rolling one."""
    if limit.rolling:
        # Few requests are counted by their moments, but while nothing bounds them.
        always = limit.amount is not None and not limit.terms.since and not limit.terms.until
        by_moment = limit.unit_name == "requests" and always
        kept = 0 if by_moment else -(-limit.rolling // 60)
        since = now - limit.rolling
        if not limit.terms.estimate:
            # What was not estimated counts from the moment at which it is known.
            calls = [call for call in calls if call.posted is not None and call.ended_at > since - kept]
            sure = [call for call in calls if call.ended_at > since]
            return Between(_sum(sure, limit, who, 0, FOREVER), _sum(calls, limit, who, 0, FOREVER))
        late = [call for call in calls if call.at <= since - kept < call.takes[-1][0]]
        return Between(
            _sum(calls, limit, who, since + 1, FOREVER),
            # Whether what a call took later counts from then on, or with the rest of it, is not looked at here.
            _sum(calls, limit, who, since - kept + 1, FOREVER) + _sum(late, limit, who, 0, FOREVER),
        )
    since, until = window_of(limit.window, limit.zone, now, limit.terms.year_start)
    total = _sum(calls, limit, who, since, until or FOREVER)
    return Between(total, total)


def _sum(calls: Iterable[Call], limit: CompiledLimit, who: Attribution, since: int, until: int) -> int:
    return sum(call.weight(limit) for call in counted(calls, limit, who) if since <= call.at < until)


class Rate(NamedTuple):
    """From a moment on so many units drain in each period; ``None`` is a limit that was lifted."""

    since: int
    amount: int | None


def level(takes: Sequence[tuple[int, int]], rates: Sequence[Rate], period: int, now: int) -> int:
    """What has not drained of ``(moment, units)``, in units × nanoseconds of the period: the generic cell rate bound.

    The most over all beginnings of what was taken since, less what drained since; never below nothing.
    """
    most = total = 0
    for at, units in sorted(takes, reverse=True):
        drained = _drained(rates, at, now)
        if drained is None:
            break
        total += units * period
        most = max(most, total - drained)
    return most


def _drained(rates: Sequence[Rate], since: int, until: int) -> int | None:
    """Units × nanoseconds that may drain between two moments; ``None`` is everything."""
    drained = 0
    for rate, end in zip(rates, [*(after.since for after in rates[1:]), FOREVER], strict=True):
        length = min(end, until) - max(rate.since, since)
        if length > 0:
            if rate.amount is None:
                return None
            drained += length * rate.amount
    return drained
