"""What moving counters must not forget, nor keep for ever: found by trying to break them."""

import itertools
from typing import Any

import pytest

from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.admit import Allowances, LimitIndex, LimitRefusal, Reservation, Standing
from faregate.core.limits.index import CompiledLimit
from faregate.core.limits.terms import PLAIN, Action, Terms
from faregate.core.limits.windows import HOUR, MINUTE, SECOND

NOON = 1_789_387_200 * SECOND
ANN = Attribution(organization="default", team="research", user="ann", key="key_1", model="gpt-4o")


def limit(terms: Terms = PLAIN, **fields: Any) -> CompiledLimit:
    """100 nano-dollars in any day, unless ``fields`` say otherwise."""
    usual = {"id": "lim_1", "selector": {}, "unit": "usd", "amount": 100, "window": "rolling 24h"}
    return CompiledLimit(**{**usual, **fields}, terms=terms)


class Gate:
    """Allowances with one limit whose balance is known."""

    def __init__(self, one: CompiledLimit) -> None:
        self.allowances = Allowances()
        self.set(one)

    def set(self, one: CompiledLimit, now: int = NOON) -> None:
        self.index = LimitIndex([one])
        for id in self.allowances.replace_limits(self.index, now):
            self.allowances.open_balance(id, [], now)

    def standing(self, who: Attribution = ANN) -> Standing:
        return Standing(who, self.index.matching(who))

    def ask(self, amount: int, now: int, who: Attribution = ANN) -> Reservation | LimitRefusal:
        wanted = Amounts(usd=amount, tokens=amount, requests=1)
        return self.allowances.reserve("req_1", self.standing(who), wanted, now)

    def passes(self, amount: int, now: int = NOON, who: Attribution = ANN) -> Reservation:
        outcome = self.ask(amount, now, who)
        assert isinstance(outcome, Reservation), outcome
        return outcome

    def spends(self, amount: int, now: int = NOON, held: int = 1, who: Attribution = ANN) -> None:
        self.allowances.settle(self.passes(held, now, who), Amounts(usd=amount, tokens=amount, requests=1))

    def cells(self) -> int:
        (counter,) = self.standing_counters()
        return len(counter._cells)

    def standing_counters(self) -> tuple[Any, ...]:
        standing = self.standing()
        self.allowances.room(standing, NOON)
        return standing.special


@pytest.mark.parametrize("mode", ["soft", "shadow"])
def test_a_limit_that_refuses_nobody_keeps_few_moments(mode: str) -> None:
    """Ten requests in thirty days, of which it lets any number through, need no memory for each."""
    gate = Gate(limit(unit="requests", amount=10, window="rolling 30d", mode=mode))
    for number in range(3_000):
        gate.spends(1, NOON + number * SECOND)
    (view,) = gate.allowances.views(NOON + HOUR)
    assert view.posted == 3_000
    assert gate.cells() < 1_100


def test_calls_that_were_given_back_keep_few_moments() -> None:
    """While a provider cannot be reached for days, what was held and given back does not add up in memory."""
    gate = Gate(limit(unit="requests", amount=10, window="rolling 30d"))
    for number in range(3_000):
        gate.allowances.release(gate.passes(1, NOON + number * SECOND))
    assert gate.cells() < 1_100


def test_a_restart_with_many_open_calls_keeps_few_buckets() -> None:
    """Calls of one bucket are held together, whatever the order in which they are learnt."""
    gate = Gate(limit())
    for number in itertools.chain(range(0, 2_000, 2), range(1, 2_000, 2)):
        gate.allowances.hold_unknown(f"req_{number}", ANN, Amounts(usd=1), NOON - number * SECOND, NOON)
    (view,) = gate.allowances.views(NOON)
    assert view.held == 2_000
    assert gate.cells() <= 3


def test_what_a_call_held_is_given_back_though_its_limit_stopped_estimating_meanwhile() -> None:
    """The hold was taken when the call began, whatever the terms are when it ends."""
    gate = Gate(limit())
    running = gate.passes(90)
    gate.set(limit(Terms(estimate=False)))
    gate.allowances.settle(running, Amounts(usd=10))
    (view,) = gate.allowances.views(NOON)
    assert (view.posted, view.held) == (10, 0)


