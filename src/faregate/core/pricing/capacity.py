"""Fixed capacity: a monthly commitment split by use, and whether it pays.

A commitment (Azure's provisioned throughput, a reserved machine) costs the same whatever is used of it. Owns the split
of one month's commitment into shares that add up to it exactly, the rule for the idle part, and the planning figures.
Knows no provider, no clock and no record: use comes in as numbers.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

from faregate.core.money import half_even

#: What shares are in proportion to: tokens, or what the calls would have cost by the token.
SPLITS: Final = ("tokens", "cost")

#: What happens to the part that nobody used: it is only shown, borne by those who used the rest, or by the operator.
IDLE_RULES: Final = ("show", "spread", "operator")

NANOS_PER_SECOND: Final = 1_000_000_000

#: Parts of a whole that percentages are counted in.
BASIS_POINTS: Final = 10_000

Key = TypeVar("Key")


class Shares(NamedTuple):
    """One month's commitment: ``shares`` by payer, ``idle`` and ``operator`` add up to it exactly, in nano-dollars."""

    shares: dict[Any, int]
    #: What nobody used and nobody bears: shown beside the shares.
    idle: int
    #: What the operator bears of it.
    operator: int


def largest_remainder(amount: int, weights: Mapping[Key, int]) -> dict[Key, int]:
    """Split ``amount`` ≥ 0 in proportion to weights ≥ 0, so that the parts are whole and add up to it exactly.

    Each part is its exact share rounded down or up; the missing units go to the largest remainders, and of equal ones
    to the key that comes first. Where nothing weighs anything, all parts are 0 and the amount is nobody's.
    """
    total = sum(weights.values())
    if not total:
        return dict.fromkeys(weights, 0)
    parts: dict[Key, int] = {}
    rests: list[tuple[int, int, Key]] = []
    for order, (key, weight) in enumerate(weights.items()):
        parts[key], rest = divmod(amount * weight, total)
        rests.append((-rest, order, key))
    missing = amount - sum(parts.values())
    for _, _, key in sorted(rests, key=_by_rest)[:missing]:
        parts[key] += 1
    return parts


def _by_rest(rest: tuple[int, int, object]) -> tuple[int, int]:
    return rest[0], rest[1]


def split_month(
    commitment: int, weights: Mapping[Key, int], used_tokens: int, capacity_tokens: int, idle: str
) -> Shares:
    """Split a month's ``commitment`` (nano-dollars) among those who used it.

    ``weights`` is what shares are in proportion to. ``used_tokens`` of ``capacity_tokens`` were used; a capacity of 0
    is not declared and leaves nothing idle. With ``idle`` ``spread`` those who used anything bear all of it.

    Raises:
        ValueError: an unknown rule, or a negative number.
    """
    if idle not in IDLE_RULES:
        raise ValueError(f"unknown rule for the idle part; expected one of {', '.join(IDLE_RULES)}")
    if commitment < 0 or used_tokens < 0 or capacity_tokens < 0 or any(weight < 0 for weight in weights.values()):
        raise ValueError("a commitment and its use are not negative")
    used = commitment
    if idle != "spread" and capacity_tokens:
        # Use above what was declared is all of it: nobody pays for more than the commitment.
        used = commitment * min(used_tokens, capacity_tokens) // capacity_tokens
    if not any(weights.values()):
        used = 0
    shares = largest_remainder(used, weights)
    left = commitment - used
    # Where nobody used anything there is nobody to spread it over.
    return Shares(shares, left, 0) if idle == "show" else Shares(shares, 0, left)


class Plan(NamedTuple):
    """Planning figures of one span of time; ratios are in ``BASIS_POINTS``.

    A ratio is rounded half to even, and only for showing; it is ``None`` where there is nothing to divide by.
    """

    #: Tokens that the capacity can serve in the span; 0 where it is not declared.
    capacity_tokens: int
    used_tokens: int
    #: Tokens per second on average, in thousandths.
    average_milli_tps: int
    #: The busiest slot's, in thousandths.
    peak_milli_tps: int
    utilisation: int | None
    peak_utilisation: int | None
    #: What the same use would have cost by the token, in nano-dollars, and that as part of the commitment.
    pay_as_you_go: int
    worth: int | None
    #: Tokens, mixed as they were, at which paying by the token costs the commitment.
    break_even_tokens: int | None
    #: That as part of the capacity: more than ``BASIS_POINTS`` can never pay.
    break_even_utilisation: int | None


def plan(
    commitment: int,
    tokens_per_second: int,
    span_nanos: int,
    used_tokens: int,
    peak_tokens: int,
    peak_nanos: int,
    pay_as_you_go: int,
) -> Plan:
    """Planning figures of a span: how much was used, and whether paying by the token would have been cheaper.

    ``peak_tokens`` were used in the busiest slot of ``peak_nanos``; ``pay_as_you_go`` is what all of it costs by the
    token; ``commitment`` is that of the span, both in nano-dollars.
    """
    capacity = tokens_per_second * span_nanos // NANOS_PER_SECOND
    peak_capacity = tokens_per_second * peak_nanos // NANOS_PER_SECOND
    # The fewest tokens that cost at least as much.
    even = -(-commitment * used_tokens // pay_as_you_go) if pay_as_you_go and used_tokens else None
    return Plan(
        capacity_tokens=capacity,
        used_tokens=used_tokens,
        average_milli_tps=_rate(used_tokens, span_nanos),
        peak_milli_tps=_rate(peak_tokens, peak_nanos),
        utilisation=_part(used_tokens, capacity),
        peak_utilisation=_part(peak_tokens, peak_capacity),
        pay_as_you_go=pay_as_you_go,
        worth=_part(pay_as_you_go, commitment),
        break_even_tokens=even,
        break_even_utilisation=None if even is None else _part(even, capacity),
    )


def _rate(tokens: int, nanos: int) -> int:
    return half_even(tokens * 1_000 * NANOS_PER_SECOND, nanos) if nanos else 0


def _part(part: int, whole: int) -> int | None:
    return half_even(part * BASIS_POINTS, whole) if whole else None
