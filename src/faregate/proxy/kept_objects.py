"""Steps 5 and 9 for what providers keep: whose an object is, where a call about it goes, and what an answer made.

An object belongs to the organization, team and project of the call that made it. To all others it is as one that never
was: the same answer, in the same words. A call that names objects goes to the provider that keeps them. One without a
model goes to the object's own deployment, or to another of its provider; an upload goes where the model of its lines
does, and otherwise to the first provider, in the order of the configuration, that keeps files.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from faregate.core.attribution import Attribution
from faregate.core.call import Call
from faregate.core.ledger.events import Awaited
from faregate.core.pricing.card import RateCard, Tier
from faregate.core.pricing.cost import Tariff
from faregate.dialects.kept import FACTS_BYTES_MAX, ID_CHARACTERS_MAX, Made
from faregate.dialects.operations import ABOUT_OBJECTS, BY_NAME, ENDS, LOOKS
from faregate.dialects.quoting import echo
from faregate.errors import Problem
from faregate.ports import KeptObject, Owner
from faregate.proxy.snapshot import Snapshot, Target

if TYPE_CHECKING:
    from faregate.proxy.exchange import Exchange

#: What a look costs.
NOTHING_DUE: Final = Tariff(RateCard("", "", "", (Tier(0, ()),)))


def owner_of(who: Attribution) -> Owner:
    """To whom that belongs which a call makes."""
    return Owner(who.organization, who.team, who.project)


def choose(exchange: "Exchange") -> Problem | None:
    """Step 5 of a call that concerns objects: they are its caller's own, and it goes to where they lie."""
    operation, call, key = exchange.operation, exchange.call, exchange.key
    assert operation is not None
    assert key is not None
    kept: KeptObject | None = None
    named = (operation.object_id,) if operation.object_id else call.objects
    owner = Owner(key.organization, key.team, exchange.described.project or key.project)
    for id in named:
        found = exchange.gate.objects.find(owner, id)
        if found is None:
            return Problem("object_not_found", f"No object with the id {echo(id)} is known.", "id")
        if kept is not None and found.provider != kept.provider:
            text = f"{echo(id)} is kept by another provider than {echo(kept.id)}; make it where that one is."
            return Problem("object_not_found", text, "id")
        kept = kept or found
    exchange.kept, exchange.free = kept, operation.name in LOOKS
    if kept is not None and exchange.dialect.bounded is not None and call.operation == operation.name:
        bounded = exchange.dialect.bounded(call, kept.facts)
        if isinstance(bounded, Problem):
            return bounded
        call = exchange.call = bounded._replace(objects=call.objects)
        exchange.input_tokens = call.input_tokens_max
        # What it reads is in the file: no count of the body says anything of it.
        exchange.counted = True
    if operation.object_id and kept is not None:
        problem = _busy(exchange, kept)
        if problem is not None:
            return problem
        return _admit(exchange, kept.model, _places(exchange.snapshot, kept), "")
    places = exchange.snapshot.routes.get(call.model, ())
    if kept is not None and exchange.dialect.bounded is not None:
        # Its lines name the model as the deployment does that the file was uploaded for, and are priced as that one.
        places = tuple(target for target in places if target.name == kept.deployment)
    return _admit(exchange, call.model, places, _asked_of_model(operation.name, call))


def _busy(exchange: "Exchange", kept: KeptObject) -> Problem | None:
    """Why an object cannot be ended now: what it cost would never be learnt."""
    assert exchange.operation is not None
    gate = exchange.gate
    if exchange.operation.name not in ENDS:
        return None
    made_by = kept.request_id
    coming = any(each.exchange.id == made_by and not each.settled for each in gate.answers_open)
    if made_by not in gate.unknowns and not coming:
        return None
    text = f"{echo(kept.id)} is still needed to learn what its work costs; cancel that, or wait until it is done."
    return Problem("object_in_use", text, "id", retry_after_s=5)


def _places(snapshot: Snapshot, kept: KeptObject) -> tuple[Target, ...]:
    """Where an object lies: its own deployment, or another of the same provider."""
    own = snapshot.targets.get(kept.deployment)
    if own is not None and own.provider.name == kept.provider:
        return (own,)
    return next(((target,) for target in snapshot.targets.values() if target.provider.name == kept.provider), ())


