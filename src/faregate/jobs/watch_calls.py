"""Raises what is to be told of calls: those for which a price is missing, and those whose outcome is not learnt.

One alert a day for each model, unit and cause, and a bounded number of them: callers choose the names of models.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from faregate.core import money
from faregate.core.alerts import Unpriced, Waiting

#: Models and units that are told of one by one on a day.
TOLD_A_DAY_MAX: Final = 20

#: Figures of the gate are asked for in every fifth round: they change slowly, and there are many of them.
ROUNDS_PER_FIGURES: Final = 5

_DAY_NANOS: Final = 24 * 3_600 * 1_000_000_000
_NAME_CHARACTERS_MAX: Final = 128


class WatchedCalls(Protocol):
    """The calls of an installation, as far as the watch sees them."""

    def now(self) -> int:
        """Nanoseconds since 1970 UTC."""
        ...

    async def waiting(self) -> Waiting | None:
        """What waits now; ``None`` where the gate is away."""
        ...

    def raise_alert(self, kind: str, name: str, severity: str, message: str, details: Mapping[str, object]) -> bool:
        """Raise an alert, unless its name was raised before."""
        ...


class UnknownsRule(NamedTuple):
    """More calls whose outcome is not known, or more nano-dollars in them, are told of."""

    calls: int
    nanos: int


class CallWatch:
    """Looks at calls; ``run`` is to be called in every round, with what it brought."""

    def __init__(self, calls: WatchedCalls, rule: UnknownsRule) -> None:
        self._calls = calls
        self._rule = rule
        self._rounds = 0
        #: Usage without a price when it was looked at last, by unit; ``None`` before the first look.
        self._unpriced: Mapping[str, int] | None = None
        #: What was told today.
        self._day = 0
        self._told: set[str] = set()

    async def run(self, unpriced: Sequence[Unpriced]) -> None:
        """Raise what follows from calls without a price, and now and then from the gate's figures.

        Raises:
            Unavailable: the books do not answer.
        """
        self._rounds += 1
        if unpriced:
            await asyncio.to_thread(self._tell_unpriced, unpriced)
        if self._rounds % ROUNDS_PER_FIGURES == 1:
            waiting = await self._calls.waiting()
            if waiting is not None:
                await asyncio.to_thread(self._tell_waiting, waiting)

    def _tell_unpriced(self, unpriced: Iterable[Unpriced]) -> None:
        for each in unpriced:
            model = each.model[:_NAME_CHARACTERS_MAX]
            if each.how == "refused":
                told = f"Calls for the model {model} are refused, because nobody has told its price."
                way_out = "Set one with `faregate price set`, or choose what happens by `pricing.unknown`."
            else:
                told = f"Calls for the model {model} are billed at a provisional price, because its own is not known."
                way_out = "They are trued up when it comes; set it with `faregate price set`."
            details = {"model": model, "how": each.how, "key": each.key or None}
            self._tell(f"{each.how};{model}", f"{told} {way_out}", details)

    def _tell_waiting(self, waiting: Waiting) -> None:
        before, self._unpriced = self._unpriced, waiting.unpriced
        for unit, count in waiting.unpriced.items():
            # A gate that was started anew counts from nothing again.
            known = before.get(unit, 0) if before is not None else count
            if count > known:
                told = f"Providers reported usage that no price covers: {unit}. It was not charged for."
                self._tell(f"usage;{unit}", f"{told} Set a price for it with `faregate price set`.", {"unit": unit})
        if waiting.calls > self._rule.calls or waiting.nanos > self._rule.nanos:
            dollars = money.dollars(waiting.nanos)
            told = f"The outcome of {waiting.calls} calls is not known; they hold {dollars} dollars."
            way_out = "It is asked of the providers, and decided by `unknowns.policy` after `unknowns.ttl`."
            details = {"count": waiting.calls, "held": dollars}
            name = f"unknowns;{self._today()}"
            self._calls.raise_alert("unknowns", name, "warning", f"{told} {way_out}", details)

    def _tell(self, what: str, message: str, details: Mapping[str, object]) -> None:
        day = self._today()
        if day != self._day:
            self._day, self._told = day, set()
        if what in self._told or len(self._told) > TOLD_A_DAY_MAX:
            return
        if len(self._told) == TOLD_A_DAY_MAX:
            what, details = "and more", {"more": True}
            message = f"More than {TOLD_A_DAY_MAX} models or units are without a price; no more are told of today."
        self._calls.raise_alert("unpriced", f"unpriced;{day};{what}", "warning", message, details)
        self._told.add(what)

    def _today(self) -> int:
        return self._calls.now() // _DAY_NANOS
