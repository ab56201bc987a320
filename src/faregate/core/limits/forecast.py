"""What a limit will have spent when its window ends, if it goes on like this, and when nothing will be left.

Pure arithmetic on whole numbers: amounts in the unit of the limit (nano-dollars for ``usd``), moments in nanoseconds.
It says what was asked of it and nothing about what follows; that is in ``thresholds``.

The rule, with *u* the part of the window that is over. Going on linearly, the rest of the window will spend
``posted × (1 − u) / u``. The same stretch of the window before spent ``later_before``. The rest is expected to be the
first of them by weight *u* and the second by weight *1 − u*, which adds up to

    expected = posted + (1 − u) × (posted + later_before)

so that early in a window history counts, and late in it the window's own pace. Without history the rest is linear, and
nothing is said before a twentieth of the window is over.
"""

from typing import NamedTuple

from faregate.core.money import half_even

#: Without history, a forecast needs so much of its window: one part in twenty.
NEEDED_PART = 20


class Forecast(NamedTuple):
    """What is expected of a window, in the unit of its limit."""

    #: Spent when the window ends, never less than what is spent now.
    expected: int
    #: When nothing is left of the amount, at an even pace from now on; 0 where that is not before the window's end.
    runs_out_at: int


def forecast(
    *, posted: int, amount: int, start: int, end: int, now: int, later_before: int | None = None
) -> Forecast | None:
    """What is to be expected of the window from ``start`` to ``end``; ``None`` where nothing can be said yet.

    ``later_before`` is what the window before this one spent after the same part of it was over, ``None`` where that
    window knows no spending at all.
    """
    length, over = end - start, now - start
    if length <= 0 or not 0 < over < length:
        return None
    rest = length - over
    if later_before is not None:
        to_come = half_even(rest * (posted + later_before), length)
    elif over * NEEDED_PART >= length:
        to_come = half_even(posted * rest, over)
    else:
        return None
    return Forecast(posted + to_come, _runs_out(amount - posted, to_come, rest, now))


def runs_out_at(*, left: int, spent: int, over: int, now: int) -> int:
    """When ``left`` is used up at the pace at which ``spent`` went in the last ``over`` nanoseconds; 0 for never."""
    if left <= 0:
        return now
    return now + left * over // spent if spent > 0 else 0


def _runs_out(left: int, to_come: int, rest: int, now: int) -> int:
    if left <= 0:
        return now
    return now + left * rest // to_come if to_come > left else 0
