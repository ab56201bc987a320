"""``faregate price``: look at prices, set and change own ones, take in whole files, and see where one comes from."""

from pathlib import Path
from typing import Annotated, Any

import typer

from faregate.cli.client import Where, connect, segment
from faregate.cli.output import Json, emit, emit_deleted, emit_json, emit_row, say, table
from faregate.cli.progress import waiting
from faregate.cli.words import ascii_name, file_text, json_object, without_nothing
from faregate.errors import Unsafe, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Prices, bundled, imported and own.")

_COLUMNS = (
    *("provider", "model", "unit", "variant", "service_tier", "per", "price"),
    *("above_input_tokens", "effective_from", "layer"),
)
_OWN_COLUMNS = (
    *("id", "provider", "model", "unit", "variant", "service_tier", "region", "per", "price"),
    *("above_input_tokens", "effective_from", "effective_to", "source"),
)
_CHANGES = (
    *("change", "provider", "model", "unit", "variant", "service_tier", "region", "above_input_tokens"),
    *("before", "before_per", "price", "per", "effective_from", "where"),
)

#: Lines of a difference that a terminal gets; --json has all.
_SHOWN_MAX = 200

Own = Annotated[str, typer.Argument(metavar="ID", help="Id of an own price, as `price list --own` tells it.")]
Meant = Annotated[bool, typer.Option("--confirm", help="The price is meant, however far from the last.")]


