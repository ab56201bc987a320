"""What is behind ``/api/Quota``: a quota is an ordinary limit on one key, with the name of the key's product beside it.

It owns how a quota is made, paid into and changed from dollars to tokens or back, and how its history reads. A quota
that never starts anew begins whole: what its key used before is added to its amount. Another unit or another renewal is
another limit that takes its place, in one transaction, with an entry for both.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from faregate.console import limit_entries
from faregate.console.allowances import LimitView, current_window
from faregate.console.azure_budget import stop_id, stop_of
from faregate.console.limits import LimitChange, canonical, changed, within_largest
from faregate.console.payers import ensure
from faregate.console.problems import ApiProblem
from faregate.console.state import Console
from faregate.console.texts import amount_text, or_none, time_text
from faregate.console.writing import put_together
from faregate.core import keys, money
from faregate.core.limits.kinds import COUNT_MAX, KINDS
from faregate.errors import Conflict, NotFound
from faregate.ports import Row

SOURCE: Final = "quota"
LIFETIME: Final = "lifetime"
#: How often a quota may start anew; as it was, never.
RENEWALS: Final = (LIFETIME, "day", "week", "month", "quarter", "year")

#: Rows of a history that one answer holds at most.
HISTORY_MAX: Final = 1_000
#: Limits that were the quota of a key before, whose entries its history still shows.
_EARLIER_MAX: Final = 16

#: What the history calls the operations of entries.
_OPERATIONS: Final = {
    "create": "Create",
    "deposit": "Deposit",
    "refund": "Refund",
    "set": "Set",
    "raise": "Raise",
    "mode": "Mode",
    "clear": "Close",
    "stop": "BudgetStop",
    "lift": "Lift",
}
_ENDED: Final = ("ok", "failed", "aborted", "cut")


class Wanted(NamedTuple):
    """A quota to be made, or to be paid into."""

    key: str
    product: str
    #: Dollars as a decimal text, or whole tokens.
    amount: str
    #: ``None`` leaves it as it is; a new quota is one in dollars.
    on_cost: bool | None = None
    renewal: str | None = None
    reference: str = ""


def caller_key(console: Console, text: str, field: str = "subscriptionKey") -> Row:
    """The row of the caller's key that a secret or an id names.

    Raises:
        NotFound: it names none.
    """
    if text.startswith(keys.PREFIX):
        row = console.ring.holder(text)
    else:
        row = console.books.get("key", text) if len(text) <= 64 else None
    if row is None or row["role"] != "caller":
        raise NotFound(f"{field} is no caller's key: send its secret or its id")
    return row


def quota_of(console: Console, key_id: str) -> Row | None:
    """The limit that is the quota of a key, if it has one."""
    names = [canonical({"key": key_id}, [], unit, window) for unit in ("usd", "tokens") for window in RENEWALS]
    rows = console.books.listing("limit", name=names, source=SOURCE, limit=1)
    return rows[0] if rows else None


def named(console: Console, key_id: str) -> tuple[Row, Row]:
    """The key of this id, and its quota.

    Raises:
        NotFound: there is no such key, or it has no quota.
    """
    key = caller_key(console, key_id, "keyId")
    row = quota_of(console, key["id"])
    if row is None:
        raise NotFound("this key has no quota")
    return key, row


# -- making and paying in ----------------------------------------------------------------------------------------------


def fund(console: Console, wanted: Wanted) -> None:
    """Make a quota, pay into it, or let one in another unit or of another renewal take its place.

    For threads that hold ``Console.changing``.

    Raises:
        NotFound: no such key.
        Conflict: the key was revoked, or has a limit of this kind that is no quota.
        ApiProblem: an amount that cannot be, another product than the key's, or a reference of another entry.
    """
    key = caller_key(console, wanted.key)
    if key["state"] == "revoked":
        raise Conflict("this key was revoked; use another one")
    before = quota_of(console, key["id"])
    if wanted.on_cost is None:
        unit = before["unit"] if before is not None else "usd"
    else:
        unit = "usd" if wanted.on_cost else "tokens"
    window = wanted.renewal or (before["window"] if before is not None else LIFETIME)
    if before is not None and _repeated(console, before, wanted, unit):
        return
    amount = _amount(unit, wanted.amount)
    key = _with_product(console, key, wanted.product)
    if before is not None and (before["unit"], before["window"]) == (unit, window):
        _deposit(console, key, before, wanted, amount)
    else:
        _open(console, key, before, wanted, unit, window, amount)


def _amount(unit: str, text: str) -> int:
    """Nano-dollars, or tokens.

    Raises:
        ApiProblem: it is no amount of the unit, or is negative.
    """
    if unit == "usd":
        try:
            return money.nanos(text)
        except ValueError as problem:
            raise ApiProblem("field_range", str(problem), field="amount") from problem
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= COUNT_MAX):
        raise ApiProblem("field_range", "an amount of tokens is a text of digits, such as 20000", field="amount")
    return int(text)


def _repeated(console: Console, before: Row, wanted: Wanted, unit: str) -> bool:
    """Whether this very request was carried out before, on the quota or on one whose place it took.

    Raises:
        ApiProblem: another one was, under the same reference.
    """
    ids = [before["id"], *(before["details"] or {}).get("earlier", [])]
    known = next(filter(None, (limit_entries.found(console, each, wanted.reference) for each in ids)), None)
    if known is None:
        return False
    # Who did not say which unit meant that of the quota then.
    paid_in = known["details"]["unit"]
    asked = paid_in if wanted.on_cost is None else unit
    if (known["amount"], paid_in) != (_amount(asked, wanted.amount), asked):
        raise ApiProblem("conflict", "this requestId paid another amount in; use a new one", field="requestId")
    return True


def _with_product(console: Console, key: Row, product: str) -> Row:
    """The key as one of this product; a key of no product joins it.

    Raises:
        ApiProblem: it is one of another product.
    """
    if key["product"] == product:
        return key
    if key["product"]:
        raise ApiProblem("conflict", "this key belongs to another product; name that one", field="productName")
    ensure(console, {"organization": key["organization"], "team": key["team"], "product": product})
    return {**key, "product": product, "updated_at": console.clock.wall_nanos()}


def _deposit(console: Console, key: Row, before: Row, wanted: Wanted, amount: int) -> None:
    """Add to a quota; nothing for an amount of zero but the product of its key."""
    rows = _key_rows(console, key)
    if before["amount"] is None:
        raise Conflict("this quota was made unlimited; set an amount with PATCH /api/v1/limits first")
    if amount:
        total = within_largest(before["unit"], before["amount"] + amount)
        after = changed(console, before, LimitChange(amount=amount_text(before["unit"], total)))
        told = {"balance": after["amount"] - _used(console, key["id"], before["unit"], before["window"])}
        entry = limit_entries.entry(
            console, before, after, "deposit", amount=amount, reference=wanted.reference, details=told
        )
        limit_entries.write(console, before, after, entries=[entry], also=rows)
    elif rows:
        put_together(console, rows)


def _open(console: Console, key: Row, before: Row | None, wanted: Wanted, unit: str, window: str, amount: int) -> None:
    """Make a new quota, in the place of one that the key had."""
    name = canonical({"key": key["id"]}, [], unit, window)
    taken = console.books.listing("limit", name=name, limit=1)
    if taken:
        raise Conflict(f"this key has such a limit already, which is no quota: {taken[0]['id']}; deposit to it instead")
    now = console.clock.wall_nanos()
    earlier = [before["id"], *(before["details"] or {}).get("earlier", [])][:_EARLIER_MAX] if before is not None else []
    blank: Row = {
        "id": console.new_id("lim_"),
        "name": name,
        "selector": {"key": key["id"]},
        "each": [],
        "unit": unit,
        "amount": 0,
        "window": window,
        "timezone": "UTC",
        "mode": "hard",
        "contact": "",
        "clamp": 0,
        "source": SOURCE,
        "terms": None,
        "details": {"product": wanted.product, "earlier": earlier},
        "created_at": now,
        "updated_at": now,
    }
    used = _used(console, key["id"], unit, window)
    begun = used if window == LIFETIME else 0
    blank["details"] |= {"used_before": begun}
    row = changed(console, blank, LimitChange(amount=amount_text(unit, within_largest(unit, amount + begun))))
    balance = amount + begun - used
    rows: list[tuple[str, Row]] = [*_key_rows(console, key), ("limit", row)]
    if before is not None:
        rest = (before["amount"] or 0) - _used(console, key["id"], before["unit"], before["window"])
        reason = f"{row['id']} takes its place, in {unit} over {window}"
        closed = limit_entries.entry(console, before, None, "clear", reason, amount=rest, details={"balance": rest})
        rows.append(("limit_entry", closed))
    made = limit_entries.entry(
        console, None, row, "create", amount=amount, reference=wanted.reference, details={"balance": balance}
    )
    rows.append(("limit_entry", made))
    put_together(console, rows, [("limit", before["id"])] if before is not None else [])


def _key_rows(console: Console, key: Row) -> list[tuple[str, Row]]:
    """The key's row where it is to be written: it joined a product."""
    known = console.books.get("key", key["id"])
    return [("key", key)] if known is not None and known["product"] != key["product"] else []


