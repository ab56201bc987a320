"""``/api/v1/rehearse``: past requests asked against proposed limits, and what these would have refused.

Nothing is changed and nobody is told. Records are read page by page, so that a long period takes time and not memory.
The fold over them is the core's (``core.limits.rehearsal``); here are the policy, the records, the balances that the
limits would have begun with, and what a cheaper model would have cost.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from faregate.console.compile import card_of, limit_of
from faregate.console.describing import answers
from faregate.console.kept_terms import stored_terms, terms_of
from faregate.console.limit_terms import shown_terms
from faregate.console.limits import NewLimit, proposed
from faregate.console.openings import questions
from faregate.console.prices import compiled
from faregate.console.problems import ApiProblem
from faregate.console.reading import each_row, in_thread
from faregate.console.records import usage_of
from faregate.console.repricing import Cards
from faregate.console.rights import needs
from faregate.console.running import Run
from faregate.console.shapes import limits as shapes
from faregate.console.state import Console
from faregate.console.texts import NANOS_PER_SECOND, Body, Moment, amount_text, moment, or_none, time_text
from faregate.console.writing import console_of
from faregate.control import Catalogue
from faregate.control import compiled as compiled_limit
from faregate.core import money
from faregate.core.amounts import posted_amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.rehearsal import LimitFindings, PastCall, Refused, Rehearsal
from faregate.core.limits.terms import Action
from faregate.core.pricing.card import RateCard
from faregate.core.pricing.repricing import Booked, Repriced, reprice
from faregate.errors import Failed, NotFound
from faregate.ports import BalanceQuery, Row

router = APIRouter(prefix="/rehearse", tags=["rehearsal"])

KIND: Final = "rehearsal"

#: Limits of one policy; a file with more of them is generated, and can be rehearsed in parts.
LIMITS_MAX: Final = 1_000

#: Requests that one rehearsal looks at: some minutes of work.
CALLS_MAX: Final = 10_000_000

#: How long a request waits for the result before it answers how far the rehearsal is.
WAIT_SECONDS: Final = 2.0

#: Limits in force, payers, and values of an ``each`` limit that an answer lists: those with the most refusals.
LIMITS_SHOWN_MAX: Final = 1_000
PAYERS_SHOWN_MAX: Final = 20

_PAGE: Final = 1_000

#: A call has its id from its first bytes; no body takes longer to come.
_ADMITTED_WITHIN: Final = 3_600 * NANOS_PER_SECOND
_WHO: Final = tuple(name for name in Attribution._fields if name != "tags")


class NewRehearsal(Body):
    """A policy to rehearse, and the time whose requests ask it."""

    from_: Moment = Field(alias="from")
    #: Not included; now, where it is not given.
    to: Moment | None = None
    limits: list[NewLimit] = Field(max_length=LIMITS_MAX)
    #: On top of the limits that are in force; false asks the policy alone.
    keep: bool = True
    #: In dollars ask with what was held then, the worst case, instead of what was used.
    holds: bool = False


class Policy(NamedTuple):
    """What is rehearsed: rows of limits by id, as they would have been all the time."""

    rows: Mapping[str, Row]
    #: Id → place in the list that was sent; the others are in force.
    places: Mapping[str, int]


def policy_of(console: Console, wanted: NewRehearsal) -> Policy:
    """The limits of a rehearsal; one that is proposed stands for the one in force that counts the same.

    Raises:
        ApiProblem: limits that cannot be, each named as ``limits.N.FIELD``.
    """
    rows: dict[str, Row] = {}
    if wanted.keep:
        rows = {row["id"]: _always(row) for row in each_row(console.books, "limit")}
    places: dict[str, int] = {}
    names: dict[str, int] = {}
    wrong: list[dict[str, str]] = []
    for place, limit in enumerate(wanted.limits):
        try:
            row, before = proposed(console, limit)
        except ApiProblem as problem:
            wrong += _within(f"limits.{place}", problem)
            continue
        if row["name"] in names:
            detail = f"the same select, each, unit and window as limits.{names[row['name']]}"
            wrong.append({"field": f"limits.{place}", "code": "field_conflict", "detail": detail})
            continue
        names[row["name"]] = place
        id = before["id"] if before is not None else f"limits[{place}]"
        rows[id] = _always({**row, "id": id})
        places[id] = place
    if wrong:
        raise ApiProblem(wrong[0]["code"], wrong[0]["detail"], field=wrong[0]["field"], errors=wrong)
    return Policy(rows, places)


def _within(place: str, problem: ApiProblem) -> list[dict[str, str]]:
    """The mistakes of one limit, with their places in the whole body."""
    told = problem.errors or [{"field": "", "code": problem.code, "detail": problem.detail}]
    return [{**each, "field": f"{place}.{each['field']}" if each["field"] else place} for each in told]


def _always(row: Row) -> Row:
    """A limit's row as if it had always been so: neither its history nor a forecast of today belongs to the past."""
    terms = terms_of(row)
    return {**row, "terms": stored_terms(terms._replace(history=(), carry_from=0, forced=()))}


