"""Rows of the books → what the gate is sent. It decides nothing and sends nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from faregate.console.kept_terms import terms_in
from faregate.console.reading import each_part
from faregate.control import Catalogue, Key, Limit
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.ports import Books, Row


def _tuple_or_none(value: Any) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value or ())


def _dict(value: Any) -> dict[str, Any]:
    return value or {}


#: What the gate is told of a key or a limit are columns of its row by the same names, some in another form.
_OF_KEY: Final[Mapping[str, Callable[[Any], Any]]] = {
    "digests": _dict,
    "models": _tuple_or_none,
    "operations": _tuple_or_none,
    "networks": _tuple_or_none,
    "paths": _tuple_or_none,
    "priorities": _tuple_or_none,
    "may_set": _tuple,
}
_OF_LIMIT: Final[Mapping[str, Callable[[Any], Any]]] = {
    "selector": _dict,
    "each": _tuple,
    "clamp": bool,
    "terms": terms_in,
}


def key_of(row: Row) -> Key:
    """A key as the gate sees it."""
    return Key(*(_OF_KEY.get(name, _as_it_is)(row[name]) for name in Key.__struct_fields__))


def limit_of(row: Row) -> Limit:
    """A limit as the gate enforces it."""
    return Limit(*(_OF_LIMIT.get(name, _as_it_is)(row[name]) for name in Limit.__struct_fields__))


def all_keys(books: Books) -> Iterator[Key]:
    """All keys as the gate sees them."""
    for columns in each_part(books, "key", Key.__struct_fields__):
        yield from map(Key, *_formed(columns, Key.__struct_fields__, _OF_KEY))


def all_limits(books: Books) -> Iterator[Limit]:
    """All limits as the gate enforces them."""
    for columns in each_part(books, "limit", Limit.__struct_fields__):
        yield from map(Limit, *_formed(columns, Limit.__struct_fields__, _OF_LIMIT))


def _formed(
    columns: Iterable[Iterable[Any]], names: Iterable[str], forms: Mapping[str, Callable[[Any], Any]]
) -> Iterator[Iterable[Any]]:
    """Columns in the form that the gate wants them in. They are taken whole: a start has millions of values."""
    for name, values in zip(names, columns, strict=True):
        yield map(forms[name], values) if name in forms else values


def _as_it_is(value: Any) -> Any:
    return value


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
