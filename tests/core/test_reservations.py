"""The life of an exchange in the ledger: each arrow once, the first event wins."""

import pytest

from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import (
    RESOLUTIONS,
    Event,
    Intended,
    Lost,
    Progressed,
    Recalled,
    Refused,
    Settled,
    Started,
)
from faregate.core.ledger.reservations import (
    OPEN,
    TABLE,
    Action,
    Happening,
    State,
    Step,
    happening_of,
    step_of,
)
from faregate.core.usage import NO_USAGE

#: The table once more, as a drawing: a row per state, a column per happening, a dot for a no-op.
DRAWING = """
                intended     progressed   redirected   lost      settled        resolved   proved         recalled
  absent        dispatched   .            .            .         settled_late   .          settled_late   settled
  dispatched    .            dispatched   dispatched   unknown   settled        .          settled        .
  unknown       .            .            .            .         settled        settled    settled        .
  settled       .            .            .            .         .              .          settled_late   .
  settled_late  .            .            .            .         .              .          .              .
"""


def settled(resolution: str = "") -> Settled:
    """An end of exchange ``req_1``."""
    return Settled("req_1", 2, "ok", 200, "", NO_USAGE, "provider", 0, 5, "v1", 10, 5, resolution=resolution)


def drawn() -> list[tuple[str, str, str]]:
    """(State, happening, new state or dot) of every cell of the drawing."""
    head, *rows = [line.split() for line in DRAWING.strip().splitlines()]
    return [(row[0], happening, cell) for row in rows for happening, cell in zip(head, row[1:], strict=True)]


@pytest.mark.parametrize(("state", "happening", "expected"), drawn())
def test_the_table_is_the_drawing(state: str, happening: str, expected: str) -> None:
    """Every pair of state and happening leads where the drawing says, or changes nothing."""
    step = step_of(State(state), Happening(happening))
    assert (step.state.value if step.changes else ".") == expected


def test_the_drawing_is_whole() -> None:
    """Every state meets every happening."""
    assert {(state, happening) for state, happening, _ in drawn()} == {(s, h) for s in State for h in Happening}


def test_a_no_op_keeps_the_state() -> None:
    """What changes nothing says so and stays where it was."""
    assert step_of(State.SETTLED, Happening.SETTLED) == Step(State.SETTLED, Action.NOTHING)


@pytest.mark.parametrize("happening", list(Happening))
@pytest.mark.parametrize("state", list(State))
def test_repeats_are_no_ops(state: State, happening: Happening) -> None:
    """The same thing happening twice is the same as once; progress and other places are told again and again."""
    after = step_of(state, happening)
    again = step_of(after.state, happening)
    late = after.action in (Action.CHARGE, Action.RESOLVE) and happening is Happening.PROVED
    assert again.state is (State.SETTLED_LATE if late else after.state)
    assert again.action in (Action.NOTHING, Action.MARK, Action.TURN) or late


def test_money_is_held_from_the_intent_to_the_one_end() -> None:
    """A step into an open state holds, a step out of one resolves; what is given again does both at once."""
    for state, steps in TABLE.items():
        for happening, step in steps.items():
            leaves = (state in OPEN and step.state not in OPEN) or happening is Happening.RECALLED
            assert (step.action in (Action.CHARGE, Action.RESOLVE)) is leaves
            assert (step.action is Action.HOLD) is (state not in OPEN and step.state in OPEN)


def test_suspense_is_left_by_the_way_it_was_entered() -> None:
    """Only what was suspended is taken out of suspense."""
    for state, steps in TABLE.items():
        for step in steps.values():
            assert (step.action is Action.SUSPEND) is (state is not State.UNKNOWN and step.state is State.UNKNOWN)
            assert (step.action is Action.RESOLVE) is (state is State.UNKNOWN)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Started(1, 0), None),
        (Refused("req_1", 0, Attribution(), False, 429, "rate_limited"), None),
        (Intended("req_1", 0, 0, Attribution(), Amounts(), "v1", False), Happening.INTENDED),
        (Progressed("req_1", 1, 5), Happening.PROGRESSED),
        (Lost("req_1", 1, 0, "upstream_truncated", 10), Happening.LOST),
        (Recalled("req_1", 1, 1, Attribution(), False, 5, 0, 10), Happening.RECALLED),
        *[
            (settled(resolution), happening)
            for resolution, happening in zip(
                RESOLUTIONS,
                (Happening.SETTLED, *[Happening.RESOLVED] * 5, Happening.PROVED),
                strict=True,
            )
        ],
    ],
)
def test_every_event_has_a_meaning(event: Event, expected: Happening | None) -> None:
    """Events of the journal translate to what happened to one exchange."""
    assert happening_of(event) is expected


def test_only_contradictions_after_the_end_raise_an_alarm() -> None:
    """A person is called where money moves on the operator's account."""
    alarms = {(state, happening) for state in State for happening in Happening if step_of(state, happening).alarm}
    assert alarms == {
        (State.ABSENT, Happening.SETTLED),
        (State.ABSENT, Happening.PROVED),
        (State.SETTLED, Happening.PROVED),
    }
