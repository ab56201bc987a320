"""What is expected of a window: exact where spending is even, bounded where it is not, silent where nobody knows."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.limits.forecast import NEEDED_PART, forecast, runs_out_at

DAY = 86_400 * 10**9
MONTH = 30 * DAY
DOLLAR = 10**9

amounts = st.integers(min_value=0, max_value=10**18)


def test_even_spending_goes_on_evenly() -> None:
    """Ten of thirty days at four dollars a day are 120 dollars, of which a hundred last to the 25th day."""
    found = forecast(posted=40 * DOLLAR, amount=100 * DOLLAR, start=0, end=MONTH, now=10 * DAY)
    assert found == (120 * DOLLAR, 25 * DAY)


def test_what_stays_within_the_amount_does_not_run_out() -> None:
    """Exactly the amount at the very end is no more than that."""
    found = forecast(posted=40 * DOLLAR, amount=120 * DOLLAR, start=0, end=MONTH, now=10 * DAY)
    assert found == (120 * DOLLAR, 0)


def test_what_is_used_up_has_run_out_now() -> None:
    """There is no day to come for it."""
    found = forecast(posted=50, amount=40, start=0, end=MONTH, now=15 * DAY)
    assert found is not None
    assert found.runs_out_at == 15 * DAY


@pytest.mark.parametrize("now", [0, MONTH, -DAY, MONTH + DAY])
def test_at_the_edges_of_a_window_there_is_nothing_to_expect(now: int) -> None:
    """It has not begun, or it is over."""
    assert forecast(posted=1, amount=1, start=0, end=MONTH, now=now, later_before=1) is None


def test_without_history_nothing_is_said_in_the_first_twentieth() -> None:
    """A dear morning is not a month; with history it is put into proportion at once."""
    just = MONTH // NEEDED_PART
    assert forecast(posted=10, amount=100, start=0, end=MONTH, now=just - 1) is None
    assert forecast(posted=10, amount=100, start=0, end=MONTH, now=just) == (200, just + 90 * (MONTH - just) // 190)
    assert forecast(posted=0, amount=100, start=0, end=MONTH, now=1, later_before=90) is not None


@given(posted=amounts, before=st.none() | amounts, now=st.integers(1, MONTH - 1), amount=st.integers(1, 10**18))
def test_never_less_is_expected_than_is_spent(posted: int, before: int | None, now: int, amount: int) -> None:
    """And nothing runs out before now or after the window; figures stay whole numbers."""
    found = forecast(posted=posted, amount=amount, start=0, end=MONTH, now=now, later_before=before)
    if found is not None:
        assert found.expected >= posted
        assert isinstance(found.expected, int)
        assert found.runs_out_at == 0 or now <= found.runs_out_at <= MONTH
        assert bool(found.runs_out_at) == (found.expected > amount or posted >= amount)


@given(posted=amounts, more=amounts, before=st.none() | amounts, now=st.integers(1, MONTH - 1))
def test_who_has_spent_more_is_expected_to_spend_more(posted: int, more: int, before: int | None, now: int) -> None:
    """The forecast never falls where spending rises."""
    less = forecast(posted=posted, amount=1, start=0, end=MONTH, now=now, later_before=before)
    greater = forecast(posted=posted + more, amount=1, start=0, end=MONTH, now=now, later_before=before)
    if less is not None and greater is not None:
        assert greater.expected >= less.expected


@given(daily=st.integers(1, 10**12), day=st.integers(1, 29))
def test_a_steady_month_after_a_steady_month_is_foretold_exactly(daily: int, day: int) -> None:
    """With history and without it, on every day."""
    for before in (daily * (30 - day), None):
        found = forecast(posted=daily * day, amount=1, start=0, end=MONTH, now=day * DAY, later_before=before)
        if found is not None:
            assert found.expected == daily * 30


@pytest.mark.parametrize("shape", ["noisy", "growing", "weekly"])
def test_honest_months_are_foretold_within_their_bounds(shape: str) -> None:
    """After a month of the same kind: within a quarter in the second week, a fifth in the third, then a tenth."""
    chance = random.Random(7)

    def day_of(index: int) -> int:
        level = 1_000 + chance.randrange(-300, 301)
        if shape == "growing":
            level = 1_000 + 1_000 * index // 60
        if shape == "weekly":
            level = 200 if index % 7 in (5, 6) else 1_000
        return level

    days = [day_of(index) for index in range(60)]
    last, this = days[:30], days[30:]
    for day, part in ((8, 4), (15, 5), (22, 10)):
        found = forecast(
            posted=sum(this[:day]), amount=1, start=0, end=MONTH, now=day * DAY, later_before=sum(last[day:])
        )
        assert found is not None
        assert abs(found.expected - sum(this)) * part <= sum(this)


def test_a_balance_runs_out_at_its_pace() -> None:
    """Never where nothing is spent, and now where nothing is left."""
    assert runs_out_at(left=50, spent=100, over=7 * DAY, now=DAY) == DAY + 7 * DAY // 2
    assert runs_out_at(left=50, spent=0, over=7 * DAY, now=DAY) == 0
    assert runs_out_at(left=0, spent=100, over=7 * DAY, now=DAY) == DAY