def rehearsed(
    console: Console, wanted: NewRehearsal, policy: Policy, span: tuple[int, int], run: Run
) -> dict[str, Any]:
    """Rehearse ``policy`` over a span of time; what comes out, as the API shows it.

    Raises:
        Stopped: somebody stopped it.
        Failed: there are too many requests, or it takes too long.
    """
    since, until = span
    prices = _Prices(console)
    limits = [compiled_limit(limit_of(row)) for row in policy.rows.values()]
    rehearsal = Rehearsal(limits, since, prices.charge_as)
    _open(console, rehearsal, policy, since)
    records = _Records(wanted.holds)
    for page in _pages(console, since, until):
        for row in page:
            call = records.call(row)
            if call is not None:
                rehearsal.add(call)
        if page:
            run.step(requests=records.seen, until=time_text(page[-1]["created_at"]))
        if records.seen > CALLS_MAX:
            raise Failed(f"there are more than {CALLS_MAX} requests", hint="ask for a shorter time")
    rehearsal.finish()
    return {
        "from": time_text(since),
        "to": time_text(until),
        "keep": wanted.keep,
        "holds": wanted.holds,
        **_total(rehearsal, records),
        "limits": _shown_limits(rehearsal, policy),
        "by": {name: _shown_payers(name, values) for name, values in rehearsal.payers.items()},
        "shadow": [
            {"limit": limit, "requests": count} for limit, count in records.shadow.most_common(LIMITS_SHOWN_MAX)
        ],
    }


def _open(console: Console, rehearsal: Rehearsal, policy: Policy, since: int) -> None:
    """What the limits had counted before, in the windows that the first moment is in."""
    asked: list[tuple[str, int, BalanceQuery]] = []
    for id, row in policy.rows.items():
        for at, query in questions(limit_of(row), since):
            # What came later asks for itself.
            asked.append((id, at, query if query.until else query._replace(until=since)))
    found: dict[str, list[tuple[tuple[str, ...], int, int]]] = {id: [] for id in policy.rows}
    sums = console.books.balances_of([query for _, _, query in asked])
    for (id, at, _), balances in zip(asked, sums, strict=True):
        found[id] += [(subject, at, posted) for subject, posted in balances]
    for id, opening in found.items():
        rehearsal.open(id, opening)


def _pages(console: Console, since: int, until: int) -> Iterator[list[Row]]:
    """Records of the time, in the order of their ids, which is nearly that of their admission.

    Where the first of them is, the books find by its time; from there on they follow the ids, because looking for a
    time again on each page would take longer than reading it.
    """
    page = console.books.requests(limit=_PAGE, newest_first=False, since=since, until=until)
    while page:
        yield [row for row in page if since <= row["created_at"] < until]
        if min(row["created_at"] for row in page) >= until + _ADMITTED_WITHIN:
            return
        page = console.books.requests(after=page[-1]["id"], limit=_PAGE, newest_first=False)


