"""``/api/v1/prices/import`` and ``/sync``: price lists taken in whole, with what they change told first.

An imported price lies above the bundled one and below every price that was set by hand. A file is taken in by one
transaction or not at all; taking the same one in again changes nothing. Nothing that is booked changes.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.describing import answers
from faregate.console.prices import (
    OUTLIER,
    PAST_NANOS_MAX,
    Place,
    compiled,
    holds,
    is_outlier,
    layer_of,
    place_of,
    rates_at,
    row_of,
)
from faregate.console.problems import ApiProblem
from faregate.console.reading import every, made_places
from faregate.console.rights import needs
from faregate.console.shapes import prices as shapes
from faregate.console.state import Console, PriceBook
from faregate.console.texts import Body, or_none, time_text
from faregate.console.writing import acted, console_of, locked, put_all, told_of
from faregate.control import Catalogue
from faregate.core import money
from faregate.core.pricing.card import Rate
from faregate.core.pricing.listing import PriceEntry, PriceFault, PriceFile
from faregate.errors import Unavailable
from faregate.ports import Row

router = APIRouter(prefix="/prices", tags=["prices"])

#: How a file may be written; the price book reads them.
FORMATS: Final = ("auto", "litellm", "csv", "yaml")

#: The layer of everything here.
IMPORTED: Final = "imported"

#: Left-out entries that an answer names; the public list has thousands for services that are not here.
SKIPPED_SHOWN_MAX: Final = 200

#: Faults of a file that the sentence names; the answer lists more.
FAULTS_NAMED_MAX: Final = 10

#: Prices of one thing by time: a price of every month for eighty years.
PRICES_OF_ONE_MAX: Final = 1_000

#: Prices of a list that changed, as far as an answer names them.
CHANGES_SHOWN_MAX: Final = 2_000

_BUNDLED: Final = "genai-prices"


class PriceFileBody(Body):
    """A price file: its text, and what is to be done with it."""

    file: str = Field(min_length=1, max_length=256, pattern=r"^[ -~]+$")
    text: str
    format: str = Field(default="auto", max_length=16, json_schema_extra={"enum": list(FORMATS)})
    #: Take in prices of this provider only; the public list's entries of its kind become its prices.
    provider: str = Field(default="", max_length=128)
    #: Only tell what would change.
    dry_run: bool = False
    #: Says that prices far from those before are meant.
    confirm: bool = False


class SyncBody(Body):
    """What to look at again: the list that ships with this version, and with ``file`` and ``text`` a public list."""

    file: str = Field(default="", max_length=256, pattern=r"^[ -~]*$")
    text: str = ""
    provider: str = Field(default="", max_length=128)
    dry_run: bool = False
    confirm: bool = False


class _Wanted(NamedTuple):
    """One price of a file at one provider."""

    place: Place
    entry: PriceEntry


class _Taken(NamedTuple):
    """What a file comes to: rows to write and what to tell."""

    rows: list[Row]
    changes: list[dict[str, Any]]
    outliers: list[PriceFault]
    #: Prices that have ended already.
    ended: list[PriceFault]
    same: int


def book_of(console: Console) -> PriceBook:
    """The price book of an installation.

    Raises:
        Unavailable: no configuration tells its providers.
    """
    if console.price_book is None:
        raise Unavailable("no configuration is here that names the providers; run this where faregate.yaml is")
    return console.price_book


def read_file(console: Console, text: str, name: str, format: str) -> PriceFile:
    """The prices of a file.

    Raises:
        ApiProblem: there is no such format, or something in the file cannot be read: every fault with its place.
    """
    try:
        found = book_of(console).read(text, name, format)
    except ValueError as problem:
        raise ApiProblem("field_enum", str(problem), field="format") from problem
    refuse(found.faults)
    return found


def refuse(faults: Sequence[PriceFault]) -> None:
    """Refuse a file for what is wrong with it.

    Raises:
        ApiProblem: there is anything.
    """
    if faults:
        named = "; ".join(f"{fault.where}: {fault.problem}" for fault in faults[:FAULTS_NAMED_MAX])
        more = f"; and {len(faults) - FAULTS_NAMED_MAX} more" if len(faults) > FAULTS_NAMED_MAX else ""
        told = [{"field": fault.where, "code": "field_range", "detail": fault.problem} for fault in faults]
        raise ApiProblem("field_range", f"{named}{more}. Nothing was taken in", errors=told)


def placed(catalogue: Catalogue, entries: Iterable[PriceEntry], provider: str) -> list[_Wanted]:
    """The entries as prices of providers that are there; those of a kind belong to every provider of it.

    Raises:
        ApiProblem: ``provider`` or one that the file names is not declared.
    """
    kinds = {each.name: each.kind for each in catalogue.providers}
    if provider and provider not in kinds:
        raise ApiProblem("field_enum", f"unknown provider; expected one of {_names(kinds)}", field="provider")
    by_kind: defaultdict[str, list[str]] = defaultdict(list)
    for name, kind in kinds.items():
        by_kind[kind].append(name)
    found: list[_Wanted] = []
    faults: list[PriceFault] = []
    for entry in entries:
        if entry.provider and entry.provider not in kinds:
            problem = f"provider {entry.provider!r} is not declared; expected one of {_names(kinds)}"
            faults.append(PriceFault(entry.where, problem))
        for name in [entry.provider] if entry.provider else by_kind[entry.kind]:
            if provider in ("", name):
                place = Place(
                    name, entry.model, entry.unit, entry.variant, entry.service_tier, entry.region,
                    entry.above_input_tokens,
                )  # fmt: skip
                found.append(_Wanted(place, entry))
    refuse(faults)
    return found


def _names(kinds: Mapping[str, str]) -> str:
    return ", ".join(sorted(kinds)) or "those of the configuration, of which there are none"


# -- import ------------------------------------------------------------------------------------------------------------


def take_in(console: Console, wanted: PriceFileBody) -> dict[str, Any]:
    """Take in a price file, or tell what it would change.

    Raises:
        ApiProblem: it cannot be read, names something unknown, or has prices far from those in force.
    """
    found = read_file(console, wanted.text, wanted.file, wanted.format)
    catalogue = compiled(console)
    entries = placed(catalogue, found.entries, wanted.provider)
    taken = _taken(console, catalogue, entries, wanted.file)
    if taken.outliers and not (wanted.confirm or wanted.dry_run):
        told = [{"field": each.where, "code": "invariant", "detail": each.problem} for each in taken.outliers]
        first = f"{taken.outliers[0].where}: {taken.outliers[0].problem}"
        rule = f"{first}; {len(taken.outliers)} prices are that far off. Are they meant? Send confirm: true (--yes)"
        raise ApiProblem("invariant", rule, errors=told)
    if not wanted.dry_run:
        put_all(console, "price", taken.rows)
    return {
        "file": wanted.file,
        "format": found.format,
        "sha256": hashlib.sha256(wanted.text.encode()).hexdigest(),
        "dry_run": wanted.dry_run,
        "prices": len(entries),
        "same": taken.same,
        "written": 0 if wanted.dry_run else len(taken.rows),
        "changes": taken.changes,
        "outliers": len(taken.outliers),
        "skipped": [fault._asdict() for fault in (*taken.ended, *found.skipped)[:SKIPPED_SHOWN_MAX]],
        "skipped_count": len(taken.ended) + len(found.skipped),
    }


def _taken(console: Console, catalogue: Catalogue, entries: Sequence[_Wanted], file: str) -> _Taken:
    now = console.clock.wall_nanos()
    known: defaultdict[Place, list[Row]] = defaultdict(list)
    for row in every(console.books, "price"):
        if layer_of(row) == IMPORTED:
            known[place_of(row)].append(row)
    begun = {place for place, rows in known.items() if rows}
    present = rates_at(catalogue, now)
    changed: dict[str, Row] = {}
    taken = _Taken([], [], [], [], 0)
    same = 0
    faults: list[PriceFault] = []
    # Those of one place in the order of time, so that each ends the one before.
    for wanted in sorted(entries, key=_begin):
        place, ends = wanted.place, wanted.entry.effective_to
        if 0 < ends <= now and not wanted.entry.effective_from:
            taken.ended.append(PriceFault(wanted.entry.where, "its effective_to has passed"))
            continue
        rows = sorted(known[place], key=_start)
        made = _merged(console, wanted, rows, now, file, in_force=place in begun)
        if isinstance(made, str):
            faults.append(PriceFault(wanted.entry.where, made))
        elif not made:
            same += 1
        else:
            rate = present.get(place)
            again = {row["id"]: row for row in made}
            known[place] = [row for row in rows if row["id"] not in again] + made
            changed |= again
            taken.changes.append(_change(wanted, made[-1], rate))
            if is_outlier(wanted.entry.pico, wanted.entry.per, rate):
                assert rate is not None
                problem = (
                    f"{money.dollars_of_picos(wanted.entry.pico)} for {wanted.entry.per} {wanted.place.unit} of "
                    f"{wanted.place.model} is more than {OUTLIER} times off {money.dollars_of_picos(rate.pico)} "
                    f"for {rate.per}"
                )
                taken.outliers.append(PriceFault(wanted.entry.where, problem))
    refuse(faults)
    return taken._replace(rows=list(changed.values()), same=same)


def _begin(wanted: _Wanted) -> tuple[Place, int]:
    return wanted.place, wanted.entry.effective_from


def _start(row: Row) -> int:
    return int(row["effective_from"])


def _merged(
    console: Console, wanted: _Wanted, rows: Sequence[Row], now: int, file: str, *, in_force: bool
) -> list[Row] | str:
    """The rows that taking in one price changes, the new one last; nothing where it is there, or why it cannot be.

    ``in_force`` says whether an earlier file brought a price of this. Only where none did may one begin in the past.
    """
    entry = wanted.entry
    begins = entry.effective_from or now
    later = next((row["effective_from"] for row in rows if row["effective_from"] > begins), 0)
    ends = min(filter(None, (entry.effective_to, later)), default=0)
    at = next((row for row in rows if holds(row["effective_from"], row["effective_to"], begins)), None)
    if at is not None and _says(at, entry) and (not entry.effective_from or at["effective_from"] == begins):
        if at["effective_to"] == ends:
            return []
        if not 0 < ends <= now and not 0 < at["effective_to"] <= now:
            return [{**at, "effective_to": ends, "updated_at": now}]
    if begins < now - PAST_NANOS_MAX and in_force:
        return "a price of this has begun already and cannot be changed in the past; leave effective_from empty"
    if len(rows) >= PRICES_OF_ONE_MAX:
        return f"one thing has at most {PRICES_OF_ONE_MAX} prices by time"
    exactly = next((row for row in rows if row["effective_from"] == begins), None)
    made = [
        {**row, "effective_to": begins, "updated_at": now}
        for row in rows
        if row["effective_from"] < begins and not 0 < row["effective_to"] <= begins
    ]
    source = f"{file}: {entry.source}" if entry.source else file
    new = row_of(wanted.place, IMPORTED, entry.pico, entry.per, begins, source) | {
        "id": exactly["id"] if exactly else console.new_id("prc_"),
        "effective_to": ends,
        "created_at": exactly["created_at"] if exactly else now,
        "updated_at": now,
    }
    return [*made, new]


def _says(row: Row, entry: PriceEntry) -> bool:
    """Whether a kept price is that of a file, whatever units it is written for; a later one may have set its end."""
    return bool(row["pico"] * entry.per == entry.pico * row["per"])


def _change(wanted: _Wanted, row: Row, rate: Rate | None) -> dict[str, Any]:
    place, entry = wanted
    equal = rate is not None and rate.pico * entry.per == entry.pico * rate.per
    return {
        "change": "new" if rate is None else "confirmed" if equal else "changed",
        "provider": place.provider,
        "model": place.model,
        "unit": place.unit,
        "variant": or_none(place.variant),
        "service_tier": or_none(place.service_tier),
        "region": or_none(place.region),
        "above_input_tokens": place.above_input_tokens,
        "per": entry.per,
        "price": money.dollars_of_picos(entry.pico),
        "before": None if rate is None else money.dollars_of_picos(rate.pico),
        "before_per": None if rate is None else rate.per,
        "effective_from": time_text(row["effective_from"]),
        "outlier": is_outlier(entry.pico, entry.per, rate),
        "where": entry.where,
    }


# -- sync --------------------------------------------------------------------------------------------------------------


def _flat(entries: Iterable[PriceEntry]) -> dict[str, dict[str, str]]:
    """A file's prices as texts: by kind and model, then by what is priced."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for entry in entries:
        above = f"above {entry.above_input_tokens}" if entry.above_input_tokens else ""
        parts = (entry.unit, entry.variant, entry.service_tier, entry.region, above)
        owner = f"{entry.provider or entry.kind}/{entry.model}"
        found[owner][" ".join(part for part in parts if part)] = f"{money.dollars_of_picos(entry.pico)} per {entry.per}"
    return dict(found)


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What a list says now beside what it said: models that came and went, and prices that changed."""
    changed = [
        {"model": model, "what": what, "before": old.get(what), "after": new.get(what)}
        for model in sorted(before.keys() & after.keys())
        for old, new in [(before[model], after[model])]
        for what in sorted(old.keys() | new.keys())
        if old.get(what) != new.get(what)
    ]
    return {
        "models": len(after),
        "added": sorted(after.keys() - before.keys())[:CHANGES_SHOWN_MAX] if before else [],
        "removed": sorted(before.keys() - after.keys())[:CHANGES_SHOWN_MAX],
        "changed": changed[:CHANGES_SHOWN_MAX],
        "changed_count": len(changed),
    }


def _look_again(
    console: Console, name: str, edition: str, content: dict[str, dict[str, str]], *, keep: bool
) -> dict[str, Any]:
    """What a list says that it did not say at the last look, and remember what it says now."""
    kept: Row | None = next(iter(console.books.listing("price_list", name=name)), None)
    before: Mapping[str, Any] = kept["content"] or {} if kept else {}
    told = {
        "list": name,
        "edition": edition,
        "last_edition": kept["edition"] if kept else None,
        "last_looked_at": time_text(kept["updated_at"]) if kept else None,
        **_difference(before, content),
    }
    if keep and (kept is None or kept["edition"] != edition or before != content):
        now = console.clock.wall_nanos()
        row: Row = {
            "id": kept["id"] if kept else console.new_id("lst_"),
            "name": name,
            "edition": edition,
            "content": content,
            "details": {},
            "created_at": kept["created_at"] if kept else now,
            "updated_at": now,
        }
        # The list itself is public and long: the trail names its edition.
        with told_of(console, [("price_list", row["id"], None, {"name": name, "edition": edition})]) as mark:
            console.books.put("price_list", row, told=mark)
    return told


def sync(console: Console, wanted: SyncBody) -> dict[str, Any]:
    """Look at the bundled list, and at a public one where it is given, and tell what changed since the last look.

    Raises:
        ApiProblem: the public list cannot be taken in.
    """
    bundled = book_of(console).bundled(made_places(console.all_books))
    if not wanted.file:
        if wanted.text:
            raise ApiProblem("field_missing", "name the file that text is of", field="file")
        return {"lists": [_look_again(console, _BUNDLED, bundled.edition, bundled.prices, keep=not wanted.dry_run)]}
    body = PriceFileBody(
        file=wanted.file, text=wanted.text, format="litellm", provider=wanted.provider, dry_run=wanted.dry_run,
        confirm=wanted.confirm,
    )  # fmt: skip
    taken = take_in(console, body)
    entries = read_file(console, wanted.text, wanted.file, "litellm").entries
    keep = not wanted.dry_run
    return {
        "lists": [
            _look_again(console, _BUNDLED, bundled.edition, bundled.prices, keep=keep),
            _look_again(console, "litellm", taken["sha256"][:12], _flat(entries), keep=keep),
        ],
        "import": taken,
    }


# -- routes ------------------------------------------------------------------------------------------------------------


@router.post("/import")
@needs("prices.write")
@answers(shapes.Import)
async def import_prices(request: Request, wanted: PriceFileBody) -> dict[str, Any]:
    """Take in a price file (LiteLLM's JSON, or our CSV or YAML), or with ``dry_run`` tell what it would change."""
    console = console_of(request)
    told = await locked(console, lambda: take_in(console, wanted))
    return told if wanted.dry_run or not told["written"] else await acted(console, told)


@router.post("/sync")
@needs("prices.write")
@answers(shapes.Sync)
async def sync_prices(request: Request, wanted: SyncBody) -> dict[str, Any]:
    """Look at the bundled price list again, and tell what changed since the last look; nothing is downloaded."""
    console = console_of(request)
    told = await locked(console, lambda: sync(console, wanted))
    written = told.get("import", {}).get("written", 0)
    return await acted(console, told) if written else told
