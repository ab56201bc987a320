"""The anomaly brake in a real gate: from the call that is too much to the console's limit. The console is the test."""

import json
from pathlib import Path
from typing import Any

from faregate.control import AskBrakes, AskFigures, Brakes, Figures, Habits, Limit, Load, Opening
from faregate.core.limits.habits import BrakeRules, Habit
from faregate.core.limits.terms import Terms
from gates import RunningGate, key, running_gate, scenario
from realtimes import realtime_gate, says, talking, until

DOLLAR = 10**9

#: A call of these tests costs about a tenth of a millidollar; ten of them are too much.
RULES = BrakeRules(floor=200_000)


async def until_refused(running: RunningGate, most: int = 60, **fields: Any) -> tuple[int, Any]:
    """How many calls of a key without a past passed before one was refused, and that refusal."""
    await running.ask(Habits((Habit("key_caller"),)))
    for n in range(most):
        answer = await running.chat(f"Call {n}.", **fields)
        if answer.status_code != 200:
            return n, answer
    raise AssertionError("nothing was refused")


async def told(running: RunningGate) -> Brakes:
    """What the gate tells the console."""
    answer = await running.ask(AskBrakes())
    assert isinstance(answer, Brakes)
    return answer


@scenario
async def test_the_next_call_of_a_runaway_is_refused_before_anybody_was_asked(tmp_path: Path) -> None:
    """With the code of a rate limit, a wait that is true, and a sentence that says why and who can lift it."""
    async with running_gate(tmp_path, brake=RULES) as running:
        passed, answer = await until_refused(running)
        error = answer.json()["error"]

        assert passed >= 10
        assert (answer.status_code, error["code"]) == (429, "rate_limited")
        assert answer.headers["x-should-retry"] == "true"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "braked until" in error["message"]
        assert "more than $0.001" in error["message"]
        assert "administrator" in error["message"]
        assert error["faregate"]["reason"] in error["message"]


@scenario
async def test_a_burst_that_has_ended_is_told_though_nobody_calls_again(tmp_path: Path) -> None:
    """The console learns of it once it has told the key's past, and the next call is refused."""
    async with running_gate(tmp_path, brake=RULES) as running:
        for n in range(40):
            assert (await running.chat(f"Call {n}.")).status_code == 200
        before = await told(running)
        assert (before.trips, before.wanted) == ((), ("key_caller",))

        await running.ask(Habits((Habit("key_caller"),)))

        (trip,) = (await told(running)).trips
        assert trip.key == "key_caller"
        assert (await running.chat("One more.")).status_code == 429


@scenario
async def test_other_keys_go_on(tmp_path: Path) -> None:
    """A brake holds one key."""
    async with running_gate(tmp_path, keys=(key(), key("other")), brake=RULES) as running:
        await until_refused(running)

        answer = await running.chat(name="other")

        assert answer.status_code == 200


@scenario
async def test_a_trip_is_told_until_it_is_taken(tmp_path: Path) -> None:
    """However often the console asks, and whether it was away."""
    async with running_gate(tmp_path, brake=RULES) as running:
        await until_refused(running)
        first, second = await told(running), await told(running)
        (trip,) = first.trips

        assert first == second
        assert (trip.key, trip.cause, first.in_force) == ("key_caller", "velocity", 1)

        habit = Habit("key_caller", braked_until=trip.at + RULES.duration)
        await running.ask(Habits((habit,), ((trip.key, trip.at),)))

        assert await told(running) == Brakes((), (), 1)


