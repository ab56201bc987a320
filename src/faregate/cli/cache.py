"""``faregate cache``: look at the response cache, and have it forget what it keeps."""

from typing import Annotated

import typer

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit, emit_json, table
from faregate.cli.words import without_nothing

app = typer.Typer(
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
    help="The response cache: answers that are given again to the same call.",
)


@app.command("show")
def show(data: Where = None, json: Json = False) -> None:
    """Show how the response cache is set, what it keeps, and how often it was of use since the gate started."""
    with connect(data) as client:
        told = client.call("GET", "/cache")
    if json:
        emit_json(told)
    else:
        table(("field", "value"), list(told.items()))


@app.command("flush")
def flush(
    organization: Annotated[str | None, typer.Option(help="Only answers of this organization.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only answers of this stage.")] = None,
    project: Annotated[str | None, typer.Option(help="Only answers of this project.")] = None,
    key: Annotated[str | None, typer.Option(help="Only answers kept for calls of this key: its id or name.")] = None,
    model: Annotated[str | None, typer.Option(help="Only answers of this model, or to this name.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Forget kept answers: those that have everything that is named, without an option all of them."""
    wanted = without_nothing(
        {"organization": organization, "stage": stage, "project": project, "key": key, "model": model}
    )
    with connect(data) as client:
        told = client.call("POST", "/cache/flush", wanted)
    if json:
        emit_json(told)
    else:
        removed = told["removed"]
        emit(f"{removed} kept answer{' was' if removed == 1 else 's were'} forgotten")