@app.command("list")
def list_prices(
    provider: Annotated[str | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option()] = None,
    own: Annotated[bool, typer.Option("--own", help="Own prices with their ids, also those to come.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """List the prices in force now; ``--json`` and ``explain`` have the source of each."""
    columns = _OWN_COLUMNS if own else _COLUMNS
    with connect(data) as client:
        rows = list(client.pages("/prices/own" if own else "/prices", {"provider": provider, "model": model}))
    if json:
        emit_json(rows)
    else:
        table(columns, [[row[name] for name in columns] for row in rows])


@app.command("show")
def show_price(price_id: Own, data: Where = None, json: Json = False) -> None:
    """Show one own or imported price, also one that has ended."""
    with connect(data) as client:
        row = client.call("GET", f"/prices/{segment(price_id)}")
    emit_row(row, as_json=json)


@app.command("set")
def set_price(
    provider: Annotated[str, typer.Option(help="Name of the provider in the configuration.")],
    model: Annotated[str, typer.Option(help="The model it is the price of.")],
    unit: Annotated[str, typer.Option(help="input_tokens, output_tokens, cached_input_tokens, requests …")],
    price: Annotated[str, typer.Option(help="Dollars for --per units, such as 2.50.")],
    per: Annotated[int, typer.Option(help="Units that the price is for.")] = 1_000_000,
    from_: Annotated[str | None, typer.Option("--from", help="First moment (default: now).")] = None,
    variant: Annotated[str | None, typer.Option(help="Which of the unit's, such as 1024x1024/hd of images.")] = None,
    service_tier: Annotated[str | None, typer.Option(help="priority, flex, batch or scale.")] = None,
    region: Annotated[str | None, typer.Option(help="Where it is processed: global, data_zone or regional.")] = None,
    above: Annotated[int | None, typer.Option(help="Only for calls with more input tokens than that.")] = None,
    confirm: Meant = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Set an own price; what is booked already stays as it is."""
    body = {"provider": provider, "model": model, "unit": unit, "per": per, "price": price}
    body |= without_nothing(
        {
            "effective_from": from_,
            "variant": variant,
            "service_tier": service_tier,
            "region": region,
            "above_input_tokens": above,
            "confirm": True if confirm else None,
        }
    )
    with connect(data, make=True) as client:
        row = client.call("PUT", "/prices", body)
    row.pop("applied", None)
    if json:
        emit_json(row)
    else:
        table(_COLUMNS, [[row[name] for name in _COLUMNS]])


@app.command("change")
def change_price(
    price_id: Own,
    price: Annotated[str | None, typer.Option(help="Dollars for --per units, such as 2.50.")] = None,
    per: Annotated[int | None, typer.Option(help="Units that the price is for.")] = None,
    until: Annotated[str | None, typer.Option(help="When it ends, such as 2027-01-01T00:00:00Z.")] = None,
    confirm: Meant = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Change what an own price costs from now on, or end it; what it was is kept as a price that has ended."""
    body = without_nothing({"price": price, "per": per, "effective_to": until})
    if not body:
        raise UsageError("nothing to change; name --price, --per or --until")
    body |= without_nothing({"confirm": True if confirm else None})
    with connect(data) as client:
        row = client.call("PATCH", f"/prices/{segment(price_id)}", body)
    emit_row(row, as_json=json)


@app.command("delete")
def delete_price(
    price_id: Own,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, delete it.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Take an own or imported price back; the own one that it ended holds on, and what is booked stays."""
    if not yes:
        raise Unsafe(f"this deletes the price {price_id}", hint="add --yes if that is meant")
    with connect(data) as client:
        row = client.call("DELETE", f"/prices/{segment(price_id)}")
    emit_deleted(row, as_json=json)


@app.command("import")
def import_prices(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="LiteLLM's price JSON, or our CSV or YAML.")],
    provider: Annotated[str | None, typer.Option(help="Take in prices of this provider only.")] = None,
    format: Annotated[str, typer.Option(help="auto, litellm, csv or yaml.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Prices far from those before are meant.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Take in a file of prices, all of it or nothing; they lie above the bundled ones and below your own."""
    body: dict[str, object] = {
        "file": ascii_name(file),
        "text": file_text(file),
        "format": format,
        "provider": provider or "",
    }
    with connect(data, make=True) as client:
        with waiting("reading the prices", shown=not json):
            told = client.call("POST", "/prices/import", {**body, "dry_run": True})
        if not json:
            _difference(told)
        if not dry_run:
            if told["outliers"] and not yes:
                raise Unsafe(
                    f"{told['outliers']} prices are far from those in force, and nothing was taken in",
                    hint="look at the lines marked with !, and repeat with --yes if they are meant",
                )
            with waiting("taking in the prices", shown=not json):
                told = client.call("POST", "/prices/import", {**body, "confirm": yes})
    told.pop("applied", None)
    if json:
        emit_json(told)
    else:
        say(_summary(told))


def _difference(told: dict[str, Any]) -> None:
    """What a file changes, line by line, as far as a terminal wants to see it."""
    changes = [each for each in told["changes"] if each["change"] != "confirmed"]
    if changes:
        rows = [
            [f"{'! ' if each['outlier'] else ''}{each['change']}", *(each[name] for name in _CHANGES[1:])]
            for each in changes[:_SHOWN_MAX]
        ]
        table(_CHANGES, rows)
    if len(changes) > _SHOWN_MAX:
        say(f"… and {len(changes) - _SHOWN_MAX} more; --json has all of them")
    for fault in told["skipped"][:10]:
        say(f"left out: {fault['where']}: {fault['problem']}")
    if told["skipped_count"] > 10:
        say(f"left out: {told['skipped_count'] - 10} more entries")


def _summary(told: dict[str, Any]) -> str:
    kinds = [each["change"] for each in told["changes"]]
    words = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("new", "changed", "confirmed"))
    done = "would be taken in" if told["dry_run"] else "taken in"
    return f"{told['prices']} prices of {told['file']} {done}: {words}, {told['same']} there already"


@app.command("sync")
def sync_prices(
    from_: Annotated[Path | None, typer.Option("--from", help="A newer copy of LiteLLM's price JSON.")] = None,
    provider: Annotated[str | None, typer.Option(help="Take in prices of this provider only.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what changed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Prices far from those before are meant.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Look at the bundled price list again and tell what changed since the last look; nothing is downloaded."""
    body: dict[str, object] = {"dry_run": dry_run, "confirm": yes, "provider": provider or ""}
    if from_ is not None:
        body |= {"file": ascii_name(from_), "text": file_text(from_)}
    with connect(data, make=True) as client:
        told = client.call("POST", "/prices/sync", body)
    told.pop("applied", None)
    if json:
        emit_json(told)
        return
    for each in told["lists"]:
        before = f", before {each['last_edition']}" if each["last_edition"] else ", looked at for the first time"
        emit(f"{each['list']} {each['edition']}{before}: {each['models']} models")
        for word in ("added", "removed"):
            emit(f"  {word}: {', '.join(each[word]) or 'none'}")
        for change in each["changed"][:_SHOWN_MAX]:
            emit(f"  {change['model']} {change['what']}: {change['before'] or '-'} → {change['after'] or '-'}")
    if "import" in told:
        say(_summary(told["import"]))


@app.command("explain")
def explain_price(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model, as callers or the provider name it.")],
    provider: Annotated[str | None, typer.Option(help="Name of a provider; default: each that has it.")] = None,
    at: Annotated[str | None, typer.Option(help="A moment (default: now).")] = None,
    usage: Annotated[
        str | None, typer.Option(help='What a usage would cost: \'{"input_tokens": 1000, "output_tokens": 200}\'.')
    ] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Show what a model costs, where each rate comes from, what a usage would cost, or why there is no price."""
    body = {"model": model} | without_nothing({"provider": provider, "at": at})
    if usage is not None:
        body["usage"] = json_object(usage, "--usage")
    with connect(data) as client:
        told = client.call("POST", "/prices/explain", body)
    if json:
        emit_json(told)
        return
    for each in told["data"]:
        emit(f"{each['model']} at {each['provider']}, {told['at']}")
        for reason in each["reasons"]:
            emit(f"  {reason}")
        for card in each["cards"]:
            _card(card)
    if not told["data"]:
        say("no provider is declared")


def _card(card: dict[str, Any]) -> None:
    special = [f"{name} {card[name]}" for name in ("service_tier", "region") if card[name]]
    emit(f"\n{' · '.join(['card ' + card['version'], *special])}")
    for note in card["notes"]:
        emit(f"  {note}")
    shown = ("unit", "variant", "above_input_tokens", "per", "price", "layer")
    # A source is a sentence, and most rates have the same: a number stands for it in the table.
    sources = list(dict.fromkeys(rate["source"] for rate in card["rates"] if rate["source"]))
    numbers = [f"[{sources.index(rate['source']) + 1}]" if rate["source"] else None for rate in card["rates"]]
    rows = [[rate[name] for name in shown] for rate in card["rates"]]
    table((*shown, "source"), [[*row, number] for row, number in zip(rows, numbers, strict=True)])
    for number, source in enumerate(sources, start=1):
        emit(f"[{number}] {source}")
    costed = card["usage"]
    if costed is None:
        return
    columns = ("unit", "variant", "priced_as", "quantity", "price", "per", "amount")
    emit("")
    table(columns, [[line[name] for name in columns] for line in costed["lines"]])
    missing = f"; {costed['unpriced']} has no price, so that such a call is refused" if costed["unpriced"] else ""
    emit(f"sum {costed['sum']}, cost {costed['cost']}{missing}")
