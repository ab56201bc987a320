"""``faregate usage``: sums of what was used and charged, by any dimensions."""

from typing import Annotated

import typer

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit_json, table
from faregate.cli.words import listed, pairs

#: These are told where some of them were used.
_RARE = ("images", "seconds", "characters")
#: These are told where the response cache was used.
_CACHE = ("cache_hits", "cache_misses", "saved_cost")
_SUMS = ("requests", "input_tokens", "output_tokens", *_RARE, "cost", "charge")


def command(
    by: Annotated[str | None, typer.Option(help="Dimensions, joined by commas: team,model,tag.env.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Start (default: this month).")] = None,
    to: Annotated[str | None, typer.Option("--to", help="End, not included (default: now).")] = None,
    interval: Annotated[str | None, typer.Option(help="hour, day or month: a row for each.")] = None,
    select: Annotated[str | None, typer.Option(help="Only these: team=research,stage=prod.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Sum up what was used and charged; refusals are not counted."""
    query = {**pairs(select), "by": by, "from": from_, "to": to, "interval": interval}
    with connect(data) as client:
        rows = client.call("GET", "/usage", query=query)["data"]
    names = [*([interval] if interval else []), *(listed(by) or ())]
    if "key" in names:
        names.insert(names.index("key") + 1, "key_name")
    if "subscription" in names:
        names.insert(names.index("subscription") + 1, "subscription_name")
    columns = [*names, *(name for name in _SUMS if name not in _RARE or any(row[name] for row in rows))]
    if any(row["cache_hits"] or row["cache_misses"] for row in rows):
        columns += _CACHE
    if json:
        emit_json([{name: row[name] for name in columns} for row in rows])
    else:
        table(columns, [[row[name] for name in columns] for row in rows])
