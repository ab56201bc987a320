"""Admission: all allowances or none, never above a limit, and a refusal that tells the truth."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faregate.core.amounts import NOTHING, Amounts
from faregate.core.attribution import Attribution, dimension
from faregate.core.limits.admit import (
    UNLIMITED,
    Allowances,
    CompiledLimit,
    LimitIndex,
    LimitRefusal,
    Reservation,
    Standing,
    View,
)
from faregate.core.limits.windows import HOUR, MINUTE, SECOND, window_of
from soaking import examples

#: Noon of a Monday in the middle of a month.
NOON = 1_789_387_200 * SECOND

ANN = Attribution(organization="default", team="research", user="ann", key="key_1", end_user="eu_1")
BOB = ANN._replace(user="bob", key="key_2", end_user="eu_2")


@lru_cache(maxsize=64)
def standings_of(index: LimitIndex) -> dict[Attribution, Standing]:
    """Whoever asks keeps its standing while the limits stay the same, as the gate does."""
    return {}


def limit(id: str = "lim_1", **fields: Any) -> CompiledLimit:
    """A hard lifetime limit of 100 nano-dollars on everything, unless ``fields`` say otherwise."""
    return CompiledLimit(
        **{"id": id, "selector": {}, "each": (), "unit": "usd", "amount": 100, "window": "lifetime", **fields}
    )


def opened(*limits: CompiledLimit, now: int = NOON, each_max: int = 1000) -> Allowances:
    """Allowances that work by these limits, with nothing spent so far."""
    allowances = Allowances(each_max)
    for id in allowances.replace_limits(LimitIndex(limits), now):
        allowances.open_balance(id, [], now)
    return allowances


def ask(
    allowances: Allowances, amounts: Amounts, who: Attribution = ANN, now: int = NOON
) -> Reservation | LimitRefusal:
    """Reserve on every limit that matches, by a standing that is kept as long as the limits stay the same."""
    index = allowances._index
    standings = standings_of(index)
    if who not in standings:
        standings[who] = Standing(who, index.matching(who))
    return allowances.reserve("req_1", standings[who], amounts, now)


def admitted(allowances: Allowances, amounts: Amounts, who: Attribution = ANN, now: int = NOON) -> Reservation:
    """Reserve what fits."""
    outcome = ask(allowances, amounts, who, now)
    assert isinstance(outcome, Reservation)
    return outcome


def refused(allowances: Allowances, amounts: Amounts, who: Attribution = ANN, now: int = NOON) -> LimitRefusal:
    """Reserve what does not fit."""
    outcome = ask(allowances, amounts, who, now)
    assert isinstance(outcome, LimitRefusal)
    return outcome


def spent(allowances: Allowances, now: int = NOON) -> dict[tuple[str, tuple[str, ...]], tuple[int, int]]:
    """(Limit, subject) → (posted, held)."""
    return {(view.limit, view.subject): (view.posted, view.held) for view in allowances.views(now)}


# -- one limit ---------------------------------------------------------------------------------------------------------


def test_exactly_what_fits_is_admitted() -> None:
    """A limit can be reached to the last nano-dollar and not exceeded by one."""
    allowances = opened(limit())
    for _ in range(10):
        admitted(allowances, Amounts(usd=10))
    refusal = refused(allowances, Amounts(usd=1))
    assert (refusal.amount, refusal.posted, refusal.held, refusal.wanted) == (100, 0, 100, 1)


def test_what_was_not_used_comes_back() -> None:
    """Settling frees the hold and posts what was used."""
    allowances = opened(limit())
    allowances.settle(admitted(allowances, Amounts(usd=100)), Amounts(usd=30))
    assert allowances.room(Standing(ANN, allowances._index), NOON).usd == 70
    assert spent(allowances) == {("lim_1", ()): (30, 0)}


def test_a_released_hold_leaves_nothing() -> None:
    """A call that was never sent costs nothing."""
    allowances = opened(limit())
    assert allowances.release(admitted(allowances, Amounts(usd=100)))
    assert spent(allowances) == {("lim_1", ()): (0, 0)}


@pytest.mark.parametrize("first", ["settle", "release"])
@pytest.mark.parametrize("second", ["settle", "release"])
def test_a_reservation_ends_once(first: str, second: str) -> None:
    """The first end counts; a second one is told that it changed nothing."""
    allowances = opened(limit())
    reservation = admitted(allowances, Amounts(usd=50))
    ends = {
        "settle": lambda: allowances.settle(reservation, Amounts(usd=20)),
        "release": lambda: allowances.release(reservation),
    }
    assert ends[first]() is True
    after = spent(allowances), allowances.held_total_usd, allowances.open_count
    assert ends[second]() is False
    assert (spent(allowances), allowances.held_total_usd, allowances.open_count) == after


def test_an_overrun_blocks() -> None:
    """A provider that billed more than its cap leaves the allowance over, and nothing more is admitted."""
    allowances = opened(limit())
    allowances.settle(admitted(allowances, Amounts(usd=100)), Amounts(usd=130))
    assert refused(allowances, Amounts(usd=0)).posted == 130
    assert allowances.room(Standing(ANN, allowances._index), NOON).usd == 0


def test_an_amount_of_zero_admits_nothing() -> None:
    """A limit of 0 is a ban, and waiting does not lift it."""
    refusal = refused(opened(limit(amount=0, window="minute")), Amounts(usd=1))
    assert (refusal.impossible, refusal.retry_after_s) == (True, None)


@pytest.mark.parametrize("fields", [{"mode": "soft"}, {"amount": None}])
def test_what_does_not_bind_still_counts(fields: dict[str, Any]) -> None:
    """Soft and unlimited limits refuse nobody and count everything."""
    allowances = opened(limit(**fields))
    allowances.settle(admitted(allowances, Amounts(usd=10**17)), Amounts(usd=10**17))
    assert spent(allowances) == {("lim_1", ()): (10**17, 0)}
    assert allowances.room(Standing(ANN, allowances._index), NOON) == Amounts(*[UNLIMITED] * 9)


def test_concurrency_comes_back() -> None:
    """A slot is held while a call runs and free afterwards; the next one may try again at once."""
    allowances = opened(limit(unit="concurrency", window="", amount=1))
    reservation = admitted(allowances, Amounts(concurrency=1))
    refusal = refused(allowances, Amounts(concurrency=1))
    assert (refusal.code, refusal.retry_after_s, refusal.resets_at) == ("concurrency_limited", 1, 0)
    allowances.settle(reservation, Amounts(requests=1))
    admitted(allowances, Amounts(concurrency=1))


def test_the_wait_is_true() -> None:
    """After exactly the named wait the refused call fits; a second before it does not."""
    allowances = opened(limit(unit="requests", amount=1, window="minute"))
    admitted(allowances, Amounts(requests=1), now=NOON + 1)
    refusal = refused(allowances, Amounts(requests=1), now=NOON + 1)
    assert refusal.retry_after_s == 60
    refused(allowances, Amounts(requests=1), now=NOON + 1 + 59 * SECOND)
    admitted(allowances, Amounts(requests=1), now=NOON + 1 + 60 * SECOND)


def test_holds_alone_are_a_short_wait() -> None:
    """Where what is posted leaves room and only calls under way do not, the wait is theirs and not the window's."""
    allowances = opened(limit(unit="tokens", amount=100, window="minute"))
    first = admitted(allowances, Amounts(tokens=80), now=NOON)
    assert refused(allowances, Amounts(tokens=50), now=NOON).retry_after_s == 1
    allowances.settle(first, Amounts(tokens=70))
    assert refused(allowances, Amounts(tokens=50), now=NOON).retry_after_s == 60


