"""A batch of journal records folded in memory into the rows that it adds to the books, for any engine.

The fold is what makes projection cheap: an exchange that begins and ends within the batch never becomes a
reservation row, all calls of one slot and one set of dimensions become one roll-up, and what all calls of one caller
have in common is worked out once (``Stamp``). It knows the tables' columns and the open reservations, and touches no
database: for the numbers of sets and accounts it asks ``Numbers``. What was open before is never changed here: the
caller takes over ``Batch.changed`` once its transaction has committed.
"""

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from faregate.core.amounts import NOTHING, Amounts, counted, most_of
from faregate.core.attribution import Attribution
from faregate.core.ledger.accounts import MARGIN
from faregate.core.ledger.events import (
    NOT_AWAITED,
    Awaited,
    Intended,
    Lost,
    Progressed,
    Recalled,
    Redirected,
    Refused,
    Settled,
    Started,
    recalled_as,
    redirected,
)
from faregate.core.ledger.postings import Transaction, end_transactions, payer_charge, transactions
from faregate.core.ledger.reservations import Action, State, Step, happening_of, step_of
from faregate.core.slots import SLOT_NANOS
from faregate.core.usage import NO_USAGE, OTHER_INPUT_UNITS, OTHER_OUTPUT_UNITS, Usage
from faregate.ports import JournalRecord, Row

DISPATCHED: Final = State.DISPATCHED.value
UNKNOWN: Final = State.UNKNOWN.value

_json = msgspec.json.Encoder().encode


class Reservation(NamedTuple):
    """An exchange that has not ended."""

    intent: Intended
    epoch: int
    state: str = DISPATCHED
    output_tokens_seen: int = 0
    awaited: Awaited = NOT_AWAITED


class Stamp:
    """What the records of one attribution have in common."""

    __slots__ = ("bare", "credit", "debit", "deployment", "dimensions", "identity_source", "run", "tags")

    def __init__(self, who: Attribution, dimensions: int) -> None:
        self.dimensions = dimensions
        self.run = who.run
        self.tags = _json(dict(who.tags)).decode() if who.tags else "{}"
        self.identity_source = who.identity_source
        self.deployment = who.deployment
        #: Nothing beside the dimensions is told.
        self.bare = not (who.run or who.tags or who.identity_source)
        #: The accounts that a charge goes to and comes from; 0 until there is one.
        self.debit = 0
        self.credit = 0


class Numbers(Protocol):
    """Where the numbers of sets of dimensions and of accounts come from."""

    #: Those that were asked for, by attribution.
    stamps: dict[Attribution, Stamp]

    def stamp(self, who: Attribution) -> Stamp:
        """The stamp of ``who``, which is in ``stamps`` from now on."""
        ...

    def account(self, name: str) -> int:
        """The number of an account."""
        ...

    def open_accounts(self, stamp: Stamp, who: Attribution) -> None:
        """Tell the stamp of ``who`` its accounts."""
        ...


class Group:
    """The calls of one slot and one set of dimensions: what each adds, and the numbers of their records."""

    __slots__ = ("cached", "first", "last", "rare", "rows")

    def __init__(self) -> None:
        #: The leaves, cost and charge of each. Adding them up once at the end is cheaper than adding each.
        self.rows: list[tuple[int, ...]] = []
        #: The sums of the rarer units of those that have some.
        self.rare: list[tuple[int, ...]] = []
        #: What the response cache did, in the order of ``CACHE_SUMS``, of those that it was to be used for.
        self.cached: list[tuple[int, ...]] = []
        #: 0 where none of the records is new.
        self.first = 0
        self.last = 0


