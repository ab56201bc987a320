"""The middles of streams wait here for a moment, so that what begins goes ahead of them.

A reader waits for the first word of an answer; of those after it they see the flow. When many streams send at once, or
after a stall, their pieces would pass in the order in which they came, and a new request would wait for all of them. So
a piece from the middle is read and put here; requests and the first pieces of answers pass at once, in the same turn of
the event loop. What came for one stream meanwhile passes in one write.

At each turn the queue passes half of those that wait, and never fewer than some. It is at most as long as there are
streams, so that beside any load of requests a piece waits log2(streams) turns at most, and two on average.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

#: Streams that go on in one turn of the loop at least, before it looks for new requests: a fraction of a millisecond.
STREAMS_MIN: Final = 8

#: Of those that wait one in so many goes on in one turn: the wait of the last is told above.
PART: Final = 2


class Waiting(Protocol):
    """A connection with bytes that wait. It stands in the queue once, from ``add`` to its turn."""

    def take_turn(self) -> None:
        """Hand on what waits; nothing where that was done, or is over, meanwhile."""
        ...


class StreamQueue:
    """Connections whose streams are to go on, the one that has waited longest first."""

    __slots__ = ("_loop", "_queue", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: deque[Waiting] = deque()
        self._scheduled = False

    def add(self, connection: Waiting) -> None:
        """Let ``connection`` go on in this turn of the loop or one of the next."""
        self._queue.append(connection)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        queue = self._queue
        try:
            for _ in range(min(len(queue), max(STREAMS_MIN, len(queue) // PART))):
                queue.popleft().take_turn()
        finally:
            # Whatever becomes of one of them, the others go on.
            self._scheduled = bool(queue)
            if queue:
                self._loop.call_soon(self._turn)
