"""``/api/v1/limits``: make, change and look at limits, with what is posted and held of each right now.

The same selector, each, unit and window are the same limit: setting it again changes its amount in place and keeps what
it has counted and whatever is not named. Whether a limit is possible at all is the core's decision.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal
from unicodedata import normalize

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.config.findings import did_you_mean
from faregate.console import limit_entries
from faregate.console.allowances import LimitView, limit_views
from faregate.console.describing import answers, choice, lists, text
from faregate.console.kept_terms import stored_terms, terms_of
from faregate.console.limit_terms import RaiseAsked, TermsAsked, asked_terms, raise_of, raises_kept, shown_terms
from faregate.console.paging import page_of, read_page
from faregate.console.prices import compiled
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.scoped_books import SET_ABOVE, SET_BY, SET_BY_ROLE, may_change_limit, setter_note
from faregate.console.shapes import limits as shapes
from faregate.console.shapes.values import Removed
from faregate.console.state import Console
from faregate.console.texts import (
    DIMENSION_PATTERN,
    Amount,
    Dimension,
    Sentence,
    amount_text,
    or_left_out,
    or_none,
    time_text,
)
from faregate.console.versions import only_if_unchanged, versioned
from faregate.console.writing import acted, console_of, locked
from faregate.console.zones import zone_known
from faregate.core import keys, money, tokens
from faregate.core.attribution import DIMENSIONS, METADATA_PREFIX, TAG_PREFIX
from faregate.core.limits.kinds import EACH_MAX, KINDS, MODES, SELECTOR_MAX, WINDOWS, Fault, check_limit, escaped
from faregate.core.limits.term_rules import check_terms
from faregate.core.limits.windows import rolling_nanos
from faregate.errors import Conflict, NotFound
from faregate.ports import Row

router = APIRouter(prefix="/limits", tags=["limits"])

#: Subjects of one ``each`` limit that a list and a single view show; the rest is only counted.
SUBJECTS_LISTED: Final = 20
SUBJECTS_READ: Final = 1_000

#: No id is longer.
ID_CHARACTERS_MAX: Final = 64

#: So many keys of one name are looked at: revoked ones keep theirs.
_NAMESAKES_MAX: Final = 1_000

#: Dimensions whose values were written as names of their own, when a key was made.
_PAYERS: Final = frozenset({"organization", "team", "project", "product"})

_READ_ONLY: Final = frozenset(
    {"id", "created_at", "updated_at", "posted", "held", "remaining", "spent", "window_start", "resets_at", "source"}
)


#: A calendar window, or a rolling one with its length.
WINDOW_PATTERN: Final = rf"^({'|'.join(WINDOWS)}|rolling [1-9]\d{{0,6}}[smhd])$"


class NewLimit(TermsAsked):
    """A limit to be set."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY

    select: dict[str, str] = Field(
        default_factory=dict,
        max_length=32,
        json_schema_extra={"maxProperties": SELECTOR_MAX, "propertyNames": {"pattern": DIMENSION_PATTERN}},
    )
    each: list[Dimension] = Field(
        default_factory=list, max_length=32, json_schema_extra={"maxItems": EACH_MAX, "uniqueItems": True}
    )
    unit: str = Field(max_length=32, json_schema_extra={"enum": list(KINDS)})
    #: Dollars as a decimal text for ``usd``, a whole number for the rest, ``null`` for unlimited.
    amount: Amount | None
    window: Annotated[str, Field(max_length=32, json_schema_extra={"pattern": WINDOW_PATTERN})] | None = None
    timezone: str = Field(default="UTC", max_length=64)
    mode: Literal["hard", "soft", "shadow"] = "hard"
    clamp: bool = False
    contact: Sentence | None = None
    #: Why it is set so; kept with the limit's entries.
    reason: Sentence | None = None


