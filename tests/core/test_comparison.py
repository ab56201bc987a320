"""How deployments are compared: percentiles by nearest rank, whatever the order and the grouping of the records."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.comparison import Comparison, EndedCall, Figures, Pairs, nearest_rank

CALL = EndedCall("m", "one", "openai", "ok", "", True, 700, 10, 50, 3_000_000, 500_000)

calls = st.builds(
    EndedCall,
    st.sampled_from(("m", "n")),
    st.sampled_from(("one", "two")),
    st.just("openai"),
    st.sampled_from(("ok", "ok", "failed", "aborted", "cut")),
    st.sampled_from(("", "lim_1")),
    st.booleans(),
    st.integers(0, 10**12),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
)
#: A call, whether it is a copy, and the original of one that is.
looked_at = st.tuples(calls, st.booleans(), st.none() | calls)


def of(found: list[tuple[EndedCall, bool, EndedCall | None]]) -> Comparison:
    comparison = Comparison()
    for call, mirrored, original in found:
        comparison.records += 1
        comparison.add(call, mirrored=mirrored)
        if original is not None:
            comparison.add_pair(original, call)
    return comparison


def figures(found: Figures) -> dict[str, Any]:
    told = {name: getattr(found, name) for name in Figures.__slots__}
    return {name: sorted(value) if isinstance(value, list) else value for name, value in told.items()}


def told(comparison: Comparison) -> Any:
    """Everything that it tells, without the order in which it was counted."""
    pairs = {
        of: (figures(each.originals), figures(each.copies), each.failed, each.mirror_failed)
        for of, each in comparison.pairs.items()
    }
    rows = {of: figures(each) for of, each in comparison.rows.items()}
    return rows, pairs, comparison.records, comparison.truncated


@given(st.lists(st.integers(0, 50), min_size=1, max_size=120), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[int], percent: int) -> None:
    """By counting, for each value, how many are not greater."""
    enough = [value for value in values if 100 * sum(each <= value for each in values) >= percent * len(values)]
    assert nearest_rank(sorted(values), percent) == min(enough)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 50, None), ([7], 1, 7), ([1, 2], 50, 1), ([1, 2, 3], 50, 2), (list(range(1, 101)), 99, 99), ([1, 9], 100, 9)],
)
def test_percentiles_by_hand(values: list[int], percent: int, expected: int | None) -> None:
    """Always one of the values; of none there is none."""
    assert nearest_rank(values, percent) == expected


@given(st.lists(looked_at, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(found: list[Any], chance: Any) -> None:
    """Every figure is the same however they come."""
    shuffled = list(found)
    chance.shuffle(shuffled)
    assert told(of(shuffled)) == told(of(found))


@given(st.lists(calls, max_size=30))
def test_rows_hold_every_call_once(found: list[EndedCall]) -> None:
    """Requests, cost and tokens add up to those of all; nothing is both ok and failed."""
    comparison = of([(each, False, None) for each in found])
    rows = comparison.rows.values()
    for name in ("cost", "input_tokens", "output_tokens"):
        assert sum(getattr(row, name) for row in rows) == sum(getattr(each, name) for each in found)
    assert sum(row.requests for row in rows) == len(found)
    assert all(row.ok + row.failed <= row.requests and row.ok <= row.costing for row in rows)


@pytest.mark.parametrize(
    ("changed", "ok", "failed", "costing"),
    [
        ({}, True, False, True),
        ({"cost": 0}, True, False, True),
        ({"status": "failed", "cost": 0}, False, True, False),
        ({"status": "failed"}, False, True, True),
        ({"status": "cut"}, False, True, True),
        ({"status": "cut", "limit": "lim_1"}, False, False, True),
        ({"status": "aborted", "cost": 0}, False, False, False),
    ],
)
def test_only_what_is_the_deployment_s_doing_is_its_failure(
    changed: dict[str, Any], ok: bool, failed: bool, costing: bool
) -> None:
    """Neither a caller who left nor a limit that ended the answer is; what cost nothing and failed is in no average."""
    row = Figures()
    row.add(CALL._replace(**changed))
    assert (row.ok, row.failed, row.costing) == (ok, failed, costing)
    assert len(row.latencies_us) == len(row.first_tokens_us) == len(row.speeds) == ok
    assert row.cost_per_request == (CALL._replace(**changed).cost if costing else None)


@pytest.mark.parametrize(
    ("changed", "speed"),
    [
        ({}, 20_000),
        ({"output_tokens": 1, "latency_us": 1_500_000}, 1_000),
        ({"stream": False}, None),
        ({"first_token_us": 0}, None),
        ({"output_tokens": 0}, None),
        ({"latency_us": 500_000}, None),
        ({"status": "cut"}, None),
    ],
)
def test_speed_is_that_of_streams_from_their_first_token(changed: dict[str, Any], speed: int | None) -> None:
    """Fifty tokens in two and a half seconds are twenty in one; where the first token is not known there is none."""
    assert CALL._replace(**changed).speed == speed


@pytest.mark.parametrize(
    ("original", "copy", "expected"),
    [
        ("ok", "ok", (1, 0, 0)),
        ("failed", "ok", (0, 1, 0)),
        ("ok", "cut", (0, 0, 1)),
        ("failed", "failed", (0, 0, 0)),
        ("aborted", "ok", (0, 0, 0)),
    ],
)
def test_a_pair_is_compared_where_both_went_ok(original: str, copy: str, expected: tuple[int, int, int]) -> None:
    """Else it is counted whose fault alone it was."""
    pairs = Pairs()
    pairs.add(CALL._replace(status=original), CALL._replace(status=copy))
    assert (pairs.originals.requests, pairs.failed, pairs.mirror_failed) == expected
    assert pairs.copies.requests == pairs.originals.requests
