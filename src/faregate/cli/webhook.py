"""``faregate webhook``: list, add and remove channels for alerts."""

import sys
from typing import Annotated, Any, Final

import typer

from faregate.cli.client import AdminClient, Where, connect, segment
from faregate.cli.output import Json, emit, emit_json, say, table
from faregate.cli.words import listed, without_nothing
from faregate.errors import Conflict, NotFound, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Channels for alerts: webhooks, mail, chat.")

_COLUMNS: Final = ("id", "name", "kind", "url", "alerts", "state", "source")


@app.command("list")
def list_webhooks(data: Where = None, json: Json = False) -> None:
    """List channels; of their addresses only what is no secret."""
    with connect(data) as client:
        rows = list(client.pages("/webhooks"))
    if json:
        emit_json(rows)
    else:
        _table(rows)


@app.command("add")
def add(
    name: Annotated[str, typer.Option(help="What it is called.")],
    url: Annotated[
        str, typer.Option(help="https://… of a webhook, or an address of apprise such as mailto://…; - reads a line.")
    ],
    alerts: Annotated[str | None, typer.Option(help="Kinds of alerts, joined by commas; all without it.")] = None,
    kind: Annotated[str | None, typer.Option(help="webhook or apprise, where the address does not say it.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Add a channel. What is sent to a webhook is signed with a secret that is shown this once."""
    address = _read_line() if url == "-" else url
    body = without_nothing({"name": name, "url": address, "alerts": listed(alerts), "kind": kind})
    with connect(data, make=True) as client:
        row = client.call("POST", "/webhooks", body)
    if json:
        emit_json(row)
        return
    table(("field", "value"), [(field, _text(value)) for field, value in row.items() if value is not None])
    if "secret" in row:
        say("The secret is shown only now; the receiver checks signatures with it.")


def _read_line() -> str:
    """An address that stays out of the history of the shell."""
    line = sys.stdin.readline(4_096).strip()
    if not line:
        raise UsageError("--url -: standard input holds no address", code="value")
    return line


@app.command("remove")
def remove(
    channel: Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the channel.")],
    data: Where = None,
    json: Json = False,
) -> None:
    """Remove a channel; what it has not taken yet it never gets."""
    with connect(data) as client:
        row = _find(client, channel)
        gone = client.call("DELETE", f"/webhooks/{segment(row['id'])}")
    if json:
        emit_json(gone)
    else:
        emit(f"removed {row['id']} ({row['name']})")


def _find(client: AdminClient, wanted: str) -> dict[str, Any]:
    """The channel of this name or id.

    Raises:
        NotFound: there is none.
        Conflict: the configuration file declares it.
    """
    for row in client.pages("/webhooks"):
        if wanted in (row["id"], row["name"]):
            if row["source"] == "file":
                raise Conflict(f"{row['name']} is declared in the configuration file", hint="remove it there")
            return row
    raise NotFound("there is no such channel", hint="`faregate webhook list` lists them")


def _table(rows: list[dict[str, Any]]) -> None:
    table(_COLUMNS, [[_text(row[name]) for name in _COLUMNS] for row in rows])


def _text(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list) else value
