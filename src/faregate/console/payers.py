"""``/api/v1/organizations|teams|projects|users|products|stages``: the names that calls are charged to.

A payer is known by its name: records and sums hold it, so it is never renamed. A team may hold projects and users. One
that was put into a team stays there, and a key of another team cannot name it, so that the team's sums are those of
what lies in it; one that merely came with a key shows that key's team until a key of another team names it.

It is one file of six hundred lines because the six kinds differ in a table only, which all routes go by.
"""

from copy import copy
from typing import Annotated, Any, ClassVar, Final, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.cache_words import Word, check_word
from faregate.console.content_modes import Mode, check_mode
from faregate.console.describing import answers, choice, lists, text
from faregate.console.paging import page_of, read_page
from faregate.console.payer_rules import PLACED, RESTRICTING, is_placed, restricts
from faregate.console.problems import ApiProblem
from faregate.console.reading import each_row, in_thread
from faregate.console.restriction_fields import (
    Restricting,
    as_kept,
    check_operations,
    expiry_of,
    shown_restrictions,
)
from faregate.console.rights import needs
from faregate.console.shapes import payers as shapes
from faregate.console.shapes.values import Removed
from faregate.console.state import Console
from faregate.console.texts import Body, Moment, Name, Sentence, or_left_out, or_none, time_text
from faregate.console.versions import only_if_unchanged, versioned
from faregate.console.writing import acted, console_of, locked
from faregate.console.writing import put as put_row
from faregate.console.writing import remove as remove_row
from faregate.core.restrictions import RESTRICTIONS
from faregate.errors import Conflict, NotFound
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

DEFAULT_ORGANIZATION: Final = "default"

#: Kinds whose rows may be of a team.
OF_TEAMS: Final = ("project", "user")

#: Kinds that may say whether calls use the response cache.
CACHING: Final = ("project", "stage")

#: Kind → the kinds whose rows name it, beside keys.
_CHILDREN: Final = {
    "organization": ("team", "project", "user", "product", "stage", "subscription"),
    "team": ("project", "user", "subscription"),
    "user": ("subscription",),
    "product": ("subscription",),
}

_READ_ONLY: Final = frozenset({"id", "created_at", "updated_at"})

State = Literal["active", "disabled"]
Title = Annotated[Sentence, Field(description="what people call it; 1 to 256 characters")]
Contact = Annotated[Sentence, Field(description="whom to ask about it; 1 to 256 characters")]


class NewOrganization(Body):
    """An organization to be made."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {"state"}

    name: Name
    title: Title | None = None
    contact: Contact | None = None


class NewPayer(NewOrganization):
    """A payer to be made inside an organization."""

    organization: Name | None = None


class NewTeamPayer(NewPayer):
    """A payer to be made, of a team where it has one."""

    team: Name | None = None


class NewProject(NewTeamPayer):
    """A project to be made."""

    cache: Word | None = None


class NewUser(NewTeamPayer, Restricting):
    """A user to be made, with what their keys are restricted to."""


class NewProduct(NewPayer, Restricting):
    """A product to be made, with what the keys of all its subscriptions are restricted to."""

    content: Mode | None = None
    expires_at: Moment | None = None


class NewStage(NewPayer):
    """A stage to be made."""

    cache: Word | None = None


class PayerChange(Body):
    """What may be changed of a payer; a ``name`` may be sent, but not another one."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {"organization"}

    name: Name | None = or_left_out()
    state: State | None = or_left_out()
    title: Title | None = None
    contact: Contact | None = None


class TeamPayerChange(PayerChange):
    """What may be changed of a payer that may be of a team."""

    team: Name | None = None


class ProjectChange(TeamPayerChange):
    """What may be changed of a project."""

    cache: Word | None = None


class UserChange(TeamPayerChange, Restricting):
    """What may be changed of a user."""


class ProductChange(PayerChange, Restricting):
    """What may be changed of a product."""

    content: Mode | None = None
    expires_at: Moment | None = None


class StageChange(PayerChange):
    """What may be changed of a stage."""

    cache: Word | None = None


# -- payers that keys name --------------------------------------------------------------------------------------------


