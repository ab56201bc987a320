"""``faregate alert``: list alerts, mark them as seen, and try the channels."""

import time
from typing import Annotated, Any, Final

import typer

from faregate.cli.client import AdminClient, Where, connect, segment
from faregate.cli.output import Json, emit, emit_json, say, table
from faregate.cli.words import without_nothing
from faregate.errors import Failed, Unavailable, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="What people were told of, and how that went.")

_COLUMNS: Final = ("id", "created_at", "severity", "kind", "message", "state", "seen_at")

#: Alerts that a list shows unless all are asked for.
NEWEST: Final = 50

#: How long a test alert is waited for: a look at the outbox, and a receiver's deadline.
TEST_SECONDS_MAX: Final = 10.0
TEST_POLL_SECONDS: Final = 0.2


@app.command("list")
def list_alerts(
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as threshold.")] = None,
    state: Annotated[str | None, typer.Option(help="waiting, sent, failed or none.")] = None,
    limit: Annotated[str | None, typer.Option(metavar="ID", help="Only about this limit.")] = None,
    key: Annotated[str | None, typer.Option(metavar="ID", help="Only about this key.")] = None,
    unseen: Annotated[bool, typer.Option("--unseen", help="Only what nobody has marked as seen.")] = False,
    all_: Annotated[bool, typer.Option("--all", help=f"All of them, not only the newest {NEWEST}.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """List alerts, newest first."""
    query = {"kind": kind, "state": state, "limit_id": limit, "key": key, "seen": "false" if unseen else None}
    with connect(data) as client:
        if all_:
            rows, more = list(client.pages("/alerts", query)), False
        else:
            page = client.call("GET", "/alerts", query={**query, "limit": str(NEWEST)})
            rows, more = page["data"], page["next_cursor"] is not None
    if json:
        emit_json(rows)
        return
    table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])
    for trouble in dict.fromkeys(row["trouble"] for row in rows if row["trouble"]):
        say(f"Not delivered: {trouble}")
    if more:
        say(f"These are the newest {NEWEST}; --all lists the rest.")


@app.command("seen")
def seen(
    alerts: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of the alerts.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that nobody has seen.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Mark alerts as seen."""
    if bool(alerts) == all_:
        raise UsageError("name alerts by their ids, or say --all")
    with connect(data) as client:
        ids = [row["id"] for row in list(client.pages("/alerts", {"seen": "false"}))] if all_ else alerts or []
        rows = [client.call("PATCH", f"/alerts/{segment(each)}", {"seen": True}) for each in ids]
    if json:
        emit_json(rows)
    else:
        emit(f"marked {len(rows)} as seen")


@app.command("test")
def try_channels(
    channel: Annotated[str | None, typer.Option(help="Only this channel, by its name.")] = None,
    message: Annotated[str | None, typer.Option(help="What it says.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Send a test alert through the channels, and tell how that went."""
    with connect(data) as client:
        row = client.call("POST", "/alerts", without_nothing({"channel": channel, "message": message}))
        row = _waited(client, row)
    if json:
        emit_json(row)
    if row["state"] == "none":
        raise Failed("no channel takes alerts of the kind test", hint="make one with `faregate webhook add`")
    if row["state"] != "sent":
        if row["trouble"]:
            raise Failed(f"not delivered: {row['trouble']}", hint=f"it is tried again; see alert {row['id']}")
        raise Unavailable("nobody has sent it yet", hint="is Faregate running? It is sent when it does")
    if not json:
        emit(f"delivered {row['id']} to {len(row['delivered'])} channels")


def _waited(client: AdminClient, row: dict[str, Any]) -> dict[str, Any]:
    """The alert when all channels have taken it, one has not, or the time is over."""
    give_up_at = time.monotonic() + TEST_SECONDS_MAX
    while row["state"] == "waiting" and not row["trouble"] and time.monotonic() < give_up_at:
        time.sleep(TEST_POLL_SECONDS)
        row = client.call("GET", f"/alerts/{segment(row['id'])}")
    return row
