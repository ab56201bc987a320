"""The copy of an answer that may be given again, made while its pieces pass.

The events of a stream differ in little: their ids, models and fingerprints are the same, and only a word is not. What
one piece begins with as the one before it did is therefore stored once, so that the copy of an open stream takes a
fraction of what was sent. Nothing is compressed or understood for that: it would cost more than all else an event does.
"""

from typing import Final

#: A beginning that is shorter is stored with its piece: naming it would take more than it saves.
_SHARED_MIN: Final = 64

#: Beginnings that came to nothing, after which none is looked for: the pieces of this answer have nothing in common.
_FAILURES_MAX: Final = 4


class StreamCopy:
    """All pieces of an answer so far, in order."""

    __slots__ = ("_failures", "_last", "_parts", "_shared")

    def __init__(self) -> None:
        #: Joined, they are the answer; one that many pieces begin with stands here again and again, and is one object.
        self._parts: list[bytes] = []
        self._shared = b""
        #: The piece before, while no beginning is known.
        self._last = b""
        self._failures = 0

    def only(self, body: bytes) -> None:
        """The answer is ``body``, and nothing else that came."""
        self._parts = [body]

    def add(self, piece: bytes) -> None:
        """Take in what passes now."""
        shared = self._shared
        if shared and piece.startswith(shared):
            self._parts.append(shared)
            self._parts.append(piece[len(shared) :])
            return
        self._parts.append(piece)
        if self._failures >= _FAILURES_MAX:
            return
        # Of what was common so far it may still begin with a part: what is common to all gets shorter until it holds.
        before = shared or self._last
        length = common_length(before, piece)
        if length >= _SHARED_MIN:
            self._shared, self._last = piece[:length], b""
            return
        if before:
            self._failures += 1
        self._shared, self._last = b"", b"" if self._failures >= _FAILURES_MAX else piece

    def joined(self) -> bytes:
        """The answer as far as it has come."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


def common_length(one: bytes, other: bytes) -> int:
    """How many bytes both begin with alike; by halves, since comparing is fast and a loop over bytes is not."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
