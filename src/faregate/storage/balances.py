"""What limits have counted: one sum asked of the database, or the sums of very many limits out of few statements.

Statements are made here for any engine; who runs them is handed in. Limits of one span that select on the same
dimension are answered together: what was posted in the span for their values of it is summed once by the dimensions
that they name, and each row of that is given to the limits that it concerns, found by the values of their selectors. So
the number of statements follows the number of distinct windows and kinds of selectors, hardly that of the limits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, literal, select

from faregate.ports import BalanceQuery, Balances
from faregate.storage.queries import (
    REQUESTS,
    ROLLUPS,
    UNIT_SUMS,
    TagOf,
    chosen_by,
    column_of,
    sets_with,
    source_of,
    span,
)
from faregate.storage.schema import dimension_sets, rollups

#: Values of one dimension that a statement is narrowed to. SQLite takes 32,766 variables in one, others more.
VALUES_MAX: Final = 30_000

#: Runs the statement and gives its rows.
Fetch = Callable[[Select[Any]], Iterable[Sequence[Any]]]

#: Places of queries that one statement answers, and the dimension that it is narrowed to their values of.
Group = tuple[str, list[int]]

_Values = tuple[str, ...]


def balances(
    asked: Sequence[BalanceQuery], fetch: Fetch, tag_of: TagOf, *, values_max: int = VALUES_MAX
) -> list[Balances]:
    """What each query asks for, in their order: subjects in order, with what was posted for them.

    Raises:
        UsageError: a name that is neither a dimension nor ``tag.NAME``.
    """
    found: list[Balances] = [[] for _ in asked]
    for group in groups(asked, values_max=values_max):
        answer(group, asked, found, fetch, tag_of)
    return found


def answer(group: Group, asked: Sequence[BalanceQuery], found: list[Balances], fetch: Fetch, tag_of: TagOf) -> None:
    """Put what one group of queries asks for into its places of ``found``."""
    name, places = group
    if len(places) == 1:
        (place,) = places
        found[place] = _alone(asked[place], fetch, tag_of)
    else:
        _together(asked, places, name, found, fetch, tag_of)


def _alone(asked: BalanceQuery, fetch: Fetch, tag_of: TagOf) -> Balances:
    """One limit's sums, worked out by the database."""
    source = source_of((*asked.selector, *asked.each), asked.since, asked.until)
    subject = [column_of(name, tag_of).label(f"each_{index}") for index, name in enumerate(asked.each)]
    posted: ColumnElement[int] = literal(0)
    for name in UNIT_SUMS.get(asked.unit, ()):
        posted = posted + source.sums[name]
    statement = select(*subject, posted.label("posted"), source.sums["requests"].label("counted"))
    if source is ROLLUPS:
        # By the numbers of the sets: to look up the names of each line's set takes several times as long.
        statement = statement.select_from(source.table_for(asked.each) if asked.each else rollups)
        statement = statement.where(*_in_roll_ups(asked.since, asked.until, asked.selector))
    else:
        statement = statement.select_from(source.table_for(asked.each))
        statement = statement.where(chosen_by(source, asked.since, asked.until, asked.selector, tag_of))
    rows = fetch(statement.group_by(*subject) if subject else statement)
    return sorted((tuple(row[:-2]), int(row[-2])) for row in rows if row[-1])


def _in_roll_ups(since: int, until: int, selector: Mapping[str, object]) -> list[ColumnElement[bool]]:
    """The conditions of roll-ups of a span, and of the sets that have the dimensions asked for."""
    sets = sets_with(selector)
    return span(rollups.c.slot, since, until) + ([rollups.c.dimensions.in_(sets)] if sets is not None else [])


