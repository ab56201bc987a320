"""A call goes to a cheaper model because a limit's action says so (CAPABILITIES D8).

Decided at each call, from the gate's own counters. Where the cheaper model may not be used, does not do what is asked
or has no price, the call goes where it was meant to go: a downgrade saves money, it never refuses.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from faregate.core.limits.terms import Action
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
    deeds = exchange.gate.allowances.deeds(match.standing, now)
    action, call, operation = deeds.downgrade, exchange.call, exchange.operation
    if action is None or operation is None or not _concerns(action, call.model, target.model):
        return False
    if call.sealed or call.objects or operation.name in ABOUT_OBJECTS or target.place is not None:
        # Its bytes cannot name another model, or what it is about lies where it was meant to go.
        return False
    candidates = exchange.permitted(action.to)
    if not candidates or candidates[0].prices.at(now) is None:
        return False
    read = exchange.dialect.read(exchange.body, action.to, exchange.gate.settings.forbid_private_urls)
    if isinstance(read, Problem):
        return False
    exchange.turn_to(read._replace(model=action.to), candidates, call.model, deeds.limit)
    return True


def _concerns(action: Action, asked: str, priced_as: str) -> bool:
    """Whether an action is for calls of a model, by the name that callers use or the one that it is priced as."""
    if action.to in (asked, priced_as):
        return False
    return not action.models or asked in action.models or priced_as in action.models


def notes_of(downgraded_from: str, limit: str, shadowed: tuple[str, ...]) -> str:
    """What limits did to a call beside holding it, as its record keeps it."""
    notes: dict[str, object] = {}
    if shadowed:
        notes["would_refuse"] = list(shadowed)
    if downgraded_from:
        notes |= {"downgraded_from": downgraded_from, "limit": limit}
    return _encode(notes).decode()
