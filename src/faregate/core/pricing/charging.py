"""From what a call cost to what its payer is charged: discounts, mark-ups, fees, and calls that are free to the payer.

*Cost* is what the provider is owed, *charge* what a payer is debited; the difference is the house's margin. Owns the
rule between the two and how it is written down. Knows no prices, no accounts and no place where rules come from.

::

    charge = cost × (1 − discount) × (1 + markup), rounded once, half to even  + fee

A fee is due where something was used, so that an error costs nothing. ``free`` charges nothing; the cost stands.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from faregate.core import money
from faregate.core.attribution import Attribution, dimension

#: Parts per million: percents are exact to four decimals.
PPM: Final = 1_000_000
_PPM_OF_PERCENT: Final = PPM // 100

#: Beyond these it is a slip: a mark-up of 10,000 percent, a fee of a thousand dollars for one call.
MARKUP_PPM_MAX: Final = 100 * PPM
FEE_NANOS_MAX: Final = 1_000 * money.NANOS_PER_DOLLAR

#: No cost is larger: what fits a charge that does not depend on it.
COST_MAX: Final = 2**63 - 1

#: What a rule may select by, as ``Attribution`` calls it.
SELECTABLE: Final = (
    "provider",
    "model",
    "deployment",
    "service",
    "organization",
    "team",
    "project",
    "product",
    "key",
    "stage",
)

_PERCENT = re.compile(r"(0|[1-9][0-9]{0,5})(?:\.([0-9]{1,4}))?")
_PART = re.compile(r"(discount|markup|fee) ([0-9.]{1,24})( %)?")


class ChargeRule(NamedTuple):
    """What calls that ``select`` matches are charged. Without terms they are charged what they cost."""

    #: ``(dimension, value)``, each of which must hold; nothing matches every call.
    select: tuple[tuple[str, str], ...] = ()
    discount_ppm: int = 0
    markup_ppm: int = 0
    #: Nano-dollars for each call that used something.
    fee: int = 0
    free: bool = False


#: Without any rule: the charge is the cost.
AT_COST: Final = ChargeRule()


class ChargeLine(NamedTuple):
    """One line between the cost and the charge; the exact amount is ``numerator / denominator`` nano-dollars."""

    #: ``discount``, ``markup``, ``fee`` or ``free``.
    name: str
    #: The term in words, such as ``10 %``.
    term: str
    numerator: int
    denominator: int = 1


def rule_for(rules: Iterable[ChargeRule], who: Attribution) -> ChargeRule | None:
    """The first rule that matches ``who``; ``None`` where none does."""
    for rule in rules:
        if all(dimension(who, name) == value for name, value in rule.select):
            return rule
    return None


def charge(rule: ChargeRule, cost: int, *, used: bool = True) -> int:
    """Nano-dollars that a call of ``cost`` ≥ 0 is charged. Never negative, and never falls where the cost rises.

    ``used`` says whether the call used anything: without it no fee is due.
    """
    if rule.free:
        return 0
    due = money.half_even(cost * _factor(rule), PPM * PPM) if rule.discount_ppm or rule.markup_ppm else cost
    return due + rule.fee if used or cost else due


def charge_bound(rule: ChargeRule, cost: int) -> int:
    """Nano-dollars that no call is charged more than whose cost is at most ``cost``."""
    if rule.free:
        return 0
    if rule.discount_ppm or rule.markup_ppm:
        cost = money.ceiling(cost * _factor(rule), PPM * PPM)
    return cost + rule.fee


def cost_within(rule: ChargeRule, nanos: int) -> int:
    """The largest cost whose ``charge_bound`` is at most ``nanos``; -1 where there is none, at most ``COST_MAX``."""
    if rule.free:
        return COST_MAX if nanos >= 0 else -1
    left = nanos - rule.fee
    if left < 0:
        return -1
    if rule.discount_ppm or rule.markup_ppm:
        factor = _factor(rule)
        return min(left * PPM * PPM // factor, COST_MAX) if factor else COST_MAX
    return left


def charge_lines(rule: ChargeRule, cost: int, *, used: bool = True) -> list[ChargeLine]:
    """How the charge follows from the cost: exact amounts that add up with ``cost`` and round to ``charge``."""
    if rule.free:
        return [ChargeLine("free", "nothing is charged", -cost)]
    lines = []
    if rule.discount_ppm:
        lines.append(ChargeLine("discount", f"{percent(rule.discount_ppm)} %", -cost * rule.discount_ppm, PPM))
    if rule.markup_ppm:
        discounted = cost * (PPM - rule.discount_ppm)
        lines.append(ChargeLine("markup", f"{percent(rule.markup_ppm)} %", discounted * rule.markup_ppm, PPM * PPM))
    if rule.fee and (used or cost):
        lines.append(ChargeLine("fee", "each call", rule.fee))
    return lines


def text_of(rule: ChargeRule) -> str:
    """The terms in a short canonical form that is kept with every charge, such as ``markup 10 % + fee 0.001``.

    Empty where the charge is the cost.
    """
    if rule.free:
        return "free"
    parts = []
    if rule.discount_ppm:
        parts.append(f"discount {percent(rule.discount_ppm)} %")
    if rule.markup_ppm:
        parts.append(f"markup {percent(rule.markup_ppm)} %")
    if rule.fee:
        parts.append(f"fee {money.dollars(rule.fee)}")
    return " + ".join(parts)


def rule_of(text: str) -> ChargeRule:
    """The terms that ``text_of`` wrote down, for any call.

    Raises:
        ValueError: it is not such a text.
    """
    if not text:
        return AT_COST
    if text == "free":
        return ChargeRule(free=True)
    found = {"discount": 0, "markup": 0, "fee": 0}
    for part in text.split(" + "):
        match = _PART.fullmatch(part)
        if match is None or found[match[1]] or (match[1] == "fee") is bool(match[3]):
            raise ValueError(f"{text!r} is not the text of a charge rule")
        found[match[1]] = money.nanos(match[2]) if match[1] == "fee" else ppm(match[2])
    return ChargeRule((), found["discount"], found["markup"], found["fee"])


def ppm(text: str) -> int:
    """Parts per million of a percentage as decimal text, such as ``"12.5"``; at most four decimals, never negative.

    Raises:
        ValueError: it is not one. The message is a sentence about the value.
    """
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:24]!r} is not a percentage; write decimal digits such as 12.5")
    return int(match[1]) * _PPM_OF_PERCENT + int((match[2] or "").ljust(4, "0"))


def percent(parts: int) -> str:
    """The exact and shortest decimal text of parts per million as a percentage: ``"12.5"``."""
    whole, rest = divmod(parts, _PPM_OF_PERCENT)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".")


def _factor(rule: ChargeRule) -> int:
    """What a cost is multiplied with, in parts of ``PPM`` × ``PPM``."""
    return (PPM - rule.discount_ppm) * (PPM + rule.markup_ppm)
