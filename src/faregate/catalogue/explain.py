"""Where a price comes from: the cards of a model at a moment with the layer of each rate, or why there are none.

It looks at what ``compile`` made of a declaration and decides nothing itself, so that what it says is what is billed.
"""

from collections.abc import Sequence

from faregate.catalogue.bundled import LeftOut, ListPrice
from faregate.catalogue.compile import ANY_MODEL, CatalogueProblem, compile_catalogue
from faregate.catalogue.corrections import known_models, known_price
from faregate.catalogue.declared import Declared, PriceRow
from faregate.catalogue.timeline import GLOBAL
from faregate.control import Catalogue, Deployment
from faregate.core.money import dollars_of_picos
from faregate.core.pricing.card import Rate, RateCard, is_provisional
from faregate.core.pricing.listing import BundledList, ExplainedCard, Explanation, RateOrigin


def explain(declared: Declared, provider: str, model: str, at: int) -> tuple[Explanation, ...]:
    """What ``model`` costs ``at`` a moment, at ``provider`` or, where that is empty, at each provider that has it.

    ``model`` is a name that callers may use, a deployment's, or what a price is declared for.
    """
    compiled = compile_catalogue(declared)
    catalogue = compiled.catalogue
    found: dict[tuple[str, str], Explanation] = {}
    for deployment in _named(catalogue, model):
        place = deployment.provider, deployment.model
        if provider in ("", deployment.provider) and place not in found:
            found[place] = _explained(declared, catalogue, deployment, at, compiled.problems)
    if found:
        return tuple(found.values())
    names = [each.name for each in catalogue.providers if provider in ("", each.name)]
    kinds = {each.name: each.kind for each in catalogue.providers}
    return tuple(Explanation(name, model, (), _why_absent(kinds[name], name, model)) for name in names)


def bundled_list(kinds: Sequence[str], edition: str) -> BundledList:
    """The list prices of some kinds of providers, by ``kind/model``, each as text by what it prices."""
    prices: dict[str, dict[str, str]] = {}
    for kind in kinds:
        for model in known_models(kind):
            known = known_price(kind, model)
            if isinstance(known, ListPrice):
                prices[f"{kind}/{model}"] = {
                    _what(rate, service_tier, tier.above_input_tokens): f"{dollars_of_picos(rate.pico)} per {rate.per}"
                    for service_tier, stretches in (("", known.stretches), *known.service_tiers)
                    for tier in stretches[-1].tiers
                    for rate in tier.rates
                }
    return BundledList(edition, prices)


def _what(rate: Rate, service_tier: str, above: int) -> str:
    parts = (rate.unit, rate.variant, service_tier, f"above {above}" if above else "")
    return " ".join(part for part in parts if part)


def _named(catalogue: Catalogue, model: str) -> list[Deployment]:
    """The deployments that a name means: those of its route first, then those that it is the model or the name of."""
    by_name = {each.name: each for each in catalogue.deployments}
    routed = next((route.to for route in catalogue.routes if route.model == model), ())
    found = [by_name[name] for name in routed]
    found += [each for each in catalogue.deployments if model in (each.name, each.model, each.upstream_model)]
    return found


def _explained(
    declared: Declared, catalogue: Catalogue, deployment: Deployment, at: int, problems: Sequence[CatalogueProblem]
) -> Explanation:
    cards = tuple(
        ExplainedCard(card, _origins(declared, card, at), _notes(card))
        for card in deployment.cards
        if card.effective_from <= at and not 0 < card.effective_to <= at
    )
    about = f"{deployment.model!r} at {deployment.provider!r}"
    reasons = list(dict.fromkeys(each.message for each in problems if about in each.message))
    if not cards:
        kind = next(each.kind for each in catalogue.providers if each.name == deployment.provider)
        if deployment.cards:
            reasons.append("no price is in force at that moment; it has prices at others")
        reasons += [text for text in _why_absent(kind, deployment.provider, deployment.model) if not reasons]
    return Explanation(deployment.provider, deployment.model, cards, tuple(reasons))


def _notes(card: RateCard) -> tuple[str, ...]:
    if is_provisional(card.version):
        return ("provisional: what is booked with it is corrected when a price of the model arrives",)
    return ()


def _why_absent(kind: str, provider: str, model: str) -> tuple[str, ...]:
    known = known_price(kind, model)
    if isinstance(known, LeftOut):
        return (f"the list price of {model!r} is not used: {known.reason}",)
    if known is None:
        return (f"no price list knows {model!r}, and none is imported or set for {provider!r}",)
    return (f"{model!r} has a list price, but no deployment of {provider!r} offers it",)


def _origins(declared: Declared, card: RateCard, at: int) -> tuple[RateOrigin, ...]:
    rows = [
        row
        for row in declared.overrides
        if row.provider == card.provider
        and row.model in (card.model, ANY_MODEL)
        and row.effective_from <= at
        and not 0 < row.effective_to <= at
    ]
    # What lies highest comes first: an override above what was imported, and then what began or was given later.
    rows.reverse()
    rows.sort(key=_depth)
    return tuple(_origin(rows, card, rate, tier.above_input_tokens) for tier in card.tiers for rate in tier.rates)


def _depth(row: PriceRow) -> tuple[bool, bool, int]:
    return row.model == ANY_MODEL, row.layer == "imported", -row.effective_from


def _origin(rows: Sequence[PriceRow], card: RateCard, rate: Rate, above: int) -> RateOrigin:
    for row in rows:
        same_unit = (row.unit, row.variant) == (rate.unit, rate.variant)
        same_card = row.service_tier in ("", card.service_tier) and row.region in ("", card.region or GLOBAL)
        if same_unit and same_card and row.price_pico * rate.per == rate.pico * row.per:
            source = "fallback price" if row.model == ANY_MODEL else row.source
            return RateOrigin(above, rate.unit, rate.variant, row.layer, source)
    return RateOrigin(above, rate.unit, rate.variant, "bundled", card.source)