@scenario
async def test_the_limit_takes_over_from_the_gate(tmp_path: Path) -> None:
    """It refuses with its own id and reason; nobody is refused twice over."""
    async with running_gate(tmp_path, brake=RULES) as running:
        await until_refused(running)
        (trip,) = (await told(running)).trips
        brake = Limit(
            "lim_brake",
            {"key": trip.key},
            (),
            "requests",
            1,
            "minute",
            terms=Terms(until=trip.at + RULES.duration, reason="Braked: a loop."),
        )
        await running.ask(Load(2, limits=(brake,)))
        await running.ask(Opening(0, ("lim_brake",), ()))
        await running.ask(Habits((Habit(trip.key, braked_until=trip.at + RULES.duration),), ((trip.key, trip.at),)))

        answers = [await running.chat() for _ in range(4)]
        refused = [answer.json()["error"] for answer in answers if answer.status_code == 429]

        assert refused[-1]["faregate"]["limit"] == "lim_brake"
        assert "Reason: Braked: a loop." in refused[-1]["message"]


@scenario
async def test_a_lifted_brake_lets_calls_through_and_counts_from_nothing(tmp_path: Path) -> None:
    """The console says that no brake is in force, and that what was spent is usual."""
    async with running_gate(tmp_path, brake=RULES) as running:
        await until_refused(running)
        (trip,) = (await told(running)).trips
        await running.ask(Habits((Habit(trip.key, 10 * DOLLAR, 10 * DOLLAR, 1),), ((trip.key, trip.at),)))

        answers = [await running.chat(f"Call {n}.") for n in range(40)]

        assert {answer.status_code for answer in answers} == {200}


@scenario
async def test_a_key_with_such_a_past_is_not_braked(tmp_path: Path) -> None:
    """What is too much for a new key is usual for this one."""
    async with running_gate(tmp_path, brake=RULES) as running:
        first = await running.chat()
        wanted = (await told(running)).wanted
        await running.ask(Habits((Habit("key_caller", 10 * DOLLAR, 10 * DOLLAR, 1),)))
        answers = [await running.chat(f"Call {n}.") for n in range(40)]

        assert (first.status_code, wanted) == (200, ("key_caller",))
        assert {answer.status_code for answer in answers} == {200}


@scenario
async def test_the_same_call_again_and_again_is_braked_sooner(tmp_path: Path) -> None:
    """A retry that never ends; its calls cost a fifth of a cent each."""
    rules = BrakeRules(floor=DOLLAR // 10, repeats=10)
    async with running_gate(tmp_path, brake=rules) as running:
        await running.ask(Habits((Habit("key_caller"),)))
        long = "word " * 2_000
        statuses = [(await running.chat(long)).status_code for _ in range(40)]
        (trip,) = (await told(running)).trips

        assert 429 in statuses
        assert (trip.cause, trip.repeats >= rules.repeats) == ("repetition", True)


@scenario
async def test_a_realtime_session_is_braked_with_its_next_turn(tmp_path: Path) -> None:
    """It goes on, and its turns are refused."""
    async with realtime_gate(tmp_path, brake=RULES) as running, talking(running) as connection:
        await running.ask(Habits((Habit("key_caller"),)))
        turns = 0
        while True:
            await says(connection, f"Turn {turns}.")
            await connection.response.create()
            last = (await until(connection, "response.done", "error"))[-1]
            if last.type == "error":
                break
            turns += 1

        assert turns >= 10
        assert last.error.code == "rate_limited"
        assert "braked until" in last.error.message


@scenario
async def test_brakes_are_counted(tmp_path: Path) -> None:
    """By cause, and how many keys are braked now."""
    async with running_gate(tmp_path, brake=RULES) as running:
        await until_refused(running)
        figures = await running.ask(AskFigures())
        assert isinstance(figures, Figures)
        found = {sample.labels: sample.value for sample in figures.samples if sample.name == "faregate_brakes_total"}

        assert found == {(("cause", "velocity"),): 1}
        assert figures.braked_keys == 1


@scenario
async def test_without_brakes_nothing_is_braked_or_told(tmp_path: Path) -> None:
    """``limits.brake.enabled: false`` leaves no trace on the path of a call."""
    async with running_gate(tmp_path) as running:
        answers = [await running.chat(json.dumps(n)) for n in range(30)]

        assert {answer.status_code for answer in answers} == {200}
        assert running.gate.brakes is None
        assert await told(running) == Brakes()
