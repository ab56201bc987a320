"""``/api/v1/limits/{id}/entries``: deposits, refunds and new amounts, each with who and why; the history of a limit.

A deposit and a refund add to the amount and never replace it; ``set`` replaces it. With a ``reference`` an entry is
made once, however often it is asked for.
"""

from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request, Response

from faregate.console import limit_entries
from faregate.console.describing import answers, lists, text
from faregate.console.limits import ID_CHARACTERS_MAX, LimitChange, amount_of, changed, named, within_largest
from faregate.console.paging import page_of, read_page
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.scoped_books import SET_ABOVE, may_change_limit
from faregate.console.shapes import limits as shapes
from faregate.console.state import Console
from faregate.console.texts import Amount, Body, Sentence, amount_text
from faregate.console.writing import acted, console_of, locked
from faregate.errors import Conflict, NotFound
from faregate.ports import Row

router = APIRouter(prefix="/limits", tags=["limits"])


class NewEntry(Body):
    """A deposit, a refund, or another amount."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"id", "limit", "unit", "before", "after", "actor", "actor_name", "request_id", "created_at"}
    )

    operation: Literal["deposit", "refund", "set"]
    #: As that of the limit: dollars as a decimal text, a whole number for the rest; ``null`` only to be set.
    amount: Amount | None
    reason: Sentence | None = None
    #: Asked for again with the same reference it is the same entry.
    reference: Sentence | None = None


def _total(row: Row, wanted: NewEntry, amount: int | None) -> int | None:
    """The amount that the limit has afterwards."""
    if wanted.operation == "set":
        return amount
    if row["amount"] is None:
        rule = f"this limit is unlimited, so that a {wanted.operation} cannot add to it; set an amount first"
        raise ApiProblem("conflict", rule, field="amount")
    if amount is None or amount <= 0:
        # Tokens come as numbers, which have a sign; a negative deposit would take away without a reason.
        raise ApiProblem("field_range", f"a {wanted.operation} is more than 0", field="amount")
    return within_largest(row["unit"], row["amount"] + amount)


def _same(known: Row, wanted: NewEntry, amount: int | None) -> Row:
    """The entry that this reference made before.

    Raises:
        ApiProblem: it was another one.
    """
    if (known["operation"], known["amount"], known["reason"]) != (wanted.operation, amount, wanted.reason or ""):
        rule = "this reference made an entry with another operation, amount or reason; use a new one for a new entry"
        raise ApiProblem("conflict", rule, field="reference")
    return known


def make(console: Console, limit_id: str, wanted: NewEntry) -> tuple[Row, bool]:
    """The entry that is asked for, and whether it was made now.

    Raises:
        NotFound: no such limit.
        Conflict: the limit is declared in the configuration file, or is a stop or brake.
        ApiProblem: an amount that cannot be, no reason, a reference that made another entry, or the limit was set from
            above.
    """
    row = named(console, limit_id)
    if not may_change_limit(console.principal.scope, row):
        raise ApiProblem("role_forbidden", SET_ABOVE)
    if wanted.operation != "deposit" and not wanted.reason:
        raise ApiProblem("field_missing", f"a {wanted.operation} needs its reason", field="reason")
    amount = amount_of(row["unit"], wanted.amount)
    known = limit_entries.found(console, limit_id, wanted.reference or "")
    if known is not None:
        return _same(known, wanted, amount), False
    if row["source"] == "file":
        raise Conflict("this limit is declared in the configuration file; change its amount there")
    if row["source"] in ("stop", "brake"):
        raise Conflict("this limit is a stop or a brake and has no balance; remove it to lift it")
    total = _total(row, wanted, amount)
    after = changed(console, row, LimitChange(amount=amount_text(row["unit"], total)))
    told = limit_entries.entry(
        console,
        row,
        after,
        wanted.operation,
        wanted.reason or "",
        amount=amount,
        reference=wanted.reference or "",
    )
    limit_entries.write(console, row, after, entries=[told])
    return told, True


@router.post("/{limit_id}/entries", status_code=201)
@needs("deposits.write")
@answers(shapes.Entry, also={200: shapes.Entry})
async def add_entry(request: Request, response: Response, limit_id: str, wanted: NewEntry) -> dict[str, Any]:
    """Deposit or refund something, which adds to the amount, or set another amount; a repeated `reference` is one."""
    console = console_of(request)
    row, made = await locked(console, lambda: make(console, limit_id, wanted))
    if not made:
        response.status_code = 200
    return await acted(console, limit_entries.shape(row))


@router.get("/{limit_id}/entries")
@needs("limits.read")
@lists(text("operation", "What was done, such as `deposit`."))
@answers(shapes.Entries)
async def list_entries(request: Request, limit_id: str) -> dict[str, Any]:
    """What changed the limit's amount or mode, newest first; also of a limit that is gone. Filter: `operation`."""
    console = console_of(request)
    page = read_page(request)

    def look() -> list[Row]:
        if len(limit_id) > ID_CHARACTERS_MAX:
            raise NotFound("there is no such limit")
        rows = console.books.newest(
            "limit_entry", before=page.after, limit=page.limit + 1, limit_id=limit_id, **page.filters
        )
        if not rows and not console.books.listing("limit_entry", limit_id=limit_id, limit=1):
            # Whoever asks for the entries of what never was is told so.
            named(console, limit_id)
        return rows

    return page_of(request, page, await in_thread(look), limit_entries.shape)
