"""Which other model a refused call would fit: looked for only once a call is refused, and among few models."""

from typing import TYPE_CHECKING, Final

from faregate.core.call import Call
from faregate.core.limits.admit import Standing
from faregate.core.limits.refusal import Binding, LimitRefusal
from faregate.core.pricing.charging import rule_for, text_of
from faregate.proxy.bound import upper_bound
from faregate.proxy.snapshot import Target

if TYPE_CHECKING:
    from faregate.proxy.exchange import Exchange

#: Models that are looked at, the cheapest first: a refusal must stay as cheap as the call that it replaces.
MODELS_MAX: Final = 32

_PLACES: Final = ("model", "deployment", "provider")
_UNUSUAL: Final = Call._fields.index("media")
_USUAL: Final = Call("", "")[_UNUSUAL:]


def fitting_model(exchange: "Exchange", refusal: LimitRefusal, now: int) -> str:
    """The cheapest model that the caller may use and whose bound for this very call fits all limits now; else empty.

    Only for calls of text, whose bound elsewhere is known without reading them again.
    """
    call, operation, match, asked = exchange.call, exchange.operation, exchange.match, exchange.target
    if operation is None or match is None or asked is None or call[_UNUSUAL:] != _USUAL:
        return ""
    if not all(_another_may_fit(binding) for binding in refusal.bindings):
        return ""
    gate, snapshot = exchange.gate, exchange.snapshot
    least = gate.settings.min_answer_tokens
    found: list[tuple[int, str, Target]] = []
    looked_at = 0
    for name in snapshot.by_price(operation.name, now):
        lane = exchange.permitted(name)
        targets = lane.members if lane is not None else ()
        if not targets or name == call.model or targets[0].name == asked.name or targets[0].reads_as:
            continue
        target = targets[0]
        tariff = target.prices.at(now)
        if tariff is not None:
            found.append((tariff.bound(exchange.call.input_tokens_max, call.output_cap or least), name, target))
        looked_at += 1
        if looked_at == MODELS_MAX:
            break
    for _, name, target in sorted(found, key=lambda each: each[:2]):
        who = match.who._replace(model=target.model, deployment=target.name, provider=target.provider.name)
        tariff = target.prices.at(now)
        assert tariff is not None, "it had a price a moment ago"
        rule = rule_for(snapshot.catalogue.charges, who)
        charging = rule if rule is not None and text_of(rule) else None
        counted = exchange.counted and target.encoding == asked.encoding
        input_tokens = exchange.input_tokens if counted else call.input_tokens_max
        cap = call.output_cap
        if cap is None:
            cap = min(least, target.output_tokens_max or least)
        wanted = upper_bound(call, tariff, input_tokens, cap, None, charging)
        if gate.allowances.fits(Standing(who, snapshot.limits.matching(who)), wanted, now):
            return name
    return ""


def _another_may_fit(binding: Binding) -> bool:
    """Whether a call to another model may pass a limit that this one did not."""
    limit = binding.limit
    if any(name in _PLACES for name in (*(name for name, _ in limit.selector), *limit.each)):
        return True
    return binding.unit == "usd" and not binding.deed and binding.remaining > 0 and binding.code != "limit_pending"
