"""After a request was sent on, the event loop looks for its answer for a moment before it sleeps.

Sleeping and being woken costs a process of this kind some 25 µs, in a virtual machine above all: the core is given up,
and what ran a moment ago is cold. Where answers come sooner than that, as from a cache or a small model on the same
host, looking costs less than sleeping would. Hypervisors do the same before they halt a core (KVM's halt polling), and
HAProxy calls it busy polling. It looks for about as long as a sleep costs, so that a look in vain costs as much again;
and where most are in vain, as with nearly every provider, it stops, and tries again once in a while.
"""

from collections.abc import Callable
from typing import Final

#: The turns of a look. One in which nothing happens takes 1 µs, and 2 with asyncio's own loop; turns in which something
#: does are none that the loop would have slept in.
TURNS: Final = 40

#: So many more looks in vain than not, and requests are sent without one: a few late answers are no reason. And how
#: many it is until the next try, which then costs less than a fifth of a microsecond each.
VAIN_MAX: Final = 8
TRY_EVERY: Final = 256


class AnswerWatch:
    """Keeps the loop awake while an answer may come at once. One event loop's own."""

    __slots__ = ("_left", "_running", "_skipped", "_soon", "_vain")

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        """``soon`` (``loop.call_soon``) has something called in the next turn, before which the loop does not sleep."""
        self._soon = soon
        self._running = False
        #: Turns until the look that runs will have been in vain; 0 once an answer began.
        self._left = 0
        self._vain = 0
        self._skipped = 0

    def sent(self) -> None:
        """A request has gone to a provider."""
        if self._vain >= VAIN_MAX:
            self._skipped += 1
            if self._skipped < TRY_EVERY:
                return
            self._skipped = 0
        self._left = TURNS
        if not self._running:
            self._running = True
            self._soon(self._turn)

    def came(self) -> None:
        """The first bytes of an answer are there, of whichever request: what counts is that the loop need not sleep."""
        if self._left:
            self._left = 0
            if self._vain:
                self._vain -= 1

    def _turn(self) -> None:
        if self._left > 1:
            self._left -= 1
            self._soon(self._turn)
            return
        self._running = False
        if self._left:
            self._left = 0
            if self._vain < VAIN_MAX:
                self._vain += 1
