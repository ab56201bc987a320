"""``faregate capacity``: fixed commitments, split by use, and whether they pay."""

from typing import Annotated, Any

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.output import Json, emit, emit_json, table
from faregate.cli.words import listed, without_nothing

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, help="Fixed commitments, such as provisioned throughput."
)

_COLUMNS = ("name", "provider", "deployments", "commitment", "tokens_per_second", "timezone", "split", "idle", "source")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the capacity.")]
Month = Annotated[
    str | None, typer.Option(help="A month such as 2026-11 (default: this one, as far as it has passed).")
]


@app.command("list")
def list_capacities(data: Where = None, json: Json = False) -> None:
    """List fixed capacities."""
    with connect(data) as client:
        rows = client.call("GET", "/capacities")["data"]
    if json:
        emit_json(rows)
    else:
        _table(rows)


def _table(rows: list[dict[str, Any]]) -> None:
    table(
        _COLUMNS, [[",".join(row[name]) if name == "deployments" else row[name] for name in _COLUMNS] for row in rows]
    )


@app.command("set")
def set_capacity(
    name: Name,
    provider: Annotated[str, typer.Option(help="Name of the provider in the configuration.")],
    commitment: Annotated[str, typer.Option(help="Dollars of a calendar month, such as 5000.")],
    deployments: Annotated[
        str | None, typer.Option(help="Deployments that it serves, joined by commas (default: all of the provider's).")
    ] = None,
    units: Annotated[int | None, typer.Option(help="Units that were bought, for showing.")] = None,
    tokens_per_second: Annotated[int | None, typer.Option(help="Tokens that all of them serve in a second.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Time zone of its months, such as Europe/Berlin.")] = None,
    split: Annotated[str | None, typer.Option(help="Shares by tokens or by cost.")] = None,
    idle: Annotated[str | None, typer.Option(help="The part nobody used: show, spread or operator.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Set a fixed capacity; the same name again changes it."""
    body = {"name": name, "provider": provider, "commitment": commitment} | without_nothing(
        {
            "deployments": listed(deployments),
            "units": units,
            "tokens_per_second": tokens_per_second,
            "timezone": timezone,
            "split": split,
            "idle": idle,
        }
    )
    with connect(data, make=True) as client:
        row = client.call("PUT", "/capacities", body)
    if json:
        emit_json(row)
    else:
        _table([row])


@app.command("show")
def show_capacity(name: Name, month: Month = None, data: Where = None, json: Json = False) -> None:
    """Show how much of a capacity was used, and whether paying by the token would have been cheaper."""
    with connect(data) as client:
        row = client.call("GET", f"/capacities/{segment(name)}", query={"month": month})
    if json:
        emit_json(row)
        return
    _table([row])
    emit("")
    for key, value in row["plan"].items():
        if key != "capacity":
            emit(f"{key.replace('_', ' '):<26} {'-' if value is None else value}")


@app.command("split")
def split_capacity(
    name: Name,
    month: Month = None,
    by: Annotated[str, typer.Option(help="Dimensions, joined by commas: team,project.")] = "team",
    data: Where = None,
    json: Json = False,
) -> None:
    """Split a month's commitment by use; the shares and what nobody used add up to it exactly."""
    with connect(data) as client:
        told = client.call("GET", f"/capacities/{segment(name)}/split", query={"month": month, "by": by})
    if json:
        emit_json(told)
        return
    columns = [*(listed(by) or ()), "requests", "tokens", "pay_as_you_go", "share"]
    table(columns, [[row[column] for column in columns] for row in told["data"]])
    so_far = "" if told["complete"] else " so far"
    emit(f"\ncommitment{so_far} {told['commitment']}, idle {told['idle']}, operator {told['operator']}")


@app.command("remove")
def remove_capacity(name: Name, data: Where = None, json: Json = False) -> None:
    """Remove a fixed capacity."""
    with connect(data) as client:
        row = client.call("DELETE", f"/capacities/{segment(name)}")
    if json:
        emit_json(row)
    else:
        emit(f"removed {row['name']}")
