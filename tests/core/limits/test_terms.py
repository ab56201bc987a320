"""What the terms of a limit do to admission, one by one."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.admit import Allowances, LimitIndex, LimitRefusal, Reservation, Standing
from faregate.core.limits.index import CompiledLimit
from faregate.core.limits.term_rules import check_terms
from faregate.core.limits.terms import PLAIN, Action, Forced, Past, Raise, Spared, Terms
from faregate.core.limits.windows import HOUR, MINUTE, SECOND, window_of

#: Noon of a Monday in the middle of a month.
NOON = 1_789_387_200 * SECOND
DAY = 24 * HOUR
ANN = Attribution(organization="default", team="research", user="ann", key="key_1")
BOB = ANN._replace(user="bob", key="key_2")


def limit(terms: Terms = PLAIN, **fields: Any) -> CompiledLimit:
    """A hard limit of 100 nano-dollars a day on everything, unless ``fields`` say otherwise."""
    usual = {"id": "lim_1", "selector": {}, "unit": "usd", "amount": 100, "window": "day"}
    return CompiledLimit(**{**usual, **fields}, terms=terms)


class Gate:
    """Allowances whose balances are known, asked as the gate asks them."""

    def __init__(self, *limits: CompiledLimit, now: int = NOON) -> None:
        self.allowances = Allowances(1_000)
        self.set(*limits, now=now)

    def set(self, *limits: CompiledLimit, now: int = NOON) -> None:
        self.index = LimitIndex(limits)
        for id in self.allowances.replace_limits(self.index, now):
            self.allowances.open_balance(id, [], now)

    def standing(self, who: Attribution) -> Standing:
        return Standing(who, self.index.matching(who))

    def ask(self, amount: int, now: int = NOON, who: Attribution = ANN) -> Reservation | LimitRefusal:
        wanted = Amounts(usd=amount, tokens=amount, requests=1, concurrency=1)
        return self.allowances.reserve("req_1", self.standing(who), wanted, now)

    def passes(self, amount: int, now: int = NOON, who: Attribution = ANN) -> Reservation:
        outcome = self.ask(amount, now, who)
        assert isinstance(outcome, Reservation), outcome
        return outcome

    def spends(self, amount: int, now: int = NOON, who: Attribution = ANN) -> None:
        """A call that holds an amount and uses all of it."""
        self.allowances.settle(self.passes(amount, now, who), Amounts(usd=amount, tokens=amount, requests=1))

    def stops(self, amount: int, now: int = NOON, who: Attribution = ANN) -> LimitRefusal:
        outcome = self.ask(amount, now, who)
        assert isinstance(outcome, LimitRefusal)
        return outcome


# -- shadow ------------------------------------------------------------------------------------------------------------


def test_a_shadow_limit_lets_pass_and_remembers_whom_it_would_have_refused() -> None:
    """Nobody is refused; the call knows the limit, and the limit counts its calls."""
    gate = Gate(limit(mode="shadow"))
    assert gate.passes(90).shadowed == ()
    assert gate.passes(20).shadowed == ("lim_1",)
    assert gate.allowances.shadow_refusals == {"lim_1": 1}
    (view,) = gate.allowances.views(NOON)
    assert (view.held, view.amount) == (110, 100)


def test_a_limit_that_becomes_hard_goes_on_with_what_its_shadow_counted() -> None:
    """A rehearsed limit is switched on without a gap in its counters."""
    gate = Gate(limit(mode="shadow"))
    gate.spends(95)
    gate.set(limit())
    assert gate.stops(6).posted == 95
    gate.passes(5)


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_raise_begins_and_ends_by_the_clock() -> None:
    """Nothing has to happen at its ends; lowering cancels no hold."""
    gate = Gate(limit(Terms(raises=(Raise(150, NOON + MINUTE, NOON + HOUR),))))
    gate.passes(100)
    assert gate.stops(1, NOON + MINUTE - 1).amount == 100
    gate.passes(50, NOON + MINUTE)
    assert gate.stops(1, NOON + HOUR - 1).amount == 150
    assert gate.stops(1, NOON + HOUR).amount == 100
    assert next(iter(gate.allowances.views(NOON + HOUR))).held == 150


def test_of_several_raises_the_largest_counts_and_one_below_the_amount_lowers_nothing() -> None:
    """A raise is never a cut."""
    raises = (Raise(20, NOON, NOON + HOUR), Raise(120, NOON, NOON + HOUR), Raise(110, NOON, NOON + HOUR))
    assert Gate(limit(Terms(raises=raises))).stops(121).amount == 120
    assert Gate(limit(Terms(raises=raises[:1]))).stops(101).amount == 100


def test_a_limit_binds_from_its_beginning_until_its_end() -> None:
    """Before and after it refuses nobody; what was spent in between counts all the same."""
    gate = Gate(limit(Terms(since=NOON + MINUTE, until=NOON + HOUR), amount=0))
    gate.spends(500)
    assert gate.stops(1, NOON + MINUTE).code == "budget_exhausted"
    gate.spends(500, NOON + HOUR)


def test_what_is_left_is_carried_over_up_to_a_cap() -> None:
    """The next window begins with the rest of this one, at most so much; the one after next does not see it."""
    gate = Gate(limit(Terms(carry_max=30)))
    gate.spends(80)
    assert gate.stops(121, NOON + DAY).amount == 120
    gate.spends(60, NOON + DAY)
    assert gate.stops(131, NOON + 2 * DAY).amount == 130
    # A day without any call leaves its whole amount.
    assert gate.stops(131, NOON + 4 * DAY).amount == 130


def test_what_running_calls_hold_is_carried_over_once_they_have_settled() -> None:
    """Held money is nobody's rest; it joins the next window when its call used less."""
    gate = Gate(limit(Terms(carry_max=100)))
    running = gate.passes(100)
    assert gate.stops(101, NOON + DAY).amount == 100
    gate.allowances.settle(running, Amounts(usd=40))
    gate.passes(160, NOON + DAY)


