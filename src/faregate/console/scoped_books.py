"""The books and the gate as a principal with a scope sees them: what lies outside of it is as absent.

This is the one place where another organization's rows are kept back, whatever a route forgets. Reads carry the scope
as a predicate of the books; a row outside is not there, whether it is asked for by id or listed. A write outside is
refused. What cannot be narrowed to a scope raises ``OutOfScope``: that is a mistake of ours, told as an internal error
and never as data.

Also by id, the books are asked with the scope as a condition. A row of others is then not read only to be kept back
here, which would take longer than an id that nothing has, and so would tell that there is such a row.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Final, cast

from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.state import Console, Gate
from faregate.control import Allowances, Flush, FlushCache
from faregate.core.access import LOCAL, Principal, Scope, in_scopes, scope_of
from faregate.core.attribution import dimension
from faregate.core.comparison import Comparison
from faregate.ports import BalanceQuery, Balances, Books, Row, TrailMark

#: What a limit's details say of who set it: the dimensions of their scope. Without it, it was set from above.
SET_BY: Final = "set_by"
#: And of their role; without it, it was root's.
SET_BY_ROLE: Final = "set_by_role"

SET_ABOVE: Final = "this limit was set above your key; ask whoever set it to change it"

#: Rows that no limit or key is without, and that only ever say what is inside of their limit.
_ENTRY: Final = "limit_entry"

#: Ids that are asked for in one statement.
_TOGETHER: Final = 1000


class OutOfScope(RuntimeError):
    """Something was asked of the books that cannot be told of a part of them alone."""


def _refusal(scope: Scope) -> ApiProblem:
    named = ", ".join(f"{name} {value}" for name, value in scope.named.items())
    return ApiProblem("role_forbidden", f"this lies outside of what your key is of: {named}")


def may_change_limit(scope: Scope, row: Row) -> bool:
    """Whether whoever has this scope may change a limit: what was set above him binds him."""
    if scope.whole:
        return True
    told: dict[str, str] = (row.get("details") or {}).get(SET_BY) or {}
    return bool(told) and scope.sees("limit", row) and scope.covers(scope_of(told))


def setter_note(setter: Principal) -> dict[str, Any]:
    """What a limit's details say of who set it."""
    scope = {} if setter.scope.whole else {SET_BY: setter.scope.named}
    return scope | ({} if setter.role == LOCAL.role else {SET_BY_ROLE: setter.role})


def setter_of(row: Row) -> Principal:
    """Who set a limit, as far as its row tells it."""
    details = row.get("details") or {}
    if SET_BY not in details and SET_BY_ROLE not in details:
        return LOCAL
    # A note of an earlier version tells no role: that of a scope's narrowest setter.
    return Principal(row["id"], details.get(SET_BY_ROLE, "manager"), scope_of(details.get(SET_BY) or {}))


