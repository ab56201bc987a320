"""What a limit may be, and which limits apply to a caller."""

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faregate.core.amounts import UNITS
from faregate.core.attribution import DIMENSIONS, Attribution, dimension
from faregate.core.limits.index import REMEMBERED_MAX, CompiledLimit, LimitIndex
from faregate.core.limits.kinds import KINDS, Fault, check_limit, refusal_code
from soaking import examples

GOOD: dict[str, Any] = {
    "selector": {"team": "research", "tag.env": "dev"},
    "each": ("end_user",),
    "unit": "usd",
    "amount": 250_000_000_000,
    "window": "month",
    "timezone": "Europe/Berlin",
    "mode": "hard",
}


def faults(**changes: object) -> list[Fault]:
    """The faults of a good limit with some fields changed."""
    return check_limit(**{**GOOD, **changes}, zone_known=lambda name: name in ("UTC", "Europe/Berlin"))


def limit(id: str, selector: Mapping[str, str], each: Sequence[str] = (), **fields: Any) -> CompiledLimit:
    """A monthly dollar limit unless ``fields`` say otherwise."""
    return CompiledLimit(
        **{"id": id, "selector": selector, "each": each, "unit": "usd", "amount": 100, "window": "month", **fields}
    )


def test_a_good_limit_has_no_faults() -> None:
    """A limit that keeps all rules can be stored."""
    assert faults() == []


@pytest.mark.parametrize("amount", [None, 0, 10**18])
def test_amounts_at_the_edges_are_good(amount: int | None) -> None:
    """Unlimited, nothing at all and a billion dollars are amounts."""
    assert faults(amount=amount) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"selector": {"planet": "mars"}}, [("selector", "field_enum")]),
        ({"selector": {"tag.": "x"}}, [("selector", "field_enum")]),
        ({"selector": {"tag.a b": "x"}}, [("selector", "field_enum")]),
        ({"selector": {"tags": "x"}}, [("selector", "field_enum")]),
        ({"selector": {"identity_source": "x"}}, [("selector", "field_enum")]),
        ({"selector": {"team": ""}}, [("selector", "field_range")]),
        ({"selector": {"team": "a\nb"}}, [("selector", "field_range")]),
        ({"selector": {"team": "a" * 257}}, [("selector", "field_range")]),
        ({"selector": dict.fromkeys(DIMENSIONS[:9], "x")}, [("selector", "field_range")]),
        ({"each": ("user", "user")}, [("each", "field_conflict")]),
        ({"each": ("__class__",)}, [("each", "field_enum")]),
        ({"each": DIMENSIONS[:5]}, [("each", "field_range")]),
        ({"unit": "euros"}, [("unit", "field_enum")]),
        ({"unit": "images"}, []),
        ({"amount": -1}, [("amount", "field_range")]),
        ({"amount": 10**18 + 1}, [("amount", "field_range")]),
        ({"amount": 10**15 + 1, "unit": "tokens"}, [("amount", "field_range")]),
        ({"amount": True}, [("amount", "field_type")]),
        ({"amount": 1.5}, [("amount", "field_type")]),
        ({"window": ""}, [("window", "field_missing")]),
        ({"window": "fortnight"}, [("window", "field_enum")]),
        ({"window": "rolling 1w"}, [("window", "field_enum")]),
        ({"unit": "concurrency", "window": "day"}, [("window", "field_conflict")]),
        ({"unit": "concurrency", "window": ""}, []),
        ({"timezone": "Mars/Base"}, [("timezone", "field_enum")]),
        ({"mode": "stern"}, [("mode", "field_enum")]),
        (
            {"mode": "stern", "timezone": "", "window": "x"},
            [("window", "field_enum"), ("timezone", "field_enum"), ("mode", "field_enum")],
        ),
    ],
)
def test_every_fault_is_named(changes: dict[str, object], expected: list[tuple[str, str]]) -> None:
    """Each broken rule names its field and its public code; all of them are told at once."""
    assert [(fault.field, fault.code) for fault in faults(**changes)] == expected


def test_only_units_that_are_accepted_are_proposed() -> None:
    """Whoever follows the message is not refused again."""
    proposed = faults(unit="euros")[0].message.partition("expected one of ")[2].split(", ")
    assert proposed[-3:] == ["images", "seconds", "characters"]
    assert all(not faults(unit=unit, window="" if unit == "concurrency" else "day") for unit in proposed)


def test_a_long_name_is_not_echoed_whole() -> None:
    """A hostile name does not make a long message."""
    assert len(faults(each=("x" * 100_000,))[0].message) < 400


