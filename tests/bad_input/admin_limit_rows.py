"""Bad inputs about limits (A18 to A37), and about deposits and what else changes an amount (A57 to A63)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bad_input.admin_row import API, CANARY, Row

LIMITS = f"{API}/limits"

#: One nano-dollar more than the largest amount.
TOO_MUCH = "1000000000.000000001"
COUNT_TOO_MUCH = 10**15 + 1


def new_limit(row: str, code: str, field: str, has: str, **body: Any) -> Row:
    """A limit that cannot be set; ``body`` is what it has otherwise than ten dollars a month of a team."""
    usual = {"select": {"team": "research"}, "unit": "usd", "amount": "10", "window": "month"}
    return Row(row, "POST", LIMITS, {**usual, **body}, 422, code, field, has)


def taken(row: str, shows: dict[str, Any], **body: Any) -> Row:
    """A limit that is set, of a team of its own."""
    usual = {"select": {"team": row.replace(" ", "-")}, "unit": "usd", "amount": "10", "window": "month"}
    return Row(row, "POST", LIMITS, {**usual, **body}, 201, shows=shows)


def rate(row: str, code: str, has: str, **body: Any) -> Row:
    """A limit of requests per minute that cannot be set."""
    return new_limit(row, code, "amount", has, **{"unit": "requests", "window": "minute", **body})


def _raw(row: str, number: str, code: str, field: str, has: str, *, status: int = 422) -> Row:
    """A limit whose amount is written as JSON can write it and nobody should."""
    body = f'{{"unit": "usd", "window": "month", "amount": {number}}}'.encode()
    return Row(row, "POST", LIMITS, body, status, code, field, has)


def _amounts() -> Iterator[Row]:
    yield new_limit("A18", "field_range", "amount", "the smallest amount is 0", amount="-1")
    yield Row("A18 patch", "PATCH", f"{LIMITS}/{{dollars}}", {"amount": "-1"}, 422, "field_range", "amount", "negative")
    yield taken("A19", {"amount": "0", "remaining": "0"}, amount="0")
    yield new_limit("A20", "field_range", "amount", "more than 9 decimals", amount="1.0050000001")
    yield new_limit("A21", "field_type", "amount", "is a whole number", unit="tokens", amount="10")
    yield new_limit("A21 dollars", "field_type", "amount", "a decimal text", amount=10)
    yield new_limit("A22", "field_range", "amount", "at most", amount="1" + "0" * 30)
    yield new_limit("A22 dollars", "field_range", "amount", "more than 1000000000 dollars", amount=TOO_MUCH)
    yield new_limit("A22 tokens", "field_range", "amount", str(10**15), unit="tokens", amount=10**30)
    yield new_limit("A22 exponent", "field_range", "amount", "plain decimal digits", amount="1e30")
    yield _raw("A22 number", "1e30", "field_type", "amount", "")
    yield _raw("A23", "NaN", "json_invalid", "", "not valid JSON", status=400)
    yield _raw("A23 infinite", "-Infinity", "json_invalid", "", "not valid JSON", status=400)
    yield new_limit("A24 lower", "field_enum", "unit", "expected one of usd", unit="eur")
    yield new_limit("A24 none", "field_enum", "unit", "expected one of usd", unit="XXX")
    yield Row("A24 missing", "POST", LIMITS, {"amount": "1"}, 422, "field_missing", "unit", "required")
    yield new_limit("A24 field", "field_unknown", "currency", "unknown field", currency="usd")
    yield taken("A25", {"amount": "0.1"}, amount="0.10")
    yield _raw("A25 number", "0.1", "field_type", "amount", "")


def _windows() -> Iterator[Row]:
    yield new_limit("A26", "field_enum", "year_start", "at most the 28th", window="year", year_start="01-31")
    yield new_limit("A26 day", "field_unknown", "reset_day", "unknown field", reset_day=31)
    for window in ("0d", "-1d", "P1Y", "1 fortnight", "rolling 0d", "rolling -1d", "rolling 367d", CANARY):
        yield new_limit(f"A27 {window}", "field_enum", "window", "expected one of second", window=window)
    yield new_limit("A27 none", "field_missing", "window", "expected one of second", window=None)
    yield new_limit("A28", "field_enum", "timezone", "Europe/Berlin", timezone="Mars/Base")
    yield new_limit("A37", "field_enum", "window", "rolling 24h", window="61m")


def _standing() -> Iterator[Row]:
    """Limits beside others, and those that something counts towards already."""
    yield taken("A29", {"amount": "1000"}, select={"organization": "default", "team": "research"}, amount="1000")
    less = {"amount": "0.001", "posted": "0.00175", "remaining": "0"}
    yield Row("A30", "PATCH", f"{LIMITS}/{{spent}}", {"amount": "0.001"}, 200, shows=less)
    yield Row("A31", "DELETE", f"{LIMITS}/{{held}}", None, 200, shows={"deleted": True})


def _rates() -> Iterator[Row]:
    yield taken("A32", {"amount": 0, "remaining": 0}, unit="requests", window="minute", amount=0)
    yield rate("A33", "field_type", "", amount=1.5)
    yield rate("A33 true", "field_type", "", amount=True)
    yield rate("A34", "field_range", "null for unlimited", amount=-5)
    raised, until = f"{LIMITS}/{{tokens}}/raises", "2026-12-01T00:00:00Z"
    less, has = {"amount": -5, "until": until}, "one that the limit may have"
    yield Row("A34 raise", "POST", raised, less, 422, "field_range", "raises", has)
    carried = {"unit": "tokens", "amount": 10, "carry_over": -5}
    yield new_limit("A34 carried", "field_range", "carry_over", "a positive amount", **carried)
    yield rate("A35", "field_range", str(10**15), unit="tokens", amount=COUNT_TOO_MUCH)
    smooth = {"unit": "requests", "window": "minute", "algorithm": "smooth", "amount": 10}
    yield new_limit("A36", "field_conflict", "burst", "1 to the amount", **smooth, burst=11)
    yield new_limit(
        "A36 strict", "field_conflict", "burst", "only a smooth limit", **{**smooth, "algorithm": None}, burst=5
    )


def entry(row: str, code: str, field: str, has: str, *, status: int = 422, limit: str = "dollars", **body: Any) -> Row:
    """An entry that cannot be made in a limit of ten dollars, or of ``tokens``."""
    path = f"{LIMITS}/{{{limit}}}/entries"
    return Row(row, "POST", path, {"operation": "deposit", **body}, status, code, field, has)


def again(
    row: str, amount: str, status: int, code: str = "", field: str = "", has: str = "", *, named: str = ""
) -> Row:
    """A deposit of five dollars that is sent again: by its ``Idempotency-Key`` where one is ``named``."""
    fields = {"operation": "deposit"} if named else {"operation": "deposit", "reference": row}
    headers = {"idempotency-key": named} if named else {}
    shows = {"amount": amount} if status < 300 else {}
    path, first = f"{LIMITS}/{{paid}}/entries", {**fields, "amount": "5"}
    return Row(
        row, "POST", path, {**fields, "amount": amount}, status, code, field, has, "admin", headers, first, shows
    )


def _entries() -> Iterator[Row]:
    for operation in ("refund", "set"):
        yield entry(f"A57 {operation}", "field_missing", "reason", "needs its reason", operation=operation, amount="1")
    yield entry("A58", "field_range", "amount", "more than 0", amount="0")
    yield entry("A58 tokens", "field_range", "amount", "more than 0", limit="tokens", amount=0)
    yield again("A59", "5", 200)
    yield again("A59 named", "5", 201, named="order-59")
    yield again("A60", "6", 409, "conflict", "reference", "another operation, amount or reason")
    yield again("A60 named", "6", 409, "idem_conflict", "", "was used with another request", named="order-60")
    yield entry("A61", "field_range", "amount", "negative", amount="-5")
    yield entry("A61 set", "field_range", "amount", "negative", operation="set", amount="-5", reason="a mistake")
    yield entry("A61 tokens", "field_range", "amount", "more than 0", limit="tokens", amount=-5)
    refund: dict[str, Any] = {"operation": "refund", "amount": -5, "reason": "a mistake"}
    yield entry("A61 refund", "field_range", "amount", "more than 0", limit="tokens", **refund)
    yield entry("A62", "field_type", "amount", "a whole number", limit="tokens", amount="5")
    yield entry("A62 number", "field_type", "amount", "a decimal text", amount=5)
    yield entry("A62 currency", "field_unknown", "currency", "unknown field", amount="5", currency="EUR")
    yield entry("A62 unit", "field_forbidden", "unit", "is set by Faregate", amount="5", unit="eur")
    yield entry("A63", "field_range", "amount", "more than 1000000000 dollars", amount=TOO_MUCH)
    yield entry("A63 sum", "field_range", "amount", "the largest amount", amount="1000000000")
    yield entry("A63 tokens", "field_range", "amount", "the largest amount", limit="tokens", amount=COUNT_TOO_MUCH)


ROWS = (*_amounts(), *_windows(), *_standing(), *_rates(), *_entries())
