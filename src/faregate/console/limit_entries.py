"""What changed a limit's amount or mode, as entries that are never changed: by whom, why, by how much, to what.

Whoever writes or removes a limit does it here, so that the limit and its entries are one transaction: an amount
without its reason cannot be, nor a deposit that is told twice. What amounts may be is decided elsewhere.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from faregate.console.audit import Author, author
from faregate.console.limit_terms import with_history
from faregate.console.state import Console
from faregate.console.texts import amount_text, or_none, time_text
from faregate.console.writing import put_together
from faregate.ports import Row

#: The id of an entry begins with it.
PREFIX = "ent_"


def entry(
    console: Console,
    before: Row | None,
    after: Row | None,
    operation: str,
    reason: str = "",
    *,
    amount: int | None = None,
    reference: str = "",
    details: dict[str, Any] | None = None,
) -> Row:
    """A new entry about a limit that was ``before`` and is ``after``, of which one may be missing; it is not written.

    ``amount`` is what was added or set, in the unit of the limit: nano-dollars for ``usd``.
    """
    row = after or before
    assert row is not None
    who = author.get(Author())
    key = console.books.get("key", who.actor) if who.actor.startswith("key_") else None
    told: dict[str, Any] = {"unit": row["unit"], "request_id": who.request_id}
    if key is not None:
        told["actor_name"] = key["name"]
    if before is not None:
        told["before"] = before["amount"]
    now = console.clock.wall_nanos()
    return {
        "id": console.new_id(PREFIX),
        "limit_id": row["id"],
        "operation": operation,
        "amount": amount,
        "after": None if after is None else after["amount"],
        "actor": who.actor,
        "reason": reason,
        "reference": reference,
        "details": {**told, **(details or {})},
        "created_at": now,
        "updated_at": now,
    }


def entries_of(console: Console, before: Row | None, after: Row, reason: str = "") -> Iterator[Row]:
    """What is to be told of a limit that was ``before``, ``None`` where it is new: its amount, mode and raises."""
    if before is None:
        yield entry(console, None, after, "create", reason, amount=after["amount"])
        return
    if before["amount"] != after["amount"]:
        yield entry(console, before, after, "set", reason, amount=after["amount"])
    if before["mode"] != after["mode"]:
        modes = {"from": before["mode"], "to": after["mode"]}
        yield entry(console, before, after, "mode", reason, amount=after["amount"], details=modes)
    known = (before.get("terms") or {}).get("raises", [])
    for raised in (after.get("terms") or {}).get("raises", []):
        if raised not in known:
            span = {"since": raised["since"], "until": raised["until"]}
            yield entry(console, before, after, "raise", reason, amount=raised["amount"], details=span)


def write(
    console: Console,
    before: Row | None,
    after: Row,
    reason: str = "",
    entries: Sequence[Row] = (),
    also: Sequence[tuple[str, Row]] = (),
) -> None:
    """Write a limit with its ``entries``, or with those that follow from what changed, and what ``also`` changes.

    Raises:
        StorageFull: the trail of changes cannot be written, and nothing was changed.
    """
    told = entries or tuple(entries_of(console, before, after, reason))
    after = with_history(before, after, console.clock.wall_nanos())
    put_together(console, [*also, ("limit", after), *(("limit_entry", each) for each in told)])


def remove(console: Console, row: Row, reason: str = "") -> None:
    """Remove a limit; an entry tells who lifted the stop or brake, or cleared the limit.

    Raises:
        StorageFull: the trail of changes cannot be written, and nothing was changed.
    """
    operation = "lift" if row["source"] in ("stop", "brake") else "clear"
    told = entry(console, row, None, operation, reason, amount=row["amount"])
    put_together(console, [("limit_entry", told)], [("limit", row["id"])])


def found(console: Console, limit_id: str, reference: str) -> Row | None:
    """The entry of a limit that a reference made, if it made one."""
    rows = console.books.listing("limit_entry", limit_id=limit_id, reference=reference, limit=1) if reference else []
    return rows[0] if rows else None


def shape(row: Row) -> dict[str, Any]:
    """An entry as the API shows it; amounts as those of its limit."""
    details = row["details"] or {}
    unit = details.get("unit", "usd")
    shown: dict[str, Any] = {
        "id": row["id"],
        "limit": row["limit_id"],
        "operation": row["operation"],
        "unit": unit,
        "amount": amount_text(unit, row["amount"]),
        "before": amount_text(unit, details.get("before")),
        "after": amount_text(unit, row["after"]),
        "actor": row["actor"],
        "actor_name": details.get("actor_name"),
        "reason": or_none(row["reason"]),
        "reference": or_none(row["reference"]),
        "request_id": or_none(details.get("request_id", "")),
        "created_at": time_text(row["created_at"]),
    }
    if row["operation"] == "mode":
        shown |= {"from": details.get("from"), "to": details.get("to")}
    if row["operation"] == "raise":
        shown |= {"since": time_text(details.get("since")), "until": time_text(details.get("until"))}
    return shown
