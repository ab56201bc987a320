"""List prices that ship with us: genai-prices, offline, expanded into exact integer rates.

Each model has its prices by time, and apart from them those of each service tier that the list knows: a tier without
prices of its own has no card, so that a call which asks for it can be refused. Units are ours; a unit that the list
does not name costs what ``core.pricing.cost`` says that it is a kind of.

Where the price list would make a call cheaper than its bill, the model is left out and named by ``left_out``: prices
that depend on the time of day or on units that nothing measures (video), models that search the web in every call
without saying so, and models listed at nothing. What is left out is refused, never free. What the list has wrong is
put right in ``corrections``.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from faregate.catalogue.aliases import is_tuned
from faregate.core.money import PICOS_PER_DOLLAR
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.cost import card_is_priced

if TYPE_CHECKING:
    from genai_prices.types import (
        ModelInfo,
        ModelPrice,
        Provider,
        StartDateConstraint,
        TieredPrices,
        TimeOfDateConstraint,
    )

#: Kind of a provider → its price lists, in order. Azure sells OpenAI's models at OpenAI's list price unless it has one
#: of its own.
_LISTS: Final[dict[str, tuple[str, ...]]] = {
    "openai": ("openai",),
    "azure_openai": ("azure", "openai"),
    "anthropic": ("anthropic",),
    "gemini": ("google",),
}

#: Price of the list → our unit, and for how many of it.
_UNITS: Final = {
    "input_mtok": ("input_tokens", 1_000_000),
    "cache_read_mtok": ("cached_input_tokens", 1_000_000),
    "cache_write_mtok": ("cache_write_tokens", 1_000_000),
    "cache_write_1h_mtok": ("cache_write_1h_tokens", 1_000_000),
    "input_audio_mtok": ("input_audio_tokens", 1_000_000),
    "cache_audio_read_mtok": ("cached_input_audio_tokens", 1_000_000),
    "input_image_mtok": ("input_image_tokens", 1_000_000),
    "cache_image_read_mtok": ("cached_input_image_tokens", 1_000_000),
    "output_mtok": ("output_tokens", 1_000_000),
    "output_reasoning_mtok": ("reasoning_tokens", 1_000_000),
    "output_audio_mtok": ("output_audio_tokens", 1_000_000),
    "output_image_mtok": ("output_image_tokens", 1_000_000),
    "requests_kcount": ("requests", 1_000),
    "web_searches_kcount": ("web_searches", 1_000),
    "storage_searches_kcount": ("file_searches", 1_000),
    "code_executions_kcount": ("code_sessions", 1_000),
    "rerank_searches_kcount": ("search_units", 1_000),
    "input_mchars": ("characters", 1_000_000),
    "audio_hours": ("seconds", 3_600),
    "input_document_kpages": ("pages", 1_000),
}

#: Prices that are told apart by nothing but the list: the same as these, where they cost the same.
_SAME_AS: Final = {
    "cache_write_5m_mtok": ("cache_write_mtok",),
    "cache_text_read_mtok": ("cache_read_mtok",),
    "cache_text_write_mtok": ("cache_write_mtok",),
    "cache_video_read_mtok": ("cache_image_read_mtok", "cache_read_mtok"),
    "input_text_mtok": ("input_mtok",),
    # Frames are images.
    "input_video_mtok": ("input_image_mtok", "input_mtok"),
    "output_text_mtok": ("output_mtok",),
    "output_video_mtok": ("output_image_mtok", "output_mtok"),
    "input_audio_hours": ("audio_hours",),
}

#: What the list calls our service tiers.
_TIERS: Final = {
    "priority": {"service_tier": "priority"},
    "flex": {"service_tier": "flex"},
    "batch": {"processing": "batch"},
    "fast": {"speed": "fast"},
}

#: Every call to these searches the web, and the search is billed.
_SEARCHES: Final = re.compile(r"-search(?:-|$)")

#: Names as a caller would write them; the list also holds patterns and other gateways' spellings.
_CALLABLE: Final = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
    #: The same for each service tier that has prices of its own.
    service_tiers: tuple[tuple[str, tuple[Stretch, ...]], ...] = ()


class LeftOut(NamedTuple):
    """A model of a list that we do not price, and why."""

    kind: str
    model: str
    reason: str


@lru_cache(maxsize=8192)
def list_price(kind: str, model: str) -> ListPrice | LeftOut | None:
    """The list price of a model for a kind of provider: found, left out with the reason, or not listed (``None``)."""
    name = model.lower()
    for list_id in _LISTS.get(kind, ()):
        provider = _lists()[list_id]
        info = provider.find_model(name)
        if info is None or is_tuned(name) != ("ft:" in info.id or ".ft-" in info.id):
            # Some entries match any name that holds theirs.
            continue
        if _SEARCHES.search(name):
            return LeftOut(kind, model, "every call searches the web, which is billed apart")
        stretches = _stretches(info)
        if isinstance(stretches, str):
            return LeftOut(kind, model, stretches)
        if not all(_priced(stretch, name) for stretch in stretches):
            return LeftOut(kind, model, "the list has no price for its output")
        own = list_id == _LISTS[kind][0]
        whose = "list price" if own else f"{provider.name} list price"
        # What OpenAI asks for its tiers is not what others who sell its models do.
        tiers = _service_tiers(info) if own else ()
        return ListPrice(stretches, f"genai-prices {_edition()} {whose}", info.context_window or 0, tiers)
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


@cache
def _edition() -> str:
    # To ask for it once for every model would take longer than all the prices do.
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
    if info.prices == []:
        return "the list has no price for it"
    midnights = _midnights(each.constraint for each in (info.prices if isinstance(info.prices, list) else ()))
    if midnights is None:
        return "its price depends on the time of day"
    stretches: list[Stretch] = []
    for start, end in zip(midnights, [*midnights[1:], None], strict=True):
        tiers = _tiers(info.get_prices(start))
        if isinstance(tiers, str):
            return tiers
        stretches.append(_stretch(start, end, tiers))
    return tuple(stretches)


def _service_tiers(info: "ModelInfo") -> tuple[tuple[str, tuple[Stretch, ...]], ...]:
    """The prices by time of each service tier that the list has some for.

    It knows nothing of the time before it looked them up, so that they begin late.
    """
    found = []
    for name, context in _TIERS.items():
        stretches = _variant_stretches(info, context)
        if stretches:
            found.append((name, stretches))
    return tuple(found)


def _variant_stretches(info: "ModelInfo", context: dict[str, str]) -> tuple[Stretch, ...]:
    variants = [each for each in info.price_variants or () if each.when == context and vars(each.prices)]
    conditions = [each.constraint for each in (info.prices if isinstance(info.prices, list) else ())]
    midnights = _midnights((*conditions, *(each.constraint for each in variants)))
    if not variants or midnights is None:
        return ()
    stretches = []
    for start, end in zip(midnights, [*midnights[1:], None], strict=True):
        if not any(each.constraint is None or each.constraint.active(start) for each in variants):
            continue
        tiers = _tiers(info.get_prices(start, context))
        if not isinstance(tiers, str):
            stretches.append(_stretch(start, end, tiers))
    return tuple(stretches)


def _midnights(
    constraints: "Iterable[StartDateConstraint | TimeOfDateConstraint | None]",
) -> list[datetime] | None:
    """Every moment at which a price may begin, the beginning of time first; ``None`` where it is one of every day."""
    from genai_prices.types import TimeOfDateConstraint

    midnights = {datetime.min.replace(tzinfo=UTC)}
    for constraint in constraints:
        if isinstance(constraint, TimeOfDateConstraint):
            return None
        if constraint is not None:
            midnights.add(datetime.combine(constraint.start_date, time(), UTC))
    return sorted(midnights)


def _stretch(start: datetime, end: datetime | None, tiers: tuple[Tier, ...]) -> Stretch:
    return Stretch(0 if start.year == 1 else _nanos(start), 0 if end is None else _nanos(end), tiers)


def _priced(stretch: Stretch, name: str) -> bool:
    card = RateCard("", name, "", stretch.tiers)
    return card_is_priced(card, has_output="embedding" not in name)


def _nanos(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1_000


def _tiers(price: "ModelPrice") -> tuple[Tier, ...] | str:
    """One price entry as tiers with all their rates, or why it cannot be expressed."""
    prices: dict[str, Decimal | TieredPrices] = {key: value for key, value in vars(price).items() if value is not None}
    for key in sorted(set(prices) - set(_UNITS)):
        same = next((each for each in _SAME_AS.get(key, ()) if each in prices), "")
        # A unit that costs what its kind costs need not be told apart.
        if not same or prices.pop(key) != prices[same]:
            return f"it is billed by {key}, which is not measured apart"
    # A price of nothing in a list means that nobody looked it up.
    rated = {key: prices[key] for key in _UNITS if key in prices and _at(prices[key], 0)}
    starts = {0}
    for value in rated.values():
        if not isinstance(value, Decimal):
            starts.update(tier.start for tier in value.tiers)
    tiers = []
    for start in sorted(starts):
        rates = []
        for key, value in rated.items():
            unit, per = _UNITS[key]
            picos = _at(value, start) * PICOS_PER_DOLLAR
            if picos != picos.to_integral_value():
                return f"its price of {key} has more than twelve decimals"
            rates.append(Rate(unit, int(picos), per))
        tiers.append(Tier(start, tuple(rates)))
    if not card_is_priced(RateCard("", "", "", tuple(tiers)), has_output=False):
        return "the list has no price for its input"
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
