"""``/api/v1/reprice`` and ``/adjustments``: a period at other prices, told or booked as a correction.

A correction never changes an entry: it is a run with an id, a reason and one line for each record it corrects, posted
as transfers of kind ``adjustment`` that add up to zero. Its digest stands in the trail of changes, which proves what no
journal tells. A run with the id of one that is booked answers with that one and books nothing.
"""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.capacities import capacity_named, month_parts
from faregate.console.compile import card_of
from faregate.console.describing import answers, lists
from faregate.console.paging import page_of, read_moment, read_page
from faregate.console.price_files import FORMATS, placed, read_file
from faregate.console.prices import compiled, row_of
from faregate.console.problems import ApiProblem
from faregate.console.reading import every, in_thread, made_places
from faregate.console.repricing import Cards, Line, Outcome, Question, priced_again
from faregate.console.requests import FILTERS
from faregate.console.rights import needs
from faregate.console.shapes import prices as shapes
from faregate.console.state import Check, Console
from faregate.console.texts import NANOS_PER_SECOND, Body, Moment, Sentence, second_text, time_text
from faregate.console.writing import console_of, locked, told_of
from faregate.control import Catalogue
from faregate.core import money
from faregate.core.attribution import TAG_PREFIX
from faregate.core.ledger.corrections import moves
from faregate.core.limits.kinds import is_dimension
from faregate.core.pricing.card import PROVISIONAL
from faregate.errors import NotFound
from faregate.ports import Row

logger = logging.getLogger(__name__)

router = APIRouter(tags=["corrections"])

#: The kind under which a run stands in the trail of changes.
TRAIL_KIND: Final = "adjustment"

LINES_SHOWN_MAX: Final = 1_000

#: How long after a look for provisional records the next one is due.
LOOK_AGAIN_NANOS: Final = 3_600 * NANOS_PER_SECOND
_PAGE: Final = 10_000
_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class BookFile(Body):
    """A price file to price by; what it does not name keeps its present price."""

    file: str = Field(min_length=1, max_length=256, pattern=r"^[ -~]+$")
    text: str
    format: str = Field(default="auto", max_length=16, json_schema_extra={"enum": list(FORMATS)})


class NewRepricing(Body):
    """A period, and how it is to be priced again."""

    since: Moment = Field(alias="from")
    #: Not included; now where it is left out.
    until: Moment | None = Field(default=None, alias="to")
    select: dict[str, str] = Field(default_factory=dict, max_length=16)
    book: BookFile | None = None
    #: Model as requested or as priced → the model, or ``provider/model``, to price it as.
    map: dict[str, str] = Field(default_factory=dict, max_length=100)
    #: Price as if so much of the text input had been read from the provider's cache.
    cached_percent: int | None = Field(default=None, ge=0, le=100)
    #: Price as if everything had been served by this fixed capacity.
    capacity: str = Field(default="", max_length=128)
    #: Only what was booked with provisional prices, by the prices that have arrived since.
    provisional: bool = False
    commit: bool = False
    reason: Sentence | None = None
    #: Id of the run, so that sending it again books nothing twice.
    run: str = Field(default="", max_length=64, json_schema_extra={"pattern": f"^({_RUN.pattern})?$"})


def _span(console: Console, wanted: NewRepricing) -> tuple[int, int]:
    # Up to this moment, with what was admitted in it.
    now = console.clock.wall_nanos() + 1
    since = max(0, read_moment("from", wanted.since))
    until = min(read_moment("to", wanted.until), now) if wanted.until is not None else now
    if until < since:
        raise ApiProblem("filter_invalid", "from lies after to, or in the future", field="from")
    return since, until


def _filters(wanted: NewRepricing) -> dict[str, Any]:
    for name in wanted.select:
        if not (is_dimension(name) or name == "operation"):
            raise ApiProblem("filter_invalid", "unknown dimension", field=f"select.{name[:32]}")
    return {
        name if name.startswith(TAG_PREFIX) else FILTERS.get(name, name): value for name, value in wanted.select.items()
    }


