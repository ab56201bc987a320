"""``faregate limit deposit|refund|history``: what is paid into a limit, and what changed its amount."""

from typing import Annotated, Any, Final

import typer

from faregate.cli.client import AdminClient, Where, connect, segment
from faregate.cli.limit_names import Each, LimitId, Select, Unit, Window, limit_row, refuse_vague
from faregate.cli.output import Json, emit_json, say, table
from faregate.cli.words import amount as read_amount
from faregate.cli.words import without_nothing
from faregate.errors import UsageError

Reference = Annotated[
    str | None, typer.Option(help="Such as an invoice's number: with the same one it is carried out once.")
]

#: Entries that a person looks at; scripts get all of them.
_SHOWN: Final = 50
_COLUMNS: Final = ("created_at", "operation", "amount", "before", "after", "actor", "reason")


def deposit(
    amount: Annotated[str, typer.Option(help="Dollars such as 5.00, or a whole number; added to the amount.")],
    limit: LimitId = None,
    select: Select = None,
    each: Each = None,
    unit: Unit = None,
    window: Window = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    reference: Reference = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Add to the amount of a limit."""
    with connect(data) as client:
        row = limit_row(client, limit, select, each, unit, window)
        _add(client, "deposit", row, amount, {"reason": reason, "reference": reference}, json=json)


def refund(
    amount: Annotated[str, typer.Option(help="Dollars such as 5.00, or a whole number; added to the amount.")],
    reason: Annotated[str, typer.Option(help="Why, for the history.")],
    limit: LimitId = None,
    select: Select = None,
    each: Each = None,
    unit: Unit = None,
    window: Window = None,
    reference: Reference = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """Give something back: added to the amount as a deposit is, and told apart from one."""
    with connect(data) as client:
        row = limit_row(client, limit, select, each, unit, window)
        _add(client, "refund", row, amount, {"reason": reason, "reference": reference}, json=json)


def _add(
    client: AdminClient, operation: str, limit: dict[str, Any], amount: str, why: dict[str, object], *, json: bool
) -> None:
    if amount == "unlimited":
        rule = f"--amount: a {operation} is an amount; `faregate limit set` makes a limit unlimited"
        raise UsageError(rule, code="value")
    body: dict[str, object] = {"operation": operation, "amount": read_amount(limit["unit"], amount)}
    row = client.call("POST", f"/limits/{segment(limit['id'])}/entries", {**body, **without_nothing(why)})
    if json:
        emit_json({name: value for name, value in row.items() if name != "applied"})
    else:
        _table([row])
    if row.get("applied") is False:
        say("The gateway has not taken it up yet; it will as soon as it answers.")


def history(
    limit: LimitId = None,
    select: Select = None,
    each: Each = None,
    unit: Unit = None,
    window: Window = None,
    data: Where = None,
    json: Json = False,
) -> None:
    """What changed a limit's amount or mode, newest first, by whom and why; by its id also of one that is gone."""
    with connect(data) as client:
        refuse_vague(limit, select, each, unit, window)
        id = limit if limit is not None else limit_row(client, limit, select, each, unit, window)["id"]
        path = f"/limits/{segment(id)}/entries"
        if json:
            emit_json(list(client.pages(path)))
            return
        page = client.call("GET", path, query={"limit": str(_SHOWN)})
    _table(page["data"])
    if page["next_cursor"] is not None:
        say(f"These are the newest {_SHOWN}; --json has all.")


def _table(rows: list[dict[str, Any]]) -> None:
    table(_COLUMNS, [[_cell(name, row) for name in _COLUMNS] for row in rows])


def _cell(name: str, row: dict[str, Any]) -> Any:
    if name == "actor":
        return row["actor_name"] or row["actor"]
    if name == "amount" and row["operation"] == "mode":
        return f"{row['from']} → {row['to']}"
    if row[name] is None and (name == "after" or (name == "amount" and row["operation"] in ("set", "create"))):
        return "-" if row["operation"] in ("clear", "lift") else "unlimited"
    return row[name]


def add_to(app: typer.Typer) -> None:
    """Put these commands beside the others of ``faregate limit``."""
    for command in (deposit, refund, history):
        app.command(command.__name__)(command)
