"""Which limits apply to a caller, whatever their number.

Owns limits in their compiled form and the look-up by selector. Knows no counter and no time. Limits are grouped by the
*shape* of their selector, the set of dimensions it names: one dictionary look-up per shape finds all limits of that
shape, so that 50,000 limits on single keys cost what one costs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from operator import itemgetter
from typing import Any

from faregate.core.amounts import UNITS
from faregate.core.attribution import TAG_PREFIX, Attribution, dimension
from faregate.core.limits.kinds import refusal_code
from faregate.core.limits.terms import PLAIN, Spared, Terms
from faregate.core.limits.windows import PERIODS, rolling_nanos

#: Dimensions with a value for every request or end user: remembering what matched them would not pay.
PER_REQUEST = ("end_user", "run")

#: Distinct callers whose matches are remembered; more of them start anew, so that memory stays bounded.
REMEMBERED_MAX = 16_384

#: Actions that decide over calls, and so are taken in the gate.
GATE_DEEDS = frozenset(("throttle", "downgrade", "stop"))

_Getter = Callable[[Attribution], Any]


class CompiledLimit:
    """A limit ready for admission. Immutable by convention; counters are kept by ``Allowances``."""

    __slots__ = (
        "amount",
        "clamp",
        "code",
        "contact",
        "each",
        "hard",
        "id",
        "moving",
        "paced",
        "period",
        "rolling",
        "selector",
        "shadow",
        "spared",
        "subject_of",
        "terms",
        "timed",
        "unit",
        "unit_name",
        "window",
        "zone",
    )

    def __init__(
        self,
        *,
        id: str,
        selector: Mapping[str, str],
        each: Sequence[str] = (),
        unit: str,
        amount: int | None,
        window: str = "",
        zone: tzinfo | None = None,
        mode: str = "hard",
        contact: str = "",
        clamp: bool = False,
        terms: Terms = PLAIN,
    ) -> None:
        self.id = id
        #: ``(dimension, value)`` pairs, sorted.
        self.selector = tuple(sorted(selector.items()))
        self.each = tuple(each)
        self.unit = UNITS.index(unit)
        self.unit_name = unit
        #: Nano-dollars or whole units; ``None`` is unlimited.
        self.amount = amount
        self.window = window
        self.zone = zone
        # A mode that nobody knows was damaged in the books: such a limit refuses rather than let everything pass.
        self.hard = mode not in ("soft", "shadow")
        #: It refuses nobody and remembers whom it would have refused.
        self.shadow = mode == "shadow"
        self.terms = terms
        #: Length of a rolling window in nanoseconds, 0 for a calendar's.
        self.rolling = rolling_nanos(window) if window else 0
        #: Its counters do not follow the calendar, and over how many nanoseconds its amount is meant then.
        self.paced = bool(self.rolling or terms.algorithm)
        self.period = self.rolling or PERIODS.get(window, 0)
        #: Time alone changes its amount.
        self.timed = bool(terms.since or terms.until or terms.raises)
        #: It needs more than one comparison with a counter: see ``core.limits.moving``.
        self.moving = bool(
            self.paced
            or self.shadow
            or terms.carry_max
            or not terms.estimate
            or any(action.do in GATE_DEEDS for action in terms.actions)
        )
        self.contact = contact
        self.clamp = clamp
        #: The public code of a refusal by this limit.
        self.code = refusal_code(unit, window)
        #: Key of the counter for a caller: a plain value for one dimension, a tuple for several, ``None`` for a total.
        self.subject_of: _Getter | None = _getter(self.each) if self.each else None
        #: Whether a subject is among those whom it does not concern; ``None`` where it concerns all, as nearly always.
        self.spared = spared_subjects(terms.spared, self.each)

    @property
    def bounds_money(self) -> bool:
        """Whether it stops spending in dollars: hard, with an amount, and with a hold for each call."""
        return self.unit_name == "usd" and self.hard and self.amount is not None and self.terms.estimate

    def counts_as(self, other: "CompiledLimit") -> bool:
        """Whether both count the same thing, so that the counters of one go on under the other."""
        return (
            self.id == other.id
            and self.selector == other.selector
            and self.each == other.each
            and self.unit == other.unit
            and self.window == other.window
            and self.terms.algorithm == other.terms.algorithm
            and self.terms.year_start == other.terms.year_start
            and self.terms.spared == other.terms.spared
            and _zone_name(self.zone) == _zone_name(other.zone)
        )

    @property
    def of_place(self) -> bool:
        """Whether it counts what goes to one place, so that another place may have room."""
        return any(name in ("deployment", "provider") for name in (*(name for name, _ in self.selector), *self.each))

    def matches(self, who: Attribution) -> bool:
        """Whether the limit applies to ``who``; a dimension that ``who`` lacks matches nothing."""
        return all(dimension(who, name) == value for name, value in self.selector) and not self.spares(who)

    def spares(self, who: Attribution) -> bool:
        """Whether ``who`` is among those whom the limit leaves to others."""
        return self.spared is not None and self.spared(self.subject(who))

    def subject(self, who: Attribution) -> tuple[str, ...]:
        """The values of ``each`` for ``who``; callers without a value share the counter of the empty string."""
        return tuple(dimension(who, name) for name in self.each)

    def key_of(self, subject: tuple[str, ...]) -> Any:
        """What ``subject_of`` gives for callers of this subject."""
        return subject[0] if len(subject) == 1 else subject

    def __repr__(self) -> str:
        selector = ",".join(f"{name}={value}" for name, value in self.selector)
        return f"<{self.id} {selector} each {self.each} {self.amount} {self.unit_name} per {self.window}>"


_Shape = tuple[str, ...]
_Table = dict[Any, tuple[CompiledLimit, ...]]


class LimitIndex:
    """All limits of a snapshot, found by caller. Never changes; ``changed`` makes the next one."""

    __slots__ = (
        "_dynamic_shapes",
        "_found",
        "_sparing",
        "_static_dimensions",
        "_static_shapes",
        "_tables",
        "changed_from",
        "changed_ids",
        "edition",
        "limits",
    )

    def __init__(self, limits: Iterable[CompiledLimit] = ()) -> None:
        self.limits: dict[str, CompiledLimit] = {}
        #: Tells this index from every other, without keeping it in memory.
        self.edition = object()
        #: The edition that this one was made of by changing ``changed_ids``; ``None`` where it was made anew.
        self.changed_from: object | None = None
        self.changed_ids: tuple[str, ...] = ()
        self._tables: dict[_Shape, _Table] = {}
        #: Limits that do not concern all whom their selectors match; nearly never any.
        self._sparing = 0
        for limit in limits:
            if limit.id in self.limits:
                msg = f"two limits have the id {limit.id}"
                raise ValueError(msg)
            self.limits[limit.id] = limit
            self._sparing += limit.spared is not None
            shape, key = _place(limit)
            table = self._tables.setdefault(shape, {})
            table[key] = (*table.get(key, ()), limit)
        self._arrange()

    def changed(self, limits: Iterable[CompiledLimit], removed: Iterable[str] = ()) -> "LimitIndex":
        """A new index with ``limits`` added or replaced by id and the ids in ``removed`` gone.

        It copies only the dictionaries that change, so that one new limit among 50,000 takes about a millisecond.
        """
        index = LimitIndex()
        index.changed_from = self.edition
        index.limits = dict(self.limits)
        index._tables = dict(self._tables)
        index._sparing = self._sparing
        new = {limit.id: limit for limit in limits}
        copied: set[_Shape] = set()

        def table_of(shape: _Shape) -> _Table:
            if shape not in copied:
                index._tables[shape] = dict(index._tables.get(shape, ()))
                copied.add(shape)
            return index._tables[shape]

        index.changed_ids = tuple(dict.fromkeys((*removed, *new)))
        for id in index.changed_ids:
            old = index.limits.pop(id, None)
            if old is None:
                continue
            index._sparing -= old.spared is not None
            shape, key = _place(old)
            table = table_of(shape)
            left = tuple(limit for limit in table[key] if limit is not old)
            if left:
                table[key] = left
            else:
                del table[key]
        for limit in new.values():
            index.limits[limit.id] = limit
            index._sparing += limit.spared is not None
            shape, key = _place(limit)
            table = table_of(shape)
            table[key] = (*table.get(key, ()), limit)
        for shape in copied:
            if not index._tables[shape]:
                del index._tables[shape]
        index._arrange()
        return index

    def _arrange(self) -> None:
        """Prepare the look-up of every shape."""
        static: list[tuple[_Getter, _Table]] = []
        varying: list[tuple[_Getter, _Table]] = []
        dimensions: set[str] = set()
        for shape, table in sorted(self._tables.items()):
            if any(_is_per_request(name) for name in shape):
                varying.append((_getter(shape), table))
            else:
                static.append((_getter(shape), table))
                dimensions.update(shape)
        self._static_shapes = tuple(static)
        self._dynamic_shapes = tuple(varying)
        self._static_dimensions = _getter(tuple(sorted(dimensions)))
        self._found: dict[Any, tuple[CompiledLimit, ...]] = {}

    def matching(self, who: Attribution) -> tuple[CompiledLimit, ...]:
        """Every limit that applies to ``who``, in an order that depends on the limits only."""
        values = self._static_dimensions(who)
        found = self._found.get(values)
        if found is None:
            found = self._remember(values, who)
        for getter, table in self._dynamic_shapes:
            more = table.get(getter(who))
            if more is not None:
                found += more
        if self._sparing:
            found = tuple(limit for limit in found if not limit.spares(who))
        return found

    def _remember(self, values: Any, who: Attribution) -> tuple[CompiledLimit, ...]:
        """Look ``who`` up in every static shape and keep the answer for the next request of its kind."""
        found: tuple[CompiledLimit, ...] = ()
        for getter, table in self._static_shapes:
            found += table.get(getter(who), ())
        if len(self._found) >= REMEMBERED_MAX:
            self._found.clear()
        self._found[values] = found
        return found

    def __iter__(self) -> Iterator[CompiledLimit]:
        return iter(self.limits.values())

    def __len__(self) -> int:
        return len(self.limits)


def _place(limit: CompiledLimit) -> tuple[_Shape, Any]:
    """The shape of a limit's selector and its key in the table of that shape."""
    if len(limit.selector) == 1:
        ((name, value),) = limit.selector
        return (name,), value
    return tuple(name for name, _ in limit.selector), tuple(value for _, value in limit.selector)


