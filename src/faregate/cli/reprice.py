"""``faregate reprice``: what a period would have cost otherwise, and the correction that books the difference."""

from pathlib import Path
from typing import Annotated, Any

import typer

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit, emit_json, say, table
from faregate.cli.words import ascii_name, file_text, pairs, without_nothing

_SUMS = (
    *("requests", "booked_cost", "new_cost", "cost_difference"),
    *("booked_charge", "new_charge", "charge_difference"),
)


def command(
    from_: Annotated[str, typer.Option("--from", help="Start of the period.")],
    to: Annotated[str | None, typer.Option("--to", help="End, not included (default: now).")] = None,
    book: Annotated[Path | None, typer.Option(help="Price by this file, and by present prices for the rest.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only calls at this provider.")] = None,
    model: Annotated[str | None, typer.Option(help="Only calls of this model, as it was requested.")] = None,
    select: Annotated[str | None, typer.Option(help="Only these: team=research,stage=prod.")] = None,
    map_: Annotated[
        str | None, typer.Option("--map", help="Price models as others: old=new, old=provider/new.")
    ] = None,
    cached_percent: Annotated[int | None, typer.Option(help="As if so much of the input came from a cache.")] = None,
    capacity: Annotated[str | None, typer.Option(help="As if this fixed capacity had served everything.")] = None,
    provisional: Annotated[
        bool,
        typer.Option("--provisional", help="Only what was booked at provisional prices, now that others are known."),
    ] = False,
    commit: Annotated[bool, typer.Option("--commit", help="Book the difference as a correction.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; needed with --commit.")] = None,
    run: Annotated[str | None, typer.Option(help="Id of the correction: the same again books nothing.")] = None,
    by: Annotated[str, typer.Option(help="Show sums by model, team or day.")] = "model",
    data: Where = None,
    json: Json = False,
) -> None:
    """Price a period again from stored usage. Nothing is booked without --commit, and no entry is ever changed."""
    chosen = {**pairs(select), **{name: text for name, text in (("provider", provider), ("model", model)) if text}}
    body: dict[str, Any] = {"from": from_, "select": chosen, "map": pairs(map_)}
    body |= without_nothing(
        {"to": to, "cached_percent": cached_percent, "capacity": capacity, "reason": reason, "run": run}
    )
    body |= {name: True for name, given in (("provisional", provisional), ("commit", commit)) if given}
    if book is not None:
        body["book"] = {"file": ascii_name(book), "text": file_text(book)}
    with connect(data) as client:
        told = client.call("POST", "/reprice", body)
    if json:
        emit_json(told)
    else:
        _show(told, by)


def _show(told: dict[str, Any], by: str) -> None:
    if by in told.get("by", {}):
        table([by, *_SUMS], [[row[name] for name in (by, *_SUMS)] for row in told["by"][by]])
        emit("")
    table(_SUMS, [[told["total"][name] for name in _SUMS]])
    for why, count in told["as_booked"].items():
        say(f"{count} stay as they are booked: {_WHY.get(why, why)}")
    if "fixed" in told:
        fixed = told["fixed"]
        emit(f"{fixed['capacity']}: {fixed['commitment']} for the period, {fixed['cost_difference']} beside that")
    if told["committed"]:
        again = " before; nothing was booked now" if told.get("repeated") else ""
        say(f"booked as {told['run']}{again}")
    elif told["corrected"]:
        say("Nothing was booked; --commit --reason TEXT books the difference.")


_WHY = {
    "not_from_usage": "their cost was decided and does not follow from their usage",
    "no_price": "these prices do not cover what they used",
}
