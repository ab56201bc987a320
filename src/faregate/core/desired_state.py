"""What stands in an installation against what a file wants: the steps from one to the other, in an order that is safe.

Pure: takes things as values, gives back steps; whoever carries them out knows what a thing is and how it is made. The
order opens nothing before what bounds it: payers, then providers and prices, then limits, then keys, and a new key's
secret is nobody's until its limits stand. What is taken away goes the other way round: keys first.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

#: Things of one kind that one request to the admin API makes, all or none.
ITEMS_MAX: Final = 1_000

#: Who made a thing: ``apply`` may take it away again, what the configuration ``file`` declares is changed there.
APPLY: Final = "apply"
FILE: Final = "file"

#: Kinds in the order in which they are made. A limit of a key that is yet to be made comes after ``key``.
ORDER: Final = (
    "organization",
    "team",
    "user",
    "project",
    "product",
    "stage",
    "provider",
    "service",
    "price",
    "deployment",
    "pool",
    "model",
    "limit",
    "subscription",
    "key",
    "webhook",
)

#: Kinds in the order in which they are taken away: a limit never before the keys that it bounds.
REMOVAL_ORDER: Final = (
    "key",
    "limit",
    "webhook",
    "model",
    "pool",
    "deployment",
    "price",
    "service",
    "provider",
    "subscription",
    "stage",
    "product",
    "project",
    "user",
    "team",
    "organization",
)

#: Fields that stay as they are where nobody names them: what was stopped by hand is not started by a file that is
#: silent about it.
KEPT: Final = frozenset({"state"})
#: The same of one kind: what a channel is follows from its address.
_KEPT_OF: Final[Mapping[str, frozenset[str]]] = {"webhook": frozenset({"kind"})}

#: Kind → fields that nothing changes afterwards: with another one it would be another thing.
FIXED: Final[Mapping[str, frozenset[str]]] = {
    "subscription": frozenset({"team", "user"}),
    "key": frozenset({"team", "project", "user", "product", "stage", "subscription", "role"}),
    "deployment": frozenset({"provider"}),
    "provider": frozenset({"kind"}),
    "webhook": frozenset({"kind"}),
}


class Thing(NamedTuple):
    """One object: what it is called by, and all that is to be said of it; a field as usual is not among ``fields``."""

    kind: str
    identity: tuple[str, ...]
    fields: Mapping[str, Any] = {}
    #: As people call it, such as ``limit team=research usd month``.
    title: str = ""
    #: Of a thing that is there: its id, and who made it.
    id: str = ""
    owner: str = ""
    #: Names of things that must be there before it: kind and identity.
    needs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    #: Where it is wanted, as ``file:line:column``.
    place: str = ""


class Change(NamedTuple):
    """One field, before and after; ``None`` is as usual."""

    field: str
    before: Any
    after: Any


class Step(NamedTuple):
    """One thing to be done: ``create``, ``change`` or ``delete``."""

    action: str
    thing: Thing
    changes: tuple[Change, ...] = ()


class Impossible(NamedTuple):
    """A wanted thing that cannot come about, as a sentence, and the way out."""

    thing: Thing
    problem: str
    hint: str = ""


class Plan(NamedTuple):
    """The way from what is there to what is wanted."""

    steps: tuple[Step, ...]
    impossible: tuple[Impossible, ...] = ()
    #: What a file made once and does not name any more, where it was not asked to be taken away.
    left: tuple[Thing, ...] = ()
    #: What is wanted and is there already, made by somebody else: from now on it is the file's.
    taken_over: tuple[Thing, ...] = ()


def plan(wanted: Sequence[Thing], present: Sequence[Thing], *, prune: bool = False) -> Plan:
    """The steps after which ``present`` is as ``wanted``.

    With ``prune`` what an earlier file made and this one does not name is taken away; all else that is not named
    stays. Doing the steps and planning again gives none.
    """
    there = {(each.kind, each.identity): each for each in present}
    named = {(each.kind, each.identity) for each in wanted}
    made: list[Step] = []
    impossible: list[Impossible] = []
    taken_over: list[Thing] = []
    for thing in wanted:
        before = there.get((thing.kind, thing.identity))
        if before is None:
            changes = tuple(Change(name, None, value) for name, value in sorted(thing.fields.items()))
            made.append(Step("create", thing, changes))
            continue
        changes = differences(before, thing)
        fault = _fault(before, thing, changes)
        if fault is not None:
            impossible.append(fault)
        elif changes:
            made.append(Step("change", thing._replace(id=before.id, owner=before.owner), changes))
        if before.owner not in (APPLY, FILE):
            taken_over.append(before)
    gone = [each for each in present if each.owner == APPLY and (each.kind, each.identity) not in named]
    removed = [Step("delete", each) for each in sorted(gone, key=_removal_rank)] if prune else []
    return Plan((*_ordered(made), *removed), tuple(impossible), () if prune else tuple(gone), tuple(taken_over))


def differences(before: Thing, after: Thing) -> tuple[Change, ...]:
    """The fields of a thing that are to change, by name."""
    kept = KEPT | _KEPT_OF.get(after.kind, frozenset())
    return tuple(
        Change(name, before.fields.get(name), after.fields.get(name))
        for name in sorted({*before.fields, *after.fields})
        if before.fields.get(name) != after.fields.get(name) and not (name in kept and name not in after.fields)
    )


def _fault(before: Thing, after: Thing, changes: Sequence[Change]) -> Impossible | None:
    if not changes:
        return None
    if before.owner == FILE:
        hint = "change it in the configuration file, or take it out of this one"
        return Impossible(after, "it is declared in the configuration file", hint)
    fixed = [change.field for change in changes if change.field in FIXED.get(after.kind, frozenset())]
    if fixed:
        problem = f"its {' and '.join(fixed)} cannot change: history names it so"
        return Impossible(after, problem, f"give the new {after.kind} another name, and take this one out")
    return None


def _ordered(steps: Sequence[Step]) -> list[Step]:
    """The steps by kind; one that needs a thing which is yet to be made waits until all of that kind are."""
    coming = {(step.thing.kind, step.thing.identity) for step in steps if step.action == "create"}

    def rank(step: Step) -> tuple[int, int]:
        own = ORDER.index(step.thing.kind)
        awaited = [ORDER.index(kind) for kind, identity in step.thing.needs if (kind, identity) in coming]
        # What makes a thing narrower or wider is done before new ones come that may use it.
        return max([own, *awaited]), int(step.action == "create") if not awaited else 2

    return sorted(steps, key=rank)


def _removal_rank(thing: Thing) -> int:
    return REMOVAL_ORDER.index(thing.kind)