class Batch:
    """What one batch adds to the books."""

    def __init__(self, position: int, sequence: int, epoch: int, number: int = 0) -> None:
        self.position = position
        self.sequence = sequence
        self.epoch = epoch
        #: Of the newest request record.
        self.number = number
        #: Values in the order of the columns of ``requests``.
        self.requests: list[tuple[Any, ...]] = []
        #: The same for ordinary calls, which need only ``ORDINARY``, and for those that only a charge rule tells apart.
        self.ordinary: list[tuple[Any, ...]] = []
        self.charged: list[tuple[Any, ...]] = []
        #: As ``requests``, but for records that exist already, as unknown ones; their number is 0.
        self.replaced: list[tuple[Any, ...]] = []
        #: ``(request id, purpose, debited account, credited account, amount, at)``.
        self.transfers: list[tuple[str, str, int, int, int, int]] = []
        #: Slot → set of dimensions → its calls.
        self.slots: dict[int, dict[int, Group]] = {}
        #: The slot that was used last, and its groups.
        self.slot = 0
        self.groups: dict[int, Group] = self.slots.setdefault(0, {})
        #: ``(kind, request id)``.
        self.outbox: list[tuple[str, str]] = []
        #: Reservations as they are now; ``None`` where one has ended.
        self.changed: dict[str, Reservation | None] = {}
        #: Begun in this batch and not ended yet.
        self.begun: dict[str, Intended] = {}

    def close_begun(self) -> None:
        """Make reservations of what was begun and has not ended, in the epoch so far."""
        make, epoch, changed = tuple.__new__, self.epoch, self.changed
        for id, intent in self.begun.items():
            changed[id] = make(Reservation, (intent, epoch, DISPATCHED, 0, NOT_AWAITED))
        self.begun.clear()

    def group(self, dimensions: int, at: int) -> Group:
        """The calls of a set of dimensions that were admitted in the slot of ``at``."""
        self.slot = at - at % SLOT_NANOS
        self.groups = self.slots.setdefault(self.slot, {})
        return self.groups.setdefault(dimensions, Group())


class Ended(NamedTuple):
    """An exchange that has ended, as far as evidence that comes later needs it."""

    state: State
    provider: str = ""
    #: What the provider was credited for it.
    credited: int = 0


class RepeatedId(Exception):
    """An id that ended before comes again; the batch can be folded knowing which have."""


class Before(NamedTuple):
    """What the books hold that a batch goes on from."""

    #: Exchanges that have not ended.
    open: Mapping[str, Reservation]
    numbers: Numbers
    #: Ids that evidence came for and nothing else; hardly ever any.
    evidence_only: frozenset[str] = frozenset()
    #: Those of the batch's ids that ended before. They are costly to look up and hardly ever needed, so that the
    #: first try goes without.
    ended: dict[str, Ended] | None = None


def fold(records: Iterable[JournalRecord], before: Before, batch: Batch) -> None:
    """Fold ``records`` into ``batch``, which names the position they go on from.

    Raises:
        RepeatedId: the batch names an exchange that is not open; fold it into a new one with ``ended`` looked up.
    """
    known, numbers = before.open, before.numbers
    changed, begun, stamps = batch.changed, batch.begun, numbers.stamps
    all_new = before.ended is None and not before.evidence_only
    record = None
    for record in records:
        event = record.event
        if isinstance(event, Settled):
            id = event.id
            intent, reservation = begun.pop(id, None), None
            if intent is None:
                reservation = changed[id] if id in changed else known.get(id)
                if reservation is not None and reservation.state == DISPATCHED:
                    intent = reservation.intent
            if intent is not None and not event.resolution:
                if reservation is not None:
                    changed[id] = None
                _charge(batch, stamps.get(intent.who) or numbers.stamp(intent.who), intent, event, before)
            else:
                # Nobody decides over an exchange that still runs; proof ends it like any other.
                _settle(batch, reservation or (intent and Reservation(intent, batch.epoch)), event, before)
        elif isinstance(event, Intended):
            id = event.id
            there = id in begun or id in changed or id in known
            if not there and (all_new or not _ended_before(id, before)):
                begun[id] = event
        elif isinstance(event, Refused):
            if not _ended_before(event.id, before):
                _refuse(batch, event, before)
        elif isinstance(event, Recalled):
            _recall(batch, event, before)
        elif isinstance(event, Redirected):
            _turn(batch, event, before)
        else:
            _happen(batch, known, event, numbers)
    if record is not None:
        batch.position, batch.sequence = record.position, record.sequence
    batch.close_begun()


