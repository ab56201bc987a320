"""What the limits would say to a call right now, without holding anything on them.

The gate's own figures are copied into allowances that live for this one question, so that the core decides exactly as
it would at admission; nobody else ever sees them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from faregate.console.allowances import LimitView
from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution
from faregate.core.call import Call
from faregate.core.limits.admit import Allowances, LimitRefusal, Reservation, Standing
from faregate.core.limits.in_force import amount_at
from faregate.core.limits.index import CompiledLimit, LimitIndex
from faregate.core.pricing.cost import Tariff
from faregate.core.pricing.quote import Offer, held, largest_cap


class Outcome(NamedTuple):
    """Whether a call would be admitted, and with which output cap where that is not its own."""

    refusal: LimitRefusal | None = None
    #: The cap that the gateway would put into the call, 0 for none.
    clamped_to: int = 0


class Question:
    """The limits that concern one caller at one place, as they stand at one moment."""

    def __init__(
        self, who: Attribution, limits: Sequence[CompiledLimit], figures: Mapping[str, LimitView], now: int
    ) -> None:
        index = LimitIndex(limits)
        self.limits = index.matching(who)
        self._now = now
        self._allowances = Allowances()
        self._allowances.replace_limits(index, now)
        self._standing = Standing(who, self.limits)
        self._used: dict[str, int] = {}
        for limit in limits:
            found = figures.get(limit.id)
            posted, holding = found.subjects.get(limit.subject(who), (0, 0)) if found is not None else (0, 0)
            # What others hold is as good as posted here: nothing comes back before the question is answered.
            self._used[limit.id] = posted + holding
            start = found.window_start if found is not None else 0
            # What does not follow the calendar is counted as of now: it may have been spent a moment ago.
            at = now if limit.paced else start or now
            self._allowances.open_balance(limit.id, [(limit.subject(who), at, posted + holding)], now)

    @property
    def room(self) -> Amounts:
        """The most that fits in each unit."""
        return self._allowances.room(self._standing, self._now)

    def remaining(self, limit: CompiledLimit) -> int | None:
        """What a limit has left for this caller, ``None`` where it is unlimited; below a soft one too."""
        if limit.amount is None:
            return None
        return max(0, limit.amount - self._used[limit.id])

    @property
    def money_limited(self) -> bool:
        """Whether some limit bounds what the call may cost now."""
        return any(
            limit.bounds_money and amount_at(limit.amount, limit.terms, self._now) is not None for limit in self.limits
        )

    def outcome(self, call: Call, offer: Offer, whole: int, default_cap: int, least_cap: int) -> Outcome:
        """What admission would say: as the gate does, a cap is injected or lowered where the whole does not fit.

        ``whole`` is the call's own cap or the model's maximum, 0 where neither is known.
        """
        tariffs = [Tariff(card) for card in offer.cards]
        given = call.output_cap
        refusal: LimitRefusal | None = None
        if whole or not call.has_output:
            refusal = self._refused(held(call, offer, tariffs, whole))
            if refusal is None:
                return Outcome()
            if not call.has_output or call.sealed or (given is not None and not refusal.clamp):
                return Outcome(refusal)
        aim = whole if whole and (whole < default_cap or given is not None) else default_cap
        fits = largest_cap(call, offer, self.room)
        cap = min(aim, -1 if fits is None else fits)
        floor = min(least_cap, aim)
        if cap >= floor:
            return Outcome(clamped_to=cap)
        least = self._refused(held(call, offer, tariffs, floor))
        if least is None:
            return Outcome(clamped_to=floor)
        return Outcome(refusal if refusal is not None and given is not None else least)

    def _refused(self, amounts: Amounts) -> LimitRefusal | None:
        outcome = self._allowances.reserve("quote", self._standing, amounts, self._now)
        if isinstance(outcome, Reservation):
            self._allowances.release(outcome)
            return None
        return outcome
