"""Providers, deployments, pools, names of models and services of both kinds: of the configuration, and in the books.

The file's are shown and never changed here; where both have the same name, the file's is the one that acts.
"""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import Request

from faregate.config.places import Known
from faregate.config.values import NAME_PATTERN
from faregate.console.paging import page_of, read_page
from faregate.console.problems import ApiProblem
from faregate.console.reading import every, in_thread
from faregate.console.state import Console
from faregate.console.writing import console_of
from faregate.errors import Conflict, NotFound
from faregate.ports import DECLARED, Row

#: About as the configuration file bounds them; each pool is a part of every snapshot of the gate.
MOST: Final = {"provider": 256, "deployment": 2_000, "model": 5_000, "pool": 1_000, "service": 256}

#: Kinds of which no two may have the same name. What leads to a pool says the name alone, so a pool is none of the
#: others; a name of a model may be a deployment's, which it then leads to. Reports call provider, deployment and model
#: of a service by its name, so none of these has it.
_TWINS: Final = {
    "provider": ("service",),
    "deployment": ("pool", "service"),
    "model": ("pool", "service"),
    "pool": ("deployment", "model"),
    "service": ("provider", "deployment", "model"),
}

#: Kinds that names lead to.
_LED_TO: Final = ("deployment", "pool", "model")

#: What nobody sends of any of them.
READ_ONLY: Final = frozenset({"id", "created_at", "updated_at", "source"})
TOKENS_MAX: Final = 100_000_000

#: A name of ours: it stands in headers, metrics and paths.
NAMES: Final = NAME_PATTERN


def declared_of(console: Console, kind: str) -> Sequence[Row]:
    """What the configuration file declares of a kind that ``MOST`` names."""
    declared = console.declared
    by_kind = {
        "provider": declared.providers,
        "deployment": declared.deployments,
        "pool": declared.pools,
        "model": declared.models,
        "service": declared.services,
    }
    return by_kind[kind]


def all_of(console: Console, kind: str) -> list[Row]:
    """All of a kind, those of the file first."""
    return [*declared_of(console, kind), *every(console.books, kind)]


def known_places(console: Console) -> Known:
    """The names that there are; of a provider of both the file's counts."""
    kinds = {row["name"]: row["kind"] for row in reversed(all_of(console, "provider"))}
    return Known(kinds, *(dict.fromkeys(row["name"] for row in all_of(console, kind)) for kind in _LED_TO))


def source_of(row: Row) -> str:
    """Who owns a row: ``file`` or ``api``."""
    return "file" if row["id"].startswith(DECLARED) else "api"


def found(console: Console, kind: str, wanted: str) -> Row:
    """The row of an id or a name.

    Raises:
        NotFound: there is none.
    """
    for row in declared_of(console, kind):
        if wanted in (row["id"], row["name"]):
            return row
    # Its id goes before: a name that looks like the id of another one must not stand in its way.
    kept = console.books.get(kind, wanted) if len(wanted) <= 256 else None
    named = console.books.listing(kind, name=wanted, limit=1) if kept is None and len(wanted) <= 256 else []
    if kept is None and not named:
        raise NotFound(f"there is no such {kind}")
    return kept or named[0]


def own(console: Console, kind: str, wanted: str) -> Row:
    """A row that may be changed here.

    Raises:
        NotFound: there is none.
        Conflict: the configuration file declares it.
    """
    row = found(console, kind, wanted)
    if source_of(row) == "file":
        raise Conflict(f"this {kind} is declared in the configuration file; change it there and reload")
    return row


def refuse_twin(console: Console, kind: str, name: str) -> None:
    """Refuse a name that is taken, and more rows than there may be.

    Raises:
        ApiProblem: conflict.
        Conflict: there are too many.
    """
    if any(row["name"] == name for row in declared_of(console, kind)):
        rule = f"the configuration file declares a {kind} of this name; change it there, or choose another name"
        raise ApiProblem("conflict", rule, field="name")
    for other in _TWINS.get(kind, ()):
        if any(row["name"] == name for row in declared_of(console, other)):
            rule = f"the configuration file declares a {other} of this name; choose another name"
            raise ApiProblem("conflict", rule, field="name")
        if console.books.listing(other, name=name, limit=1):
            raise ApiProblem("conflict", f"a {other} of this name exists; choose another name", field="name")
    if console.books.listing(kind, name=name, limit=1):
        raise ApiProblem("conflict", f"a {kind} of this name exists; change it, or choose another name", field="name")
    count = sum(number for _, number in console.books.tally(kind, ()))
    if count >= MOST[kind]:
        raise Conflict(f"there are {MOST[kind]} {kind}s already; remove one first")


async def listed(request: Request, kind: str, shape: Any) -> dict[str, Any]:
    """A page of both, the file's on the first one."""
    console = console_of(request)
    page = read_page(request)
    declared = [
        row
        for row in declared_of(console, kind)
        if not page.after and all(row.get(name) == value for name, value in page.filters.items())
    ]
    rows = await in_thread(lambda: console.books.listing(kind, after=page.after, limit=page.limit + 1, **page.filters))
    answer = page_of(request, page, rows, shape)
    return {**answer, "data": [*map(shape, declared), *answer["data"]]}
