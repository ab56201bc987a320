"""A period priced again from stored usage: under other prices, other models, another cache rate or a fixed capacity.

It reads records page by page, so that a long period takes time and not memory. What is booked stays as it is; what a
run would correct is gathered for ``corrections``, which books it when it is told to.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from faregate.console.compile import card_of
from faregate.console.records import usage_of
from faregate.console.state import Console
from faregate.console.texts import or_none, time_text
from faregate.control import Catalogue
from faregate.core import money
from faregate.core.attribution import Attribution
from faregate.core.ledger.corrections import Correction
from faregate.core.pricing.card import RateCard, is_provisional
from faregate.core.pricing.cost import Tariff
from faregate.core.pricing.repricing import NO_PRICE, Booked, Repriced, reprice
from faregate.errors import Unsafe
from faregate.ports import Row

#: Records that one run may correct: their lines are held in memory until they are booked.
CORRECTED_MAX: Final = 1_000_000

#: What sums are shown by.
DIMENSIONS: Final = ("model", "team", "day")
GROUPS_SHOWN_MAX: Final = 1_000

_PAGE: Final = 1_000
_DAY: Final = 86_400 * 1_000_000_000
_UNCOUNTED: Final = ("refused", "unknown", "pending")


class Question(NamedTuple):
    """What is to be priced again, and how."""

    since: int
    until: int
    #: Filters of the books: dimensions and columns of records.
    filters: Mapping[str, Any]
    #: Model as requested or as priced → ``model`` or ``provider/model``.
    models: Mapping[str, str]
    cached_percent: int | None = None
    #: Only what was booked with provisional prices, and only by prices that are not.
    provisional: bool = False
    #: Everything is served by a fixed capacity: nothing is paid by the token.
    fixed: bool = False


class Sums(NamedTuple):
    """What a group of records cost and was charged as it is booked, and what it would."""

    requests: int = 0
    booked_cost: int = 0
    new_cost: int = 0
    booked_charge: int = 0
    new_charge: int = 0

    def plus(self, booked: tuple[int, int], new: tuple[int, int]) -> "Sums":
        """With one more record."""
        return Sums(
            self.requests + 1,
            self.booked_cost + booked[0],
            self.new_cost + new[0],
            self.booked_charge + booked[1],
            self.new_charge + new[1],
        )

    def shape(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "requests": self.requests,
            "booked_cost": money.dollars(self.booked_cost),
            "new_cost": money.dollars(self.new_cost),
            "cost_difference": money.dollars(self.new_cost - self.booked_cost),
            "booked_charge": money.dollars(self.booked_charge),
            "new_charge": money.dollars(self.new_charge),
            "charge_difference": money.dollars(self.new_charge - self.booked_charge),
        }


class Line(NamedTuple):
    """By how much one record is to be corrected, and by which price version."""

    request_id: str
    correction: Correction
    price_version: str


class Outcome:
    """What a period comes to."""

    def __init__(self) -> None:
        self.total = Sums()
        self.groups: dict[str, dict[str, Sums]] = {name: {} for name in DIMENSIONS}
        #: Why records keep what is booked → how many do.
        self.left: Counter[str] = Counter()
        #: Price version → how many records would go by it.
        self.versions: Counter[str] = Counter()
        self.lines: list[Line] = []

    def add(self, row: Row, booked: tuple[int, int], new: tuple[int, int]) -> None:
        """Count one record."""
        self.total = self.total.plus(booked, new)
        day = time_text(row["created_at"] - row["created_at"] % _DAY) or ""
        for name, value in (("model", row["model"]), ("team", row["team"]), ("day", day[:10])):
            sums = self.groups[name]
            sums[value] = sums.get(value, Sums()).plus(booked, new)

    def shape(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "total": self.total.shape(),
            "by": {
                name: [{name: or_none(value), **sums.shape()} for value, sums in sorted(groups.items())][
                    :GROUPS_SHOWN_MAX
                ]
                for name, groups in self.groups.items()
            },
            "as_booked": dict(sorted(self.left.items())),
            "price_versions": dict(self.versions.most_common(50)),
            "corrected": len(self.lines),
        }


class Cards:
    """The rate cards of a catalogue by what they price, each compiled when it is first needed."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._providers = {provider.name for provider in catalogue.providers}
        cards = {card.version: card for each in catalogue.deployments for card in each.cards}
        self._cards: dict[tuple[str, str, str, str], list[RateCard]] = {}
        for card in sorted(cards.values(), key=_start):
            self._cards.setdefault((card.provider, card.model, card.service_tier, card.region), []).append(card)
        self._tariffs: dict[str, Tariff] = {}

    def tariff(self, card: RateCard) -> Tariff:
        """A card, compiled."""
        made = self._tariffs.get(card.version)
        if made is None:
            made = self._tariffs[card.version] = Tariff(card)
        return made

    def target(self, provider: str, name: str) -> tuple[str, str]:
        """The provider and the model that ``model`` or ``provider/model`` means for a call at ``provider``."""
        first, slash, rest = name.partition("/")
        return (first, rest) if slash and first in self._providers else (provider, name)

    def at(self, place: tuple[str, str], old: RateCard, moment: int, *, provisional: bool) -> RateCard | None:
        """The card of a place in the tier and region of ``old`` at a moment.

        With ``provisional`` the first one that is not provisional, from that moment on.
        """
        found = self._cards.get((*place, old.service_tier, old.region))
        if found is None and old.region:
            found = self._cards.get((*place, old.service_tier, ""))
        for card in found or ():
            ended = 0 < card.effective_to <= moment
            if provisional and not ended and not is_provisional(card.version):
                return card
            if not provisional and not ended and card.effective_from <= moment:
                return card
        return None