@pytest.mark.parametrize(
    ("unit", "window", "code"),
    [
        ("usd", "second", "budget_exhausted"),
        ("usd", "lifetime", "budget_exhausted"),
        ("tokens", "minute", "rate_limited"),
        ("requests", "hour", "rate_limited"),
        ("requests", "day", "budget_exhausted"),
        ("tokens", "lifetime", "budget_exhausted"),
        ("concurrency", "", "concurrency_limited"),
    ],
)
def test_refusals_are_called_by_unit_and_window(unit: str, window: str, code: str) -> None:
    """Money and long quotas are budgets, short ones are rates."""
    assert refusal_code(unit, window) == code


def test_there_is_a_kind_for_every_unit() -> None:
    """The table of kinds and the fields of the amounts agree."""
    assert [(kind.unit, kind.position) for kind in KINDS.values()] == [(u, i) for i, u in enumerate(UNITS)]


# -- which limits apply ------------------------------------------------------------------------------------------------

values = st.sampled_from(("", "a", "b"))
names = st.sampled_from(("organization", "team", "key", "end_user", "run", "model", "tag.x", "tag.y"))
callers = st.builds(
    Attribution,
    organization=values,
    team=values,
    key=values,
    end_user=values,
    run=values,
    model=values,
    tags=st.sampled_from(((), (("x", "a"),), (("x", "b"), ("y", "a")))),
)
limit_lists = st.lists(
    st.tuples(
        st.dictionaries(names, st.sampled_from(("a", "b")), max_size=3), st.lists(names, max_size=2, unique=True)
    ),
    max_size=12,
).map(lambda rows: [limit(f"lim_{n}", selector, each) for n, (selector, each) in enumerate(rows)])


def ids(limits: Sequence[CompiledLimit]) -> list[str]:
    """Ids, sorted."""
    return sorted(limit.id for limit in limits)


@settings(max_examples=examples(60, 2_000), deadline=None)
@given(limits=limit_lists, who=st.lists(callers, min_size=1, max_size=5), order=st.randoms(use_true_random=False))
def test_the_index_finds_what_a_search_finds(limits: list[CompiledLimit], who: list[Attribution], order: Any) -> None:
    """Matching equals looking at every limit, in whatever order the limits came, and again when asked again."""
    index = LimitIndex(limits)
    shuffled = list(limits)
    order.shuffle(shuffled)
    other = LimitIndex(shuffled)
    for caller in who + who:
        expected = sorted(
            limit.id for limit in limits if all(dimension(caller, name) == value for name, value in limit.selector)
        )
        assert ids(index.matching(caller)) == expected
        assert ids(other.matching(caller)) == expected


@settings(max_examples=examples(60, 2_000), deadline=None)
@given(limits=limit_lists, more=limit_lists, removed=st.sets(st.integers(0, 12)), who=callers)
def test_a_changed_index_equals_a_new_one(
    limits: list[CompiledLimit], more: list[CompiledLimit], removed: set[int], who: Attribution
) -> None:
    """Changing an index gives what building it anew gives, and leaves the old one as it was."""
    old = LimitIndex(limits)
    before = ids(old.matching(who))
    gone = {f"lim_{n}" for n in removed}
    left = {limit.id: limit for limit in limits if limit.id not in gone} | {limit.id: limit for limit in more}
    new = LimitIndex(left.values())
    changed = old.changed(more, gone)
    assert ids(changed.matching(who)) == ids(new.matching(who))
    assert sorted(changed.limits) == sorted(new.limits)
    assert ids(old.matching(who)) == before


def test_two_limits_of_one_id_are_a_mistake() -> None:
    """An id names one limit."""
    with pytest.raises(ValueError, match="lim_1"):
        LimitIndex([limit("lim_1", {}), limit("lim_1", {"team": "a"})])


def test_what_an_index_remembers_is_bounded() -> None:
    """However many distinct callers come, the memory for their matches stays bounded."""
    index = LimitIndex([limit("lim_1", {"key": "key_7"})])
    for number in range(REMEMBERED_MAX + 10):
        index.matching(Attribution(key=f"key_{number}"))
    assert len(index._found) <= REMEMBERED_MAX
    assert ids(index.matching(Attribution(key="key_7"))) == ["lim_1"]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"amount": 5}, True),
        ({"mode": "soft"}, True),
        ({"contact": "finance", "clamp": True}, True),
        ({"zone": ZoneInfo("UTC")}, True),
        ({"zone": ZoneInfo("Europe/Berlin")}, False),
        ({"selector": {"team": "b"}}, False),
        ({"each": ("user",)}, False),
        ({"unit": "tokens"}, False),
        ({"window": "day"}, False),
        ({"id": "lim_2"}, False),
    ],
)
def test_counters_go_on_only_under_a_limit_that_counts_the_same(change: dict[str, Any], same: bool) -> None:
    """Amount and mode may change under the counters; what is counted may not."""
    old: dict[str, Any] = {"id": "lim_1", "selector": {"team": "a"}}
    assert limit(**old).counts_as(limit(**{**old, **change})) is same
