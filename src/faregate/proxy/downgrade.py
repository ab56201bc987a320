"""A call goes to a cheaper model because a limit's action says so (CAPABILITIES D8).

Decided at each call, from the gate's own counters. Where the cheaper model may not be used, does not do what is asked
or has no price, the call goes where it was meant to go: a downgrade saves money, it never refuses.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from faregate.core.call import Call
from faregate.dialects.openai_chat import OPERATION as CHAT
from faregate.dialects.operations import ABOUT_OBJECTS
from faregate.errors import Problem
from faregate.proxy.snapshot import Match, Target

if TYPE_CHECKING:
    from faregate.proxy.exchange import Exchange

_encode: Final = msgspec.json.Encoder().encode


def downgraded(exchange: "Exchange", match: Match, target: Target, now: int) -> bool:
    """Turn a call towards the model that an action in force names; false where none is, or where it may not go there.

    The call is read anew for that model, and everything that was found out for the one before is forgotten.
    """
    call, operation = exchange.call, exchange.operation
    deeds = exchange.gate.allowances.deeds(match.standing, now, (call.model, target.model))
    action = deeds.downgrade
    if action is None or operation is None:
        return False
    if call.sealed or call.objects or operation.name in ABOUT_OBJECTS or target.place is not None:
        # Its bytes cannot name another model, or what it is about lies where it was meant to go.
        return False
    lane = exchange.permitted(action.to)
    cheaper = lane.first(exchange.gate.monotonic_nanos()) if lane is not None else None
    if lane is None or cheaper is None:
        return False
    name = cheaper.reads_as if cheaper.reads_as and call.operation == CHAT else action.to
    read: Call | Problem = call
    if exchange.dialect.media != "form":
        # What a form asks for is the same at every model, and large ones are never read on the loop.
        read = exchange.dialect.read(exchange.body, name, exchange.gate.settings.forbid_private_urls)
    if isinstance(read, Problem) or not _does(cheaper, read, now):
        return False
    exchange.turn_to(read._replace(model=action.to), lane, call.model, deeds.limit)
    return True


def _does(target: Target, call: Call, now: int) -> bool:
    """Whether a place can answer a call at a known price: its measures, its tier, its cap, what else it may read."""
    tariff = target.prices.at(now)
    if tariff is None or tariff.uncovered((*call.at_most, *call.declared)):
        return False
    if call.service_tier and target.tariff_of(call.service_tier, now) is None:
        return False
    if (call.whole_context or call.turns > 1) and not target.context_tokens_max:
        return False
    # A provider refuses a cap beyond what its model can answer.
    return not target.output_tokens_max or call.output_cap is None or call.output_cap <= target.output_tokens_max


def notes_of(downgraded_from: str, limit: str, shadowed: tuple[str, ...]) -> str:
    """What limits did to a call beside holding it, as its record keeps it."""
    notes: dict[str, object] = {}
    if shadowed:
        notes["would_refuse"] = list(shadowed)
    if downgraded_from:
        notes |= {"downgraded_from": downgraded_from, "limit": limit}
    return _encode(notes).decode()