def spared_subjects(told: Sequence[Spared], each: Sequence[str]) -> Callable[[Sequence[str]], bool] | None:
    """Whether a subject, the values of ``each``, is spared; ``None`` where a limit spares nobody."""
    if not told:
        return None
    by_places: dict[tuple[int, ...], set[tuple[str, ...]]] = {}
    for one in told:
        if not set(one.names) <= set(each):
            # Damaged: a limit is rather for one more than missing for all.
            continue
        by_places.setdefault(tuple(each.index(name) for name in one.names), set()).add(one.values)

    def spared(subject: Sequence[str]) -> bool:
        return any(tuple(subject[place] for place in places) in values for places, values in by_places.items())

    return spared


def _is_per_request(name: str) -> bool:
    """Whether requests of one key differ in this dimension."""
    return name in PER_REQUEST or name.startswith(TAG_PREFIX)


def _getter(names: _Shape) -> _Getter:
    """Reads dimensions from an attribution: one value for one name, else a tuple of them."""
    if not names:
        return lambda who: ()
    if any(name.startswith(TAG_PREFIX) for name in names):
        if len(names) == 1:
            name = names[0]
            return lambda who: dimension(who, name)
        return lambda who: tuple(dimension(who, name) for name in names)
    return itemgetter(*(Attribution._fields.index(name) for name in names))


def _zone_name(zone: tzinfo | None) -> str:
    """A name to compare zones by; no zone is UTC."""
    return "UTC" if zone is None else str(zone)
