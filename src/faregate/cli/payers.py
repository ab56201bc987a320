"""``faregate organization|team|project|user|product|stage|subscription``: the names that calls are charged to.

All of them have the same verbs, so there is one of each here and a table that says which options a kind has.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.named import agreed, cell, one_named
from faregate.cli.output import Json, emit, emit_json, table
from faregate.cli.words import listed
from faregate.errors import UsageError


class _Option(NamedTuple):
    """An option of a verb: what it says of the resource, and whether it is several names."""

    about: str
    several: bool = False


_LIFTS: Final = "an empty text lifts it"

#: Field of the API → its option; ``expires`` is the only one that is called otherwise.
_OPTIONS: Final[Mapping[str, _Option]] = {
    "organization": _Option("The organization that it is of."),
    "product": _Option("The product that it is to."),
    "team": _Option(f"The team that it is of; {_LIFTS}."),
    "user": _Option("The user that it is of."),
    "title": _Option(f"What people call it; {_LIFTS}."),
    "contact": _Option(f"Whom to ask about it; {_LIFTS}."),
    "models": _Option(f"Models that its keys may use, joined by commas; {_LIFTS}.", several=True),
    "operations": _Option(f"Operations and services that its keys may call; {_LIFTS}.", several=True),
    "paths": _Option(f"Beginnings of paths that its keys may call, such as /v1/chat; {_LIFTS}.", several=True),
    "networks": _Option(f"Networks that its keys may be used from, such as 10.0.0.0/8; {_LIFTS}.", several=True),
    "priorities": _Option(f"Ranges of Priority that its keys may use, such as 101-1000; {_LIFTS}.", several=True),
    "expires_at": _Option(f"When its keys end, such as 2027-01-01T00:00:00Z; {_LIFTS}."),
    "content": _Option(f"What is kept of its keys' calls: off, metadata or full; {_LIFTS}."),
    "cache": _Option(f"Whether its calls use the response cache: on or off; {_LIFTS}."),
}
_RULES: Final = ("models", "operations", "paths", "networks", "priorities")


class Kind(NamedTuple):
    """A kind of payer at the command line."""

    path: str
    about: str
    #: Fields that only a new one may be given, those that may be changed, and those that narrow a list.
    made_with: tuple[str, ...]
    changed: tuple[str, ...]
    filters: tuple[str, ...]
    #: Columns of the list, between name and state.
    columns: tuple[str, ...]


KINDS: Final[Mapping[str, Kind]] = {
    "organization": Kind("organizations", "Organizations: who pays.", (), ("title", "contact"), (), ("title",)),
    "team": Kind(
        "teams", "Teams of an organization.", ("organization",), ("title", "contact"), ("organization",), ("title",)
    ),
    "project": Kind(
        "projects",
        "Projects of an organization, or of a team in it.",
        ("organization",),
        ("team", "title", "contact", "cache"),
        ("organization", "team"),
        ("team", "title"),
    ),
    "user": Kind(
        "users",
        "Users, with what all their keys are restricted to.",
        ("organization",),
        ("team", "title", "contact", *_RULES),
        ("organization", "team"),
        ("team", "title", *_RULES),
    ),
    "product": Kind(
        "products",
        "Products, with what the keys of all their subscriptions are restricted to.",
        ("organization",),
        ("title", "contact", *_RULES, "expires_at", "content"),
        ("organization",),
        ("title", *_RULES, "expires_at"),
    ),
    "stage": Kind(
        "stages",
        "Stages of an organization.",
        ("organization",),
        ("title", "contact", "cache"),
        ("organization",),
        ("title",),
    ),
    "subscription": Kind(
        "subscriptions",
        "Subscriptions: the right of a team or a user to a product's keys.",
        ("organization", "product", "team", "user"),
        ("title", "contact"),
        ("organization", "product", "team", "user"),
        ("product", "team", "user"),
    ),
}

#: What a state of the command line is called by the API: subscriptions have words of their own.
_STATES: Final[Mapping[str, Mapping[str, str]]] = {
    "subscription": {"enable": "active", "disable": "suspended", "cancel": "cancelled"},
}
_USUAL_STATES: Final = {"enable": "active", "disable": "disabled"}

#: A verb when it was carried out.
_DONE: Final = {"enable": "enabled", "disable": "disabled", "cancel": "cancelled"}


def _signed(verb: Callable[..., None], *parameters: inspect.Parameter) -> Callable[..., None]:
    """``verb``, which takes anything, with the parameters that the parser shall see, and ``--data`` and ``--json``."""
    usual = [_keyword("data", Where, None), _keyword("json", Json, False)]
    verb.__signature__ = inspect.Signature([*parameters, *usual])  # type: ignore[attr-defined]
    return verb


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _options(fields: Sequence[str]) -> list[inspect.Parameter]:
    return [_keyword(field, Annotated[str | None, _typed(field)], None) for field in fields]


def _typed(field: str) -> Any:
    return typer.Option("--expires" if field == "expires_at" else f"--{field}", help=_OPTIONS[field].about)


def _which(kind: str) -> inspect.Parameter:
    about = f"Id of the {kind} (or its beginning, or its name)."
    return _keyword("which", Annotated[str, typer.Argument(metavar="ID", help=about)], inspect.Parameter.empty)


def _body(options: Mapping[str, str | None]) -> dict[str, object]:
    """What was given, as the API takes it; an empty text is ``null``."""
    return {
        field: (listed(text) if _OPTIONS[field].several else text) if text else None
        for field, text in options.items()
        if text is not None
    }


def _told(row: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json(row)
    else:
        table(("field", "value"), [(name, cell(value)) for name, value in row.items()])


def _creating(kind: str, about: Kind) -> Callable[..., None]:
    """The verb ``create`` of a kind."""

    def create(*, word: str | None, name: str | None, data: Any, json: bool, **options: str | None) -> None:
        if word is not None and name is not None:
            raise UsageError("the name was given twice")
        chosen = word if name is None else name
        if chosen is None and kind != "subscription":
            raise UsageError(f"which name shall the {kind} have? try `faregate {kind} create NAME`")
        body = _body({**options})
        if chosen is not None:
            body["name"] = chosen
        with connect(data, make=True) as client:
            _told(client.call("POST", f"/{about.path}", body), json)

    create.__doc__ = f"Make a {kind}."
    named = _keyword("word", Annotated[str | None, typer.Argument(metavar="NAME", help="Its name, for good.")], None)
    option = _keyword("name", Annotated[str | None, typer.Option("--name", help="The same, as an option.")], None)
    return _signed(create, named, option, *_options((*about.made_with, *about.changed)))


def _listing(kind: str, about: Kind) -> Callable[..., None]:
    """The verb ``list`` of a kind."""

    def list_them(*, state: str | None, data: Any, json: bool, **filters: str | None) -> None:
        with connect(data) as client:
            rows = list(client.pages(f"/{about.path}", {**filters, "state": state}))
        if json:
            emit_json(rows)
            return
        organization = ("organization",) if kind != "organization" else ()
        columns = ("id", "name", *organization, *about.columns, "state")
        table(columns, [[cell(row[name]) for name in columns] for row in rows])

    list_them.__doc__ = f"List {about.path}."
    states = " or ".join(_STATES.get(kind, _USUAL_STATES).values())
    state = _keyword("state", Annotated[str | None, typer.Option("--state", help=f"Only {states} ones.")], None)
    narrowed = [
        _keyword(field, Annotated[str | None, typer.Option(f"--{field}", help=f"Only those of this {field}.")], None)
        for field in about.filters
    ]
    return _signed(list_them, state, *narrowed)


def _showing(kind: str, about: Kind) -> Callable[..., None]:
    """The verb ``show`` of a kind."""

    def show(*, which: str, data: Any, json: bool) -> None:
        with connect(data) as client:
            _told(one_named(client, f"/{about.path}", kind, which), json)

    show.__doc__ = f"Show one {kind}."
    return _signed(show, _which(kind))


def _setting(kind: str, about: Kind) -> Callable[..., None]:
    """The verb ``set`` of a kind."""

    def set_it(*, which: str, data: Any, json: bool, **options: str | None) -> None:
        body = _body({**options})
        if not body:
            raise UsageError(f"nothing was given to change; try `faregate {kind} set --help`")
        with connect(data) as client:
            row = one_named(client, f"/{about.path}", kind, which)
            _told(client.call("PATCH", f"/{about.path}/{segment(row['id'])}", body), json)

    set_it.__doc__ = f"Change what is given of a {kind}, and nothing else. Its name stays: history bears it."
    return _signed(set_it, _which(kind), *_options(about.changed))


def _turning(kind: str, about: Kind, verb: str, state: str) -> Callable[..., None]:
    """A verb that changes the state of a kind."""
    ends = state == "cancelled"

    def turn(*, which: str, data: Any, json: bool, yes: bool = True) -> None:
        with connect(data) as client:
            row = one_named(client, f"/{about.path}", kind, which)
            if ends:
                question = f"Cancel {row['id']} ({row['name']})? This cannot be undone."
                agreed(question, "cancelling cannot be undone", yes)
            row = client.call("PATCH", f"/{about.path}/{segment(row['id'])}", {"state": state})
        if json:
            emit_json(row)
        else:
            emit(f"{_DONE[verb]} {row['id']} ({row['name']})")

    abouts = {
        "enable": f"Let the keys of a {kind} be used again.",
        "disable": f"Stop all keys of a {kind} until it is enabled; whatever runs may end.",
        "cancel": f"Stop all keys of a {kind} for good.",
    }
    turn.__doc__ = abouts[verb]
    return _signed(turn, _which(kind), *([_yes()] if ends else []))


def _yes() -> inspect.Parameter:
    return _keyword("yes", Annotated[bool, typer.Option("--yes", help="Do not ask.")], False)


def _deleting(kind: str, about: Kind) -> Callable[..., None]:
    """The verb ``delete`` of a kind."""

    def delete(*, which: str, yes: bool, data: Any, json: bool) -> None:
        with connect(data) as client:
            row = one_named(client, f"/{about.path}", kind, which)
            question = f"Delete {row['id']} ({row['name']})? Its history stays."
            agreed(question, f"deleting a {kind} cannot be undone", yes)
            gone = client.call("DELETE", f"/{about.path}/{segment(row['id'])}")
        if json:
            emit_json(gone)
        else:
            emit(f"deleted {row['id']} ({row['name']})")

    delete.__doc__ = f"Delete a {kind} that no key names any more; its history stays."
    return _signed(delete, _which(kind), _yes())


def _app(kind: str, about: Kind) -> typer.Typer:
    """The command of one kind, with all its verbs."""
    app = typer.Typer(no_args_is_help=False, add_completion=False, rich_markup_mode=None, help=about.about)
    verbs = {
        "create": _creating(kind, about),
        "list": _listing(kind, about),
        "show": _showing(kind, about),
        "set": _setting(kind, about),
        **{verb: _turning(kind, about, verb, state) for verb, state in _STATES.get(kind, _USUAL_STATES).items()},
        "delete": _deleting(kind, about),
    }
    for name, verb in verbs.items():
        app.command(name)(verb)
    return app


#: Kind → its command.
apps: Final = {kind: _app(kind, about) for kind, about in KINDS.items()}