def ensure(console: Console, payers: dict[str, str]) -> None:
    """Make every named payer that does not exist yet; ``payers`` is kind → name, empty where there is none.

    Whoever makes a key may name payers, so they are looked for and made whatever of them the maker sees.
    """
    whole = _whole(console)
    organization, team = payers.get("organization", ""), payers.get("team", "")
    for kind in KINDS:
        name = payers.get(kind, "")
        if not name:
            continue
        row = find(whole, kind, name, organization)
        if row is None:
            make(whole, kind, {"name": name, "organization": organization, "team": team})
        elif kind in OF_TEAMS and row["team"] not in ("", team) and not is_placed(row):
            # Several teams share it, so it is none's.
            put_row(whole, kind, {**row, "team": "", "updated_at": console.clock.wall_nanos()})


def placed(console: Console, payers: dict[str, str]) -> dict[str, str]:
    """``payers`` with the team that its project or user was put into, where it names none.

    Raises:
        ApiProblem: ``invariant``: they are of different teams.
    """
    team = payers.get("team", "")
    for kind in OF_TEAMS:
        name = payers.get(kind, "")
        row = find(_whole(console), kind, name, payers["organization"]) if name else None
        if row is None or not is_placed(row):
            continue
        if team and row["team"] != team:
            # Who sees a part of the installation is not told what else there is.
            whose = f"team {row['team']}" if console.principal.scope.whole else "another team"
            rule = f"{kind} {name} is of {whose}; name it together with that one, or take it out of there first"
            raise ApiProblem("invariant", rule, field=kind)
        team = row["team"]
    return {**payers, "team": team}


def check_return(console: Console, payers: dict[str, str]) -> None:
    """Refuse payers of a key that is to come back, where they changed meanwhile: a revoked key keeps none of them.

    Raises:
        Conflict: one of them was removed.
        ApiProblem: ``invariant``: its project or user was put into a team that is not the key's.
    """
    for kind in KINDS:
        name = payers.get(kind, "")
        if name and find(_whole(console), kind, name, payers["organization"]) is None:
            raise Conflict(f"{kind} {name}, which this key names, was removed; create a new key")
    if placed(console, payers) != payers:
        rule = "its project or user was put into a team, which this key does not name; create a new key"
        raise ApiProblem("invariant", rule, field="team")


def _whole(console: Console) -> Console:
    """The console for what is decided by all that there is, whoever asks."""
    if console.books is console.all_books:
        return console
    view = copy(console)
    object.__setattr__(view, "books", console.all_books)
    return view


def find(console: Console, kind: str, name: str, organization: str) -> Row | None:
    """The payer of this name, if there is one."""
    within = {} if kind == "organization" else {"organization": organization}
    rows = console.books.listing(kind, name=name, limit=1, **within)
    return rows[0] if rows else None


def make(console: Console, kind: str, fields: dict[str, Any]) -> Row:
    """Put a new payer into the books; of ``fields`` it takes those that its kind has."""
    now = console.clock.wall_nanos()
    row: Row = {"id": console.new_id(KINDS[kind][1]), "name": fields["name"], "state": "active"}
    row |= {name: fields.get(name) or "" for name in ("title", "contact")}
    if kind != "organization":
        row["organization"] = fields["organization"]
    if kind in OF_TEAMS:
        row["team"] = fields.get("team") or ""
    if kind in CACHING:
        row["cache"] = fields.get("cache") or ""
    if kind in RESTRICTING:
        row |= {name: fields.get(name) for name in RESTRICTIONS}
    if kind == "product":
        row["expires_at"] = fields.get("expires_at") or 0
        row["content"] = fields.get("content") or ""
    if kind in RESTRICTING:
        row["restricted"] = restricts(row)
    row |= {"details": fields.get("details") or {}, "created_at": now, "updated_at": now}
    put_row(console, kind, row)
    return row


# -- the resources ----------------------------------------------------------------------------------------------------


def shape(row: Row) -> dict[str, Any]:
    """A payer as the API shows it."""
    shown: dict[str, Any] = {"id": row["id"], "name": row["name"]}
    shown |= {name: or_none(row[name]) for name in ("organization", "team") if name in row}
    shown |= {"state": row["state"], "title": or_none(row["title"]), "contact": or_none(row["contact"])}
    if "restricted" in row:
        shown |= shown_restrictions(row)
    shown |= {name: or_none(row[name]) for name in ("content", "cache") if name in row}
    return {**shown, "created_at": time_text(row["created_at"]), "updated_at": time_text(row["updated_at"])}


