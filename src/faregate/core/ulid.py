"""Sortable ids: 48 bits of milliseconds and 80 random bits in Crockford's base 32 (the ULID specification).

Ids of one source sort in the order they were made: its low bits count up from a random start, through every
millisecond and through a clock that steps back. So ids name, order and never repeat; they are no secrets.
"""

from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: Two characters at a time: half the divisions.
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)

_RANDOM_BITS = 80


def _base32(number: int, bits: int) -> str:
    """``number`` in base 32, ``bits`` (a multiple of 10) wide."""
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(bits - 10, -1, -10)])


class UlidSource:
    """Makes prefixed ids from a clock and a source of randomness, both arguments."""

    __slots__ = ("_count", "_era", "_milliseconds", "_prefix", "_random_bytes", "_stem", "_tail", "_wall_nanos")

    def __init__(self, prefix: str, wall_nanos: Callable[[], int], random_bytes: Callable[[int], bytes]) -> None:
        self._prefix = prefix
        self._wall_nanos = wall_nanos
        self._random_bytes = random_bytes
        self._milliseconds = -1
        #: The random bits of the last id; with half their range ahead, they may be counted up for long.
        self._count = self._drawn()
        # An id is its era (prefix and the upper bits of the time), two pairs of time, the tail, and the last pair.
        self._era = ""
        self._tail = _base32(self._count >> 10, 70)
        self._stem = ""

    def __call__(self) -> str:
        """The next id. Nearly always only its last two characters are new, and the time's in each millisecond."""
        count = self._count = self._count + 1
        last = count & 1023
        milliseconds = self._wall_nanos() // 1_000_000
        if not last or milliseconds > self._milliseconds:
            last = self._turn(milliseconds)
        return self._stem + _PAIRS[last]

    def _turn(self, milliseconds: int) -> int:
        """Work out all but the last two characters, and return what those stand for."""
        if milliseconds > self._milliseconds:
            before, self._milliseconds = self._milliseconds, milliseconds
            if before >> 20 != milliseconds >> 20:
                self._era = self._prefix + _base32(milliseconds >> 20, 30)
        if not self._count & 1023:
            if self._count >> _RANDOM_BITS:
                # Ids go on in the next millisecond, so that they sort.
                self._count = self._drawn()
                self._milliseconds += 1
                self._era = self._prefix + _base32(self._milliseconds >> 20, 30)
            self._tail = _base32(self._count >> 10, 70)
        time = self._milliseconds
        self._stem = f"{self._era}{_PAIRS[time >> 10 & 1023]}{_PAIRS[time & 1023]}{self._tail}"
        return self._count & 1023

    def _drawn(self) -> int:
        return int.from_bytes(self._random_bytes(_RANDOM_BITS // 8), "big") >> 1
