"""``faregate limit``: set, list and clear limits."""

from typing import Annotated, Any

import typer

from faregate.cli import limit_entries
from faregate.cli.client import AdminClient, Where, connect, segment
from faregate.cli.limit_names import Each, LimitId, Select, Unit, Window, limit_row, moment
from faregate.cli.output import Json, emit, emit_json, say, table
from faregate.cli.words import amount as read_amount
from faregate.cli.words import listed, pairs, without_nothing
from faregate.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Limits on money, tokens, requests, concurrency.")


@app.command("set")
def set_limit(
    unit: Annotated[str, typer.Option(help="usd, tokens, requests, concurrency, images, seconds, characters …")],
    amount: Annotated[str, typer.Option(help="Dollars such as 0.10, a whole number, or unlimited.")],
    select: Annotated[str | None, typer.Option(help="Whom it covers: team=research,model=gpt-4o.")] = None,
    each: Annotated[str | None, typer.Option(help="Count each value of these dimensions by itself: user.")] = None,
    window: Annotated[
        str | None, typer.Option(help="second … year, lifetime, or rolling 24h; concurrency has none.")
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Time zone of the calendar, such as Europe/Berlin.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="hard refuses, soft only counts, shadow tells what it would have refused.")
    ] = None,
    clamp: Annotated[
        bool | None, typer.Option("--clamp/--no-clamp", help="Lower a caller's output cap so that the call fits.")
    ] = None,
    contact: Annotated[str | None, typer.Option(help="Whom a refused caller may ask.")] = None,
    action: Annotated[
        list[str] | None,
        typer.Option(help="At a share of it: notify@80, notify@100:forecast, throttle@90=6, downgrade@80=M, stop@95."),
    ] = None,
    smooth: Annotated[bool, typer.Option("--smooth", help="At an even pace instead of all at once.")] = False,
    burst: Annotated[str | None, typer.Option(help="What a smooth limit lets through at once.")] = None,
    carry_over: Annotated[str | None, typer.Option(help="Most of what is left that the next window gets.")] = None,
    year_start: Annotated[str | None, typer.Option(help="Day on which the fiscal year begins: 04-01.")] = None,
    starts: Annotated[str | None, typer.Option("--from", help="Binds from this time on.")] = None,
    until: Annotated[str | None, typer.Option(help="Binds nobody from this time on.")] = None,
    no_estimate: Annotated[
        bool, typer.Option("--no-estimate", help="Hold nothing: only what calls used counts, and stops later ones.")
    ] = False,
    denial: Annotated[str | None, typer.Option(help="Name of the answer to refused callers.")] = None,
    spared: Annotated[
        list[str] | None,
        typer.Option(
            "--except", help="With --each: whom it leaves to other limits, such as user=bob; may be repeated."
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the limit's history.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Set a limit. The same selection, unit and window again changes its amount and what else is named, in place."""
    body: dict[str, object] = {"select": pairs(select), "unit": unit, "amount": read_amount(unit, amount)}
    body |= without_nothing(
        {
            "each": listed(each),
            "window": window,
            "timezone": timezone,
            "mode": mode,
            "clamp": clamp,
            "contact": contact,
        }
    )
    body |= without_nothing(
        {
            "actions": [read_action(each) for each in action] if action else None,
            "algorithm": "smooth" if smooth else None,
            "burst": read_amount(unit, burst, "--burst") if burst is not None else None,
            "carry_over": read_amount(unit, carry_over, "--carry-over") if carry_over is not None else None,
            "year_start": year_start,
            "from": moment(starts, "--from") if starts else None,
            "until": moment(until, "--until") if until else None,
            "estimate": False if no_estimate else None,
            "denial": denial,
            "except": [pairs(each) for each in spared] if spared else None,
            "reason": reason,
        }
    )
    with connect(data, make=True) as client:
        row = client.call("POST", "/limits", body)
        changed = "" if json else _changed(client, row)
    _told(row, json)
    if changed:
        say(changed)


def _changed(client: AdminClient, row: dict[str, Any]) -> str:
    """What was changed of a limit that was there already; empty of one that was made."""
    entries = client.call("GET", f"/limits/{segment(row['id'])}/entries", query={"limit": "10"})["data"]
    told = [each for each in entries if each["operation"] in ("create", "set")]
    if not told or told[0]["created_at"] < row["updated_at"]:
        return "This limit was there already; its amount is as it was."
    if told[0]["operation"] == "create":
        return ""
    before, after = ("unlimited" if told[0][name] is None else told[0][name] for name in ("before", "after"))
    return f"This limit was there already; changed: amount {before} → {after}."


def _told(row: dict[str, Any], json: bool) -> None:
    """A limit that was set or raised, and what should be known about it."""
    if json:
        emit_json(_plain(row))
    else:
        _table([row])
    if row["mode"] == "hard" and row["remaining"] in ("0", 0):
        until = f" until {row['resets_at']}" if row["resets_at"] else ""
        say(f"Nothing is left of it: no new requests are admitted{until}.")
    if row.get("applied") is False:
        say("The gateway has not taken it up yet; it will as soon as it answers.")


@app.command("raise")
def raise_limit(
    amount: Annotated[str, typer.Option(help="The amount meanwhile.")],
    until: Annotated[str, typer.Option(help="When it ends: 14d from now, 2026-12-01, or a time with its zone.")],
    limit: LimitId = None,
    select: Select = None,
    each: Each = None,
    unit: Unit = None,
    window: Window = None,
    starts: Annotated[str | None, typer.Option("--from", help="When it begins; now, where it is not given.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the limit's history.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Raise a limit for some time; it falls back by itself."""
    with connect(data) as client:
        row = limit_row(client, limit, select, each, unit, window)
        body: dict[str, object] = {"amount": read_amount(row["unit"], amount), "until": moment(until, "--until")}
        body |= without_nothing({"from": moment(starts, "--from") if starts else None, "reason": reason})
        row = client.call("POST", f"/limits/{segment(row['id'])}/raises", body)
    _told(row, json)


def read_action(text: str) -> dict[str, object]:
    """``downgrade@80=gpt-4o-mini`` or ``notify@100:forecast`` as the API takes it.

    Raises:
        UsageError: it is none.
    """
    head, _, value = text.partition("=")
    do, at, share = head.partition("@")
    percent, colon, basis = share.partition(":")
    if not at or not percent.isascii() or not percent.isdigit() or len(percent) > 4 or (colon and not basis):
        raise UsageError(
            f"--action: {text[:64]!r} is no action; write one such as notify@80, notify@100:forecast, throttle@90=6, "
            "downgrade@80=gpt-4o-mini or stop@95",
            code="value",
        )
    action: dict[str, object] = {"do": do, "at": int(percent)}
    if basis:
        action["on"] = basis
    if do == "throttle":
        if not value.isascii() or not value.isdigit() or len(value) > 7:
            rule = "--action: a throttle says how many calls a minute still pass: throttle@90=6"
            raise UsageError(rule, code="value")
        action["requests_per_minute"] = int(value)
    elif value:
        action["to"] = value
    return action


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "applied"}


def _table(rows: list[dict[str, Any]]) -> None:
    columns = ("id", "select", "each", "unit", "amount", "window", "posted", "held", "remaining", "resets_at", "mode")
    # What is in force now, which is what the rest of the line adds up to.
    shown = [{**row, "amount": row["amount_now"], "mode": _mode(row)} for row in rows]
    table(columns, [[_cell(name, row[name]) for name in columns] for row in shown])


def _mode(row: dict[str, Any]) -> str:
    """The mode, and what made the limit where that was nobody who set limits."""
    return str(row["mode"]) if row["source"] in ("api", "file") else f"{row['mode']} ({row['source']})"


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
    select: Annotated[
        str | None, typer.Option(help="Only those that select all of this, such as team=research,model=gpt-4o.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Only those that count this.")] = None,
    window: Annotated[str | None, typer.Option(help="Only those of this window.")] = None,
    mode: Annotated[str | None, typer.Option(help="Only hard, soft or shadow ones.")] = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """List limits with what is posted, held and left of each."""
    with connect(data) as client:
        rows = list(client.pages("/limits", {**pairs(select), "unit": unit, "window": window, "mode": mode}))
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


limit_entries.add_to(app)
