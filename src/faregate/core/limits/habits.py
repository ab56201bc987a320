"""What a key's own past says about its spending, and what the anomaly brake says and does when that is left behind.

Owns the rules of the brake as values, the summary of a key's roll-ups (a ``Habit``), how long a brake holds, and its
reason in words. Counts nothing: that is ``brake``, in the gate. Amounts are nano-dollars, times nanoseconds since 1970
UTC. Field order is the format of the control socket: add fields at the end, with a default.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from faregate.core.limits.windows import HOUR
from faregate.core.moments import rfc3339
from faregate.core.money import about
from faregate.core.slots import SLOT_NANOS

QUARTER: Final = SLOT_NANOS
DAY: Final = 24 * HOUR

#: So much of the past is looked at: what comes once a month is in it, whatever the month's length.
HISTORY: Final = 35 * DAY

#: The newest part of the past is left out: it is what is being judged.
JUDGED: Final = HOUR

#: A brake that follows an earlier one this soon holds twice as long, up to ``BRAKED_MAX``.
AGAIN: Final = DAY
BRAKED_MAX: Final = DAY

#: Trips of a key that are remembered.
TRIPS_MAX: Final = 64

_WINDOWS: Final = {60: "a minute", 600: "10 minutes", 3_600: "an hour"}


class BrakeRules(NamedTuple):
    """The brake as it is configured."""

    #: Spending of at most this in ten minutes is never braked; nano-dollars.
    floor: int
    #: So many times what is usual for the key is too much.
    factor: int = 8
    #: So many equal calls in ten minutes are a loop, if they cost something.
    repeats: int = 100
    #: How long a first brake holds; nanoseconds.
    duration: int = QUARTER
    #: Calls a minute that pass meanwhile.
    requests_per_minute: int = 1


class Habit(NamedTuple):
    """What one key spent in the past, in nano-dollars: cost or charge, whichever was more; zeros for nothing."""

    key: str
    #: Most in one quarter of an hour of the clock, and in four that follow each other.
    quarter_max: int = 0
    hour_max: int = 0
    #: Start of the first quarter of an hour in which it spent something.
    since: int = 0
    #: When the brake ends that is in force now; 0 without one.
    braked_until: int = 0


class Trip(NamedTuple):
    """A brake's reason: what a key spent in which time, and what would have been usual."""

    key: str
    at: int
    #: ``velocity`` or ``repetition``.
    cause: str
    window_s: int
    spent: int
    #: It was braked because it spent more than this.
    allowed: int
    #: Its own most in a quarter of an hour (in an hour, where the window is one); -1 where its past was not known.
    usual: int
    #: Of a repetition, how many calls were equal.
    repeats: int = 0


class Braked(NamedTuple):
    """One brake of a key that was in force, or is."""

    at: int
    until: int


def habit_of(
    key: str, slots: Iterable[tuple[int, int]], braked: Sequence[Braked], now: int, braked_until: int = 0
) -> Habit:
    """The habit of ``key`` from ``(start, spent)`` of its quarters of an hour, in any order, up to ``now``.

    What led to a brake and was spent under it is left out, or a loop would teach the brake that loops are usual.
    """
    earliest, latest = now - HISTORY, now - JUDGED - QUARTER
    counted = [
        (start, spent)
        for start, spent in sorted(slots)
        if spent > 0
        and earliest <= start <= latest
        and not any(each.at - HOUR < start + QUARTER and start < each.until for each in braked)
    ]
    hour_max = in_hour = first = 0
    for start, spent in counted:
        in_hour += spent
        while counted[first][0] <= start - HOUR:
            in_hour -= counted[first][1]
            first += 1
        hour_max = max(hour_max, in_hour)
    quarter_max = max((spent for _, spent in counted), default=0)
    since = counted[0][0] if counted else 0
    return Habit(key, quarter_max, hour_max, since, braked_until)


def history_from(now: int) -> tuple[int, int]:
    """Since and until when roll-ups are wanted for a habit, both at edges of quarters of an hour."""
    until = now - JUDGED
    until -= until % QUARTER
    return until - HISTORY, until


def braked_again(before: Sequence[Braked], at: int, duration: int) -> Braked:
    """The brake of a key that trips ``at`` a moment; ``before`` are its earlier ones, oldest first."""
    if before and at < before[-1].until + AGAIN:
        duration = max(duration, min(2 * (before[-1].until - before[-1].at), BRAKED_MAX))
    return Braked(at, at + duration)


def reason_of(trip: Trip) -> str:
    """Why a key was braked, as a sentence that may be shown to its callers."""
    window = _WINDOWS.get(trip.window_s, f"{trip.window_s} s")
    spent = about(trip.spent)
    if trip.cause == "repetition":
        done = f"{trip.repeats} calls that are all the same cost ${spent} in {window}"
    else:
        done = f"it spent ${spent} in {window}"
    if trip.usual < 0:
        past = "its past is not known yet"
    elif not trip.usual:
        past = "it has no past to compare with"
    else:
        usual_in = "an hour" if trip.window_s == 3_600 else "a quarter of an hour"
        past = f"it never spent more than ${about(trip.usual)} in {usual_in} before"
    return f"{done}, more than ${about(trip.allowed)}; {past}"


def braked_because(trip: Trip) -> str:
    """Why a key was braked, and who can let it go, as its callers are told."""
    return f"Braked at {rfc3339(trip.at)}: {reason_of(trip)}. An administrator can lift the brake."
