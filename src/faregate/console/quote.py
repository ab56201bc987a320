"""``POST /api/v1/quote``: what an intended call will cost at least and at most. Nothing is sent, and nothing is held.

The request is read by the dialect of its endpoint, priced at every place that may answer it, and asked of the limits of
a key, so that the answer is that of the gate at this moment.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Final, NamedTuple

import msgspec
from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console import admission
from faregate.console.allowances import limit_views
from faregate.console.compile import limit_of
from faregate.console.describing import answers
from faregate.console.drafts import REQUEST, Draft, draft, operation_of, service_draft
from faregate.console.input_tokens import InputTokens, input_tokens
from faregate.console.prices import compiled
from faregate.console.problems import ApiProblem
from faregate.console.reading import every, in_thread
from faregate.console.rights import needs
from faregate.console.shapes import calls as shapes
from faregate.console.state import Console
from faregate.console.texts import Body, Dollars, Name, or_none, time_text
from faregate.console.ways import along, caller_of
from faregate.console.writing import console_of
from faregate.control import Catalogue, Deployment, Provider
from faregate.control import compiled as compiled_limit
from faregate.core import money
from faregate.core.amounts import UNITS, Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.admit import UNLIMITED, LimitRefusal
from faregate.core.limits.index import CompiledLimit, LimitIndex
from faregate.core.pricing.card import RateCard
from faregate.core.pricing.charging import AT_COST, rule_for, text_of
from faregate.core.pricing.cost import CostLine, Tariff
from faregate.core.pricing.quote import Offer, Quote, Span, largest_cap, quote, together
from faregate.core.routing.ways import Caller
from faregate.core.usage import COUNT_MAX
from faregate.dialects.operations import BY_NAME
from faregate.errors import NotFound
from faregate.ports import Row

router = APIRouter(prefix="/quote", tags=["quote"])

DEFAULT_ENDPOINT: Final = "/v1/chat/completions"


class NewQuote(Body):
    """A call that somebody thinks of making."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset()

    #: A path of the gateway's, or the name of an operation.
    endpoint: str = Field(default=DEFAULT_ENDPOINT, min_length=1, max_length=512)
    #: The body as it would be sent; for a form its fields, with ``seconds`` of audio or a number of ``images`` for the
    #: files, for speech ``characters`` in place of ``input``, and for a service ``bytes`` in place of any body.
    request: dict[str, Any]
    #: Id of the key that would make the call.
    key: str | None = Field(default=None, max_length=64)
    stage: Name | None = None
    project: Name | None = None
    #: As ``x-faregate-user``, ``x-faregate-run`` and ``x-faregate-tags`` would say.
    user: Name | None = None
    run: Name | None = None
    tags: dict[str, str] = Field(default_factory=dict, max_length=32)
    #: Dollars as a decimal text that the call should fit.
    amount: Dollars | None = None


class _Asked(msgspec.Struct):
    """The part of our body that is passed on as it came."""

    request: msgspec.Raw


class _Place(NamedTuple):
    """A deployment that may answer, with everything that is known of the call there."""

    deployment: Deployment
    incoming: InputTokens
    offer: Offer
    who: Attribution
    quote: Quote
    #: The call's own cap or the model's maximum, 0 where neither is known.
    whole: int


