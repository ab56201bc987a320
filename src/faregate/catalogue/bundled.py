"""List prices that ship with us: genai-prices, offline, expanded into exact integer rates.

Where the price list would make a call cheaper than its bill, the model is left out and named by ``left_out``: prices
that depend on the time of day or on units that a usage report does not tell apart, models billed by the second, the
character or the web search, and models listed at nothing. What is left out is refused, never free.

Extras that a caller has to ask for (web and file searches, hour-long cache writes, batches, other service tiers) are no
part of these prices; until they are metered, asking for them is refused at the gate.
"""

import re
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from faregate.core.money import PICOS_PER_DOLLAR
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.cost import card_is_priced

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

#: Kind of a provider → its price lists, in order. Azure sells OpenAI's models at OpenAI's list price unless it has one
#: of its own.
_LISTS: Final[dict[str, tuple[str, ...]]] = {
    "openai": ("openai",),
    "azure_openai": ("azure", "openai"),
    "anthropic": ("anthropic",),
    "gemini": ("google",),
}

_UNITS: Final = {
    "input_mtok": "input_tokens",
    "cache_read_mtok": "cached_input_tokens",
    "cache_write_mtok": "cache_write_tokens",
    "input_audio_mtok": "input_audio_tokens",
    "output_mtok": "output_tokens",
    "output_reasoning_mtok": "reasoning_tokens",
    "output_audio_mtok": "output_audio_tokens",
    "requests_kcount": "requests",
}

#: Prices of extras; without a request for them they cost nothing.
_EXTRAS: Final = frozenset(
    {
        "web_searches_kcount",
        "social_searches_kcount",
        "storage_searches_kcount",
        "code_executions_kcount",
        "cache_write_5m_mtok",
        "cache_write_1h_mtok",
    }
)

#: Units that are counted within another one; they need no rate of their own where they cost the same.
_WITHIN: Final = {
    "cache_text_read_mtok": "cache_read_mtok",
    "cache_audio_read_mtok": "cache_read_mtok",
    "cache_image_read_mtok": "cache_read_mtok",
    "cache_video_read_mtok": "cache_read_mtok",
    "cache_text_write_mtok": "cache_write_mtok",
    "input_text_mtok": "input_mtok",
    "input_image_mtok": "input_mtok",
    "input_video_mtok": "input_mtok",
    "output_text_mtok": "output_mtok",
    "output_image_mtok": "output_mtok",
    "output_video_mtok": "output_mtok",
}

#: Every call to these searches the web, and the search is billed.
_SEARCHES: Final = re.compile(r"-(?:deep-research|search)(?:-|$)")

#: Names as a caller would write them; the list also holds patterns and other gateways' spellings.
_CALLABLE: Final = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_PER_MILLION: Final = 1_000_000
_PER_THOUSAND: Final = 1_000


class Stretch(NamedTuple):
    """Prices for one stretch of time in nanoseconds since 1970 UTC; 0 is "always" and "open", as in ``RateCard``."""

    effective_from: int
    effective_to: int
    tiers: tuple[Tier, ...]


class ListPrice(NamedTuple):
    """What a list says of one model: its prices by time, oldest first."""

    stretches: tuple[Stretch, ...]
    source: str
    #: Context window as the list has it, 0 where it has none.
    context_tokens_max: int


class LeftOut(NamedTuple):
    """A model of a list that we do not price, and why."""

    kind: str
    model: str
    reason: str


@lru_cache(maxsize=4096)
def list_price(kind: str, model: str) -> ListPrice | LeftOut | None:
    """The list price of a model for a kind of provider: found, left out with the reason, or not listed (``None``)."""
    name = model.lower()
    for list_id in _LISTS.get(kind, ()):
        provider = _lists()[list_id]
        info = provider.find_model(name)
        if info is None:
            continue
        if _SEARCHES.search(name):
            return LeftOut(kind, model, "every call searches the web, which is billed apart")
        stretches = _stretches(info)
        if isinstance(stretches, str):
            return LeftOut(kind, model, stretches)
        if not all(_priced(stretch, name) for stretch in stretches):
            return LeftOut(kind, model, "the list has no price for its output")
        whose = "list price" if list_id == _LISTS[kind][0] else f"{provider.name} list price"
        return ListPrice(stretches, f"genai-prices {_edition()} {whose}", info.context_window or 0)
    return None