def _used(console: Console, key_id: str, unit: str, window: str) -> int:
    """What a key used in the window that runs, as far as it is booked."""
    row = {"window": window, "timezone": "UTC", "terms": None}
    since, _ = current_window(row, console.clock.wall_nanos())
    return sum(posted for _, posted in console.books.balances({"key": key_id}, (), unit, since))


# -- looking -----------------------------------------------------------------------------------------------------------


def stopped(console: Console, key: Row) -> Row | None:
    """The limit by which an alert from outside stops all calls of a key's product, if one does."""
    return stops(console, [key]).get(key["id"])


def stops(console: Console, keys_: Iterable[Row]) -> dict[str, Row]:
    """Key id → the limit that stops all calls of its product, of those keys that one stops."""
    of_product: dict[tuple[str, str], Row | None] = {}
    found: dict[str, Row] = {}
    for key in keys_:
        place = (key["organization"], key["product"])
        if place not in of_product:
            of_product[place] = _stop(console, *place)
        row = of_product[place]
        if row is not None:
            found[key["id"]] = row
    return found


def _stop(console: Console, organization: str, product: str) -> Row | None:
    if not product:
        return None
    products = console.books.listing("product", name=product, organization=organization, limit=1)
    row = stop_of(console, products[0]) if products else None
    return row if row is not None and row["amount"] == 0 else None


