"""When a call is tried again, and after how long: Azure's waits by table, and the bounds of every wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.routing.health import SECOND
from faregate.core.routing.retry import (
    FAILOVER,
    RETRIED_REASONS,
    RETRIES_MAX,
    ROLL_MIDDLE,
    ROLL_SPREAD,
    RetryRule,
    may_retry,
    wait,
)

LEAST, MOST = ROLL_MIDDLE - ROLL_SPREAD, ROLL_MIDDLE + ROLL_SPREAD
FIXED = RetryRule(again=True, interval=2 * SECOND)
LINEAR = FIXED._replace(delta=3 * SECOND)
EXPONENTIAL = FIXED._replace(interval=SECOND, delta=SECOND, most=8 * SECOND)


@pytest.mark.parametrize(
    ("rule", "seconds"),
    [
        (FIXED, [2, 2, 2, 2, 2]),
        (LINEAR, [2, 5, 8, 11, 14]),
        (EXPONENTIAL, [2, 3, 5, 8, 8]),
        (EXPONENTIAL._replace(delta=0), [1, 1, 1, 1, 1]),
        (EXPONENTIAL._replace(interval=20 * SECOND), [8, 8, 8, 8, 8]),
        (FIXED._replace(first_fast=True), [0, 2, 2, 2, 2]),
        (LINEAR._replace(first_fast=True), [0, 5, 8, 11, 14]),
        (EXPONENTIAL._replace(first_fast=True), [0, 3, 5, 8, 8]),
    ],
)
def test_waits_are_fixed_linear_or_exponential(rule: RetryRule, seconds: list[int]) -> None:
    """The interval alone, longer by the delta, or doubling it up to a maximum; the first at once where that is said."""
    assert [wait(rule, number, ROLL_MIDDLE) for number in range(1, 6)] == [each * SECOND for each in seconds]


@pytest.mark.parametrize(
    ("rule", "number", "least", "most"),
    [
        (FIXED, 1, 1.6, 2.4),
        (LINEAR, 2, 4, 6),
        (EXPONENTIAL, 1, 1.8, 2.2),
        (EXPONENTIAL, 3, 4.2, 5.8),
        (EXPONENTIAL, 4, 7.4, 8),
        (EXPONENTIAL, 5, 8, 8),
    ],
)
def test_a_wait_is_a_fifth_shorter_or_longer_by_the_dice(
    rule: RetryRule, number: int, least: float, most: float
) -> None:
    """Where the delta doubles it is the delta alone that is rolled, and the maximum holds for what comes of it."""
    assert wait(rule, number, LEAST) == int(least * SECOND)
    assert wait(rule, number, MOST) == int(most * SECOND)


@pytest.mark.parametrize("rule", [FIXED, LINEAR, EXPONENTIAL, FIXED._replace(first_fast=True)])
@pytest.mark.parametrize(("asked", "told"), [(7, 7), (10, 10), (11, None), (86_400, None)])
def test_what_a_provider_asks_for_is_waited_for_up_to_a_bound(rule: RetryRule, asked: int, told: int | None) -> None:
    """Even where the own wait has a smaller maximum; above the bound nobody waits, and the caller is told."""
    assert wait(rule, 1, ROLL_MIDDLE, asked * SECOND) == (None if told is None else told * SECOND)


def test_a_provider_that_asks_for_less_does_not_shorten_a_wait() -> None:
    """It says what is the least."""
    assert wait(FIXED, 1, ROLL_MIDDLE, SECOND) == 2 * SECOND


NANOS = st.integers(0, 60 * SECOND)
RULES = st.builds(RetryRule, st.integers(0, RETRIES_MAX), st.booleans(), NANOS, NANOS, NANOS, st.booleans(), NANOS)


@given(RULES, st.integers(1, 100), st.integers(-(10**6), 10**6), st.integers(0, 120 * SECOND))
def test_every_wait_is_within_its_bounds(rule: RetryRule, number: int, roll: int, retry_after: int) -> None:
    """Never before the provider wants it, never longer than the rule says, whatever was rolled."""
    found = wait(rule, number, roll, retry_after)
    if retry_after > rule.wait_max:
        assert found is None
        return
    assert found is not None
    assert found >= retry_after
    if rule.most:
        longest = rule.most
    else:
        longest = (rule.interval + (number - 1) * rule.delta) * MOST // ROLL_MIDDLE
    assert found <= max(longest, retry_after)


@given(RULES, st.integers(1, 60), st.integers(LEAST, MOST), st.integers(LEAST, MOST))
def test_a_higher_roll_never_waits_less(rule: RetryRule, number: int, one: int, other: int) -> None:
    """Nor does a later round, with the same roll, but after a first one that is fast."""
    low, high = wait(rule, number, min(one, other)), wait(rule, number, max(one, other))
    later = wait(rule, number + 1, min(one, other))
    assert low is not None
    assert high is not None
    assert later is not None
    assert low <= high
    assert low <= later


@pytest.mark.parametrize(
    ("tries", "tried", "again"),
    [(0, 1, False), (1, 1, True), (1, 2, False), (5, 5, True), (5, 6, False), (RETRIES_MAX, 1, True)],
)
def test_a_call_is_tried_as_often_as_the_rule_says_after_the_first(tries: int, tried: int, again: bool) -> None:
    """None at all for 0."""
    assert may_retry(RetryRule(tries), tried, 500, "") is again


@pytest.mark.parametrize(
    ("status", "code", "again"),
    [
        (401, "", True),
        (403, "", True),
        (408, "", True),
        (429, "", True),
        (500, "", True),
        (599, "", True),
        (400, "", False),
        (404, "", False),
        (422, "", False),
        (400, "upstream_connect", False),
        (0, "upstream_connect", True),
        (0, "credential_unavailable", True),
        (0, "upstream_unsent", True),
        (0, "upstream_timeout", False),
        (0, "upstream_truncated", False),
        (0, "upstream_protocol", False),
        (0, "", False),
    ],
)
def test_what_may_have_been_billed_or_is_the_callers_fault_is_not_tried_again(
    status: int, code: str, again: bool
) -> None:
    """By the usual rule: refusals of the account, overload, and what certainly never reached the provider."""
    assert may_retry(FAILOVER, 1, status, code) is again


def test_an_operator_may_have_all_of_it_tried_again() -> None:
    """And nothing of what it does not name."""
    everything = RetryRule(statuses=((400, 404),), reasons=RETRIED_REASONS)

    assert all(may_retry(everything, 1, 0, code) for code in RETRIED_REASONS)
    assert [may_retry(everything, 1, status, "") for status in (400, 404, 405, 500)] == [True, True, False, False]
