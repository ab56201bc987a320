"""When a server that does not answer is left alone."""

from typing import Final

#: Failures in a row after which it is.
FAILURES_MAX: Final = 5

#: For how long; then one call tries it, and the others go on without.
REST_S: Final = 5.0


class Breaker:
    """Whether a server is asked. Times are seconds of a clock that never steps back."""

    __slots__ = ("_failures", "_rests_until")

    def __init__(self) -> None:
        self._failures = 0
        self._rests_until = 0.0

    @property
    def rests(self) -> bool:
        """Whether it was left alone when it was last heard of."""
        return self._failures >= FAILURES_MAX

    def may_ask(self, now: float) -> bool:
        """Whether it may be asked now; while it rests, true is said once and means that this one tries it."""
        if self._failures < FAILURES_MAX:
            return True
        if now < self._rests_until:
            return False
        self._rests_until = now + REST_S
        return True

    def answered(self) -> bool:
        """It did what it was asked for, in time; whether it rested before that."""
        rested = self.rests
        self._failures = 0
        return rested

    def failed(self, now: float) -> bool:
        """It did not; whether that makes it rest."""
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            self._rests_until = now + REST_S
        return self._failures == FAILURES_MAX
