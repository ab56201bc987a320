"""``/api/v1/organizations|teams|projects|users|products|stages``: the names that calls are charged to."""

from typing import Any, ClassVar, Final

from fastapi import APIRouter, Request

from faregate.console.paging import page_of, read_page
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.state import Console
from faregate.console.texts import Body, Name, or_none, time_text
from faregate.console.writing import acted, console_of, locked
from faregate.console.writing import put as put_row
from faregate.errors import NotFound
from faregate.ports import Row

router = APIRouter(tags=["payers"])

#: Kind of payer → the path of its list and the prefix of its ids.
KINDS: Final = {
    "organization": ("organizations", "org_"),
    "team": ("teams", "team_"),
    "project": ("projects", "prj_"),
    "user": ("users", "usr_"),
    "product": ("products", "prd_"),
    "stage": ("stages", "stg_"),
}

#: Kinds whose rows also remember the team of the key that made them.
_OF_TEAMS: Final = frozenset({"project", "user"})


class NewOrganization(Body):
    """An organization to be made."""

    name: Name


class NewPayer(Body):
    """A payer to be made inside an organization."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset({"id", "created_at", "updated_at"})

    name: Name
    organization: Name = "default"


class NewTeamMember(NewPayer):
    """A project or user to be made, of a team where it has one."""

    team: Name | None = None


def ensure(console: Console, payers: dict[str, str]) -> None:
    """Make every named payer that does not exist yet; ``payers`` is kind → name, empty where there is none."""
    for kind, name in payers.items():
        if name and not _find(console, kind, name, payers["organization"]):
            make(console, kind, name, payers["organization"], payers["team"])


def _find(console: Console, kind: str, name: str, organization: str) -> Row | None:
    within = {} if kind == "organization" else {"organization": organization}
    rows = console.books.listing(kind, name=name, limit=1, **within)
    return rows[0] if rows else None


def make(console: Console, kind: str, name: str, organization: str, team: str) -> Row:
    """Put a new payer into the books."""
    now = console.clock.wall_nanos()
    row: Row = {"id": console.new_id(KINDS[kind][1]), "name": name}
    if kind != "organization":
        row["organization"] = organization
    if kind in _OF_TEAMS:
        row["team"] = team
    row |= {"details": {}, "created_at": now, "updated_at": now}
    put_row(console, kind, row)
    return row


def shape(row: Row) -> dict[str, Any]:
    """A payer as the API shows it."""
    shown: dict[str, Any] = {"id": row["id"], "name": row["name"]}
    shown |= {name: or_none(row[name]) for name in ("organization", "team") if name in row}
    return {**shown, "created_at": time_text(row["created_at"])}


async def _create(request: Request, kind: str, name: str, organization: str, team: str) -> dict[str, Any]:
    console = console_of(request)

    def alone() -> Row:
        if _find(console, kind, name, organization) is not None:
            raise ApiProblem("conflict", f"this {kind} exists already", field="name")
        if kind != "organization":
            ensure(console, {"organization": organization, "team": team})
        return make(console, kind, name, organization, team)

    return await acted(console, shape(await locked(console, alone)))


@router.post("/organizations", status_code=201)
async def create_organization(request: Request, wanted: NewOrganization) -> dict[str, Any]:
    """Make an organization."""
    return await _create(request, "organization", wanted.name, "", "")


@router.post("/teams", status_code=201)
async def create_team(request: Request, wanted: NewPayer) -> dict[str, Any]:
    """Make a team."""
    return await _create(request, "team", wanted.name, wanted.organization, "")


@router.post("/projects", status_code=201)
async def create_project(request: Request, wanted: NewTeamMember) -> dict[str, Any]:
    """Make a project."""
    return await _create(request, "project", wanted.name, wanted.organization, wanted.team or "")


@router.post("/users", status_code=201)
async def create_user(request: Request, wanted: NewTeamMember) -> dict[str, Any]:
    """Make a user."""
    return await _create(request, "user", wanted.name, wanted.organization, wanted.team or "")


@router.post("/products", status_code=201)
async def create_product(request: Request, wanted: NewPayer) -> dict[str, Any]:
    """Make a product."""
    return await _create(request, "product", wanted.name, wanted.organization, "")


@router.post("/stages", status_code=201)
async def create_stage(request: Request, wanted: NewPayer) -> dict[str, Any]:
    """Make a stage."""
    return await _create(request, "stage", wanted.name, wanted.organization, "")


async def _list(request: Request, kind: str) -> dict[str, Any]:
    console = console_of(request)
    filters = ("name",) if kind == "organization" else ("name", "organization")
    page = read_page(request, filters)
    rows = await in_thread(lambda: console.books.listing(kind, after=page.after, limit=page.limit + 1, **page.filters))
    return page_of(request, page, rows, shape)


async def _read(request: Request, kind: str, payer_id: str) -> dict[str, Any]:
    console = console_of(request)
    row = await in_thread(lambda: console.books.get(kind, payer_id)) if len(payer_id) <= 64 else None
    if row is None:
        raise NotFound(f"there is no such {kind}")
    return shape(row)


def _reading(kind: str) -> None:
    """Add the list and the single view of one kind of payer."""
    path = KINDS[kind][0]

    async def list_payers(request: Request) -> dict[str, Any]:
        return await _list(request, kind)

    async def read_payer(request: Request, payer_id: str) -> dict[str, Any]:
        return await _read(request, kind, payer_id)

    router.add_api_route(f"/{path}", list_payers, summary=f"List {path}", operation_id=f"list_{path}")
    router.add_api_route(f"/{path}/{{payer_id}}", read_payer, summary=f"One {kind}", operation_id=f"read_{kind}")


for _kind in KINDS:
    _reading(_kind)
