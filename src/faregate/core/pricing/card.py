"""A rate card: the prices of one model at one provider, for one stretch of time.

A price is an integer number of pico-dollars per ``per`` units, so that six decimals per million units are exact; the
one division happens when a charge is posted.
"""

from typing import NamedTuple

from faregate.core.usage import OTHER_UNITS

#: Units a rate may price. A leaf without a rate of its own falls back as ``cost`` documents.
PRICED_UNITS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "input_audio_tokens",
    "output_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
    "requests",
    *OTHER_UNITS,
)

#: Service tiers that may have prices of their own; the standard one has no name.
SERVICE_TIERS = ("", "priority", "flex", "batch", "scale", "fast")

#: Where a model is processed when a price is for one such place only; without one it is for any.
REGIONS = ("", "global", "data_zone", "regional")

#: What the version of a card has before its content's mark where nobody knows the price: it holds until one is known.
PROVISIONAL = "#provisional@"


class Rate(NamedTuple):
    """``pico`` pico-dollars for every ``per`` units; ``variant`` is which of the unit's, empty for any."""

    unit: str
    pico: int
    per: int
    variant: str = ""


class Tier(NamedTuple):
    """The rates that apply when a call has more than ``above_input_tokens`` input tokens; the first tier has 0."""

    above_input_tokens: int
    rates: tuple[Rate, ...]


class RateCard(NamedTuple):
    """All tiers of one model; ``version`` names this very content and is stored with every charge."""

    provider: str
    model: str
    version: str
    tiers: tuple[Tier, ...]
    #: Nanoseconds since 1970 UTC; 0 means "always" at the start and "open" at the end.
    effective_from: int = 0
    effective_to: int = 0
    source: str = ""
    #: One of ``SERVICE_TIERS``.
    service_tier: str = ""
    #: Where it is processed, as the provider names it; empty where that makes no difference.
    region: str = ""


def is_provisional(version: str) -> bool:
    """Whether a card of this version stands in for a price that was not known, so that its charges are trued up."""
    return PROVISIONAL in version
