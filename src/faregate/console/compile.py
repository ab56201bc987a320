"""Rows of the books → what the gate is sent. It decides nothing and sends nothing."""

from collections.abc import Iterable
from typing import Any

from faregate.console.limit_terms import terms_of
from faregate.control import Catalogue, Key, Limit
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.ports import Row


def key_of(row: Row) -> Key:
    """A key as the gate sees it."""
    return Key(
        id=row["id"],
        name=row["name"],
        digests={digest: int(until) for digest, until in (row["digests"] or {}).items()},
        organization=row["organization"],
        team=row["team"],
        project=row["project"],
        user=row["user"],
        product=row["product"],
        stage=row["stage"],
        role=row["role"],
        state=row["state"],
        expires_at=row["expires_at"],
        models=None if row["models"] is None else tuple(row["models"]),
        operations=None if row["operations"] is None else tuple(row["operations"]),
        may_set=tuple(row["may_set"] or ()),
        last4=row["last4"],
    )


def limit_of(row: Row) -> Limit:
    """A limit as the gate enforces it."""
    return Limit(
        id=row["id"],
        selector=dict(row["selector"] or {}),
        each=tuple(row["each"] or ()),
        unit=row["unit"],
        amount=row["amount"],
        window=row["window"],
        timezone=row["timezone"],
        mode=row["mode"],
        contact=row["contact"],
        clamp=bool(row["clamp"]),
        terms=terms_of(row),
    )


def card_rows(catalogue: Catalogue) -> list[Row]:
    """Every rate card of a catalogue as a row to keep, one per version."""
    cards: dict[str, RateCard] = {card.version: card for each in catalogue.deployments for card in each.cards}
    return [
        {
            "version": card.version,
            "provider": card.provider,
            "model": card.model,
            "tiers": [[tier.above_input_tokens, [list(rate) for rate in tier.rates]] for tier in card.tiers],
            "effective_from": card.effective_from,
            "effective_to": card.effective_to,
            "source": card.source,
            "service_tier": card.service_tier,
            "region": card.region,
        }
        for card in cards.values()
    ]


def card_of(row: Row) -> RateCard:
    """The rate card that was kept as ``row``."""
    tiers: Iterable[Any] = row["tiers"] or ()
    return RateCard(
        row["provider"],
        row["model"],
        row["version"],
        tuple(Tier(int(above), tuple(Rate(*rate) for rate in rates)) for above, rates in tiers),
        row["effective_from"],
        row["effective_to"],
        row["source"],
        row["service_tier"],
        row["region"],
    )
