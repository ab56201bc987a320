"""Money as integers: nano-dollars for what is owed, pico-dollars for prices, and the ways to round.

It owns the reading and the writing of amounts and refuses to know what they are for. Nothing here is ever a binary
fraction: an amount is a whole number of its unit, and a fraction is a numerator with a denominator.
"""

import re
from typing import Final

NANOS_PER_DOLLAR: Final = 10**9
PICOS_PER_DOLLAR: Final = 10**12
PICOS_PER_NANO: Final = 1_000

#: The largest amount that is read; an 8-byte column holds nine times as many nano-dollars.
DOLLARS_MAX: Final = 1_000_000_000

#: The largest price: pico-dollars of more do not fit into 8 bytes.
PRICE_DOLLARS_MAX: Final = 9_000_000

#: Digits of the largest amount, a point and twelve decimals, a sign: longer texts are not looked at.
_TEXT_LENGTH_MAX: Final = 24

_DECIMAL = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?")


def nanos(text: str, *, signed: bool = False) -> int:
    """Nano-dollars of a decimal text in dollars, such as ``"0.000123456"``; at most nine decimals.

    Raises:
        ValueError: it is not a plain decimal, has more decimals, exceeds ``DOLLARS_MAX``, or is negative where
            ``signed`` does not allow it. The message is a sentence about the value.
    """
    return _read(text, NANOS_PER_DOLLAR, 9, DOLLARS_MAX, signed)


def picos(text: str) -> int:
    """Pico-dollars of a price in dollars, such as ``"2.50"``; at most twelve decimals, never negative.

    Raises:
        ValueError: as ``nanos`` does, beyond ``PRICE_DOLLARS_MAX``.
    """
    return _read(text, PICOS_PER_DOLLAR, 12, PRICE_DOLLARS_MAX, signed=False)


def _read(text: str, scale: int, decimals: int, most: int, signed: bool) -> int:
    """The amount in units of which ``scale``, ten to the ``decimals``, make a dollar; at most ``most`` dollars."""
    if len(text) > _TEXT_LENGTH_MAX:
        raise ValueError(f"an amount has at most {_TEXT_LENGTH_MAX} characters")
    # fullmatch, because "$" would let a trailing line feed pass.
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount; write plain decimal digits such as 12.50")
    sign, whole, fraction = match[1], match[2], match[3] or ""
    if sign and not signed:
        raise ValueError(f"{text!r} is negative; the smallest amount is 0")
    if len(fraction) > decimals:
        raise ValueError(f"{text!r} has more than {decimals} decimals")
    amount = int(whole) * scale + int(fraction.ljust(decimals, "0"))
    if amount > most * scale:
        raise ValueError(f"{text!r} is more than {most} dollars")
    return -amount if sign else amount


def dollars(nanos: int) -> str:
    """The exact and shortest decimal text in dollars: ``"0"``, ``"-1.5"``, ``"0.000123456"``."""
    if nanos < 0:
        return "-" + dollars(-nanos)
    # On every answer: cutting up the digits takes half the time of a division and a format.
    digits = str(nanos)
    if len(digits) < 10:
        digits = digits.zfill(10)
    return f"{digits[:-9]}.{digits[-9:]}".rstrip("0").rstrip(".")


def about(nanos: int) -> str:
    """Dollars to the cent for a sentence, half-even; exactly where a cent would be too coarse."""
    cent = NANOS_PER_DOLLAR // 100
    if abs(nanos) < cent:
        return dollars(nanos)
    whole, cents = divmod(half_even(nanos, cent), 100)
    return f"{whole}.{cents:02d}"


def dollars_of_picos(picos: int) -> str:
    """The exact and shortest decimal text in dollars of a price."""
    whole, fraction = divmod(abs(picos), PICOS_PER_DOLLAR)
    sign = "-" if picos < 0 else ""
    return f"{sign}{whole}.{fraction:012d}".rstrip("0").rstrip(".")


def half_even(numerator: int, denominator: int) -> int:
    """The nearest whole number to ``numerator / denominator``; a tie goes to the even neighbour.

    ``denominator`` is positive.
    """
    quotient, rest = divmod(numerator, denominator)
    twice = rest + rest
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


def ceiling(numerator: int, denominator: int) -> int:
    """The smallest whole number that is not below ``numerator / denominator``; ``denominator`` is positive."""
    return -(-numerator // denominator)
