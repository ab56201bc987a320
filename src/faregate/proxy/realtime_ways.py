"""The deployments that a realtime session may be opened at, tried one after another until one accepts.

The order is that of any call (``routing``), and each deployment's health hears what became of its try. A session that
no provider has accepted cost nothing, so every failure before that may go on elsewhere at once; afterwards the session
stays where it is, and its provider is busy with it until it ends.
"""

from typing import TYPE_CHECKING

from faregate.core.ledger.events import Attempt
from faregate.core.routing.retry import FAILOVER, may_retry
from faregate.proxy.routing import Lane
from faregate.proxy.snapshot import Target

if TYPE_CHECKING:
    from faregate.proxy.gate import Gate


class Way:
    """The way of one session: the deployments that are left to try, the first of which is being tried."""

    def __init__(self, gate: "Gate", lane: Lane, known_by: bytes) -> None:
        """Take a turn; there is no deployment left where all of them rest."""
        self._gate = gate
        self.lane = lane
        well = not gate.deployments.resting
        self._turn, self._left = lane.take(well, gate.monotonic_nanos(), gate.wall_nanos(), known_by)
        #: Tries that have failed, for the record of what the session does first.
        self.failed_tries: list[Attempt] = []
        #: Its number as the one call that tries whether the deployment is well.
        self._probe = 0
        self._began = 0
        self._busy = False
        self._open = False

    @property
    def target(self) -> Target | None:
        """The deployment that is being tried, or holds the session; ``None`` where all are used up."""
        return self._left[0] if self._left else None

    def begin(self) -> bool:
        """Try the first that is left and may be called now; false where there is none."""
        while self._left:
            health, now = self._left[0].health, self._gate.monotonic_nanos()
            if not health.closed:
                self._probe = health.claim(now)
                if not self._probe:
                    self._left = self._left[1:]
                    continue
            self._began = now
            self._busy = True
            health.begun()
            return True
        return False

    def skip(self) -> None:
        """Go past a deployment that could hold no session of this caller; it was asked for nothing."""
        self._left = self._left[1:]

    def failed(self, status: int, code: str, retry_after: int = 0) -> bool:
        """The deployment did not accept; whether another one may be tried in its place.

        ``status`` is that of its answer, 0 where none came; ``retry_after`` what it asks for, in nanoseconds.
        """
        target = self._left[0]
        probe = self._done()
        self._turn = -1
        self._gate.deployments.failed(target, self.lane, status, code, retry_after, probe)
        now = self._gate.monotonic_nanos()
        self.failed_tries.append(Attempt(target.name, status, code or "upstream_error", (now - self._began) // 1_000))
        rule, failures = self.lane.retry or FAILOVER, len(self.failed_tries)
        if status and not may_retry(rule, failures, status, code):
            return False
        left = tuple(each for each in self._left[1:] if each.health.may(now))
        if not left or failures > rule.tries:
            return False
        self._left = left
        return True

    def accepted(self) -> None:
        """The session is open."""
        target, now = self._left[0], self._gate.monotonic_nanos()
        self._turn = -1
        self._probe = 0
        self._open = True
        self._gate.deployments.answered(target, (now - self._began) // 1_000, self._began)

    def broke(self, code: str) -> None:
        """The open session ended by its provider's fault."""
        if self._open:
            self._gate.deployments.failed(self._left[0], self.lane, 0, code)

    def over(self) -> None:
        """The session has ended, or is not opened any more; a turn in which nothing was asked for is the next one's."""
        turn, self._turn = self._turn, -1
        asked = self._busy
        probe = self._done()
        if probe:
            self._left[0].health.gave_way(probe)
        if turn >= 0 and not asked:
            self.lane.give_back(turn)

    def _done(self) -> int:
        probe, self._probe = self._probe, 0
        if self._busy:
            self._busy = False
            self._left[0].health.over()
        return probe