def test_what_was_spent_before_a_restart_is_past_when_it_would_have_been_without_an_estimate() -> None:
    """Buckets from the books count as of their moments, not as of the restart."""
    gate = Gate(limit())
    one = limit(Terms(estimate=False), id="lim_2")
    gate.index = LimitIndex([one])
    gate.allowances.replace_limits(gate.index, NOON)
    gate.allowances.open_balance("lim_2", [((), NOON - 23 * HOUR, 100)], NOON)
    assert isinstance(gate.ask(1, NOON), LimitRefusal)
    gate.passes(1, NOON + 2 * HOUR)


def test_a_counter_that_is_over_is_kept_however_long_nobody_uses_it() -> None:
    """Ann used what drains in an hour at once; waiting for half of it in silence does not make her new."""
    gate = Gate(limit(Terms(algorithm="smooth", estimate=False), unit="tokens", window="minute", each=("user",)))
    gate.spends(6_000)
    for minute in range(1, 30):
        gate.spends(1, NOON + minute * MINUTE, who=ANN._replace(user="bob"))
    assert isinstance(gate.ask(1, NOON + 30 * MINUTE), LimitRefusal)
    for minute in range(30, 60):
        gate.spends(1, NOON + minute * MINUTE, who=ANN._replace(user="bob"))
    gate.passes(1, NOON + 60 * MINUTE)
    for minute in range(61, 65):
        gate.spends(1, NOON + minute * MINUTE, who=ANN._replace(user="bob"))
    assert gate.allowances.counters <= 2


def test_what_drains_for_centuries_is_never_free() -> None:
    """A moment that no calendar has is not told, and is no error."""
    smooth = Terms(algorithm="smooth")
    gate = Gate(limit(smooth, window="rolling 366d", amount=10**15))
    gate.spends(10**15, held=10**15)
    gate.set(limit(smooth, window="rolling 366d", amount=1))
    refusal = gate.ask(1, NOON)
    assert isinstance(refusal, LimitRefusal)
    assert (refusal.resets_at, refusal.retry_after_s) == (0, None)
    (view,) = gate.allowances.views(NOON)
    assert view.resets_at == 0


def test_a_call_that_was_never_sent_gives_its_turn_back() -> None:
    """Where a throttle lets one call in ten seconds pass, the next place is tried by the same call."""
    gate = Gate(limit(Terms(actions=(Action("throttle", 50, requests_per_minute=6),)), window="day"))
    gate.spends(60)
    first = gate.passes(1)
    gate.allowances.release(first)
    second = gate.passes(1)
    assert isinstance(gate.ask(1, NOON + SECOND), LimitRefusal)
    gate.allowances.release(second, sent=True)
    assert isinstance(gate.ask(1, NOON + SECOND), LimitRefusal)


def test_of_several_downgrades_that_for_the_model_with_the_largest_share_counts() -> None:
    """One for another model is not in the way, and from 90 percent on calls go further down than from 80."""
    actions = (
        Action("downgrade", 70, to="haiku", models=("opus",)),
        Action("downgrade", 80, to="gpt-4o-mini"),
        Action("downgrade", 90, to="gpt-4o-nano"),
    )
    gate = Gate(limit(Terms(actions=actions), window="day"))

    def goes_to(model: str) -> str:
        found = gate.allowances.deeds(gate.standing(), NOON, (model,)).downgrade
        return found.to if found is not None else ""

    gate.spends(80)
    assert (goes_to("gpt-4o"), goes_to("opus"), goes_to("gpt-4o-mini")) == ("gpt-4o-mini", "gpt-4o-mini", "")
    gate.spends(10)
    assert (goes_to("gpt-4o"), goes_to("haiku"), goes_to("gpt-4o-nano")) == (*("gpt-4o-nano",) * 2, "gpt-4o-mini")


def test_what_a_smooth_limit_has_left_is_what_passes_now() -> None:
    """A refusal names the limit by its amount, and tells what its burst has left of it."""
    gate = Gate(limit(Terms(algorithm="smooth", burst=20), window="hour"))
    gate.spends(18, held=18)
    refusal = gate.ask(5, NOON)
    assert isinstance(refusal, LimitRefusal)
    assert (refusal.amount, refusal.bindings[0].remaining) == (100, 2)