@router.post("")
@needs("quotes.read")
@answers(shapes.Quote, refusals=(404,))
async def make_quote(request: Request, wanted: NewQuote) -> dict[str, Any]:
    """What a call costs at least and at most, what would fit, and whether it would be refused now."""
    console = console_of(request)
    operation = operation_of(wanted.endpoint)
    declared = BY_NAME.get(operation.name)
    if not operation.metered or (declared is not None and declared.free):
        return {"operation": operation.name, **_NOTHING}
    now = console.clock.wall_nanos()
    amount = _amount(wanted.amount)
    raw = bytes(msgspec.json.decode(await request.body(), type=_Asked).request)

    def look() -> tuple[Draft, Row | None, list[_Place], list[CompiledLimit], list[Row], Catalogue]:
        private = console.facts.forbid_private_urls
        if operation.below is None:
            # What the gateway would refuse is told without compiling anything.
            made = draft(operation, raw, wanted.request, forbid_private_urls=private)
        key = _key(console, wanted.key)
        catalogue = compiled(console)
        if operation.below is not None:
            made = service_draft(operation, catalogue, raw, wanted.request)
        places = _places(console, catalogue, made, key, wanted, now)
        rows = every(console.books, "limit") if key is not None else []
        limits = [compiled_limit(limit_of(row)) for row in rows]
        matching = {limit.id for limit in LimitIndex(limits).matching(places[0].who)}
        kept = [limit for limit in limits if limit.id in matching]
        return made, key, places, kept, [row for row in rows if row["id"] in matching], catalogue

    made, key, places, limits, rows, catalogue = await in_thread(look)
    figures = await limit_views(console, rows)

    def answer() -> dict[str, Any]:
        question = admission.Question(places[0].who, limits, figures, now)
        room = question.room if key is not None else Amounts(*[UNLIMITED] * len(UNITS))
        if amount is not None:
            room = room._replace(usd=min(room.usd, amount))
        facts = console.facts
        outcome = admission.Outcome()
        if key is not None:
            first = places[0]
            outcome = question.outcome(
                made.call, first.offer, first.whole, facts.default_output_tokens, facts.min_answer_tokens
            )
        refused = _refused_before(key, made, now) if key is not None else None
        required = catalogue.require_limit or places[0].who.stage in catalogue.require_limit_stages
        if refused is None and key is not None and required and not question.money_limited:
            refused = {"code": "limit_required", "detail": "no money limit applies to this key", "limit": None}
        if refused is None and outcome.refusal is not None:
            refused = _refusal(outcome.refusal)
        return {
            "operation": operation.name,
            "model": made.call.model,
            "key": key["id"] if key is not None else None,
            **_shape(places, made),
            "max_tokens_that_fits": _fitting(places, made, room),
            "clamped_to": outcome.clamped_to or None,
            "would_be_refused": refused,
            "limits": [_limit(limit, question) for limit in question.limits],
        }

    return await in_thread(answer)


