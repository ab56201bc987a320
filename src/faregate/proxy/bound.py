"""Steps 6 and 7: the most a call may cost at this instant, and the hold for it.

A cap that the caller gave is held as it was given. A caller without one holds the model's whole maximum where that
fits; where it does not, the largest cap that fits is injected, and refused only when not even the smallest useful
answer fits (RULINGS 8).
"""

from typing import Final, NamedTuple

from faregate.core.amounts import Amounts, counted_tokens, held_amounts
from faregate.core.call import Call
from faregate.core.limits.admit import Allowances, LimitRefusal, Reservation, Standing
from faregate.core.pricing.charging import ChargeRule, charge_bound, cost_within
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import Measure
from faregate.proxy.snapshot import Target


def upper_bound(
    call: Call,
    tariff: Tariff,
    input_tokens: int,
    cap: int,
    tier_tariff: Tariff | None = None,
    charging: ChargeRule | None = None,
) -> Amounts:
    """The amounts held for a call whose every choice has at most ``cap`` output tokens.

    ``tier_tariff`` is that of another service tier which may answer instead of the standard one; ``charging`` is what
    makes the charge, which limits count, another amount than the cost.
    """
    output = cap * call.choices + call.extra_output_tokens if call.has_output else 0
    if call.calls > 1:
        # Each is a call of its own: many short ones are not one long call, and each has its own fee.
        most: tuple[Measure, ...] = (*call.at_most, *call.declared)
        longest = min(input_tokens, call.longest_input or input_tokens)
        money = tariff.bound_of_calls(call.calls, longest, input_tokens, output, call.media, most)
    elif not call.media and not call.at_most and not call.declared and tier_tariff is None:
        most = ()
        money = tariff.bound(input_tokens, output)
    else:
        most = (*call.at_most, *call.declared)
        money = tariff.bound(input_tokens, output, call.media, most)
        if tier_tariff is not None:
            money = max(money, tier_tariff.bound(input_tokens, output, call.media, most))
    if charging is not None:
        money = charge_bound(charging, money)
    return held_amounts(money, input_tokens, output, most)


#: By so much at most a cap makes a body longer that had none: its name, its digits and what is around them.
_CAP_BYTES_MAX: Final = 48


def cap_within(call: Call, output_tokens: int) -> int:
    """The output cap of one choice that a call of so many output tokens in all has; the reverse of ``upper_bound``."""
    return -(-max(0, output_tokens - call.extra_output_tokens) // call.choices)


class Held(NamedTuple):
    """A hold was taken; ``cap`` is the output cap to send where it is not the caller's own, else 0."""

    reservation: Reservation
    cap: int


class Wants(NamedTuple):
    """What one call asks of the allowances."""

    standing: Standing
    call: Call
    target: Target
    tariff: Tariff
    #: Input tokens, bounded by length or counted.
    input_tokens: int
    default_output_tokens: int
    min_answer_tokens: int
    tier_tariff: Tariff | None = None
    charging: ChargeRule | None = None

    def amounts(self, cap: int) -> Amounts:
        """The amounts held for an output cap of one choice."""
        return upper_bound(self.call, self.tariff, self.input_tokens, cap, self.tier_tariff, self.charging)

    def output_tokens_within(self, nanos: int) -> int:
        """The most output tokens whose bound is at most ``nanos``, in any tier that may answer."""
        call = self.call
        if self.charging is not None:
            nanos = cost_within(self.charging, nanos)
        most = (*call.at_most, *call.declared)
        fits = self.tariff.output_tokens_within(nanos, self.input_tokens, call.media, most)
        if self.tier_tariff is None:
            return fits
        return min(fits, self.tier_tariff.output_tokens_within(nanos, self.input_tokens, call.media, most))


def hold(request_id: str, wants: Wants, allowances: Allowances, now: int) -> Held | LimitRefusal:
    """Take the hold for a call, on all its limits or on none."""
    call = wants.call
    given = call.output_cap
    whole = given if given is not None else wants.target.output_tokens_max
    refusal: LimitRefusal | None = None
    if whole or not call.has_output:
        outcome = allowances.reserve(request_id, wants.standing, wants.amounts(whole or 0), now)
        if isinstance(outcome, Reservation):
            return Held(outcome, 0)
        refusal = outcome
        if not call.has_output or call.sealed or (given is not None and not refusal.clamp):
            return refusal
    return _clamped(request_id, wants, allowances, now, refusal, whole or 0)


def _clamped(
    request_id: str, wants: Wants, allowances: Allowances, now: int, refusal: LimitRefusal | None, whole: int
) -> Held | LimitRefusal:
    """Hold the largest useful cap that fits."""
    aim = wants.default_output_tokens
    if whole and (whole < aim or wants.call.output_cap is not None):
        aim = whole
    cap = min(aim, largest_cap(wants, allowances, now))
    floor = min(wants.min_answer_tokens, aim)
    if cap < floor:
        # Ask for the smallest answer, so that the refusal tells what even that would have needed.
        outcome = allowances.reserve(request_id, wants.standing, wants.amounts(floor), now)
        if isinstance(outcome, Reservation):
            return Held(outcome, floor)
        return refusal if refusal is not None and wants.call.output_cap is not None else outcome
    outcome = allowances.reserve(request_id, wants.standing, wants.amounts(cap), now)
    return Held(outcome, cap) if isinstance(outcome, Reservation) else outcome


def largest_cap(wants: Wants, allowances: Allowances, now: int) -> int:
    """The largest output cap of one choice that every limit still has room for; negative where not even 0 fits."""
    room = allowances.room(wants.standing, now)
    more_in, more_out = counted_tokens(wants.call.at_most)
    incoming = wants.input_tokens + more_in
    output = min(
        room.output_tokens - more_out,
        room.tokens - incoming - more_out,
        wants.output_tokens_within(room.usd),
    )
    if room.requests < 1 or room.concurrency < 1 or room.input_tokens < incoming:
        return -1
    return (output - wants.call.extra_output_tokens) // max(1, wants.call.choices)


def fitting_cap(wants: Wants, allowances: Allowances, now: int) -> int:
    """The largest output cap that a refused caller could send instead, and would pass now; 0 where none would.

    It is at most what was asked for, and what the model can answer with.
    """
    call = wants.call
    if not call.has_output or call.sealed:
        return 0
    if call.output_cap is None:
        # The cap will be in the body, whose length may be what bounds the input.
        wants = wants._replace(input_tokens=wants.input_tokens + _CAP_BYTES_MAX)
    cap = largest_cap(wants, allowances, now)
    for most in (call.output_cap, wants.target.output_tokens_max or None):
        if most is not None:
            cap = min(cap, most)
    return cap if cap > 0 and allowances.fits(wants.standing, wants.amounts(cap), now) else 0