@cache
def listed(kind: str) -> tuple[str, ...]:
    """Names of all models that a kind of provider offers at a known list price, in the list's order.

    Azure offers none by itself: its deployments have names of their own.
    """
    if kind == "azure_openai":
        return ()
    names: dict[str, None] = {}
    for list_id in _LISTS.get(kind, ()):
        for info in _lists()[list_id].models:
            for name in _names(info):
                if isinstance(list_price(kind, name), ListPrice):
                    names[name] = None
    return tuple(names)


@cache
def left_out() -> tuple[LeftOut, ...]:
    """Every model of the lists that we do not price, with the reason."""
    found = []
    for kind, lists in _LISTS.items():
        for info in _lists()[lists[0]].models:
            for name in _names(info) or (info.id,):
                price = list_price(kind, name)
                if isinstance(price, LeftOut):
                    found.append(price)
    return tuple(found)


@cache
def _lists() -> "dict[str, Provider]":
    # Imported here, because the list takes half a second and 40 MB that a short command should not pay.
    from genai_prices.data import providers

    wanted = {list_id for lists in _LISTS.values() for list_id in lists}
    return {provider.id: provider for provider in providers if provider.id in wanted}


def _edition() -> str:
    from importlib.metadata import version

    return version("genai-prices")


def _names(info: "ModelInfo") -> tuple[str, ...]:
    """The names by which a model can be called: its id and its exact aliases, as far as they are not patterns."""
    from genai_prices.types import ClauseEquals, ClauseOr

    clauses = info.match.or_ if isinstance(info.match, ClauseOr) else [info.match]
    names = [info.id, *(clause.equals for clause in clauses if isinstance(clause, ClauseEquals))]
    return tuple(dict.fromkeys(name for name in names if _CALLABLE.fullmatch(name) and info.is_match(name)))


def _stretches(info: "ModelInfo") -> tuple[Stretch, ...] | str:
    """The prices of a model by time, or why they cannot be expressed."""
    from genai_prices.types import StartDateConstraint

    midnights = {datetime.min.replace(tzinfo=UTC)}
    for conditional in info.prices if isinstance(info.prices, list) else ():
        if isinstance(conditional.constraint, StartDateConstraint):
            midnights.add(datetime.combine(conditional.constraint.start_date, time(), UTC))
        elif conditional.constraint is not None:
            return "its price depends on the time of day"
    if info.prices == []:
        return "the list has no price for it"
    ordered = sorted(midnights)
    stretches: list[Stretch] = []
    for start, end in zip(ordered, [*ordered[1:], None], strict=True):
        tiers = _tiers(info.get_prices(start))
        if isinstance(tiers, str):
            return tiers
        first = start is ordered[0]
        stretches.append(Stretch(0 if first else _nanos(start), 0 if end is None else _nanos(end), tiers))
    return tuple(stretches)


def _priced(stretch: Stretch, name: str) -> bool:
    card = RateCard("", name, "", stretch.tiers)
    return card_is_priced(card, has_output="embedding" not in name)


def _nanos(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1_000


def _tiers(price: "ModelPrice") -> tuple[Tier, ...] | str:
    """One price entry as tiers with all their rates, or why it cannot be expressed."""
    prices: dict[str, Decimal | TieredPrices] = {
        key: value for key, value in vars(price).items() if value is not None and key not in _EXTRAS
    }
    for key in sorted(set(prices) - set(_UNITS)):
        # A unit that costs what its kind costs need not be told apart.
        if key not in _WITHIN or prices.pop(key) != prices.get(_WITHIN[key]):
            return f"it is billed by {key}, which is not measured apart"
    # A price of nothing in a list means that nobody looked it up.
    rated = {key: prices[key] for key in _UNITS if key in prices and _at(prices[key], 0)}
    if "input_mtok" not in rated:
        return "the list has no price for its input"
    starts = {0}
    for value in rated.values():
        if not isinstance(value, Decimal):
            starts.update(tier.start for tier in value.tiers)
    tiers = []
    for start in sorted(starts):
        rates = []
        for key, value in rated.items():
            per = _PER_THOUSAND if key == "requests_kcount" else _PER_MILLION
            picos = _at(value, start) * PICOS_PER_DOLLAR
            if picos != picos.to_integral_value():
                return f"its price of {key} has more than twelve decimals"
            rates.append(Rate(_UNITS[key], int(picos), per))
        tiers.append(Tier(start, tuple(rates)))
    return tuple(tiers)


def _at(price: "Decimal | TieredPrices", start: int) -> Decimal:
    """The price in force just above ``start`` input tokens."""
    if isinstance(price, Decimal):
        return price
    applicable = price.base
    for tier in price.tiers:
        if tier.start <= start:
            applicable = tier.price
    return applicable
