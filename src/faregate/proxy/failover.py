"""A call that failed before its first byte goes on at another place, in one record and at one price.

The answer of the try before is *parked*: whatever keeps the call from going elsewhere (no room under a limit, no
connection, no key any more, a client that left) ends in that answer, told as if nobody had tried anything else. Only
when the next connection is open, and the redirection is on record, it is dropped.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from faregate.control import Unknown
from faregate.core.amounts import Amounts, held_amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Attempt, Intended, Lost, Redirected, attempt_id, left_id
from faregate.core.limits.admit import Reservation
from faregate.core.routing.retry import FAILOVER, may_retry, wait
from faregate.proxy.bound import cap_within, upper_bound
from faregate.proxy.guard import guarded
from faregate.proxy.routing import Lane, arrange

if TYPE_CHECKING:
    from faregate.proxy.answer import Answer
    from faregate.proxy.exchange import Exchange
    from faregate.proxy.snapshot import Match, Snapshot, Target

_encode = msgspec.json.Encoder().encode


class Parked:
    """An answer that is not told while another place is tried, and all that is needed to tell it after all."""

    __slots__ = (
        "answer",
        "attempt",
        "call",
        "candidates",
        "cap",
        "counted",
        "described",
        "downgraded",
        "input_tokens",
        "key",
        "left",
        "lost",
        "match",
        "notes",
        "overridden",
        "prepared",
        "reservation",
        "snapshot",
        "target",
        "tariff",
        "tell",
        "tier_tariff",
    )

    def __init__(self, answer: "Answer", attempt: Attempt, tell: Callable[[], None]) -> None:
        exchange = answer.exchange
        reservation, target, match = exchange.reservation, exchange.target, exchange.match
        assert reservation is not None
        assert target is not None
        assert match is not None
        self.answer = answer
        self.attempt = attempt
        self.tell = tell
        self.reservation: Reservation = reservation
        self.target: Target = target
        self.match: Match = match
        self.snapshot: Snapshot = exchange.snapshot
        self.tariff, self.tier_tariff = exchange.tariff, exchange.tier_tariff
        self.candidates, self.cap, self.notes = exchange.candidates, exchange.cap, exchange.notes
        self.input_tokens, self.counted, self.prepared = exchange.input_tokens, exchange.counted, exchange.prepared
        self.call, self.overridden = exchange.call, exchange.overridden
        self.key, self.described = exchange.key, exchange.described
        self.downgraded = exchange.downgraded_from, exchange.downgraded_by
        #: What may have been billed, as an exchange that the operator pays.
        self.left: Intended | None = None
        self.lost: Lost | None = None


def go_elsewhere(answer: "Answer", status: int, code: str, retry_after: int, tell: Callable[[], None]) -> bool:
    """Try another place, or all of them once more; false where that may not be, and ``tell`` is to be called.

    ``status`` is 0 where no answer came; then ``code`` says what went wrong, ``upstream_unsent`` where its provider
    certainly did nothing.
    """
    exchange = answer.exchange
    gate, lane, call = exchange.gate, exchange.lane, exchange.call
    if lane is None or exchange.client is None or gate.closed_for is not None:
        return False
    if call.job or call.sealed or exchange.free or exchange.prepared is not None:
        # Work that goes on by itself would go on twice; what is bound to a place stays there.
        return False
    rule = lane.retry or FAILOVER
    if not may_retry(rule, len(exchange.attempts) + 1, status, code):
        return False
    now = gate.monotonic_nanos()
    rest = tuple(target for target in exchange.candidates[1:] if target.health.may(now))
    pause: int | None = 0
    if not rest:
        pause = wait(rule, exchange.rounds + 1, gate.roll(), retry_after) if rule.again else None
    if pause is None or too_late(exchange, now + pause):
        return False
    parked = Parked(answer, answer.attempt(code), tell)
    if not status and (code != "upstream_unsent" or (parked.target.provider.lookup and answer.was_sent)):
        # Its provider may have billed it, or can tell that it did not.
        _leave(exchange, parked, code)
    gate.allowances.count_try(parked.match.who, parked.reservation.admitted_at, gate.wall_nanos())
    exchange.parked = parked
    exchange.attempts = (*exchange.attempts, parked.attempt)
    if rest:
        exchange.candidates = rest
        gate.loop.call_soon(guarded(_turn, exchange.mistaken), exchange, parked)
    else:
        exchange.rounds += 1
        gate.loop.call_later(pause / 1e9, guarded(_try_all_again, exchange.mistaken), exchange, parked, lane)
    return True


def too_late(exchange: "Exchange", then: int) -> bool:
    """Whether the caller's own deadline has passed at a moment."""
    bound_ms = exchange.described.timeout_ms
    return bound_ms > 0 and then - exchange.started > bound_ms * 1_000_000