def _ended_before(id: str, before: Before) -> bool:
    if before.ended is not None:
        return id in before.ended
    if before.evidence_only and id in before.evidence_only:
        raise RepeatedId(id)
    return False


#: The columns of ``requests`` that tell an ordinary call: it went well at the first attempt, the provider said what it
#: used, and the caller named nothing beyond itself. All other columns are as ``ORDINARILY`` says, or as by default.
ORDINARY: Final = (
    *("number", "id", "ended_at", "input_text", "input_cached", "output_text", "output_reasoning", "cost", "charge"),
    *("price_version", "latency_us", "first_token_us", "attempt_us", "answered_model", "provider_request_id"),
    *("dimensions", "created_at", "held", "stream", "clamped_to"),
)
CHARGED: Final = (*ORDINARY, "charge_rule")
ORDINARILY: Final[dict[str, str | int]] = {"status": "ok", "http_status": 200, "usage_source": "provider"}


def _charge(batch: Batch, stamp: Stamp, intent: Intended, event: Settled, before: Before) -> None:
    """The ordinary end, which is nearly every one: a record, a transfer and a place in the roll-ups."""
    # Unpacked and put together again name by name: slices and fields by name cost three times as much.
    (
        id, at, status, http_status, code, usage, source, cost, charge, price, latency, first, tried, model, asked,
        overrun, _, charge_rule, _, cache, saved,
    ) = event  # fmt: skip
    text, cached, written, audio, out, reasoning, out_audio, other = usage
    _, _, admitted_at, _, held, _, stream, _, idempotency_key, clamped_to, _, notes, _, _ = intent
    dimensions = stamp.dimensions
    batch.number = number = batch.number + 1
    if (
        status == "ok"
        and source == "provider"
        and not code
        and stamp.bare
        and not (written or audio or out_audio or overrun or idempotency_key or other or notes or cache or saved)
        and http_status == 200
        and len(tried) == 1
        and tried[0][:3] == (stamp.deployment, 200, "")
        and tried[0][3]
    ):
        row = (
            number, id, at, text, cached, out, reasoning, cost, charge, price, latency, first, tried[0][3], model,
            asked, dimensions, admitted_at, held[0], 1 if stream else 0, clamped_to,
        )  # fmt: skip
        if charge_rule:
            batch.charged.append((*row, charge_rule))
        else:
            batch.ordinary.append(row)
    else:
        batch.requests.append(_settled_row(number, stamp, intent, event))
    batch.outbox.append(("settled", id))
    group = batch.groups.get(dimensions) if 0 <= admitted_at - batch.slot < SLOT_NANOS else None
    if group is None:
        group = batch.group(dimensions, admitted_at)
    if not group.first:
        group.first = number
    group.last = number
    group.rows.append((text, cached, written, audio, out, reasoning, out_audio, cost, charge))
    if other:
        group.rare.append(_rare(usage))
    if cache:
        group.cached.append(_cached(cache, saved))
    if charge or cost:
        if not stamp.debit:
            before.numbers.open_accounts(stamp, intent.who)
        if charge == cost:
            batch.transfers.append((id, "charge", stamp.debit, stamp.credit, charge, at))
        else:
            _charge_another(batch, stamp, event, before.numbers)
    if before.ended is not None:
        before.ended[id] = Ended(State.SETTLED, intent.who.provider, cost)


def _charge_another(batch: Batch, stamp: Stamp, event: Settled, numbers: Numbers) -> None:
    """Transfers of a charge that is not the cost: what ``end_transactions`` posts, by numbers that are known."""
    margin, more = numbers.account(MARGIN), event.charge - event.cost
    common = event.charge if more < 0 else event.cost
    if common:
        batch.transfers.append((event.id, "charge", stamp.debit, stamp.credit, common, event.at))
    if more > 0:
        batch.transfers.append((event.id, "margin", stamp.debit, margin, more, event.at))
    else:
        batch.transfers.append((event.id, "margin", margin, stamp.credit, -more, event.at))


