"""``faregate deployment``: places to send calls to that are made through the API, and those of the file."""

from typing import Annotated, Final

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.output import Json, emit_deleted, emit_json, emit_row, table
from faregate.cli.words import without_nothing
from faregate.errors import Unsafe, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Deployments: places to send calls to.")

_COLUMNS: Final = ("id", "name", "provider", "deployment", "model", "region", "state", "source")

Deployment = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the deployment.")]
Upstream = Annotated[str | None, typer.Option("--deployment", help="What the provider calls it (default: the model).")]
Tokens = Annotated[int | None, typer.Option("--max-output-tokens", help="Most output tokens of one answer.")]
Region = Annotated[str | None, typer.Option(help="Where it is processed: global, data_zone or regional.")]


@app.command("list")
def list_deployments(
    provider: Annotated[str | None, typer.Option(help="Only those of this provider.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """List deployments, those of the configuration file first."""
    with connect(data) as client:
        rows = list(client.pages("/deployments", {"provider": provider}))
    if json:
        emit_json(rows)
    else:
        table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])


@app.command("create")
def create_deployment(
    name: Annotated[str, typer.Option(help="How models call it.")],
    provider: Annotated[str, typer.Option(help="Name of a provider.")],
    model: Annotated[str, typer.Option(help="The model that it is, and is priced as.")],
    deployment: Upstream = None,
    max_output_tokens: Tokens = None,
    region: Region = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Make a deployment; its model must have a price at this provider."""
    body = {"name": name, "provider": provider, "model": model} | without_nothing(
        {"deployment": deployment, "max_output_tokens": max_output_tokens, "region": region}
    )
    with connect(data, make=True) as client:
        row = client.call("POST", "/deployments", body)
    emit_row(row, as_json=json)


@app.command("show")
def show_deployment(deployment: Deployment, data: Where = None, json: Json = False) -> None:
    """Show one deployment."""
    with connect(data) as client:
        row = client.call("GET", f"/deployments/{segment(deployment)}")
    emit_row(row, as_json=json)


@app.command("set")
def set_deployment(
    name: Deployment,
    model: Annotated[str | None, typer.Option(help="The model that it is, and is priced as.")] = None,
    deployment: Upstream = None,
    max_output_tokens: Tokens = None,
    region: Region = None,
    state: Annotated[str | None, typer.Option(help="active or disabled.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Change a deployment, or let it rest."""
    body = without_nothing(
        {
            "model": model,
            "deployment": deployment,
            "max_output_tokens": max_output_tokens,
            "region": region,
            "state": state,
        }
    )
    if not body:
        raise UsageError("nothing to change; name at least one option, try `faregate deployment set --help`")
    with connect(data) as client:
        row = client.call("PATCH", f"/deployments/{segment(name)}", body)
    emit_row(row, as_json=json)


@app.command("delete")
def delete_deployment(
    deployment: Deployment,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, delete it.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Delete a deployment that no name of a model leads to."""
    if not yes:
        raise Unsafe(f"this deletes the deployment {deployment}", hint="add --yes if that is meant")
    with connect(data) as client:
        row = client.call("DELETE", f"/deployments/{segment(deployment)}")
    emit_deleted(row, as_json=json)