def test_each_value_carries_its_own_rest() -> None:
    """Ann's savings are not Bob's, and who never called has saved everything."""
    gate = Gate(limit(Terms(carry_max=50), each=("user",)))
    gate.spends(90)
    assert gate.stops(111, NOON + DAY).amount == 110
    assert gate.stops(151, NOON + DAY, BOB).amount == 150


def test_nothing_is_carried_from_windows_before_the_limit_carried_over() -> None:
    """A limit that begins to carry over today has saved nothing yesterday."""
    today, _ = window_of("day", None, NOON)
    gate = Gate(limit(Terms(carry_max=50, carry_from=today)))
    assert gate.stops(101).amount == 100
    assert gate.stops(151, NOON + DAY).amount == 150


def test_the_rest_is_that_of_the_amount_which_was_in_force_then() -> None:
    """A budget that was raised today was not larger yesterday."""
    today, _ = window_of("day", None, NOON)
    gate = Gate(limit(Terms(carry_max=500, history=(Past(today, 40),)), amount=100))
    assert gate.stops(141).amount == 140


def test_the_books_tell_what_the_window_before_had_spent() -> None:
    """After a restart the rest is worked out from the balances of both windows."""
    today, _ = window_of("day", None, NOON)
    yesterday, _ = window_of("day", None, NOON - DAY)
    allowances = Allowances()
    index = LimitIndex([limit(Terms(carry_max=50))])
    allowances.replace_limits(index, NOON)
    allowances.open_balance("lim_1", [((), yesterday, 70), ((), today, 20)], NOON)
    (view,) = allowances.views(NOON)
    assert (view.posted, view.amount) == (20, 130)


def test_quarters_and_years_follow_the_fiscal_year_in_the_zone_of_the_limit() -> None:
    """A year that begins in April ends there, too, at midnight of the limit's own zone."""
    zone = ZoneInfo("Europe/Berlin")
    gate = Gate(limit(Terms(year_start="04-06"), window="year", zone=zone))
    (view,) = gate.allowances.views(NOON)
    assert (view.window_start, view.resets_at) == window_of("year", zone, NOON, "04-06")
    assert view.resets_at - view.window_start == 365 * DAY


# -- rates -------------------------------------------------------------------------------------------------------------


def test_a_rolling_window_frees_what_it_took_when_that_is_past() -> None:
    """Five requests in any ten seconds; the sixth is told when the first has gone."""
    gate = Gate(limit(unit="requests", amount=5, window="rolling 10s"))
    for second in range(5):
        gate.spends(1, NOON + second * SECOND)
    refusal = gate.stops(1, NOON + 5 * SECOND)
    assert (refusal.code, refusal.retry_after_s) == ("rate_limited", 5)
    gate.spends(1, NOON + 10 * SECOND)
    assert gate.stops(1, NOON + 10 * SECOND).retry_after_s == 1


