"""The terms of a limit as people write them, and as they are shown."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from faregate.console.kept_terms import stored_terms, terms_of
from faregate.console.problems import ApiProblem
from faregate.console.texts import Amount, Body, Moment, Name, amount_text, moment, or_none, time_text
from faregate.console.zones import zone_of
from faregate.core.limits.term_rules import ACTIONS_MAX, PERCENT_MAX, RAISES_MAX, SPARED_MAX
from faregate.core.limits.terms import Action, Past, Raise, Spared, Terms
from faregate.core.limits.windows import window_of
from faregate.ports import Row

#: Amounts of the past that are remembered for what is carried over: one window back is all that is looked at.
_HISTORY_MAX: Final = 32

#: Reads an amount in the limit's unit: nano-dollars for ``usd``. The second argument is the field that it came in.
ReadAmount = Callable[[int | str | None, str], int | None]


class RaiseAsked(Body):
    """Another amount for some time."""

    amount: Amount
    #: Now, where it is not given.
    from_: Moment | None = Field(default=None, alias="from")
    until: Moment


class ActionAsked(Body):
    """What happens at a share of the amount."""

    do: Literal["notify", "throttle", "downgrade", "revoke", "stop"]
    #: Percent of the amount.
    at: int = Field(json_schema_extra={"minimum": 1, "maximum": PERCENT_MAX})
    #: Of what is spent, or of what will be at the end of the window.
    on: Literal["actual", "forecast"] = "actual"
    to: Name | None = None
    models: list[Name] = Field(default_factory=list, max_length=64)
    requests_per_minute: int = Field(default=0, json_schema_extra={"minimum": 0})


class TermsAsked(Body):
    """What a limit may say beyond whom it covers, its unit, amount and window; ``null`` is as usual."""

    algorithm: Literal["smooth"] | None = None
    burst: Amount | None = None
    #: ``MM-DD``.
    year_start: (
        Annotated[str, Field(max_length=5, json_schema_extra={"pattern": r"^(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])$"})]
        | None
    ) = None
    #: Most of what was left that the next window begins with.
    carry_over: Amount | None = None
    raises: Annotated[list[RaiseAsked], Field(max_length=64, json_schema_extra={"maxItems": RAISES_MAX})] | None = None
    from_: Moment | None = Field(default=None, alias="from")
    until: Moment | None = None
    estimate: bool | None = None
    actions: Annotated[list[ActionAsked], Field(max_length=32, json_schema_extra={"maxItems": ACTIONS_MAX})] | None = (
        None
    )
    #: Name of the answer that a refused caller gets, of those in the configuration.
    denial: Name | None = None
    #: Of a limit that counts each: whom it does not concern, by dimensions of ``each``.
    except_: (
        Annotated[list[dict[str, str]], Field(max_length=2_000, json_schema_extra={"maxItems": SPARED_MAX})] | None
    ) = Field(default=None, alias="except")


def asked_terms(row: Row, wanted: TermsAsked, amount_of: ReadAmount, now: int) -> Terms:
    """The terms of a limit's ``row`` with what was sent; what was not sent stays.

    Raises:
        ApiProblem: a value that cannot be read. Whether it may be is for ``core.limits.term_rules``.
    """
    terms, sent = terms_of(row), wanted.model_fields_set
    plain: dict[str, Any] = {}
    for name in ("algorithm", "year_start", "denial"):
        if name in sent:
            plain[name] = getattr(wanted, name) or ""
    if "burst" in sent:
        plain["burst"] = amount_of(wanted.burst, "burst") or 0
    if "estimate" in sent:
        plain["estimate"] = wanted.estimate is not False
    for name, asked in (("since", "from_"), ("until", "until")):
        if asked in sent:
            plain[name] = _moment(getattr(wanted, asked), asked.rstrip("_"))
    if "actions" in sent:
        plain["actions"] = tuple(_action(each) for each in wanted.actions or ())
        plain["forced"] = ()
    if "raises" in sent:
        plain["raises"] = tuple(raise_of(each, amount_of(each.amount, "raises"), now) for each in wanted.raises or ())
    elif row["amount"] is None:
        # What has ended is no reason against an unlimited amount.
        plain["raises"] = tuple(each for each in terms.raises if each.until > now)
    if "except_" in sent:
        plain["spared"] = tuple(spared_of(each) for each in wanted.except_ or ())
    if "carry_over" in sent:
        plain["carry_max"] = amount_of(wanted.carry_over, "carry_over") or 0
        if plain["carry_max"] and not terms.carry_max:
            # What is left of the window that runs is the first that goes over.
            zone, year_start = zone_of(row["timezone"]), plain.get("year_start", terms.year_start)
            plain["carry_from"] = window_of(row["window"], zone, now, year_start)[0]
    return terms._replace(**plain)


def spared_of(asked: Mapping[str, str]) -> Spared:
    """One exception as it is kept: its dimensions in one order, however they were written."""
    names = tuple(sorted(asked))
    return Spared(names, tuple(asked[name] for name in names))


def raises_kept(row: Row, now: int) -> tuple[Raise, ...]:
    """The raises that still count for something: those to come, in force, or in force when the last rest was left."""
    terms, since = terms_of(row), now
    if terms.carry_max:
        since = min(now, window_of(row["window"], zone_of(row["timezone"]), now, terms.year_start)[0] - 1)
    return tuple(each for each in terms.raises if each.until > since)


def with_history(before: Row | None, after: Row, now: int) -> Row:
    """``after`` with the amount that was in force before it, where what is carried over is worked out with it."""
    terms = terms_of(after)
    if before is None or before["amount"] == after["amount"] or not terms.carry_max:
        return after
    history = (*terms.history, Past(now, before["amount"]))[-_HISTORY_MAX:]
    return {**after, "terms": stored_terms(terms._replace(history=history))}


def shown_terms(row: Row) -> dict[str, Any]:
    """The terms of a limit as the API shows them; ``null`` and empty where they are as usual."""
    terms, unit = terms_of(row), row["unit"]
    return {
        "algorithm": or_none(terms.algorithm),
        "burst": amount_text(unit, terms.burst) if terms.burst else None,
        "year_start": or_none(terms.year_start),
        "carry_over": amount_text(unit, terms.carry_max) if terms.carry_max else None,
        "raises": [
            {"amount": amount_text(unit, each.amount), "from": time_text(each.since), "until": time_text(each.until)}
            for each in terms.raises
        ],
        "from": time_text(terms.since),
        "until": time_text(terms.until),
        "estimate": terms.estimate,
        "actions": [
            {
                "do": action.do,
                "at": action.percent,
                "on": action.basis,
                "to": or_none(action.to),
                "models": list(action.models),
                "requests_per_minute": action.requests_per_minute or None,
                "forced_until": next((time_text(each.until) for each in terms.forced if each.action == place), None),
            }
            for place, action in enumerate(terms.actions)
        ],
        "except": [dict(zip(each.names, each.values, strict=True)) for each in terms.spared],
        "denial": or_none(terms.denial),
        "reason": or_none(terms.reason),
    }


def raise_of(asked: RaiseAsked, amount: int | None, now: int) -> Raise:
    """A raise as it was asked for; it begins now where it does not say when.

    Raises:
        ApiProblem: a time that cannot be read.
    """
    since = _moment(asked.from_, "from") if asked.from_ is not None else now
    return Raise(amount or 0, since, _moment(asked.until, "until"))


def _action(asked: ActionAsked) -> Action:
    return Action(asked.do, asked.at, asked.on, asked.to or "", tuple(asked.models), asked.requests_per_minute)


def _moment(text: str | None, field: str) -> int:
    if text is None:
        return 0
    try:
        return moment(text)
    except ValueError as problem:
        raise ApiProblem("field_type", str(problem), field=field) from problem