def left_ms(exchange: "Exchange", now: int) -> int:
    """What the caller's own deadline leaves at a moment, in milliseconds and at least one; 0 where there is none."""
    bound_ms = exchange.described.timeout_ms
    return max(1, bound_ms - (now - exchange.started) // 1_000_000) if bound_ms else 0


def _leave(exchange: "Exchange", parked: Parked, code: str) -> None:
    """Remember a try that its provider may have billed: it is nobody's but the operator's."""
    gate, reservation, who = exchange.gate, parked.reservation, parked.match.who
    amounts = reservation.amounts
    id, at = left_id(exchange.id, exchange.sent), gate.wall_nanos()
    place = Attribution(provider=who.provider, deployment=who.deployment, model=who.model, service=who.service)
    # What it costs is charged to nobody's account, so that the limits of its place count it as all that is spent there.
    call = exchange.call
    cap = cap_within(call, amounts.output_tokens)
    whole = upper_bound(call, parked.tariff, parked.input_tokens, cap, parked.tier_tariff, None)
    held = held_amounts(whole.usd, amounts.input_tokens, amounts.output_tokens)
    parked.left = Intended(
        id,
        at,
        reservation.admitted_at,
        place,
        held,
        parked.tariff.version,
        exchange.call.stream,
        parked.input_tokens,
        notes=_encode({"try_of": exchange.id}).decode(),
        attempt=exchange.sent,
        asked_as=attempt_id(exchange.id, exchange.sent),
    )
    parked.lost = Lost(id, at, 0, code, parked.attempt.duration_us, 0, (parked.attempt,))
    # Its slot is free, and its money stays held until it is the operator's: if no other place takes the call it is
    # this caller who pays for it.
    gate.allowances.release(reservation, sent=True)
    now = gate.wall_nanos()
    parked.reservation = gate.allowances.hold_unknown(exchange.id, who, amounts, reservation.admitted_at, now)
    exchange.reservation = None


def dial_again(exchange: "Exchange", code: str, status: int = 0) -> bool:
    """No place takes the call now: try all of them once more, after a wait; false where that may not be.

    ``code`` and ``status`` are what came of the last try, as in ``go_elsewhere``.
    """
    gate, lane = exchange.gate, exchange.lane
    rule = lane.retry if lane is not None else None
    if lane is None or rule is None or not rule.again or gate.closed_for is not None:
        return False
    pause = wait(rule, exchange.rounds + 1, gate.roll())
    tried = len(exchange.attempts)
    if pause is None or not may_retry(rule, tried, status, code) or too_late(exchange, gate.monotonic_nanos() + pause):
        return False
    exchange.rounds += 1
    again = guarded(_try_all_again, exchange.mistaken)
    gate.loop.call_later(pause / 1e9, again, exchange, exchange.parked, lane)
    return True


def again_where_it_failed(exchange: "Exchange") -> bool:
    """The places that are left are full: try all once more, after a wait, as if they had failed, too; false where not.

    A place that is full makes no try, so that the rounds are what is counted.
    """
    parked, lane = exchange.parked, exchange.lane
    rule = lane.retry if lane is not None else None
    if parked is None or rule is None or exchange.rounds >= rule.tries:
        return False
    return dial_again(exchange, parked.attempt.code, parked.attempt.http_status)


def _try_all_again(exchange: "Exchange", parked: Parked | None, lane: Lane) -> None:
    if exchange.ended or exchange.tried_all or exchange.parked is not parked:
        return
    if exchange.client is None:
        exchange.client_left()
        return
    problem = arrange(exchange, lane) if exchange.snapshot is exchange.gate.snapshot else None
    if problem is not None:
        exchange.refuse(problem)
    elif parked is not None:
        _turn(exchange, parked)
    else:
        exchange.start_over()
        exchange.reserve()


def _turn(exchange: "Exchange", parked: Parked) -> None:
    """Hold what the call may cost at the next place instead of what it held, in one step."""
    if exchange.tried_all or exchange.parked is not parked:
        return
    exchange.start_over()
    contents = exchange.gate.contents
    exchange.notes = contents.noted(exchange, "") if contents is not None else ""
    if parked.left is None:
        # It cost nothing for certain, so that nothing need be held for it while another place is found.
        exchange.gate.allowances.release(parked.reservation, sent=True)
        exchange.reservation = None
    exchange.reserve()


def give_up(exchange: "Exchange") -> None:
    """Tell the answer that was parked: no other place takes the call."""
    parked, gate = exchange.parked, exchange.gate
    assert parked is not None
    exchange.parked = None
    # What is still under way for another place, a connection or a count, finds that it is over.
    exchange.tried_all = True
    exchange.give_way()
    if exchange.reservation is not None and exchange.reservation is not parked.reservation:
        gate.allowances.release(exchange.reservation)
    exchange.call, exchange.overridden = parked.call, parked.overridden
    exchange.key, exchange.described = parked.key, parked.described
    exchange.downgraded_from, exchange.downgraded_by = parked.downgraded
    exchange.snapshot, exchange.target, exchange.match = parked.snapshot, parked.target, parked.match
    exchange.tariff, exchange.tier_tariff = parked.tariff, parked.tier_tariff
    exchange.candidates, exchange.cap, exchange.notes = parked.candidates, parked.cap, parked.notes
    exchange.input_tokens, exchange.counted, exchange.prepared = parked.input_tokens, parked.counted, parked.prepared
    before = parked.reservation
    if before.ended:
        # It was given back for another hold; what it is settled with must be one that counts, whatever has room now.
        now = gate.wall_nanos()
        who = parked.match.who
        before = gate.allowances.hold_unknown(exchange.id, who, before.amounts, before.admitted_at, now)
    exchange.reservation = before
    parked.answer.taken_up()
    parked.tell()


def redirection(exchange: "Exchange", parked: Parked, held: Amounts, admitted_at: int, at: int) -> Redirected:
    """What is put on record before the next place is sent the call."""
    match = exchange.match
    assert match is not None
    return Redirected(
        exchange.id,
        at,
        exchange.sent + 1,
        admitted_at,
        match.who,
        held,
        exchange.tariff.version,
        exchange.input_tokens,
        exchange.cap,
        match.charge_rule,
        exchange.notes,
        parked.left,
        parked.lost,
    )


def left_behind(parked: Parked) -> Unknown | None:
    """What the gate and the console wait to hear of a try that its provider may have billed."""
    left = parked.left
    if left is None:
        return None
    return Unknown(
        left.id,
        left.who,
        left.held,
        left.admitted_at,
        left.at,
        left.price_version,
        left.who.deployment,
        0,
        left.input_tokens_bound,
        left.charge_rule,
        asked_as=left.asked_as,
    )
