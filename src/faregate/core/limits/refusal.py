"""Why a reservation was refused, as a value, with what a caller needs to know to do better.

Owns the choice of the limit to name when several bind. Takes plain figures and keeps nothing.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from faregate.core.limits.in_force import amount_at
from faregate.core.limits.index import CompiledLimit
from faregate.core.limits.moving import burst_of
from faregate.core.limits.windows import SECOND

#: Seconds after which trying again makes sense where no window tells: a slot or a balance may be free by then.
RETRY_SOON_S = 1

#: Units of which a call holds more than it mostly uses.
_HELD_AT_MOST = frozenset(("usd", "tokens", "input_tokens", "output_tokens"))

#: Refusals by what comes back at any moment: a slot, a balance that is being read.
_FREED_SOON = frozenset(("concurrency_limited", "limit_pending"))


class Binding(NamedTuple):
    """One limit that a call does not fit, with its figures at that moment, in the limit's unit."""

    limit: CompiledLimit
    code: str
    subject: tuple[str, ...]
    posted: int
    held: int
    #: What the call wanted to hold.
    wanted: int
    window_start: int
    #: Nanoseconds since 1970 UTC at which the window ends, or at which enough of a rolling one is past; 0 for never.
    resets_at: int
    #: What may be reached, ``None`` for an unlimited one; and what is counted over which window. They are the limit's
    #: own but where an action of it refuses, such as a throttle.
    amount: int | None
    unit: str
    window: str
    #: Which action refuses, empty where the limit itself does.
    deed: str = ""
    #: ``resets_at`` is when the limit ends or is raised, not the end of a window.
    eased: bool = False
    #: Of ``amount``, what cannot be taken at once: all but the burst of a smooth limit.
    later: int = 0

    @property
    def remaining(self) -> int:
        """What is left to be taken now, 0 of an unlimited one."""
        return max(0, (self.amount or 0) - self.later - self.posted - self.held)


def is_of_place(binding: Binding) -> bool:
    """Whether a limit counts what goes to one place, so that another place may have room."""
    return binding.limit.of_place


class LimitRefusal(NamedTuple):
    """A call that does not fit; the figures are those of the limit that ``refuse`` names."""

    limit: CompiledLimit
    code: str
    subject: tuple[str, ...]
    #: The limit's amount; 0 for an unlimited one, which refuses only for want of room for its counters.
    amount: int
    posted: int
    held: int
    wanted: int
    window_start: int
    #: Nanoseconds since 1970 UTC at which the window ends, 0 where it never does.
    resets_at: int
    #: Whole seconds after which the window is a new one, at least 1; ``None`` where no waiting helps.
    retry_after_s: int | None
    #: Ids of the other limits that the call does not fit either, in the order of ``refuse``.
    others: tuple[str, ...]
    #: The call wants more than the whole amount: it will not fit after any wait.
    impossible: bool
    #: All limits that the call does not fit let its answer be clamped to what they have left.
    clamp: bool
    #: What is counted over which window, and the action that refuses, as of ``Binding``.
    unit: str
    window: str
    deed: str = ""
    #: All limits that the call does not fit, the named one first, then in the order of ``others``.
    bindings: tuple[Binding, ...] = ()


def refuse(bindings: Sequence[Binding], now_nanos: int) -> LimitRefusal:
    """The refusal for ``bindings``, of which there is at least one.

    Named is the limit that frees last. Those for which no wait helps come first, the tightest before the others: the
    one that has room for the least part of the call, among equals one that can never fit it. Then come the others by
    their wait, the longest first; among equals the first id. Limits that only wait for their balance are named when
    nothing else binds.
    ``resets_at`` of one that time alone will ease, because it ends or is raised then, is that moment.
    """

    def rank(binding: Binding) -> tuple[bool, int, Fraction, bool, str]:
        wait = _wait_s(binding, now_nanos)
        pending = binding.code == "limit_pending"
        if wait is not None:
            return pending, -wait, Fraction(0), False, binding.limit.id
        part = Fraction(binding.remaining, max(1, binding.wanted))
        return pending, -_FOREVER_S, part, not _impossible(binding), binding.limit.id

    ranked = tuple(sorted((_as_terms_say(binding, now_nanos) for binding in bindings), key=rank))
    first, rest = ranked[0], ranked[1:]
    return LimitRefusal(
        limit=first.limit,
        code=first.code,
        subject=first.subject,
        amount=first.amount or 0,
        posted=first.posted,
        held=first.held,
        wanted=first.wanted,
        window_start=first.window_start,
        resets_at=first.resets_at,
        retry_after_s=_wait_s(first, now_nanos),
        others=tuple(binding.limit.id for binding in rest),
        impossible=_impossible(first),
        clamp=all(binding.limit.clamp for binding in bindings),
        unit=first.unit,
        window=first.window,
        deed=first.deed,
        bindings=ranked,
    )


_FOREVER_S = 1 << 62


def _as_terms_say(binding: Binding, now_nanos: int) -> Binding:
    """The binding with the first moment at which the call fits, where the limit's terms change with time.

    It may end, be raised, or be no longer under a forecast before its window is new, and not be eased by that at all.
    """
    terms = binding.limit.terms
    if not (terms.until or terms.raises or terms.forced) or binding.deed == "throttle":
        return binding
    impossible = _impossible(binding)
    if binding.code in _FREED_SOON and not impossible:
        return binding
    moments = {terms.until, *(each.since for each in terms.raises), *(each.until for each in terms.forced)}
    if not impossible:
        moments.add(binding.resets_at)
    for moment in sorted(moments):
        if moment > now_nanos and _fits_at(binding, moment):
            eased = impossible or moment != binding.resets_at
            return binding._replace(resets_at=moment, eased=True) if eased else binding
    return binding if impossible else binding._replace(resets_at=0)


def _fits_at(binding: Binding, at_nanos: int) -> bool:
    """Whether the call fits at a moment to come, when all that is held now will have been used."""
    limit = binding.limit
    terms = limit.terms
    amount = amount_at(limit.amount, terms, at_nanos)
    if amount is None:
        return True
    if terms.algorithm:
        amount = burst_of(limit, amount)
    tops = [amount] if limit.hard else []
    for place, action in enumerate(terms.actions):
        if action.do != "stop":
            continue
        if action.basis == "actual":
            tops.append(amount * action.percent // 100)
        elif any(forced.action == place and at_nanos < forced.until for forced in terms.forced):
            tops.append(0)
    new = 0 < binding.resets_at <= at_nanos
    spent = 0 if new else binding.posted + binding.held
    return all(spent + binding.wanted <= top for top in tops)


def _impossible(binding: Binding) -> bool:
    """Whether the call wants more than the limit's whole amount, which no window will change."""
    amount = binding.amount
    if amount is None or binding.code == "limit_pending" or binding.eased:
        return False
    return binding.wanted > amount - binding.later


def _wait_s(binding: Binding, now_nanos: int) -> int | None:
    """Whole seconds, rounded up, until trying again makes sense; ``None`` where waiting does not help."""
    if _impossible(binding):
        return None
    if binding.code in _FREED_SOON and not binding.eased:
        return RETRY_SOON_S
    if not binding.resets_at:
        return None
    amount = binding.amount
    soon = binding.held > 0 and binding.unit in _HELD_AT_MOST
    if amount is not None and soon and binding.posted + binding.wanted <= amount:
        # Only calls under way are in the way; they end long before the window does, and give most of it back.
        return RETRY_SOON_S
    return max(1, -((now_nanos - binding.resets_at) // SECOND))
