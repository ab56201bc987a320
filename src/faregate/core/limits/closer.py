"""The closer look at limits that need more than one comparison: shadow, carry-over, actions, pace, no estimate.

``admit`` asks it only for callers whom such a limit concerns. It decides what one counter says of one call, takes and
ends the holds on it, and knows nothing of the other counters.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from faregate.core.amounts import Amounts
from faregate.core.limits.counters import UNLIMITED, Allowance, Counter
from faregate.core.limits.index import CompiledLimit
from faregate.core.limits.moving import Hold, Moving, Pace, Smooth
from faregate.core.limits.refusal import Binding
from faregate.core.limits.terms import Action


class Deeds(NamedTuple):
    """What actions do to the calls of somebody now, beside refusing them."""

    downgrade: Action | None = None
    #: The limit whose action it is.
    limit: str = ""


NO_DEEDS = Deeds()


class Looked(NamedTuple):
    """What the counters of one caller say of one call."""

    #: Those that refuse it.
    bindings: Sequence[Binding]
    #: Ids of shadow limits that would have.
    shadowed: tuple[str, ...]


_FITS = Looked((), ())


def look(counters: Iterable[Counter], amounts: Amounts, now: int) -> Looked:
    """Whether a call fits all of ``counters`` now; nothing is held."""
    bindings: list[Binding] = []
    shadowed: tuple[str, ...] = ()
    for counter in counters:
        binding = _binding(counter, amounts[counter.unit], now)
        if binding is None:
            continue
        if counter.meter.limit.shadow:
            shadowed = (*shadowed, counter.meter.limit.id)
        else:
            bindings.append(binding)
    return Looked(bindings, shadowed) if bindings or shadowed else _FITS


def take(counters: Iterable[Counter], amounts: Amounts, now: int) -> tuple[tuple[Allowance, ...], tuple[Hold, ...]]:
    """Hold a call on ``counters``, which it fits; those of the calendar that hold as any other are told apart."""
    plain: list[Allowance] = []
    holds: list[Hold] = []
    for counter in counters:
        limit = counter.meter.limit
        wanted = amounts[counter.unit]
        throttle = _throttle(counter, now)
        if throttle is not None:
            if counter.pace is None:
                counter.pace = Pace()
            counter.pace.take(throttle.requests_per_minute, now)
        if not limit.terms.estimate:
            holds.append(Hold(counter, 0, now, None) if isinstance(counter, Allowance) else counter.take(0, now))
        elif isinstance(counter, Allowance):
            counter.used += wanted
            plain.append(counter)
        else:
            holds.append(counter.take(wanted, now))
    return tuple(plain), tuple(holds)


def hold_anyway(counter: Counter, amount: int, at: int, now: int) -> Hold:
    """Hold what was admitted at a moment in the past on a counter that does not hold as any other."""
    if not counter.meter.limit.terms.estimate:
        amount = 0
    if isinstance(counter, Allowance):
        counter.used += amount
        return Hold(counter, amount, at, None)
    return counter.put(amount, at, now)


def end(hold: Hold, posted: int, now: int) -> None:
    """End a hold: ``posted`` is counted instead of it."""
    counter = hold.counter
    if isinstance(counter, Allowance):
        counter.posted += posted
        counter.used += posted - hold.amount
        return
    if not counter.meter.limit.terms.estimate:
        # What was not estimated counts from the moment at which it is known. Where something is held, the limit did
        # estimate when the call began.
        counter.end(hold, 0, now)
        hold = counter.take(posted, now)
    counter.end(hold, posted, now)


def end_past(counter: Moving, posted: int, at: int, now: int) -> None:
    """Count what the books know to have been spent until a moment in the past."""
    counter.end(counter.put(0, at, now), posted, now)


def give_back_turn(counter: Counter, admitted_at: int) -> None:
    """A call that a throttle let pass was never sent, so that it, or another one, may pass instead."""
    pace = counter.pace
    if pace is not None and pace.taken_at == admitted_at:
        pace.next_at = admitted_at


def may_hold_more(counter: Counter, more: int, now: int) -> bool:
    """Whether ``more`` fits beside what is held; those that hold no estimate and refuse nobody always let it."""
    meter = counter.meter
    limit = meter.limit
    if limit.hard and meter.pending and meter.amount is not None:
        return False
    if isinstance(counter, Allowance) and limit.terms.carry_max and 0 < counter.window_end <= now:
        # What it has left counts in the next window already.
        return False
    top = _top(counter, now)[0]
    return limit.shadow or not limit.terms.estimate or top is None or _spent(counter, now) + more <= top


def hold_more(hold: Hold, more: int, now: int) -> None:
    """Hold ``more`` beside what is held."""
    counter = hold.counter
    if not counter.meter.limit.terms.estimate:
        return
    if isinstance(counter, Allowance):
        counter.used += more
        hold.amount += more
    else:
        counter.more(hold, more, now)


def room(counter: Counter, now: int) -> int:
    """The most that fits now, ``UNLIMITED`` where nothing bounds it."""
    limit = counter.meter.limit
    if limit.shadow:
        return UNLIMITED
    if limit.hard and counter.meter.pending and counter.meter.amount is not None:
        return 0
    top = _top(counter, now)[0]
    if top is None:
        return UNLIMITED
    left = max(0, top - _spent(counter, now))
    return left if limit.terms.estimate or not left else UNLIMITED


def deeds(counters: Iterable[Counter], now: int, models: Sequence[str] = ()) -> Deeds:
    """What the actions of ``counters`` do now beside refusing, to calls of a model that goes by the names ``models``.

    It is the downgrade of the first limit that has one for the model; of several of one limit that of the largest
    share.
    """
    for counter in counters:
        if counter.meter.limit.shadow:
            continue
        concerned = (action for action in _in_force(counter, now, "downgrade") if _concerns(action, models))
        action = max(concerned, key=lambda each: each.percent, default=None)
        if action is not None:
            return Deeds(action, counter.meter.limit.id)
    return NO_DEEDS


def _concerns(action: Action, models: Sequence[str]) -> bool:
    """Whether a downgrade is for calls of a model; without a name it is for some."""
    if not models:
        return True
    return action.to not in models and (not action.models or any(model in action.models for model in models))


def _binding(counter: Counter, wanted: int, now: int) -> Binding | None:
    """The figures of a counter that a call does not fit; ``None`` where it does."""
    meter = counter.meter
    limit = meter.limit
    if meter.pending and limit.hard and meter.amount is not None:
        return _told(counter, "limit_pending", wanted, now, counter.amount, "")
    top, deed = _top(counter, now)
    need = wanted if limit.terms.estimate else 1
    if top is not None and _spent(counter, now) + need > top:
        return _told(counter, limit.code, need, now, top, deed)
    throttle = None if limit.shadow else _throttle(counter, now)
    if throttle is not None and counter.pace is not None and counter.pace.next_at > now:
        rate = throttle.requests_per_minute
        next_at = counter.pace.next_at
        # They come one by one: the last that passed is in the way, and the minute's others are for later.
        return Binding(
            limit,
            "rate_limited",
            counter.subject,
            1,
            0,
            1,
            now,
            next_at,
            rate,
            "requests",
            "minute",
            "throttle",
            later=max(0, rate - 1),
        )
    return None


def _told(counter: Counter, code: str, wanted: int, now: int, amount: int | None, deed: str) -> Binding:
    limit = counter.meter.limit
    start, resets_at, later = counter.window_start, counter.window_end, 0
    if not isinstance(counter, Allowance):
        start = now - limit.period
        resets_at = counter.fits_at(wanted, amount, now) if amount is not None else 0
        if isinstance(counter, Smooth) and amount is not None and not deed:
            # How the limit is named; it takes less of that at once.
            later = max(0, (counter.meter.amount or 0) - amount)
            amount += later
    return Binding(
        limit,
        code,
        counter.subject,
        counter.posted,
        counter.held,
        wanted,
        start,
        resets_at,
        amount,
        limit.unit_name,
        limit.window,
        deed,
        later=later,
    )


def _top(counter: Counter, now: int) -> tuple[int | None, str]:
    """What may be reached, ``None`` without a bound, and the action that sets it lower than the limit does."""
    limit = counter.meter.limit
    amount = counter.amount
    top = amount if limit.hard or limit.shadow else None
    deed = ""
    if limit.terms.actions and amount is not None and not limit.shadow:
        for place, action in enumerate(limit.terms.actions):
            if action.do != "stop":
                continue
            share = amount * action.percent // 100
            if action.basis != "actual":
                if not _forced(limit, place, now):
                    continue
                share = 0
            if top is None or share < top:
                top, deed = share, "stop"
    return top, deed


def _throttle(counter: Counter, now: int) -> Action | None:
    """The strictest throttle in force."""
    if not counter.meter.limit.terms.actions:
        return None
    return min(_in_force(counter, now, "throttle"), key=lambda action: action.requests_per_minute, default=None)


def _in_force(counter: Counter, now: int, do: str) -> Iterator[Action]:
    """The actions of one kind whose share of the amount is spent, or that a forecast has put in force."""
    limit, amount = counter.meter.limit, counter.amount
    for place, action in enumerate(limit.terms.actions):
        if action.do != do:
            continue
        if action.basis != "actual":
            if _forced(limit, place, now):
                yield action
        elif amount is not None and _spent(counter, now) * 100 >= action.percent * amount:
            yield action


def _forced(limit: CompiledLimit, place: int, now: int) -> bool:
    return any(forced.action == place and now < forced.until for forced in limit.terms.forced)


def _spent(counter: Counter, now: int) -> int:
    return counter.used if isinstance(counter, Allowance) else counter.spent(now)
