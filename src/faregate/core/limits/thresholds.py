"""At which shares of a limit people are told, which of them are reached, and for how long that is told once.

Pure: takes plain figures, knows no clock and no books. What a threshold does to calls is decided at the call, in the
gate; here is what is said about it, and whether a forecast puts an action in force.
"""

from collections.abc import Sequence
from typing import NamedTuple

from faregate.core.limits.terms import Action
from faregate.core.limits.windows import HOUR, MINUTE, SECOND, rolling_nanos

#: Windows that are long enough for a budget: those of rates are not told of unless somebody asks for it.
BUDGET_WINDOWS = ("day", "week", "month", "quarter", "year", "lifetime")

#: A limit that refuses calls counts as reached from this percentage on: the next call may cost more than is left. Below
#: it a single call wants more than most of the limit, which says little about the limit.
REFUSING_PERCENT_MIN = 50

#: An action that a forecast put in force ends when the forecast is so many points below its percentage.
RECOVERY_POINTS = 5

_SHORT = {"second": SECOND, "minute": MINUTE}


class Threshold(NamedTuple):
    """A share of a limit that is told of when it is reached."""

    percent: int
    #: ``actual`` or ``forecast``.
    basis: str
    #: What happens then, one of ``terms.DEEDS``.
    do: str
    #: Its place in the limit's actions; -1 for those that every budget has.
    action: int = -1


class Period(NamedTuple):
    """For how long a threshold is told of once: the window, or at least an hour."""

    start: int
    #: 0 where it does not end.
    end: int


def is_budget(unit: str, window: str) -> bool:
    """Whether a limit is one that people are told of without having asked: dollars, for a day or longer."""
    return unit == "usd" and (window in BUDGET_WINDOWS or rolling_nanos(window) >= 24 * HOUR)


def thresholds_of(
    unit: str, window: str, mode: str, actions: Sequence[Action], usual: Sequence[int]
) -> tuple[Threshold, ...]:
    """What is told of a limit, lowest first; ``usual`` are the percentages for budgets without actions of their own.

    What refuses calls at 100 percent is told of at 100 percent, unless nothing at all is.
    """
    told = [Threshold(each.percent, each.basis, each.do, at) for at, each in enumerate(actions)]
    if not told and is_budget(unit, window):
        told = [Threshold(percent, "actual", "notify") for percent in sorted(set(usual))]
    if told and mode == "hard" and not any(each.percent == 100 and each.basis == "actual" for each in told):
        told.append(Threshold(100, "actual", "notify"))
    return tuple(sorted(told, key=lambda each: (each.percent, each.basis, each.action)))


def reached(percent: int, used: int, amount: int) -> bool:
    """Whether ``used`` is ``percent`` of ``amount`` or more."""
    return used * 100 >= percent * amount


def recovered(percent: int, expected: int, amount: int) -> bool:
    """Whether a forecast has fallen so far below ``percent`` that its action may end."""
    return expected * 100 < (percent - RECOVERY_POINTS) * amount


def share(used: int, amount: int) -> int:
    """Whole percent of ``amount`` that ``used`` is, rounded down."""
    return used * 100 // amount


def period_of(window: str, start: int, end: int, now: int) -> Period:
    """For how long one alert for each threshold is enough, of a limit whose window now is ``start`` to ``end``.

    A rolling window has no beginning of its own: its period is the stretch of its length, counted from 1970. Shorter
    windows than an hour, and what has none, are told of once an hour.
    """
    rolling = rolling_nanos(window)
    if rolling or not window or window in _SHORT:
        length = max(rolling, HOUR)
        first = now - now % length
        return Period(first, first + length)
    return Period(start, end)


__all__ = [
    "BUDGET_WINDOWS",
    "RECOVERY_POINTS",
    "REFUSING_PERCENT_MIN",
    "Period",
    "Threshold",
    "is_budget",
    "period_of",
    "reached",
    "recovered",
    "share",
    "thresholds_of",
]