def _place(batch: Batch, dimensions: int, admitted_at: int) -> int:
    """The number of a new record, which the roll-up of its slot then knows of."""
    batch.number += 1
    group = batch.group(dimensions, admitted_at)
    group.first = group.first or batch.number
    group.last = batch.number
    return batch.number


def _settle(batch: Batch, reservation: Reservation | None, event: Settled, before: Before) -> None:
    """Any other end, as the table of states has it."""
    if reservation is None:
        _settle_again(batch, event, before)
        return
    intent, numbers = reservation.intent, before.numbers
    stamp = numbers.stamps.get(intent.who) or numbers.stamp(intent.who)
    step = _step(State(reservation.state), event)
    if not step.changes:
        batch.changed[event.id] = reservation
        return
    batch.changed[event.id] = None
    if reservation.state == UNKNOWN:
        batch.replaced.append(_settled_row(0, stamp, intent, event))
    else:
        number = _place(batch, stamp.dimensions, intent.admitted_at)
        batch.requests.append(_settled_row(number, stamp, intent, event))
    batch.outbox.append(("resolved" if step.action is Action.RESOLVE else "settled", event.id))
    _post(batch, transactions(step, event.id, intent.who, intent.held.usd, 0, event), event.at, numbers)
    group = batch.group(stamp.dimensions, intent.admitted_at)
    group.rows.append((*_leaves(event.usage), event.cost, payer_charge(event)))
    if event.usage.other:
        group.rare.append(_rare(event.usage))
    if event.cache:
        group.cached.append(_cached(event.cache, event.saved_cost))
    if before.ended is not None:
        before.ended[event.id] = Ended(State.SETTLED, intent.who.provider, event.cost)


def _settle_again(batch: Batch, event: Settled, before: Before) -> None:
    """Something ends that is not open: a repetition, or evidence that comes too late to change the record."""
    if before.ended is None:
        raise RepeatedId(event.id)
    earlier = before.ended.get(event.id, Ended(State.ABSENT))
    step = _step(earlier.state, event)
    if not step.changes or (step.action is Action.CHARGE_OPERATOR and event.cost == earlier.credited):
        return
    before.ended[event.id] = earlier._replace(state=step.state)
    who = Attribution(provider=earlier.provider)
    _post(batch, transactions(step, event.id, who, 0, earlier.credited, event), event.at, before.numbers)
    batch.outbox.append(("late", event.id))


def _recall(batch: Batch, event: Recalled, before: Before) -> None:
    """An answer given again: begun and ended at once. No provider is among it, so that no account of one is opened."""
    id, who, numbers = event.id, event.who, before.numbers
    if id in batch.begun or id in batch.changed or id in before.open or _ended_before(id, before):
        return
    intent, end = recalled_as(event)
    stamp = numbers.stamps.get(who) or numbers.stamp(who)
    batch.requests.append(_settled_row(_place(batch, stamp.dimensions, event.admitted_at), stamp, intent, end))
    batch.outbox.append(("settled", id))
    if end.charge:
        _post(batch, end_transactions(id, who, end), event.at, numbers)
    # It was placed in its group just now.
    group = batch.groups[stamp.dimensions]
    group.rows.append((*_leaves(end.usage), end.cost, end.charge))
    group.cached.append(_cached(end.cache, end.saved_cost))
    if before.ended is not None:
        before.ended[id] = Ended(State.SETTLED, who.provider, end.cost)


def _refuse(batch: Batch, event: Refused, before: Before) -> None:
    stamp = before.numbers.stamps.get(event.who) or before.numbers.stamp(event.who)
    batch.requests.append(_refused_row(_place(batch, stamp.dimensions, event.at), stamp, event))
    batch.outbox.append(("refused", event.id))
    if before.ended is not None:
        before.ended[event.id] = Ended(State.SETTLED_LATE)


