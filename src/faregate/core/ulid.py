"""Sortable ids: 48 bits of milliseconds and 80 random bits in Crockford's base 32 (the ULID specification).

Ids of one source sort in the order they were made: within a millisecond, and through a clock that steps back, the low
bits count up from a random start.
"""

from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: Two characters at a time: half the divisions.
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)

_LOW_BITS = 40
_LOW_MASK = (1 << _LOW_BITS) - 1


def _base32(number: int, bits: int) -> str:
    """``number`` in base 32, ``bits`` (a multiple of 10) wide."""
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(bits - 10, -1, -10)])


class UlidSource:
    """Makes prefixed ids from a clock and a source of randomness, both arguments."""

    __slots__ = ("_head", "_low", "_milliseconds", "_prefix", "_random_bytes", "_wall_nanos")

    def __init__(self, prefix: str, wall_nanos: Callable[[], int], random_bytes: Callable[[int], bytes]) -> None:
        self._prefix = prefix
        self._wall_nanos = wall_nanos
        self._random_bytes = random_bytes
        self._milliseconds = -1
        self._head = ""
        self._low = 0

    def __call__(self) -> str:
        """The next id. It costs about a microsecond, because only its low half is new within a millisecond."""
        milliseconds = self._wall_nanos() // 1_000_000
        low = self._low + 1
        if milliseconds > self._milliseconds or low > _LOW_MASK:
            self._milliseconds = milliseconds = max(milliseconds, self._milliseconds + 1)
            random = int.from_bytes(self._random_bytes(10), "big")
            # The low half starts in its lower half, so that counting up cannot run over.
            low = (random & _LOW_MASK) >> 1
            self._head = self._prefix + _base32(milliseconds, 50) + _base32(random >> _LOW_BITS, 40)
        self._low = low
        pairs = _PAIRS
        return f"{self._head}{pairs[low >> 30]}{pairs[low >> 20 & 1023]}{pairs[low >> 10 & 1023]}{pairs[low & 1023]}"