def test_a_rolling_budget_gives_back_what_calls_did_not_use() -> None:
    """Where only running calls are in the way, trying again soon makes sense."""
    gate = Gate(limit(window="rolling 24h"))
    running = gate.passes(80)
    assert gate.stops(30).retry_after_s == 1
    gate.allowances.settle(running, Amounts(usd=10))
    gate.passes(90)


def test_a_rolling_counter_that_nobody_uses_is_dropped_and_one_in_use_is_not() -> None:
    """Counters of idle values do not stay for ever."""
    gate = Gate(limit(unit="requests", amount=5, window="rolling 10s", each=("user",)))
    gate.spends(1)
    for second in range(1, 60):
        gate.spends(1, NOON + second * 3 * SECOND, BOB)
    assert [view.subject for view in gate.allowances.views(NOON + 3 * MINUTE)] == [("bob",)]


def test_an_even_pace_lets_a_burst_through_and_then_one_by_one() -> None:
    """Sixty a minute with a burst of two: two at once, then one a second."""
    gate = Gate(limit(Terms("smooth", burst=2), unit="requests", amount=60, window="minute"))
    gate.spends(1)
    gate.spends(1)
    assert gate.stops(1).retry_after_s == 1
    gate.spends(1, NOON + SECOND)
    gate.stops(1, NOON + SECOND)


def test_more_than_a_burst_never_fits_and_is_told_so() -> None:
    """No waiting helps a call that is larger than what passes at once."""
    gate = Gate(limit(Terms("smooth", burst=40), unit="tokens", amount=100, window="minute"))
    refusal = gate.stops(41)
    assert (refusal.amount, refusal.bindings[0].remaining) == (100, 40)
    assert (refusal.retry_after_s, refusal.impossible) == (None, True)


def test_without_an_estimate_only_what_was_used_counts_and_stops_later_calls() -> None:
    """The call that goes over passes; the next one is refused."""
    gate = Gate(limit(Terms(estimate=False), unit="tokens", window="minute"))
    large = gate.passes(1_000_000)
    gate.passes(1)
    gate.allowances.settle(large, Amounts(tokens=150))
    assert gate.stops(1).posted == 150
    gate.passes(1, NOON + MINUTE)


# -- actions -----------------------------------------------------------------------------------------------------------


def test_a_stop_refuses_at_its_share_and_says_that_it_is_the_stop() -> None:
    """At 90 percent nothing more is admitted, though the budget has more."""
    gate = Gate(limit(Terms(actions=(Action("stop", 90),))))
    gate.passes(90)
    refusal = gate.stops(1)
    assert (refusal.amount, refusal.deed) == (90, "stop")


def test_a_soft_limit_can_stop_beyond_its_amount() -> None:
    """A budget that only warns may have a hard end of its own."""
    gate = Gate(limit(Terms(actions=(Action("stop", 150),)), mode="soft"))
    gate.passes(149)
    assert gate.stops(2).amount == 150


def test_a_throttle_slows_calls_down_once_its_share_is_spent() -> None:
    """Six a minute is one every ten seconds; before the share is spent nobody waits."""
    gate = Gate(limit(Terms(actions=(Action("throttle", 50, requests_per_minute=6),))))
    gate.spends(25)
    gate.spends(25)
    gate.spends(1)
    refusal = gate.stops(1)
    assert (refusal.code, refusal.unit, refusal.window, refusal.deed) == (
        "rate_limited",
        "requests",
        "minute",
        "throttle",
    )
    assert refusal.retry_after_s == 10
    gate.spends(1, NOON + 10 * SECOND)


def test_a_downgrade_is_told_once_its_share_is_spent() -> None:
    """The gate learns which model answers instead, and by which limit."""
    cheaper = Action("downgrade", 80, to="gpt-4o-mini")
    gate = Gate(limit(Terms(actions=(cheaper,))))
    assert gate.allowances.deeds(gate.standing(ANN), NOON).downgrade is None
    gate.spends(80)
    told = gate.allowances.deeds(gate.standing(ANN), NOON)
    assert (told.downgrade, told.limit) == (cheaper, "lim_1")
    assert gate.allowances.deeds(gate.standing(ANN), NOON + DAY).downgrade is None


