"""``faregate requests``: single calls, newest first, or as they come in."""

import json as json_text
import time
from typing import Annotated, Any, NoReturn

import typer

from faregate.cli.client import PAGE, AdminClient, Where, connect, segment
from faregate.cli.content import searched
from faregate.cli.output import Json, emit, emit_json, flush, table
from faregate.cli.words import pairs
from faregate.errors import UsageError

_COLUMNS = (
    "created_at", "id", "team", "project", "model", "status", "code", "input_tokens", "output_tokens", "charge",
)  # fmt: skip

#: These are told where the response cache was used.
_CACHE = ("cache", "saved_cost")

#: A record is in the books about half a second after its call.
POLL_SECONDS = 0.5


def command(
    request: Annotated[str | None, typer.Argument(metavar="[ID]", help="One request, with how its cost came.")] = None,
    select: Annotated[str | None, typer.Option(help="Only these: status=refused,team=research.")] = None,
    since: Annotated[str | None, typer.Option(help="Start, such as 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option(help="End, not included.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Only those whose prompt or answer holds this, as far as contents are kept.")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="By date, cost or charge; the largest first.")] = None,
    order: Annotated[str | None, typer.Option(help="desc, or asc for the oldest or cheapest first.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many (1 to 1000).")] = 50,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new ones until interrupted.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Look at requests: one, the newest, or new ones as they come."""
    if request is not None and follow:
        raise UsageError("an ID and --follow do not go together")
    if follow and (text or sort or order):
        raise UsageError("--follow shows what comes in as it comes: neither --text, --sort nor --order goes with it")
    query = {**pairs(select), "since": since, "until": until, "text": text, "sort": sort, "order": order}
    with connect(data) as client:
        if request is not None:
            _show(client.call("GET", f"/requests/{segment(request)}"), as_json=json)
            return
        if follow:
            _follow(client, query, limit, as_json=json)
        rows = searched(client, "/requests", query, limit)
        if json:
            emit_json(rows)
        else:
            columns = _COLUMNS if all(row["cache"] == "off" for row in rows) else (*_COLUMNS, *_CACHE)
            table(columns, [[row[name] for name in columns] for row in rows])


def _show(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit_json(row)
        return
    derivation = row.pop("derivation")
    table(("field", "value"), [(name, _text(value)) for name, value in row.items()])
    if derivation is not None:
        emit("")
        columns = ("unit", "quantity", "price", "per", "amount")
        table(columns, [[line[name] for name in columns] for line in derivation["lines"]])
        # An answer that was kept before was priced by nothing.
        by = f" by {derivation['price_version']}" if derivation["price_version"] else ""
        emit(f"sum {derivation['sum']} = {derivation['cost']}{by}")
        if derivation["charge_lines"]:
            emit("")
            rows = [("cost", "", row["cost"]), *(tuple(line.values()) for line in derivation["charge_lines"])]
            table(("charge", "term", "amount"), rows)
            emit(f"charged {derivation['charge']}")


def _text(value: object) -> object:
    return json_text.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _follow(client: AdminClient, query: dict[str, str | None], limit: int, *, as_json: bool) -> NoReturn:
    """Print the newest rows as lines, then each that comes into the books, once, for ever.

    Records come in the order in which calls end, so neither their ids nor their times say which are new.
    """
    newest = client.call("GET", "/requests", query={"limit": "1"})["data"]
    mark = newest[0]["id"] if newest else ""
    rows = client.call("GET", "/requests", query={**query, "limit": str(limit)})["data"][::-1]
    shown = {row["id"] for row in rows}
    more_waits = False
    while True:
        for row in rows:
            if as_json:
                emit_json(row)
            else:
                emit("  ".join("-" if row[name] is None else str(row[name]) for name in _COLUMNS))
        flush()
        if not more_waits:
            time.sleep(POLL_SECONDS)
        page = client.call("GET", "/requests", query={**query, "limit": str(PAGE), "booked_after": mark})
        mark = page["booked_until"]
        # Only what was there at the start can come a second time.
        rows = [row for row in page["data"] if row["id"] not in shown]
        more_waits = len(page["data"]) == PAGE