class LimitChange(TermsAsked):
    """What may be changed of a limit; another selector, unit or window is another limit."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {"select", "each", "unit", "window", "timezone"}

    amount: Amount | None = None
    mode: Literal["hard", "soft", "shadow"] | None = or_left_out()
    clamp: bool | None = or_left_out()
    contact: Sentence | None = None
    #: Why it is changed; kept with the limit's entries.
    reason: Sentence | None = None


class NewRaise(RaiseAsked):
    """A raise of a limit, with why."""

    reason: Sentence | None = None


#: What a change may set, beside the terms.
_CHANGED: Final = frozenset({"amount", "mode", "clamp", "contact"})


#: What stays as it is, beside the terms, where a limit is set again without naming it.
_KEPT: Final = frozenset({"timezone", "mode", "clamp", "contact"})


def canonical(select: dict[str, str], each: list[str], unit: str, window: str) -> str:
    """One text per kind of limit, by which it is found again."""
    plain = {name: escaped(value) for name, value in select.items()}
    selected = ",".join(f"{name}={value}" for name, value in sorted(plain.items()))
    return f"{selected};{','.join(sorted(each))};{unit};{window}"


def within_largest(unit: str, amount: int) -> int:
    """``amount``, which a limit of this unit may have.

    Raises:
        ApiProblem: it is more than that.
    """
    most = KINDS[unit].amount_max
    if amount > most:
        rule = f"the limit would have more than {amount_text(unit, most)}, the largest amount"
        raise ApiProblem("field_range", rule, field="amount")
    return amount


def amount_of(unit: str, amount: int | str | None, field: str = "amount") -> int | None:
    """The stored amount: nano-dollars for ``usd``, whole units otherwise.

    Raises:
        ApiProblem: a number for dollars, a text for anything else, or a text that is no amount.
    """
    if amount is None or unit not in KINDS:
        # What is wrong with the unit is told by the core's check.
        return None
    if unit != "usd":
        if isinstance(amount, str):
            raise ApiProblem("field_type", f"an amount of {unit} is a whole number", field=field)
        return amount
    if not isinstance(amount, str):
        raise ApiProblem("field_type", 'dollars are a decimal text such as "0.10", never a number', field=field)
    try:
        return money.nanos(amount)
    except ValueError as problem:
        raise ApiProblem("field_range", str(problem), field=field) from problem


def _check(row: Row) -> None:
    faults = check_limit(
        selector=row["selector"],
        each=row["each"],
        unit=row["unit"],
        amount=row["amount"],
        window=row["window"],
        timezone=row["timezone"],
        mode=row["mode"],
        zone_known=zone_known,
    )
    if not faults:
        terms = terms_of(row)
        rest = {name: row[name] for name in ("unit", "amount", "window", "mode", "each")}
        faults = check_terms(terms, **rest)
        if any(action.do == "revoke" for action in terms.actions) and "key" not in {*row["selector"], *row["each"]}:
            rule = "revoke: this limit is of no single key; select one, or count each key"
            faults.append(Fault("actions", "field_conflict", rule))
    spared = [value for each in terms_of(row).spared for value in each.values]
    for field, values in (("select", row["selector"].values()), ("except", spared)):
        if any(keys.holds_one(value) for value in values):
            rule = "a key is named by its id (key_…), never by its secret, which is kept nowhere; rotate this one"
            raise ApiProblem("field_range", rule, field=field)
    if faults:
        told = [
            {"field": "select" if each.field == "selector" else each.field, "code": each.code, "detail": each.message}
            for each in faults
        ]
        raise ApiProblem(told[0]["code"], told[0]["detail"], field=told[0]["field"], errors=told)


def put(console: Console, wanted: NewLimit) -> Row:
    """Set a limit; the one that counts the same is changed in place.

    Raises:
        ApiProblem: it cannot be, or whoever asks may not set it.
    """
    _refuse_strange_models(console, wanted)
    row, before = proposed(console, wanted)
    row = claimed(console, before, row)
    limit_entries.write(console, before, row, wanted.reason or "")
    return row


def claimed(console: Console, before: Row | None, row: Row) -> Row:
    """A limit's row with a note of the scope and role of whoever writes it, which says who may change it from then on.

    Raises:
        ApiProblem: ``role_forbidden``: it was set from above, or would bind somebody outside of that scope.
    """
    scope = console.principal.scope
    if not scope.sees("limit", row):
        names = ", ".join(f"{name}={value}" for name, value in scope.named.items())
        raise ApiProblem("role_forbidden", f"your key limits only what it is of; select {names}", field="select")
    if before is not None and not may_change_limit(scope, before):
        raise ApiProblem("role_forbidden", SET_ABOVE)
    details = {name: value for name, value in (row["details"] or {}).items() if name not in (SET_BY, SET_BY_ROLE)}
    return {**row, "details": details | setter_note(console.principal)}


def proposed(console: Console, wanted: NewLimit) -> tuple[Row, Row | None]:
    """The row that setting a limit would write, checked and not written, and the one that it would replace.

    Raises:
        ApiProblem: it cannot be.
    """
    window = wanted.window or ""
    now = console.clock.wall_nanos()
    # What whoever asks leaves out of his own scope is meant: he cannot limit anybody else.
    select = console.principal.scope.named | wanted.select
    select = _as_kept(console, select, "select")
    row: Row = {
        "id": "",
        "name": canonical(select, wanted.each, wanted.unit, window),
        "selector": select,
        "each": list(wanted.each),
        "unit": wanted.unit,
        "amount": amount_of(wanted.unit, wanted.amount),
        "window": window,
        "timezone": wanted.timezone,
        "mode": wanted.mode,
        "contact": wanted.contact or "",
        "clamp": int(wanted.clamp),
        "source": "api",
        "terms": None,
        "details": {},
        "created_at": now,
        "updated_at": now,
    }
    _check(row)
    found = console.all_books.listing("limit", name=row["name"], limit=1)
    if found:
        kept = {"id", "created_at", "source", "terms", "details", *(_KEPT - wanted.model_fields_set)}
        row |= {name: found[0][name] for name in kept}
    else:
        row["id"] = console.new_id("lim_")
    _set_terms(console, row, wanted, now)
    return row, found[0] if found else None


def _key_id(console: Console, wanted: str, organization: str, field: str) -> str:
    """The id of the key that a selector means by its id or its name; in another form the limit would bind nobody.

    Keys that have ended go on being named by their ids. What is a secret is left for ``_check`` to refuse.

    Raises:
        ApiProblem: ``field_enum``: it is neither, or the name of several.
    """
    if wanted.startswith(tokens.ID_PREFIX) or keys.holds_one(wanted):
        return wanted
    if len(wanted) <= ID_CHARACTERS_MAX and console.books.get("key", wanted) is not None:
        return wanted
    within = {"organization": organization} if organization else {}
    rows = console.books.listing("key", name=normalize("NFC", wanted), deleted_at=0, limit=_NAMESAKES_MAX, **within)
    meant = [row for row in rows if row["state"] != "revoked"] or rows
    if len(meant) == 1:
        return str(meant[0]["id"])
    if meant:
        rule = (
            f"key: the name is that of {', '.join(row['id'] for row in meant[:10])}; write the id of the one you mean"
        )
    else:
        rule = (
            f"key: there is no key {wanted[:64]!r}; write its id (key_…) or its name, as `faregate key list` tells them"
        )
    raise ApiProblem("field_enum", rule, field=field)


def _as_kept(console: Console, named: Mapping[str, str], field: str, organization: str = "") -> dict[str, str]:
    """Names as selectors hold them: those of payers in the composed form, in another one a limit would bind nobody.

    A key's name is that of one in ``organization`` where the names themselves name none.
    """
    kept = {name: normalize("NFC", value) if name in _PAYERS else value for name, value in named.items()}
    if "key" in kept:
        kept["key"] = _key_id(console, kept["key"], kept.get("organization", organization), field)
    return kept


def _refuse_strange_models(console: Console, wanted: TermsAsked) -> None:
    """Refuse a downgrade that leads nowhere: whoever set it would believe that it holds.

    Raises:
        ApiProblem: ``field_enum``.
    """
    targets = {action.to for action in wanted.actions or () if action.do == "downgrade" and action.to}
    if not targets:
        return
    names = [route.model for route in compiled(console).routes]
    # Without a configuration nobody knows the names.
    strange = sorted(targets - set(names)) if names else []
    if strange:
        hint = did_you_mean(strange[0], names)
        rule = f"to: no model is called {strange[0][:64]!r}{'; ' + hint if hint else ''}"
        raise ApiProblem("field_enum", rule, field="actions")


def _set_terms(console: Console, row: Row, wanted: TermsAsked, now: int) -> None:
    """Put the terms that were sent into a limit's row that is right otherwise; those that were not sent stay.

    Raises:
        ApiProblem: they cannot be.
    """
    if wanted.except_:
        organization = row["selector"].get("organization", "")
        spared = [_as_kept(console, each, "except", organization) for each in wanted.except_]
        wanted = wanted.model_copy(update={"except_": spared})
    denials = console.facts.denials
    if wanted.denial and denials is not None and wanted.denial not in denials:
        known = ", ".join(sorted(denials)[:20])
        raise ApiProblem("field_enum", f"no denial is called {wanted.denial[:64]!r}; one of: {known}", field="denial")
    terms = asked_terms(row, wanted, lambda amount, field: amount_of(row["unit"], amount, field), now)
    row["terms"] = stored_terms(terms)
    _check(row)


def named(console: Console, limit_id: str) -> Row:
    """The limit of this id.

    Raises:
        NotFound: there is none.
    """
    row = console.books.get("limit", limit_id) if len(limit_id) <= ID_CHARACTERS_MAX else None
    if row is None:
        raise NotFound("there is no such limit")
    return row


def change(console: Console, limit_id: str, wanted: LimitChange) -> Row:
    """Change what was sent.

    Raises:
        NotFound: no such limit.
        ApiProblem: a value that cannot be.
    """
    _refuse_strange_models(console, wanted)
    before = named(console, limit_id)
    row = claimed(console, before, changed(console, before, wanted))
    limit_entries.write(console, before, row, wanted.reason or "")
    return row


def changed(console: Console, before: Row, wanted: LimitChange) -> Row:
    """A limit's row with what was sent, checked and not written.

    Raises:
        ApiProblem: a value that cannot be.
    """
    row = dict(before)
    sent = {name: getattr(wanted, name) for name in wanted.model_fields_set & _CHANGED}
    for name in ("mode", "clamp"):
        if name in sent and sent[name] is None:
            raise ApiProblem("field_range", "must not be null", field=name)
    if "amount" in sent:
        sent["amount"] = amount_of(row["unit"], sent["amount"])
    if "contact" in sent:
        sent["contact"] = sent["contact"] or ""
    if "clamp" in sent:
        sent["clamp"] = int(sent["clamp"])
    now = console.clock.wall_nanos()
    row |= {**sent, "updated_at": now}
    # With the terms that it had, what is changed together with them could not be.
    _check({**row, "terms": None})
    _set_terms(console, row, wanted, now)
    return row


def shape(row: Row, standing: LimitView, subjects_max: int) -> dict[str, Any]:
    """A limit as the API shows it, with where it stands."""
    unit = row["unit"]

    def counted(posted: int, held: int, amount: int | None) -> dict[str, Any]:
        remaining = None if amount is None else max(amount - posted - held, 0)
        return {
            "posted": amount_text(unit, posted),
            "held": amount_text(unit, held),
            "remaining": amount_text(unit, remaining),
        }

    shown: dict[str, Any] = {
        "id": row["id"],
        "select": row["selector"],
        "each": row["each"],
        "unit": unit,
        "amount": amount_text(unit, row["amount"]),
        "amount_now": amount_text(unit, standing.amount_now),
        "window": or_none(row["window"]),
        "timezone": row["timezone"],
        "mode": row["mode"],
        "clamp": bool(row["clamp"]),
        "contact": or_none(row["contact"]),
        "source": row["source"],
        **shown_terms(row),
        **counted(standing.posted, standing.held, standing.amount_now),
        "window_start": time_text(standing.window_start),
        "resets_at": time_text(standing.resets_at),
        "created_at": time_text(row["created_at"]),
        "updated_at": time_text(row["updated_at"]),
    }
    if row["each"]:
        shown["remaining"] = None
        shown["subjects_count"] = len(standing.subjects)
        shown["subjects"] = [
            {
                "subject": dict(zip(row["each"], subject, strict=True)),
                **counted(posted, held, standing.amounts.get(subject, standing.amount_now)),
            }
            for subject, (posted, held) in sorted(standing.subjects.items())[:subjects_max]
        ]
    return shown


def _by_selector(console: Console, filters: Mapping[str, str]) -> dict[str, Any]:
    """Filters of a list as the books take them, with names as selectors hold them.

    Raises:
        ApiProblem: ``filter_invalid``: something that no limit selects.
    """
    found: dict[str, Any] = {}
    window = filters.get("window", "")
    if window and window not in WINDOWS and not rolling_nanos(window):
        rule = f"expected one of {', '.join(WINDOWS)}, or rolling with a length such as rolling 24h"
        raise ApiProblem("filter_invalid", rule, field="window")
    for name, value in filters.items():
        if name not in DIMENSIONS and not name.startswith(TAG_PREFIX):
            if name.startswith(METADATA_PREFIX):
                raise ApiProblem("filter_invalid", "no limit selects by metadata, only by tag.NAME", field=name)
            found[name] = value
            continue
        wanted: object = normalize("NFC", value) if name in _PAYERS else value
        if name == "key":
            # Whoever knows it by its name means each key that is called so.
            called = console.books.listing("key", name=normalize("NFC", value), limit=_NAMESAKES_MAX)
            wanted = [value, *(row["id"] for row in called)]
        found[f"selector.{name}"] = wanted
    return found


async def _shown(console: Console, row: Row) -> dict[str, Any]:
    standing = (await limit_views(console, [row]))[row["id"]]
    return shape(row, standing, SUBJECTS_READ)


@router.post("", status_code=201)
@needs("limits.write")
@answers(shapes.Limit)
async def set_limit(request: Request, wanted: NewLimit) -> dict[str, Any]:
    """Set a limit; it counts from the start of its current window."""
    console = console_of(request)
    row = await locked(console, lambda: put(console, wanted))
    applied = await acted(console, {})
    return {**await _shown(console, row), **applied}


@router.get("")
@needs("limits.read")
@lists(
    *(text(name, "What it selects.") for name in DIMENSIONS),
    choice("unit", tuple(KINDS), "What it counts."),
    text("window", "Over which time."),
    choice("mode", MODES, "Whether it refuses."),
    choice("source", ("api", "file", "apply", "quota", "stop", "brake"), "Who made it."),
    tags=True,
)
@answers(shapes.Limits)
async def list_limits(request: Request) -> dict[str, Any]:
    """Limits, oldest first; filters: what they select, ``tag.NAME`` too, ``unit``, ``window``, ``mode``, ``source``.

    ``?team=research`` lists those whose selector names this team, whatever else it names.
    """
    console = console_of(request)
    page = read_page(request)

    def read() -> list[Row]:
        filters = _by_selector(console, page.filters)
        return console.books.listing("limit", after=page.after, limit=page.limit + 1, **filters)

    rows = await in_thread(read)
    found = await limit_views(console, rows[: page.limit])
    return page_of(request, page, rows, lambda row: shape(row, found[row["id"]], SUBJECTS_LISTED))


@router.get("/{limit_id}")
@needs("limits.read")
@answers(shapes.Limit, versioned=True)
async def read_limit(request: Request, limit_id: str) -> dict[str, Any]:
    """One limit, with up to a thousand subjects of an each-limit."""
    console = console_of(request)
    return await _shown(console, versioned(request, await in_thread(lambda: named(console, limit_id))))


@router.patch("/{limit_id}")
@needs("limits.write")
@answers(shapes.Limit, versioned=True)
async def change_limit(request: Request, limit_id: str, wanted: LimitChange) -> dict[str, Any]:
    """Change amount, mode, clamp or contact. Lowering cancels no hold; raising acts at once."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: named(console, limit_id))
    row = versioned(request, await locked(console, lambda: change(console, limit_id, wanted), unchanged))
    applied = await acted(console, {})
    return {**await _shown(console, row), **applied}


