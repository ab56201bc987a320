"""Which way a name leads for a caller: the pools in order, and the deployments of them that are left for it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from faregate.core.routing.choose import Member, PoolRule


class Caller(NamedTuple):
    """What a way may depend on."""

    organization: str = ""
    team: str = ""
    project: str = ""
    product: str = ""
    stage: str = ""
    user: str = ""
    #: Id and name of the key: either is meant by ``key``.
    key: str = ""
    key_name: str = ""


#: Fields that must hold of a caller, with their values.
Who = tuple[tuple[str, str], ...]


def fits(who: Who, caller: Caller) -> bool:
    """Whether everything in ``who`` holds of a caller."""
    return all(
        value in (caller.key, caller.key_name) if name == "key" else value == getattr(caller, name)
        for name, value in who
    )


def chosen(whos: Sequence[Who], caller: Caller) -> int:
    """The first of several that fits a caller, -1 for none."""
    return next((position for position, who in enumerate(whos) if fits(who, caller)), -1)


def rules_along(steps: Sequence[str], places: Sequence[str], pools: Mapping[str, PoolRule]) -> tuple[PoolRule, ...]:
    """The pools along ``steps`` in order, or ``places`` where there are no steps.

    A deployment that is named by itself is a pool of one. Among places nothing is the name of a pool: files and batches
    go to a place that is named like its provider.
    """
    if not steps:
        return tuple(PoolRule("", (Member(name),)) for name in places)
    return tuple(pools.get(step) or PoolRule("", (Member(step),)) for step in steps)