def test_a_limit_is_tight_by_the_calls_it_has_room_for() -> None:
    """A dollar limit with room for fewer than ten thousand such calls is tight; with more, not every call asks."""
    allowances = opened(limit("lim_1", amount=1_000_000), limit("lim_2", unit="requests", amount=3))
    standing = Standing(ANN, allowances._index)
    assert allowances.tight(standing, Amounts(usd=101), NOON)
    assert standing.roomy_for == 0
    assert not allowances.tight(standing, Amounts(usd=10), NOON)
    assert standing.roomy_for == 10


def test_a_lifetime_limit_has_no_wait() -> None:
    """Nothing frees by itself where the window never ends."""
    allowances = opened(limit())
    allowances.settle(admitted(allowances, Amounts(usd=100)), Amounts(usd=100))
    refusal = refused(allowances, Amounts(usd=1))
    assert (refusal.code, refusal.retry_after_s, refusal.resets_at, refusal.impossible) == (
        "budget_exhausted",
        None,
        0,
        False,
    )


# -- several limits ----------------------------------------------------------------------------------------------------


def test_all_or_none() -> None:
    """A call that does not fit the last limit holds nothing on the first."""
    allowances = opened(limit("lim_1"), limit("lim_2", selector={"team": "research"}, amount=5))
    refused(allowances, Amounts(usd=6))
    assert spent(allowances) == {("lim_1", ()): (0, 0), ("lim_2", ()): (0, 0)}
    assert (allowances.held_total_usd, allowances.open_count) == (0, 0)