def _start(card: RateCard) -> int:
    return card.effective_from


def priced_again(console: Console, asked: Question, catalogue: Catalogue) -> Outcome:
    """Everything of a period by the prices of ``catalogue``.

    Raises:
        Unsafe: more records would be corrected than one run may.
    """
    cards = Cards(catalogue)
    booked_by: dict[str, RateCard | None] = {}
    outcome = Outcome()
    for page in _pages(console, asked):
        corrected = _corrected(console, [row["id"] for row in page])
        for row in page:
            version = row["price_version"]
            if row["status"] in _UNCOUNTED or not version:
                continue
            if version not in booked_by:
                kept = console.books.rate_card(version)
                booked_by[version] = card_of(kept) if kept is not None else None
            _price(outcome, asked, cards, row, booked_by[version], corrected.get(row["id"]))
    return outcome


def _pages(console: Console, asked: Question) -> Iterator[list[Row]]:
    after = ""
    while page := console.books.requests(
        after=after, limit=_PAGE, newest_first=False, since=asked.since, until=asked.until, **asked.filters
    ):
        yield page
        after = page[-1]["id"]


def _corrected(console: Console, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """By how much records were corrected before, cost and charge."""
    found: dict[str, tuple[int, int]] = {}
    for line in console.books.corrections(ids):
        cost, charge = found.get(line["request_id"], (0, 0))
        found[line["request_id"]] = cost + line["cost"], charge + line["charge"]
    return found


def _price(
    outcome: Outcome, asked: Question, cards: Cards, row: Row, old: RateCard | None, before: tuple[int, int] | None
) -> None:
    if asked.provisional and before is not None:
        # Somebody has corrected it already, and a later run must not undo that.
        return
    more_cost, more_charge = before or (0, 0)
    booked = row["cost"] + more_cost, row["charge"] + more_charge
    if asked.fixed:
        outcome.add(row, booked, (0, 0))
        return
    new = _repriced(asked, cards, row, old)
    if isinstance(new, str):
        outcome.left[new] += 1
        outcome.add(row, booked, booked)
        return
    outcome.versions[new.price_version] += 1
    outcome.add(row, booked, (new.cost, new.charge))
    cost, charge = new.cost - booked[0], new.charge - booked[1]
    if cost or charge:
        if len(outcome.lines) >= CORRECTED_MAX:
            raise Unsafe(f"more than {CORRECTED_MAX} records would change", hint="ask for a shorter time")
        who = Attribution(**{name: row[name] for name in _PAYER})
        paid_by_operator = row["resolution"] == "operator_pays"
        outcome.lines.append(Line(row["id"], Correction(who, cost, charge, paid_by_operator), new.price_version))


#: What the accounts of a record depend on.
_PAYER: Final = ("organization", "team", "project", "user", "key", "provider")


def _repriced(asked: Question, cards: Cards, row: Row, old: RateCard | None) -> Repriced | str:
    if old is None:
        return NO_PRICE
    wanted = asked.models.get(row["model"]) or asked.models.get(old.model)
    place = cards.target(old.provider, wanted) if wanted else (old.provider, old.model)
    new = cards.at(place, old, row["created_at"], provisional=asked.provisional)
    booked = Booked(usage_of(row), row["cost"], row["charge"], row["charge_rule"], row["resolution"] == "operator_pays")
    return reprice(booked, cards.tariff(old), cards.tariff(new) if new else None, asked.cached_percent)
