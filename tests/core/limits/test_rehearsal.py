"""A policy rehearsed: which of the past calls proposed limits refuse, and what that comes to."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.index import CompiledLimit
from faregate.core.limits.rehearsal import REORDERED_MAX, PastCall, Rehearsal
from faregate.core.limits.terms import PLAIN, Action, Terms
from faregate.core.limits.windows import HOUR, MINUTE, SECOND

#: Midnight UTC in the middle of a month.
START = 1_789_344_000 * SECOND
ANN = Attribution(organization="default", team="research", project="search", user="ann", key="key_1", model="large")
BOB = ANN._replace(team="sales", user="bob", key="key_2")


def limit(terms: Terms = PLAIN, **fields: Any) -> CompiledLimit:
    """A hard limit of 100 nano-dollars a day on everything, unless ``fields`` say otherwise."""
    usual = {"id": "lim_1", "selector": {}, "unit": "usd", "amount": 100, "window": "day"}
    return CompiledLimit(**{**usual, **fields}, terms=terms)


def call(number: int, charge: int = 10, *, at: int = START, took: int = SECOND, who: Attribution = ANN) -> PastCall:
    """A call that was charged ``charge`` and used ten times as many tokens."""
    posted = Amounts(usd=charge, tokens=10 * charge, requests=1)
    return PastCall(f"req_{number}", who, at, at + took, posted._replace(concurrency=1), posted)


def rehearsed(limits: list[CompiledLimit], calls: list[PastCall], **more: Any) -> Rehearsal:
    """All calls asked, by limits that had counted nothing before."""
    rehearsal = Rehearsal(limits, START, **more)
    for each in limits:
        rehearsal.open(each.id, ())
    for one in calls:
        rehearsal.add(one)
    rehearsal.finish()
    return rehearsal


def test_a_call_that_does_not_fit_is_refused_and_spends_nothing() -> None:
    """Of 60, 60 and 40 against 100 the second is refused, so that the third still fits."""
    found = rehearsed([limit()], [call(n, charge, at=START + n * MINUTE) for n, charge in enumerate((60, 60, 40))])
    assert (found.calls, found.charge) == (3, 160)
    assert (found.refused.calls, found.refused.charge) == (1, 60)
    assert found.refused.first_at == found.refused.last_at == START + MINUTE
    assert found.limits["lim_1"].most == (100, START, ())


def test_a_window_begins_with_what_was_posted_before() -> None:
    """What the books tell of the time before the first call counts in its window, and in no other."""
    rehearsal = Rehearsal([limit()], START + 12 * HOUR)
    rehearsal.open("lim_1", [((), START, 95)])
    rehearsal.add(call(1, at=START + 13 * HOUR))
    rehearsal.add(call(2, at=START + 25 * HOUR))
    rehearsal.finish()
    assert (rehearsal.refused.calls, rehearsal.refused.last_at) == (1, START + 13 * HOUR)


def test_concurrent_calls_hold_a_slot_for_as_long_as_they_took() -> None:
    """With two slots the third of three calls that overlap is refused, and one after their end is not."""
    slots = limit(unit="concurrency", amount=2, window="")
    times = (0, 1, 2, 12)
    found = rehearsed([slots], [call(n, at=START + at * SECOND, took=10 * SECOND) for n, at in enumerate(times)])
    assert (found.refused.calls, found.refused.first_at) == (1, START + 2 * SECOND)


def test_what_runs_is_held_with_what_it_used() -> None:
    """A call that still runs leaves as much room as if it had ended."""
    long = call(1, 70, took=HOUR)
    found = rehearsed([limit()], [long, call(2, 40, at=START + MINUTE), call(3, 30, at=START + 2 * MINUTE)])
    assert (found.refused.calls, found.refused.charge) == (1, 40)


def test_calls_are_asked_in_the_order_of_their_admission() -> None:
    """Records that come in the order in which calls began are put right before they ask."""
    calls = [call(n, at=START + n * SECOND) for n in range(200)]
    mixed = [each for start in range(0, 200, 20) for each in reversed(calls[start : start + 20])]
    rate = limit(unit="requests", amount=10, window="minute")
    assert rehearsed([rate], mixed).refused.calls == rehearsed([rate], calls).refused.calls == 160


def test_refusals_are_told_by_limit_payer_and_subject() -> None:
    """A call that two limits refuse counts for both of them, and once in all."""
    each_user = limit(id="lim_users", each=("user",), amount=20)
    total = limit(id="lim_total", amount=50)
    calls = [call(n, at=START + n * MINUTE, who=BOB if n % 4 == 3 else ANN) for n in range(8)]
    found = rehearsed([each_user, total], calls)
    assert found.refused.calls == 4
    assert {name: one.refused.calls for name, one in found.limits.items()} == {"lim_users": 4, "lim_total": 0}
    assert {who: one.calls for who, one in found.limits["lim_users"].subjects.items()} == {("ann",): 4}
    assert {who: one.calls for who, one in found.payers["team"].items()} == {"research": 4}
    assert found.limits["lim_users"].most == (20, START, ("ann",))


def test_limits_that_do_not_concern_a_call_do_not_count_it() -> None:
    """The calls of a limit are those that it applies to."""
    found = rehearsed([limit(selector={"team": "sales"}, amount=0)], [call(1), call(2, who=BOB)])
    assert (found.limits["lim_1"].concerned, found.refused.calls, found.calls) == (1, 1, 2)


def test_a_shadow_limit_refuses_nobody_and_tells_whom_it_would_have() -> None:
    """What it would have refused is spent all the same."""
    found = rehearsed([limit(mode="shadow", amount=15)], [call(n, at=START + n * MINUTE) for n in range(4)])
    assert (found.refused.calls, found.limits["lim_1"].shadowed.calls) == (0, 3)
    assert found.limits["lim_1"].most[0] == 40


@pytest.mark.parametrize(("mode", "amount"), [("soft", 0), ("hard", None)])
def test_limits_that_stop_nobody_tell_how_much_they_would_have_counted(mode: str, amount: int | None) -> None:
    """Soft and unlimited ones say what was used most, which is how an amount is found."""
    found = rehearsed([limit(mode=mode, amount=amount)], [call(n, at=START + n * MINUTE) for n in range(4)])
    assert (found.refused.calls, found.limits["lim_1"].most[0]) == (0, 40)


def test_calls_of_a_downgrade_cost_what_the_cheaper_model_would() -> None:
    """From half of the amount on a call costs a tenth, which leaves room for more of them."""
    cheaper = limit(Terms(actions=(Action("downgrade", 50, to="small"),)))
    calls = [call(n, 50, at=START + n * MINUTE) for n in range(4)]
    found = rehearsed([cheaper], calls, price_as=lambda one, action: one.posted.usd // 10)
    told = found.limits["lim_1"]
    assert (found.refused.calls, told.downgraded, told.downgraded_charge, told.saved) == (0, 3, 150, 135)
    assert told.most[0] == 65


def test_a_downgrade_without_a_price_is_counted_and_changes_nothing() -> None:
    """Where no price tells what the other model costs, the calls ask as they are."""
    cheaper = limit(Terms(actions=(Action("downgrade", 50, to="small"),)))
    found = rehearsed([cheaper], [call(n, 50, at=START + n * MINUTE) for n in range(3)])
    told = found.limits["lim_1"]
    assert (told.downgraded, told.unpriced, told.saved, found.refused.calls) == (1, 1, 0, 1)


def test_rolling_limits_are_rehearsed_like_any_other() -> None:
    """Within any minute at most three, whatever the calendar says."""
    rolling = limit(unit="requests", amount=3, window="rolling 60s")
    found = rehearsed([rolling], [call(n, at=START + n * 15 * SECOND) for n in range(9)])
    assert found.refused.calls == 2


@given(st.integers(0, 10**6), st.integers(1, 400))
def test_a_rehearsal_never_spends_more_than_the_limit(seed: int, amount: int) -> None:
    """What is admitted of any traffic stays within the amount of every window, and all calls are accounted for."""
    chance = random.Random(seed)
    calls = [
        call(n, chance.randrange(60), at=START + chance.randrange(3 * HOUR), took=chance.randrange(20 * MINUTE))
        for n in range(60)
    ]
    hourly = limit(amount=amount, window="hour")
    found = rehearsed([hourly], sorted(calls, key=lambda one: one.id))
    assert found.limits["lim_1"].most[0] <= amount
    assert found.calls == found.limits["lim_1"].concerned == 60
    by_hand = refused_by_hand(sorted(calls, key=lambda one: (one.admitted_at, one.id)), amount)
    assert found.refused.calls == by_hand


def refused_by_hand(calls: list[PastCall], amount: int) -> int:
    """Refusals of an hourly limit, worked out call by call."""
    refused = 0
    spent: dict[int, int] = {}
    for one in calls:
        hour = one.admitted_at // HOUR
        if spent.get(hour, 0) + one.posted.usd > amount:
            refused += 1
        else:
            spent[hour] = spent.get(hour, 0) + one.posted.usd
    return refused


def test_memory_is_bounded_by_what_is_reordered() -> None:
    """However many calls come, few of them wait."""
    rehearsal = Rehearsal([limit(amount=None)], START)
    rehearsal.open("lim_1", ())
    for n in range(REORDERED_MAX + 100):
        rehearsal.add(call(n, at=START + n * SECOND))
    assert rehearsal.calls == 100
    rehearsal.finish()
    assert rehearsal.calls == REORDERED_MAX + 100
