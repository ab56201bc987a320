"""``/api/v1/reports/cache``: what the response cache saved and was charged for, and what providers' own caches saved.

The first is what this gateway did: calls that it answered itself. The second is what providers did with prompts that
they had read before, worked out from each record's own rate card: what the tokens would have cost as plain input less
what they cost. The two never overlap, since a call that the gateway answers reaches no provider.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from fastapi import APIRouter, Request

from faregate.console.compile import card_of
from faregate.console.describing import answers, asks, time
from faregate.console.paging import single_values
from faregate.console.reading import in_thread
from faregate.console.requests import FILTERS
from faregate.console.rights import needs
from faregate.console.shapes import calls as shapes
from faregate.console.state import Console
from faregate.console.texts import NANOS_PER_SECOND, or_none, second_text, time_text
from faregate.console.usage import BY_ASKED, SUBSCRIPTION, SUM_FILTERS, asked_period, key_names, read_by, sum_filters
from faregate.console.writing import console_of
from faregate.core import money
from faregate.core.pricing.cost import own_input
from faregate.core.pricing.prompt_cache import READ, PromptCachePrices, cache_measures
from faregate.core.slots import SLOT_NANOS
from faregate.core.usage import Usage
from faregate.ports import Row

router = APIRouter(prefix="/reports", tags=["reports"])

#: Calls of a day that are gone through at once; of a day with more, the hours are.
TOGETHER_MAX: Final = 500_000

_RATIO_PARTS: Final = 10_000
_HOUR: Final = 3_600 * NANOS_PER_SECOND
_DAY: Final = 24 * _HOUR


class CacheSums:
    """What caches did for some calls; money in nano-dollars, what providers' caches saved exactly in pico-dollars."""

    __slots__ = ("hit_charge", "hits", "misses", "provider_cached", "provider_saved", "provider_written", "saved_cost")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.saved_cost = 0
        self.hit_charge = 0
        self.provider_cached = 0
        self.provider_written = 0
        self.provider_saved = Fraction(0)

    def add(self, row: Row, prices: PromptCachePrices | None) -> None:
        """Count the calls of one row of ``Books.cache_use``."""
        if row["cache"] == "hit":
            self.hits += row["requests"]
            self.saved_cost += row["saved_cost"]
            self.hit_charge += row["charge"]
        elif row["cache"] == "miss":
            self.misses += row["requests"]
        other = row["other_units"]
        # The leaves are sums over the row's calls; the other units are those of each of them.
        others = tuple(each._replace(quantity=each.quantity * row["requests"]) for each in other)
        usage = Usage(input_cached=row["input_cached"], input_cache_write=row["input_cache_write"], other=others)
        used = cache_measures(usage)
        cached = sum(each.quantity for each in used if each.unit in READ)
        self.provider_cached += cached
        self.provider_written += sum(each.quantity for each in used) - cached
        if prices is not None:
            self.provider_saved += prices.saved(used, row["input_length"] + own_input(other))

    def shape(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "cache_hits": self.hits,
            "cache_misses": self.misses,
            "hit_ratio": ratio_text(self.hits, self.hits + self.misses),
            "saved_cost": money.dollars(self.saved_cost),
            "hit_charge": money.dollars(self.hit_charge),
            "provider_cached_tokens": self.provider_cached,
            "provider_written_tokens": self.provider_written,
            "provider_saved_cost": money.dollars(
                money.half_even(self.provider_saved.numerator, self.provider_saved.denominator * money.PICOS_PER_NANO)
            ),
        }


def ratio_text(part: int, whole: int) -> str | None:
    """A part of a whole with four decimals, rounded half to even; ``None`` where there is no whole."""
    if not whole:
        return None
    parts = money.half_even(part * _RATIO_PARTS, whole)
    return f"{parts // _RATIO_PARTS}.{parts % _RATIO_PARTS:04d}"


class _Cards:
    """The prices of rate cards by version, each read when it is first needed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._known: dict[str, PromptCachePrices | None] = {}

    def prices(self, version: str) -> PromptCachePrices | None:
        """``None`` where nothing was priced, or its card is not kept."""
        if version not in self._known:
            kept = self._console.books.rate_card(version) if version else None
            self._known[version] = PromptCachePrices(card_of(kept)) if kept is not None else None
        return self._known[version]

    def thresholds(self) -> dict[str, tuple[int, ...]]:
        """Of the cards that were asked for, those whose prices go by the length of the input."""
        found = {version: prices.thresholds for version, prices in self._known.items() if prices is not None}
        return {version: each for version, each in found.items() if each}


class _Owners:
    """Which subscription the calls of a key are of."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._known: dict[str, str] = {}

    def of(self, key_id: str) -> str:
        """The id of a subscription, empty where the key has none."""
        if key_id not in self._known:
            key = self._console.books.get("key", key_id) if key_id else None
            self._known[key_id] = key["subscription"] if key else ""
        return self._known[key_id]


