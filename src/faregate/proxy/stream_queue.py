"""The middles of streams wait here for a moment, so that what begins goes ahead of them.

A reader waits for the first word of an answer; of those after it they see the flow. When many streams send at once, or
after a stall, their pieces would pass in the order in which they came, and a new request would wait for all of them. So
a piece from the middle is read and put here; requests and the first pieces of answers pass at once, in the same turn of
the event loop. What came for one stream meanwhile passes in one write.

A turn of the queue is short, and the loop looks for what begins after each. Beside many requests it takes as much time
as all else took since the one before: streams get half of the loop, so that a piece waits no longer than twice what the
pieces ahead of it take. Where all else takes longer in one go than a turn may, they get less.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

#: How long a turn is at least, before the loop looks for new requests: some five pieces, which cost more than the look.
#: And at most: a stall of the machine is time that all else took, too, and what begins after it must not wait as long.
TURN_NANOS_MIN: Final = 150_000
TURN_NANOS_MAX: Final = 2_000_000


class Waiting(Protocol):
    """A connection with bytes that wait. It stands in the queue once, from ``add`` to its turn."""

    def take_turn(self) -> None:
        """Hand on what waits; nothing where that was done, or is over, meanwhile."""
        ...


class StreamQueue:
    """Connections whose streams are to go on, the one that has waited longest first."""

    __slots__ = ("_ended_at", "_loop", "_now_nanos", "_queue", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, now_nanos: Callable[[], int]) -> None:
        """``now_nanos`` is a clock that never goes back."""
        self._loop = loop
        self._now_nanos = now_nanos
        self._queue: deque[Waiting] = deque()
        self._scheduled = False
        #: When the last turn ended, if some were left over.
        self._ended_at = 0

    def add(self, connection: Waiting) -> None:
        """Let ``connection`` go on in this turn of the loop or one of the next."""
        self._queue.append(connection)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        queue, now_nanos = self._queue, self._now_nanos
        began = now_nanos()
        elsewhere = began - self._ended_at if self._ended_at else 0
        until = began + min(max(elsewhere, TURN_NANOS_MIN), TURN_NANOS_MAX)
        self._ended_at = 0
        try:
            # Those alone that wait now: one that is added meanwhile is added behind them.
            for _ in range(len(queue)):
                queue.popleft().take_turn()
                if now_nanos() >= until:
                    break
        finally:
            # Whatever becomes of one of them, the others go on.
            self._scheduled = bool(queue)
            if queue:
                self._ended_at = now_nanos()
                self._loop.call_soon(self._turn)