def test_the_limit_that_frees_last_is_named() -> None:
    """With several limits in the way, the wait is that of the last to free, and the others are listed."""
    allowances = opened(
        limit("lim_1", unit="requests", amount=1, window="minute"),
        limit("lim_2", unit="requests", amount=1, window="hour"),
        limit("lim_3", unit="concurrency", amount=1, window=""),
        limit("lim_4", unit="requests", amount=2, window="minute"),
    )
    admitted(allowances, Amounts(requests=1, concurrency=1))
    refusal = refused(allowances, Amounts(requests=1, concurrency=1))
    assert (refusal.limit.id, refusal.others, refusal.retry_after_s) == ("lim_2", ("lim_1", "lim_3"), 3600)


def test_a_call_too_large_for_a_limit_is_told_so_first() -> None:
    """No wait helps where the call alone exceeds the amount."""
    allowances = opened(limit("lim_1", amount=10), limit("lim_2", amount=100))
    allowances.settle(admitted(allowances, Amounts(usd=1)), Amounts(usd=1))
    refusal = refused(allowances, Amounts(usd=100))
    assert (refusal.limit.id, refusal.impossible, refusal.others) == ("lim_1", True, ("lim_2",))


def test_room_is_the_least_that_is_left() -> None:
    """Per unit the tightest hard limit tells how much more fits."""
    allowances = opened(
        limit("lim_1", amount=100),
        limit("lim_2", amount=40),
        limit("lim_3", unit="tokens", amount=1000, window="minute"),
        limit("lim_4", unit="output_tokens", amount=7, window="minute", mode="soft"),
    )
    admitted(allowances, Amounts(usd=10, tokens=300))
    room = allowances.room(Standing(ANN, allowances._index), NOON)
    assert room == Amounts(*[UNLIMITED] * 9)._replace(usd=30, tokens=700)


def test_what_fits_the_room_is_admitted() -> None:
    """Reserving exactly the room succeeds, and one more is refused."""
    allowances = opened(limit("lim_1", amount=100), limit("lim_2", amount=40))
    admitted(allowances, Amounts(usd=10))
    admitted(allowances, Amounts(usd=allowances.room(Standing(ANN, allowances._index), NOON).usd))
    refused(allowances, Amounts(usd=1))


# -- each --------------------------------------------------------------------------------------------------------------


def test_each_value_has_its_own_allowance() -> None:
    """What one user spends does not take from another."""
    allowances = opened(limit(each=("user",)))
    admitted(allowances, Amounts(usd=100), ANN)
    admitted(allowances, Amounts(usd=60), BOB)
    assert refused(allowances, Amounts(usd=41), BOB).subject == ("bob",)
    assert spent(allowances) == {("lim_1", ("ann",)): (0, 100), ("lim_1", ("bob",)): (0, 60)}


def test_callers_without_a_value_share_an_allowance() -> None:
    """Leaving the header out is no way around a limit per end user."""
    allowances = opened(limit(each=("end_user", "tag.env")))
    nobody = ANN._replace(end_user="")
    admitted(allowances, Amounts(usd=100), nobody)
    assert refused(allowances, Amounts(usd=1), nobody).subject == ("", "")