class _Records:
    """Records of the books as calls that ask; counts those that cannot."""

    def __init__(self, holds: bool) -> None:
        self._holds = holds
        self.seen = 0
        #: Refused by a limit then, by code: what they would have used nobody knows.
        self.refused_then: Counter[str] = Counter()
        #: Whose end is not known: they ask with what they hold.
        self.unknown = 0
        #: Shadow limit → requests that it would have refused, as it was noted then.
        self.shadow: Counter[str] = Counter()
        self._callers: dict[tuple[Any, ...], Attribution] = {}

    def call(self, row: Row) -> PastCall | None:
        """The call of a record; ``None`` where nothing was sent."""
        self.seen += 1
        if row["notes"]:
            noted = json.loads(row["notes"]).get("would_refuse")
            self.shadow.update(noted if isinstance(noted, list) else ())
        if row["status"] == "refused":
            if row["limit_id"]:
                self.refused_then[row["code"]] += 1
            return None
        usage = usage_of(row)
        posted = posted_amounts(row["charge"], usage)
        booked = None
        if row["status"] in ("unknown", "pending"):
            self.unknown += 1
            posted = posted._replace(usd=row["held"])
        elif row["price_version"]:
            operator_pays = row["resolution"] == "operator_pays"
            booked = Booked(usage, row["cost"], row["charge"], row["charge_rule"], operator_pays)
        wanted = posted._replace(concurrency=1, usd=max(posted.usd, row["held"]) if self._holds else posted.usd)
        ended_at = row["ended_at"] or row["created_at"]
        return PastCall(
            row["id"], self._who(row), row["created_at"], ended_at, wanted, posted, booked, row["price_version"]
        )

    def _who(self, row: Row) -> Attribution:
        """The caller, the same object for the same one, since very many calls have few callers."""
        tags = tuple(sorted(row["tags"].items()))
        values = (*(row[name] for name in _WHO), tags)
        who = self._callers.get(values)
        if who is None:
            if len(self._callers) >= _PAGE:
                self._callers.clear()
            who = self._callers[values] = Attribution(**{name: row[name] for name in _WHO}, tags=tags)
        return who


