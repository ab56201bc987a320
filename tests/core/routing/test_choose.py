"""Where a call goes: what the facts of a moment make of a pool, by table and as what holds of every pool."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.routing.choose import (
    STRATEGIES,
    WEIGHT_MAX,
    Choice,
    Fact,
    Forbidden,
    Member,
    PoolRule,
    Range,
    at_home,
    choose,
    first_choices,
    groups_of,
    priority_of,
    ranges_for,
    schedule,
)

NAMES = "abcdefgh"
WELL, RESTS = Fact(), Fact(may=False)


def pool(members: str, strategy: str = "ordered", sticky: str = "") -> PoolRule:
    """``a2 b c.2``: a deployment, its weight and, after a dot, its group."""
    found = []
    for each in members.split():
        share, _, group = each[1:].partition(".")
        found.append(Member(each[0], int(share or 1), int(group or 1)))
    return PoolRule("main", tuple(found), strategy, (), sticky)


def well(*rules: PoolRule) -> dict[str, Fact]:
    """Everything that rules name, and all of it well."""
    members = [member.deployment for rule in rules for member in rule.members]
    return dict.fromkeys([*members, *(name for rule in rules for each in rule.ranges for name in each.use)], WELL)


def firsts(rule: PoolRule, turns: int, facts: Mapping[str, Fact] | None = None) -> Counter[str]:
    """Who was first how often."""
    facts = well(rule) if facts is None else facts
    return Counter(choose([rule], facts, turn).order[0] for turn in range(turns))


# -- turns -------------------------------------------------------------------------------------------------------------


def asked(rules: Sequence[PoolRule], priority: int | None) -> tuple[int, ...]:
    """The ranges of a caller for whom all are."""
    found = ranges_for(rules, priority, lambda who: True) if priority is not None else ()
    assert not isinstance(found, Forbidden)
    return found


@pytest.mark.parametrize(
    ("weights", "positions"),
    [
        ((), ()),
        ((7,), (0,)),
        ((1, 1), (0, 1)),
        ((50, 50), (0, 1)),
        ((2, 1), (0, 1, 0)),
        ((5, 1, 1), (0, 0, 1, 0, 2, 0, 0)),
        ((1, 2, 3), (2, 1, 0, 2, 1, 2)),
    ],
)
def test_turns_are_spread_evenly(weights: tuple[int, ...], positions: tuple[int, ...]) -> None:
    """As nginx does it: five to one to one is no five in a row."""
    assert schedule(weights) == positions


@pytest.mark.parametrize(
    ("members", "strategy", "shares"),
    [
        ("a b c", "round_robin", {"b": 150, "c": 150}),
        ("a3 b c", "weighted", {"b": 150, "c": 150}),
        ("a b2 c", "weighted", {"b": 200, "c": 100}),
    ],
)
def test_the_share_of_one_that_rests_is_shared_out(members: str, strategy: str, shares: dict[str, int]) -> None:
    """By the weights of those that are well, exactly; its neighbour does not get all of it."""
    rule = pool(members, strategy)
    facts = well(rule) | {"a": RESTS}
    found = Counter(choose([rule], facts, turn).order[0] for turn in range(300))
    assert found == shares


@given(st.lists(st.integers(1, WEIGHT_MAX), min_size=1, max_size=8))
def test_everyone_has_as_many_turns_as_its_weight(weights: list[int]) -> None:
    """Over as many turns as the weights add up to each is first exactly that often, and never far behind its share."""
    total = sum(weights)
    positions = schedule(tuple(weights))
    counted = Counter(positions[turn % len(positions)] for turn in range(total))
    assert counted == Counter(dict(enumerate(weights)))
    had = [0] * len(weights)
    for turn, position in enumerate(positions, 1):
        had[position] += 1
        assert all(abs(have - turn * weight / total) < len(weights) for have, weight in zip(had, weights, strict=True))


@pytest.mark.parametrize(
    ("members", "strategy", "turns", "shares"),
    [
        ("a2 b", "weighted", 300, {"a": 200, "b": 100}),
        ("a2 b", "round_robin", 300, {"a": 150, "b": 150}),
        ("a b c", "round_robin", 300, {"a": 100, "b": 100, "c": 100}),
        ("a90 b9 c", "weighted", 300, {"a": 270, "b": 27, "c": 3}),
        ("a2 b c.2", "weighted", 300, {"a": 200, "b": 100}),
        ("a2 b", "ordered", 300, {"a": 300}),
    ],
)
def test_three_hundred_calls_are_shared_as_the_pool_says(
    members: str, strategy: str, turns: int, shares: dict[str, int]
) -> None:
    """Exactly, from the first turn on, where all are well."""
    assert firsts(pool(members, strategy), turns) == shares


@given(st.lists(st.integers(1, WEIGHT_MAX), min_size=1, max_size=6), st.sampled_from(("weighted", "round_robin")))
def test_shares_are_exact_wherever_one_begins_to_count(weights: list[int], strategy: str) -> None:
    """Any turns in a row that are as many as the weights add up to, or as there are members."""
    members = tuple(Member(name, weight) for name, weight in zip(NAMES, weights, strict=False))
    rule = PoolRule("main", members, strategy)
    expected = {member.deployment: member.weight if strategy == "weighted" else 1 for member in members}
    total, facts = sum(expected.values()), well(rule)
    turns = [choose([rule], facts, turn).order[0] for turn in range(17, 17 + total)]

    assert Counter(turns) == expected


def test_who_is_not_first_follows_in_the_order_of_the_pool() -> None:
    """Everyone is tried, once round from the first."""
    rule = pool("a2 b c", "weighted")

    assert [choose([rule], well(rule), turn).order for turn in range(4)] == [
        ("a", "b", "c"),
        ("b", "c", "a"),
        ("c", "a", "b"),
        ("a", "b", "c"),
    ]


def test_turns_are_of_those_whom_a_caller_may_use() -> None:
    """Who is not among the facts has no turns that somebody else would get."""
    assert firsts(pool("a2 b c", "weighted"), 300, {"a": WELL, "c": WELL}) == {"a": 200, "c": 100}
    assert first_choices(pool("a b", "ordered"), (Member("a"), Member("b"))) == (0,)


# -- what each strategy makes of a moment ------------------------------------------------------------------------------


def busy(**calls: int) -> dict[str, Fact]:
    return {name: Fact(busy=count) for name, count in calls.items()}


def taking(**latency_us: int) -> dict[str, Fact]:
    return {name: Fact(latency_us=count) for name, count in latency_us.items()}


def costing(**nanos: int) -> dict[str, Fact]:
    return {name: Fact(cost=count) for name, count in nanos.items()}


@pytest.mark.parametrize(
    ("members", "strategy", "facts", "turn", "order"),
    [
        ("a b c", "ordered", busy(a=9, b=0, c=5), 1, "abc"),
        ("a b c", "least_busy", busy(a=9, b=0, c=5), 0, "bca"),
        ("a b c", "least_busy", busy(a=9, b=0, c=5), 7, "bca"),
        ("a3 b", "least_busy", busy(a=5, b=2), 0, "ab"),
        ("a3 b", "least_busy", busy(a=7, b=2), 0, "ba"),
        ("a3 b", "least_busy", busy(a=6, b=2), 0, "ab"),
        ("a3 b", "least_busy", busy(a=6, b=2), 1, "ba"),
        ("a99 b100", "least_busy", busy(a=98, b=99), 0, "ab"),
        ("a3 b7", "least_busy", busy(a=1, b=2), 0, "ba"),
        ("a b c", "least_busy", busy(a=0, b=0, c=0), 0, "abc"),
        ("a b c", "least_busy", busy(a=0, b=0, c=0), 2, "cab"),
        ("a b c", "latency", taking(a=300, b=200, c=100), 0, "cba"),
        ("a b c", "latency", taking(a=300, b=0, c=100), 0, "bca"),
        ("a9 b", "latency", taking(a=2, b=1), 0, "ba"),
        ("a b c", "latency", taking(a=5, b=5, c=5), 1, "bca"),
        ("a b c", "cost", costing(a=3, b=1, c=2), 0, "bca"),
        ("a b c", "cost", costing(a=3, b=1, c=1 << 62), 1, "bac"),
        ("a b c", "cost", costing(a=1, b=1, c=2), 0, "abc"),
        ("a b c", "cost", costing(a=1, b=1, c=2), 1, "bac"),
    ],
)
def test_a_snapshot_makes_an_order(members: str, strategy: str, facts: dict[str, Fact], turn: int, order: str) -> None:
    """The least of what a strategy goes by is first, by its weight where it is calls; the turn ends ties."""
    assert choose([pool(members, strategy)], facts, turn).order == tuple(order)


@pytest.mark.parametrize(
    ("members", "resting", "order"),
    [
        ("a b c", "a", "bc"),
        ("a b c", "b", "ac"),
        ("a b.2 c.2", "a", "bc"),
        ("a.2 b c", "b", "ca"),
        ("a.3 b.2 c", "c", "ba"),
        ("a b c", "abc", ""),
        ("a.64 b.2 c.2", "", "bca"),
    ],
)
def test_who_rests_is_left_out_and_told(members: str, resting: str, order: str) -> None:
    """A higher group comes to its turn where nobody of a lower one is left, and behind it otherwise."""
    facts = {name: RESTS if name in resting else WELL for name in "abc"}

    assert choose([pool(members)], facts, 0) == Choice(tuple(order), tuple(resting), ("ordered",) * len(order))


def test_pools_follow_each_other() -> None:
    """A deployment that is named by itself is a pool of one, and what two pools hold is tried once."""
    first, second = pool("a b", "round_robin"), pool("c2 b d", "weighted")
    alone = PoolRule("", (Member("e"),))
    facts = well(first, second, alone)

    assert choose([first, second, alone], facts, 1) == Choice(
        tuple("badce"), (), ("round_robin", "round_robin", "weighted", "weighted", "ordered")
    )
    assert choose([second, alone, first], facts | {"b": RESTS}, 0) == Choice(
        tuple("cdea"), ("b",), ("weighted", "weighted", "ordered", "round_robin")
    )


# -- priority ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"", None),
        (b" ", None),
        (b"high", None),
        (b"-1", None),
        (b"+1", None),
        (b"1.0", None),
        (b"1e2", None),
        (b"0x10", None),
        (b"1 0", None),
        (b"1_0", None),
        (b"u=1, i", None),
        (b"\xd9\xa3", None),
        ("３".encode(), None),
        (b"\xb2", None),
        (b"1001", None),
        (b"9999", None),
        (b"9" * 10_000, None),
        (b"0", 0),
        (b"5", 5),
        (b" 5 ", 5),
        (b"\t5", 5),
        (b"007", 7),
        (b"0100", 100),
        (b"1000", 1_000),
    ],
)
def test_a_priority_is_a_whole_number_up_to_a_thousand(text: bytes, number: int | None) -> None:
    """Whoever says nothing, or nonsense, has none."""
    assert priority_of(text) == number


@given(st.binary(max_size=8))
def test_a_priority_is_never_outside_of_its_bounds(text: bytes) -> None:
    """Whatever bytes a header holds, no exception and no number that no range can hold comes of them."""
    number = priority_of(text)

    assert number is None or 0 <= number <= 1_000


RANGED = PoolRule(
    "main",
    (Member("c"), Member("d")),
    "round_robin",
    (Range(0, 100, ("a", "b")), Range(101, 500, ("b", "c")), Range(900, 1_000, ("d",))),
)


@pytest.mark.parametrize(
    ("priority", "resting", "order", "why"),
    [
        (None, "", "cd", []),
        (0, "", "abcd", ["priority 0 to 100"] * 2),
        (100, "", "abcd", ["priority 0 to 100"] * 2),
        (101, "", "bcd", ["priority 101 to 500"] * 2),
        (500, "", "bcd", ["priority 101 to 500"] * 2),
        (501, "", "cd", []),
        (899, "", "cd", []),
        (900, "", "dc", ["priority 900 to 1000"]),
        (1_000, "", "dc", ["priority 900 to 1000"]),
        (50, "a", "bcd", ["priority 0 to 100"]),
        (50, "ab", "cd", []),
        (50, "abc", "d", []),
        (None, "cd", "", []),
    ],
)
def test_a_priority_has_its_own_places_first_and_then_everybodys(
    priority: int | None, resting: str, order: str, why: list[str]
) -> None:
    """Both ends of a range are in it; who has none, or a number of no range, never comes to its places."""
    facts = {name: RESTS if name in resting else WELL for name in "abcd"}
    choice = choose([RANGED], facts, 0, asked([RANGED], priority))

    assert choice.order == tuple(order)
    assert choice.why == (*why, *["round_robin"] * (len(order) - len(why)))
    assert set(choice.resting) <= set(resting)


def test_a_range_is_found_by_both_of_its_ends() -> None:
    """And nobody without a priority is in one."""
    assert [asked([RANGED], number) for number in (0, 100, 101, 501, None)] == [(0,), (0,), (1,), (-1,), ()]


def test_each_pool_decides_for_itself_who_may_ask_for_its_range() -> None:
    """What one pool gives to everybody, another one along the same way may keep for a few, or refuse."""
    everybody = PoolRule("one", (Member("a"),), ranges=(Range(0, 100, ("b",)),))
    premium = PoolRule("two", (Member("c"),), ranges=(Range(0, 100, ("d",), only=((("product", "premium"),),)),))
    rules = [everybody, premium]
    facts = dict.fromkeys("abcd", WELL)

    mine = ranges_for(rules, 50, lambda who: False)
    assert mine == (0, -1)
    assert choose(rules, facts, 0, mine).order == ("b", "a", "c")
    assert choose(rules, facts, 0, asked(rules, 50)).order == ("b", "a", "d", "c")
    assert ranges_for([everybody, premium._replace(refuses=True)], 50, lambda who: False) == Forbidden(0, 100)


def test_a_range_for_others_counts_as_the_next_one_below() -> None:
    """Numbers above are lower in rank; where none of these is for the caller there is none."""
    only = ((("team", "sales"),),)
    ranges = (Range(0, 100, ("a",), only), Range(101, 500, ("b",), only), Range(501, 1000, ("c",)))
    rule = PoolRule("one", (Member("d"),), ranges=ranges)
    assert [ranges_for([rule], number, lambda who: False) for number in (5, 300, 700)] == [(2,), (2,), (2,)]
    without = rule._replace(ranges=ranges[:2])
    assert ranges_for([without], 5, lambda who: False) == (-1,)


def test_a_priority_that_a_key_may_not_use_counts_as_the_next_one_that_it_may() -> None:
    """Never as a more urgent one; a pool that refuses says the number, and one without that range does not care."""
    rules = [RANGED, PoolRule("two", (Member("e"),), ranges=(Range(0, 1_000, ("f",)),))]
    allowed = ("101-300", "950-1000")
    numbers = (0, 100, 101, 300, 301, 899, 1_000)
    found = [ranges_for(rules, number, lambda who: True, allowed) for number in numbers]
    assert found == [(1, 0), (1, 0), (1, 0), (1, 0), (2, 0), (2, 0), (2, 0)]
    assert ranges_for(rules, 1_000, lambda who: True, ("0-999",)) == (-1, -1)
    assert ranges_for(rules, 7, lambda who: True, ()) == (-1, -1)
    strict = [rule._replace(refuses=True) for rule in rules]
    assert str(ranges_for(strict, 7, lambda who: True, allowed)) == "7"
    assert ranges_for(strict, 200, lambda who: True, allowed) == (1, 0)
    assert ranges_for([RANGED._replace(refuses=True)], 700, lambda who: True, ("0-100",)) == (-1,)


# -- callers that stay -------------------------------------------------------------------------------------------------


def callers(count: int) -> list[bytes]:
    return [f"default\nkey_{number}".encode() for number in range(count)]


def test_a_caller_stays_while_all_are_well() -> None:
    """At the same place at every turn, however busy others or it may be."""
    rule = pool("a b c d", "least_busy", sticky="key")
    for caller in callers(40):
        places = {
            choose([rule], busy(a=turn % 3, b=turn % 5, c=turn % 2, d=turn), turn, known_by=caller).order[0]
            for turn in range(20)
        }
        assert len(places) == 1


def test_a_caller_goes_on_when_its_place_rests_and_comes_back() -> None:
    """Those who stayed there are shared out among all others; everybody else stays where he was."""
    rule = pool("a b c", "round_robin", sticky="key")
    facts = well(rule)
    moved = Counter[tuple[str, str]]()
    for caller in callers(200):
        at = choose([rule], facts, 0, known_by=caller)
        home, then, *_ = at.order
        without = choose([rule], facts | {home: RESTS}, 5, known_by=caller)
        assert without.resting == (home,)
        assert choose([rule], facts | {home: RESTS}, 6, known_by=caller) == without
        moved[home, without.order[0]] += 1
        assert choose([rule], facts | {then: RESTS}, 9, known_by=caller).order[0] == home
        assert choose([rule], facts, 13, known_by=caller) == at
        assert set(at.why) == {"stays by key"}
    assert all(moved[pair] > 10 for pair in permutations("abc", 2))


def test_callers_are_shared_out_by_weight() -> None:
    """A thousand callers of weights 3 to 1 to 1 to nobody: roughly three fifths, one, and one."""
    rule = pool("a3 b c d.2", sticky="key")
    facts = well(rule)
    shares = Counter(choose([rule], facts, 0, known_by=caller).order[0] for caller in callers(1_000))

    assert abs(shares["a"] - 600) < 60
    assert abs(shares["b"] - 200) < 50
    assert shares["d"] == 0


def test_who_is_not_known_has_turns_as_everybody() -> None:
    """A caller that says nothing to stay by goes round; and in a pool where nobody stays it does not matter."""
    rule = pool("a b", "round_robin", sticky="run")

    assert firsts(rule, 10) == {"a": 5, "b": 5}
    assert [choose([pool("a b", "round_robin")], well(rule), turn, known_by=b"x").order[0] for turn in range(2)] == [
        "a",
        "b",
    ]


@given(st.binary(max_size=20), st.lists(st.integers(1, WEIGHT_MAX), min_size=1, max_size=8))
def test_everybody_is_at_home_at_one_of_the_members(known_by: bytes, weights: list[int]) -> None:
    """Always the same one."""
    members = [Member(name, weight) for name, weight in zip(NAMES, weights, strict=False)]
    home = at_home(known_by, members)

    assert 0 <= home < len(members)
    assert at_home(known_by, members) == home


# -- what holds of every choice ----------------------------------------------------------------------------------------


@st.composite
def pools(draw: st.DrawFn) -> PoolRule:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    members = tuple(Member(name, draw(st.integers(1, 5)), draw(st.integers(1, 3))) for name in names)
    use = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple)
    ranges = draw(st.lists(use, max_size=2))
    return PoolRule(
        "main",
        members,
        draw(st.sampled_from(STRATEGIES)),
        tuple(Range(500 * at, 500 * at + 400, each) for at, each in enumerate(ranges)),
        draw(st.sampled_from(("", "key"))),
    )


FACTS = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(Fact, st.booleans(), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
)
RULES = st.lists(pools(), min_size=1, max_size=3)
TURNS = st.integers(0, 10_000)
PRIORITIES = st.none() | st.integers(0, 1_000)
KNOWN = st.binary(max_size=4)


@given(RULES, FACTS, TURNS, PRIORITIES, KNOWN)
def test_a_choice_names_whom_it_may_once_and_leaves_nobody_out(
    rules: Sequence[PoolRule], facts: dict[str, Fact], turn: int, priority: int | None, known_by: bytes
) -> None:
    """The same facts make the same choice, in which all that the pools hold and the facts know is tried or rests."""
    choice = choose(rules, facts, turn, asked(rules, priority), known_by)
    counts = zip(rules, asked(rules, priority) or (-1,) * len(rules), strict=True)
    ranges = [rule.ranges[at] for rule, at in counts if at >= 0]
    held = {member.deployment for rule in rules for member in rule.members} | {
        name for each in ranges for name in each.use
    }

    assert choice == choose(rules, dict(reversed(facts.items())), turn, asked(rules, priority), known_by)
    assert len({*choice.order, *choice.resting}) == len(choice.order) + len(choice.resting)
    assert set(choice.order) == {name for name in held if name in facts and facts[name].may}
    assert set(choice.resting) == {name for name in held if name in facts and not facts[name].may}
    assert len(choice.why) == len(choice.order)


@given(pools(), FACTS, TURNS, KNOWN)
def test_nobody_of_a_higher_group_goes_before_one_of_a_lower(
    rule: PoolRule, facts: dict[str, Fact], turn: int, known_by: bytes
) -> None:
    """Whatever the strategy is, for all who have no priority."""
    group = {member.deployment: member.group for member in rule.members}
    groups = [group[name] for name in choose([rule], facts, turn, (), known_by).order]

    assert groups == sorted(groups)
    assert [member for members in groups_of(rule) for member in members] == sorted(
        rule.members, key=lambda each: each.group
    )


@given(pools(), FACTS, TURNS)
def test_strategies_that_measure_put_the_least_first(rule: PoolRule, facts: dict[str, Fact], turn: int) -> None:
    """Within a group nobody stands before one that is less busy for its weight, faster or cheaper."""
    rule = rule._replace(sticky="")
    by = {member.deployment: member for member in rule.members}
    for one, other in pairwise(choose([rule], facts, turn).order):
        left, right = facts[one], facts[other]
        if by[one].group != by[other].group:
            continue
        if rule.strategy == "least_busy":
            assert left.busy * by[other].weight <= right.busy * by[one].weight
        elif rule.strategy == "latency":
            assert left.latency_us <= right.latency_us
        elif rule.strategy == "cost":
            assert left.cost <= right.cost


@given(RULES, FACTS, TURNS, PRIORITIES, KNOWN)
def test_who_rests_changes_nothing_for_the_others(
    rules: Sequence[PoolRule], facts: dict[str, Fact], turn: int, priority: int | None, known_by: bytes
) -> None:
    """The others share the calls as if it were not there; who stays at one of these stays there."""
    ranges = asked(rules, priority)
    choice = choose(rules, facts, turn, ranges, known_by)
    others = {name: fact for name, fact in facts.items() if fact.may}
    if not known_by or not any(rule.sticky for rule in rules):
        assert choice.order == choose(rules, others, turn, ranges, known_by).order
    all_well = {name: fact._replace(may=True) for name, fact in facts.items()}
    usual = choose(rules, all_well, turn, ranges, known_by).order
    assert set(choice.order) == {name for name in usual if facts[name].may}