def organization_of(console: Console, said: str | None) -> str:
    """The organization that is meant: the one that was said, else that of whoever asks."""
    return said or console.principal.scope.organization or DEFAULT_ORGANIZATION


def refuse_outside(console: Console, kind: str, row: Row) -> None:
    """Refuse what whoever asks could not see once it is there.

    Raises:
        ApiProblem: ``role_forbidden``.
    """
    if not console.principal.scope.sees(kind, row):
        raise ApiProblem("role_forbidden", "this lies outside of what your key is of")


def created(console: Console, kind: str, wanted: NewOrganization) -> Row:
    """Make a payer that somebody asked for.

    Raises:
        ApiProblem: the name is taken, or a value cannot be.
    """
    fields: dict[str, Any] = wanted.model_dump()
    if kind != "organization":
        fields["organization"] = organization_of(console, fields["organization"])
    refuse_outside(console, kind, {**fields, "team": fields.get("team") or ""})
    if kind in RESTRICTING:
        check_operations(console, fields["operations"])
    if "expires_at" in fields:
        fields["expires_at"] = expiry_of(fields["expires_at"], console.clock.wall_nanos())
    check_mode(console, fields.get("content"))
    check_word(console, fields.get("cache"))
    if find(_whole(console), kind, wanted.name, fields.get("organization", "")) is not None:
        raise ApiProblem("conflict", f"a {kind} of this name exists already; choose another name", field="name")
    if kind != "organization":
        ensure(console, {"organization": fields["organization"], "team": fields.get("team") or ""})
    if fields.get("team"):
        fields["details"] = {PLACED: True}
    return make(console, kind, fields)


def named(console: Console, kind: str, payer_id: str) -> Row:
    """The payer of an id.

    Raises:
        NotFound: there is none that whoever asks sees.
    """
    row = console.books.get(kind, payer_id) if len(payer_id) <= 64 else None
    if row is None:
        raise NotFound(f"there is no such {kind}")
    return row


def refuse_rename(kind: str, row: Row, sent: dict[str, Any]) -> None:
    """Take the name out of what was sent.

    Raises:
        ApiProblem: ``field_forbidden``: it is another one.
    """
    if sent.pop("name", row["name"]) != row["name"]:
        rule = f"a {kind} is not renamed: records and sums name it so. Give it a title, or make another one"
        raise ApiProblem("field_forbidden", rule, field="name")


def _refuse_own(console: Console, kind: str, row: Row) -> None:
    if console.principal.scope.bounded_by(kind, row):
        raise ApiProblem("role_forbidden", f"your key is of this {kind}; only somebody above it may do that")


def changed(console: Console, kind: str, payer_id: str, wanted: PayerChange) -> Row:
    """Change what was sent and nothing else.

    Raises:
        NotFound: no such payer.
        ApiProblem: a value that cannot be, such as another name.
    """
    row, now = named(console, kind, payer_id), console.clock.wall_nanos()
    sent: dict[str, Any] = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    refuse_rename(kind, row, sent)
    if not sent:
        return row
    _refuse_own(console, kind, row)
    if "state" in sent and sent["state"] is None:
        raise ApiProblem("field_range", "must not be null; active or disabled", field="state")
    sent = as_kept(console, sent, now)
    for name in ("title", "contact"):
        if name in sent:
            sent[name] = sent[name] or ""
    if "team" in sent:
        sent |= _moved(console, kind, row, sent["team"] or "")
    row = {**row, **sent, "updated_at": now}
    if kind in RESTRICTING:
        row["restricted"] = restricts(row)
    refuse_outside(console, kind, row)
    put_row(console, kind, row)
    return row


def _moved(console: Console, kind: str, row: Row, team: str) -> Row:
    """What becomes of a project's or user's row that is put into a team, or taken out of its own.

    Raises:
        ApiProblem: ``invariant``: keys or subscriptions name it together with another team.
    """
    within = {"organization": row["organization"], kind: row["name"]}
    if team:
        books = console.all_books
        others = [each for each in each_row(books, "key", **within) if _lives(each) and each["team"] != team]
        if others:
            rule = f"{_keys(len(others))} that name this {kind} are of another team or of none; revoke them first"
            raise ApiProblem("invariant", rule, field="team")
        bound = each_row(books, "subscription", **within) if kind == "user" else ()
        # One of no team gives keys of the team that its user is of.
        count = sum(each["state"] != "cancelled" and each["team"] not in ("", team) for each in bound)
        if count:
            rule = f"{count} subscription{'s' * (count > 1)} of this user give keys of another team; cancel first"
            raise ApiProblem("invariant", rule, field="team")
        ensure(console, {"organization": row["organization"], "team": team})
    return {"team": team, "details": {**(row["details"] or {}), PLACED: bool(team)}}