def balance_of(row: Row, standing: LimitView) -> int:
    """What is left of a quota; below zero where more was used than it had."""
    amount = standing.amount_now if standing.amount_now is not None else row["amount"]
    # The service knew no quota without an amount.
    return int(KINDS[row["unit"]].amount_max if amount is None else amount) - standing.posted


def _funding(row: Row) -> int:
    """What was paid into a quota in all; the largest amount where it is unlimited."""
    if row["amount"] is None:
        return KINDS[row["unit"]].amount_max
    return int(row["amount"] - (row["details"] or {}).get("used_before", 0))


def shape(row: Row, key: Row, standing: LimitView, stop: Row | None) -> dict[str, Any]:
    """A quota as the service showed it, with what it did not have behind that."""
    unit = row["unit"]
    shown: dict[str, Any] = {
        "SubscriptionKey": key["id"],
        "ProductName": product_of(row, key),
        "Amount": "0" if stop is not None else str(amount_text(unit, balance_of(row, standing))),
        "RateLimitOnCost": unit == "usd",
    }
    if row["window"] != LIFETIME:
        shown |= {"Renewal": row["window"], "RenewsAt": time_text(standing.resets_at)}
    if stop is not None:
        shown["StoppedBecause"] = (stop["terms"] or {}).get("reason", "")
    return shown


def product_of(row: Row, key: Row) -> str:
    """The name of the product that a quota is for."""
    return str(key["product"] or (row["details"] or {}).get("product", ""))


