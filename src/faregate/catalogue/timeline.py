"""The rate cards of one model by time: the list price with the operator's own prices laid over it.

Every moment at which a list price or an own price starts or ends splits the timeline; within each stretch the prices
stand still and become one card. A version names the content of its card: equal content has the same version for ever.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256

from faregate.catalogue.bundled import ListPrice, Stretch
from faregate.catalogue.declared import PriceRow
from faregate.core.pricing.card import PRICED_UNITS, Rate, RateCard, Tier


def successive_cards(
    provider: str, model: str, listed: ListPrice | None, rows: Sequence[PriceRow]
) -> tuple[RateCard, ...]:
    """The cards of ``model`` at ``provider``, oldest first; stretches without any price have none.

    A row replaces its unit's rate in all tiers while it is in force. Of two rows for the same unit that are both in
    force the one that started later wins, and of two that started together the later in ``rows``.
    """
    merged: list[tuple[Stretch, str]] = []
    for start, end in _stretches(listed, rows):
        tiers = _base(listed, start)
        active = {
            row.unit: row for row in sorted(rows, key=_start) if _holds(row.effective_from, row.effective_to, start)
        }
        sources = [listed.source] if listed is not None and tiers else []
        sources += dict.fromkeys(row.source for row in active.values())
        tiers = _laid_over(tiers, active)
        if not any(tier.rates for tier in tiers):
            continue
        source = " + ".join(sources)
        if merged and merged[-1] == (Stretch(merged[-1][0].effective_from, start, tiers), source):
            # Nothing of this model changed at that moment.
            merged[-1] = (Stretch(merged[-1][0].effective_from, end, tiers), source)
        else:
            merged.append((Stretch(start, end, tiers), source))
    return tuple(card(provider, model, stretch, source) for stretch, source in merged)


def card(provider: str, model: str, stretch: Stretch, source: str) -> RateCard:
    """One rate card with the version that its content gives it."""
    content = repr((provider, model, *stretch))
    version = f"{provider}/{model}@{sha256(content.encode()).hexdigest()[:12]}"
    return RateCard(provider, model, version, stretch.tiers, stretch.effective_from, stretch.effective_to, source)


def _start(row: PriceRow) -> int:
    return row.effective_from


def _holds(start: int, end: int, moment: int) -> bool:
    return start <= moment and (end == 0 or moment < end)


def _stretches(listed: ListPrice | None, rows: Sequence[PriceRow]) -> Iterator[tuple[int, int]]:
    """The stretches between all moments at which anything changes; the last one is open."""
    spans = [(stretch.effective_from, stretch.effective_to) for stretch in (listed.stretches if listed else ())]
    spans += [(row.effective_from, row.effective_to) for row in rows]
    moments = sorted({0, *(moment for span in spans for moment in span)})
    return zip(moments, [*moments[1:], 0], strict=True)


def _base(listed: ListPrice | None, moment: int) -> tuple[Tier, ...]:
    for stretch in listed.stretches if listed is not None else ():
        if _holds(stretch.effective_from, stretch.effective_to, moment):
            return stretch.tiers
    return ()


def _laid_over(tiers: tuple[Tier, ...], active: dict[str, PriceRow]) -> tuple[Tier, ...]:
    """The tiers with each row's rate in place of its unit's: named in the first tier, kept by those above it."""
    if not active:
        return tiers
    first, *above = tiers or (Tier(0, ()),)
    rates = {rate.unit: rate for rate in first.rates}
    rates |= {unit: Rate(unit, row.price_pico, row.per) for unit, row in active.items()}
    laid = [Tier(0, tuple(rates[unit] for unit in PRICED_UNITS if unit in rates))]
    for tier in above:
        kept = tuple(rate for rate in tier.rates if rate.unit not in active)
        if kept:
            laid.append(Tier(tier.above_input_tokens, kept))
    return tuple(laid)
