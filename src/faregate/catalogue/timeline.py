"""The rate cards of one model by time: the list price with the operator's own prices laid over it.

Every moment at which a list price or an own price starts or ends splits the timeline; within each stretch the prices
stand still and become one card. Each service tier is a timeline of its own. A version names the content of its card:
equal content has the same version for ever.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from faregate.catalogue.bundled import ListPrice, Stretch
from faregate.catalogue.declared import PriceRow
from faregate.catalogue.layers import counted_only, laid_over
from faregate.core.pricing.card import PROVISIONAL, SERVICE_TIERS, Rate, RateCard, Tier
from faregate.core.pricing.listing import LAYERS

#: Where a model is processed when nobody says where; no card names it.
GLOBAL: Final = "global"


def all_cards(
    provider: str, model: str, known: ListPrice | None, rows: Sequence[PriceRow], region: str = GLOBAL
) -> tuple[RateCard, ...]:
    """The cards of ``model`` at ``provider`` in a region: the standard ones by time, then those of each service tier.

    A tier has cards where the list or a row has prices of it. Tools cost in a tier what they cost without one; tokens
    have no price there but those of the tier itself.
    """
    fitting = [row for row in rows if row.region in ("", region)]
    where = "" if region == GLOBAL else region
    cards = list(successive_cards(provider, model, known, [row for row in fitting if not row.service_tier], where))
    listed = dict(known.service_tiers) if known is not None else {}
    for tier in SERVICE_TIERS[1:]:
        own = [row for row in fitting if row.service_tier == tier]
        if tier not in listed and not own:
            continue
        base = known
        if known is not None:
            stretches = listed.get(tier) or tuple(
                stretch._replace(tiers=counted_only(stretch.tiers)) for stretch in known.stretches
            )
            base = known._replace(stretches=stretches)
        cards += successive_cards(provider, model, base, own, where, tier)
    return tuple(cards)


def successive_cards(
    provider: str,
    model: str,
    listed: ListPrice | None,
    rows: Sequence[PriceRow],
    region: str = "",
    service_tier: str = "",
) -> tuple[RateCard, ...]:
    """The cards of ``model`` at ``provider``, oldest first; stretches without any price have none.

    A row replaces its unit's rate in all tiers while it is in force, or from its number of input tokens on. Of two rows
    for the same that are both in force the one of the higher layer wins, then the one that started later, and of two
    that started together the later in ``rows``.
    """
    merged: list[tuple[Stretch, str]] = []
    ordered = sorted(rows, key=_begins)
    for start, end in _stretches(listed, rows):
        tiers = _base(listed, start)
        sources = [listed.source] if listed is not None and tiers else []
        for layer in LAYERS:
            in_force = (row for row in ordered if row.layer == layer and _holds(row, start))
            active = {(row.unit, row.variant, row.above_input_tokens): row for row in in_force}
            tiers = laid_over(tiers, {place: _rate(row) for place, row in active.items()})
            sources += dict.fromkeys(row.source for row in active.values())
        if not any(tier.rates for tier in tiers):
            continue
        source = " + ".join(sources)
        if merged and merged[-1] == (Stretch(merged[-1][0].effective_from, start, tiers), source):
            # Nothing of this model changed at that moment.
            merged[-1] = (Stretch(merged[-1][0].effective_from, end, tiers), source)
        else:
            merged.append((Stretch(start, end, tiers), source))
    return tuple(card(provider, model, stretch, source, region, service_tier) for stretch, source in merged)


def card(
    provider: str,
    model: str,
    stretch: Stretch,
    source: str,
    region: str = "",
    service_tier: str = "",
    *,
    provisional: bool = False,
) -> RateCard:
    """One rate card with the version that its content gives it; tier and region, where there are some, stand in it."""
    special = (service_tier, region) if service_tier or region else ()
    content = repr((provider, model, *stretch, *special))
    mark = sha256(content.encode()).hexdigest()[:12]
    name = "#".join(part for part in (f"{provider}/{model}", service_tier, region) if part)
    version = f"{name}{PROVISIONAL if provisional else '@'}{mark}"
    return RateCard(
        provider,
        model,
        version,
        stretch.tiers,
        stretch.effective_from,
        stretch.effective_to,
        source,
        service_tier,
        region,
    )


def service_tiers(cards: Iterable[RateCard]) -> tuple[str, ...]:
    """The service tiers that have prices of their own; a call that asks for another one must be refused."""
    return tuple(dict.fromkeys(each.service_tier for each in cards if each.service_tier))


def _begins(row: PriceRow) -> int:
    return row.effective_from


def _rate(row: PriceRow) -> Rate:
    return Rate(row.unit, row.price_pico, row.per, row.variant)


def _holds(span: PriceRow | Stretch, moment: int) -> bool:
    return span.effective_from <= moment and (span.effective_to == 0 or moment < span.effective_to)


def _stretches(listed: ListPrice | None, rows: Sequence[PriceRow]) -> Iterator[tuple[int, int]]:
    """The stretches between all moments at which anything changes; the last one is open."""
    spans = [(stretch.effective_from, stretch.effective_to) for stretch in (listed.stretches if listed else ())]
    spans += [(row.effective_from, row.effective_to) for row in rows]
    moments = sorted({0, *(moment for span in spans for moment in span)})
    return zip(moments, [*moments[1:], 0], strict=True)


def _base(listed: ListPrice | None, moment: int) -> tuple[Tier, ...]:
    for stretch in listed.stretches if listed is not None else ():
        if _holds(stretch, moment):
            return stretch.tiers
    return ()
