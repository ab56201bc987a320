"""``faregate price``: look at prices and set own ones."""

from typing import Annotated

import typer

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit_json, table
from faregate.cli.words import without_nothing

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Prices, bundled and own.")

_COLUMNS = ("provider", "model", "unit", "per", "price", "above_input_tokens", "effective_from", "source")


@app.command("list")
def list_prices(
    provider: Annotated[str | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option()] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """List the prices in force now."""
    with connect(data) as client:
        rows = client.call("GET", "/prices", query={"provider": provider, "model": model})["data"]
    if json:
        emit_json(rows)
    else:
        table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])


@app.command("set")
def set_price(
    provider: Annotated[str, typer.Option(help="Name of the provider in the configuration.")],
    model: Annotated[str, typer.Option(help="The model it is the price of.")],
    unit: Annotated[str, typer.Option(help="input_tokens, output_tokens, cached_input_tokens, requests …")],
    price: Annotated[str, typer.Option(help="Dollars for --per units, such as 2.50.")],
    per: Annotated[int, typer.Option(help="Units that the price is for.")] = 1_000_000,
    from_: Annotated[str | None, typer.Option("--from", help="First moment (default: now).")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="The price is meant, however far from the last.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Set an own price; what is booked already stays as it is."""
    body = {"provider": provider, "model": model, "unit": unit, "per": per, "price": price}
    body |= without_nothing({"effective_from": from_, "confirm": True if confirm else None})
    with connect(data, make=True) as client:
        row = client.call("PUT", "/prices", body)
    row.pop("applied", None)
    if json:
        emit_json(row)
    else:
        table(_COLUMNS, [[row[name] for name in _COLUMNS]])