def cache_sums(
    console: Console,
    by: Sequence[str],
    since: int,
    until: int,
    filters: Mapping[str, Any],
    *,
    together_max: int = TOGETHER_MAX,
) -> dict[tuple[str, ...], CacheSums]:
    """What caches did by the values of ``by``; ``until`` 0 leaves the end open."""
    columns = [FILTERS.get(name, name) for name in by if name != SUBSCRIPTION]
    if SUBSCRIPTION in by and "key" not in columns:
        columns.append("key")
    cards, owners = _Cards(console), _Owners(console)
    found: dict[tuple[str, ...], CacheSums] = {}
    for start, end in _pieces(console, since, until, together_max):
        for row in _used(console, columns, start, end, filters, cards):
            values = (owners.of(row["key"]) if name == SUBSCRIPTION else row[FILTERS.get(name, name)] for name in by)
            found.setdefault(tuple(values), CacheSums()).add(row, cards.prices(row["price_version"]))
    return found


def _pieces(console: Console, since: int, until: int, together_max: int) -> Iterator[tuple[int, int]]:
    """The parts of a time in which there were calls, none with more than can well be gone through at once."""
    # At the edges of roll-ups, which tell it without looking at records.
    first, last = since - since % SLOT_NANOS, -(-until // SLOT_NANOS) * SLOT_NANOS
    for row in console.books.usage(["day"], first, last):
        length = _DAY if row["requests"] <= together_max else _HOUR
        for start in range(row["day"], row["day"] + _DAY, length):
            end = min(start + length, until) if until else start + length
            if max(start, since) < end:
                yield max(start, since), end


def _used(
    console: Console, columns: Sequence[str], since: int, until: int, filters: Mapping[str, Any], cards: _Cards
) -> list[Row]:
    """What caches did in a time, with calls kept apart whose prices go by the length of their input."""
    while True:
        apart = cards.thresholds()
        rows = console.books.cache_use(columns, since, until, apart, **filters)
        for version in {row["price_version"] for row in rows}:
            cards.prices(version)
        # Only now is it known which of the calls that is asked of.
        if cards.thresholds().keys() == apart.keys():
            return rows


def cache_report(
    console: Console, by: Sequence[str], since: int, until: int, filters: Mapping[str, Any]
) -> dict[str, Any]:
    """The report's rows as the API shows them, in the order of their values, and the sums of all."""
    found = cache_sums(console, by, since, until, filters)
    names = key_names(console, [dict(zip(by, values, strict=True)) for values in found]) if "key" in by else {}
    known: dict[str, Row] = {}
    if SUBSCRIPTION in by:
        place = by.index(SUBSCRIPTION)
        known = console.books.get_all("subscription", sorted({values[place] for values in found} - {""}))
    rows = []
    for values, sums in sorted(found.items(), key=lambda each: each[0]):
        shown: dict[str, Any] = {}
        for name, value in zip(by, values, strict=True):
            shown[name] = or_none(value)
            if name == "key":
                shown["key_name"] = or_none(names.get(value, ""))
            if name == SUBSCRIPTION:
                shown["subscription_name"] = known[value]["name"] if value in known else None
        rows.append({**shown, **sums.shape()})
    return {"data": rows, "total": _total(found.values()).shape()}


def _total(found: Iterable[CacheSums]) -> CacheSums:
    total = CacheSums()
    for sums in found:
        for name in CacheSums.__slots__:
            setattr(total, name, getattr(total, name) + getattr(sums, name))
    return total


@router.get("/cache")
@needs("usage.read")
@asks(
    BY_ASKED,
    time("since", "Not before this time; from the start of this month where it is not given."),
    time("until", "Before this time; up to now where it is not given."),
    *SUM_FILTERS,
    tags=True,
)
@answers(shapes.CacheReport)
async def read_cache_report(request: Request) -> dict[str, Any]:
    """What caches saved from ``since`` (default: start of this month) up to ``until`` (default: now)."""
    console = console_of(request)
    values = single_values(request)
    by = read_by(values.pop("by", ""))
    now = console.clock.wall_nanos()
    since, until = asked_period(values, now)
    filters = sum_filters(values)
    report = await in_thread(lambda: cache_report(console, by, since, until, filters))
    return {"since": time_text(since), "until": second_text(until or now), **report}
