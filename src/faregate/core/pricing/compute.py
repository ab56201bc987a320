"""Prices of a service behind the gate: what its operator writes down → the rates of its card, exactly.

Compute is time × share of the machine × price of the machine::

    busy milliseconds × (memory of the service / memory of the machine) × price per hour / 3,600,000

The memory may be that of the machine or of its accelerator: only the share counts. Operations on numbers (FLOPs) are
another measure of the same, for services that know how many they do. Knows no service and measures nothing.
"""

from fractions import Fraction
from math import lcm
from typing import Final, NamedTuple

from faregate.core.pricing.card import Rate

MILLISECONDS_PER_HOUR: Final = 3_600_000
MILLISECONDS_PER_SECOND: Final = 1_000
#: Bytes are priced by the million, operations by the million millions (a teraflop), of which a gigaflop is the
#: thousandth.
BYTES_PER_PRICE: Final = 1_000_000
GIGAFLOPS_PER_PRICE: Final = 1_000


class ServicePrices(NamedTuple):
    """What a service costs, in pico-dollars; what has no price is 0."""

    per_call: int = 0
    per_second: int = 0
    per_million_bytes_in: int = 0
    per_million_bytes_out: int = 0
    #: ``(variant, pico-dollars, for how many)`` of the units that the service tells; ``None`` where it tells none.
    units: tuple[str, int, int] | None = None
    per_machine_hour: int = 0
    #: The service's share of the machine's memory.
    share: Fraction = Fraction(0)
    #: For 10**12 operations; ``None`` where they are not counted.
    per_teraflop: int | None = None


def service_rates(prices: ServicePrices) -> tuple[Rate, ...]:
    """The rates of a service's card; each of what is measured has one."""
    rates = [
        Rate("requests", prices.per_call, 1),
        busy_rate(prices.per_second, prices.per_machine_hour, prices.share),
        Rate("seconds", 0, 1),
        Rate("bytes", 0, BYTES_PER_PRICE),
    ]
    if prices.per_million_bytes_in:
        rates.append(Rate("bytes", prices.per_million_bytes_in, BYTES_PER_PRICE, "in"))
    if prices.per_million_bytes_out:
        rates.append(Rate("bytes", prices.per_million_bytes_out, BYTES_PER_PRICE, "out"))
    if prices.units is not None:
        variant, pico, per = prices.units
        rates.append(Rate("units", pico, per, variant))
    if prices.per_teraflop is not None:
        rates.append(Rate("gigaflops", prices.per_teraflop, GIGAFLOPS_PER_PRICE))
    return tuple(rates)


def busy_rate(per_second: int, per_machine_hour: int, share: Fraction) -> Rate:
    """The price of busy time: by the second, for a share of a machine, or both together.

    Where only one of them costs anything its own numbers stay readable in the card.
    """
    hourly, per_hour = per_machine_hour * share.numerator, MILLISECONDS_PER_HOUR * share.denominator
    if not hourly:
        return Rate("busy_milliseconds", per_second, MILLISECONDS_PER_SECOND)
    if not per_second:
        return Rate("busy_milliseconds", hourly, per_hour)
    per = lcm(MILLISECONDS_PER_SECOND, per_hour)
    pico = per_second * (per // MILLISECONDS_PER_SECOND) + hourly * (per // per_hour)
    return Rate("busy_milliseconds", pico, per)
