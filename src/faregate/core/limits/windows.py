"""Windows as functions of time: which stretch of the calendar holds a moment, in a limit's own time zone.

A rolling window (``rolling 24h``) is no stretch of the calendar: it always ends now; here is only how long it is.

There is no reset job: a window is computed, never stored. Knows no limit and no clock; time zones come in as objects.
The boundary of a calendar day (week, month …) is *the first moment at which the local clock shows that midnight or
later*. That makes boundaries monotone whatever the zone does, so windows tile time without gap or overlap: a day has
23 or 25 hours where clocks change, and one that the zone skips is never anybody's window.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

#: Windows that are always equally long, but for the days on which clocks change, in nanoseconds.
PERIODS = {"second": SECOND, "minute": MINUTE, "hour": HOUR, "day": 24 * HOUR}

_HOUR_SECONDS = 3600
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_SECOND = timedelta(seconds=1)
_ONE_DAY = timedelta(days=1)


#: A rolling window's name: a count and a unit.
_ROLLING = re.compile(r"rolling ([1-9][0-9]{0,6})(s|m|h|d)")
_ROLLING_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": 24 * HOUR}

#: The longest rolling window.
ROLLING_MAX = 366 * 24 * HOUR

#: The day on which a fiscal year may begin: one that every month has.
_YEAR_START = re.compile(r"(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])")


@lru_cache(maxsize=256)
def rolling_nanos(kind: str) -> int:
    """How long a rolling window such as ``rolling 24h`` is, in nanoseconds; 0 for what is not the name of one."""
    match = _ROLLING.fullmatch(kind)
    length = int(match[1]) * _ROLLING_UNITS[match[2]] if match else 0
    return length if length <= ROLLING_MAX else 0


def is_year_start(text: str) -> bool:
    """Whether a fiscal year may begin on it: ``MM-DD``, at most the 28th."""
    return _YEAR_START.fullmatch(text) is not None


def window_of(kind: str, zone: tzinfo | None, at_nanos: int, year_start: str = "") -> tuple[int, int]:
    """Start and end of the window of ``kind`` that holds ``at_nanos``; all in nanoseconds since 1970 UTC.

    The end is exclusive. ``lifetime`` and the empty kind (concurrency) are ``(0, 0)``: they have no end. Without a
    ``zone`` the calendar is UTC's. Seconds and minutes are those of UTC; an hour is a local one, so that it starts at
    the half hour in India, and is never longer than an hour, whatever the clocks do. Quarters and years begin with the
    fiscal year, on the ``MM-DD`` of ``year_start``. A rolling window is the stretch that ends at ``at_nanos``.

    Raises:
        KeyError: no such kind.
        OverflowError, ValueError: the moment is outside the years 1 to 9998.
    """
    if kind in ("", "lifetime"):
        return 0, 0
    if kind == "second":
        start = at_nanos - at_nanos % SECOND
        return start, start + SECOND
    if kind == "minute":
        start = at_nanos - at_nanos % MINUTE
        return start, start + MINUTE
    rolling = rolling_nanos(kind)
    if rolling:
        return at_nanos - rolling, at_nanos
    zone = zone or UTC
    at = at_nanos // SECOND
    if kind == "hour":
        first, last = _hour(zone, at)
    elif year_start and kind in _FISCAL:
        first, last = _calendar(_fiscal(_FISCAL[kind], year_start), zone, at)
    else:
        first, last = _calendar(_PERIODS[kind], zone, at)
    return first * SECOND, last * SECOND


def _calendar(period: tuple[Callable[[date], date], Callable[[date], date]], zone: tzinfo, at: int) -> tuple[int, int]:
    """The calendar period that holds second ``at``, in seconds."""
    first_day, next_period = period
    start_day = first_day(_local(zone, at).date())
    start = _midnight(zone, start_day)
    # Where clocks fall back over midnight the local date can be behind the period that has begun already.
    while (end := _midnight(zone, end_day := next_period(start_day))) <= at:
        start_day, start = end_day, end
    return start, end


def _hour(zone: tzinfo, at: int) -> tuple[int, int]:
    """The local hour that holds second ``at``; a shift by part of an hour cuts the hour in two."""
    offset = _offset(zone, at)
    start = at - (at + offset) % _HOUR_SECONDS
    end = start + _HOUR_SECONDS
    alignment = offset % _HOUR_SECONDS
    if _offset(zone, start) % _HOUR_SECONDS != alignment:
        start = _first(start, at, lambda t: _offset(zone, t) % _HOUR_SECONDS == alignment)
    if _offset(zone, end - 1) % _HOUR_SECONDS != alignment:
        end = _first(at, end - 1, lambda t: _offset(zone, t) % _HOUR_SECONDS != alignment)
    return start, end


def _midnight(zone: tzinfo, day: date) -> int:
    """The first second at which the local clock shows the start of ``day`` or later."""
    wanted = datetime(day.year, day.month, day.day)
    naive = (wanted.replace(tzinfo=UTC) - _EPOCH) // _ONE_SECOND
    before = _seconds(wanted.replace(tzinfo=zone).utcoffset())
    after = _seconds(wanted.replace(tzinfo=zone, fold=1).utcoffset())
    if before >= after:
        # It exists once, or twice and the earlier one counts.
        return naive - before
    # The clocks jump over it: it begins with the jump, somewhere between the two readings.
    return _first(naive - after, naive - before, lambda t: _local(zone, t).replace(tzinfo=None) >= wanted)


def _first(low: int, high: int, true_from: Callable[[int], bool]) -> int:
    """The first second in ``low`` … ``high`` for which ``true_from`` holds, given that it holds from there on."""
    while low < high:
        middle = (low + high) // 2
        if true_from(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _local(zone: tzinfo, at: int) -> datetime:
    """The local time of second ``at``."""
    return (_EPOCH + timedelta(seconds=at)).astimezone(zone)


def _offset(zone: tzinfo, at: int) -> int:
    """Seconds that local time is ahead of UTC at second ``at``."""
    return _seconds(_local(zone, at).utcoffset())


def _seconds(offset: timedelta | None) -> int:
    """Whole seconds of an offset, without a detour over float."""
    return 0 if offset is None else offset // _ONE_SECOND


def _next_month(day: date, months: int) -> date:
    """The first day of the month that is ``months`` after that of ``day``."""
    index = day.year * 12 + day.month - 1 + months
    return date(index // 12, index % 12 + 1, 1)


#: Periods that follow the fiscal year → how many months they have.
_FISCAL = {"quarter": 3, "year": 12}


def _fiscal(months: int, year_start: str) -> tuple[Callable[[date], date], Callable[[date], date]]:
    """Periods of so many months, of which one begins on the ``MM-DD`` of ``year_start``."""
    month, first = int(year_start[:2]), int(year_start[3:])

    def first_day(day: date) -> date:
        # Months since a period began in year 0, the ones before its first day belonging to the period before.
        index = day.year * 12 + day.month - month - (day.day < first)
        index += month - 1 - index % months
        return date(index // 12, index % 12 + 1, first)

    def next_period(day: date) -> date:
        return _next_month(day, months).replace(day=first)

    return first_day, next_period


#: Period → (its first day, given any day of it; the first day of the next one, given its first day).
_PERIODS: dict[str, tuple[Callable[[date], date], Callable[[date], date]]] = {
    "day": (lambda day: day, lambda day: day + _ONE_DAY),
    "week": (lambda day: day - timedelta(days=day.weekday()), lambda day: day + 7 * _ONE_DAY),
    "month": (lambda day: day.replace(day=1), lambda day: _next_month(day, 1)),
    "quarter": (lambda day: date(day.year, day.month - (day.month - 1) % 3, 1), lambda day: _next_month(day, 3)),
    "year": (lambda day: date(day.year, 1, 1), lambda day: date(day.year + 1, 1, 1)),
}
