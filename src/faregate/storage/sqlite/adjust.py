"""Corrections of what was booked: one run is one transaction of transfers and lines, and is never booked twice.

Entries that stand are not touched. What a correction is, and by how much, is decided elsewhere.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, case, func, insert, literal_column, select, union_all
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from faregate.ports import Row
from faregate.storage.schema import accounts, adjustment_lines, adjustments, rate_cards, transfers

#: The kind of transfers that correct, in the SQL itself so that it is not a parameter.
IS_ADJUSTMENT = transfers.c.kind == literal_column("'adjustment'")

_ROWS = 1_000


def book(connection: Connection, run: Row, lines: Sequence[Row], moved: Sequence[tuple[str, str, int]]) -> bool:
    """Book a run with its lines and ``(debited, credited, amount)``; false where a run of its id is booked already."""
    known = connection.execute(select(adjustments.c.id).where(adjustments.c.id == run["id"])).first()
    if known is not None:
        return False
    connection.execute(insert(adjustments), [run])
    for start in range(0, len(lines), _ROWS):
        connection.execute(insert(adjustment_lines), list(lines[start : start + _ROWS]))
    for debited, credited, amount in moved:
        both = {"debit": _account(connection, debited), "credit": _account(connection, credited)}
        row = {"request_id": run["id"], "kind": "adjustment", "amount": amount, "at": run["at"], **both}
        connection.execute(insert(transfers), [row])
    return True


def _account(connection: Connection, name: str) -> int:
    connection.execute(sqlite_insert(accounts).values(name=name).on_conflict_do_nothing())
    return int(connection.execute(select(accounts.c.id).where(accounts.c.name == name)).scalar_one())


def runs(after: str, limit: int) -> Select[Any]:
    """Runs in the order of their ids, newest first."""
    statement = select(adjustments).where(adjustments.c.id < after) if after else select(adjustments)
    return statement.order_by(adjustments.c.id.desc()).limit(limit)


def run(id: str) -> Select[Any]:
    """One run."""
    return select(adjustments).where(adjustments.c.id == id)


def lines_of(run_id: str, after: str, limit: int) -> Select[Any]:
    """Lines of a run in the order of their request ids."""
    statement = select(adjustment_lines).where(adjustment_lines.c.run == run_id)
    if after:
        statement = statement.where(adjustment_lines.c.request_id > after)
    return statement.order_by(adjustment_lines.c.request_id).limit(limit)


def lines_about(ids: Iterable[str]) -> Select[Any]:
    """All lines about some records, in the order in which the runs were booked."""
    statement = select(adjustment_lines, adjustments.c.reason, adjustments.c.kind, adjustments.c.at)
    statement = statement.join(adjustments, adjustments.c.id == adjustment_lines.c.run)
    chosen = adjustment_lines.c.request_id.in_(list(ids))
    return statement.where(chosen).order_by(adjustments.c.at, adjustments.c.id)


def moved_by_account() -> Select[Any]:
    """Account → the sum of what corrections moved."""
    halves = union_all(
        select(transfers.c.debit.label("account"), transfers.c.amount.label("amount")).where(IS_ADJUSTMENT),
        select(transfers.c.credit.label("account"), (-transfers.c.amount).label("amount")).where(IS_ADJUSTMENT),
    ).subquery()
    statement = select(accounts.c.name, func.sum(halves.c.amount)).join(accounts, accounts.c.id == halves.c.account)
    return statement.group_by(accounts.c.name)


def moved_by_run() -> Select[Any]:
    """Run → what its transfers debited payers, and what they credited providers."""
    debited, credited = accounts.alias(), accounts.alias()
    payer = debited.c.name.startswith("payer:", autoescape=True)
    provider = credited.c.name.startswith("provider:", autoescape=True)
    statement = select(
        transfers.c.request_id,
        func.sum(case((payer, transfers.c.amount), else_=0)),
        func.sum(case((provider, transfers.c.amount), else_=0)),
    )
    statement = statement.join(debited, debited.c.id == transfers.c.debit)
    statement = statement.join(credited, credited.c.id == transfers.c.credit)
    return statement.where(IS_ADJUSTMENT).group_by(transfers.c.request_id)


def versions(containing: str) -> Select[Any]:
    """Price versions whose name contains a text."""
    found = rate_cards.c.version.contains(containing, autoescape=True)
    return select(rate_cards.c.version).where(found).order_by(rate_cards.c.version)