class ScopedBooks:
    """``Books`` of which only one scope's part is there; what it does not have cannot be narrowed, and raises."""

    def __init__(self, books: Books, scope: Scope) -> None:
        self._books = books
        self._scope = scope

    @property
    def organization(self) -> str:
        """Whose rows are there at the most."""
        return self._scope.organization

    # -- resources ----------------------------------------------------------------------------------------------------
    def get(self, kind: str, id: str) -> Row | None:
        """One row, if it lies in the scope."""
        return self.get_all(kind, (id,)).get(id)

    def get_all(self, kind: str, ids: Sequence[str]) -> dict[str, Row]:
        """Those of these rows that there are, and lie in the scope."""
        if kind == _ENTRY:
            return {id: row for id, row in self._books.get_all(kind, ids).items() if self._sees(kind, row)}
        conditions = self._conditions(kind)
        if conditions is None:
            return {}
        found: dict[str, Row] = {}
        for start in range(0, len(ids), _TOGETHER):
            some = ids[start : start + _TOGETHER]
            # One id is compared as such: a list of one would be another statement, for which SQLite makes a table.
            wanted: dict[str, object] = {**conditions, "id": some[0] if len(some) == 1 else list(some)}
            rows = self._books.listing(kind, after="", limit=len(some), **wanted)
            found.update((row["id"], row) for row in rows)
        return found

    def listing(self, kind: str, /, *, after: str = "", limit: int = 1000, **equal: object) -> list[Row]:
        """Rows of the scope in the order of their ids."""
        merged = self._within(kind, equal)
        return [] if merged is None else self._books.listing(kind, after=after, limit=limit, **merged)

    def newest(self, kind: str, /, *, before: str = "", limit: int = 1000, **equal: object) -> list[Row]:
        """Rows of the scope in the reverse order of their ids."""
        merged = self._within(kind, equal)
        return [] if merged is None else self._books.newest(kind, before=before, limit=limit, **merged)

    def put(self, kind: str, row: Row, *, told: TrailMark | None = None) -> int:
        """Insert or replace a row of the scope."""
        self._check(kind, row["id"], row)
        return self._books.put(kind, row, told=told)

    def put_all(self, kind: str, rows: Sequence[Row], *, told: TrailMark | None = None) -> None:
        """Insert or replace rows of the scope."""
        for row in rows:
            self._check(kind, row["id"], row)
        self._books.put_all(kind, rows, told=told)

    def put_together(
        self,
        rows: Sequence[tuple[str, Row]],
        removed: Sequence[tuple[str, str]] = (),
        *,
        told: TrailMark | None = None,
    ) -> None:
        """Put and remove rows of the scope together."""
        limits = {row["id"] for kind, row in rows if kind == "limit"} | {id for kind, id in removed if kind == "limit"}
        for kind, row in rows:
            # An entry comes with the limit that it is about.
            if kind != _ENTRY or row["limit_id"] not in limits:
                self._check(kind, row["id"], row)
        for kind, id in removed:
            self._check(kind, id, None)
        self._books.put_together(rows, removed, told=told)

    def remove(self, kind: str, id: str, *, told: TrailMark | None = None) -> bool:
        """Remove a row of the scope; one outside is not there."""
        if self.get(kind, id) is None:
            return False
        self._check(kind, id, None)
        return self._books.remove(kind, id, told=told)

    def newest_change(self) -> int:
        """How far the changes of everybody go: a number, by which the gate is waited for."""
        return self._books.newest_change()

    # -- balances -----------------------------------------------------------------------------------------------------
    def balances(self, selector: dict[str, str], each: tuple[str, ...], unit: str, since: int) -> Balances:
        """Of what lies in the scope."""
        return self.balances_of([BalanceQuery(selector, each, unit, since)])[0]

    def balances_of(self, asked: Sequence[BalanceQuery]) -> list[Balances]:
        """Of what lies in the scope; who asks has such limits only."""
        if not all(self._scope.holds(query.selector) for query in asked):
            raise self._unscoped("balances")
        return self._books.balances_of(asked)

    def open_reservations(self, state: str | None = None) -> list[Row]:
        """Those of the scope's calls."""
        named = self._scope.named.items()
        rows = self._books.open_reservations(state)
        return [row for row in rows if all(dimension(row["intent"].who, name) == value for name, value in named)]

    # -- looking ------------------------------------------------------------------------------------------------------
    def requests(self, *, after: str = "", limit: int = 100, newest_first: bool = True, **filters: object) -> list[Row]:
        """Records of the scope's calls."""
        merged = _merged(filters, self._scope.named)
        if merged is None:
            return []
        return self._books.requests(after=after, limit=limit, newest_first=newest_first, **merged)

    def request(self, id: str) -> Row | None:
        """One record, if it is of the scope."""
        return self._books.request(id, **self._scope.named)

    def usage(self, by: Sequence[str], since: int, until: int, **filters: object) -> list[Row]:
        """Sums over the scope's calls."""
        merged = _merged(filters, self._scope.named)
        return [] if merged is None else self._books.usage(by, since, until, **merged)

    def cache_use(
        self, by: Sequence[str], since: int, until: int, thresholds: Mapping[str, Sequence[int]], **filters: object
    ) -> list[Row]:
        """What caches did for the scope's calls."""
        merged = _merged(filters, self._scope.named)
        return [] if merged is None else self._books.cache_use(by, since, until, thresholds, **merged)

    def comparison(
        self, since: int, until: int, most: int, *, stream: bool | None = None, **filters: object
    ) -> Comparison:
        """How deployments compare by the scope's calls; copies of these are nobody's, and so not among them."""
        merged = _merged(filters, self._scope.named)
        if merged is None:
            return Comparison()
        return self._books.comparison(since, until, most, stream=stream, **merged)

    def rate_card(self, version: str) -> Row | None:
        """The rate card a charge was made with: its version is known from a record of the scope alone."""
        return self._books.rate_card(version)

    def corrections(self, ids: Sequence[str]) -> list[Row]:
        """What was corrected of the scope's records."""
        return self._books.corrections([id for id in ids if self.request(id) is not None])

    # -- the rest, which is of nobody alone ---------------------------------------------------------------------------
    def projected(self) -> int:
        """The journal position of the books: a number of bytes, which says nothing of anybody."""
        return self._books.projected()

    def __getattr__(self, name: str) -> Any:
        raise self._unscoped(name)

    # -- what lies in it ----------------------------------------------------------------------------------------------
    def _unscoped(self, asked: str) -> OutOfScope:
        return OutOfScope(f"{asked} was asked for by a principal of {self._scope.named}")

    def _sees(self, kind: str, row: Row) -> bool:
        if kind == _ENTRY:
            return self.get("limit", row["limit_id"]) is not None
        self._conditions(kind)
        return self._scope.sees(kind, row)

    def _conditions(self, kind: str) -> dict[str, str] | None:
        """What rows of a kind must equal; ``None`` where the scope is too narrow for any.

        Raises:
            OutOfScope: rows of this kind are nobody's alone.
        """
        if not in_scopes(kind):
            raise self._unscoped(kind)
        return self._scope.conditions(kind)

    def _within(self, kind: str, equal: dict[str, object]) -> dict[str, object] | None:
        """The filters of a listing with those of the scope; ``None`` where no row can fit both."""
        if kind == _ENTRY:
            # Entries are listed by their limit, which must be one of the scope's.
            wanted = equal.get("limit_id")
            ids = [wanted] if isinstance(wanted, str) else list(wanted) if isinstance(wanted, list | tuple) else None
            if ids is None:
                raise self._unscoped(kind)
            known = self.get_all("limit", ids)
            return {**equal, "limit_id": list(known)} if known else None
        conditions = self._conditions(kind)
        return None if conditions is None else _merged(equal, conditions)

    def _check(self, kind: str, id: str, after: Row | None) -> None:
        """Refuse a write that would change, make or move a row outside of the scope, or what was set above it.

        Raises:
            ApiProblem: ``role_forbidden``.
        """
        before = self._books.get(kind, id)
        for row in (before, after):
            if row is not None and not self._sees(kind, row):
                raise _refusal(self._scope)
        if kind == "limit":
            if not all(may_change_limit(self._scope, row) for row in (before, after) if row is not None):
                raise ApiProblem("role_forbidden", SET_ABOVE)
        elif before is not None and kind != "key" and self._scope.bounded_by(kind, before):
            raise ApiProblem("role_forbidden", f"your key is of this {kind}; only somebody above may change it")


