"""The anomaly brake against synthetic months: honest traffic never trips it, planted runaways do, within seconds.

Honest months are replayed minute by minute after five weeks of the same traffic, so that the brake knows them. What it
knows is then brought up to date every six hours only, which is stricter than in use, where it is an hour old at most.
Runaways are replayed call by call. Everything random comes from a seed that is printed with a failure.
"""

import random
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faregate.core.limits.brake import CALLS_MIN, YOUNG_TIMES, Brake, Window
from faregate.core.limits.habits import (
    DAY,
    HISTORY,
    JUDGED,
    QUARTER,
    Braked,
    BrakeRules,
    Habit,
    Trip,
    braked_again,
    habit_of,
    reason_of,
)
from faregate.core.limits.windows import HOUR, MINUTE, SECOND
from soaking import examples

DOLLAR: Final = 10**9
CENT: Final = DOLLAR // 100
FLOOR: Final = 10 * DOLLAR
RULES: Final = BrakeRules(FLOOR)
#: A Monday, 2026-06-01T00:00:00Z.
MONDAY: Final = 1_780_272_000 * SECOND
ASKED_EVERY: Final = 6 * HOUR

#: Nano-dollars of the minute that begins so many minutes after the first Monday.
Traffic = Callable[[int], int]


class Key:
    """One key, with the books and the console played by the test."""

    def __init__(self, rules: BrakeRules = RULES) -> None:
        self.brake = Brake(rules)
        self.slots: dict[int, int] = {}
        self.braked: list[Braked] = []
        self.spent = 0
        self._told_at = 0

    def book(self, now: int, charge: int) -> None:
        """It was charged, with no brake looking on."""
        start = now - now % QUARTER
        self.slots[start] = self.slots.get(start, 0) + charge

    def call(self, now: int, charge: int, body: bytes = b"") -> Trip | None:
        """A call that ends now."""
        self.book(now, charge)
        self.spent += charge
        trip = self.brake.spent("key_1", charge, now, body)
        if trip is not None:
            self.braked.append(braked_again(self.braked, now, RULES.duration))
        if self.brake.wanted(1) and (not self._told_at or now - self._told_at >= ASKED_EVERY):
            self.tell(now)
        return trip

    def tell(self, now: int) -> None:
        """What the console finds out about it."""
        self._told_at = now
        until = self.braked[-1].until if self.braked else 0
        self.brake.told(habit_of("key_1", self.slots.items(), self.braked, now, until), now)

    def until_braked(self, now: int, charge: int, per_minute: int, *, loop: bool = False) -> tuple[Trip, int]:
        """Calls of ``charge`` at an even pace until it is braked, within a day; the trip, and what they cost."""
        before = self.spent
        for n in range(24 * 60 * per_minute):
            body = b"the same again" if loop else b"call %d" % n
            trip = self.call(now + n * MINUTE // per_minute, charge, body)
            if trip is not None:
                spent = self.spent - before
                print(f"{trip.cause} after {spent / DOLLAR:.2f} dollars and {(trip.at - now) // SECOND} seconds")
                return trip, spent
        raise AssertionError("it was never braked")


def lived(traffic: Traffic, *, days: int = 35) -> Key:
    """A key with a past: ``traffic`` up to the first Monday."""
    key = Key()
    for quarter in range(-days * 96, 0):
        charge = sum(traffic(minute) for minute in range(quarter * 15, quarter * 15 + 15))
        key.book(MONDAY + quarter * QUARTER, charge)
    return key


def replayed(key: Key, traffic: Traffic, *, days: int = 31) -> list[Trip]:
    """Every trip of a month."""
    found = []
    for minute in range(days * 1_440):
        charge = traffic(minute)
        trip = key.call(MONDAY + minute * MINUTE, charge) if charge else None
        if trip is not None:
            found.append(trip)
    return found


# -- honest months -----------------------------------------------------------------------------------------------------


def steady(hourly: int) -> Traffic:
    return lambda minute: hourly // 60


def noisy(hourly: int) -> Traffic:
    """Calls at random, of very different sizes: the dearest hundredth costs twenty times the usual."""
    dice = random.Random(hourly)
    sizes = [
        int(hourly / 60 * dice.expovariate(1) * (20 if dice.random() < 0.01 else 1)) for _ in range((31 + 35) * 1_440)
    ]
    return lambda minute: sizes[minute]


def growing(hourly: int) -> Traffic:
    """To threefold within the month, an even step each minute."""
    return lambda minute: hourly // 60 * (44_640 + 2 * max(minute, 0)) // 44_640


def weekly(hourly: int) -> Traffic:
    """Nothing much at weekends and at night, and Mondays are the busiest day."""

    def traffic(minute: int) -> int:
        day, hour = minute // 1_440 % 7, minute // 60 % 24
        busy = 8 <= hour < 18
        if day >= 5 or not busy:
            return hourly // 60 // 50
        return hourly // 60 * (3 if day == 0 else 1)

    return traffic


def nightly(hourly: int) -> Traffic:
    """One hour at fifty times the day's level, every night."""
    return lambda minute: hourly // 60 * (50 if minute // 60 % 24 == 3 else 1)


def hourly_bursts(hourly: int) -> Traffic:
    """Each hour's work is done in its first two minutes."""
    return lambda minute: hourly // 2 if minute % 60 < 2 else 0


def monthly(hourly: int) -> Traffic:
    """The month's accounts are made in one day of thirty-one, at a hundred times the usual."""
    return lambda minute: hourly // 60 * (100 if minute // 1_440 % 31 == 30 else 1)


HONEST: Final = (steady, noisy, growing, weekly, nightly, hourly_bursts, monthly)


@pytest.mark.parametrize("shape", HONEST)
def test_an_honest_month_is_never_braked(shape: Callable[[int], Traffic]) -> None:
    """Whatever its shape, at a level at which the floor excuses nothing."""
    traffic = shape(5_000 * DOLLAR)

    assert replayed(lived(traffic), traffic) == []


@pytest.mark.parametrize("start", [CENT, 20 * CENT])
def test_a_key_that_begins_its_life_is_not_braked_for_growing(start: int) -> None:
    """From the first call to 60 dollars an hour in a month, a third more each day at first, working hours only."""
    by_day = [min(start * 4**day // 3**day, 60 * DOLLAR) for day in range(31)]

    def traffic(minute: int) -> int:
        return by_day[minute // 1_440] // 60 if 8 <= minute // 60 % 24 < 20 else 0

    assert replayed(Key(), traffic) == []


def test_a_whole_day_of_load_that_a_new_key_may_make_is_not_braked() -> None:
    """Below the floor nothing is looked at, however odd it is."""
    traffic = steady(50 * DOLLAR)

    assert replayed(Key(), traffic, days=1) == []


@pytest.mark.parametrize("seed", range(5))
def test_health_checks_and_equal_embeddings_are_no_loop(seed: int) -> None:
    """They are all the same, and cost next to nothing: ten thousand an hour beside ordinary traffic."""
    dice = random.Random(seed)
    key = Key()
    trips = [
        key.call(MONDAY + n * SECOND // 3, dice.choice((20_000, 200_000, 900_000)), b'{"input":"ping"}')
        for n in range(30_000)
    ]

    assert [trip for trip in trips if trip] == []


def test_what_a_key_always_repeats_is_no_loop() -> None:
    """A job that asks the same question twenty times a minute, at two cents, did so last week, too."""
    key = lived(steady(24 * DOLLAR))
    trips = [key.call(MONDAY + n * 3 * SECOND, 2 * CENT, b"the same question") for n in range(24 * 1_200)]

    assert [trip for trip in trips if trip] == []


def test_what_was_repeated_yesterday_is_not_repeated_today() -> None:
    """Ninety equal calls, and twenty more the next day."""
    key = lived(steady(DOLLAR // 10))
    times = [*(n * SECOND for n in range(90)), *(DAY + n * SECOND for n in range(20))]
    trips = [key.call(MONDAY + time, 3 * CENT, b"the same") for time in times]

    assert [trip for trip in trips if trip] == []


def test_a_few_dear_calls_are_no_pattern() -> None:
    """Videos and long reasoning cost dollars each."""
    key = lived(steady(DOLLAR // 10))
    trips = [key.call(MONDAY + n * SECOND, 12 * DOLLAR, b"video %d" % n) for n in range(CALLS_MIN - 1)]

    assert [trip for trip in trips if trip] == []


# -- runaways ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", HONEST)
@pytest.mark.parametrize("hourly", [30 * DOLLAR, 5_000 * DOLLAR])
def test_a_loop_is_braked_within_seconds_of_what_its_key_may_spend(
    shape: Callable[[int], Traffic], hourly: int
) -> None:
    """At a hundred times its busiest time it costs three eighths of factor times that, and one call more."""
    key = lived(shape(hourly))
    busiest = max(key.slots.values())
    charge = 100 * busiest // (15 * 60)

    trip, spent = key.until_braked(MONDAY, charge, 60)

    assert spent <= max(FLOOR, RULES.factor * busiest * 3 // 8) + charge
    assert trip.at - MONDAY <= 27 * SECOND
    assert trip.spent <= spent


@pytest.mark.parametrize("shape", HONEST)
def test_a_loop_on_a_key_that_costs_cents_is_braked_at_the_floor(shape: Callable[[int], Traffic]) -> None:
    """Its own past allows less than that."""
    key = lived(shape(DOLLAR // 50))

    _, spent = key.until_braked(MONDAY, DOLLAR // 10, 60)

    assert spent == FLOOR + DOLLAR // 10


def test_a_loop_at_a_hundred_times_a_steady_level_is_braked_within_half_a_minute() -> None:
    """30 dollars an hour becomes 50 dollars a minute: braked after 22 dollars and 27 seconds."""
    key = lived(steady(30 * DOLLAR))

    trip, spent = key.until_braked(MONDAY, 50 * DOLLAR // 60, 60)

    assert (trip.window_s, spent // DOLLAR, (trip.at - MONDAY) // SECOND) == (60, 23, 27)


def test_a_slow_loop_at_ten_times_a_steady_level_is_braked_within_ten_minutes() -> None:
    """30 dollars an hour becomes 5 dollars a minute: braked after 40 dollars and eight minutes."""
    key = lived(steady(30 * DOLLAR))

    trip, spent = key.until_braked(MONDAY, DOLLAR // 2, 10)

    assert (trip.window_s, spent // DOLLAR, (trip.at - MONDAY) // MINUTE) == (600, 40, 8)


def test_a_loop_that_stays_below_ten_minutes_worth_is_braked_within_the_hour() -> None:
    """A key whose quarters of an hour are uneven and whose hours are not: its hour tells."""
    key = lived(hourly_bursts(6 * DOLLAR))

    trip, spent = key.until_braked(MONDAY, 30 * CENT, 3)

    assert (trip.window_s, spent // DOLLAR, (trip.at - MONDAY) // MINUTE) == (3_600, 48, 53)


def test_a_loop_on_a_new_key_is_braked_at_five_floors() -> None:
    """It has no past; so it may spend more, and no more than that."""
    trip, spent = Key().until_braked(MONDAY, 10 * CENT, 300)

    assert spent == YOUNG_TIMES * FLOOR + 10 * CENT
    assert trip.usual == 0


@pytest.mark.parametrize(
    ("past", "dollars"), [(None, 50), (0, 50), (DOLLAR // 10, 10), (2 * DOLLAR, 10), (20 * DOLLAR, 26)]
)
def test_the_loop_that_cost_47000_dollars_stops_at_the_brake(past: int | None, dollars: int) -> None:
    """Two agents answered each other for eleven days, 178 dollars an hour, on a key that cost little or nothing."""
    key = lived(steady(past)) if past is not None else Key()

    _, spent = key.until_braked(MONDAY, 5 * CENT, 60)

    assert spent // DOLLAR == dollars


def test_a_loop_goes_on_under_its_brakes_for_eleven_days_and_costs_little() -> None:
    """It tries again whenever it is let go: brakes of 15, 30, 60 … minutes; what it does teaches the brake nothing."""
    key = lived(steady(2 * DOLLAR))
    now, end = MONDAY, MONDAY + 11 * DAY
    trips = 0
    while now < end:
        trip = key.call(now, 5 * CENT, b"answer %d" % now)
        now += SECOND
        if trip is not None:
            trips += 1
            now = key.braked[-1].until
            key.tell(now)

    assert trips == 17
    assert key.spent < 175 * DOLLAR


def test_the_same_call_again_and_again_is_braked_at_a_tenth_of_the_floor() -> None:
    """A retry that never ends, at two cents: a hundred repeats and a dollar, long before any velocity tells."""
    key = lived(steady(DOLLAR // 10))

    trip, spent = key.until_braked(MONDAY, 2 * CENT, 60, loop=True)

    assert (trip.cause, trip.repeats) == ("repetition", 100)
    assert DOLLAR <= spent <= 3 * DOLLAR


def test_a_repeated_call_among_others_is_braked_while_it_is_four_fifths_of_them() -> None:
    """One call in six is another one."""
    key = lived(steady(DOLLAR // 10))
    trips = [
        key.call(MONDAY + n * SECOND, 2 * CENT, b"other %d" % n if n % 6 == 5 else b"the same") for n in range(300)
    ]

    assert [trip.cause for trip in trips if trip][:1] == ["repetition"]


def test_calls_that_differ_in_one_word_of_a_long_template_are_no_repetition() -> None:
    """Nor are those that differ where no sample is taken."""
    key = lived(steady(DOLLAR // 10))
    body = b"x" * 2_000 + b"%06d" + b"x" * 6_000
    trips = [key.call(MONDAY + n * SECOND, 2 * CENT, body % n) for n in range(400)]

    assert [trip for trip in trips if trip] == []


@given(
    calls=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4)), min_size=20, max_size=120),
    quarter=st.integers(0, 3),
)
@settings(max_examples=examples(60, 2_000), deadline=None)
def test_a_key_is_never_braked_unless_it_truly_spent_that_much(calls: list[tuple[int, int]], quarter: int) -> None:
    """Whatever came when: the sum of the calls in the window that is told is at least what is told, and too much."""
    brake = Brake(RULES)
    habit = Habit("key_1", quarter * DOLLAR, 2 * quarter * DOLLAR, MONDAY - 30 * DAY)
    brake.told(habit, MONDAY)
    now, seen = MONDAY, list[tuple[int, int]]()
    for seconds, dollars in calls:
        now += seconds * SECOND
        seen.append((now, dollars * DOLLAR))
        trip = brake.spent("key_1", dollars * DOLLAR, now)
        if trip is not None:
            inside = sum(charge for at, charge in seen if at > now - trip.window_s * SECOND)

            assert inside >= trip.spent > trip.allowed >= FLOOR
            return


# -- after a brake -----------------------------------------------------------------------------------------------------


def test_a_braked_key_trips_no_more_for_its_calls_under_way() -> None:
    """A thousand of them may end after it was braked."""
    key = Key()
    trip, _ = key.until_braked(MONDAY, DOLLAR, 60)
    later = [key.call(trip.at + n * SECOND // 100, DOLLAR) for n in range(1_000)]

    assert later == [None] * 1_000
    assert key.brake.in_force(trip.at + 10 * SECOND) == 1
    assert key.brake.in_force(trip.at + RULES.duration) == 0


def test_a_key_that_was_let_go_is_not_braked_for_what_it_spent_before() -> None:
    """Somebody lifted the brake: the spending was meant, and is usual from now on."""
    key = Key()
    trip, spent = key.until_braked(MONDAY, DOLLAR, 6)
    key.braked.clear()
    lifted_at = trip.at + 2 * HOUR
    key.tell(lifted_at)

    again = [key.call(lifted_at + n * 10 * SECOND, DOLLAR) for n in range(60)]

    assert spent == 51 * DOLLAR
    assert [each for each in again if each] == []


def test_each_brake_within_a_day_holds_twice_as_long_and_none_longer_than_a_day() -> None:
    """A quarter of an hour, half an hour, an hour …, and after a quiet day a quarter again."""
    found: list[Braked] = []
    at = MONDAY
    for _ in range(9):
        found.append(braked_again(found, at, QUARTER))
        at = found[-1].until + HOUR
    found.append(braked_again(found, found[-1].until + DAY, QUARTER))

    assert [(each.until - each.at) // MINUTE for each in found] == [15, 30, 60, 120, 240, 480, 960, 1_440, 1_440, 15]


# -- habits ------------------------------------------------------------------------------------------------------------

_SLOTS = st.dictionaries(st.integers(0, 200), st.integers(0, 5), max_size=60)


@given(slots=_SLOTS, now=st.integers(0, 220))
@settings(max_examples=examples(60, 2_000), deadline=None)
def test_a_habit_is_the_most_of_any_quarter_and_of_any_four_in_a_row(slots: dict[int, int], now: int) -> None:
    """Without what is newer than an hour."""
    at = MONDAY + now * QUARTER
    seen = {n: charge for n, charge in slots.items() if n + 5 <= now and charge}
    habit = habit_of("key_1", [(MONDAY + n * QUARTER, charge) for n, charge in slots.items()], (), at)

    assert habit.quarter_max == max(seen.values(), default=0)
    assert habit.hour_max == max((sum(seen.get(n + i, 0) for i in range(4)) for n in range(-3, 201)), default=0)
    assert habit.since == (MONDAY + min(seen) * QUARTER if seen else 0)


def test_what_led_to_a_brake_and_was_spent_under_it_is_no_habit() -> None:
    """The hour before it, and all its time."""
    slots = [(MONDAY + n * QUARTER, n + 1) for n in range(12)]
    habit = habit_of("key_1", slots, [Braked(MONDAY + 2 * HOUR, MONDAY + 2 * HOUR + QUARTER)], MONDAY + 5 * HOUR)

    assert habit.quarter_max == 12
    assert habit.hour_max == 10 + 11 + 12


def test_what_is_older_than_five_weeks_is_forgotten() -> None:
    """So that a habit that was given up does not excuse a loop."""
    slots = [(MONDAY, 100), (MONDAY + DAY, 7)]

    assert habit_of("key_1", slots, (), MONDAY + HISTORY + HOUR + JUDGED).quarter_max == 7


def test_a_past_is_asked_for_only_of_keys_that_spend_something() -> None:
    """Hundred thousand quiet keys are a hundred thousand numbers and no question."""
    brake = Brake(RULES)
    for n in range(1_000):
        brake.spent(f"key_{n}", 40 * CENT, MONDAY)
    brake.spent("key_7", 40 * CENT, MONDAY)

    assert brake.wanted(10) == ("key_7",)
    assert list(brake.watches) == ["key_7"]

    brake.told(Habit("key_7"), MONDAY)

    assert brake.wanted(10) == ()


def test_a_key_whose_past_is_being_looked_up_is_not_braked_for_ten_seconds() -> None:
    """After a start of the gate nobody's past is known, and what looks like a loop may be what the key always does."""
    brake = Brake(RULES)
    trips = [brake.spent("key_1", DOLLAR, MONDAY + n * SECOND // 10) for n in range(150)]

    assert [n for n, trip in enumerate(trips) if trip] == [100]
    assert trips[100] is not None
    assert trips[100].usual == -1


def test_a_burst_that_ends_before_its_past_is_known_is_braked_when_it_is() -> None:
    """It may never call again, and people want to know of it; one that has such a past goes on."""
    brake = Brake(RULES)
    assert not any(brake.spent("key_1", 3 * DOLLAR, MONDAY + n) for n in range(200))

    trip = brake.told(Habit("key_1"), MONDAY + SECOND)

    assert trip is not None
    assert (trip.cause, trip.spent) == ("velocity", 600 * DOLLAR)
    assert brake.told(Habit("key_1", braked_until=MONDAY + HOUR), MONDAY + 2 * SECOND) is None
    assert brake.in_force(MONDAY + 2 * SECOND) == 1

    rich = Brake(RULES)
    for n in range(200):
        rich.spent("key_2", 3 * DOLLAR, MONDAY + n)
    assert rich.told(Habit("key_2", 600 * DOLLAR, 600 * DOLLAR, MONDAY - 30 * DAY), MONDAY + SECOND) is None


def test_what_was_spent_long_before_the_past_was_known_is_no_burst() -> None:
    """The windows go on while nobody calls."""
    brake = Brake(RULES)
    for n in range(200):
        brake.spent("key_1", 3 * DOLLAR, MONDAY + n)

    assert brake.told(Habit("key_1"), MONDAY + 2 * HOUR) is None


@pytest.mark.parametrize("minutes", [21, 40, 55])
def test_what_was_repeated_long_before_the_past_was_known_is_no_loop(minutes: int) -> None:
    """The console may have been away: what is told then is true of the last ten minutes, or of nobody."""
    brake = Brake(RULES)
    for n in range(400):
        brake.spent("key_1", 10 * CENT, MONDAY + n * SECOND // 50, b"the same")

    assert brake.told(Habit("key_1"), MONDAY + minutes * MINUTE) is None


def test_keys_that_stop_spending_are_watched_no_more() -> None:
    """What is kept of them would grow for ever."""
    brake = Brake(RULES)
    brake.spent("key_1", DOLLAR, MONDAY)
    brake.spent("key_2", CENT, MONDAY + 3 * HOUR)

    assert list(brake.watches) == []


# -- windows -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=60))
@settings(max_examples=examples(60, 2_000), deadline=None)
def test_a_window_never_counts_further_back_than_it_says_and_nearly_as_far(steps: list[tuple[int, int]]) -> None:
    """What is counted lies between the sum of the last whole buckets and that of the window."""
    window = Window(10, 6, 1_000)
    now = 1_000
    seen: list[tuple[int, int]] = []
    for step, amount in steps:
        now += step
        window.add(now, amount)
        seen.append((now, amount))

        assert window.total <= sum(each for at, each in seen if at > now - 60)
        assert window.total >= sum(each for at, each in seen if at > now - 50)


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trip", "words"),
    [
        (
            Trip("key_1", 0, "velocity", 600, 12_345_678_901, 10 * DOLLAR, 400 * 10**6),
            "it spent $12.35 in 10 minutes, more than $10.00; it never spent more than $0.40 in a quarter of an hour "
            "before",
        ),
        (
            Trip("key_1", 0, "velocity", 3_600, 31 * DOLLAR, 30 * DOLLAR, 2 * DOLLAR),
            "it spent $31.00 in an hour, more than $30.00; it never spent more than $2.00 in an hour before",
        ),
        (
            Trip("key_1", 0, "repetition", 600, 2 * DOLLAR, DOLLAR, 0, 100),
            "100 calls that are all the same cost $2.00 in 10 minutes, more than $1.00; it has no past to compare with",
        ),
        (
            Trip("key_1", 0, "velocity", 60, 51 * DOLLAR, 50 * DOLLAR, -1),
            "it spent $51.00 in a minute, more than $50.00; its past is not known yet",
        ),
    ],
)
def test_a_brake_says_why(trip: Trip, words: str) -> None:
    """What was spent, what is allowed, and what was usual."""
    assert reason_of(trip) == words