def _happen(
    batch: Batch, known: Mapping[str, Reservation], event: Progressed | Lost | Started, numbers: Numbers
) -> None:
    """What moves a reservation without ending it."""
    if isinstance(event, Started):
        batch.close_begun()
        if event.epoch > batch.epoch:
            batch.epoch = event.epoch
            _strand(batch, known, event.at, numbers)
        return
    intent = batch.begun.pop(event.id, None)
    if intent is not None:
        batch.changed[event.id] = Reservation(intent, batch.epoch)
    reservation = batch.changed[event.id] if event.id in batch.changed else known.get(event.id)
    if reservation is None:
        return
    if isinstance(event, Lost):
        _lose(batch, reservation, event, numbers)
    elif _step(State(reservation.state), event).changes:
        batch.changed[event.id] = _marked(reservation, event)


def _turn(batch: Batch, event: Redirected, before: Before) -> None:
    """An exchange goes on at another place; what may have been billed where it was is an exchange of its own."""
    id, begun = event.id, batch.begun.get(event.id)
    if begun is not None:
        if event.attempt <= begun.attempt:
            return
        batch.begun[id] = redirected(begun, event)
    else:
        reservation = batch.changed[id] if id in batch.changed else before.open.get(id)
        if reservation is None or reservation.state != DISPATCHED or event.attempt <= reservation.intent.attempt:
            return
        batch.changed[id] = reservation._replace(intent=redirected(reservation.intent, event))
    left = event.left
    if left is None or event.lost is None:
        return
    there = left.id in batch.begun or left.id in batch.changed or left.id in before.open
    if not there and not _ended_before(left.id, before):
        _lose(batch, Reservation(left, batch.epoch), event.lost, before.numbers)


def _marked(reservation: Reservation, event: Progressed) -> Reservation:
    """How far its answer had come, and what it holds since then where it says so."""
    if event.held != NOTHING:
        held = most_of(reservation.intent.held, event.held)
        reservation = reservation._replace(intent=reservation.intent._replace(held=held))
    if event.output_tokens > reservation.output_tokens_seen:
        reservation = reservation._replace(output_tokens_seen=event.output_tokens)
    return reservation


def _strand(batch: Batch, known: Mapping[str, Reservation], at: int, numbers: Numbers) -> None:
    """Whatever an older epoch left open is unknown: nobody is there any more who could learn how it ended."""
    # In the order of their ids, however they came together, so that all books tell the same order of booking.
    for id, reservation in sorted({**known, **batch.changed}.items(), key=itemgetter(0)):
        if reservation is not None:
            _lose(batch, reservation, Lost(id, at, 0, "", 0), numbers)


def _lose(batch: Batch, reservation: Reservation, event: Lost, numbers: Numbers) -> None:
    """An exchange is unknown from now on: its hold moves to suspense and its record says so."""
    step = _step(State(reservation.state), event)
    if not step.changes:
        return
    intent = reservation.intent
    stamp = numbers.stamps.get(intent.who) or numbers.stamp(intent.who)
    seen = max(reservation.output_tokens_seen, event.output_tokens)
    batch.changed[event.id] = reservation._replace(state=UNKNOWN, output_tokens_seen=seen, awaited=event.awaited)
    batch.requests.append(_unknown_row(_place(batch, stamp.dimensions, intent.admitted_at), stamp, intent, event))
    batch.outbox.append((event.status, event.id))
    _post(batch, transactions(step, event.id, intent.who, intent.held.usd, 0, None), event.at, numbers)


def _step(state: State, event: Settled | Progressed | Lost) -> Step:
    happening = happening_of(event)
    assert happening is not None, "these events name one exchange"
    return step_of(state, happening)


def _post(batch: Batch, posted: Iterable[Transaction], at: int, numbers: Numbers) -> None:
    for transaction in posted:
        id, _, purpose = transaction.id.rpartition(":")
        debited, credited = transaction.postings
        assert debited.amount == -credited.amount, "a transaction is two postings that add up to zero"
        accounts = numbers.account(debited.account), numbers.account(credited.account)
        batch.transfers.append((id, purpose, *accounts, debited.amount, at))


