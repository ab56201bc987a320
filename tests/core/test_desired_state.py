"""Plans from what is there to what is wanted: nothing twice, nothing opened early, and no more taken than made."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from faregate.core.desired_state import APPLY, FILE, ORDER, REMOVAL_ORDER, Thing, plan

KINDS = st.sampled_from(ORDER)
THINGS = st.lists(
    st.builds(
        Thing,
        kind=KINDS,
        identity=st.tuples(st.sampled_from(["a", "b", "c"])),
        fields=st.dictionaries(st.sampled_from(["title", "models", "amount"]), st.integers(0, 2), max_size=3),
        id=st.just("id"),
        owner=st.sampled_from(["", APPLY]),
    ),
    max_size=8,
    unique_by=lambda thing: (thing.kind, thing.identity),
)


def carried_out(wanted: Sequence[Thing], present: Sequence[Thing], *, prune: bool) -> list[Thing]:
    """What is there after every step of the plan."""
    there = {(each.kind, each.identity): each for each in present}
    for step in plan(wanted, present, prune=prune).steps:
        called = (step.thing.kind, step.thing.identity)
        if step.action == "delete":
            del there[called]
            continue
        before = dict(there[called].fields) if called in there else {}
        for change in step.changes:
            before[change.field] = change.after
        fields = {name: value for name, value in before.items() if value is not None}
        there[called] = Thing(step.thing.kind, step.thing.identity, fields, id="id", owner=APPLY)
    return list(there.values())


@given(wanted=THINGS, present=THINGS, prune=st.booleans())
def test_a_second_plan_has_no_steps(wanted: list[Thing], present: list[Thing], prune: bool) -> None:
    """Whatever was there, what was carried out once is as it is wanted."""
    after = carried_out(wanted, present, prune=prune)

    assert plan(wanted, after, prune=prune).steps == ()


@given(wanted=THINGS, present=THINGS)
def test_nothing_is_taken_away_that_no_file_made(wanted: list[Thing], present: list[Thing]) -> None:
    """With pruning too; and without it nothing is taken away at all."""
    pruned = [step.thing for step in plan(wanted, present, prune=True).steps if step.action == "delete"]

    assert all(thing.owner == APPLY for thing in pruned)
    assert [step for step in plan(wanted, present).steps if step.action == "delete"] == []
    assert {thing.identity for thing in plan(wanted, present).left} == {thing.identity for thing in pruned}


@given(wanted=THINGS, present=THINGS)
def test_steps_come_in_an_order_that_opens_nothing_early(wanted: list[Thing], present: list[Thing]) -> None:
    """Payers before limits before keys, and the other way round where things go."""
    steps = plan(wanted, present, prune=True).steps
    made = [ORDER.index(step.thing.kind) for step in steps if step.action != "delete"]
    gone = [REMOVAL_ORDER.index(step.thing.kind) for step in steps if step.action == "delete"]

    assert (made, gone) == (sorted(made), sorted(gone))
    assert {*ORDER} == {*REMOVAL_ORDER}


def test_a_limit_of_a_new_key_comes_right_after_the_keys() -> None:
    """One of a key that is there comes with the other limits."""
    key, other = Thing("key", ("default", "new")), Thing("key", ("default", "old"), id="key_1")
    of_new = Thing("limit", ("key=new",), needs=(("key", ("default", "new")),))
    of_old = Thing("limit", ("key=old",), needs=(("key", ("default", "old")),))

    steps = plan([of_new, key, of_old, other, Thing("webhook", ("ops",))], [other]).steps

    assert [step.thing.identity for step in steps] == [("key=old",), ("default", "new"), ("key=new",), ("ops",)]


def test_a_state_that_nobody_names_stays_and_one_that_is_named_comes() -> None:
    """A key that was disabled by hand is not enabled by a file that is silent about it."""
    disabled = Thing("key", ("default", "ci"), {"state": "disabled"}, id="key_1", owner=APPLY)

    silent = plan([Thing("key", ("default", "ci"))], [disabled])
    named = plan([Thing("key", ("default", "ci"), {"state": "active"})], [disabled])

    assert silent.steps == ()
    assert [change.after for change in named.steps[0].changes] == ["active"]


def test_what_cannot_come_about_is_said_and_planned_no_further() -> None:
    """Another team of a key, and a change of what the configuration file declares."""
    present = [
        Thing("key", ("default", "ci"), {"team": "a"}, id="key_1"),
        Thing("provider", ("house",), {"kind": "openai"}, id="file:house", owner=FILE),
    ]
    wanted = [Thing("key", ("default", "ci"), {"team": "b"}), Thing("provider", ("house",), {"base_url": "x"})]

    found = plan(wanted, present)

    assert found.steps == ()
    assert ["team" in each.problem or "configuration file" in each.problem for each in found.impossible] == [True, True]


def test_what_is_there_already_becomes_the_files() -> None:
    """So that a file that was exported can take away what it once named; what the configuration declares never does."""
    there = [Thing("team", ("default", "a"), id="t"), Thing("provider", ("house",), id="file:house", owner=FILE)]

    found = plan([Thing("team", ("default", "a")), Thing("provider", ("house",))], there)

    assert [thing.id for thing in found.taken_over] == ["t"]