def _admit(exchange: "Exchange", model: str, targets: tuple[Target, ...], wanted: str) -> Problem | None:
    """Whether the key may do this, and the places that its stage leaves of those that can do what is ``wanted``."""
    operation, call, key, kept = exchange.operation, exchange.call, exchange.key, exchange.kept
    assert operation is not None
    assert key is not None
    if key.operations is not None:
        # Who may make something may look at it and end it.
        for name in (operation.name, call.operation):
            if name not in key.operations and name.partition(".")[0] not in key.operations:
                return Problem("operation_forbidden", f"This key may not call {name}.")
    if model and key.models is not None and model not in key.models:
        return Problem("model_forbidden", f"model: this key may not use {model[:64]!r}.", "model")
    kinds = BY_NAME[operation.name].kinds
    fitting = [
        target
        for target in targets
        if target.provider.kind in kinds
        and (not wanted or wanted in target.operations)
        and (kept is None or target.provider.name == kept.provider)
    ]
    allowed = exchange.snapshot.stages.get(exchange.described.stage or key.stage)
    exchange.candidates = tuple(target for target in fitting if allowed is None or target.provider.name in allowed)
    if exchange.candidates:
        return None
    if fitting:
        stage = exchange.described.stage or key.stage
        return Problem("stage_forbidden", f"Stage {stage} has no provider for this.", "model")
    if kept is not None:
        text = f"{echo(kept.id)} is kept by provider {kept.provider[:64]}, which is not configured for this."
        return Problem("object_not_found", text, "id")
    return Problem("model_not_found", f"Model {model[:64]!r} is not configured for {operation.name}.", "model")


def _asked_of_model(operation: str, call: Call) -> str:
    """What a deployment must be able to do; empty where any of the provider's will do.

    Lines of a batch are calls of an operation of their own, which their model must know.
    """
    if operation not in ABOUT_OBJECTS or call.operation != operation:
        return call.operation
    return "" if call.model else operation


def remember(exchange: "Exchange", made: tuple[Made, ...]) -> None:
    """Record whose the objects are that an answer names, before it goes to the caller."""
    gate, target = exchange.gate, exchange.target
    assert target is not None
    who, call = exchange.who, exchange.call
    owner, now, before = owner_of(who), gate.wall_nanos(), exchange.kept
    # What a look finds was made by the call that made what is looked at.
    looked_at = before is not None and bool(exchange.operation and exchange.operation.object_id)
    for one in made:
        if not 0 < len(one.id) <= ID_CHARACTERS_MAX or (looked_at and gate.objects.owns(owner, one.id)):
            # What a provider makes under an old id is another object, with facts of its own.
            continue
        facts = one.facts or call.facts
        request_id = before.request_id if looked_at and before is not None else exchange.id
        kept = KeptObject(
            one.id,
            one.kind,
            owner,
            target.provider.name,
            target.name,
            call.model,
            request_id,
            now,
            facts if len(facts) <= FACTS_BYTES_MAX else b"",
        )
        gate.objects.keep(kept)
    if made and gate.waits_for_disk:
        gate.loop.run_in_executor(None, gate.objects.sync)


def awaited(exchange: "Exchange", object_id: str) -> Awaited:
    """Where the end of accepted work will be told, and how it is priced: by what holds at its admission."""
    target, reservation, kept = exchange.target, exchange.reservation, exchange.kept
    assert target is not None
    assert reservation is not None
    if exchange.dialect.bounded is not None:
        # It has its one price, and is read by what was known of it when it was bounded.
        return Awaited(object_id, (), kept.facts if kept is not None else b"")
    return Awaited(object_id, target.tiers_at(reservation.admitted_at))


def own_of(exchange: "Exchange") -> Callable[[str], bool]:
    """Whether an id is that of an object of the caller's own."""
    owner, owns = owner_of(exchange.who), exchange.gate.objects.owns
    return lambda id: owns(owner, id)


def ended(exchange: "Exchange") -> None:
    """The provider ended an object: nobody owns it any more."""
    operation = exchange.operation
    if operation is not None and operation.name in ENDS:
        exchange.gate.objects.forget(owner_of(exchange.who), operation.object_id)