def _merged(filters: dict[str, object], wanted: dict[str, str]) -> dict[str, object] | None:
    """Filters that also want these values; ``None`` where nothing can have both."""
    merged = dict(filters)
    for name, value in wanted.items():
        asked = merged.get(name, value)
        if value not in (list(asked) if isinstance(asked, list | tuple | set | frozenset) else [asked]):
            return None
        merged[name] = value
    return merged


class ScopedGate:
    """The ``Gate`` as a principal with a scope may ask it: where its limits stand, and nothing of the whole."""

    def __init__(self, gate: Gate, books: ScopedBooks) -> None:
        self._gate = gate
        self._books = books

    @property
    def connected(self) -> bool:
        """Whether the gate is there."""
        return self._gate.connected

    def nudge(self) -> None:
        """Look at the change feed now."""
        self._gate.nudge()

    async def applied(self, within_s: float) -> bool:
        """Whether the gate works from every change made so far."""
        return await self._gate.applied(within_s)

    async def allowances(self, limits: tuple[str, ...] = ()) -> Allowances:
        """Live allowances of some limits of the scope, which have to be named; of others there are none."""
        if not limits:
            raise OutOfScope("all allowances were asked for by a principal with a scope")
        known = tuple(await in_thread(lambda: self._books.get_all("limit", limits)))
        # Without a name the gate would tell of all.
        return await self._gate.allowances(known) if known else Allowances(())

    async def flush_cache(self, order: FlushCache) -> Flush:
        """Have kept answers of the scope's organization forgotten; how much of that is his, the route decides."""
        if order.organization != self._books.organization:
            raise OutOfScope("a flush of the whole cache was asked for by a principal with a scope")
        return await self._gate.flush_cache(order)

    def __getattr__(self, name: str) -> Any:
        raise OutOfScope(f"{name} was asked of the gate by a principal with a scope")


def scoped(console: Console, principal: Principal) -> Console:
    """``console`` as this principal may use it; only its books and its gate differ from whole ones."""
    view = copy(console)
    # A frozen object is made anew field by field, and this one shares everything else: locks, sessions, counters.
    object.__setattr__(view, "principal", principal)
    if not principal.scope.whole:
        books = ScopedBooks(console.all_books, principal.scope)
        object.__setattr__(view, "books", cast(Books, books))
        if console.gate is not None:
            object.__setattr__(view, "gate", cast(Gate, ScopedGate(console.gate, books)))
    return view