class _Prices:
    """What calls would cost at the prices of today with another model."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._now = console.clock.wall_nanos()
        self._catalogue: Catalogue | None = None
        self._cards: Cards | None = None
        self._places: dict[str, tuple[str, str]] = {}
        self._booked_by: dict[str, RateCard | None] = {}

    def charge_as(self, call: PastCall, action: Action) -> int | None:
        """The charge of a call had the model of a downgrade answered it; ``None`` where no price tells."""
        if call.booked is None:
            return None
        if self._cards is None:
            self._read()
            assert self._cards is not None
        old, place = self._card(call.price_version), self._places.get(action.to)
        if old is None or place is None:
            return None
        new = self._cards.at(place, old, self._now, provisional=False)
        found = reprice(call.booked, self._cards.tariff(old), self._cards.tariff(new) if new else None)
        return found.charge if isinstance(found, Repriced) else None

    def _read(self) -> None:
        """Most policies name no cheaper model, so prices are compiled for those that do."""
        catalogue = compiled(self._console)
        self._cards = Cards(catalogue)
        deployments = {each.name: each for each in catalogue.deployments}
        for route in catalogue.routes:
            first = next((deployments[name] for name in route.to if name in deployments), None)
            if first is not None:
                self._places[route.model] = first.provider, first.model

    def _card(self, version: str) -> RateCard | None:
        if version not in self._booked_by:
            kept = self._console.books.rate_card(version)
            self._booked_by[version] = card_of(kept) if kept is not None else None
        return self._booked_by[version]


# -- how it is told ----------------------------------------------------------------------------------------------------


def _total(rehearsal: Rehearsal, records: _Records) -> dict[str, Any]:
    downgrading = list(rehearsal.limits.values())
    saved = rehearsal.refused.charge + sum(each.saved for each in downgrading)
    return {
        "requests": rehearsal.calls,
        "charge": money.dollars(rehearsal.charge),
        **_refused(rehearsal.refused),
        "downgraded": sum(each.downgraded for each in downgrading),
        "saved": money.dollars(saved),
        "refused_then": dict(sorted(records.refused_then.items())),
        "unknown": records.unknown,
    }


def _refused(found: Refused) -> dict[str, Any]:
    return {
        "refused": found.calls,
        "refused_charge": money.dollars(found.charge),
        "first_at": time_text(found.first_at),
        "last_at": time_text(found.last_at),
    }


def _shown_limits(rehearsal: Rehearsal, policy: Policy) -> list[dict[str, Any]]:
    """The proposed limits in the order of the policy, then those in force that did something."""
    asked = sorted(policy.places, key=lambda id: policy.places[id])
    others = [
        id
        for id, found in rehearsal.limits.items()
        if id not in policy.places and (found.refused.calls or found.shadowed.calls or found.downgraded)
    ]
    others.sort(key=lambda id: -rehearsal.limits[id].refused.calls)
    return [
        _shown_limit(policy.rows[id], policy.places.get(id), rehearsal.limits[id])
        for id in (*asked, *others[:LIMITS_SHOWN_MAX])
    ]


def _shown_limit(row: Row, place: int | None, found: LimitFindings) -> dict[str, Any]:
    unit = row["unit"]
    most, window_start, subject = found.most
    shown: dict[str, Any] = {
        # One that is only proposed has no id yet.
        "limit": None if row["id"] == f"limits[{place}]" else row["id"],
        "place": place,
        "select": row["selector"],
        "each": row["each"],
        "unit": unit,
        "amount": amount_text(unit, row["amount"]),
        "window": or_none(row["window"]),
        "timezone": row["timezone"],
        "mode": row["mode"],
        **shown_terms(row),
        "requests": found.concerned,
        **_refused(found.refused),
        "would_refuse": found.shadowed.calls,
        "downgraded": found.downgraded,
        "downgraded_charge": money.dollars(found.downgraded_charge),
        "downgraded_saved": money.dollars(found.saved),
        "downgraded_unpriced": found.unpriced,
        "most": {
            "amount": amount_text(unit, most),
            "window_start": time_text(window_start),
            "subject": dict(zip(row["each"], subject, strict=True)) if subject else None,
        },
    }
    if row["each"]:
        shown["subjects"] = [
            {"subject": dict(zip(row["each"], values, strict=True)), **_refused(refused)}
            for values, refused in _worst(found.subjects)
        ]
    return shown


def _shown_payers(name: str, values: Mapping[str, Refused]) -> list[dict[str, Any]]:
    return [{name: or_none(value), **_refused(refused)} for value, refused in _worst(values)]


def _worst(values: Mapping[Any, Refused]) -> Sequence[tuple[Any, Refused]]:
    """Those with the most refusals, then the dearest ones."""
    return sorted(values.items(), key=lambda each: (-each[1].calls, -each[1].charge, each[0]))[:PAYERS_SHOWN_MAX]


# -- the routes --------------------------------------------------------------------------------------------------------


def _span(console: Console, wanted: NewRehearsal) -> tuple[int, int]:
    now = console.clock.wall_nanos()
    since, until = _moment("from", wanted.from_), now if wanted.to is None else _moment("to", wanted.to)
    if since >= min(until, now):
        raise ApiProblem("field_range", "must lie before the end, and in the past", field="from")
    return since, min(until, now)


def _moment(field: str, text: str) -> int:
    try:
        return moment(text)
    except ValueError as problem:
        raise ApiProblem("field_range", str(problem), field=field) from problem


async def _told(run: Run) -> Response:
    """The result, where it comes in time, else how far the rehearsal is."""
    await in_thread(lambda: run.ended.wait(WAIT_SECONDS))
    if not run.ended.is_set():
        return JSONResponse({"id": run.id, "state": "running", "progress": run.progress}, 202)
    if run.failure is not None:
        raise run.failure
    state = "stopped" if run.stopped else "done"
    return JSONResponse({"id": run.id, "state": state, **(run.result or {})})


def _found(console: Console, run_id: str) -> Run:
    run = console.runs.find(run_id, KIND)
    if run is None:
        raise NotFound("there is no such rehearsal, or it is forgotten", hint="ask for it again")
    return run


@router.post("")
@needs("rehearsals.write")
@answers(shapes.Rehearsal, also={202: shapes.RunningRehearsal})
async def rehearse(request: Request, wanted: NewRehearsal) -> Response:
    """Rehearse a policy; 202 with an id where it takes longer than a few seconds."""
    console = console_of(request)
    span = _span(console, wanted)
    policy = await in_thread(lambda: policy_of(console, wanted))
    id = console.new_id("rhs_")
    return await _told(console.runs.begin(id, KIND, lambda run: rehearsed(console, wanted, policy, span, run)))


@router.get("/{run_id}")
@needs("rehearsals.write")
@answers(shapes.Rehearsal, also={202: shapes.RunningRehearsal}, refusals=(422,))
async def read_rehearsal(request: Request, run_id: str) -> Response:
    """The result of a rehearsal, or 202 with how far it is; it waits a few seconds for the end."""
    return await _told(_found(console_of(request), run_id))


@router.delete("/{run_id}")
@needs("rehearsals.write")
@answers(shapes.Rehearsal, also={202: shapes.RunningRehearsal})
async def stop_rehearsal(request: Request, run_id: str) -> Response:
    """Stop a rehearsal."""
    run = _found(console_of(request), run_id)
    run.stop()
    return await _told(run)
