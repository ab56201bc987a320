"""``POST /api/v1/keys|limits|teams|projects|users|products/bulk``: many of a kind made together, all of them or none.

Each is made as if it came alone, over books on which nothing is written yet; what all of them write is then written in
one transaction, and the gate is waited for once. What is wrong with one is told under its place, ``items.3.name``.
"""

from collections.abc import Callable, Collection, Sequence
from copy import copy
from functools import lru_cache
from typing import Any, ClassVar, TypeVar, cast

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console import keys, limits, payers
from faregate.console.allowances import limit_views
from faregate.console.audit import AuditTrail
from faregate.console.describing import answers
from faregate.console.problems import ERRORS_MAX, ApiProblem
from faregate.console.reading import every, made_places
from faregate.console.rights import needs
from faregate.console.scoped_books import scoped
from faregate.console.shapes import limits as limit_shapes
from faregate.console.shapes import payers as shapes
from faregate.console.state import Console
from faregate.console.texts import Body
from faregate.console.writing import acted, console_of, locked, put_together
from faregate.core.desired_state import ITEMS_MAX
from faregate.errors import FaregateError
from faregate.ports import Books, Row, TrailMark

router = APIRouter()

Item = TypeVar("Item", bound=Body)
Made = TypeVar("Made")


class NewKeys(Body):
    """Keys to be made together."""

    ITEM: ClassVar[type[Body]] = keys.NewKey
    items: list[keys.NewKey] = Field(min_length=1, max_length=ITEMS_MAX)


class NewLimits(Body):
    """Limits to be set together."""

    ITEM: ClassVar[type[Body]] = limits.NewLimit
    items: list[limits.NewLimit] = Field(min_length=1, max_length=ITEMS_MAX)


class NewTeams(Body):
    """Teams to be made together."""

    ITEM: ClassVar[type[Body]] = payers.NewPayer
    items: list[payers.NewPayer] = Field(min_length=1, max_length=ITEMS_MAX)


class NewProjects(Body):
    """Projects to be made together."""

    ITEM: ClassVar[type[Body]] = payers.NewProject
    items: list[payers.NewProject] = Field(min_length=1, max_length=ITEMS_MAX)


class NewUsers(Body):
    """Users to be made together."""

    ITEM: ClassVar[type[Body]] = payers.NewUser
    items: list[payers.NewUser] = Field(min_length=1, max_length=ITEMS_MAX)


class NewProducts(Body):
    """Products to be made together."""

    ITEM: ClassVar[type[Body]] = payers.NewProduct
    items: list[payers.NewProduct] = Field(min_length=1, max_length=ITEMS_MAX)


# -- books on which nothing is written yet ----------------------------------------------------------------------------


class NotStaged(RuntimeError):
    """Something was asked that does not know of what is staged: a mistake of ours, told as an internal error."""


