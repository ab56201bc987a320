"""G10: rates keep the bound that is printed, whatever calls arrive when.

``strict`` (a rolling window): never more than N in *any* stretch of its length. ``smooth``: at most
``burst + N x t / window`` in any stretch ``t``. What a call does not use comes back at its end, as far as that keeps
the bound. Arrivals are made to break it: bursts at the edges of windows and buckets, calls just after the oldest
expires, steps of a nanosecond, long idling, clocks that are set back, and settlements when they would help most.

``make soak`` tries 10,000 seeds of each.
"""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

import pytest

from faregate.core.amounts import UNITS, Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.admit import Allowances, CompiledLimit, LimitIndex, LimitRefusal, Reservation, Standing
from faregate.core.limits.terms import Terms
from faregate.core.limits.windows import HOUR, MINUTE, SECOND
from soaking import examples

NOON = 1_789_387_200 * SECOND
SEEDS = examples(100, 10_000)
STEPS = 80
ANN = Attribution(organization="default", team="research", user="ann", key="key_1")


class Shape(NamedTuple):
    """A rate: its limit, and how large a call is at most."""

    name: str
    unit: str
    amount: int
    window: str
    period: int
    call_max: int
    terms: Terms = Terms()


SMOOTH = Terms(algorithm="smooth")

STRICT = (
    Shape("moments", "requests", 5, "rolling 10s", 10 * SECOND, 1),
    Shape("one a day", "requests", 1, "rolling 24h", 24 * HOUR, 1),
    Shape("buckets", "tokens", 1_000, "rolling 1m", MINUTE, 400),
    # Sixty buckets do not divide it evenly.
    Shape("odd buckets", "usd", 97, "rolling 7s", 7 * SECOND, 60),
    Shape("many requests", "requests", 1_001, "rolling 1h", HOUR, 1),
)
EVEN = (
    Shape("minute", "tokens", 600, "minute", MINUTE, 300, SMOOTH),
    Shape("burst", "requests", 60, "minute", MINUTE, 1, SMOOTH._replace(burst=7)),
    Shape("one at a time", "requests", 10, "second", SECOND, 1, SMOOTH._replace(burst=1)),
    # Neither divides a nanosecond evenly.
    Shape("odd", "usd", 97, "rolling 7s", 7 * SECOND, 40, SMOOTH._replace(burst=41)),
)


class Taken:
    """One admitted call, in one unit."""

    def __init__(self, at: int, reservation: Reservation, held: int) -> None:
        self.reservation = reservation
        self.takes = [(at, held)]
        self.open = True

    @property
    def at(self) -> int:
        """When it was admitted."""
        return self.takes[0][0]

    @property
    def held(self) -> int:
        """All that it holds or held."""
        return sum(units for _, units in self.takes)

    def counts(self, posted: int) -> None:
        """It ended: what it used is taken from its first takes on."""
        self.open = False
        left, kept = posted, []
        for at, units in self.takes:
            kept.append((at, min(units, left)))
            left -= min(units, left)
        self.takes = kept


