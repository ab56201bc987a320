"""The anomaly brake: notices a key that suddenly spends far more than it ever did, or the same call again and again.

Owns what each key spent in the last minute, ten minutes and hour, in the gate's memory. Knows no limits and refuses
nobody: it says that a key *tripped*, once, and why. Each settled call passes ``spent``, so that costs little: a key
that spends next to nothing is one number in a dictionary, and only the others are *watched*.

Two rules, both against the key's own past (``habits``), and both only above a floor in dollars:

* **velocity**: it spent more in a window than ``factor`` times its own most allows. The most is known by quarters of an
  hour; within one, spending may come at once, so shorter windows allow more than their share of it.
* **repetition**: nearly all its calls of ten minutes were one and the same, at a price that adds up.

A window counts back at most as far as it says, never further, so that a brake is never earlier than its rule. What is
in memory is lost with the process: a loop that goes on is noticed anew.
"""

from typing import Final

from faregate.core.limits.habits import DAY, BrakeRules, Habit, Trip
from faregate.core.limits.windows import HOUR, MINUTE, SECOND

#: Whoever spends less than this in an hour is not looked at; nano-dollars.
WATCHED_FROM: Final = 500_000_000

#: In its first week a key has no past to be measured by, and may spend so many times the floor, also in an hour.
YOUNG: Final = 7 * DAY
YOUNG_TIMES: Final = 5

#: An hour may cost this many times the floor of ten minutes.
HOUR_TIMES: Final = 3

#: A few dear calls are not a pattern: fewer in an hour never trip.
CALLS_MIN: Final = 10

#: Repeated calls are looked at above a tenth of the floor, and from a tenth of a cent each: health checks and
#: embeddings of equal texts are cheaper.
REPEATED_SHARE: Final = 10
REPEATED_COST_MIN: Final = 1_000_000

#: So long a key whose past was asked for is not braked without it: after a start of the gate nobody's is known yet.
PATIENCE: Final = 10 * SECOND

#: What is known of a key's past is asked for again after this long.
HABIT_AGE_MAX: Final = HOUR

# As literals, which compiled code has at hand.
_HOUR: Final = 3_600_000_000_000
_TEN_MINUTES: Final = 600_000_000_000
_FADES_BY: Final = 300_000_000_000

#: Last bytes of a body by which calls are compared, and bytes of it that are compared where they are alike.
_TAIL: Final = 64
_COMPARED_MAX: Final = 64 * 1024


class Window:
    """What came in during the last ``count`` buckets of ``nanos`` each, the one that runs included."""

    __slots__ = ("_at", "_buckets", "_count", "_nanos", "_until", "total")

    def __init__(self, nanos: int, count: int, now: int) -> None:
        self._nanos = nanos
        self._count = count
        self._buckets = [0] * count
        #: The bucket that runs, and when it ends: most calls look no further.
        self._at = 0
        self._until = now - now % nanos + nanos
        self.total = 0

    def add(self, now: int, amount: int) -> bool:
        """Count ``amount``; whether a new bucket began with it. A clock that goes back stands still."""
        begun = now >= self._until
        if begun:
            self._move(now)
        self._buckets[self._at] += amount
        self.total += amount
        return begun

    def _move(self, now: int) -> None:
        """Empty as many buckets as have ended since the one that ran, and begin that of ``now``."""
        ended = (now - self._until) // self._nanos + 1
        for _ in range(min(ended, self._count)):
            self._at = (self._at + 1) % self._count
            self.total -= self._buckets[self._at]
            self._buckets[self._at] = 0
        self._until += ended * self._nanos

    def clear(self) -> None:
        """Forget everything."""
        self._buckets = [0] * self._count
        self.total = 0


