"""The books as they must be: an in-memory fold of the journal that shares no code with any database.

Owns nothing but what the events say. ``faregate verify``, the chaos checker and the tests compare it with the books.
Applying an event a second time changes nothing. It remembers every exchange; ``forget_ended`` keeps of an ended one
only what late evidence needs, so that a million of them can be verified in little memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from faregate.core.amounts import NOTHING, UNITS, Amounts, most_of, posted_amounts
from faregate.core.attribution import Attribution, dimension
from faregate.core.ledger.events import (
    NOT_AWAITED,
    Event,
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
from faregate.core.ledger.postings import Transaction, payer_charge, transactions
from faregate.core.ledger.reservations import OPEN, Action, Happening, State, Step, happening_of, step_of
from faregate.core.slots import SLOT_NANOS
from faregate.core.usage import NO_USAGE, Usage, added

_NOBODY = Attribution()


class Exchange:
    """What is known of one exchange."""

    __slots__ = ("awaited", "credited", "intended", "output_tokens_seen", "provider", "settled", "state")

    def __init__(self) -> None:
        self.state = State.ABSENT
        self.intended: Intended | None = None
        self.settled: Settled | None = None
        #: Nano-dollars that its provider was credited, whoever bore them.
        self.credited = 0
        self.provider = ""
        self.output_tokens_seen = 0
        self.awaited = NOT_AWAITED

    @property
    def status(self) -> str:
        """As the request record says it; the name of its state where there is no end, or it was forgotten."""
        if self.settled is not None:
            return self.settled.status
        return "pending" if self.state is State.UNKNOWN and self.awaited.object_id else self.state.value


class Rollup(NamedTuple):
    """Sums over the settled exchanges of one slot and one set of dimensions."""

    requests: int = 0
    usage: Usage = NO_USAGE
    cost: int = 0
    #: What the payer bears.
    charge: int = 0
    #: Answers that the response cache gave, those it could not give, and what it saved.
    cache_hits: int = 0
    cache_misses: int = 0
    saved_cost: int = 0


class Totals(NamedTuple):
    """Sums over everything; money in nano-dollars."""

    #: Settled exchanges: what ``usage`` counts.
    requests: int
    refused: int
    postings: int
    #: Held by exchanges that have not ended, unknown ones included.
    held: int
    unknown: int
    #: Over all postings; anything but 0 is a broken ledger.
    sum: int
    #: Exchanges that have not ended.
    open: int
    request_cost: int
    rollup_cost: int
    #: What providers were credited, whoever bears it.
    credited: int


class Oracle:
    """A fold of events into balances, records, holds and roll-ups."""

    def __init__(self, events: Iterable[Event] = (), *, forget_ended: bool = False) -> None:
        self._forget_ended = forget_ended
        self.epoch = 0
        self.exchanges: dict[str, Exchange] = {}
        self.refusals: set[str] = set()
        #: Account → nano-dollars.
        self.balances: Counter[str] = Counter()
        self.rollups: dict[tuple[int, Attribution], Rollup] = {}
        #: Ids of exchanges that a person has to look at, in the order of their alarms.
        self.alarms: list[str] = []
        self.transactions = 0
        self._postings = 0
        self._settled = 0
        self._credited = 0
        self._cost = 0
        self._open: dict[str, Exchange] = {}
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> list[Transaction]:
        """Take one event in; returns the transactions it posted, none where it changed nothing."""
        if type(event) is Started:
            return self._open_epoch(event)
        if type(event) is Refused:
            self.refusals.add(event.id)
            return []
        if type(event) is Redirected:
            return self._turn(event)
        if type(event) is Recalled:
            return self._recall(event)
        happening = happening_of(event)
        assert happening is not None, "every other event names one exchange"
        assert not isinstance(event, Started | Refused | Redirected | Recalled)
        exchange = self.exchanges.get(event.id) or Exchange()
        step = step_of(exchange.state, happening)
        return self._take(event.id, exchange, step, event)

    def _turn(self, event: Redirected) -> list[Transaction]:
        """An exchange goes on at another place; what may have been billed where it was is an exchange of its own."""
        exchange = self.exchanges.get(event.id) or Exchange()
        step = step_of(exchange.state, Happening.REDIRECTED)
        intended = exchange.intended
        if not step.changes or intended is None or event.attempt <= intended.attempt:
            return []
        exchange.intended = redirected(intended, event)
        exchange.provider = event.who.provider
        if event.left is None or event.lost is None:
            return []
        return [*self.apply(event.left), *self.apply(event.lost)]

    def _recall(self, event: Recalled) -> list[Transaction]:
        """An answer given again is an exchange that begins and ends; where its id is known it is a repetition."""
        exchange = self.exchanges.get(event.id) or Exchange()
        step = step_of(exchange.state, Happening.RECALLED)
        if not step.changes:
            return []
        exchange.intended, end = recalled_as(event)
        exchange.provider = event.who.provider
        return self._take(event.id, exchange, step, end)

    def _open_epoch(self, event: Started) -> list[Transaction]:
        """Every exchange of an older epoch that still runs is unknown now."""
        if event.epoch <= self.epoch:
            return []
        self.epoch = event.epoch
        posted: list[Transaction] = []
        for id, exchange in list(self._open.items()):
            posted += self._take(id, exchange, step_of(exchange.state, Happening.LOST), None)
        return posted

    def _take(
        self, id: str, exchange: Exchange, step: Step, event: Intended | Progressed | Lost | Settled | None
    ) -> list[Transaction]:
        """Carry out one step of the table."""
        if not step.changes:
            return []
        if step.action is Action.CHARGE_OPERATOR and isinstance(event, Settled) and event.cost == exchange.credited:
            # Evidence that only confirms what was booked uses up nobody's chance to correct it.
            return []
        self.exchanges[id] = exchange
        exchange.state = step.state
        if isinstance(event, Intended):
            exchange.intended = event
            exchange.provider = event.who.provider
        elif isinstance(event, Progressed | Lost):
            exchange.output_tokens_seen = max(exchange.output_tokens_seen, event.output_tokens)
            intended = exchange.intended
            if isinstance(event, Progressed) and event.held != NOTHING and intended is not None:
                exchange.intended = intended._replace(held=most_of(intended.held, event.held))
            if isinstance(event, Lost):
                exchange.awaited = event.awaited
        if step.state in OPEN:
            self._open[id] = exchange
        else:
            self._open.pop(id, None)
        settled = event if isinstance(event, Settled) else None
        if step.alarm and settled is not None and settled.cost != exchange.credited:
            self.alarms.append(id)
        intended = exchange.intended
        who = intended.who if intended else _NOBODY._replace(provider=exchange.provider)
        held = intended.held.usd if intended else 0
        posted = transactions(step, id, who, held, exchange.credited, settled)
        self._post(posted)
        if settled is not None:
            self._end(exchange, step, settled)
        return posted

    def _end(self, exchange: Exchange, step: Step, settled: Settled) -> None:
        """Count the end of an exchange: once in requests and roll-ups, whatever evidence comes after it."""
        self._credited += settled.cost - exchange.credited
        exchange.credited = settled.cost
        if step.action is Action.CHARGE_OPERATOR:
            return
        assert exchange.intended is not None, "only evidence ends an exchange that was never begun"
        exchange.settled = settled
        self._settled += 1
        self._cost += settled.cost
        who = exchange.intended.who
        slot = exchange.intended.admitted_at - exchange.intended.admitted_at % SLOT_NANOS
        key = slot, who._replace(run="", tags=(), identity_source="")
        old = self.rollups.get(key, Rollup())
        usage = added(old.usage, settled.usage)
        self.rollups[key] = Rollup(
            old.requests + 1,
            usage,
            old.cost + settled.cost,
            old.charge + payer_charge(settled),
            old.cache_hits + (settled.cache == "hit"),
            old.cache_misses + (settled.cache == "miss"),
            old.saved_cost + settled.saved_cost,
        )
        if self._forget_ended:
            exchange.intended = exchange.settled = None

    def _post(self, posted: Sequence[Transaction]) -> None:
        """Enter transactions into the balances."""
        for transaction in posted:
            assert sum(posting.amount for posting in transaction.postings) == 0, f"{transaction.id} does not balance"
            self.transactions += 1
            self._postings += len(transaction.postings)
            for posting in transaction.postings:
                self.balances[posting.account] += posting.amount

    # -- what a limit must have counted ------------------------------------------------------------------------------

    def posted(
        self, selector: Mapping[str, str], each: Sequence[str], unit: str, since: int, until: int
    ) -> dict[tuple[str, ...], int]:
        """Subject → what exchanges admitted in ``since`` … ``until`` (exclusive) have posted, in one unit."""
        position = UNITS.index(unit)
        sums: Counter[tuple[str, ...]] = Counter()
        for intended, settled in self._ended():
            if since <= intended.admitted_at < until and _selects(selector, intended.who):
                amounts = posted_amounts(payer_charge(settled), settled.usage)
                sums[_subject(each, intended.who)] += amounts[position]
        return dict(sums)

    def held(
        self, selector: Mapping[str, str], each: Sequence[str], unit: str, since: int, until: int
    ) -> dict[tuple[str, ...], int]:
        """Subject → what open exchanges admitted in ``since`` … ``until`` hold; unknown ones hold no slot."""
        position = UNITS.index(unit)
        sums: Counter[tuple[str, ...]] = Counter()
        for exchange in self._open.values():
            intended = exchange.intended
            assert intended is not None
            if since <= intended.admitted_at < until and _selects(selector, intended.who):
                sums[_subject(each, intended.who)] += _held(exchange)[position]
        return dict(sums)

    # -- looking -------------------------------------------------------------------------------------------------------

    def open(self, state: State | None = None) -> dict[str, Exchange]:
        """Exchanges that have not ended, by id; of one state or of both."""
        return {id: exchange for id, exchange in self._open.items() if state in (None, exchange.state)}

    def totals(self) -> Totals:
        """Sums over everything."""
        return Totals(
            requests=self._settled,
            refused=len(self.refusals),
            postings=self._postings,
            held=sum(_held(exchange).usd for exchange in self._open.values()),
            unknown=sum(_held(exchange).usd for exchange in self.open(State.UNKNOWN).values()),
            sum=sum(self.balances.values()),
            open=len(self._open),
            request_cost=self._cost,
            rollup_cost=sum(rollup.cost for rollup in self.rollups.values()),
            credited=self._credited,
        )

    def _ended(self) -> Iterator[tuple[Intended, Settled]]:
        """Exchanges that ended and are still remembered."""
        assert not self._forget_ended, "ended exchanges were forgotten as they ended"
        for exchange in self.exchanges.values():
            if exchange.intended is not None and exchange.settled is not None:
                yield exchange.intended, exchange.settled


def _held(exchange: Exchange) -> Amounts:
    """What an open exchange holds; the slot of an unknown one is free."""
    held = exchange.intended.held if exchange.intended else NOTHING
    return held._replace(concurrency=0) if exchange.state is State.UNKNOWN else held


def _selects(selector: Mapping[str, str], who: Attribution) -> bool:
    return all(dimension(who, name) == value for name, value in selector.items())


def _subject(each: Sequence[str], who: Attribution) -> tuple[str, ...]:
    return tuple([dimension(who, name) for name in each])
