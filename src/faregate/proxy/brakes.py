"""The anomaly brake in the gate: a key that trips is refused from its next call on, before anybody was asked.

What trips is decided in ``core.limits.brake``. Here the refusal is made that bridges the time until the console has
made a limit of it, which holds on across restarts, can be lifted and is told in the books; and what the console must
know is kept until it has fetched it, however long it is away.
"""

import logging
from typing import Final

from faregate.control import Brakes, Habits
from faregate.core.limits.brake import Brake
from faregate.core.limits.habits import BrakeRules, Trip, braked_because
from faregate.core.limits.windows import MINUTE, SECOND
from faregate.core.moments import rfc3339
from faregate.core.money import dollars
from faregate.errors import Problem
from faregate.proxy.metrics import Metrics

logger = logging.getLogger("faregate.gate")

#: Keys whose past is asked for at once: the console sums up five weeks of each.
WANTED_MAX: Final = 50


class Bridge:
    """A key that tripped and has no limit for it yet."""

    __slots__ = ("minute", "passed", "trip", "until")

    def __init__(self, trip: Trip, until: int) -> None:
        self.trip = trip
        self.until = until
        #: The minute of the clock in which calls of it passed last, and how many. The one in which it tripped is full.
        self.minute = trip.at // MINUTE
        self.passed = 1 << 62


class GateBrakes:
    """The brakes of one gate; a gate whose configuration has none of them has no ``GateBrakes``."""

    def __init__(self, rules: BrakeRules, metrics: Metrics) -> None:
        self._rules = rules
        self._metrics = metrics
        self._brake = Brake(rules)
        #: Keys that are refused here; nearly always nobody, so that asking costs a call nothing else.
        self.bridged: dict[str, Bridge] = {}
        #: What the console has not taken over yet.
        self._trips: dict[str, Trip] = {}

    # -- the calls -----------------------------------------------------------------------------------------------------

    def spent(self, key: str, amount: int, now: int, body: bytes = b"") -> None:
        """A call of ``key`` ended; ``body`` is what it asked, where that can be compared.

        ``amount`` is its cost or its charge, whichever is more: what nobody is charged for costs the operator.
        """
        trip = self._brake.spent(key, amount, now, body)
        if trip is not None:
            self._tripped(key, trip, now)

    def _tripped(self, key: str, trip: Trip, now: int) -> None:
        self._trips[key] = trip
        self.bridged[key] = Bridge(trip, now + self._rules.duration)
        self._metrics.braked(trip.cause)
        facts = {"key": key, "cause": trip.cause, "spent": dollars(trip.spent), "allowed": dollars(trip.allowed)}
        logger.warning("key_braked", extra={**facts, "window_s": trip.window_s})

    def refuses(self, key: str, now: int) -> Problem | None:
        """Why a call of ``key`` is refused now; as the limit will that follows, some pass each minute."""
        bridge = self.bridged.get(key)
        if bridge is None:
            return None
        if now >= bridge.until:
            del self.bridged[key]
            return None
        most = self._rules.requests_per_minute
        minute = now // MINUTE
        if minute > bridge.minute:
            bridge.minute, bridge.passed = minute, 0
        if bridge.passed < most:
            bridge.passed += 1
            return None
        resets_at = (bridge.minute + 1) * MINUTE
        wait_s = max(1, -((now - resets_at) // SECOND))
        reason = braked_because(bridge.trip)
        calls = "1 call" if most == 1 else f"{most} calls"
        return Problem(
            "rate_limited",
            f"This key is braked until {rfc3339(bridge.until)}, and {calls} a minute may pass; retry in {wait_s} s. "
            f"Reason: {reason}",
            retry_after_s=wait_s,
            details={
                "limit": None,
                "unit": "requests",
                "amount": str(most),
                "window": "minute",
                "resets_at": rfc3339(resets_at),
                "reason": reason,
                "contact": None,
            },
        )

    # -- the console ---------------------------------------------------------------------------------------------------

    def report(self, now: int) -> Brakes:
        """What the console has to know and to look up."""
        return Brakes(tuple(self._trips.values()), self._brake.wanted(WANTED_MAX), self._brake.in_force(now))

    def told(self, habits: Habits, now: int) -> None:
        """Go by what the console found out. Trips that it has taken over are limits by now."""
        for key, at in habits.taken:
            trip = self._trips.get(key)
            if trip is not None and trip.at == at:
                del self._trips[key]
                self.bridged.pop(key, None)
        for habit in habits.habits:
            if habit.key not in self._trips:
                # Else it is older than the brake that was put on meanwhile.
                trip = self._brake.told(habit, now)
                if trip is not None:
                    self._tripped(habit.key, trip, now)

    def in_force(self, now: int) -> int:
        """How many keys are braked now."""
        return self._brake.in_force(now)
