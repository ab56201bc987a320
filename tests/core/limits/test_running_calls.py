"""Calls that run while what may be held changes: raises end, windows end, balances are unknown, counters idle."""

from typing import Any

import pytest

from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.admit import Allowances, CompiledLimit, LimitIndex, LimitRefusal, Reservation, Standing
from faregate.core.limits.terms import PLAIN, Raise, Terms
from faregate.core.limits.windows import HOUR, MINUTE, SECOND

NOON = 1_789_387_200 * SECOND
DAY = 24 * HOUR
ANN = Attribution(organization="default", team="research", user="ann", key="key_1")


def limit(terms: Terms = PLAIN, **fields: Any) -> CompiledLimit:
    """A hard limit of 100 nano-dollars on everything, unless ``fields`` say otherwise."""
    usual = {"id": "lim_1", "selector": {}, "unit": "usd", "amount": 100, "window": "lifetime"}
    return CompiledLimit(**{**usual, **fields}, terms=terms)


def opened(*limits: CompiledLimit) -> Allowances:
    """Allowances whose balances are known."""
    allowances = Allowances()
    for id in allowances.replace_limits(LimitIndex(limits), NOON):
        allowances.open_balance(id, [], NOON)
    return allowances


def ask(allowances: Allowances, amount: int, now: int, who: Attribution = ANN) -> Reservation | LimitRefusal:
    """One call."""
    standing = Standing(who, allowances._index.matching(who))
    return allowances.reserve("req_1", standing, Amounts(usd=amount, requests=1, concurrency=1), now)


def passes(allowances: Allowances, amount: int, now: int = NOON, who: Attribution = ANN) -> Reservation:
    """One call that fits."""
    outcome = ask(allowances, amount, now, who)
    assert isinstance(outcome, Reservation)
    return outcome


def settle(allowances: Allowances, reservation: Reservation, posted: int, now: int) -> None:
    """A call ends at a moment."""
    list(allowances.views(now))
    assert allowances.settle(reservation, Amounts(usd=posted, requests=1))


@pytest.mark.parametrize("window", ["lifetime", "day", "rolling 1h"])
def test_no_more_is_held_once_a_raise_has_ended(window: str) -> None:
    """Time takes it back, though nobody has asked for anything since."""
    raised = Terms(raises=(Raise(200, NOON, NOON + 10 * SECOND),))
    allowances = opened(limit(raised, window=window))
    running = passes(allowances, 100, NOON + SECOND)
    assert allowances.extend(running, Amounts(usd=50), NOON + 10 * SECOND - 1)
    assert not allowances.extend(running, Amounts(usd=50), NOON + 10 * SECOND)


@pytest.mark.parametrize("window", ["hour", "rolling 1h"])
def test_no_more_is_held_where_a_balance_is_not_known(window: str) -> None:
    """A call that runs when a limit is made waits for its balance like a new one."""
    allowances = opened()
    running = passes(allowances, 10)
    allowances.replace_limits(LimitIndex([limit(window=window)]), NOON)
    assert not allowances.extend(running, Amounts(usd=50), NOON)
    allowances.open_balance("lim_1", [((), NOON, 40)], NOON)
    assert allowances.extend(running, Amounts(usd=50), NOON)
    assert not allowances.extend(running, Amounts(usd=1), NOON)


def test_what_was_carried_over_is_not_held_again_by_the_window_before() -> None:
    """What a window left counts in the next one from its end on; a call that still runs gets no more of it."""
    allowances = opened(limit(Terms(carry_max=100), window="day"))
    running = passes(allowances, 50)
    passes(allowances, 150, NOON + DAY)
    assert not allowances.extend(running, Amounts(usd=50), NOON + DAY)
    (view,) = allowances.views(NOON + DAY)
    assert view.posted + view.held <= (view.amount or 0)


def test_what_a_running_call_takes_later_counts_from_then_on() -> None:
    """In a rolling window it is not past with the call's beginning."""
    allowances = opened(limit(window="rolling 10s"))
    passes(allowances, 90)
    running = passes(allowances, 10, NOON + 9 * SECOND)
    assert allowances.extend(running, Amounts(usd=90), NOON + 11 * SECOND)
    assert isinstance(ask(allowances, 11, NOON + 20 * SECOND), LimitRefusal)
    settle(allowances, running, 10, NOON + 20 * SECOND)
    passes(allowances, 90, NOON + 20 * SECOND)


