"""The life of exchanges as a machine: allowances and ledger together, through crashes, repeats and changing limits.

Limits are of every kind: windows of the calendar, rolling ones, an even pace, one that carries its rest over. They are
paid into, cut, raised for a while, made anew; calls ask for more while they run; windows end and processes die.

``make soak`` lives 20,000 longer lives.
"""

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from core.limits.plain_sums import FOREVER, Between, Call, Rate, level, spent
from faregate.core.amounts import Amounts, held_amounts, posted_amounts
from faregate.core.attribution import Attribution
from faregate.core.caching.policy import hit_charge
from faregate.core.ledger.accounts import MARGIN, OPERATOR
from faregate.core.ledger.events import (
    Event,
    Intended,
    Lost,
    Progressed,
    Recalled,
    Redirected,
    Settled,
    Started,
    left_id,
)
from faregate.core.ledger.oracle import Oracle
from faregate.core.ledger.postings import payer_charge
from faregate.core.ledger.reservations import State
from faregate.core.limits.admit import Allowances, CompiledLimit, LimitIndex, LimitRefusal, Reservation, Standing
from faregate.core.limits.terms import Past, Raise, Terms
from faregate.core.limits.windows import HOUR, MINUTE, SECOND, window_of
from faregate.core.pricing.charging import AT_COST, ChargeRule, charge, charge_bound, rule_for, text_of
from faregate.core.usage import NO_USAGE, Usage
from soaking import examples

NOON = 1_789_387_200 * SECOND

#: What limits may count in the machine; amounts are drawn.
SHAPES: tuple[dict[str, Any], ...] = (
    {"selector": {"team": "research"}, "unit": "usd", "window": "minute"},
    {"selector": {}, "unit": "usd", "window": "lifetime"},
    {"selector": {}, "each": ("user",), "unit": "tokens", "window": "day"},
    {"selector": {}, "each": ("end_user", "team"), "unit": "requests", "window": "minute"},
    {"selector": {"team": "research"}, "unit": "concurrency", "window": ""},
    {"selector": {}, "unit": "usd", "window": "hour", "mode": "soft"},
    {"selector": {}, "each": ("team",), "unit": "usd", "window": "rolling 1m"},
    {"selector": {"team": "sales"}, "unit": "requests", "window": "rolling 50s"},
    {"selector": {}, "each": ("user",), "unit": "usd", "window": "day", "terms": Terms(carry_max=60)},
    {"selector": {}, "unit": "tokens", "window": "minute", "terms": Terms(algorithm="smooth")},
)

CALLERS = tuple(
    Attribution(organization="default", team=team, user=user, end_user=end_user, key=user, provider="sim")
    for team in ("research", "sales")
    for user, end_user in (("ann", "x"), ("bob", "y"))
)

#: Who bears what a provider billed for a try that was left behind.
NOBODY = Attribution(provider="sim")

#: What callers are charged: sales pay more than the cost, one of research nothing, the other a little less than it.
CHARGES = (
    ChargeRule((("team", "sales"),), markup_ppm=333_333, fee=2),
    ChargeRule((("key", "ann"), ("team", "research")), free=True),
    ChargeRule((("team", "research"),), discount_ppm=125_000),
    ChargeRule((("team", ""),), free=True),
)

costs = st.integers(0, 40)
tokens = st.integers(0, 20)
picks = st.integers(0, 1000)


def charging(who: Attribution) -> ChargeRule:
    """The terms for a caller."""
    return rule_for(CHARGES, who) or AT_COST


def compiled(number: int, amount: int | None, version: int = 0, terms: Terms | None = None) -> CompiledLimit:
    """Limit ``number`` of the shapes; another ``version`` is another limit of the same shape."""
    shape = SHAPES[number] if terms is None else {**SHAPES[number], "terms": terms}
    return CompiledLimit(id=f"lim_{number}_{version}", amount=amount, **shape)