def test_a_forecast_acts_while_the_console_says_so() -> None:
    """What a forecast decided is in force until its moment, whatever is spent."""
    forecast = Action("stop", 100, "forecast")
    forced = Terms(actions=(forecast,), forced=(Forced(0, NOON + HOUR),))
    gate = Gate(limit(Terms(actions=(forecast,))))
    gate.passes(1)
    gate.set(limit(forced))
    assert gate.stops(1).deed == "stop"
    gate.passes(1, NOON + HOUR)


# -- calls that run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["day", "rolling 24h", "lifetime"])
def test_a_running_call_holds_more_on_everything_or_on_nothing(window: str) -> None:
    """An extension that one limit has no room for leaves all others as they were."""
    gate = Gate(limit(window=window), limit(id="lim_2", window=window, amount=60))
    running = gate.passes(50)
    assert gate.allowances.extend(running, Amounts(usd=10), NOON)
    assert not gate.allowances.extend(running, Amounts(usd=10), NOON)
    assert {view.limit: view.held for view in gate.allowances.views(NOON)} == {"lim_1": 60, "lim_2": 60}
    assert gate.allowances.held_total_usd == 60
    gate.allowances.settle(running, Amounts(usd=55))
    assert {view.limit: view.posted for view in gate.allowances.views(NOON)} == {"lim_1": 55, "lim_2": 55}
    assert not gate.allowances.extend(running, Amounts(usd=1), NOON)


# -- rules -------------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"unit": "usd", "amount": 100, "window": "day", "mode": "hard"}


@pytest.mark.parametrize(
    ("terms", "changes", "field"),
    [
        (Terms("fast"), {}, "algorithm"),
        (Terms(burst=5), {}, "burst"),
        (Terms("smooth", burst=101), {}, "burst"),
        (Terms("smooth"), {"window": "month"}, "algorithm"),
        (Terms("smooth"), {"unit": "concurrency", "window": ""}, "algorithm"),
        (Terms("smooth", actions=(Action("stop", 90),)), {}, "actions"),
        (Terms(year_start="04-01"), {}, "year_start"),
        (Terms(year_start="02-30"), {"window": "year"}, "year_start"),
        (Terms(carry_max=10), {"window": "hour"}, "carry_over"),
        (Terms(carry_max=10), {"window": "rolling 24h"}, "carry_over"),
        (Terms(carry_max=-1), {}, "carry_over"),
        (Terms(carry_max=10), {"amount": None}, "carry_over"),
        (Terms(carry_max=10, estimate=False), {}, "carry_over"),
        (Terms(raises=(Raise(5, NOON, NOON),)), {}, "raises"),
        (Terms(raises=(Raise(-5, NOON, NOON + 1),)), {}, "raises"),
        (Terms(raises=(Raise(5, NOON, NOON + 1),)), {"amount": None}, "raises"),
        (Terms(raises=(Raise(5, NOON, NOON + 1),) * 33), {}, "raises"),
        (Terms(since=NOON, until=NOON), {}, "until"),
        (Terms(estimate=False), {"unit": "requests"}, "estimate"),
        (Terms(actions=(Action("shout", 50),)), {}, "actions"),
        (Terms(actions=(Action("stop", 0),)), {}, "actions"),
        (Terms(actions=(Action("stop", 101),)), {}, "actions"),
        (Terms(actions=(Action("stop", 1001),)), {"mode": "soft"}, "actions"),
        (Terms(actions=(Action("stop", 50, "guess"),)), {}, "actions"),
        (Terms(actions=(Action("stop", 50),)), {"mode": "shadow"}, "actions"),
        (Terms(actions=(Action("stop", 50), Action("stop", 50))), {}, "actions"),
        (Terms(actions=(Action("downgrade", 50),)), {}, "actions"),
        (Terms(actions=(Action("downgrade", 50, to="m", models=("m",)),)), {}, "actions"),
        (Terms(actions=(Action("stop", 50, models=("m",)),)), {}, "actions"),
        (Terms(actions=(Action("throttle", 50),)), {}, "actions"),
        (Terms(actions=(Action("notify", 50, requests_per_minute=5),)), {}, "actions"),
        (Terms(actions=tuple(Action("notify", n) for n in range(1, 10))), {}, "actions"),
    ],
)
def test_terms_that_cannot_be_are_named(terms: Terms, changes: dict[str, Any], field: str) -> None:
    """Each rule that is broken names its field, as the API calls it."""
    assert field in [fault.field for fault in check_terms(terms, **{**GOOD, **changes})]