def _check(wanted: NewRepricing) -> None:
    if not wanted.commit:
        return
    if wanted.reason is None:
        raise ApiProblem("field_missing", "a correction says why it is made", field="reason")
    if wanted.cached_percent is not None or wanted.capacity:
        field = "capacity" if wanted.capacity else "cached_percent"
        raise ApiProblem("field_conflict", "what did not happen can be asked for, and not booked", field=field)
    if wanted.run and not _RUN.fullmatch(wanted.run):
        raise ApiProblem("field_range", "letters, digits, dots, dashes; at most 64 of them", field="run")


def _catalogue(console: Console, wanted: NewRepricing) -> Catalogue:
    """The prices as they are, with those of the book laid over them."""
    present = compiled(console)
    if wanted.book is None:
        return present
    file = read_file(console, wanted.book.text, wanted.book.file, wanted.book.format)
    now = console.clock.wall_nanos()
    over = []
    for number, each in enumerate(placed(present, file.entries, "")):
        row = row_of(each.place, "book", each.entry.pico, each.entry.per, each.entry.effective_from, wanted.book.file)
        ends = {"id": f"book_{number}", "effective_to": each.entry.effective_to, "created_at": now, "updated_at": now}
        over.append({**row, **ends})
    projects = [str(row["name"]) for row in every(console.books, "project")]
    return console.compile_catalogue([*every(console.books, "price"), *over], projects, made_places(console.all_books))


def _question_digest(wanted: NewRepricing) -> str:
    told = wanted.model_dump(exclude={"run", "commit"})
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def repriced(console: Console, wanted: NewRepricing) -> dict[str, Any]:
    """Price a period again, and book the difference where that is wanted.

    Raises:
        ApiProblem: the question cannot be answered, or its run id is that of another one.
    """
    _check(wanted)
    digest = _question_digest(wanted)
    if wanted.commit and wanted.run:
        booked = console.books.adjustment(wanted.run)
        if booked is not None:
            return _again(console, booked, digest)
    since, until = _span(console, wanted)
    filters = _filters(wanted)
    if wanted.provisional:
        filters["price_version"] = console.books.rate_card_versions(PROVISIONAL)
    fixed = month_parts(capacity_named(console, wanted.capacity), since, until) if wanted.capacity else None
    asked = Question(
        since, until, filters, wanted.map, wanted.cached_percent, wanted.provisional, fixed=fixed is not None
    )
    outcome = priced_again(console, asked, _catalogue(console, wanted))
    told: dict[str, Any] = {
        "from": time_text(since),
        "to": second_text(until),
        "committed": False,
        "run": None,
        **outcome.shape(),
        "moves": _shown_moves(outcome),
    }
    if fixed is not None:
        total = outcome.total.new_cost + fixed
        told["fixed"] = {
            "capacity": wanted.capacity,
            "commitment": money.dollars(fixed),
            "cost_difference": money.dollars(total - outcome.total.booked_cost),
        }
    if wanted.commit:
        assert wanted.reason is not None
        run = wanted.run or console.new_id("rpr_")
        kind = "true_up" if wanted.provisional else "reprice"
        row = book(console, run, kind, wanted.reason, digest, (since, until), outcome)
        told |= {"committed": True, "run": run, "digest": row["digest"]}
    return told


def _again(console: Console, row: Row, digest: str) -> dict[str, Any]:
    if row["question"] != digest:
        raise ApiProblem("conflict", f"the run {row['id']} was another question; take another id", field="run")
    return {**(row["details"] or {}).get("told", {}), **_run_shape(row), "committed": True, "repeated": True}


def _shown_moves(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {"debited": debited, "credited": credited, "amount": money.dollars(amount)}
        for debited, credited, amount in moves(line.correction for line in outcome.lines)[:LINES_SHOWN_MAX]
    ]