def test_refused_calls_leave_no_counter() -> None:
    """Made-up end users cannot fill the memory with calls that are refused."""
    allowances = opened(limit(each=("end_user",), amount=5))
    for number in range(50):
        refused(allowances, Amounts(usd=6), ANN._replace(end_user=f"eu_{number}"))
    assert (allowances.counters, spent(allowances)) == (0, {})


def test_too_many_values_are_refused() -> None:
    """Beyond the bound on counters new values are refused, and known ones go on."""
    allowances = opened(limit(each=("end_user",)), each_max=3)
    for number in range(3):
        admitted(allowances, Amounts(usd=1), ANN._replace(end_user=f"eu_{number}"))
    refusal = refused(allowances, Amounts(usd=1), ANN._replace(end_user="eu_3"))
    assert (refusal.code, refusal.limit.id) == ("too_many_values", "lim_1")
    assert spent(allowances)[("lim_1", ("eu_0",))] == (0, 1)
    admitted(allowances, Amounts(usd=1), ANN._replace(end_user="eu_0"))


def test_too_many_values_hold_nothing() -> None:
    """Two limits need a counter each: where one is missing, neither is kept nor held on."""
    allowances = opened(limit("lim_1", each=("end_user",)), limit("lim_2", each=("user",)), each_max=1)
    assert refused(allowances, Amounts(usd=1)).code == "too_many_values"
    assert (allowances.counters, spent(allowances)) == (0, {})


def test_counters_of_past_windows_make_room() -> None:
    """Ever new end users every minute need no more memory than one minute's worth, also of limits gone quiet."""
    quiet = limit("lim_1", selector={"team": "once"}, each=("end_user",), window="minute", unit="requests")
    busy = limit("lim_2", selector={"team": "research"}, each=("end_user",), window="minute", unit="requests")
    allowances = opened(quiet, busy, each_max=40)
    for number in range(20):
        admitted(allowances, Amounts(requests=1), Attribution(team="once", end_user=f"eu_{number}"))
    for minute in range(1, 20):
        for number in range(20):
            who = ANN._replace(end_user=f"eu_{minute}_{number}")
            allowances.settle(admitted(allowances, Amounts(requests=1), who, NOON + minute * MINUTE), Amounts())
    assert allowances.counters <= 40


# -- windows -----------------------------------------------------------------------------------------------------------


def test_a_call_is_charged_to_the_window_that_admitted_it() -> None:
    """A hold taken before the window ended does not weigh on the next one, nor does its charge."""
    allowances = opened(limit(window="minute"))
    reservation = admitted(allowances, Amounts(usd=100), now=NOON + 59 * SECOND)
    admitted(allowances, Amounts(usd=100), now=NOON + 60 * SECOND)
    allowances.settle(reservation, Amounts(usd=70))
    assert spent(allowances, NOON + 61 * SECOND) == {("lim_1", ()): (0, 100)}


def test_windows_end_in_the_limit_s_own_time_zone() -> None:
    """A day of Berlin ends at ten in the evening UTC while it has summer time."""
    allowances = opened(limit(window="day", zone=ZoneInfo("Europe/Berlin")))
    admitted(allowances, Amounts(usd=100), now=NOON)
    assert refused(allowances, Amounts(usd=1), now=NOON + 10 * HOUR - 1).retry_after_s == 1
    admitted(allowances, Amounts(usd=100), now=NOON + 10 * HOUR)


def test_a_clock_set_back_does_not_open_a_spent_window_again() -> None:
    """Time stands still until the clock has caught up, and holds stay where they were."""
    allowances = opened(limit(window="minute"))
    admitted(allowances, Amounts(usd=100), now=NOON + HOUR)
    assert refused(allowances, Amounts(usd=1), now=NOON).held == 100
    assert ask(allowances, NOTHING, now=NOON - HOUR).__class__ is Reservation
    assert admitted(allowances, NOTHING, now=NOON).admitted_at == NOON + HOUR


