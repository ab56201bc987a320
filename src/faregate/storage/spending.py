"""What keys spent in each slot of the roll-ups: the statement, for any engine."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, case, func, select

from faregate.storage.schema import dimension_sets, rollups


def spending(keys: Sequence[str], since: int, until: int) -> Select[Any]:
    """``key, service, slot, spent`` of these keys, in that order: cost or charge of a slot's set, whichever is more."""
    # The sets come first: a planner without statistics would read every caller's roll-ups of all that time.
    sets = select(dimension_sets.c.id).where(dimension_sets.c.key.in_(list(keys)))
    grouped = (dimension_sets.c.key, dimension_sets.c.service, rollups.c.slot)
    more = case((rollups.c.cost > rollups.c.charge, rollups.c.cost), else_=rollups.c.charge)
    statement = select(*grouped, func.sum(more).label("spent"))
    statement = statement.select_from(rollups.join(dimension_sets, rollups.c.dimensions == dimension_sets.c.id))
    statement = statement.where(rollups.c.dimensions.in_(sets), rollups.c.slot >= since, rollups.c.slot < until)
    return statement.group_by(*grouped).order_by(*grouped)
