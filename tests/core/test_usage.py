"""Reported totals become disjoint leaves, or a contradiction with a name."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.usage import (
    COUNT_MAX,
    NO_USAGE,
    OTHER_UNITS,
    Contradiction,
    Measure,
    Usage,
    added,
    measures,
    split,
)

counts = st.integers(0, COUNT_MAX)
anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)


def test_parts_are_taken_out_of_their_total() -> None:
    """100 input tokens of which 60 were cached are 40 of text and 60 cached."""
    assert split(100, 50, cached=60, reasoning=20) == Usage(
        input_text=40, input_cached=60, output_text=30, output_reasoning=20
    )


def test_nothing_reported_is_no_usage() -> None:
    """``None`` stands for a part that the provider does not know of."""
    assert split(0, None, cached=None, reasoning=None) == NO_USAGE


@pytest.mark.parametrize(
    ("report", "rule"),
    [
        ({"input_tokens": -1, "output_tokens": 0}, "input tokens are outside"),
        ({"input_tokens": 1, "output_tokens": COUNT_MAX + 1}, "output tokens are outside"),
        ({"input_tokens": "5", "output_tokens": 0}, "input tokens are not a whole number"),
        ({"input_tokens": 5.0, "output_tokens": 0}, "input tokens are not a whole number"),
        ({"input_tokens": float("nan"), "output_tokens": 0}, "input tokens are not a whole number"),
        ({"input_tokens": True, "output_tokens": 0}, "input tokens are not a whole number"),
        ({"input_tokens": 5, "output_tokens": 5, "total": 11}, "total tokens are not the sum"),
        ({"input_tokens": 5, "output_tokens": 5, "total": "10"}, "total tokens are not the sum"),
        ({"input_tokens": 5, "output_tokens": 5, "cached": 6}, "exceed input tokens"),
        ({"input_tokens": 5, "output_tokens": 5, "cached": 3, "input_audio": 3}, "exceed input tokens"),
        ({"input_tokens": 5, "output_tokens": 5, "reasoning": 6}, "exceed output tokens"),
    ],
)
def test_a_report_that_cannot_be_true_is_named(report: Mapping[str, object], rule: str) -> None:
    """Negative, absurd, fractional or textual counts and parts beyond their total are never guessed at."""
    answer = split(**report)
    assert isinstance(answer, Contradiction)
    assert rule in answer.rule


@given(st.builds(Usage, counts, counts, counts, counts, counts, counts, counts, st.just(())))
def test_leaves_add_up_to_the_totals_again(usage: Usage) -> None:
    """For leaves whose totals are believable, splitting the totals gives back exactly the leaves."""
    answer = split(
        usage.input_tokens,
        usage.output_tokens,
        total=usage.input_tokens + usage.output_tokens,
        cached=usage.input_cached,
        cache_write=usage.input_cache_write,
        input_audio=usage.input_audio,
        reasoning=usage.output_reasoning,
        output_audio=usage.output_audio,
    )
    if max(usage.input_tokens, usage.output_tokens) <= COUNT_MAX:
        assert answer == usage
    else:
        assert isinstance(answer, Contradiction)


found = st.lists(
    st.builds(Measure, st.sampled_from(OTHER_UNITS), st.sampled_from(("", "1024x1024/hd")), st.integers(0, 99)),
    max_size=8,
)
usages = st.builds(Usage, *[st.integers(0, 99)] * 7, found.map(measures))


@given(found)
def test_measures_are_canonical(many: list[Measure]) -> None:
    """Each unit and variant once, in order, none of nothing, and together as much as there was."""
    made = measures(many)
    places = [(measure.unit, measure.variant) for measure in made]
    assert places == sorted(set(places))
    assert all(measure.quantity > 0 for measure in made)
    assert sum(measure.quantity for measure in made) == sum(measure.quantity for measure in many)
    assert measures(made) == made


@given(usages, usages)
def test_two_usages_add_up(one: Usage, two: Usage) -> None:
    """Every leaf, every unit and both totals of the sum are the sums of theirs."""
    both = added(one, two)
    assert both[:7] == tuple(mine + yours for mine, yours in zip(one[:7], two[:7], strict=True))
    for unit in OTHER_UNITS:
        assert both.quantity(unit) == one.quantity(unit) + two.quantity(unit)
    assert both.input_tokens == one.input_tokens + two.input_tokens
    assert both.output_tokens == one.output_tokens + two.output_tokens


def test_rarer_tokens_count_in_the_totals() -> None:
    """Image tokens are input, image answers are output, images and seconds are neither."""
    other = measures([Measure("input_image_tokens", "", 7), Measure("output_image_tokens", "", 5)])
    assert (Usage(1, other=other).input_tokens, Usage(1, other=other).output_tokens) == (8, 5)
    counted = measures([Measure("images", "hd", 2), Measure("seconds", "", 9)])
    assert (Usage(1, other=counted).input_tokens, Usage(1, other=counted).output_tokens) == (1, 0)


@given(st.tuples(*[anything] * 8))
def test_any_report_gives_leaves_or_a_contradiction(report: tuple[object, ...]) -> None:
    """Whatever a provider sends, nothing is raised and no leaf is negative."""
    names = ("total", "cached", "cache_write", "input_audio", "reasoning", "output_audio")
    answer = split(report[0], report[1], **dict(zip(names, report[2:], strict=True)))
    assert isinstance(answer, Contradiction) or (min(answer[:7]) >= 0 and answer.other == ())
