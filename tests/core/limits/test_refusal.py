"""Which of several limits a refusal names first, and when asking again makes sense."""

from typing import Any

import pytest

from builders import MINUTE, START
from faregate.core.limits.index import CompiledLimit
from faregate.core.limits.refusal import Binding, LimitRefusal, refuse
from faregate.core.limits.terms import Action, Forced, Raise, Terms

NOW = START + 10 * 1_000_000_000
HOUR = 60 * MINUTE


#: A forecast has stopped calls, though there is room.
STOP = Action("stop", 100, "forecast")
STOPPED = {"deed": "stop", "share": 0, "posted": 50, "resets_at": START + HOUR}


def binding(
    id: str = "lim_1",
    *,
    amount: int | None = 100,
    posted: int = 90,
    held: int = 0,
    wanted: int = 20,
    resets_at: int = 0,
    unit: str = "requests",
    window: str = "day",
    deed: str = "",
    code: str = "",
    share: int | None = None,
    **limit: Any,
) -> Binding:
    """A limit that a call does not fit: 90 of 100 are used, and it wants 20 more."""
    compiled = CompiledLimit(id=id, selector={}, unit=unit, amount=amount, window=window, **limit)
    told, top = code or compiled.code, amount if share is None else share
    return Binding(compiled, told, (), posted, held, wanted, START, resets_at, top, unit, window, deed)


def refusal(*bindings: Binding) -> LimitRefusal:
    return refuse(bindings, NOW)


def test_all_limits_are_told_the_one_that_frees_last_first() -> None:
    """What never fits, then what never ends, then by the wait, then by id; what waits for a balance comes last."""
    found = refusal(
        binding("lim_pending", code="limit_pending"),
        binding("lim_hour", resets_at=START + HOUR),
        binding("lim_b", resets_at=START + MINUTE),
        binding("lim_a", resets_at=START + MINUTE),
        binding("lim_lifetime", window="lifetime"),
        binding("lim_impossible", wanted=101, resets_at=START + MINUTE),
    )
    order = ["lim_impossible", "lim_lifetime", "lim_hour", "lim_a", "lim_b", "lim_pending"]

    assert found.limit.id == order[0]
    assert [each.limit.id for each in found.bindings] == order
    assert list(found.others) == order[1:]
    assert (found.impossible, found.retry_after_s) == (True, None)


def test_of_limits_that_no_wait_frees_the_tightest_is_first() -> None:
    """The one that has room for the least part of the call, in whatever unit, before all that free some day."""
    found = refusal(
        binding("lim_a", amount=5_000, posted=0, wanted=8_000, unit="usd", resets_at=START + HOUR),
        binding("lim_b", amount=3_000, posted=0, wanted=8_000, unit="usd", window="lifetime"),
        binding("lim_c", amount=1_000, posted=0, wanted=8_000, unit="usd", resets_at=START + MINUTE),
        binding("lim_d", amount=100, posted=95, wanted=50, window="lifetime"),
        binding("lim_e", posted=100, resets_at=START + HOUR),
    )

    assert [each.limit.id for each in found.bindings] == ["lim_d", "lim_c", "lim_b", "lim_a", "lim_e"]


def test_the_wait_is_to_the_end_of_the_window_rounded_up() -> None:
    """A client that waits so long finds a new window."""
    assert refusal(binding(resets_at=START + MINUTE)).retry_after_s == 50
    assert refusal(binding(resets_at=START + MINUTE + 1)).retry_after_s == 51
    assert refusal(binding(resets_at=NOW)).retry_after_s == 1


def test_calls_under_way_are_waited_for_shortly() -> None:
    """They hold more than they mostly use, and end long before the window."""
    way = binding(unit="usd", posted=70, held=25, resets_at=START + HOUR)

    assert refusal(way).retry_after_s == 1
    assert refusal(way._replace(posted=81)).retry_after_s == 3590


@pytest.mark.parametrize(
    ("terms", "fields", "wait"),
    [
        (Terms(until=NOW + MINUTE), {"window": "lifetime"}, 60),
        (Terms(until=NOW + MINUTE), {"window": "lifetime", "amount": 0, "posted": 0}, 60),
        (Terms(until=NOW + MINUTE), {"amount": 0, "posted": 0, "resets_at": START + HOUR}, 60),
        (Terms(until=NOW + HOUR), {"resets_at": START + MINUTE}, 50),
        (Terms(until=NOW - 1), {"window": "lifetime"}, None),
        (Terms(raises=(Raise(500, NOW + MINUTE, NOW + HOUR),)), {"wanted": 400}, 60),
        (Terms(raises=(Raise(300, NOW + MINUTE, NOW + HOUR),)), {"wanted": 400}, None),
        (Terms(raises=(Raise(489, NOW + MINUTE, NOW + HOUR),)), {"wanted": 400}, None),
        (Terms(until=NOW + MINUTE), {"resets_at": START + HOUR}, 60),
        (Terms(actions=(STOP,), forced=(Forced(0, NOW + MINUTE),)), STOPPED, 60),
        (Terms(actions=(STOP,), forced=(Forced(0, NOW + 2 * HOUR),)), STOPPED, 7_200),
        (Terms(actions=(STOP,), forced=(Forced(0, NOW + 2 * HOUR),), until=NOW + MINUTE), STOPPED, 60),
        (Terms(forced=(Forced(0, NOW + MINUTE),)), {"window": "lifetime"}, None),
    ],
)
def test_a_limit_that_time_alone_eases_is_waited_for(terms: Terms, fields: dict[str, Any], wait: int | None) -> None:
    """A stop that ends, a raise that begins: where no window lets the call in, that moment does."""
    found = refusal(binding(terms=terms, **fields))

    assert found.retry_after_s == wait
    if wait == 60:
        assert (found.resets_at, found.impossible) == (NOW + MINUTE, False)


def test_a_slot_is_not_waited_for_until_its_limit_ends() -> None:
    """Another call may end at any moment."""
    slots = binding(unit="concurrency", window="", amount=5, posted=0, held=5, wanted=1, terms=Terms(until=NOW + HOUR))

    assert refusal(slots).retry_after_s == 1


@pytest.mark.parametrize(("clamps", "expected"), [((True, True), True), ((True, False), False), ((False,), False)])
def test_an_answer_is_clamped_only_where_all_that_bind_allow_it(clamps: tuple[bool, ...], expected: bool) -> None:
    """One limit that wants a refusal is enough for one."""
    assert refusal(*(binding(f"lim_{n}", clamp=clamp) for n, clamp in enumerate(clamps))).clamp is expected


def test_an_action_refuses_with_its_own_figures() -> None:
    """A throttle is a rate of requests, whatever its limit counts."""
    limit = binding(unit="usd", window="month").limit
    throttle = Binding(limit, "rate_limited", (), 2, 0, 1, NOW, NOW + 30 * 10**9, 2, "requests", "minute", "throttle")
    found = refusal(throttle)

    assert (found.amount, found.unit, found.window, found.deed) == (2, "requests", "minute", "throttle")
    assert found.retry_after_s == 30
