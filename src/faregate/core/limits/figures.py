"""What is left of a caller's limits right now, for the headers that tell it.

Of each unit the limit is told that has the fewest left; among equals the one that takes longest to be new. Takes the
counters of one caller as they stand and keeps nothing. Only limits that stop calls are told: what a soft or a shadow
limit has left says nothing about the next call.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from faregate.core.amounts import UNITS
from faregate.core.limits.closer import room
from faregate.core.limits.counters import UNLIMITED, Allowance, Counter
from faregate.core.limits.index import CompiledLimit
from faregate.core.limits.windows import HOUR

_USD = UNITS.index("usd")
_TOKENS = UNITS.index("tokens")
_REQUESTS = UNITS.index("requests")
_TOLD = (_USD, _TOKENS, _REQUESTS)

#: Windows whose token limits are rates; any other is a quota.
_SHORT = ("second", "minute")


class Left(NamedTuple):
    """The limit of one unit that has the fewest left: its amount in force, and what is left of it."""

    amount: int
    remaining: int
    #: Nanoseconds since 1970 UTC at which it is new again, 0 where it never is.
    resets_at: int


class Figures(NamedTuple):
    """What is left, by unit; ``None`` where no limit of that unit stops the caller."""

    usd: Left | None = None
    tokens: Left | None = None
    requests: Left | None = None
    #: Of token limits over an hour or longer.
    quota_tokens: Left | None = None


def is_told(limit: CompiledLimit) -> bool:
    """Whether what a limit has left is told in headers."""
    stops = limit.hard or (not limit.shadow and any(action.do == "stop" for action in limit.terms.actions))
    return stops and limit.amount is not None and limit.unit in _TOLD


def figures(counters: Iterable[Counter], now_nanos: int, hidden: Collection[str] = ()) -> Figures:
    """What is left of a caller's ``counters`` at a moment, but of those limits whose ids are ``hidden``."""
    usd: Left | None = None
    tokens: Left | None = None
    requests: Left | None = None
    quota: Left | None = None
    for counter in counters:
        unit = counter.unit
        meter = counter.meter
        limit, amount = meter.limit, meter.amount
        if unit > _REQUESTS or amount is None or (hidden and limit.id in hidden):
            continue
        if limit.moving:
            left = _closer_left(counter, now_nanos)
            if left.remaining >= UNLIMITED:
                continue
        elif not limit.hard:
            continue
        else:
            # With every answer: what an ordinary counter has left, without a detour.
            ends_at = counter.window_end
            if ends_at and ends_at <= now_nanos:
                # Of a limit that was replaced since: nobody counts in this window any more.
                continue
            remaining = max(0, meter.ceiling - counter.used) if isinstance(counter, Allowance) else 0
            # A named tuple's own constructor costs three times as much as the tuple's, with every answer.
            left = tuple.__new__(Left, (amount, remaining, ends_at))
        if unit == _USD:
            usd = left if usd is None else _tighter(usd, left)
        elif unit == _REQUESTS:
            requests = left if requests is None else _tighter(requests, left)
        elif unit == _TOKENS:
            tokens = left if tokens is None else _tighter(tokens, left)
            if limit.window not in _SHORT and not 0 < limit.rolling < HOUR:
                quota = left if quota is None else _tighter(quota, left)
    return tuple.__new__(Figures, (usd, tokens, requests, quota))


def _closer_left(counter: Counter, now_nanos: int) -> Left:
    """What is left of a limit that needs a closer look; an action of it may stop calls before its amount does."""
    if not isinstance(counter, Allowance):
        counter.spent(now_nanos)
    remaining = min(counter.remaining, room(counter, now_nanos))
    # A soft limit may stop calls beyond its amount.
    amount = counter.amount or 0
    return Left(amount if remaining >= UNLIMITED else max(amount, remaining), remaining, counter.window_end)


def _tighter(one: Left, two: Left) -> Left:
    if two.remaining < one.remaining:
        return two
    if two.remaining == one.remaining and one.resets_at and not 0 < two.resets_at <= one.resets_at:
        return two
    return one
