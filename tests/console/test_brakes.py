"""Keys that tripped the anomaly brake become limits in real books; the gate is played by the test."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from console_parts import DAY, HOUR, NOON, SECOND, WHO, Api, Parts, opened, parts, run, settled_call
from faregate.console.brakes import KeyBrakes
from faregate.console.compile import limit_of
from faregate.console.keys import NewKey, create
from faregate.control import Brakes, Habits
from faregate.core.ledger.events import Event
from faregate.core.limits.habits import HISTORY, BrakeRules, Habit, Trip
from faregate.errors import Unavailable
from faregate.ports import Row

DOLLAR = 10**9
QUARTER = HOUR // 4
RULES = BrakeRules(10 * DOLLAR)


class Gate:
    """What the job asks and tells."""

    def __init__(self) -> None:
        self.asked = Brakes()
        self.told: list[Habits] = []
        self.works = True
        self.there = True

    def nudge(self) -> None:
        """Nothing follows the feed here."""

    async def applied(self, within_s: float) -> bool:
        return self.works

    async def brakes(self) -> Brakes:
        if not self.there:
            raise Unavailable("the gate is not running")
        return self.asked

    async def tell_habits(self, habits: Habits) -> None:
        self.told.append(habits)
        taken = set(habits.taken)
        known = {habit.key for habit in habits.habits}
        self.asked = Brakes(
            tuple(trip for trip in self.asked.trips if (trip.key, trip.at) not in taken),
            tuple(key for key in self.asked.wanted if key not in known),
            sum(habit.braked_until > 0 for habit in habits.habits),
        )


class Braking:
    """A console with one key, the job, and its gate."""

    def __init__(self, made: Parts) -> None:
        self.made = made
        self.gate = Gate()
        self.key: str = create(made.console, NewKey(name="agent"))[0]["id"]
        self.job = KeyBrakes(made.console, self.gate, RULES)
        self.api = Api(made.app, made.admin_key())
        self._calls = 0

    def trip(self, *, cause: str = "velocity") -> Trip:
        """The gate tells that the key spent twelve dollars in ten minutes."""
        at = self.made.clock.now
        trip = Trip(self.key, at, cause, 600, 12 * DOLLAR, 10 * DOLLAR, DOLLAR // 2)
        self.gate.asked = Brakes((trip,))
        return trip

    def round(self) -> None:
        """One run of the job."""
        run(self.job.run())

    def row(self) -> Row | None:
        """The limit that brakes the key."""
        found = self.made.books.listing("limit", source="brake")
        assert len(found) <= 1
        return found[0] if found else None

    def spend(self, spent: Iterable[tuple[int, int]], service: str = "chat.completions") -> None:
        """Calls of the key at these times, at these costs, in the books."""
        events: list[Event] = []
        for at, cost in spent:
            self._calls += 1
            who = WHO._replace(key=self.key, service=service)
            events += settled_call(f"req_{self._calls:026d}", who=who, at=at, cost=cost, held=cost)
        self.made.journal.add(opened(), *events)
        self.made.project()

    def habit(self) -> Habit:
        """What is told of the key when it is asked for."""
        self.gate.asked = Brakes((), (self.key,))
        self.round()
        (habit,) = self.gate.told[-1].habits
        return habit


@pytest.fixture
def braking(tmp_path: Path) -> Iterable[Braking]:
    with parts(tmp_path) as made:
        yield Braking(made)


def test_a_trip_becomes_a_limit_of_one_request_a_minute_for_a_quarter_of_an_hour(braking: Braking) -> None:
    """With the figures as its reason; the gate hears that it is in force."""
    trip = braking.trip()
    braking.round()
    row = braking.row()
    assert row is not None
    limit = limit_of(row)

    assert (limit.selector, limit.unit, limit.amount, limit.window) == ({"key": braking.key}, "requests", 1, "minute")
    assert limit.terms.until == NOON + QUARTER
    assert limit.terms.reason == (
        "Braked at 2026-11-21T12:00:00Z: it spent $12.00 in 10 minutes, more than $10.00; it never spent more than "
        "$0.50 in a quarter of an hour before. An administrator can lift the brake."
    )
    assert braking.gate.told == [Habits((Habit(braking.key, braked_until=NOON + QUARTER),), ((braking.key, trip.at),))]


def test_people_are_told_once_with_the_way_out(braking: Braking) -> None:
    """However often the gate tells it."""
    trip = braking.trip()
    braking.round()
    braking.gate.asked = Brakes((trip,))
    braking.round()
    row = braking.row()
    alerts = braking.made.books.listing("alert")
    assert row is not None

    assert [(each["kind"], each["severity"], each["key"]) for each in alerts] == [("anomaly", "critical", braking.key)]
    assert f"faregate limit clear {row['id']}" in alerts[0]["message"]
    assert alerts[0]["details"]["spent"] == "12"


def test_a_trip_that_the_gate_repeats_is_one_brake(braking: Braking) -> None:
    """The gate did not hear that it was taken: nothing is doubled."""
    braking.gate.works = False
    trip = braking.trip()
    braking.round()
    first, told = braking.row(), list(braking.gate.told)
    braking.gate.works = True
    braking.round()

    assert told == []
    assert braking.row() == first
    assert braking.gate.told[-1].taken == ((braking.key, trip.at),)


def test_the_trail_and_the_entries_tell_who_braked_and_who_lifted(braking: Braking) -> None:
    """The brake made it; a person removed it."""
    braking.trip()
    braking.round()
    row = braking.row()
    assert row is not None
    braking.api.send("DELETE", f"/api/v1/limits/{row['id']}")
    entries = braking.made.books.listing("limit_entry", limit_id=row["id"])

    assert [(each["operation"], each["actor"]) for each in entries] == [
        ("create", "brake"),
        ("lift", entries[1]["actor"]),
    ]
    assert entries[1]["actor"].startswith("key_")


def test_another_trip_within_a_day_replaces_the_brake_and_holds_twice_as_long(braking: Braking) -> None:
    """And one after a quiet day holds as long as a first one."""
    held = []
    for pause in (0, HOUR, HOUR, 3 * DAY):
        braking.made.clock.now += pause
        braking.trip()
        braking.round()
        row = braking.row()
        assert row is not None
        held.append((row["terms"]["until"] - braking.made.clock.now) // QUARTER)

    assert held == [1, 2, 4, 1]


def test_a_trip_of_a_key_that_is_gone_is_taken_and_forgotten(braking: Braking) -> None:
    """Nobody can call with it."""
    trip = Trip("key_gone", NOON, "velocity", 60, 1, 0, -1)
    braking.gate.asked = Brakes((trip,))
    braking.round()

    assert braking.row() is None
    assert braking.gate.told[-1].taken == (("key_gone", NOON),)


def test_a_gate_that_is_away_is_asked_again(braking: Braking) -> None:
    """What it has to tell waits in its memory."""
    braking.trip()
    braking.gate.there = False
    braking.round()
    before = braking.row()
    braking.gate.there = True
    braking.round()

    assert before is None
    assert braking.row() is not None


def test_a_habit_is_what_the_roll_ups_say_up_to_an_hour_ago(braking: Braking) -> None:
    """The most of a quarter of an hour, of four in a row, and when it began; without batches and calls told later."""
    noon = NOON - DAY
    braking.spend([(noon, 3 * DOLLAR), (noon + QUARTER, DOLLAR), (noon + 3 * QUARTER, DOLLAR), (NOON, 50 * DOLLAR)])
    braking.spend([(noon, 70 * DOLLAR)], "batches")
    braking.spend([(noon, 70 * DOLLAR)], "reported")

    assert braking.habit() == Habit(braking.key, 3 * DOLLAR, 5 * DOLLAR, noon)


def test_what_a_brake_ended_by_itself_stopped_is_not_usual(braking: Braking) -> None:
    """The hour before it, and its own time."""
    braking.spend([(NOON - DAY, DOLLAR), (NOON - SECOND, 20 * DOLLAR), (NOON + SECOND, 2 * DOLLAR)])
    braking.trip()
    braking.round()
    braking.made.clock.now += 3 * HOUR

    assert braking.habit().quarter_max == DOLLAR


def test_what_was_spent_before_a_brake_was_lifted_is_usual(braking: Braking) -> None:
    """Lifting it says that it was meant; the gate hears of it without asking, and that no brake is in force."""
    braking.spend([(NOON - DAY, DOLLAR), (NOON - SECOND, 20 * DOLLAR)])
    braking.trip()
    braking.round()
    row = braking.row()
    assert row is not None
    braking.made.clock.now += 2 * HOUR
    braking.round()
    told = len(braking.gate.told)
    braking.api.send("DELETE", f"/api/v1/limits/{row['id']}")
    braking.round()

    assert braking.gate.told[told:] == [Habits((Habit(braking.key, 20 * DOLLAR, 20 * DOLLAR, NOON - DAY),))]


def test_brakes_of_before_a_restart_are_known(braking: Braking) -> None:
    """Another console finds them in the books: their end, and that they are lifted."""
    braking.trip()
    braking.round()
    row = braking.row()
    assert row is not None
    braking.job = KeyBrakes(braking.made.console, braking.gate, RULES)
    in_force = braking.habit().braked_until
    braking.api.send("DELETE", f"/api/v1/limits/{row['id']}")
    braking.round()

    assert in_force == NOON + QUARTER
    assert braking.gate.told[-1].habits[0].braked_until == 0


def test_a_gate_that_was_started_anew_is_told_which_brakes_are_in_force(braking: Braking) -> None:
    """It does not know them, and counts none; once it does, nothing is repeated."""
    braking.trip()
    braking.round()
    braking.round()
    before = len(braking.gate.told)
    braking.gate.asked = Brakes((), (), 0)
    braking.round()
    braking.gate.asked = Brakes((), (), 1)
    braking.round()

    assert [each.habits for each in braking.gate.told[before:]] == [(Habit(braking.key, braked_until=NOON + QUARTER),)]


def test_brakes_that_are_long_over_are_removed(braking: Braking) -> None:
    """Nobody looks so far back."""
    braking.trip()
    braking.round()
    braking.made.clock.now += HISTORY
    braking.round()
    kept = braking.row()
    braking.made.clock.now += HOUR
    braking.round()

    assert kept is not None
    assert braking.row() is None


def test_keys_that_were_never_charged_have_no_habit(braking: Braking) -> None:
    """And need none: they are new."""
    assert braking.habit() == Habit(braking.key)
