"""``faregate limit``: set, list and clear limits."""

from typing import Annotated, Any

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.output import Json, emit, emit_json, say, table
from faregate.cli.words import amount as read_amount
from faregate.cli.words import listed, pairs, without_nothing

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Limits on money, tokens, requests, concurrency.")


@app.command("set")
def set_limit(
    unit: Annotated[str, typer.Option(help="usd, tokens, input_tokens, output_tokens, requests or concurrency.")],
    amount: Annotated[str, typer.Option(help="Dollars such as 0.10, a whole number, or unlimited.")],
    select: Annotated[str | None, typer.Option(help="Whom it covers: team=research,model=gpt-4o.")] = None,
    each: Annotated[str | None, typer.Option(help="Count each value of these dimensions by itself: user.")] = None,
    window: Annotated[str | None, typer.Option(help="second … year or lifetime; concurrency has none.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Time zone of the calendar, such as Europe/Berlin.")] = None,
    mode: Annotated[str | None, typer.Option(help="hard refuses, soft only tells.")] = None,
    clamp: Annotated[bool, typer.Option("--clamp", help="Lower a caller's output cap so that the call fits.")] = False,
    contact: Annotated[str | None, typer.Option(help="Whom a refused caller may ask.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Set a limit. The same selection, unit and window again changes its amount in place."""
    body: dict[str, object] = {"select": pairs(select), "unit": unit, "amount": read_amount(unit, amount)}
    body |= without_nothing(
        {"each": listed(each), "window": window, "timezone": timezone, "mode": mode, "contact": contact}
    )
    if clamp:
        body["clamp"] = True
    with connect(data, make=True) as client:
        row = client.call("POST", "/limits", body)
    if json:
        emit_json(_plain(row))
    else:
        _table([row])
    if row["remaining"] in ("0", 0):
        until = f" until {row['resets_at']}" if row["resets_at"] else ""
        say(f"Nothing is left of it: no new requests are admitted{until}.")
    if row.get("applied") is False:
        say("The gateway has not taken it up yet; it will as soon as it answers.")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "applied"}


def _table(rows: list[dict[str, Any]]) -> None:
    columns = ("id", "select", "each", "unit", "amount", "window", "posted", "held", "remaining", "resets_at", "mode")
    table(columns, [[_cell(name, row[name]) for name in columns] for row in rows])


def _cell(name: str, value: Any) -> Any:
    if name == "select":
        return ",".join(f"{dimension}={text}" for dimension, text in value.items()) or "everything"
    if name == "each":
        return ",".join(value) or None
    if name == "amount" and value is None:
        return "unlimited"
    return value


@app.command("list")
def list_limits(
    unit: Annotated[str | None, typer.Option()] = None,
    window: Annotated[str | None, typer.Option()] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """List limits with what is posted, held and left of each."""
    with connect(data) as client:
        rows = list(client.pages("/limits", {"unit": unit, "window": window}))
    if json:
        emit_json(rows)
    else:
        _table(rows)


@app.command("clear")
def clear(
    limit: Annotated[str, typer.Argument(metavar="ID", help="Id of the limit.")],
    data: Where = None,
    json: Json = False,
) -> None:
    """Remove a limit."""
    with connect(data) as client:
        row = client.call("DELETE", f"/limits/{segment(limit)}")
    if json:
        emit_json(_plain(row))
    else:
        emit(f"removed {row['id']}")