def in_force(limit: CompiledLimit, at: int) -> int | None:
    """The amount at a moment: what was set until then, or the largest raise."""
    set_then = next((past.amount for past in limit.terms.history if at < past.until), limit.amount)
    if set_then is None:
        return None
    return max([set_then, *(each.amount for each in limit.terms.raises if each.since <= at < each.until)])


class LifeCycle(RuleBasedStateMachine):
    """A gate's memory, its journal and the ledger that is folded from it.

    The machine keeps apart, and by its own simple means, what each of them must say: which reservations are open,
    what was really charged to whom, and which amounts are in force.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.behind = 0
        self.epoch = 0
        self.made = 0
        #: Which try at a provider a call is at.
        self.tries: Counter[str] = Counter()
        #: Calls whose answer has begun: nobody asks another place for these any more.
        self.flowing: set[str] = set()
        self.versions = 0
        self.limits: dict[int, CompiledLimit] = {}
        self.allowances = Allowances()
        self.journal: list[Event] = []
        self.oracle = Oracle()
        #: What only the gate's memory knows.
        self.reserved: dict[str, Reservation] = {}
        self.dispatched: dict[str, Reservation] = {}
        self.unknown: dict[str, Reservation] = {}
        self.ended_reservations: list[Reservation] = []
        #: The truth: id → charge to its payer, and what the operator bears, the margin gains, providers are owed.
        self.charged: dict[str, int] = {}
        #: Answers that were given again: id → charge to its payer; and what all of them saved.
        self.hits: dict[str, int] = {}
        self.saved = 0
        self.operator = 0
        self.margin = 0
        self.owed = 0
        self.evidence: set[str] = set()
        #: Ids of limits that wait for their balance → length of the journal and the time when they began to wait.
        self.waiting: dict[str, tuple[int, int]] = {}
        #: Every call that holds or posted something, and which amounts of smooth limits drained since when.
        self.calls: dict[str, Call] = {}
        self.rates: dict[str, list[Rate]] = {}
        #: Limits that do not follow the calendar → when what the books knew was told to them, as spent just then.
        self.told_at: dict[str, int] = {}

    # -- the gate's acts ---------------------------------------------------------------------------------------------

    def write(self, event: Event) -> None:
        """Journal an event and project it."""
        self.journal.append(event)
        self.oracle.apply(event)

    def replace_limits(self) -> None:
        """Swap the snapshot; new limits wait for the balance of this very position of the journal."""
        pending = self.allowances.replace_limits(LimitIndex(self.limits.values()), self.wall())
        self.waiting = {id: self.waiting.get(id, (len(self.journal), self.now)) for id in pending}
        for limit in self.limits.values():
            self.rates.setdefault(limit.id, []).append(Rate(self.now, in_force(limit, self.now)))

    def wall(self) -> int:
        """The wall clock, which may have been set back."""
        return self.now - self.behind

    def take(self, among: dict[str, Reservation], pick: int) -> tuple[str, Reservation]:
        """One of the reservations."""
        id = sorted(among)[pick % len(among)]
        return id, among[id]

    @initialize(amounts=st.lists(st.one_of(st.none(), st.integers(0, 120)), min_size=len(SHAPES), max_size=len(SHAPES)))
    def start(self, amounts: list[int | None]) -> None:
        """A first start: no journal, no spending, some of the limits."""
        for number, amount in enumerate(amounts):
            if amount is not None:
                self.limits[number] = compiled(number, amount)
        self.write(Started(1, self.now))
        self.epoch = 1
        self.replace_limits()
        self.open_balances()

    @rule(caller=st.sampled_from(CALLERS), usd=costs, incoming=tokens, outgoing=tokens)
    def reserve(self, caller: Attribution, usd: int, incoming: int, outgoing: int) -> None:
        """A call asks for a hold: it is taken exactly when it fits every limit in force."""
        self.made += 1
        id = f"req_{self.made:04}"
        amounts = held_amounts(charge_bound(charging(caller), usd), incoming, outgoing)
        index = LimitIndex(self.limits.values())
        outcome = self.allowances.reserve(id, Standing(caller, index.matching(caller)), amounts, self.wall())
        binding = {id: self.binds(limit, caller, amounts) for id, limit in self.by_id().items()}
        must = {id for id, (must, _) in binding.items() if must}
        may = {id for id, (_, may) in binding.items() if may}
        if isinstance(outcome, LimitRefusal):
            assert must <= {outcome.limit.id, *outcome.others} <= may
        else:
            assert must == set()
            assert outcome.admitted_at == self.now
            self.reserved[id] = outcome
            self.calls[id] = Call(caller, self.now, amounts)

    def by_id(self) -> dict[str, CompiledLimit]:
        """The limits in force."""
        return {limit.id: limit for limit in self.limits.values()}

    def binds(self, limit: CompiledLimit, caller: Attribution, amounts: Amounts) -> tuple[bool, bool]:
        """Whether a call must be refused by a limit, and whether it may, by the ledger and what only the gate knows."""
        amount = self.amount(limit, caller)
        if not limit.matches(caller) or not limit.hard or amount is None:
            return False, False
        if limit.id in self.waiting:
            return True, True
        counted = self.counted(limit, caller)
        wanted = amounts[limit.unit]
        return counted.least + wanted > amount, counted.most + wanted > amount

    def amount(self, limit: CompiledLimit, caller: Attribution) -> int | None:
        """What may be reached now, with what the window before left of its own."""
        amount = in_force(limit, self.now)
        if amount is None or not limit.terms.carry_max:
            return amount
        since, _ = self.window(limit, self.now)
        before, _ = self.window(limit, since - 1)
        posted, held = self.sums(limit, before, since)
        subject = limit.subject(caller)
        left = (in_force(limit, since - 1) or 0) - posted[subject] - held[subject]
        return amount + min(limit.terms.carry_max, max(0, left))

    def counted(self, limit: CompiledLimit, caller: Attribution) -> Between:
        """What counts for a caller: at least by the ledger; at most, where that differs, by all that ever held."""
        subject = limit.subject(caller)
        if limit.terms.algorithm:
            # When it was told what the books know, these were asked about one period, in which its amount drains.
            told_at = self.told_at.get(limit.id, 0)
            known = [call for call in self.calls.values() if not 0 < call.ended_at <= told_at]
            known += [c for c in self.calls.values() if 0 < c.ended_at <= told_at and c.at >= told_at - limit.period]
            takes = [(call.at, call.weight(limit)) for call in known if limit.matches(call.who)]
            drained = level(takes, self.rates[limit.id], limit.period, self.now)
            return Between(-(-drained // limit.period), FOREVER)
        posted, held = self.expected(limit)
        least = posted[subject] + held[subject]
        return Between(least, max(least, self.most(limit, caller)) if limit.rolling else least)

    def most(self, limit: CompiledLimit, caller: Attribution) -> int:
        """What a rolling window may count, with what it was told of the past as if it were spent at that moment."""
        told_at, calls = self.told_at.get(limit.id, 0), list(self.calls.values())
        seen = spent(calls, limit, caller, self.now).most
        if told_at <= self.now - limit.rolling - limit.rolling // 59:
            return seen
        return seen + spent([call for call in calls if call.at <= told_at], limit, caller, told_at).most

    @precondition(lambda self: self.reserved)
    @rule(pick=picks)
    def dispatch(self, pick: int) -> None:
        """The provider's connection is open: the intent is journalled and the call sent."""
        id, reservation = self.take(self.reserved, pick)
        del self.reserved[id]
        self.dispatched[id] = reservation
        at = reservation.admitted_at
        rule = text_of(charging(reservation.who))
        self.write(Intended(id, at, at, reservation.who, reservation.amounts, "v1", False, charge_rule=rule))

    @precondition(lambda self: self.reserved)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        """No connection came about: the hold is given back and nobody ever hears of it."""
        id, reservation = self.take(self.reserved, pick)
        del self.reserved[id], self.calls[id]
        assert self.allowances.release(reservation)
        self.ended_reservations.append(reservation)

    @precondition(lambda self: self.reserved)
    @rule(pick=picks, saved=costs, percent=st.sampled_from((0, 0, 25, 100)), twice=st.booleans())
    def recall(self, pick: int, saved: int, percent: int, twice: bool) -> None:
        """Its answer was kept before: one request that used nothing, and is charged a part of its price, or nothing."""
        id, reservation = self.take(self.reserved, pick)
        del self.reserved[id]
        due = hit_charge(charge(charging(reservation.who), saved), percent)
        who = reservation.who._replace(provider="")
        event = Recalled(id, self.now, reservation.admitted_at, who, False, saved, due, 9)
        for _ in range(1 + twice):
            self.write(event)
        self.hits[id] = due
        self.margin += due
        self.saved += saved
        posted = posted_amounts(due, NO_USAGE)
        assert self.allowances.settle(reservation, posted)
        self.calls[id].posted, self.calls[id].ended_at = posted, self.now
        self.ended_reservations.append(reservation)

    @precondition(lambda self: self.dispatched)
    @rule(pick=picks, outgoing=tokens)
    def progress(self, pick: int, outgoing: int) -> None:
        """A mark of how far an answer has come."""
        id, _ = self.take(self.dispatched, pick)
        self.flowing.add(id)
        self.write(Progressed(id, self.now, outgoing))

    @precondition(lambda self: self.dispatched)
    @rule(pick=picks, usd=costs, outgoing=tokens)
    def ask_for_more(self, pick: int, usd: int, outgoing: int) -> None:
        """A call that runs holds more, which is journalled; where it may not, nothing has changed."""
        id, reservation = self.take(self.dispatched, pick)
        before = self.figures()
        more = Amounts(usd=usd, tokens=outgoing, output_tokens=outgoing)
        if not self.allowances.extend(reservation, more, self.wall()):
            assert self.figures() == before
            return
        self.calls[id].takes.append((self.now, more))
        self.flowing.add(id)
        self.write(Progressed(id, self.now, 0, reservation.amounts))
        for limit in self.limits.values():
            since, until = self.window(limit, self.now)
            current = limit.paced or since <= reservation.admitted_at < until
            if current and more[limit.unit]:
                must, _ = self.binds(limit, reservation.who, Amounts())
                assert not must

    def figures(self) -> dict[tuple[str, tuple[str, ...]], tuple[int, int]]:
        """(Limit, subject) → (posted, held), where there is anything."""
        views = self.allowances.views(self.wall())
        return {(view.limit, view.subject): (view.posted, view.held) for view in views if view.posted or view.held}

    @precondition(lambda self: self.dispatched)
    @rule(pick=picks, usd=costs, outgoing=tokens)
    def settle(self, pick: int, usd: int, outgoing: int) -> None:
        """The answer came, or an error that costs nothing; now and then it cost more than was held."""
        id, reservation = self.take(self.dispatched, pick)
        del self.dispatched[id]
        self.end(id, reservation, usd, outgoing, "")

    def end(self, id: str, reservation: Reservation, usd: int, outgoing: int, resolution: str) -> None:
        """Journal an end, then post it."""
        end = self.settlement(id, usd, outgoing, resolution, charging(reservation.who))
        self.write(end)
        self.charged[id] = payer_charge(end)
        self.owed += usd
        if resolution == "operator_pays":
            self.operator += usd
        else:
            self.margin += end.charge - usd
        posted = posted_amounts(payer_charge(end), end.usage)
        assert self.allowances.settle(reservation, posted)
        self.calls[id].posted, self.calls[id].ended_at = posted, self.now
        self.ended_reservations.append(reservation)

    def settlement(self, id: str, usd: int, outgoing: int, resolution: str, rule: ChargeRule = AT_COST) -> Settled:
        """An end of an exchange."""
        usage = Usage(input_text=3, output_text=outgoing)
        due = charge(rule, usd)
        return Settled(
            id, self.now, "ok", 200, "", usage, "provider", usd, due, "v1", 9, 5,
            resolution=resolution, charge_rule=text_of(rule),
        )  # fmt: skip

    @precondition(lambda self: self.dispatched)
    @rule(pick=picks)
    def lose(self, pick: int) -> None:
        """The connection broke and nobody knows what the provider billed: the money stays held, the slot is free."""
        id, reservation = self.take(self.dispatched, pick)
        del self.dispatched[id]
        self.write(Lost(id, self.now, 0, "upstream_truncated", 9))
        assert self.allowances.release(reservation)
        self.ended_reservations.append(reservation)
        self.hold_unknown(id, reservation.who, reservation.amounts, reservation.admitted_at)

    def hold_unknown(self, id: str, who: Attribution, held: Amounts, admitted_at: int) -> None:
        """Nobody knows what a call cost: it holds on, but for its slot."""
        self.unknown[id] = self.allowances.hold_unknown(id, who, held, admitted_at, self.wall())
        self.calls[id].unknown = True
        # What has drained of it, or been extended when, is not known either.
        self.calls[id].takes = [(admitted_at, self.unknown[id].amounts)]

    @precondition(lambda self: self.unknown)
    @rule(
        pick=picks,
        usd=costs,
        outgoing=tokens,
        resolution=st.sampled_from(
            ("provider_said", "not_served", "charge_estimate", "operator_pays", "", "late_evidence")
        ),
    )
    def resolve(self, pick: int, usd: int, outgoing: int, resolution: str) -> None:
        """An unknown is ended: by the provider's word, by policy, or by the process that was thought dead."""
        id, reservation = self.take(self.unknown, pick)
        del self.unknown[id]
        self.end(id, reservation, 0 if resolution == "not_served" else usd, outgoing, resolution)

    @precondition(lambda self: self.dispatched.keys() - self.flowing)
    @rule(pick=picks, usd=costs, incoming=tokens, outgoing=tokens, billed=st.booleans())
    def try_elsewhere(self, pick: int, usd: int, incoming: int, outgoing: int, billed: bool) -> None:
        """A try failed before its first byte; another place is asked, which may be dearer. No room there is the end."""
        silent = {id: reservation for id, reservation in self.dispatched.items() if id not in self.flowing}
        id, before = self.take(silent, pick)
        del self.dispatched[id]
        assert self.allowances.release(before)
        self.ended_reservations.append(before)
        who = before.who._replace(provider="sim")
        amounts = held_amounts(charge_bound(charging(who), usd), incoming, outgoing)
        standing = Standing(who, LimitIndex(self.limits.values()).matching(who))
        outcome = self.allowances.reserve(id, standing, amounts, self.wall())
        if isinstance(outcome, LimitRefusal):
            self.hold_unknown(id, before.who, before.amounts, before.admitted_at)
            self.end(id, self.unknown.pop(id), 0, 0, "")
            return
        self.dispatched[id] = outcome
        self.calls[id] = Call(who, self.now, amounts)
        self.tries[id] += 1
        tried = self.tries[id]
        left = lost = None
        if billed:
            behind, rule = left_id(id, tried), text_of(charging(NOBODY))
            held = held_amounts(0, incoming, outgoing)
            left = Intended(behind, self.now, self.now, NOBODY, held, "v1", False, charge_rule=rule, attempt=tried)
            lost = Lost(behind, self.now, 0, "upstream_timeout", 9)
            self.calls[behind] = Call(NOBODY, self.now, held)
        rule = text_of(charging(who))
        at = outcome.admitted_at
        turn = Redirected(
            id, self.now, tried + 1, at, who, outcome.amounts, "v1", charge_rule=rule, left=left, lost=lost
        )
        self.write(turn)
        if left is not None:
            self.hold_unknown(left.id, NOBODY, left.held, left.admitted_at)

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    @rule()
    def crash_and_recover(self) -> None:
        """The process dies: all that survives is the journal. The next one holds what may have been billed."""
        for id in self.reserved:
            del self.calls[id]
        self.reserved.clear()
        self.ended_reservations.clear()
        self.behind = 0
        self.allowances = Allowances()
        self.epoch += 1
        self.write(Started(self.epoch, self.now))
        self.waiting.clear()
        self.replace_limits()
        self.dispatched.clear()
        self.unknown = {}
        for id, exchange in self.oracle.open(State.UNKNOWN).items():
            intended = exchange.intended
            assert intended is not None
            self.hold_unknown(id, intended.who, intended.held, intended.admitted_at)

    @precondition(lambda self: self.waiting)
    @rule()
    def open_balances(self) -> None:
        """The books answer with the balances of the moment at which the limits began to wait, however late."""
        for id, (position, at) in self.waiting.items():
            limit = self.by_id()[id]
            books = Oracle(self.journal[:position])
            balances = []
            for since, until, moment in self.questions(limit, at):
                posted = books.posted(dict(limit.selector), limit.each, limit.unit_name, since, until)
                balances += [(subject, moment, amount) for subject, amount in posted.items()]
            if limit.paced:
                self.told_at[id] = at
            assert self.allowances.open_balance(id, balances, self.wall())
            assert not self.allowances.open_balance(id, balances, self.wall())
        self.waiting.clear()

    def questions(self, limit: CompiledLimit, at: int) -> list[tuple[int, int, int]]:
        """Which stretches the books are asked about, and at which moment what they find counts as spent."""
        if limit.paced:
            return [(at - limit.period, FOREVER, at)]
        since, until = self.window(limit, at)
        if not limit.terms.carry_max:
            return [(since, until, since)]
        before, _ = self.window(limit, since - 1)
        return [(since, until, since), (before, since, before)]

    @precondition(lambda self: self.journal)
    @rule(pick=picks)
    def journal_again(self, pick: int) -> None:
        """An event is projected a second time."""
        event = self.journal[pick % len(self.journal)]
        # Evidence that ended an exchange is told again to an ended one: it confirms, and is a happening of its own.
        if not (isinstance(event, Settled) and event.resolution == "late_evidence"):
            assert self.oracle.apply(event) == []

    @precondition(lambda self: self.ended_reservations)
    @rule(pick=picks, usd=costs)
    def end_again(self, pick: int, usd: int) -> None:
        """An ended reservation is ended once more."""
        reservation = self.ended_reservations[pick % len(self.ended_reservations)]
        assert not self.allowances.settle(reservation, Amounts(usd=usd, requests=1))
        assert not self.allowances.release(reservation)

    @precondition(lambda self: self.charged)
    @rule(pick=picks, usd=costs)
    def prove_late(self, pick: int, usd: int) -> None:
        """Proof of another cost comes after the end: the operator bears the difference, once, the payer none."""
        id = sorted(self.charged)[pick % len(self.charged)]
        before = self.oracle.exchanges[id].credited
        self.write(self.settlement(id, usd, 5, "late_evidence"))
        # Evidence that confirms what was booked moves nothing, and another may still come.
        if id not in self.evidence and usd != before:
            self.operator += usd - before
            self.owed += usd - before
            self.evidence.add(id)

    # -- limits and time ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.limits)
    @rule(pick=picks, amount=st.one_of(st.none(), st.integers(0, 200)))
    def change_amount(self, pick: int, amount: int | None) -> None:
        """A limit is raised, lowered or lifted; what is held stays held."""
        number = sorted(self.limits)[pick % len(self.limits)]
        old = self.limits[number]
        self.change(number, (old.amount or 0) if amount is None and old.terms.carry_max else amount)

    @precondition(lambda self: self.limits)
    @rule(pick=picks, more=st.integers(1, 60))
    def deposit(self, pick: int, more: int) -> None:
        """Money is paid in: the amount grows by it at once."""
        number = sorted(self.limits)[pick % len(self.limits)]
        self.change(number, (self.limits[number].amount or 0) + more)

    @precondition(lambda self: self.limits)
    @rule(
        pick=picks,
        amount=st.integers(0, 300),
        after=st.sampled_from((0, SECOND, MINUTE)),
        length=st.sampled_from((1, 40 * SECOND, HOUR)),
    )
    def raise_for_a_while(self, pick: int, amount: int, after: int, length: int) -> None:
        """Another amount is in force from a moment on, until another; nobody does anything then."""
        number = sorted(self.limits)[pick % len(self.limits)]
        old = self.limits[number]
        if old.amount is not None:
            raised = Raise(amount, self.now + after, self.now + after + length)
            self.change(number, old.amount, (*old.terms.raises, raised))

    def change(self, number: int, amount: int | None, raises: tuple[Raise, ...] | None = None) -> None:
        """Change a limit in place; what was in force until now is remembered by one that carries over."""
        old = self.limits[number]
        terms = old.terms if raises is None else old.terms._replace(raises=raises)
        if terms.carry_max and amount != old.amount:
            terms = terms._replace(history=(*terms.history, Past(self.now, old.amount)))
        self.limits[number] = compiled(number, amount, int(old.id.rpartition("_")[2]), terms)
        self.replace_limits()

    @rule(number=st.integers(0, len(SHAPES) - 1), amount=st.integers(0, 200))
    def make_limit(self, number: int, amount: int) -> None:
        """A limit is made, or made anew, in the middle of its window."""
        self.versions += 1
        self.limits[number] = compiled(number, amount, self.versions)
        self.replace_limits()

    @precondition(lambda self: self.limits)
    @rule(pick=picks)
    def remove_limit(self, pick: int) -> None:
        """A limit is removed."""
        del self.limits[sorted(self.limits)[pick % len(self.limits)]]
        self.replace_limits()

    @rule(step=st.sampled_from((1, SECOND, 40 * SECOND, MINUTE, 50 * MINUTE, 13 * HOUR)))
    def wait(self, step: int) -> None:
        """Time passes, windows end."""
        self.now += step
        self.behind = 0
        # Whatever the gate does next, it does at this time.
        list(self.allowances.views(self.wall()))
        for limit in self.limits.values():
            edges = {moment for each in limit.terms.raises for moment in (each.since, each.until)}
            passed = sorted(edge for edge in edges if self.now - step < edge <= self.now)
            self.rates[limit.id] += [Rate(edge, in_force(limit, edge)) for edge in passed]

    @rule(step=st.sampled_from((1, MINUTE, 2 * HOUR)))
    def set_the_clock_back(self, step: int) -> None:
        """The wall clock steps back; windows must not open again."""
        self.behind += step

    # -- what must always hold -----------------------------------------------------------------------------------------

    def window(self, limit: CompiledLimit, at: int) -> tuple[int, int]:
        """The limit's window at a moment; of a rolling one what it must count."""
        if limit.paced:
            return at - limit.period + 1, FOREVER
        since, until = window_of(limit.window, limit.zone, at)
        return since, until or FOREVER

    def expected(self, limit: CompiledLimit) -> tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]:
        """Posted and held by subject in the current window."""
        return self.sums(limit, *self.window(limit, self.now))

    def sums(
        self, limit: CompiledLimit, since: int, until: int
    ) -> tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]:
        """Posted and held of a stretch of time: by the ledger, and by reservations not yet dispatched."""
        selector = dict(limit.selector)
        posted = Counter(self.oracle.posted(selector, limit.each, limit.unit_name, since, until))
        held = Counter(self.oracle.held(selector, limit.each, limit.unit_name, since, until))
        for reservation in self.reserved.values():
            who = reservation.who
            if since <= reservation.admitted_at < until and limit.matches(who):
                held[limit.subject(who)] += reservation.amounts[limit.unit]
        return posted, held

    @invariant()
    def allowances_say_what_the_ledger_says(self) -> None:
        """For every limit and subject: posted and held are the sums over the calls of the current window."""
        told: dict[str, dict[tuple[str, ...], tuple[int, int]]] = {limit.id: {} for limit in self.limits.values()}
        by_id = self.by_id()
        for view in self.allowances.views(self.wall()):
            told[view.limit][view.subject] = (view.posted, view.held)
            limit = by_id[view.limit]
            like = Attribution()._replace(**dict(zip(limit.each, view.subject, strict=True)))  # type: ignore[arg-type]
            if limit.id not in self.waiting and not limit.terms.algorithm:
                assert view.amount == self.amount(limit, like)
        assert set(self.allowances.pending()) == set(self.waiting)
        for limit in self.limits.values():
            if limit.paced:
                self.compare(limit, told[limit.id])
                continue
            posted, held = self.expected(limit)
            figures = told[limit.id]
            assert {s: h for s, (_, h) in figures.items() if h} == {s: h for s, h in held.items() if h}
            if limit.id not in self.waiting:
                assert {s: p for s, (p, _) in figures.items() if p} == {s: p for s, p in posted.items() if p}

    def compare(self, limit: CompiledLimit, figures: dict[tuple[str, ...], tuple[int, int]]) -> None:
        """A counter that does not follow the calendar counts at least what it must, and not more than it may."""
        if limit.id in self.waiting:
            return
        for caller in CALLERS:
            if limit.matches(caller):
                counted = self.counted(limit, caller)
                assert counted.least <= sum(figures.get(limit.subject(caller), (0, 0))) <= counted.most

    @invariant()
    def every_open_exchange_is_known_and_held_once(self) -> None:
        """Gate and ledger agree on what is open, and the held money is that of the open reservations."""
        assert set(self.oracle.open(State.DISPATCHED)) == set(self.dispatched)
        assert set(self.oracle.open(State.UNKNOWN)) == set(self.unknown)
        running = [*self.reserved.values(), *self.dispatched.values()]
        totals = self.oracle.totals()
        assert self.allowances.held_total_usd == sum(reservation.amounts.usd for reservation in running)
        assert self.allowances.unknown_total_usd == totals.unknown
        assert self.allowances.unknown_count == len(self.unknown)
        assert self.allowances.open_count == len(running) + len(self.unknown)

    @invariant()
    def the_ledger_balances_and_nobody_pays_twice(self) -> None:
        """Postings sum to zero; payers owe their charges, providers get the costs, the margin has what is between."""
        totals, balances = self.oracle.totals(), self.oracle.balances
        assert totals.sum == 0
        assert totals.requests == len(self.charged) + len(self.hits)
        assert sum(sums.cache_hits for sums in self.oracle.rollups.values()) == len(self.hits)
        assert sum(sums.saved_cost for sums in self.oracle.rollups.values()) == self.saved
        assert totals.request_cost == totals.rollup_cost
        owed = sum(amount for account, amount in balances.items() if account.startswith("payer:"))
        assert owed == sum(self.charged.values()) + sum(self.hits.values())
        assert balances[OPERATOR] == self.operator
        assert -balances[MARGIN] == self.margin
        assert -balances["provider:sim"] == self.owed == owed + self.operator - self.margin == totals.credited
        assert balances["suspense:default"] == -balances["unresolved:sim"] == totals.unknown

    def teardown(self) -> None:
        """At the end the whole journal, folded anew, tells the same balances."""
        anew = Oracle(self.journal)
        assert anew.totals() == self.oracle.totals()
        assert anew.balances == self.oracle.balances


TestLifeCycle = LifeCycle.TestCase
TestLifeCycle.settings = settings(
    max_examples=examples(120, 20_000), stateful_step_count=examples(40, 60), deadline=None
)
