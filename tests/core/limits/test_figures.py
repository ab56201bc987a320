"""What is left of a caller's limits, of each unit the tightest, as headers tell it."""

from typing import Any

import pytest

from builders import MINUTE, START, attribution
from faregate.core.amounts import Amounts
from faregate.core.limits.admit import Allowances, Reservation, Standing
from faregate.core.limits.figures import Figures, Left, is_told
from faregate.core.limits.index import CompiledLimit, LimitIndex
from faregate.core.limits.terms import Action, Raise, Terms

SECOND = 1_000_000_000
CALL = Amounts(usd=30, tokens=100, input_tokens=60, output_tokens=40, requests=1, concurrency=1)


def limit(id: str, unit: str, amount: int | None, window: str = "minute", **fields: Any) -> CompiledLimit:
    return CompiledLimit(id=id, selector={}, unit=unit, amount=amount, window=window, **fields)


def opened(*limits: CompiledLimit) -> tuple[Allowances, Standing]:
    """Allowances with these limits, from balances of nothing, and somebody whom all of them concern."""
    allowances, index = Allowances(), LimitIndex(limits)
    for id in allowances.replace_limits(index, START):
        allowances.open_balance(id, (), START)
    who = attribution()
    return allowances, Standing(who, index.matching(who))


def test_holds_and_postings_are_taken_off() -> None:
    """Before the call's end its bound, after it what it used."""
    allowances, standing = opened(limit("a", "usd", 1_000), limit("b", "tokens", 500), limit("c", "requests", 5))
    before = allowances.figures(standing, START)
    held = allowances.reserve("req_1", standing, CALL, START)
    assert isinstance(held, Reservation)
    during = allowances.figures(standing, START)
    allowances.settle(held, CALL._replace(usd=10, tokens=20, concurrency=0))
    after = allowances.figures(standing, START)
    end = START + MINUTE

    assert before == Figures(Left(1_000, 1_000, end), Left(500, 500, end), Left(5, 5, end))
    assert during == Figures(Left(1_000, 970, end), Left(500, 400, end), Left(5, 4, end))
    assert after == Figures(Left(1_000, 990, end), Left(500, 480, end), Left(5, 4, end))


def test_the_fewest_left_are_told_and_of_equals_the_longest_wait() -> None:
    """Whatever the amounts are; what never ends is the longest wait of all."""
    day = START + 24 * 60 * MINUTE
    allowances, standing = opened(
        limit("a", "requests", 50), limit("b", "requests", 7, "day"), limit("c", "requests", 7),
        limit("d", "usd", 9), limit("e", "usd", 9, "lifetime"),
        limit("f", "tokens", 20), limit("g", "tokens", 40, "day"),
    )  # fmt: skip

    assert allowances.figures(standing, START) == Figures(
        Left(9, 9, 0), Left(20, 20, START + MINUTE), Left(7, 7, day), quota_tokens=Left(40, 40, day)
    )


@pytest.mark.parametrize(
    "limits",
    [
        (limit("a", "usd", 5, mode="soft"), limit("b", "usd", 5, mode="shadow"), limit("c", "usd", None)),
        (limit("a", "concurrency", 5, ""), limit("b", "input_tokens", 5), limit("c", "images", 5)),
        (limit("a", "usd", 5, terms=Terms(since=START + MINUTE)),),
        (limit("a", "usd", 5, terms=Terms(until=START)),),
    ],
)
def test_what_stops_nobody_is_not_told(limits: tuple[CompiledLimit, ...]) -> None:
    """Soft, shadow, unlimited, of units that headers do not tell, not begun yet or over."""
    allowances, standing = opened(*limits)

    assert allowances.figures(standing, START) == Figures()


def test_hidden_limits_are_left_out() -> None:
    """The next tightest is told instead."""
    allowances, standing = opened(limit("a", "usd", 5), limit("b", "usd", 8))

    assert allowances.figures(standing, START, {"a"}).usd == Left(8, 8, START + MINUTE)


def test_a_rolling_window_drops_what_is_past() -> None:
    """Nothing needs to be admitted for that."""
    allowances, standing = opened(limit("a", "requests", 5, "rolling 10s"))
    for n in range(3):
        allowances.reserve(f"req_{n}", standing, CALL, START + n * SECOND)
    now = START + 2 * SECOND

    assert allowances.figures(standing, now).requests == Left(5, 2, START + 10 * SECOND)
    # The first two calls are past by then.
    assert allowances.figures(standing, START + 11 * SECOND).requests == Left(5, 4, START + 12 * SECOND)


def test_a_bucket_that_drains_tells_what_it_takes_at_once() -> None:
    """And when it will be empty."""
    allowances, standing = opened(limit("a", "requests", 60, terms=Terms(algorithm="smooth", burst=5)))
    for n in range(3):
        allowances.reserve(f"req_{n}", standing, CALL, START)

    assert allowances.figures(standing, START).requests == Left(5, 2, START + 3 * SECOND)
    assert allowances.figures(standing, START + 2 * SECOND).requests == Left(5, 4, START + 3 * SECOND)


def test_raises_and_stops_change_what_is_left() -> None:
    """The amount in force, and the share at which an action stops calls."""
    raised = Terms(raises=(Raise(80, START, START + MINUTE),))
    allowances, standing = opened(
        limit("a", "usd", 50, "day", terms=raised),
        limit("b", "tokens", 100, "day", terms=Terms(actions=(Action("stop", 30),))),
        limit("c", "requests", 10, "day", mode="soft", terms=Terms(actions=(Action("stop", 150),))),
    )
    day = START + 24 * 60 * MINUTE
    now = allowances.figures(standing, START)

    assert now.usd == Left(80, 80, day)
    assert now.tokens == Left(100, 30, day)
    assert now.requests == Left(15, 15, day)
    assert allowances.figures(standing, START + MINUTE).usd == Left(50, 50, day)


def test_a_window_that_ends_is_told_as_the_new_one() -> None:
    """Whoever is told at its end may spend the next one."""
    allowances, standing = opened(limit("a", "usd", 100))
    allowances.reserve("req_1", standing, CALL, START)

    assert allowances.figures(standing, START).usd == Left(100, 70, START + MINUTE)
    assert allowances.figures(standing, START + MINUTE).usd == Left(100, 100, START + 2 * MINUTE)


def test_limits_that_were_replaced_are_told_while_their_window_lasts() -> None:
    """An answer may end long after the limits that admitted its call are gone."""
    allowances, standing = opened(limit("a", "usd", 100))
    allowances.reserve("req_1", standing, CALL, START)
    allowances.replace_limits(LimitIndex((limit("b", "usd", 5),)), START)

    assert allowances.figures(standing, START + MINUTE) == Figures()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, True),
        ({"mode": "soft"}, False),
        ({"mode": "shadow"}, False),
        ({"amount": None}, False),
        ({"unit": "concurrency", "window": ""}, False),
        ({"unit": "output_tokens"}, False),
        ({"unit": "requests"}, True),
        ({"amount": 0}, True),
        ({"mode": "soft", "terms": Terms(actions=(Action("stop", 150),))}, True),
        ({"mode": "soft", "terms": Terms(actions=(Action("throttle", 80, requests_per_minute=1),))}, False),
    ],
)
def test_which_limits_are_told_is_known_beforehand(fields: dict[str, Any], told: bool) -> None:
    """So that callers without one pay nothing for it."""
    assert (
        is_told(CompiledLimit(**{"id": "a", "selector": {}, "unit": "usd", "amount": 5, "window": "day", **fields}))
        is told
    )
