"""Why a reservation was refused, as a value, with what a caller needs to know to do better.

Owns the choice of the limit to name when several bind. Takes plain figures and keeps nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

from faregate.core.limits.index import CompiledLimit
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


class LimitRefusal(NamedTuple):
    """A call that does not fit; the figures are those of the limit that frees last."""

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
    #: Ids of the other limits that the call does not fit either, in the order in which they free, last first.
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

    Named is the limit that frees last: one that can never fit the call, then one whose window never ends, then the
    longest wait; among equals the first id. Limits that only wait for their balance are named when nothing else binds.
    ``resets_at`` of one that time alone will ease, because it ends or is raised then, is that moment.
    """

    def rank(binding: Binding) -> tuple[bool, bool, int, str]:
        wait = _wait_s(binding, now_nanos)
        pending = binding.code == "limit_pending"
        return pending, not _impossible(binding), -(wait if wait is not None else _FOREVER_S), binding.limit.id

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
    """The binding with the moment at which the limit's terms let the call in, where no end of a window does."""
    terms = binding.limit.terms
    if not (terms.until or terms.raises or terms.forced):
        return binding
    if not _impossible(binding) and (binding.resets_at or binding.code in _FREED_SOON):
        return binding
    moments = [each.since for each in terms.raises if each.amount >= binding.wanted]
    if binding.deed:
        moments += [each.until for each in terms.forced]
    eased_at = min((moment for moment in (*moments, terms.until) if moment > now_nanos), default=0)
    return binding._replace(resets_at=eased_at, eased=True) if eased_at else binding


def _impossible(binding: Binding) -> bool:
    """Whether the call wants more than the limit's whole amount, which no window will change."""
    amount = binding.amount
    return amount is not None and binding.wanted > amount and binding.code != "limit_pending" and not binding.eased


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