def _keys(count: int) -> str:
    return "1 key" if count == 1 else f"{count} keys"


def _lives(key: Row) -> bool:
    return bool(key["state"] != "revoked")


def removed(console: Console, kind: str, payer_id: str) -> None:
    """Remove a payer that nothing names any more; its history stays.

    Raises:
        NotFound: no such payer.
        Conflict: keys that are not revoked, or other payers, name it.
    """
    row = named(console, kind, payer_id)
    _refuse_own(console, kind, row)
    books = console.all_books
    within: dict[str, Any] = {kind: row["name"]}
    if kind != "organization":
        within["organization"] = row["organization"]
    keys = sum(map(_lives, each_row(books, "key", **within)))
    users = [_keys(keys)] if keys else []
    for child in _CHILDREN.get(kind, ()):
        children = books.listing(child, limit=1, **within)
        users += [f"a {child}, {each['name']}" for each in children]
    if users:
        raise Conflict(f"this {kind} is in use by {'; '.join(users)}: revoke or delete these first, or disable it")
    remove_row(console, kind, row["id"])


async def _create(request: Request, kind: str, wanted: NewOrganization) -> dict[str, Any]:
    console = console_of(request)
    return await acted(console, shape(await locked(console, lambda: created(console, kind, wanted))))


async def _change(request: Request, kind: str, payer_id: str, wanted: PayerChange) -> dict[str, Any]:
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: named(console, kind, payer_id))
    row = await locked(console, lambda: changed(console, kind, payer_id, wanted), unchanged)
    return await acted(console, shape(versioned(request, row)))


@router.post("/organizations", status_code=201)
@needs("payers.write")
@answers(shapes.Organization)
async def create_organization(request: Request, wanted: NewOrganization) -> dict[str, Any]:
    """Make an organization."""
    return await _create(request, "organization", wanted)


@router.post("/teams", status_code=201)
@needs("payers.write")
@answers(shapes.Payer)
async def create_team(request: Request, wanted: NewPayer) -> dict[str, Any]:
    """Make a team."""
    return await _create(request, "team", wanted)


@router.post("/projects", status_code=201)
@needs("payers.write")
@answers(shapes.Project)
async def create_project(request: Request, wanted: NewProject) -> dict[str, Any]:
    """Make a project, of a team where it has one: only keys of that team can name it then."""
    return await _create(request, "project", wanted)


@router.post("/users", status_code=201)
@needs("payers.write")
@answers(shapes.User)
async def create_user(request: Request, wanted: NewUser) -> dict[str, Any]:
    """Make a user, of a team where they have one; what their keys are restricted to holds for all of them."""
    return await _create(request, "user", wanted)


@router.post("/products", status_code=201)
@needs("payers.write")
@answers(shapes.Product)
async def create_product(request: Request, wanted: NewProduct) -> dict[str, Any]:
    """Make a product; what it restricts holds for every key of every subscription to it."""
    return await _create(request, "product", wanted)


@router.post("/stages", status_code=201)
@needs("payers.write")
@answers(shapes.Stage)
async def create_stage(request: Request, wanted: NewStage) -> dict[str, Any]:
    """Make a stage."""
    return await _create(request, "stage", wanted)


@router.patch("/organizations/{payer_id}")
@needs("payers.write")
@answers(shapes.Organization, versioned=True)
async def change_organization(request: Request, payer_id: str, wanted: PayerChange) -> dict[str, Any]:
    """Change an organization; `state: disabled` stops all its keys."""
    return await _change(request, "organization", payer_id, wanted)


@router.patch("/teams/{payer_id}")
@needs("payers.write")
@answers(shapes.Payer, versioned=True)
async def change_team(request: Request, payer_id: str, wanted: PayerChange) -> dict[str, Any]:
    """Change a team; `state: disabled` stops all its keys."""
    return await _change(request, "team", payer_id, wanted)