def test_views_show_the_current_window() -> None:
    """A window that ended without a call is not shown any more."""
    allowances = opened(limit("lim_1", window="minute"), limit("lim_2", each=("user",), window="minute"))
    admitted(allowances, Amounts(usd=5))
    later = NOON + 5 * MINUTE
    assert list(allowances.views(later, ["lim_1", "lim_2", "lim_3"])) == [
        View("lim_1", (), 0, 0, later, later + MINUTE, 100)
    ]


# -- changes -----------------------------------------------------------------------------------------------------------


def test_raising_acts_at_once_and_keeps_what_was_counted() -> None:
    """A higher amount admits more of the same window."""
    allowances = opened(limit(amount=100))
    admitted(allowances, Amounts(usd=100))
    assert allowances.replace_limits(LimitIndex([limit(amount=130)]), NOON) == ()
    admitted(allowances, Amounts(usd=30))
    refused(allowances, Amounts(usd=1))


def test_lowering_never_cancels_holds() -> None:
    """A lower amount stops new calls and leaves the running ones their holds."""
    allowances = opened(limit(amount=100))
    reservation = admitted(allowances, Amounts(usd=80))
    allowances.replace_limits(LimitIndex([limit(amount=10)]), NOON)
    assert refused(allowances, Amounts(usd=1)).held == 80
    allowances.settle(reservation, Amounts(usd=5))
    admitted(allowances, Amounts(usd=5))
    refused(allowances, Amounts(usd=1))


def test_a_new_limit_admits_nothing_until_its_balance_is_known() -> None:
    """A limit made mid-window waits for what the window had spent before it existed."""
    allowances = opened()
    assert allowances.replace_limits(LimitIndex([limit(window="month")]), NOON) == ("lim_1",)
    refusal = refused(allowances, Amounts(usd=1))
    assert (refusal.code, refusal.retry_after_s) == ("limit_pending", 1)
    start, _ = window_of("month", None, NOON)
    assert allowances.open_balance("lim_1", [((), start, 60)], NOON)
    assert allowances.pending() == ()
    admitted(allowances, Amounts(usd=40))
    refused(allowances, Amounts(usd=1))


def test_a_new_soft_limit_stops_nobody() -> None:
    """A limit that refuses nothing need not wait for its balance."""
    allowances = opened()
    allowances.replace_limits(LimitIndex([limit(mode="soft")]), NOON)
    admitted(allowances, Amounts(usd=1))


def test_a_new_limit_starts_with_the_open_holds_it_applies_to() -> None:
    """Calls that run when a limit is made count in it: now as holds, later as what they post."""
    allowances = opened()
    mine, other = admitted(allowances, Amounts(usd=70)), admitted(allowances, Amounts(usd=90), BOB)
    new = limit(selector={"key": "key_1"}, each=("user",))
    allowances.replace_limits(LimitIndex([new]), NOON + 1)
    allowances.open_balance("lim_1", [], NOON + 1)
    assert spent(allowances) == {("lim_1", ("ann",)): (0, 70)}
    allowances.settle(mine, Amounts(usd=60))
    allowances.settle(other, Amounts(usd=60))
    assert spent(allowances) == {("lim_1", ("ann",)): (60, 0)}


def test_a_new_limit_leaves_calls_of_past_windows_alone() -> None:
    """A call admitted in an earlier window belongs to that window, whenever the limit was made."""
    allowances = opened()
    reservation = admitted(allowances, Amounts(usd=70))
    later = NOON + 2 * MINUTE
    allowances.replace_limits(LimitIndex([limit(window="minute")]), later)
    allowances.open_balance("lim_1", [((), NOON, 70)], later)
    allowances.settle(reservation, Amounts(usd=70))
    assert spent(allowances, later) == {("lim_1", ()): (0, 0)}


def test_a_balance_is_opened_once() -> None:
    """A repeated message does not post twice, and one for a limit that is gone posts nothing."""
    allowances = opened()
    allowances.replace_limits(LimitIndex([limit()]), NOON)
    assert allowances.open_balance("lim_1", [((), 0, 60)], NOON) is True
    assert allowances.open_balance("lim_1", [((), 0, 60)], NOON) is False
    assert allowances.open_balance("lim_2", [((), 0, 60)], NOON) is False
    assert spent(allowances) == {("lim_1", ()): (60, 0)}


