"""A batch of journal records folded in memory into the rows that it adds to the books, for any engine.

The fold is what makes projection cheap: an exchange that begins and ends within the batch never becomes a
reservation row, and all calls of one slot and one set of dimensions become one roll-up. It knows the tables' columns
and the open reservations, and touches no database. What was open before is never changed here: the caller takes over
``Batch.changed`` once its transaction has committed.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Intended, Lost, Progressed, Refused, Settled, Started
from faregate.core.ledger.postings import Transaction, charge_postings, payer_charge, transactions
from faregate.core.ledger.reservations import Action, State, Step, happening_of, step_of
from faregate.core.usage import NO_USAGE
from faregate.ports import JournalRecord, Row
from faregate.storage.schema import SLOT_NANOS

DISPATCHED: Final = State.DISPATCHED.value
UNKNOWN: Final = State.UNKNOWN.value

_json = msgspec.json.Encoder().encode


class Reservation(NamedTuple):
    """An exchange that has not ended."""

    intent: Intended
    epoch: int
    state: str = DISPATCHED
    output_tokens_seen: int = 0


class Group:
    """The calls of one slot and one set of dimensions: their sums, and the accounts that they all move."""

    __slots__ = ("accounts", "rows")

    def __init__(self, who: Attribution) -> None:
        #: One row of sums for each call; adding them up once at the end is cheaper than adding each.
        self.rows: list[tuple[int, ...]] = []
        #: Account and sign of each posting that a charge makes.
        self.accounts = charge_postings(who, 1)

    @property
    def sums(self) -> list[int]:
        """The sums, in the order of ``SUMS``."""
        return [sum(column) for column in zip(*self.rows, strict=True)]


class Batch:
    """What one batch adds to the books."""

    def __init__(self, position: int, sequence: int, epoch: int) -> None:
        self.position = position
        self.sequence = sequence
        self.epoch = epoch
        #: Values in the order of the columns of ``requests``.
        self.requests: list[tuple[Any, ...]] = []
        #: The same for records that exist already, as unknown ones.
        self.replaced: list[tuple[Any, ...]] = []
        #: ``(request id, purpose, account, amount, at)``.
        self.postings: list[tuple[str, str, str, int, int]] = []
        #: ``(slot, dimensions)`` → what its calls add up to.
        self.groups: dict[tuple[Any, ...], Group] = {}
        #: ``(kind, request id)``.
        self.outbox: list[tuple[str, str]] = []
        #: Reservations as they are now; ``None`` where one has ended.
        self.changed: dict[str, Reservation | None] = {}
        #: Begun in this batch and not ended yet.
        self.begun: dict[str, Intended] = {}

    def close_begun(self) -> None:
        """Make reservations of what was begun and has not ended, in the epoch so far."""
        for id, intent in self.begun.items():
            self.changed[id] = Reservation(intent, self.epoch)
        self.begun = {}


class Ended(NamedTuple):
    """An exchange that has ended, as far as evidence that comes later needs it."""

    state: State
    provider: str = ""
    #: What was posted to the provider for it.
    charged: int = 0


class RepeatedId(Exception):
    """An id that ended before comes again; the batch can be folded knowing which have."""


class Before(NamedTuple):
    """What the books hold that a batch goes on from."""

    #: Exchanges that have not ended.
    open: Mapping[str, Reservation]
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
    known, changed, begun = before.open, batch.changed, batch.begun
    record = None
    for record in records:
        event = record.event
        if isinstance(event, Intended):
            id = event.id
            if id not in begun and id not in changed and id not in known and not _ended_before(id, before):
                begun[id] = event
        elif isinstance(event, Settled):
            intent = begun.pop(event.id, None)
            if intent is not None and not event.resolution:
                _charge(batch, intent, event)
                if before.ended is not None:
                    before.ended[event.id] = Ended(State.SETTLED, intent.who.provider, event.charge)
            elif intent is not None:
                # Nobody decides over an exchange that still runs; proof ends it like any other.
                _settle(batch, Reservation(intent, batch.epoch), event, before)
            else:
                _settle(batch, changed[event.id] if event.id in changed else known.get(event.id), event, before)
        elif isinstance(event, Refused):
            if not _ended_before(event.id, before):
                batch.requests.append(_refused_row(event))
                batch.outbox.append(("refused", event.id))
                if before.ended is not None:
                    before.ended[event.id] = Ended(State.SETTLED_LATE)
        else:
            batch.close_begun()
            begun = batch.begun
            _happen(batch, known, event)
    if record is not None:
        batch.position, batch.sequence = record.position, record.sequence
    batch.close_begun()


def _ended_before(id: str, before: Before) -> bool:
    if before.ended is not None:
        return id in before.ended
    if before.evidence_only and id in before.evidence_only:
        raise RepeatedId(id)
    return False


def _charge(batch: Batch, intent: Intended, event: Settled) -> None:
    """The ordinary end, which is nearly every one: a record, two postings and a place in the roll-ups."""
    batch.requests.append(_settled_row(intent, event))
    batch.outbox.append(("settled", event.id))
    group = _count(batch, intent, event, event.charge)
    if event.charge:
        for account, sign in group.accounts:
            batch.postings.append((event.id, "charge", account, sign * event.charge, event.at))


def _count(batch: Batch, intent: Intended, event: Settled, charge: int) -> Group:
    """Add an ended exchange to the roll-up of the slot it was admitted in."""
    who, at = intent.who, intent.admitted_at
    key = (at - at % SLOT_NANOS, *who[:8], *who[9:13])
    group = batch.groups.get(key)
    if group is None:
        group = batch.groups[key] = Group(who)
    group.rows.append((1, *event.usage, event.cost, charge))
    return group


def _settle(batch: Batch, reservation: Reservation | None, event: Settled, before: Before) -> None:
    """Any other end, as the table of states has it."""
    if reservation is None:
        _settle_again(batch, event, before.ended)
        return
    intent = reservation.intent
    if reservation.state == DISPATCHED and not event.resolution:
        batch.changed[event.id] = None
        _charge(batch, intent, event)
        if before.ended is not None:
            before.ended[event.id] = Ended(State.SETTLED, intent.who.provider, event.charge)
        return
    step = _step(State(reservation.state), event)
    if not step.changes:
        batch.changed[event.id] = reservation
        return
    batch.changed[event.id] = None
    rows = batch.replaced if reservation.state == UNKNOWN else batch.requests
    rows.append(_settled_row(intent, event))
    batch.outbox.append(("resolved" if step.action is Action.RESOLVE else "settled", event.id))
    _post(batch, transactions(step, event.id, intent.who, intent.held.usd, 0, event), event.at)
    _count(batch, intent, event, payer_charge(event))
    if before.ended is not None:
        before.ended[event.id] = Ended(State.SETTLED, intent.who.provider, event.charge)


def _settle_again(batch: Batch, event: Settled, ended: dict[str, Ended] | None) -> None:
    """Something ends that is not open: a repetition, or evidence that comes too late to change the record."""
    if ended is None:
        raise RepeatedId(event.id)
    before = ended.get(event.id, Ended(State.ABSENT))
    step = _step(before.state, event)
    if not step.changes or (step.action is Action.CHARGE_OPERATOR and event.charge == before.charged):
        return
    ended[event.id] = before._replace(state=step.state)
    who = Attribution(provider=before.provider)
    _post(batch, transactions(step, event.id, who, 0, before.charged, event), event.at)
    batch.outbox.append(("late", event.id))


def _happen(batch: Batch, known: Mapping[str, Reservation], event: Progressed | Lost | Started) -> None:
    """What moves a reservation without ending it."""
    if isinstance(event, Started):
        if event.epoch > batch.epoch:
            batch.epoch = event.epoch
            _strand(batch, known, event.at)
        return
    reservation = batch.changed[event.id] if event.id in batch.changed else known.get(event.id)
    if reservation is None:
        return
    if isinstance(event, Lost):
        _lose(batch, reservation, event)
    elif _step(State(reservation.state), event).changes and event.output_tokens > reservation.output_tokens_seen:
        batch.changed[event.id] = reservation._replace(output_tokens_seen=event.output_tokens)


def _strand(batch: Batch, known: Mapping[str, Reservation], at: int) -> None:
    """Whatever an older epoch left open is unknown: nobody is there any more who could learn how it ended."""
    for id, reservation in {**known, **batch.changed}.items():
        if reservation is not None:
            _lose(batch, reservation, Lost(id, at, 0, "", 0))


def _lose(batch: Batch, reservation: Reservation, event: Lost) -> None:
    """An exchange is unknown from now on: its hold moves to suspense and its record says so."""
    step = _step(State(reservation.state), event)
    if not step.changes:
        return
    intent = reservation.intent
    seen = max(reservation.output_tokens_seen, event.output_tokens)
    batch.changed[event.id] = reservation._replace(state=UNKNOWN, output_tokens_seen=seen)
    batch.requests.append(_unknown_row(intent, event))
    batch.outbox.append(("unknown", event.id))
    _post(batch, transactions(step, event.id, intent.who, intent.held.usd, 0, None), event.at)


def _step(state: State, event: Settled | Progressed | Lost) -> Step:
    happening = happening_of(event)
    assert happening is not None, "these events name one exchange"
    return step_of(state, happening)


def _post(batch: Batch, posted: Iterable[Transaction], at: int) -> None:
    for transaction in posted:
        id, _, purpose = transaction.id.rpartition(":")
        for account, amount in transaction.postings:
            batch.postings.append((id, purpose, account, amount, at))


def _settled_row(intent: Intended, event: Settled, limit: str = "") -> tuple[Any, ...]:
    """The record of an ended exchange. Slices follow the order of the events' fields, which only ever grow."""
    who = intent.who
    attempts = event.attempts
    return (
        *event[:5],
        *event.usage,
        event.usage_source,
        event.cost,
        event.charge if event.resolution == "" else payer_charge(event),
        *event[9:12],
        _json(attempts).decode() if attempts else None,
        *event[13:17],
        *who[:13],
        _json(dict(who.tags)).decode() if who.tags else None,
        who.identity_source,
        intent.admitted_at,
        intent.held.usd,
        intent.stream,
        intent.idempotency_key,
        intent.clamped_to,
        limit,
    )


def _unknown_row(intent: Intended, event: Lost) -> tuple[Any, ...]:
    """The record of an unknown exchange: an ended one without usage or charge."""
    end = Settled(
        event.id,
        event.at,
        UNKNOWN,
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
    )
    return _settled_row(intent, end)


def _refused_row(event: Refused) -> tuple[Any, ...]:
    intent = Intended(event.id, event.at, event.at, event.who, Amounts(), "", event.stream)
    end = Settled(
        event.id, event.at, "refused", event.http_status, event.code, NO_USAGE, "none", 0, 0, "", event.latency_us, 0
    )
    return _settled_row(intent, end, event.limit)


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
    }
