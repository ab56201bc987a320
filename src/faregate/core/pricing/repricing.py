"""What a call that is booked would cost by another rate card. Decides for one call, and changes nothing.

Only a cost that followed from usage and prices can follow from other prices: one that somebody decided (an unknown that
was charged its hold) stays as it is, and so does one that another card cannot price.
"""

from typing import Final, NamedTuple

from faregate.core.pricing.charging import charge, rule_of
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import NO_USAGE, Usage

#: Why a call keeps what is booked for it.
NOT_FROM_USAGE: Final = "not_from_usage"
NO_PRICE: Final = "no_price"


class Booked(NamedTuple):
    """One call as it is booked: what it used, what that cost, and how the charge followed from the cost."""

    usage: Usage
    cost: int
    charge: int
    charge_rule: str = ""
    operator_pays: bool = False


class Repriced(NamedTuple):
    """What it would cost and be charged, in nano-dollars, and the price version that says so."""

    cost: int
    charge: int
    price_version: str


def reprice(booked: Booked, old: Tariff, new: Tariff | None, cached_percent: int | None = None) -> Repriced | str:
    """The call by ``new`` prices, or why it keeps what is booked.

    With ``cached_percent`` so much of its text input is taken as read from the provider's cache.
    """
    if old.cost(booked.usage) != booked.cost:
        return NOT_FROM_USAGE
    # What neither of them prices is told in another way beside it, such as images by their tokens.
    if new is None or new.lacking(booked.usage) - old.lacking(booked.usage):
        return NO_PRICE
    usage = booked.usage if cached_percent is None else with_cached(booked.usage, cached_percent)
    cost = new.cost(usage) if usage != NO_USAGE or booked.cost else 0
    if booked.operator_pays:
        return Repriced(cost, 0, new.version)
    return Repriced(cost, charge(rule_of(booked.charge_rule), cost, used=usage != NO_USAGE), new.version)


def with_cached(usage: Usage, percent: int) -> Usage:
    """``usage`` with another part of its text input, in whole percent, read from the provider's cache."""
    both = usage.input_text + usage.input_cached
    cached = both * percent // 100
    return usage._replace(input_text=both - cached, input_cached=cached)