class Gate:
    """One limit, who asks for it, and a log of everything that it admitted."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.unit = UNITS.index(shape.unit)
        self.limit = CompiledLimit(
            id="lim_1", selector={}, unit=shape.unit, amount=shape.amount, window=shape.window, terms=shape.terms
        )
        self.index = LimitIndex([self.limit])
        self.allowances = Allowances()
        self.latest = NOON
        for id in self.allowances.replace_limits(self.index, NOON):
            self.allowances.open_balance(id, [], NOON)
        self.standing = Standing(ANN, self.index.matching(ANN))
        self.log: list[Taken] = []
        usual = max(1, shape.amount // 10) if shape.unit == "requests" else shape.amount
        #: What passes at once where the limit is smooth, as the reference of limits says it.
        self.burst = shape.terms.burst or usual

    def amounts(self, units: int) -> Amounts:
        """So much of the unit that is limited."""
        return Amounts()._replace(**{self.shape.unit: units})

    def at(self, now: int) -> int:
        """The time as allowances see it."""
        self.latest = max(self.latest, now)
        return self.latest

    def ask(self, units: int, now: int) -> Reservation | LimitRefusal:
        """One call of so many units."""
        outcome = self.allowances.reserve("req", self.standing, self.amounts(units), now)
        now = self.at(now)
        if isinstance(outcome, Reservation):
            assert outcome.admitted_at == now
            self.log.append(Taken(now, outcome, units))
        return outcome

    def extend(self, taken: Taken, units: int, now: int) -> bool:
        """A running call asks for more."""
        if not self.allowances.extend(taken.reservation, self.amounts(units), now):
            self.at(now)
            return False
        taken.takes.append((self.at(now), units))
        return True

    def settle(self, taken: Taken, posted: int, now: int = 0) -> None:
        """A call ends; at which time, allowances need not have been told."""
        if now:
            list(self.allowances.views(now))
            self.at(now)
        assert self.allowances.settle(taken.reservation, self.amounts(posted))
        taken.counts(posted)

    def takes(self) -> list[tuple[int, int]]:
        """Everything taken so far, by moment, as it counts now."""
        return [take for taken in self.log for take in taken.takes]


class Adversary:
    """Chooses when to call next and how much to ask for; knows all that was admitted."""

    def __init__(self, seed: int, gate: Gate) -> None:
        self.chance = Random(seed)
        self.gate = gate
        self.period = gate.shape.period
        self.bucket = -(-self.period // 60)
        self.patience = self.chance.choice((0.0, 0.2, 0.5, 0.9))
        self.moves: tuple[Callable[[int], int], ...] = tuple(
            self.chance.sample(
                (
                    self.stay, self.stay, self.step, self.edge, self.expiry, self.expiry, self.drained, self.share,
                    self.idle, self.back, self.bucket_edge,
                ),
                self.chance.randint(2, 11),
            )
        )  # fmt: skip

    def move(self, now: int) -> int:
        """The wall clock at the next call."""
        return self.chance.choice(self.moves)(now)

    def wish(self) -> int:
        """How much the next call asks for."""
        largest = self.gate.shape.call_max
        return self.chance.choice((1, largest, self.chance.randint(0, largest), self.chance.randint(1, largest)))

    def ends(self) -> bool:
        """Whether a running call ends now."""
        return self.chance.random() < self.patience

    # -- moves -------------------------------------------------------------------------------------------------------

    def stay(self, now: int) -> int:
        """At the same nanosecond."""
        return now

    def step(self, now: int) -> int:
        """A tiny step."""
        return now + self.chance.choice((1, 2, 1_000, SECOND // 1_000))

    def edge(self, now: int) -> int:
        """To the edge of the next window of the calendar."""
        return now - now % self.period + self.period + self.chance.choice((-1, 0, 1))

    def bucket_edge(self, now: int) -> int:
        """To the edge of a bucket soon to come."""
        ahead = self.chance.choice((1, 1, 2, 59, 60, 61))
        return now - now % self.bucket + ahead * self.bucket + self.chance.choice((-1, 0, 1))

    def expiry(self, now: int) -> int:
        """To the moment at which the oldest call that counts is just past, or nearly."""
        counting = [taken.at for taken in self.gate.log if taken.at > now - self.period]
        if not counting:
            return now
        kept = self.chance.choice((0, 0, self.bucket))
        return max(now, self.chance.choice(counting[:3]) + self.period + kept + self.chance.choice((-1, 0, 1)))

    def drained(self, now: int) -> int:
        """To the moment at which some units have drained, or nearly."""
        units = self.chance.randint(1, self.gate.shape.call_max)
        return now + units * self.period // self.gate.shape.amount + self.chance.choice((-1, 0, 1))

    def share(self, now: int) -> int:
        """By some of the window."""
        return now + self.chance.randint(1, self.period)

    def idle(self, now: int) -> int:
        """For a long time."""
        return now + self.chance.choice((1, 2, 1_000)) * self.period + self.chance.choice((-1, 0, 1))

    def back(self, now: int) -> int:
        """The wall clock is set back."""
        return now - self.chance.choice((1, self.period // 2, self.period, 300 * SECOND))


def played(seed: int, shape: Shape, watch: Callable[[Gate, LimitRefusal | None], None], extends: bool = False) -> None:
    """Play an adversary against a gate; ``watch`` is told of every call, and of its refusal."""
    gate = Gate(shape)
    adversary = Adversary(seed, gate)
    chance, now = adversary.chance, NOON
    for _ in range(STEPS):
        now = adversary.move(now)
        for taken in [taken for taken in gate.log if taken.open]:
            if adversary.ends():
                posted = chance.choice((0, taken.held, chance.randint(0, taken.held)))
                gate.settle(taken, posted, chance.choice((0, now)))
            elif extends and chance.random() < 0.1 and gate.extend(taken, adversary.wish(), now):
                watch(gate, None)
        wish = adversary.wish()
        outcome = gate.ask(wish, now)
        watch(gate, outcome if isinstance(outcome, LimitRefusal) else None)


def no_window_over(gate: Gate, refusal: LimitRefusal | None) -> None:
    """No stretch of the window's length that ends with the last call has more than the amount."""
    shape, since = gate.shape, gate.latest - gate.shape.period
    if refusal is None:
        assert sum(units for at, units in gate.takes() if at > since) <= shape.amount
    else:
        kept = 0 if gate.limit.unit_name == "requests" and shape.amount <= 1_000 else -(-shape.period // 60)
        may_count = sum(units for at, units in gate.takes() if at > since - kept)
        assert may_count + refusal.wanted > shape.amount, "it was refused for nothing"


def no_stretch_over(gate: Gate, refusal: LimitRefusal | None) -> None:
    """No stretch ``t`` that ends with the last call has more than ``burst + N x t / window``."""
    if refusal is not None:
        return
    shape, now = gate.shape, gate.latest
    most = total = 0
    for at, units in sorted(gate.takes(), reverse=True):
        total += units * shape.period
        most = max(most, total - (now - at) * shape.amount)
    assert most <= gate.burst * shape.period


@pytest.mark.parametrize("shape", STRICT, ids=[shape.name for shape in STRICT])
def test_strict_never_passes_more_than_its_amount_in_any_window(shape: Shape) -> None:
    """By a scan of everything admitted, at every call; nor is a call refused that fits the window and its buckets."""
    for seed in range(SEEDS):
        played(seed, shape, no_window_over)


@pytest.mark.parametrize("shape", EVEN, ids=[shape.name for shape in EVEN])
def test_smooth_never_passes_more_than_its_burst_and_its_pace(shape: Shape) -> None:
    """In every stretch of time, by a scan of everything admitted, at every call."""
    for seed in range(SEEDS):
        played(seed, shape, no_stretch_over)


@pytest.mark.parametrize("shape", [STRICT[2], STRICT[3]], ids=["buckets", "odd buckets"])
def test_strict_keeps_its_bound_where_running_calls_ask_for_more(shape: Shape) -> None:
    """What a call takes later counts from then on: it is no way to fill a window that was full."""
    for seed in range(SEEDS):
        played(seed, shape, no_window_over, extends=True)


@pytest.mark.parametrize("shape", [EVEN[0], EVEN[3]], ids=["minute", "odd"])
def test_smooth_keeps_its_bound_where_running_calls_ask_for_more(shape: Shape) -> None:
    """The same for an even pace."""
    for seed in range(SEEDS):
        played(seed, shape, no_stretch_over, extends=True)


@pytest.mark.parametrize("shape", [*STRICT, *EVEN], ids=[shape.name for shape in (*STRICT, *EVEN)])
def test_the_wait_that_is_told_is_true(shape: Shape) -> None:
    """Whoever waits as long as ``retry_after_s`` says, while nobody else calls, passes."""
    waited = 0
    for seed in range(examples(20, 300)):
        gate = Gate(shape)
        adversary = Adversary(seed, gate)
        adversary.moves = (adversary.stay, adversary.step, adversary.drained, adversary.share)
        now = NOON
        for _ in range(STEPS):
            now = adversary.move(now)
            wish = adversary.wish()
            outcome = gate.ask(wish, now)
            if not isinstance(outcome, LimitRefusal):
                gate.settle(gate.log[-1], wish, now)
            elif outcome.retry_after_s is None:
                assert wish > outcome.amount
            else:
                waited += 1
                now += outcome.retry_after_s * SECOND
                assert isinstance(gate.ask(wish, now), Reservation)
                gate.settle(gate.log[-1], wish, now)
    assert waited or shape.amount > STEPS


def test_a_refund_comes_back_in_whole_while_nothing_drained() -> None:
    """Tokens hold the bound; at the end of a call what it did not use is there again at once."""
    for shape in (STRICT[2], EVEN[0]):
        gate = Gate(shape._replace(amount=600))
        assert isinstance(gate.ask(300, NOON), Reservation)
        assert isinstance(gate.ask(300, NOON), Reservation)
        assert isinstance(gate.ask(300, NOON), LimitRefusal)
        gate.settle(gate.log[0], 0, NOON)
        assert isinstance(gate.ask(300, NOON), Reservation)


def test_a_refund_makes_no_room_that_has_drained_already() -> None:
    """A call that held much, and long, has drained away: given back in whole it would let a second burst through."""
    gate = Gate(EVEN[0])
    assert isinstance(gate.ask(600, NOON), Reservation)
    assert isinstance(gate.ask(600, NOON + MINUTE), Reservation)
    gate.settle(gate.log[0], 0, NOON + MINUTE)
    assert isinstance(gate.ask(1, NOON + MINUTE), LimitRefusal)


def test_a_refund_counts_what_drained_at_the_pace_before_a_cut() -> None:
    """What drained while the amount was larger makes no room either, once the amount is cut."""
    gate = Gate(EVEN[0])
    assert isinstance(gate.ask(600, NOON), Reservation)
    lower = CompiledLimit(id="lim_1", selector={}, unit="tokens", amount=60, window="minute", terms=SMOOTH)
    index, later = LimitIndex([lower]), NOON + MINUTE
    gate.allowances.replace_limits(index, later)
    gate.standing = Standing(ANN, index.matching(ANN))
    assert isinstance(gate.ask(60, later), Reservation)
    gate.settle(gate.log[0], 0, later)
    assert isinstance(gate.ask(1, later), LimitRefusal)