@pytest.mark.parametrize(
    ("terms", "changes"),
    [
        (PLAIN, {}),
        (Terms("smooth", burst=100), {"window": "rolling 30s"}),
        (Terms(year_start="02-28", carry_max=5), {"window": "quarter"}),
        (Terms(raises=(Raise(500, NOON, NOON + 1),), since=NOON, until=NOON + 1), {}),
        (Terms(estimate=False), {"unit": "tokens", "window": "minute"}),
        (Terms(actions=(Action("notify", 120, "forecast"), Action("stop", 100, "forecast"))), {}),
        (Terms(actions=(Action("stop", 150), Action("throttle", 100, requests_per_minute=1))), {"mode": "soft"}),
        (Terms(actions=(Action("notify", 100),)), {"mode": "shadow"}),
    ],
)
def test_terms_that_can_be_have_no_fault(terms: Terms, changes: dict[str, Any]) -> None:
    """What the guide shows is allowed."""
    assert check_terms(terms, **{**GOOD, **changes}) == []


# -- exceptions --------------------------------------------------------------------------------------------------------


def test_who_is_an_exception_is_left_to_other_limits() -> None:
    """Three for everybody, ten for Bob, whose limit may be higher than the one for all."""
    spared = Terms(spared=(Spared(("user",), ("bob",)),))
    everybody = limit(spared, unit="requests", amount=3, each=("user",))
    bobs = limit(id="lim_2", selector={"user": "bob"}, unit="requests", amount=10)
    gate = Gate(everybody, bobs)
    for _ in range(3):
        gate.spends(1)
    assert gate.stops(1).limit.id == "lim_1"
    for _ in range(10):
        gate.spends(1, who=BOB)
    assert gate.stops(1, who=BOB).limit.id == "lim_2"


def test_an_exception_may_name_some_of_what_is_counted() -> None:
    """All of Bob's models, and one model of Ann's."""
    terms = Terms(spared=(Spared(("user",), ("bob",)), Spared(("model", "user"), ("dear", "ann"))))
    one = limit(terms, unit="requests", amount=1, each=("user", "model"))
    assert one.matches(ANN._replace(model="cheap"))
    assert not one.matches(ANN._replace(model="dear"))
    assert not one.matches(BOB._replace(model="cheap"))
    gate = Gate(one)
    gate.spends(1, who=ANN._replace(model="cheap"))
    gate.stops(1, who=ANN._replace(model="cheap"))
    for _ in range(3):
        gate.spends(1, who=ANN._replace(model="dear"))


def test_callers_that_selectors_do_not_tell_apart_are_spared_each_for_themselves() -> None:
    """What was found for one caller of a project is not taken for another one of it."""
    one = limit(Terms(spared=(Spared(("user",), ("bob",)),)), selector={"team": "research"}, each=("user",))
    index = LimitIndex([one])
    assert [index.matching(who) for who in (ANN, BOB, ANN)] == [(one,), (), (one,)]


def test_exceptions_hold_after_other_limits_changed() -> None:
    """An index that was made by changing another one knows of them, and of the last one that goes."""
    one = limit(Terms(spared=(Spared(("user",), ("bob",)),)), each=("user",))
    other = limit(id="lim_2")
    index = LimitIndex([other]).changed([one]).changed([limit(id="lim_2", amount=7)])
    assert [each.id for each in index.matching(BOB)] == ["lim_2"]
    assert {each.id for each in index.changed([limit(each=("user",))]).matching(BOB)} == {"lim_1", "lim_2"}
    assert {each.id for each in index.changed([], ["lim_2"]).matching(ANN)} == {"lim_1"}


def test_another_exception_counts_anew_from_the_books() -> None:
    """Whoever is no exception any more has used what was booked meanwhile, so its balance is asked for."""
    gate = Gate(limit(Terms(spared=(Spared(("user",), ("bob",)),)), each=("user",)))
    gate.index = LimitIndex([limit(each=("user",))])
    assert list(gate.allowances.replace_limits(gate.index, NOON)) == ["lim_1"]
    gate.stops(1, who=BOB)


def test_a_mode_that_nobody_knows_refuses() -> None:
    """Damage in the books must not make a hard limit one that lets everything pass."""
    gate = Gate(limit(mode="hrd"))
    gate.spends(100)
    gate.stops(1)