def book(
    console: Console, run: str, kind: str, reason: str, question: str, span: tuple[int, int], outcome: Outcome
) -> Row:
    """Book what an outcome would correct, as one run; its row.

    Raises:
        ApiProblem: a run of that id was booked meanwhile.
        StorageFull: the trail cannot be written, and nothing was booked.
    """
    lines = sorted(outcome.lines, key=_by_id)
    now = console.clock.wall_nanos()
    row: Row = {
        "id": run,
        "kind": kind,
        "reason": reason,
        "question": question,
        "since": span[0],
        "until": span[1],
        "at": now,
        "requests": len(lines),
        "cost": sum(line.correction.cost for line in lines),
        "charge": sum(line.correction.charge for line in lines),
        "digest": digest_of(
            (line.request_id, line.correction.cost, line.correction.charge, line.price_version) for line in lines
        ),
        "details": {"told": {"total": outcome.total.shape(), "as_booked": dict(outcome.left)}},
    }
    stored = [
        {
            "request_id": line.request_id,
            "run": run,
            "cost": line.correction.cost,
            "charge": line.correction.charge,
            "price_version": line.price_version,
        }
        for line in lines
    ]
    with told_of(console, [(TRAIL_KIND, run, None, row)]) as told:
        if not console.books.adjust(row, stored, moves(line.correction for line in lines), told=told):
            raise ApiProblem("conflict", f"the run {run} was booked meanwhile", field="run")
    return row


def _by_id(line: Line) -> str:
    return line.request_id


def digest_of(lines: Any) -> str:
    """The digest of ``(request id, cost, charge, price version)`` in the order of the ids."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update((" ".join(str(part) for part in line) + "\n").encode())
    return digest.hexdigest()


def arrived(console: Console) -> list[str]:
    """The provisional price versions for whose models a price is known by now."""
    versions = console.books.rate_card_versions(PROVISIONAL)
    if not versions:
        return []
    cards = Cards(compiled(console))
    found = []
    for version in versions:
        kept = console.books.rate_card(version)
        card = card_of(kept) if kept is not None else None
        if card is not None and cards.at((card.provider, card.model), card, 0, provisional=True) is not None:
            found.append(version)
    return found


def true_up(console: Console, versions: Sequence[str]) -> int:
    """Correct what was booked with provisional prices, as far as others have arrived; how many records it corrected.

    The caller holds ``console.changing``.
    """
    now = console.clock.wall_nanos()
    asked = Question(0, now + 1, {"price_version": list(versions)}, {}, provisional=True)
    outcome = priced_again(console, asked, compiled(console))
    if outcome.lines:
        models = sorted({version.partition("#")[0].partition("@")[0] for version in outcome.versions})
        reason = f"prices arrived for {', '.join(models)}"
        book(console, console.new_id("rpr_"), "true_up", reason[:256], "", (0, now), outcome)
    return len(outcome.lines)


class TrueUp:
    """The chore that trues up what was booked with provisional prices; ``run`` is to be called about once a minute."""

    def __init__(self, console: Console) -> None:
        self._console = console
        #: Version → when its records were last looked through. A call that runs long is booked late, so that one look
        #: is not enough; but a look goes through many records.
        self._looked: dict[str, int] = {}

    async def run(self) -> None:
        """Look for prices that have arrived, and correct what was booked without them."""
        await locked(self._console, self._step)

    def _step(self) -> None:
        now = self._console.clock.monotonic_nanos()
        due = [
            version
            for version in arrived(self._console)
            if version not in self._looked or now - self._looked[version] >= LOOK_AGAIN_NANOS
        ]
        if not due:
            return
        corrected = true_up(self._console, due)
        self._looked |= dict.fromkeys(due, now)
        if corrected:
            logger.info("provisional_prices_trued_up", extra={"records": corrected})


# -- looking -----------------------------------------------------------------------------------------------------------


def _run_shape(row: Row) -> dict[str, Any]:
    return {
        "run": row["id"],
        "kind": row["kind"],
        "reason": row["reason"],
        "from": time_text(row["since"]),
        "to": second_text(row["until"]),
        "at": time_text(row["at"]),
        "corrected": row["requests"],
        "cost_difference": money.dollars(row["cost"]),
        "charge_difference": money.dollars(row["charge"]),
        "digest": row["digest"],
    }


def check(console: Console) -> Check:
    """Whether every run's transfers and lines agree, and both are those that the trail of changes tells of."""
    moved = console.books.adjusted_runs()
    told = console.audit.told_of(TRAIL_KIND)
    wrong, count, after = [], 0, ""
    while rows := console.books.adjustments(after=after, limit=1_000):
        after = rows[-1]["id"]
        for row in rows:
            count += 1
            fault = _fault(console, row, moved.pop(row["id"], (0, 0)), told.get(row["id"]))
            if fault:
                wrong.append(f"{row['id']} {fault}")
    wrong += [f"{run} has transfers and no record" for run in moved]
    detail = "; ".join(wrong[:5]) or f"{count} runs of corrections equal the trail of changes"
    return Check("adjustments", not wrong, detail)


