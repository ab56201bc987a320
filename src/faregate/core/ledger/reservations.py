"""The life of an exchange in the ledger, as one table.

Owns which event changes which state and what has to be done then. Knows no amounts and no accounts. Each arrow is taken
once: the first event wins and every other is a no-op, so that a journal may be replayed, an order repeated and an
answer arrive twice. Ended states never change; what is learnt after the end becomes a new entry on the operator's
account.

A hold that was never dispatched does not appear here: it lives and ends in the gate's memory, and nobody can have
billed it.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import NamedTuple

from faregate.core.ledger.events import Event, Intended, Lost, Progressed, Recalled, Redirected, Settled


class State(StrEnum):
    """Where an exchange stands."""

    #: No intent is known.
    ABSENT = "absent"
    #: Its hold is taken and the provider may bill.
    DISPATCHED = "dispatched"
    #: Its outcome was not learnt; its hold is in suspense.
    UNKNOWN = "unknown"
    #: Ended.
    SETTLED = "settled"
    #: Ended, and other evidence came after the end.
    SETTLED_LATE = "settled_late"


class Happening(StrEnum):
    """What can happen to an exchange."""

    INTENDED = "intended"
    PROGRESSED = "progressed"
    #: It failed at one place before its first byte, and is tried at another.
    REDIRECTED = "redirected"
    #: Its outcome was not learnt, because the connection broke or its process died.
    LOST = "lost"
    #: It ended in the ordinary way; also how a fenced process tells the end of what it had begun.
    SETTLED = "settled"
    #: An unknown one was ended by the provider's word or by policy.
    RESOLVED = "resolved"
    #: Proof of what was billed, from whoever has it and whenever it comes.
    PROVED = "proved"
    #: An answer was given again that was kept before: it begins and ends at once.
    RECALLED = "recalled"


class Action(Enum):
    """What a step asks of the books."""

    NOTHING = 0
    #: Remember the hold.
    HOLD = 1
    #: Remember how far the answer had come.
    MARK = 2
    #: Move the hold to suspense.
    SUSPEND = 3
    #: Give the hold back and post the charge.
    CHARGE = 4
    #: Take the hold out of suspense and post the charge.
    RESOLVE = 5
    #: Post what differs from the cost that is booked to the operator, and raise an alarm.
    CHARGE_OPERATOR = 6
    #: Hold for another place what is held.
    TURN = 7


class Step(NamedTuple):
    """The new state, and what to do on the way there."""

    state: State
    action: Action

    @property
    def changes(self) -> bool:
        """Whether this is more than a no-op."""
        return self.action is not Action.NOTHING

    @property
    def alarm(self) -> bool:
        """Whether a person has to look at it, where the amounts differ."""
        return self.action is Action.CHARGE_OPERATOR


#: State → happening → step. What is not listed is a no-op.
TABLE: Mapping[State, Mapping[Happening, Step]] = {
    State.ABSENT: {
        Happening.INTENDED: Step(State.DISPATCHED, Action.HOLD),
        Happening.RECALLED: Step(State.SETTLED, Action.CHARGE),
        # No intent means nothing was sent, as far as we know; who proves otherwise is paid, but not by the payer.
        Happening.SETTLED: Step(State.SETTLED_LATE, Action.CHARGE_OPERATOR),
        Happening.PROVED: Step(State.SETTLED_LATE, Action.CHARGE_OPERATOR),
    },
    State.DISPATCHED: {
        Happening.PROGRESSED: Step(State.DISPATCHED, Action.MARK),
        Happening.REDIRECTED: Step(State.DISPATCHED, Action.TURN),
        Happening.LOST: Step(State.UNKNOWN, Action.SUSPEND),
        Happening.SETTLED: Step(State.SETTLED, Action.CHARGE),
        Happening.PROVED: Step(State.SETTLED, Action.CHARGE),
        # Happening.RESOLVED is a no-op: nobody decides over an exchange that still runs.
    },
    State.UNKNOWN: {
        Happening.SETTLED: Step(State.SETTLED, Action.RESOLVE),
        Happening.RESOLVED: Step(State.SETTLED, Action.RESOLVE),
        Happening.PROVED: Step(State.SETTLED, Action.RESOLVE),
    },
    State.SETTLED: {
        Happening.PROVED: Step(State.SETTLED_LATE, Action.CHARGE_OPERATOR),
    },
    State.SETTLED_LATE: {},
}

#: States in which money is held.
OPEN = (State.DISPATCHED, State.UNKNOWN)


def step_of(state: State, happening: Happening) -> Step:
    """What a happening does to an exchange in ``state``."""
    return TABLE[state].get(happening) or Step(state, Action.NOTHING)


def happening_of(event: Event) -> Happening | None:
    """What an event means for the exchange it names; ``None`` for ``Started``, which concerns all, and ``Refused``."""
    match event:
        case Settled(resolution=""):
            return Happening.SETTLED
        case Settled(resolution="late_evidence"):
            return Happening.PROVED
        case Settled():
            return Happening.RESOLVED
        case Intended():
            return Happening.INTENDED
        case Progressed():
            return Happening.PROGRESSED
        case Redirected():
            return Happening.REDIRECTED
        case Lost():
            return Happening.LOST
        case Recalled():
            return Happening.RECALLED
        case _:
            return None
