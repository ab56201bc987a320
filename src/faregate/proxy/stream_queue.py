"""The middles of streams wait here for a moment, so that what begins goes ahead of them.

A reader waits for the first word of an answer; of those after it they see the flow. When many streams send at once, or
after a stall, their pieces would pass in the order in which they came, and a new request would wait for all of them. So
a piece from the middle is read and put here; requests and the first pieces of answers pass at once, in the same turn of
the event loop. A piece waits for a turn or a few, and what came for one stream meanwhile passes in one write.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

#: So many streams go on in one turn of the loop, before it looks for new requests again: a fraction of a millisecond.
TURN: Final = 8

#: Of a longer queue this part goes on in one turn, so that no load of other requests lets it grow without end.
SHARE: Final = 8


class Waiting(Protocol):
    """A connection with bytes that wait."""

    def catch_up(self) -> None:
        """Hand on what waits; nothing where that was done, or is over, meanwhile."""
        ...


class StreamQueue:
    """Connections whose streams are to go on, the one that has waited longest first."""

    __slots__ = ("_loop", "_scheduled", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Waiting] = deque()
        self._scheduled = False

    def add(self, connection: Waiting) -> None:
        """Let ``connection`` catch up in this turn of the loop or one of the next."""
        self._waiting.append(connection)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        waiting = self._waiting
        try:
            for _ in range(min(len(waiting), max(TURN, len(waiting) // SHARE))):
                waiting.popleft().catch_up()
        finally:
            # Whatever becomes of one of them, the others go on.
            self._scheduled = bool(waiting)
            if waiting:
                self._loop.call_soon(self._turn)