@router.patch("/projects/{payer_id}")
@needs("payers.write")
@answers(shapes.Project, versioned=True)
async def change_project(request: Request, payer_id: str, wanted: ProjectChange) -> dict[str, Any]:
    """Change a project, or put it into a team; `state: disabled` stops all its keys."""
    return await _change(request, "project", payer_id, wanted)


@router.patch("/users/{payer_id}")
@needs("payers.write")
@answers(shapes.User, versioned=True)
async def change_user(request: Request, payer_id: str, wanted: UserChange) -> dict[str, Any]:
    """Change a user, put them into a team, or restrict their keys; `state: disabled` stops all of these."""
    return await _change(request, "user", payer_id, wanted)


@router.patch("/products/{payer_id}")
@needs("payers.write")
@answers(shapes.Product, versioned=True)
async def change_product(request: Request, payer_id: str, wanted: ProductChange) -> dict[str, Any]:
    """Change a product or restrict its keys; `state: disabled` stops the keys of all its subscriptions."""
    return await _change(request, "product", payer_id, wanted)


@router.patch("/stages/{payer_id}")
@needs("payers.write")
@answers(shapes.Stage, versioned=True)
async def change_stage(request: Request, payer_id: str, wanted: StageChange) -> dict[str, Any]:
    """Change a stage; `state: disabled` stops all its keys."""
    return await _change(request, "stage", payer_id, wanted)


async def _list(request: Request, kind: str) -> dict[str, Any]:
    console = console_of(request)
    page = read_page(request)
    rows = await in_thread(lambda: console.books.listing(kind, after=page.after, limit=page.limit + 1, **page.filters))
    return page_of(request, page, rows, shape)


async def _read(request: Request, kind: str, payer_id: str) -> dict[str, Any]:
    console = console_of(request)
    return shape(versioned(request, await in_thread(lambda: named(console, kind, payer_id))))


async def _delete(request: Request, kind: str, payer_id: str) -> dict[str, Any]:
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: named(console, kind, payer_id))
    await locked(console, lambda: removed(console, kind, payer_id), unchanged)
    return await acted(console, {"id": payer_id, "deleted": True})


#: Kind of payer → shapes of one and of a page of them.
_SHAPES: Final[dict[str, tuple[Any, Any]]] = {
    "organization": (shapes.Organization, shapes.Organizations),
    "team": (shapes.Payer, shapes.Payers),
    "project": (shapes.Project, shapes.Projects),
    "user": (shapes.User, shapes.Users),
    "product": (shapes.Product, shapes.Products),
    "stage": (shapes.Stage, shapes.Stages),
}

_FILTERS: Final = (
    text("name", "Its name."),
    choice("state", ("active", "disabled"), "Whether its keys can be used."),
)
_OF: Final = text("organization", "Name of its organization.")
_TEAM: Final = text("team", "Name of its team.")


def _same_for_all(kind: str) -> None:
    """Add the list, the single view and the removal of one kind of payer."""
    path = KINDS[kind][0]

    @needs("payers.read")
    @lists(*_FILTERS, *(() if kind == "organization" else (_OF,)), *((_TEAM,) if kind in OF_TEAMS else ()))
    @answers(_SHAPES[kind][1])
    async def list_payers(request: Request) -> dict[str, Any]:
        return await _list(request, kind)

    @needs("payers.read")
    @answers(_SHAPES[kind][0], versioned=True)
    async def read_payer(request: Request, payer_id: str) -> dict[str, Any]:
        return await _read(request, kind, payer_id)

    @needs("payers.write")
    @answers(Removed, versioned=True)
    async def delete_payer(request: Request, payer_id: str) -> dict[str, Any]:
        return await _delete(request, kind, payer_id)

    one = f"/{path}/{{payer_id}}"
    router.add_api_route(f"/{path}", list_payers, summary=f"List {path}", operation_id=f"list_{path}")
    router.add_api_route(one, read_payer, summary=f"One {kind}", operation_id=f"read_{kind}")
    router.add_api_route(
        one,
        delete_payer,
        methods=["DELETE"],
        summary=f"Remove a {kind} that nothing names any more; its history stays",
        operation_id=f"delete_{kind}",
    )


for _kind in KINDS:
    _same_for_all(_kind)