def _settled_row(number: int, stamp: Stamp, intent: Intended, event: Settled, limit: str = "") -> tuple[Any, ...]:
    """The record of an ended exchange. Slices follow the order of the events' fields, which only ever grow."""
    tried = event.attempts
    told = (stamp.deployment, event.http_status, event.code)
    only = len(tried) == 1 and tried[0][:3] == told and tried[0].duration_us > 0
    return (
        number,
        *event[:5],
        *_leaves(event.usage),
        event.usage_source,
        event.cost,
        payer_charge(event),
        *event[9:12],
        tried[0].duration_us if only else 0,
        "[]" if only or not tried else _json(tried).decode(),
        *event[13:17],
        stamp.dimensions,
        stamp.run,
        stamp.tags,
        stamp.identity_source,
        intent.admitted_at,
        intent.held.usd,
        1 if intent.stream else 0,
        intent.idempotency_key,
        intent.clamped_to,
        limit or event.limit,
        _json(event.usage.other).decode() if event.usage.other else "",
        *(_rare(event.usage) if event.usage.other else _NO_RARE),
        event.charge_rule,
        intent.notes,
        event.cache,
        event.saved_cost,
    )


def _leaves(usage: Usage) -> tuple[int, ...]:
    """The leaves that have a column of their own, in the order of ``LEAVES``."""
    text, cached, written, audio, out, reasoning, out_audio, _ = usage
    return text, cached, written, audio, out, reasoning, out_audio


def _rare(usage: Usage) -> tuple[int, ...]:
    """The sums of the rarer units, in the order of ``RARE``."""
    incoming, outgoing = usage.quantity(*OTHER_INPUT_UNITS), usage.quantity(*OTHER_OUTPUT_UNITS)
    return (incoming, outgoing, *counted(usage.other))


_NO_RARE: Final = _rare(NO_USAGE)


def _cached(cache: str, saved_cost: int) -> tuple[int, ...]:
    """What the response cache did, in the order of ``CACHE_SUMS``; who wished a new answer neither hit nor missed."""
    return int(cache == "hit"), int(cache == "miss"), saved_cost


def _unknown_row(number: int, stamp: Stamp, intent: Intended, event: Lost) -> tuple[Any, ...]:
    """The record of an unknown exchange: an ended one without usage or charge."""
    end = Settled(
        event.id,
        event.at,
        event.status,
        event.http_status,
        event.code,
        NO_USAGE,
        "none",
        0,
        0,
        intent.price_version,
        event.latency_us,
        event.first_token_us,
        event.attempts,
        provider_request_id=event.awaited.object_id,
    )
    return _settled_row(number, stamp, intent, end)


def _refused_row(number: int, stamp: Stamp, event: Refused) -> tuple[Any, ...]:
    intent = Intended(event.id, event.at, event.at, event.who, Amounts(), "", event.stream)
    end = Settled(
        event.id, event.at, "refused", event.http_status, event.code, NO_USAGE, "none", 0, 0, "", event.latency_us, 0
    )
    return _settled_row(number, stamp, intent, end, event.limit)


def reservation_row(reservation: Reservation) -> Row:
    """A reservation as the books tell it: every fact of the intent by name, its state, and amounts by unit."""
    intent = reservation.intent
    return {
        "id": intent.id,
        "epoch": reservation.epoch,
        "state": reservation.state,
        **dict(zip(Attribution._fields, intent.who, strict=True)),
        "tags": dict(intent.who.tags),
        "admitted_at": intent.admitted_at,
        "dispatched_at": intent.at,
        "held": intent.held.usd,
        "amounts": intent.held._asdict(),
        "price_version": intent.price_version,
        "stream": int(intent.stream),
        "input_tokens_bound": intent.input_tokens_bound,
        "output_tokens_seen": reservation.output_tokens_seen,
        "idempotency_key": intent.idempotency_key,
        "clamped_to": intent.clamped_to,
        "intent": intent,
        "awaited": reservation.awaited,
    }