def test_another_selector_under_the_same_id_is_a_new_limit() -> None:
    """What was counted for somebody else is not taken over."""
    allowances = opened(limit(selector={"team": "research"}))
    reservation = admitted(allowances, Amounts(usd=50))
    assert allowances.replace_limits(LimitIndex([limit(selector={"user": "bob"})]), NOON) == ("lim_1",)
    allowances.open_balance("lim_1", [], NOON)
    allowances.settle(reservation, Amounts(usd=50))
    assert spent(allowances) == {("lim_1", ()): (0, 0)}


def test_a_removed_limit_binds_nobody() -> None:
    """Open reservations end as usual when a limit is gone."""
    allowances = opened(limit(each=("user",)))
    reservation = admitted(allowances, Amounts(usd=100))
    allowances.replace_limits(LimitIndex(), NOON)
    assert allowances.settle(reservation, Amounts(usd=1100))
    assert (spent(allowances), allowances.held_total_usd, allowances.open_count) == ({}, 0, 0)


def test_counters_of_a_removed_limit_are_dropped() -> None:
    """Removing a limit gives its memory back as new counters are made."""
    allowances = opened(limit("lim_1", each=("end_user",)), each_max=10)
    for number in range(10):
        admitted(allowances, Amounts(usd=1), ANN._replace(end_user=f"eu_{number}"))
    index = LimitIndex([limit("lim_2", each=("key",))])
    allowances.replace_limits(index, NOON)
    allowances.open_balance("lim_2", [], NOON)
    # The open calls take one counter of the new limit: they are all of one key.
    for number in range(9):
        admitted(allowances, Amounts(usd=1), ANN._replace(key=f"new_{number}"))
    assert allowances.counters == 10


# -- unknowns ----------------------------------------------------------------------------------------------------------


def test_an_unknown_keeps_its_money_and_frees_its_slot() -> None:
    """After a crash money stays held until the outcome is learnt; the slot died with the process."""
    allowances = opened(limit("lim_1"), limit("lim_2", unit="concurrency", window="", amount=1))
    unknown = allowances.hold_unknown("req_0", ANN, Amounts(usd=100, concurrency=1), NOON - HOUR, NOON)
    assert spent(allowances) == {("lim_1", ()): (0, 100), ("lim_2", ()): (0, 0)}
    assert (allowances.held_total_usd, allowances.unknown_total_usd, allowances.unknown_count) == (0, 100, 1)
    refused(allowances, Amounts(usd=1))
    allowances.settle(unknown, Amounts(usd=20, requests=1))
    assert spent(allowances) == {("lim_1", ()): (20, 0), ("lim_2", ()): (0, 0)}
    assert (allowances.unknown_total_usd, allowances.unknown_count) == (0, 0)


def test_an_unknown_is_held_even_where_it_does_not_fit() -> None:
    """It was admitted once; a limit lowered since does not make its money free."""
    allowances = opened(limit(amount=10))
    allowances.hold_unknown("req_0", ANN, Amounts(usd=100), NOON, NOON)
    assert spent(allowances) == {("lim_1", ()): (0, 100)}


def test_an_unknown_of_a_past_window_weighs_on_no_new_one() -> None:
    """It is charged to the window that admitted it."""
    allowances = opened(limit(window="minute"))
    unknown = allowances.hold_unknown("req_0", ANN, Amounts(usd=100), NOON - MINUTE, NOON)
    assert spent(allowances) == {("lim_1", ()): (0, 0)}
    assert allowances.settle(unknown, Amounts(usd=100))
    assert spent(allowances) == {("lim_1", ()): (0, 0)}


# -- against an independent model --------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One admitted call of the model: amounts held, and posted once it ended."""

    who: Attribution
    at: int
    held: Amounts
    posted: Amounts | None