@router.post("/{limit_id}/raises", status_code=201)
@needs("limits.write")
@answers(shapes.Limit, versioned=True)
async def raise_limit(request: Request, limit_id: str, wanted: NewRaise) -> dict[str, Any]:
    """Another amount for some time, after which the limit falls back by itself; past raises are forgotten."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: named(console, limit_id))

    def alone() -> Row:
        before, now = named(console, limit_id), console.clock.wall_nanos()
        asked = RaiseAsked.model_validate({"amount": wanted.amount, "from": wanted.from_, "until": wanted.until})
        row = {**before, "updated_at": now}
        amount = amount_of(row["unit"], wanted.amount)
        made = raise_of(asked, amount, now)
        row["terms"] = stored_terms(terms_of(row)._replace(raises=(*raises_kept(row, now), made)))
        _check(row)
        row = claimed(console, before, row)
        limit_entries.write(console, before, row, wanted.reason or "")
        return row

    row = versioned(request, await locked(console, alone, unchanged))
    applied = await acted(console, {})
    return {**await _shown(console, row), **applied}


@router.delete("/{limit_id}")
@needs("limits.write")
@answers(Removed, versioned=True)
async def delete_limit(request: Request, limit_id: str) -> dict[str, Any]:
    """Remove a limit; from then on nothing counts towards it."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: named(console, limit_id))

    def alone() -> None:
        row = named(console, limit_id)
        if not may_change_limit(console.principal.scope, row):
            raise ApiProblem("role_forbidden", SET_ABOVE)
        if row["source"] == "file":
            raise Conflict("this limit is declared in the configuration file; remove it there")
        limit_entries.remove(console, row)

    await locked(console, alone, unchanged)
    return await acted(console, {"id": limit_id, "deleted": True})