def _amount(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return money.nanos(text)
    except ValueError as problem:
        raise ApiProblem("field_range", str(problem), field="amount") from problem


def _key(console: Console, key_id: str | None) -> Row | None:
    if key_id is None:
        return None
    row = console.books.get("key", key_id)
    if row is None:
        raise NotFound("there is no such key")
    return row


# -- places ------------------------------------------------------------------------------------------------------------


def _places(
    console: Console, catalogue: Catalogue, made: Draft, key: Row | None, wanted: NewQuote, now: int
) -> list[_Place]:
    """The deployments that the gate would try, in order, up to the first one that it would refuse the call for.

    Raises:
        ApiProblem: there is none.
    """
    stage = wanted.stage or (key["stage"] if key is not None else "")
    places: list[_Place] = []
    for deployment, provider in _candidates(catalogue, made, caller_of(key or {}, stage, wanted.project or "")):
        try:
            places.append(_place(console, catalogue, made, key, wanted, (deployment, provider), now))
        except ApiProblem:
            if not places:
                raise
            break
    return places


def _candidates(catalogue: Catalogue, made: Draft, caller: Caller) -> list[tuple[Deployment, Provider]]:
    model, operation, stage = made.call.model, made.operation.name, caller.stage
    route = next((route for route in catalogue.routes if route.model == model), None)
    deployments = {each.name: each for each in catalogue.deployments}
    providers = {each.name: each for each in catalogue.providers}
    to = [deployments[name] for name in along(catalogue, route, caller) if name in deployments] if route else []
    if made.operation.below is not None:
        # A service is its own place.
        to = [deployments[operation]]
    allowed = catalogue.stages.get(stage)
    found = [
        (each, providers[each.provider])
        for each in to
        if operation in each.operations and (allowed is None or each.provider in allowed)
    ]
    if found:
        return found
    field = f"{REQUEST}.model"
    if to and allowed is not None and not any(each.provider in allowed for each in to):
        raise ApiProblem("stage_forbidden", "this stage has no provider for this model", field=field)
    raise ApiProblem("model_not_found", f"this model is not configured for {operation}", field=field)


def _place(
    console: Console,
    catalogue: Catalogue,
    made: Draft,
    key: Row | None,
    wanted: NewQuote,
    where: tuple[Deployment, Provider],
    now: int,
) -> _Place:
    deployment, provider = where
    call = made.call
    who = _who(made, key, wanted, deployment)
    cards = _cards(deployment, made, now)
    incoming = input_tokens(made, deployment, provider, console.tokenizer)
    whole = call.output_cap if call.output_cap is not None else deployment.output_tokens_max
    # Without any maximum the gateway gives the call a cap of its own.
    cap = whole or (console.facts.default_output_tokens if call.output_cap is None else 0)
    offer = Offer(cards, incoming.span, cap, rule_for(catalogue.charges, who) or AT_COST)
    return _Place(deployment, incoming, offer, who, quote(call, offer), whole)


def _cards(deployment: Deployment, made: Draft, now: int) -> list[RateCard]:
    """The rate cards by which an answer may be billed: the standard tier's, then that of the tier asked for.

    Raises:
        ApiProblem: ``price_unknown``.
    """
    call = made.call
    held = [card for card in deployment.cards if card.effective_from <= now < (card.effective_to or now + 1)]
    standard = [card for card in held if not card.service_tier]
    if not standard:
        raise ApiProblem("price_unknown", "this model has no valid price; set one", field=f"{REQUEST}.model")
    missing = Tariff(standard[0]).uncovered((*call.at_most, *call.declared))
    if missing:
        raise ApiProblem("price_unknown", f"this model has no price for {missing[:128]}", field=f"{REQUEST}.model")
    tier = [card for card in held if card.service_tier == call.service_tier] if call.service_tier else []
    if call.service_tier and not tier:
        rule = f"this model has no price in the tier {call.service_tier[:32]}"
        raise ApiProblem("price_unknown", rule, field=f"{REQUEST}.service_tier")
    return [*standard, *tier]


def _who(made: Draft, key: Row | None, wanted: NewQuote, deployment: Deployment) -> Attribution:
    call, row = made.call, key or {}
    rights = row.get("may_set") or ()
    end_user = wanted.user or (call.end_user if "user" in rights else "")
    return Attribution(
        row.get("organization", ""),
        row.get("team", ""),
        wanted.project or row.get("project", ""),
        row.get("user", ""),
        end_user,
        row.get("id", ""),
        row.get("product", ""),
        wanted.stage or row.get("stage", ""),
        wanted.run or "",
        deployment.model,
        deployment.name,
        deployment.provider,
        made.operation.name,
        tuple(sorted(wanted.tags.items())),
    )


# -- refusals ----------------------------------------------------------------------------------------------------------


def _refused_before(key: Row, made: Draft, now: int) -> dict[str, Any] | None:
    """Why the gateway would not even look at the limits: the key's state and its rights."""
    code = ""
    if key["state"] == "revoked":
        code = "key_revoked"
    elif key["expires_at"] and now >= key["expires_at"]:
        code = "key_expired"
    elif key["state"] != "active":
        code = "key_disabled"
    elif key["role"] != "caller":
        code = "role_forbidden"
    elif key["operations"] is not None and made.operation.name not in key["operations"]:
        code = "operation_forbidden"
    elif key["models"] is not None and made.call.model not in key["models"]:
        code = "model_forbidden"
    return {"code": code, "detail": _KEY_FAULTS[code], "limit": None} if code else None


_KEY_FAULTS: Final = {
    "key_revoked": "this key was revoked",
    "key_expired": "this key has expired",
    "key_disabled": "this key is disabled",
    "role_forbidden": "this key opens the console; calls need a caller's key",
    "operation_forbidden": "this key may not call this endpoint",
    "model_forbidden": "this key may not use this model",
}


def _refusal(refusal: LimitRefusal) -> dict[str, Any]:
    limit = refusal.limit
    left = max(0, refusal.amount - refusal.posted - refusal.held)
    unit = limit.unit_name
    return {
        "code": refusal.code,
        "detail": f"the call may use up to {_told(unit, refusal.wanted)} {unit}, and {_told(unit, left)} are left",
        "limit": limit.id,
        "also": list(refusal.others),
        "resets_at": time_text(refusal.resets_at),
    }


# -- shapes ------------------------------------------------------------------------------------------------------------

_ZERO: Final = {"min": "0", "max": "0"}
_NOTHING: Final[dict[str, Any]] = {
    "model": None,
    "key": None,
    "deployments": [],
    "input_tokens": {"min": 0, "max": 0, "method": "exact"},
    "output_tokens": {"min": 0, "max": 0},
    "units": [],
    "cost": _ZERO,
    "charge": _ZERO,
    "lines": {"min": [], "max": []},
    "max_tokens_that_fits": None,
    "clamped_to": None,
    "would_be_refused": None,
    "limits": [],
}


def _shape(places: Sequence[_Place], made: Draft) -> dict[str, Any]:
    whole = together([place.quote for place in places])
    methods = {place.incoming.method for place in places}
    return {
        "deployments": [_deployment(place) for place in places],
        "input_tokens": {
            **_span(whole.input_tokens),
            "method": methods.pop() if len(methods) == 1 else "differs",
        },
        "output_tokens": _span(whole.output_tokens),
        "units": [
            {"unit": each.unit, "variant": or_none(each.variant), "min": each.least, "max": each.most}
            for each in whole.units
        ],
        "cost": _money(whole.cost),
        "charge": _money(whole.charge),
        "lines": {
            "min": [_line(line) for line in whole.least_lines],
            "max": [_line(line) for line in whole.most_lines],
        },
    }


def _deployment(place: _Place) -> dict[str, Any]:
    told, cards = place.quote, place.offer.cards
    return {
        "name": place.deployment.name,
        "provider": place.deployment.provider,
        "model": place.deployment.model,
        "price_version": cards[0].version,
        "tier_price_version": cards[-1].version if len(cards) > 1 else None,
        "charge_rule": or_none(text_of(place.offer.rule)),
        "input_tokens": {**_span(told.input_tokens), "method": place.incoming.method},
        "output_tokens": _span(told.output_tokens),
        "cost": _money(told.cost),
        "charge": _money(told.charge),
    }


def _line(line: CostLine) -> dict[str, Any]:
    return {
        "unit": line.unit,
        "variant": or_none(line.variant),
        "quantity": line.quantity,
        "price": money.dollars_of_picos(line.price_pico),
        "per": line.per,
        "priced_as": or_none(line.priced_as),
        "cost": money.dollars(money.half_even(line.numerator, line.denominator * money.PICOS_PER_NANO)),
    }


def _fitting(places: Sequence[_Place], made: Draft, room: Amounts) -> int | None:
    """The largest cap that fits wherever the call goes, at most what the model can say; ``None`` where none does."""
    caps = []
    for place in places:
        cap = largest_cap(made.call, place.offer, room)
        if cap is None or cap < 1:
            return None
        caps.append(min(cap, place.deployment.output_tokens_max or COUNT_MAX))
    return None if min(caps) == COUNT_MAX else min(caps)


def _limit(limit: CompiledLimit, question: admission.Question) -> dict[str, Any]:
    found = question.remaining(limit)
    return {
        "id": limit.id,
        "unit": limit.unit_name,
        "window": or_none(limit.window),
        "remaining": None if found is None else _told(limit.unit_name, found),
    }


def _told(unit: str, amount: int) -> str | int:
    return money.dollars(amount) if unit == "usd" else amount


def _span(span: Span) -> dict[str, int]:
    return {"min": span.least, "max": span.most}


def _money(span: Span) -> dict[str, str]:
    return {"min": money.dollars(span.least), "max": money.dollars(span.most)}
