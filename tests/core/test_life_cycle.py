"""The life of exchanges as a machine: allowances and ledger together, through crashes, repeats and changing limits.

``make soak`` runs the same machine for longer: ``python tests/core/test_life_cycle.py [EXAMPLES [STEPS]]``.
"""

import sys
import time
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from faregate.core.amounts import Amounts, held_amounts, posted_amounts
from faregate.core.attribution import Attribution, dimension
from faregate.core.ledger.accounts import MARGIN, OPERATOR
from faregate.core.ledger.events import Event, Intended, Lost, Progressed, Settled, Started
from faregate.core.ledger.oracle import Oracle
from faregate.core.ledger.postings import payer_charge
from faregate.core.ledger.reservations import State
from faregate.core.limits.admit import Allowances, CompiledLimit, LimitIndex, LimitRefusal, Reservation, Standing
from faregate.core.limits.windows import HOUR, MINUTE, SECOND, window_of
from faregate.core.pricing.charging import AT_COST, ChargeRule, charge, charge_bound, rule_for, text_of
from faregate.core.usage import Usage

NOON = 1_789_387_200 * SECOND
FOREVER = 1 << 70

#: What limits may count in the machine; amounts are drawn.
SHAPES: tuple[dict[str, Any], ...] = (
    {"selector": {"team": "research"}, "unit": "usd", "window": "minute"},
    {"selector": {}, "unit": "usd", "window": "lifetime"},
    {"selector": {}, "each": ("user",), "unit": "tokens", "window": "day"},
    {"selector": {}, "each": ("end_user", "team"), "unit": "requests", "window": "minute"},
    {"selector": {"team": "research"}, "unit": "concurrency", "window": ""},
    {"selector": {}, "unit": "usd", "window": "hour", "mode": "soft"},
)

CALLERS = tuple(
    Attribution(organization="default", team=team, user=user, end_user=end_user, key=user, provider="sim")
    for team in ("research", "sales")
    for user, end_user in (("ann", "x"), ("bob", "y"))
)

#: What callers are charged: sales pay more than the cost, one of research nothing, the other a little less than it.
CHARGES = (
    ChargeRule((("team", "sales"),), markup_ppm=333_333, fee=2),
    ChargeRule((("key", "ann"), ("team", "research")), free=True),
    ChargeRule((("team", "research"),), discount_ppm=125_000),
)

costs = st.integers(0, 40)
tokens = st.integers(0, 20)
picks = st.integers(0, 1000)


def charging(who: Attribution) -> ChargeRule:
    """The terms for a caller."""
    return rule_for(CHARGES, who) or AT_COST


