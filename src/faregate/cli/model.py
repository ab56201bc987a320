"""``faregate model``: names that callers may use, made through the API, and those of the file."""

from typing import Annotated, Any, Final

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.output import Json, emit_deleted, emit_json, table
from faregate.cli.words import listed, without_nothing

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Names of models, and where they go.")

_COLUMNS: Final = ("id", "name", "to", "max_output_tokens", "source")

Model = Annotated[str, typer.Argument(metavar="NAME", help="The name, or its id.")]
Tokens = Annotated[int | None, typer.Option("--max-output-tokens", help="Most output tokens of one answer.")]


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
    to: Annotated[str, typer.Option(help="Deployments, provider/model or other names, in order, joined by commas.")],
    max_output_tokens: Tokens = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Make a name that callers may use."""
    body = {"name": name, "to": listed(to)} | without_nothing({"max_output_tokens": max_output_tokens})
    with connect(data, make=True) as client:
        row = client.call("POST", "/models", body)
    _show(row, as_json=json)


@app.command("set")
def set_model(
    name: Model,
    to: Annotated[str, typer.Option(help="Deployments, provider/model or other names, in order, joined by commas.")],
    data: Where = None,
    json: Json = False,
) -> None:
    """Lead a name elsewhere."""
    with connect(data) as client:
        row = client.call("PATCH", f"/models/{segment(name)}", {"to": listed(to)})
    _show(row, as_json=json)


@app.command("delete")
def delete_model(name: Model, data: Where = None, json: Json = False) -> None:
    """Delete a name."""
    with connect(data) as client:
        row = client.call("DELETE", f"/models/{segment(name)}")
    emit_deleted(row, as_json=json)


def _show(row: dict[str, Any], *, as_json: bool) -> None:
    row.pop("applied", None)
    if as_json:
        emit_json(row)
    else:
        _table([row])


def _table(rows: list[dict[str, Any]]) -> None:
    table(_COLUMNS, [[",".join(row["to"]) if name == "to" else row[name] for name in _COLUMNS] for row in rows])
