"""``faregate model``: names that callers may use, made through the API, and those of the file."""

from typing import Annotated, Any, Final

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.output import Json, emit_deleted, emit_json, table
from faregate.cli.words import listed, pairs, without_nothing
from faregate.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Names of models, and where they go.")

_COLUMNS: Final = ("id", "name", "to", "instead", "max_output_tokens", "source")

_TO: Final = "Pools, deployments, provider/model or other names, in order, joined by commas."

Model = Annotated[str, typer.Argument(metavar="NAME", help="The name, or its id.")]
Tokens = Annotated[int | None, typer.Option("--max-output-tokens", help="Most output tokens of one answer.")]
Instead = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHO:PLACES",
        help="Lead some callers elsewhere, such as product=premium:reserved,main; repeatable, the first that fits "
        "counts.",
    ),
]


@app.command("list")
def list_models(data: Where = None, json: Json = False) -> None:
    """List names, those of the configuration file first."""
    with connect(data) as client:
        rows = list(client.pages("/models"))
    if json:
        emit_json(rows)
    else:
        _table(rows)


@app.command("create")
def create_model(
    name: Annotated[str, typer.Option(help="What callers write as model.")],
    to: Annotated[str, typer.Option(help=_TO)],
    instead: Instead = None,
    max_output_tokens: Tokens = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Make a name that callers may use."""
    body = {"name": name, "to": listed(to)} | without_nothing(
        {"instead": _elsewhere(instead), "max_output_tokens": max_output_tokens}
    )
    with connect(data, make=True) as client:
        row = client.call("POST", "/models", body)
    _show(row, as_json=json)


@app.command("set")
def set_model(
    name: Model,
    to: Annotated[str | None, typer.Option(help=_TO)] = None,
    instead: Instead = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Lead a name elsewhere, for all or with --instead for some; an empty --instead leads nobody elsewhere."""
    body = without_nothing({"to": listed(to), "instead": _elsewhere(instead)})
    if not body:
        raise UsageError("nothing to change; name at least one option, try `faregate model set --help`")
    with connect(data) as client:
        row = client.call("PATCH", f"/models/{segment(name)}", body)
    _show(row, as_json=json)


@app.command("delete")
def delete_model(name: Model, data: Where = None, json: Json = False) -> None:
    """Delete a name."""
    with connect(data) as client:
        row = client.call("DELETE", f"/models/{segment(name)}")
    emit_deleted(row, as_json=json)


def _elsewhere(typed: list[str] | None) -> list[dict[str, Any]] | None:
    """``product=premium:reserved,main`` as the API has it, ``None`` where nothing was given.

    Raises:
        UsageError: it names nobody, or no place.
    """
    if typed is None:
        return None
    found = []
    for each in filter(None, typed):
        who, _, places = each.partition(":")
        if not who or not listed(places):
            rule = "names no callers or no places; write product=premium:reserved,main"
            raise UsageError(f"--instead: {each[:64]!r} {rule}", code="value")
        found.append({"select": pairs(who), "to": listed(places)})
    return found


def _show(row: dict[str, Any], *, as_json: bool) -> None:
    row.pop("applied", None)
    if as_json:
        emit_json(row)
    else:
        _table([row])


def _table(rows: list[dict[str, Any]]) -> None:
    told = [{**row, "to": ",".join(row["to"]), "instead": _typed(row["instead"]) or None} for row in rows]
    table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in told])


def _typed(instead: list[dict[str, Any]]) -> str:
    """Who is led elsewhere, as ``--instead`` takes it."""
    each_as_typed = (
        f"{','.join(f'{name}={value}' for name, value in each['select'].items())}:{','.join(each['to'])}"
        for each in instead
    )
    return " ".join(each_as_typed)