def overview(row: Row, key: Row, standing: LimitView, stop: Row | None, usage: Row | None) -> dict[str, Any]:
    """A quota in the list of all: its funding, with what was used and what is left."""
    told = shape(row, key, standing, stop)
    tokens = usage["input_tokens"] + usage["output_tokens"] if usage is not None else 0
    unit = row["unit"]
    cost = usage["charge"] if usage is not None else 0
    return {
        "subscriptionKey": key["id"],
        "RowKey": row["id"],
        "productName": told["ProductName"],
        "timestamp": time_text(row["created_at"]),
        "model": "",
        "tokenAmount": tokens,
        "promptTokens": usage["input_tokens"] if usage is not None else 0,
        "operation": "Create",
        "amount": str(amount_text(unit, _funding(row))),
        "transCost": money.dollars(cost) if unit == "usd" else str(tokens),
        "balance": told["Amount"],
        "RateLimitOnCost": told["RateLimitOnCost"],
    }


class Transaction(NamedTuple):
    """One row of a history: an entry or a call."""

    at: int
    row: Row
    is_call: bool


def transactions(console: Console, key: Row, row: Row, limit: int, until: int) -> list[Transaction]:
    """The newest entries and calls of a quota's key, newest first, at most ``limit`` of them; before ``until``."""
    ids = [row["id"], *(row["details"] or {}).get("earlier", [])]
    stop_ids = [
        stop_id(product)
        for product in console.books.listing(
            "product", name=product_of(row, key), organization=key["organization"], limit=1
        )
    ]
    entries = [
        Transaction(each["created_at"], each, is_call=False)
        for each in console.books.newest("limit_entry", limit_id=[*ids, *stop_ids], limit=HISTORY_MAX)
        if not until or each["created_at"] < until
    ]
    calls = [
        Transaction(each["created_at"], each, is_call=True)
        for each in console.books.requests(key=key["id"], status=list(_ENDED), limit=limit, until=until)
    ]
    return sorted([*calls, *entries], key=lambda each: each.at, reverse=True)[:limit]


def history(found: Sequence[Transaction], key: Row, row: Row, balance: int | None) -> list[dict[str, Any]]:
    """A history as the service showed it; ``balance`` is that after the newest row, ``None`` where it is not known.

    From there each balance follows from the row above it, and is told anew by the entries that know it.
    """
    shown = []
    unit, product = row["unit"], product_of(row, key)
    for each in found:
        details = each.row["details"] or {} if not each.is_call else {}
        told_unit = unit
        if not each.is_call and each.row["operation"] not in ("stop", "lift"):
            unit = told_unit = details.get("unit", unit)
            balance = details.get("balance", balance)
        shown.append(_line(each, key, product, told_unit, balance))
        balance = _balance_before(each, told_unit, balance)
    return shown


def _spent(row: Row, unit: str) -> int:
    """What a call took off a quota in this unit."""
    return int(row["charge"] if unit == "usd" else row["input_tokens"] + row["output_tokens"])


def _balance_before(each: Transaction, unit: str, balance: int | None) -> int | None:
    if balance is None:
        return None
    if each.is_call:
        return balance + _spent(each.row, unit)
    operation, before, after = each.row["operation"], (each.row["details"] or {}).get("before"), each.row["after"]
    if operation == "create":
        # What came before it was another quota, whose last entry tells its balance.
        return None
    if operation in ("stop", "lift", "clear", "raise", "mode"):
        return balance
    return None if before is None or after is None else balance - (after - before)


def _line(each: Transaction, key: Row, product: str, unit: str, balance: int | None) -> dict[str, Any]:
    row = each.row
    line: dict[str, Any] = {
        "subscriptionKey": key["id"],
        "RowKey": row["id"],
        "productName": product,
        "timestamp": time_text(each.at),
        "model": "",
        "tokenAmount": 0,
        "promptTokens": 0,
        "operation": "Update",
        "amount": "0",
        "transCost": "0",
        "balance": None if balance is None else str(amount_text(unit, balance)),
    }
    if each.is_call:
        line |= {
            "model": row["model"],
            "tokenAmount": row["input_tokens"] + row["output_tokens"],
            "promptTokens": row["input_tokens"],
            "transCost": str(amount_text(unit, _spent(row, unit))),
        }
    else:
        told = amount_text(unit, row["amount"])
        line |= {
            "operation": _OPERATIONS.get(row["operation"], row["operation"]),
            "amount": "0" if told is None or row["operation"] in ("stop", "lift") else str(told),
            "reason": or_none(row["reason"]),
            "actor": row["actor"],
        }
    return line