def test_what_was_taken_before_a_limit_began_makes_no_room_when_it_ends() -> None:
    """While nothing bounded it all of it has drained; to give it back would let a second burst through."""
    begins = NOON + 10 * SECOND
    allowances = opened(limit(Terms(algorithm="smooth", since=begins), window="minute", amount=60))
    early = passes(allowances, 60, begins - 5 * SECOND)
    passes(allowances, 0, begins - SECOND)
    passes(allowances, 60, begins + SECOND // 2)
    settle(allowances, early, 0, begins + SECOND)
    assert isinstance(ask(allowances, 10, begins + SECOND), LimitRefusal)


@pytest.mark.parametrize("terms", [Terms(estimate=False), Terms(algorithm="smooth", estimate=False)])
def test_what_a_long_call_used_counts_though_its_counter_was_idle(terms: Terms) -> None:
    """Nobody else called meanwhile, for longer than idle counters are kept; its end is counted all the same."""
    allowances = opened(limit(terms, window="rolling 1m", each=("user",)))
    running = passes(allowances, 1)
    for minute in range(1, 12):
        passes(allowances, 1, NOON + minute * MINUTE, ANN._replace(user="bob"))
    later = NOON + 12 * MINUTE
    settle(allowances, running, 100, later)
    assert isinstance(ask(allowances, 1, later), LimitRefusal)


@pytest.mark.parametrize(("terms", "window"), [(PLAIN, "rolling 1m"), (Terms(algorithm="smooth"), "minute")])
def test_what_a_long_call_takes_later_counts_beside_the_other_calls_of_its_user(terms: Terms, window: str) -> None:
    """However long it runs, and however idle its user was, both together stay within the amount."""
    allowances = opened(limit(terms, window=window, each=("user",)))
    running = passes(allowances, 10)
    for minute in range(1, 12):
        settle(allowances, passes(allowances, 1, NOON + minute * MINUTE, ANN._replace(user="bob")), 1, NOON)
    later = NOON + 12 * MINUTE
    taken = 90 if allowances.extend(running, Amounts(usd=90), later) else 0
    taken += 90 if isinstance(ask(allowances, 90, later), Reservation) else 0
    assert taken <= 100


def test_a_call_that_takes_more_and_more_keeps_its_counter() -> None:
    """A stream that holds in steps for many minutes is never cut for want of a counter, nor counted on an old one."""
    allowances = opened(limit(window="rolling 1m", each=("user",)))
    running = passes(allowances, 1)
    for step in range(1, 120):
        now = NOON + step * 10 * SECOND
        settle(allowances, passes(allowances, 1, now, ANN._replace(user="bob")), 1, now)
        assert allowances.extend(running, Amounts(usd=10), now)
    assert isinstance(ask(allowances, 50, NOON + 119 * 10 * SECOND), LimitRefusal)


@pytest.mark.parametrize("each", [(), ("user",)])
def test_a_raise_that_has_ended_drains_nothing_any_more(each: tuple[str, ...]) -> None:
    """However late somebody asks: the bucket drained at the raised pace until the raise ended, and not after it."""
    ends = NOON + 10 * SECOND
    raised = Terms(algorithm="smooth", raises=(Raise(600, NOON, ends),))
    allowances = opened(limit(raised, window="minute", amount=60, each=each))
    passes(allowances, 600, ends - 1)
    assert isinstance(ask(allowances, 1, ends + 5 * MINUTE), LimitRefusal)
    passes(allowances, 1, ends + 9 * MINUTE + 2 * SECOND)


def test_the_end_of_a_call_drains_nothing_at_a_pace_that_has_ended() -> None:
    """A call settles long after a raise; nobody has looked at its limit since, only at others."""
    ends = NOON + 10 * SECOND
    raised = Terms(algorithm="smooth", raises=(Raise(600, NOON, ends),))
    sales = limit(id="lim_2", selector={"team": "sales"})
    allowances = opened(limit(raised, window="minute", amount=60, selector={"team": "research"}), sales)
    running = passes(allowances, 600, ends - 1)
    passes(allowances, 1, ends + 5 * MINUTE, ANN._replace(team="sales"))
    assert allowances.settle(running, Amounts(usd=600))
    assert isinstance(ask(allowances, 1, ends + 5 * MINUTE), LimitRefusal)
