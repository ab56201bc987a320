"""Prices as lists and files give them, and what there is to say about where a price comes from.

Plain values between whoever reads price files, whoever keeps prices and whoever shows them. Knows no file format, no
storage and no provider by name.
"""

from typing import NamedTuple

from faregate.core.pricing.card import RateCard

#: Where the rates of a card come from, lowest first: what is higher up replaces what is below it, unit by unit. The
#: last one is only ever laid over for a question what something would cost.
LAYERS = ("bundled", "imported", "override", "book")


class PriceEntry(NamedTuple):
    """One price of a file: ``pico`` pico-dollars for every ``per`` units of a model."""

    model: str
    unit: str
    per: int
    pico: int
    #: Name of a provider, where the file names one; else ``kind`` says which kind of provider sells it.
    provider: str = ""
    kind: str = ""
    variant: str = ""
    service_tier: str = ""
    region: str = ""
    above_input_tokens: int = 0
    #: Nanoseconds since 1970 UTC; 0 means "from the import on" at the start and "open" at the end.
    effective_from: int = 0
    effective_to: int = 0
    source: str = ""
    #: The place in the file, as ``file:line``.
    where: str = ""


class PriceFault(NamedTuple):
    """A place of a price file, as ``file:line``, and what is wrong with it or why it was left out."""

    where: str
    problem: str


class PriceFile(NamedTuple):
    """What a price file says. With any of ``faults`` nothing of it may be used; ``skipped`` is only told."""

    format: str
    entries: tuple[PriceEntry, ...] = ()
    faults: tuple[PriceFault, ...] = ()
    skipped: tuple[PriceFault, ...] = ()


class RateOrigin(NamedTuple):
    """Where one rate of a card comes from: one of ``LAYERS``, and the source as that layer names it."""

    above_input_tokens: int
    unit: str
    variant: str
    layer: str
    source: str


class ExplainedCard(NamedTuple):
    """A rate card that is in force, with the origin of each of its rates in their order."""

    card: RateCard
    origins: tuple[RateOrigin, ...]
    #: What is to say about it, such as that it holds provisionally.
    notes: tuple[str, ...] = ()


class Explanation(NamedTuple):
    """What a model costs at a provider at a moment, or why that is not known."""

    provider: str
    model: str
    cards: tuple[ExplainedCard, ...]
    #: Why it is not priced, or what of its price is unusual, as sentences.
    reasons: tuple[str, ...] = ()


class BundledList(NamedTuple):
    """The list prices that ship with us: edition, and by kind and model its prices as texts."""

    edition: str
    prices: dict[str, dict[str, str]]