class Watch:
    """One key that spends enough to be looked at."""

    __slots__ = (
        "began_at",
        "calls",
        "habit",
        "habit_at",
        "hour",
        "hour_max",
        "length",
        "minute",
        "minute_max",
        "others",
        "repeated",
        "repeated_max",
        "repeats",
        "repeats_since",
        "same",
        "seen_at",
        "tail",
        "ten",
        "ten_max",
    )

    def __init__(self, rules: BrakeRules, now: int) -> None:
        self.minute = Window(10 * SECOND, 6, now)
        self.ten = Window(MINUTE, 10, now)
        self.hour = Window(5 * MINUTE, 12, now)
        self.calls = Window(5 * MINUTE, 12, now)
        self.seen_at = self.began_at = now
        self.habit: Habit | None = None
        self.habit_at = 0
        self.allow(rules, now)
        self.forget_repeats()

    def allow(self, rules: BrakeRules, now: int) -> None:
        """Work out what the key may spend, from what is known of its past."""
        habit = self.habit
        quarter = habit.quarter_max if habit is not None else 0
        hour = habit.hour_max if habit is not None else 0
        young = habit is None or not habit.since or now - habit.since < YOUNG
        floor = rules.floor * YOUNG_TIMES if young else rules.floor
        self.minute_max = max(floor, rules.factor * quarter * 3 // 8)
        self.ten_max = max(floor, rules.factor * quarter * 2 // 3)
        self.hour_max = max(floor, rules.floor * HOUR_TIMES, rules.factor * hour)
        self.repeated_max = max(floor // REPEATED_SHARE, 2 * quarter)

    def forget(self) -> None:
        """Begin anew: what was spent so far is not held against the key again."""
        for window in (self.minute, self.ten, self.hour, self.calls):
            window.clear()
        self.forget_repeats()

    def forget_repeats(self) -> None:
        """Compare with no call before."""
        #: Of the call that is repeated: its body's length, its end, and once that is looked at, a hash of all of it.
        self.length = -1
        self.tail = b""
        self.same = 0
        self.repeats = 0
        self.others = 0
        self.repeated = 0
        self.repeats_since = 0

    def fade(self, now: int) -> None:
        """Forget of what was repeated as much as is too old."""
        age = now - self.repeats_since
        if age >= 2 * _TEN_MINUTES:
            self.forget_repeats()
        elif age >= _TEN_MINUTES:
            self.repeats //= 2
            self.others //= 2
            self.repeated //= 2
            self.repeats_since += _FADES_BY

    def repeat(self, now: int, amount: int, body: bytes, most: int) -> None:
        """Compare a call with the one that is repeated most; at least four fifths of all are its like, or it changes.

        Its length and its end tell nearly all calls apart and cost next to nothing. Where they agree although a word
        in the midst of a long template differs, the second half of ``most`` calls shows it: those are compared whole.
        What is counted fades by half when it is ten minutes old.
        """
        self.fade(now)
        equal = len(body) == self.length and body.endswith(self.tail)
        if equal and 2 * self.repeats >= most:
            # Python's hash of bytes is salted anew in each process: nobody can prepare bodies that have the same.
            same = hash(body[:_COMPARED_MAX])
            equal = not self.same or same == self.same
            self.same = same
        if equal:
            self.repeats += 1
            self.repeated += amount
            return
        self.others += 1
        if 4 * self.others > self.repeats:
            self.forget_repeats()
            if body:
                self.length, self.tail = len(body), body[-_TAIL:]
                self.repeats, self.repeated, self.repeats_since = 1, amount, now


class Brake:
    """All keys of a gate. Not for several threads."""

    __slots__ = ("_hour_ends", "_quiet", "_repeats", "_rules", "_stopped", "_wanted", "_watched_from", "watches")

    def __init__(self, rules: BrakeRules) -> None:
        self._rules = rules
        self._repeats = rules.repeats
        self._watched_from = min(WATCHED_FROM, rules.floor // 20)
        #: Key → what it spent in the hour that runs, of those that are not watched.
        self._quiet: dict[str, int] = {}
        self._hour_ends = 0
        #: They are few: each spends at least ``WATCHED_FROM`` an hour.
        self.watches: dict[str, Watch] = {}
        #: Key → when its brake ends.
        self._stopped: dict[str, int] = {}
        #: Keys whose past should be looked up, in the order in which that was noticed.
        self._wanted: dict[str, None] = {}

    def spent(self, key: str, amount: int, now: int, body: bytes = b"") -> Trip | None:
        """Count a settled call of ``key`` and what it cost; a ``Trip`` where it is to be braked from now on.

        A key that is braked already trips no more, whatever its calls under way still cost.
        """
        watch = self.watches.get(key)
        if watch is None:
            quiet = self._quiet.get(key, 0) + amount
            if quiet <= self._watched_from:
                if now >= self._hour_ends:
                    self._begin_hour(now)
                self._quiet[key] = quiet
                return None
            watch = self._watch(key, now)
            amount = quiet
        if self._stopped and self._is_stopped(key, now):
            return None
        watch.seen_at = now
        watch.minute.add(now, amount)
        watch.ten.add(now, amount)
        watch.calls.add(now, 1)
        if watch.hour.add(now, amount):
            if now >= self._hour_ends:
                self._begin_hour(now)
            if now - watch.habit_at >= HABIT_AGE_MAX:
                self._wanted[key] = None
        watch.repeat(now, amount, body, self._repeats)
        return self._judged(key, watch, now)

    def _judged(self, key: str, watch: Watch, now: int) -> Trip | None:
        """Whether what a key has spent is more than it may."""
        if watch.repeats >= self._repeats and watch.repeated > watch.repeated_max:
            dear = watch.repeated >= REPEATED_COST_MIN * watch.repeats
            if dear:
                return self._trip(key, watch, now, "repetition", 600, watch.repeated, watch.repeated_max)
        if watch.minute.total > watch.minute_max:
            return self._too_fast(key, watch, now, 60, watch.minute, watch.minute_max)
        if watch.ten.total > watch.ten_max:
            return self._too_fast(key, watch, now, 600, watch.ten, watch.ten_max)
        if watch.hour.total > watch.hour_max:
            return self._too_fast(key, watch, now, 3_600, watch.hour, watch.hour_max)
        return None

    def _too_fast(self, key: str, watch: Watch, now: int, window_s: int, window: Window, most: int) -> Trip | None:
        """A trip for velocity, unless it is only a few dear calls."""
        if watch.calls.total < CALLS_MIN:
            return None
        return self._trip(key, watch, now, "velocity", window_s, window.total, most)

    def _trip(self, key: str, watch: Watch, now: int, cause: str, window_s: int, spent: int, most: int) -> Trip | None:
        """Brake ``key``, and count anew once it is let go again; not while its past is still being looked up."""
        habit = watch.habit
        if habit is None and now - watch.began_at < PATIENCE:
            return None
        usual = -1
        if habit is not None:
            usual = habit.hour_max if window_s == 3_600 else habit.quarter_max
        repeats = watch.repeats if cause == "repetition" else 0
        watch.forget()
        self._stopped[key] = now + self._rules.duration
        return Trip(key, now, cause, window_s, spent, most, usual, repeats)

    def _watch(self, key: str, now: int) -> Watch:
        self._quiet.pop(key, None)
        watch = self.watches[key] = Watch(self._rules, now)
        self._wanted[key] = None
        return watch

    def _begin_hour(self, now: int) -> None:
        """Forget what was spent in the hour before, and watch no more who spent nothing in it."""
        self._hour_ends = now - now % _HOUR + _HOUR
        self._quiet.clear()
        idle = [key for key, watch in self.watches.items() if now - watch.seen_at > HOUR and key not in self._stopped]
        for key in idle:
            del self.watches[key]
            self._wanted.pop(key, None)

    # -- brakes in force -----------------------------------------------------------------------------------------------

    def _is_stopped(self, key: str, now: int) -> bool:
        until = self._stopped.get(key, 0)
        if until and now >= until:
            del self._stopped[key]
        return now < until

    def in_force(self, now: int) -> int:
        """How many keys are braked now."""
        for key in [key for key, until in self._stopped.items() if now >= until]:
            del self._stopped[key]
        return len(self._stopped)

    # -- what the books know -------------------------------------------------------------------------------------------

    def wanted(self, most: int) -> tuple[str, ...]:
        """Up to ``most`` keys whose past should be looked up and ``told``."""
        return tuple(key for key, _ in zip(self._wanted, range(most), strict=False))

    def told(self, habit: Habit, now: int) -> Trip | None:
        """Go by what the past of a key says, and by the brake on it that is in force, or is not any more.

        What it spent while its past was looked up is judged now, for it may never call again.
        """
        self._wanted.pop(habit.key, None)
        if habit.braked_until > now:
            self._stopped[habit.key] = habit.braked_until
        else:
            self._stopped.pop(habit.key, None)
        watch = self.watches.get(habit.key) or Watch(self._rules, now)
        watch.habit, watch.habit_at = habit, now
        watch.allow(self._rules, now)
        self.watches[habit.key] = watch
        if habit.key in self._stopped:
            return None
        for window in (watch.minute, watch.ten, watch.hour, watch.calls):
            window.add(now, 0)
        watch.fade(now)
        return self._judged(habit.key, watch, now)