def groups(asked: Sequence[BalanceQuery], *, values_max: int = VALUES_MAX) -> Iterator[Group]:
    """The queries, by which of them one statement can answer."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    # Of very many limits few differ in more than their values.
    groups_of: dict[tuple[Any, ...], list[int]] = {}
    for place, one in enumerate(asked):
        alike = (*one.selector, "", *one.each, one.since, one.until)
        group = groups_of.get(alike)
        if group is None:
            names = {*one.selector, *one.each}
            # Records are many, so only what these limits name may keep them apart.
            apart = () if source_of(names, one.since, one.until) is ROLLUPS else tuple(sorted(names))
            group = groups.setdefault((_narrowest(one.selector), one.since, one.until, apart), [])
            groups_of[alike] = group
        group.append(place)
    for (name, *_), places in groups.items():
        if not name:
            yield name, places
            continue
        places.sort(key=lambda place: asked[place].selector[name])
        some: list[int] = []
        values: set[str] = set()
        for place in places:
            if len(values) == values_max and asked[place].selector[name] not in values:
                yield name, some
                some, values = [], set()
            some.append(place)
            values.add(asked[place].selector[name])
        yield name, some


#: Dimensions by how few calls have the same value, as far as that can be known; there is an index of runs.
_NARROW_FIRST: Final = ("run", "end_user", "key", "user", "project", "product", "team")


def _narrowest(selector: Mapping[str, str]) -> str:
    """The dimension whose value the fewest calls have, empty where a limit covers all of them."""
    return next((name for name in _NARROW_FIRST if name in selector), min(selector, default=""))


def _together(
    asked: Sequence[BalanceQuery],
    places: Sequence[int],
    narrow: str,
    found: list[Balances],
    fetch: Fetch,
    tag_of: TagOf,
) -> None:
    """The sums of several limits of one span, out of one statement."""
    queries = [asked[place] for place in places]
    since, until = queries[0].since, queries[0].until
    names = tuple(sorted({name for one in queries for name in chain(one.selector, one.each)}))
    sums = tuple(sorted({name for one in queries for name in UNIT_SUMS.get(one.unit, ())}))
    narrowed = {narrow: sorted({one.selector[narrow] for one in queries})} if narrow else {}
    make = _roll_up_sums if source_of(names, since, until) is ROLLUPS else _record_sums
    rows = fetch(make(names, sums, since, until, narrowed, tag_of))
    receivers = _Receivers(queries, names, sums)
    for row in rows:
        if row[-1]:
            receivers.give(row)
    for place, counted in zip(places, receivers.counted(), strict=True):
        found[place] = counted


def _roll_up_sums(
    names: _Values, sums: _Values, since: int, until: int, narrowed: dict[str, list[str]], tag_of: TagOf
) -> Select[Any]:
    """Rows of the values of ``names``, the ``sums``, and how many calls; several rows may have the same values.

    Sums are made by the number of the set, which is at hand, and the names are looked up for each set once.
    """
    del tag_of
    summed = [ROLLUPS.sums[name].label(name) for name in sums]
    inner = select(rollups.c.dimensions, *summed, ROLLUPS.sums["requests"].label("counted"))
    inner = inner.where(*_in_roll_ups(since, until, narrowed))
    by_set = inner.group_by(rollups.c.dimensions).subquery()
    columns = [dimension_sets.c[name] for name in names]
    statement = select(*columns, *(by_set.c[name] for name in sums), by_set.c.counted)
    return statement.join_from(by_set, dimension_sets, by_set.c.dimensions == dimension_sets.c.id)


def _record_sums(
    names: _Values, sums: _Values, since: int, until: int, narrowed: dict[str, list[str]], tag_of: TagOf
) -> Select[Any]:
    """As ``_roll_up_sums``, from the records themselves."""
    columns = [column_of(name, tag_of).label(f"by_{index}") for index, name in enumerate(names)]
    summed = [REQUESTS.sums[name].label(name) for name in sums]
    statement = select(*columns, *summed, REQUESTS.sums["requests"].label("counted"))
    statement = statement.select_from(REQUESTS.table_for(names))
    statement = statement.where(chosen_by(REQUESTS, since, until, narrowed, tag_of))
    return statement.group_by(*columns) if columns else statement


class _Receivers:
    """Gives each row of sums to the limits that it concerns, whose number does not matter for a row."""

    def __init__(self, queries: Sequence[BalanceQuery], names: _Values, sums: _Values) -> None:
        position = {name: index for index, name in enumerate(names)}
        summed = {name: len(names) + index for index, name in enumerate(sums)}
        sums_of = {unit: tuple(summed[name] for name in UNIT_SUMS.get(unit, ())) for unit in {q.unit for q in queries}}
        subject_of = {each: _getter([position[name] for name in each]) for each in {q.each for q in queries} if each}
        self._receivers: list[_Receiver] = []
        #: For each kind of selector: its values in a row, and what receives by these values.
        kinds: dict[_Values, dict[Any, list[_Receiver]]] = {}
        for one in queries:
            receiver = _Receiver(subject_of.get(one.each), len(one.each) == 1, sums_of[one.unit])
            self._receivers.append(receiver)
            shape = tuple(sorted(one.selector))
            values = one.selector[shape[0]] if len(shape) == 1 else tuple(one.selector[name] for name in shape)
            kinds.setdefault(shape, {}).setdefault(values, []).append(receiver)
        self._kinds = [(_getter([position[name] for name in shape]), by) for shape, by in kinds.items()]

    def give(self, row: Sequence[Any]) -> None:
        """Count one row."""
        for values_of, receivers in self._kinds:
            for receiver in receivers.get(values_of(row), ()):
                receiver.take(row)

    def counted(self) -> Iterator[Balances]:
        """What each query has counted, in their order."""
        return (receiver.balances() for receiver in self._receivers)


def _getter(places: Sequence[int]) -> Callable[[Sequence[Any]], Any]:
    """Reads these places of a row: one value for one place, else a tuple of them."""
    return itemgetter(*places) if places else lambda row: ()


class _Receiver:
    """One limit: its subject and its unit in a row, and what it has counted."""

    __slots__ = ("_by_subject", "_one_name", "_subject", "_sums", "_total")

    def __init__(self, subject: Callable[[Sequence[Any]], Any] | None, one_name: bool, sums: tuple[int, ...]) -> None:
        self._subject = subject
        self._one_name = one_name
        self._sums = sums
        #: ``None`` where no row came, which is not the same as rows that posted nothing.
        self._total: int | None = None
        self._by_subject: dict[Any, int] = {}

    def take(self, row: Sequence[Any]) -> None:
        """Count one row."""
        posted = 0
        for place in self._sums:
            posted += row[place]
        if self._subject is None:
            self._total = posted + (self._total or 0)
        else:
            subject = self._subject(row)
            self._by_subject[subject] = self._by_subject.get(subject, 0) + posted

    def balances(self) -> Balances:
        """What was counted, in the order of the subjects."""
        if self._subject is None:
            return [] if self._total is None else [((), self._total)]
        if self._one_name:
            return sorted(((subject,), posted) for subject, posted in self._by_subject.items())
        return sorted(self._by_subject.items())