class StagedBooks:
    """``Books`` that keep what is written to themselves, and read as if it were there.

    Rows of resources alone, by id, by name or by other equality; what else is asked of books would not see what is
    staged, and raises.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        #: Kind → id → the row, ``None`` where it was removed.
        self._written: dict[str, dict[str, Row | None]] = {}
        #: (Kind, name) → ids of the written rows of that name: each item asks by name, beside up to thousands of rows.
        self._named: dict[tuple[str, object], set[str]] = {}
        #: What was there before each write: kind, id, and the row as a list of one, which is empty where nothing was.
        self._before: list[tuple[str, str, list[Row | None]]] = []

    def get(self, kind: str, id: str) -> Row | None:
        """One row."""
        mine = self._written.get(kind, {})
        return mine[id] if id in mine else self._books.get(kind, id)

    def get_all(self, kind: str, ids: Sequence[str]) -> dict[str, Row]:
        """Those of these rows that there are."""
        mine, known = self._written.get(kind, {}), self._books.get_all(kind, ids)
        found = {id: mine.get(id, known.get(id)) for id in ids}
        return {id: row for id, row in found.items() if row is not None}

    def listing(self, kind: str, /, *, after: str = "", limit: int = 1000, **equal: object) -> list[Row]:
        """Rows in the order of their ids."""
        mine = self._written.get(kind, {})
        # As many more as may have been changed here.
        rows = self._books.listing(kind, after=after, limit=limit + len(mine), **equal)
        near = [mine.get(id) for id in self._near(kind, equal)]
        fitting = [row for row in near if row is not None and row["id"] > after and _fits(row, equal)]
        return sorted([*(row for row in rows if row["id"] not in mine), *fitting], key=_id_of)[:limit]

    def put(self, kind: str, row: Row, *, told: TrailMark | None = None) -> int:
        """Insert or replace a row."""
        self._write(kind, row["id"], dict(row))
        return 0

    def put_all(self, kind: str, rows: Sequence[Row], *, told: TrailMark | None = None) -> None:
        """Insert or replace rows."""
        for row in rows:
            self.put(kind, row)

    def put_together(
        self,
        rows: Sequence[tuple[str, Row]],
        removed: Sequence[tuple[str, str]] = (),
        *,
        told: TrailMark | None = None,
    ) -> None:
        """Put rows and remove others."""
        for kind, id in removed:
            self._write(kind, id, None)
        for kind, row in rows:
            self.put(kind, row)

    def remove(self, kind: str, id: str, *, told: TrailMark | None = None) -> bool:
        """Remove a row."""
        known = self.get(kind, id) is not None
        self._write(kind, id, None)
        return known

    def _near(self, kind: str, equal: dict[str, object]) -> Collection[str]:
        """Ids of the written rows that may have these values."""
        if "id" in equal:
            return {str(id) for id in _choices(equal["id"])}
        if "name" in equal:
            return set[str]().union(*(self._named.get((kind, name), ()) for name in _choices(equal["name"])))
        return self._written.get(kind, {})

    def _write(self, kind: str, id: str, row: Row | None) -> None:
        mine = self._written.setdefault(kind, {})
        self._before.append((kind, id, [mine[id]] if id in mine else []))
        self._set(kind, id, [row])

    def _set(self, kind: str, id: str, state: list[Row | None]) -> None:
        """Have a row written, removed or, with an empty list, neither."""
        mine = self._written[kind]
        if (old := mine.get(id)) is not None:
            self._named[kind, old.get("name")].discard(id)
        if not state:
            mine.pop(id, None)
        for row in state:
            mine[id] = row
            if row is not None:
                self._named.setdefault((kind, row.get("name")), set()).add(id)

    def mark(self) -> int:
        """How many writes there were by now, to go back to."""
        return len(self._before)

    def back_to(self, mark: int) -> None:
        """Forget what was written since."""
        while len(self._before) > mark:
            self._set(*self._before.pop())

    def written(self) -> list[tuple[str, Row]]:
        """Rows to be put."""
        return [(kind, row) for kind, rows in self._written.items() for row in rows.values() if row is not None]

    def removed(self) -> list[tuple[str, str]]:
        """Rows to be removed."""
        return [(kind, id) for kind, rows in self._written.items() for id, row in rows.items() if row is None]

    def __getattr__(self, name: str) -> Any:
        raise NotStaged(f"{name} was asked of books on which nothing is written yet")


def _id_of(row: Row) -> str:
    return str(row["id"])


def _choices(wanted: object) -> Collection[object]:
    """What a filter lets pass: a value, or any of several."""
    return wanted if isinstance(wanted, list | tuple | set | frozenset) else (wanted,)


def _fits(row: Row, equal: dict[str, object]) -> bool:
    """Whether a row has these values; a name such as ``selector.team`` is that of a member."""
    for name, wanted in equal.items():
        column, _, member = name.partition(".")
        value = (row[column] or {}).get(member, "") if member else row[column]
        if value not in _choices(wanted):
            return False
    return True


class _NoTrail:
    """Tells of nothing: what is staged is told when it is written."""

    def append_all(self, at: str, changes: Sequence[object]) -> TrailMark:
        """Nothing is written."""
        return TrailMark(0, 0, "")


def _staged(console: Console) -> tuple[Console, StagedBooks]:
    """The console as whoever asks may use it, over books that keep what is written to themselves."""
    books = StagedBooks(console.all_books)
    view = copy(console)
    # As in ``scoped``: a frozen object is made anew field by field.
    for name in ("books", "all_books"):
        object.__setattr__(view, name, cast(Books, books))
    object.__setattr__(view, "audit", cast(AuditTrail, _NoTrail()))
    view = scoped(view, console.principal)
    # No price changes meanwhile, and compiling takes its time.
    compiling = lru_cache(maxsize=1)(lambda: console.compile_catalogue(*_compiled_from(console)))
    object.__setattr__(view, "compile_catalogue", lambda prices, projects, made=None, /: compiling())
    return view, books


def _compiled_from(console: Console) -> tuple[Any, ...]:
    books = console.all_books
    return every(books, "price"), [str(row["name"]) for row in every(books, "project")], made_places(books)


def _whole(console: Console) -> Console:
    """The console for writing what was checked row by row when it was staged."""
    view = copy(console)
    object.__setattr__(view, "books", console.all_books)
    return view


def made_together(console: Console, items: Sequence[Item], make: Callable[[Console, Item], Made]) -> list[Made]:
    """Make each item as ``make`` does, and write all of them together.

    For threads that hold ``Console.changing``.

    Raises:
        ApiProblem: something is wrong with some of them; nothing was written.
        StorageFull: the trail cannot be written, and neither was anything else.
    """
    view, books = _staged(console)
    made: list[Made] = []
    wrong: list[dict[str, str]] = []
    for place, item in enumerate(items):
        mark = books.mark()
        try:
            made.append(make(view, item))
        except (ApiProblem, FaregateError) as problem:
            wrong += _told(f"items.{place}", problem)
            books.back_to(mark)
        if len(wrong) >= ERRORS_MAX:
            break
    if wrong:
        first = wrong[0]
        raise ApiProblem(first["code"], f"{first['detail']}; nothing was made", field=first["field"], errors=wrong)
    put_together(_whole(console), books.written(), books.removed())
    return made


def _told(place: str, problem: ApiProblem | FaregateError) -> list[dict[str, str]]:
    """The mistakes of one item, with their places in the whole body."""
    if isinstance(problem, FaregateError):
        return [{"field": place, "code": problem.code, "detail": problem.message}]
    told = problem.errors or [{"field": "", "code": problem.code, "detail": problem.detail}]
    return [{**each, "field": f"{place}.{each['field']}" if each["field"] else place} for each in told]


# -- the routes --------------------------------------------------------------------------------------------------------


async def _made(
    request: Request,
    items: Sequence[Item],
    make: Callable[[Console, Item], Made],
    shown: Callable[[Made], dict[str, Any]],
) -> dict[str, Any]:
    console = console_of(request)
    made = await locked(console, lambda: made_together(console, items, make))
    return await acted(console, {"data": [shown(each) for each in made]})


@router.post("/keys/bulk", status_code=201, tags=["keys"])
@needs("keys.write")
@answers(shapes.MadeKeys)
async def create_keys(request: Request, wanted: NewKeys) -> dict[str, Any]:
    """Make up to a thousand keys, all or none. The answer holds the secret of each, in the order of the items."""
    console = console_of(request)

    def alone() -> list[dict[str, Any]]:
        made = made_together(console, wanted.items, keys.create)
        told = keys.shown(console, [row for row, _ in made])
        return [{**each, "secret": secret} for each, (_, secret) in zip(told, made, strict=True)]

    return await acted(console, {"data": await locked(console, alone)})


@router.post("/limits/bulk", status_code=201, tags=["limits"])
@needs("limits.write")
@answers(limit_shapes.SetLimits)
async def set_limits(request: Request, wanted: NewLimits) -> dict[str, Any]:
    """Set up to a thousand limits, all or none; those that count the same as one in force change it in place."""
    console = console_of(request)
    rows = await locked(console, lambda: made_together(console, wanted.items, limits.put))
    applied = await acted(console, {})
    found = await limit_views(console, rows)
    shown = [limits.shape(row, found[row["id"]], limits.SUBJECTS_LISTED) for row in rows]
    return {"data": shown, **applied}


@router.post("/teams/bulk", status_code=201, tags=["payers"])
@needs("payers.write")
@answers(shapes.MadePayers)
async def create_teams(request: Request, wanted: NewTeams) -> dict[str, Any]:
    """Make up to a thousand teams, all or none."""
    return await _made(request, wanted.items, _maker("team"), payers.shape)


@router.post("/projects/bulk", status_code=201, tags=["payers"])
@needs("payers.write")
@answers(shapes.MadeProjects)
async def create_projects(request: Request, wanted: NewProjects) -> dict[str, Any]:
    """Make up to a thousand projects, all or none."""
    return await _made(request, wanted.items, _maker("project"), payers.shape)


@router.post("/users/bulk", status_code=201, tags=["payers"])
@needs("payers.write")
@answers(shapes.MadeUsers)
async def create_users(request: Request, wanted: NewUsers) -> dict[str, Any]:
    """Make up to a thousand users, all or none."""
    return await _made(request, wanted.items, _maker("user"), payers.shape)


@router.post("/products/bulk", status_code=201, tags=["payers"])
@needs("payers.write")
@answers(shapes.MadeProducts)
async def create_products(request: Request, wanted: NewProducts) -> dict[str, Any]:
    """Make up to a thousand products, all or none."""
    return await _made(request, wanted.items, _maker("product"), payers.shape)


def _maker(kind: str) -> Callable[[Console, payers.NewOrganization], Row]:
    return lambda console, wanted: payers.created(console, kind, wanted)