def model_spent(entries: Iterable[Entry], limit: CompiledLimit, who: Attribution, now: int) -> int:
    """Posted plus held by every call that counts in the window of ``now`` for the subject of ``who``."""
    start, end = window_of(limit.window, limit.zone, now)
    total = 0
    for entry in entries:
        counts = all(dimension(entry.who, name) == value for name, value in limit.selector)
        same = all(dimension(entry.who, name) == dimension(who, name) for name in limit.each)
        if counts and same and entry.at >= start and (end == 0 or entry.at < end):
            total += (entry.held if entry.posted is None else entry.posted)[limit.unit]
    return total


small = st.integers(0, 6)
amounts_of = st.builds(Amounts, usd=small, tokens=small, requests=st.just(1), concurrency=st.just(1))
people = st.builds(
    Attribution, team=st.sampled_from("ab"), user=st.sampled_from("xyz"), end_user=st.sampled_from(("", "p", "q"))
)
some_limits = st.lists(
    st.builds(
        lambda selector, each, unit, amount, window, mode, zone: {
            "selector": selector,
            "each": each,
            "unit": unit,
            "amount": amount,
            "window": "" if unit == "concurrency" else window,
            "mode": mode,
            "zone": zone,
        },
        st.dictionaries(st.sampled_from(("team", "user")), st.sampled_from("abx"), max_size=1),
        st.lists(st.sampled_from(("user", "end_user", "team")), max_size=2, unique=True),
        st.sampled_from(("usd", "tokens", "requests", "concurrency")),
        st.one_of(st.none(), st.integers(0, 15)),
        st.sampled_from(("second", "minute", "hour", "day", "lifetime")),
        st.sampled_from(("hard", "hard", "hard", "soft")),
        st.sampled_from((None, ZoneInfo("Asia/Kolkata"))),
    ),
    max_size=5,
).map(lambda rows: [limit(f"lim_{n}", **row) for n, row in enumerate(rows)])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), people, amounts_of),
        st.tuples(st.just("settle"), st.integers(0, 30), small),
        st.tuples(st.just("release"), st.integers(0, 30), small),
        st.tuples(st.just("wait"), st.sampled_from((1, SECOND // 2, 20 * SECOND, 25 * MINUTE)), small),
    ),
    max_size=40,
)


@settings(max_examples=examples(50, 2_000), deadline=None)
@given(limits=some_limits, steps=steps)
def test_a_model_that_adds_everything_up_agrees(limits: list[CompiledLimit], steps: list[tuple[Any, ...]]) -> None:
    """Calls are admitted exactly when they fit every hard limit by the sum over all calls so far."""
    allowances = opened(*limits)
    now, entries, reservations = NOON, list[Entry](), list[Reservation]()
    for step, first, second in steps:
        if step == "wait":
            now += first
        elif step == "ask":
            matching = [limit for limit in limits if all(dimension(first, n) == v for n, v in limit.selector)]
            binding = {
                limit.id
                for limit in matching
                if limit.hard
                and limit.amount is not None
                and model_spent(entries, limit, first, now) + second[limit.unit] > limit.amount
            }
            outcome = ask(allowances, second, first, now)
            if isinstance(outcome, Reservation):
                assert binding == set()
                entries.append(Entry(first, now, second, None))
                reservations.append(outcome)
            else:
                assert {outcome.limit.id, *outcome.others} == binding
                assert outcome.posted + outcome.held == model_spent(entries, outcome.limit, first, now)
                assert (outcome.wanted, outcome.amount) == (second[outcome.limit.unit], outcome.limit.amount)
        elif reservations:
            number = first % len(reservations)
            entry = entries[number]
            posted = NOTHING if step == "release" else entry.held._replace(usd=second, concurrency=0)
            end = allowances.release if step == "release" else lambda r, p=posted: allowances.settle(r, p)
            assert end(reservations[number]) is (entry.posted is None)
            entries[number] = entry if entry.posted is not None else entry._replace(posted=posted)
    for view in allowances.views(now):
        by_id = {limit.id: limit for limit in limits}[view.limit]
        like = Attribution()._replace(**dict(zip(by_id.each, view.subject, strict=True)))  # type: ignore[arg-type]
        assert view.posted + view.held == model_spent(entries, by_id, like, now)
    assert allowances.held_total_usd == sum(entry.held.usd for entry in entries if entry.posted is None)