def compiled(number: int, amount: int | None, version: int = 0) -> CompiledLimit:
    """Limit ``number`` of the shapes; another ``version`` is another limit of the same shape."""
    return CompiledLimit(id=f"lim_{number}_{version}", amount=amount, **SHAPES[number])


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
        self.operator = 0
        self.margin = 0
        self.owed = 0
        self.evidence: set[str] = set()
        #: Ids of limits that wait for their balance → length of the journal and the time when they began to wait.
        self.waiting: dict[str, tuple[int, int]] = {}

    # -- the gate's acts ---------------------------------------------------------------------------------------------

    def write(self, event: Event) -> None:
        """Journal an event and project it."""
        self.journal.append(event)
        self.oracle.apply(event)

    def replace_limits(self) -> None:
        """Swap the snapshot; new limits wait for the balance of this very position of the journal."""
        pending = self.allowances.replace_limits(LimitIndex(self.limits.values()), self.wall())
        self.waiting = {id: self.waiting.get(id, (len(self.journal), self.now)) for id in pending}

    def wall(self) -> int:
        """The wall clock, which may have been set back."""
        return self.now - self.behind

    def take(self, among: dict[str, Reservation], pick: int) -> tuple[str, Reservation]:
        """One of the reservations."""
        id = sorted(among)[pick % len(among)]
        return id, among[id]

    @initialize(amounts=st.lists(st.integers(0, 120), min_size=len(SHAPES), max_size=len(SHAPES)))
    def start(self, amounts: list[int]) -> None:
        """A first start: no journal, no spending, four of the limits."""
        for number, amount in list(enumerate(amounts))[:4]:
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
        binding = {limit.id for limit in self.limits.values() if self.binds(limit, caller, amounts)}
        if isinstance(outcome, LimitRefusal):
            assert {outcome.limit.id, *outcome.others} == binding
        else:
            assert binding == set()
            assert outcome.admitted_at == self.now
            self.reserved[id] = outcome

    def binds(self, limit: CompiledLimit, caller: Attribution, amounts: Amounts) -> bool:
        """Whether a call does not fit a limit, by the ledger and the holds that only the gate knows."""
        applies = all(dimension(caller, name) == value for name, value in limit.selector)
        if not applies or not limit.hard or limit.amount is None:
            return False
        if limit.id in self.waiting:
            return True
        subject = tuple(dimension(caller, name) for name in limit.each)
        posted, held = self.expected(limit)
        return posted[subject] + held[subject] + amounts[limit.unit] > limit.amount

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
        del self.reserved[id]
        assert self.allowances.release(reservation)
        self.ended_reservations.append(reservation)

    @precondition(lambda self: self.dispatched)
    @rule(pick=picks, outgoing=tokens)
    def progress(self, pick: int, outgoing: int) -> None:
        """A mark of how far an answer has come."""
        id, _ = self.take(self.dispatched, pick)
        self.write(Progressed(id, self.now, outgoing))

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
        assert self.allowances.settle(reservation, posted_amounts(payer_charge(end), end.usage))
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
        self.unknown[id] = self.allowances.hold_unknown(
            id, reservation.who, reservation.amounts, reservation.admitted_at, self.wall()
        )

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

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    @rule()
    def crash_and_recover(self) -> None:
        """The process dies: all that survives is the journal. The next one holds what may have been billed."""
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
            self.unknown[id] = self.allowances.hold_unknown(
                id, intended.who, intended.held, intended.admitted_at, self.wall()
            )

    @precondition(lambda self: self.waiting)
    @rule()
    def open_balances(self) -> None:
        """The books answer with the balances of the moment at which the limits began to wait, however late."""
        for id, (position, at) in self.waiting.items():
            limit = next(limit for limit in self.limits.values() if limit.id == id)
            since, until = self.window(limit, at)
            books = Oracle(self.journal[:position])
            posted = books.posted(dict(limit.selector), limit.each, limit.unit_name, since, until)
            balances = [(subject, since, amount) for subject, amount in posted.items()]
            assert self.allowances.open_balance(id, balances, self.wall())
            assert not self.allowances.open_balance(id, balances, self.wall())
        self.waiting.clear()

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
        if id not in self.evidence:
            self.operator += usd - before
            self.owed += usd - before
            self.evidence.add(id)

    # -- limits and time ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.limits)
    @rule(pick=picks, amount=st.one_of(st.none(), st.integers(0, 200)))
    def change_amount(self, pick: int, amount: int | None) -> None:
        """A limit is raised, lowered or lifted; what is held stays held."""
        number = sorted(self.limits)[pick % len(self.limits)]
        version = int(self.limits[number].id.rpartition("_")[2])
        self.limits[number] = compiled(number, amount, version)
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

    @rule(step=st.sampled_from((1, MINUTE, 2 * HOUR)))
    def set_the_clock_back(self, step: int) -> None:
        """The wall clock steps back; windows must not open again."""
        self.behind += step

    # -- what must always hold -----------------------------------------------------------------------------------------

    def window(self, limit: CompiledLimit, at: int) -> tuple[int, int]:
        """The limit's window at a moment."""
        since, until = window_of(limit.window, limit.zone, at)
        return since, until or FOREVER

    def expected(self, limit: CompiledLimit) -> tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]:
        """Posted and held by subject in the current window: by the ledger, and by reservations not yet dispatched."""
        since, until = self.window(limit, self.now)
        selector = dict(limit.selector)
        posted = Counter(self.oracle.posted(selector, limit.each, limit.unit_name, since, until))
        held = Counter(self.oracle.held(selector, limit.each, limit.unit_name, since, until))
        for reservation in self.reserved.values():
            who = reservation.who
            if since <= reservation.admitted_at < until and limit.matches(who):
                held[tuple(dimension(who, name) for name in limit.each)] += reservation.amounts[limit.unit]
        return posted, held

    @invariant()
    def allowances_say_what_the_ledger_says(self) -> None:
        """For every limit and subject: posted and held are the sums over the calls of the current window."""
        told: dict[str, dict[tuple[str, ...], tuple[int, int]]] = {limit.id: {} for limit in self.limits.values()}
        for view in self.allowances.views(self.wall()):
            told[view.limit][view.subject] = (view.posted, view.held)
        assert set(self.allowances.pending()) == set(self.waiting)
        for limit in self.limits.values():
            posted, held = self.expected(limit)
            figures = told[limit.id]
            assert {s: h for s, (_, h) in figures.items() if h} == {s: h for s, h in held.items() if h}
            if limit.id not in self.waiting:
                assert {s: p for s, (p, _) in figures.items() if p} == {s: p for s, p in posted.items() if p}

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
        assert totals.requests == len(self.charged)
        assert totals.request_cost == totals.rollup_cost
        owed = sum(amount for account, amount in balances.items() if account.startswith("payer:"))
        assert owed == sum(self.charged.values())
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
TestLifeCycle.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def main(arguments: list[str]) -> int:
    """Run the machine from the command line, for longer; a failure is printed as a program that repeats it."""
    examples = int(arguments[0]) if arguments else 20_000
    steps = int(arguments[1]) if len(arguments) > 1 else 100
    started = time.monotonic()
    long = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(LifeCycle, settings=long)
    print(f"{examples} lives of up to {steps} steps in {time.monotonic() - started:.0f} s: no violation")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
