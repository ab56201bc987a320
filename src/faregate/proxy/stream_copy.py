"""The copy of an answer that may be given again, made while its pieces pass.

The events of a stream differ in little: their ids, models and fingerprints are the same, and only a word is not. What
one piece begins with as the one before it did is therefore stored once, so that the copy of an open stream takes a
fraction of what was sent. Nothing is compressed or understood for that: it would cost more than all else an event does.
"""

from typing import Final

#: A beginning that is shorter is stored with its piece: naming it would take more than it saves.
_SHARED_MIN: Final = 64

#: Pieces in a row that begin like none before, after which no beginning is looked for: those of this answer have
#: nothing in common. The events that open and close an answer, and pings between others, are fewer.
_ODD_MAX: Final = 16


class StreamCopy:
    """All pieces of an answer so far, in order."""

    __slots__ = ("_last", "_odd", "_parts", "_shared")

    def __init__(self) -> None:
        #: Joined, they are the answer; one that many pieces begin with stands here again and again, and is one object.
        self._parts: list[bytes] = []
        self._shared = b""
        #: The last piece that began otherwise, and how many did since one began with what is shared.
        self._last = b""
        self._odd = 0

    def only(self, body: bytes) -> None:
        """The answer is ``body``, and nothing else that came."""
        self._parts = [body]

    def add(self, piece: bytes) -> None:
        """Take in what passes now."""
        if not piece:
            return
        shared = self._shared
        if shared and piece.startswith(shared):
            self._odd = 0
            self._parts.append(shared)
            self._parts.append(piece[len(shared) :])
            return
        self._parts.append(piece)
        if self._odd >= _ODD_MAX:
            return
        # What was common so far may be longer than what is common to all: it gets shorter until it holds.
        for before in (shared, self._last):
            length = common_length(before, piece)
            if length >= _SHARED_MIN:
                self._shared, self._last = piece[:length], b""
                return
        self._odd += 1
        self._last = piece if self._odd < _ODD_MAX else b""

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