def _fault(console: Console, row: Row, moved: tuple[int, int], told: Row | None) -> str:
    if told is None or any(told.get(name) != row[name] for name in ("digest", "cost", "charge", "requests")):
        return "is not what the trail of changes tells"
    if moved != (row["charge"], row["cost"]):
        return "moved another sum than it corrected"
    cost = charge = 0
    digest = hashlib.sha256()
    after = ""
    while lines := console.books.adjustment_lines(row["id"], after=after, limit=_PAGE):
        after = lines[-1]["request_id"]
        for line in lines:
            parts = line["request_id"], line["cost"], line["charge"], line["price_version"]
            digest.update((" ".join(str(part) for part in parts) + "\n").encode())
            cost, charge = cost + line["cost"], charge + line["charge"]
    return "" if (cost, charge, digest.hexdigest()) == (row["cost"], row["charge"], row["digest"]) else "was altered"


@router.post("/reprice")
@needs("corrections.write")
@answers(shapes.Repricing, refusals=(404,))
async def reprice_period(request: Request, wanted: NewRepricing) -> dict[str, Any]:
    """Price a period again from stored usage; with ``commit`` and a ``reason`` book the difference as a correction."""
    console = console_of(request)
    if wanted.commit:
        return await locked(console, lambda: repriced(console, wanted))
    return await in_thread(lambda: repriced(console, wanted))


@router.get("/adjustments")
@needs("corrections.read")
@lists()
@answers(shapes.Adjustments)
async def list_adjustments(request: Request) -> dict[str, Any]:
    """Runs that corrected what was booked, newest first."""
    console = console_of(request)
    page = read_page(request)
    rows = await in_thread(lambda: console.books.adjustments(after=page.after, limit=page.limit + 1))
    return page_of(request, page, rows, _run_shape)


@router.get("/adjustments/{run}")
@needs("corrections.read")
@answers(shapes.AdjustmentDetail)
async def read_adjustment(request: Request, run: str) -> dict[str, Any]:
    """One run with its lines, as far as an answer shows them."""
    console = console_of(request)

    def look() -> dict[str, Any]:
        row = console.books.adjustment(run) if len(run) <= 64 else None
        if row is None:
            raise NotFound("there is no such run")
        lines = console.books.adjustment_lines(run, limit=LINES_SHOWN_MAX)
        shown = [
            {
                "request": line["request_id"],
                "cost_difference": money.dollars(line["cost"]),
                "charge_difference": money.dollars(line["charge"]),
                "price_version": line["price_version"],
            }
            for line in lines
        ]
        return {**_run_shape(row), "lines": shown}

    return await in_thread(look)
