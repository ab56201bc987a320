"""Double entry: what events post, and that the fold of a journal does not depend on repeats."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from faregate.core.amounts import NOTHING, Amounts, held_amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.accounts import (
    MARGIN,
    OPERATOR,
    account_name,
    payer_account,
    provider_account,
    suspense_account,
    unresolved_account,
)
from faregate.core.ledger.events import Event, Intended, Lost, Progressed, Recalled, Refused, Settled, Started
from faregate.core.ledger.oracle import Oracle, Rollup
from faregate.core.ledger.postings import (
    charge_postings,
    end_transactions,
    late_postings,
    resolve_postings,
    suspense_postings,
)
from faregate.core.ledger.reservations import State
from faregate.core.slots import SLOT_NANOS
from faregate.core.usage import Usage, added
from soaking import examples

WHO = Attribution(organization="default", team="research", project="search", user="ann", key="key_1", provider="openai")
PAYER = "payer:default:research:search:ann:key_1"
USAGE = Usage(input_text=10, output_text=4)


def intended(id: str = "req_1", held: int = 100, at: int = 10, who: Attribution = WHO) -> Intended:
    """A dispatched exchange."""
    return Intended(id, at, at, who, held_amounts(held, 20, 30), "v1", False)


def settled(
    id: str = "req_1", charge: int = 40, resolution: str = "", cost: int | None = None, **fields: Any
) -> Settled:
    """An end that is charged what it cost, unless another cost is named."""
    cost = charge if cost is None else cost
    end = Settled(id, 20, "ok", 200, "", USAGE, "provider", cost, charge, "v1", 9, 5, resolution=resolution)
    return end._replace(**fields)


def recalled(id: str = "req_1", saved: int = 70, charge: int = 0, who: Attribution = WHO) -> Recalled:
    """An answer given again."""
    return Recalled(id, 20, 10, who._replace(provider=""), False, saved, charge, 3)


# -- accounts ----------------------------------------------------------------------------------------------------------


def test_accounts_have_readable_names() -> None:
    """A name says what it is for and whose it is."""
    assert payer_account(WHO) == PAYER
    assert provider_account("openai") == "provider:openai"
    assert suspense_account("default") == "suspense:default"
    assert unresolved_account("openai") == "unresolved:openai"


parts_of_names = st.lists(st.text(alphabet=st.sampled_from("a:%3A25é "), max_size=4), min_size=1, max_size=3)


@given(one=parts_of_names, other=parts_of_names)
def test_no_two_accounts_share_a_name(one: list[str], other: list[str]) -> None:
    """No part can be mistaken for two, whatever it is made of."""
    assert (account_name(*one) == account_name(*other)) is (one == other)


def test_a_colon_in_a_name_reaches_nobody_else_s_account() -> None:
    """A team named ``a:b`` is not the team ``a`` with the project ``b``."""
    tricky = payer_account(Attribution(organization="o", team="a:b", project="c"))
    assert tricky != payer_account(Attribution(organization="o", team="a", project="b:c"))


# -- postings ----------------------------------------------------------------------------------------------------------


def test_a_charge_is_two_postings() -> None:
    """The payer is debited and the provider credited with the same amount."""
    assert charge_postings(WHO, 40) == ((PAYER, 40), ("provider:openai", -40))


def test_nothing_is_posted_for_nothing() -> None:
    """A free call, a free hold and a confirmed charge leave no trace in the ledger."""
    assert charge_postings(WHO, 0) == suspense_postings(WHO, 0) == resolve_postings(WHO, 0) == ()
    assert late_postings("openai", 0) == ()


def test_resolving_undoes_suspense() -> None:
    """The two postings of an unknown are reversed exactly."""
    into, out = suspense_postings(WHO, 100), resolve_postings(WHO, 100)
    assert [(posting.account, -posting.amount) for posting in into] == list(out)


# -- the oracle, event by event ----------------------------------------------------------------------------------------


def test_an_ordinary_call_is_held_then_charged() -> None:
    """While it runs its hold shows; afterwards only its charge does."""
    oracle = Oracle([Started(1, 0), intended()])
    assert (oracle.totals().held, oracle.totals().open, oracle.balances) == (100, 1, {})
    oracle.apply(settled())
    assert oracle.balances == {PAYER: 40, "provider:openai": -40}
    assert oracle.totals()._asdict() == {
        "requests": 1,
        "refused": 0,
        "postings": 2,
        "held": 0,
        "unknown": 0,
        "sum": 0,
        "open": 0,
        "request_cost": 40,
        "rollup_cost": 40,
        "credited": 40,
    }


@pytest.mark.parametrize("how", ["a new epoch", "a lost answer"])
def test_an_exchange_whose_end_is_not_learnt_is_in_suspense(how: str) -> None:
    """Its hold moves to suspense, visible and bounded."""
    oracle = Oracle([Started(1, 0), intended()])
    oracle.apply(Started(2, 15) if how == "a new epoch" else Lost("req_1", 15, 0, "upstream_truncated", 5))
    assert oracle.exchanges["req_1"].state is State.UNKNOWN
    assert oracle.exchanges["req_1"].status == "unknown"
    assert oracle.balances == {"suspense:default": 100, "unresolved:openai": -100}
    assert (oracle.totals().held, oracle.totals().unknown) == (100, 100)


@pytest.mark.parametrize(
    ("resolution", "charge", "payer", "operator"),
    [
        ("", 40, 40, 0),
        ("provider_said", 40, 40, 0),
        ("not_served", 0, 0, 0),
        ("charge_estimate", 25, 25, 0),
        ("charge_max", 100, 100, 0),
        ("operator_pays", 25, 0, 25),
        ("late_evidence", 40, 40, 0),
    ],
)
def test_an_unknown_is_resolved(resolution: str, charge: int, payer: int, operator: int) -> None:
    """Suspense goes back to zero and the charge is posted to whom the resolution names."""
    oracle = Oracle([Started(1, 0), intended(), Started(2, 15), settled(charge=charge, resolution=resolution)])
    balances = {account: amount for account, amount in oracle.balances.items() if amount}
    expected = {PAYER: payer, OPERATOR: operator, "provider:openai": -charge}
    assert balances == {account: amount for account, amount in expected.items() if amount}
    assert (oracle.totals().open, oracle.totals().requests, oracle.alarms) == (0, 1, [])


@pytest.mark.parametrize(
    ("charge", "cost", "margin"), [(40, 40, 0), (45, 40, 5), (30, 40, -10), (0, 40, -40), (2, 0, 2), (0, 0, 0)]
)
@pytest.mark.parametrize("resolution", ["", "provider_said"])
def test_what_is_between_charge_and_cost_is_the_margin(charge: int, cost: int, margin: int, resolution: str) -> None:
    """The payer is debited the charge, the provider credited the cost, and the house gains or bears the rest."""
    lost: list[Event] = [Lost("req_1", 15, 0, "upstream_truncated", 5)] if resolution else []
    oracle = Oracle([Started(1, 0), intended(), *lost, settled(charge=charge, cost=cost, resolution=resolution)])
    wanted = {PAYER: charge, "provider:openai": -cost, MARGIN: -margin}
    assert {name: amount for name, amount in oracle.balances.items() if amount} == {
        name: amount for name, amount in wanted.items() if amount
    }
    totals = oracle.totals()
    assert (totals.sum, totals.request_cost, totals.rollup_cost, totals.credited) == (0, cost, cost, cost)
    assert oracle.posted({}, (), "usd", 0, 100) == {(): charge}


def test_no_posting_of_an_end_is_a_refund() -> None:
    """A payer is only ever debited and a provider only credited, so that either's postings can be read as a bill."""
    for charge, cost in ((45, 40), (30, 40), (0, 40)):
        found = [
            posting for each in end_transactions("r", WHO, settled(charge=charge, cost=cost)) for posting in each[1]
        ]
        assert all(posting.amount > 0 for posting in found if posting.account == PAYER)
        assert all(posting.amount < 0 for posting in found if posting.account == "provider:openai")


def test_the_operator_bears_the_cost_and_no_margin() -> None:
    """Where the house pays for an unknown there is nobody to charge more or less than the cost."""
    oracle = Oracle([intended(), Started(1, 15), settled(charge=50, cost=40, resolution="operator_pays")])
    assert {name: amount for name, amount in oracle.balances.items() if amount} == {
        OPERATOR: 40,
        "provider:openai": -40,
    }


def test_late_evidence_is_about_the_cost() -> None:
    """What a provider turns out to have billed is compared with the cost; charge and margin stand."""
    events: list[Event] = [intended(), settled(charge=60, cost=40)]
    oracle = Oracle([*events, settled(charge=0, cost=40, resolution="late_evidence")])
    assert (oracle.alarms, oracle.balances[OPERATOR]) == ([], 0)
    oracle = Oracle([*events, settled(charge=60, cost=55, resolution="late_evidence")])
    assert (oracle.alarms, oracle.balances[OPERATOR]) == (["req_1"], 15)
    assert (oracle.balances[PAYER], oracle.balances[MARGIN], oracle.balances["provider:openai"]) == (60, -20, -55)


def test_nobody_s_limit_counts_what_the_operator_pays() -> None:
    """Spending and roll-ups of the payer leave the charge out, the cost stays."""
    oracle = Oracle([intended(), Started(1, 15), settled(charge=50, resolution="operator_pays")])
    assert oracle.posted({}, (), "usd", 0, 100) == {(): 0}
    assert oracle.posted({}, (), "tokens", 0, 100) == {(): 14}
    assert list(oracle.rollups.values()) == [Rollup(1, USAGE, 50, 0)]


def test_an_order_about_a_running_exchange_changes_nothing() -> None:
    """Only the exchange itself ends it while it runs."""
    oracle = Oracle([Started(1, 0), intended(), settled(charge=0, resolution="not_served")])
    assert oracle.exchanges["req_1"].state is State.DISPATCHED


@pytest.mark.parametrize(("evidence", "operator"), [(70, 30), (10, -30)])
def test_evidence_after_the_end_is_the_operator_s(evidence: int, operator: int) -> None:
    """The payer's charge stands; what the provider really billed is made up for by the operator, with an alarm."""
    oracle = Oracle([intended(), settled(), settled(charge=evidence, resolution="late_evidence")])
    assert oracle.balances == {PAYER: 40, OPERATOR: operator, "provider:openai": -evidence}
    assert (oracle.alarms, oracle.totals().requests) == (["req_1"], 1)


def test_evidence_that_confirms_raises_no_alarm() -> None:
    """Being told the same twice is no news."""
    oracle = Oracle([intended(), settled(), settled(resolution="late_evidence")])
    assert (oracle.balances[PAYER], oracle.balances[OPERATOR], oracle.alarms) == (40, 0, [])


def test_evidence_for_an_exchange_nobody_knows_is_not_dropped() -> None:
    """What a provider proves to have served is paid for, by the operator, with an alarm."""
    oracle = Oracle([settled("req_9", charge=7)])
    assert oracle.balances == {OPERATOR: 7, "provider:": -7}
    assert oracle.alarms == ["req_9"]


def test_refusals_are_records_and_nothing_else() -> None:
    """A refusal holds nothing, charges nothing, and is no request of the usage."""
    oracle = Oracle([Refused("req_1", 5, WHO, False, 429, "rate_limited")])
    assert (oracle.totals().refused, oracle.totals().requests, oracle.balances) == (1, 0, {})


@pytest.mark.parametrize("charge", [0, 7])
def test_an_answer_given_again_owes_no_provider_anything(charge: int) -> None:
    """A hit is a request that began and ended: what it is charged is all margin, and what it saved is summed."""
    oracle = Oracle([Started(1, 0), recalled(charge=charge)])
    assert oracle.balances == ({PAYER: charge, MARGIN: -charge} if charge else {})
    totals = oracle.totals()
    assert (totals.requests, totals.open, totals.request_cost, totals.credited) == (1, 0, 0, 0)
    assert oracle.posted({}, (), "requests", 0, 100) == {(): 1}
    assert oracle.posted({}, (), "usd", 0, 100) == {(): charge}
    assert oracle.posted({}, (), "tokens", 0, 100) == {(): 0}
    assert list(oracle.rollups.values()) == [Rollup(1, Usage(), 0, charge, cache_hits=1, saved_cost=70)]


def test_an_answer_given_again_is_booked_once() -> None:
    """Told twice, or under the id of an exchange that is known, it changes nothing."""
    once = Oracle([recalled(charge=7)])
    assert picture(Oracle([recalled(charge=7), recalled(charge=9), intended(), settled()])) == picture(once)
    running: list[Event] = [Started(1, 0), intended()]
    assert picture(Oracle([*running, recalled()])) == picture(Oracle(running))


def test_calls_that_were_looked_up_are_summed_by_what_the_cache_did() -> None:
    """A miss is counted; who wished a new answer neither hit nor missed."""
    ends = [settled("req_1", cache="miss"), settled("req_2", cache="refresh"), settled("req_3")]
    oracle = Oracle([*(intended(end.id) for end in ends), *ends])
    ((_, sums),) = oracle.rollups.items()
    assert (sums.requests, sums.cache_hits, sums.cache_misses, sums.saved_cost) == (3, 0, 1, 0)


def test_progress_is_remembered_at_its_furthest() -> None:
    """An estimate starts from the most that was seen."""
    oracle = Oracle([intended(), Progressed("req_1", 12, 9), Progressed("req_1", 11, 3), Lost("req_1", 15, 0, "", 5)])
    assert oracle.exchanges["req_1"].output_tokens_seen == 9


def test_roll_ups_are_by_time_of_admission_without_runs_and_tags() -> None:
    """Two calls that differ only in run and tags are one row; a call of the next slot is another."""
    twin = WHO._replace(run="r", tags=(("a", "b"),), identity_source="header")
    oracle = Oracle(
        [
            intended("req_1"),
            intended("req_2", who=twin),
            intended("req_3", at=SLOT_NANOS),
            *[settled(f"req_{n}") for n in (1, 2, 3)],
        ]
    )
    double = added(USAGE, USAGE)
    assert oracle.rollups == {(0, WHO): Rollup(2, double, 80, 80), (SLOT_NANOS, WHO): Rollup(1, USAGE, 40, 40)}


def test_a_hold_that_grew_is_held_from_then_on() -> None:
    """A mark that names more than the intent held raises it, in each unit; one that names less or nothing does not."""
    marks = [
        Progressed("req_1", 12, 9, Amounts(usd=300, tokens=70)),
        Progressed("req_1", 13, 9, Amounts(usd=200, tokens=90)),
        Progressed("req_1", 14, 9),
    ]
    oracle = Oracle([intended(), *marks])
    assert oracle.totals().held == 300
    (exchange,) = oracle.open().values()
    assert exchange.intended is not None
    assert (exchange.intended.held.usd, exchange.intended.held.tokens) == (300, 90)
    oracle.apply(Started(2, 15))
    assert (oracle.totals().unknown, oracle.balances[suspense_account("default")]) == (300, 300)
    oracle.apply(settled(resolution="provider_said"))
    assert oracle.balances[suspense_account("default")] == 0


def test_what_limits_count_is_told_by_subject_and_window() -> None:
    """Posted and held are sums over the calls admitted in a window, for the callers selected."""
    bob = WHO._replace(user="bob")
    oracle = Oracle([intended("req_1"), intended("req_2", who=bob), intended("req_3", at=50), settled("req_1")])
    assert oracle.posted({"team": "research"}, ("user",), "usd", 0, 50) == {("ann",): 40}
    assert oracle.held({"team": "research"}, ("user",), "usd", 0, 50) == {("bob",): 100}
    assert oracle.held({"team": "research"}, (), "concurrency", 0, 51) == {(): 2}
    assert oracle.posted({"team": "sales"}, (), "usd", 0, 50) == {}


# -- the oracle, over any journal --------------------------------------------------------------------------------------

ids = st.sampled_from([f"req_{n}" for n in range(5)])
charges = st.integers(0, 200)
events = st.one_of(
    st.builds(Started, epoch=st.integers(1, 4), at=st.just(0)),
    st.builds(intended, ids, held=charges, who=st.sampled_from((WHO, WHO._replace(team="sales:1")))),
    st.builds(Progressed, ids, st.just(12), st.integers(0, 50), st.just(NOTHING)),
    st.builds(Progressed, ids, st.just(12), st.just(0), st.builds(Amounts, usd=charges, tokens=charges)),
    st.builds(Lost, ids, st.just(13), st.just(0), st.just("upstream_truncated"), st.just(5)),
    st.builds(
        settled,
        ids,
        charge=charges,
        cost=st.one_of(st.none(), charges),
        resolution=st.sampled_from(("", "", "", "provider_said", "not_served", "operator_pays", "late_evidence")),
    ),
    st.builds(Refused, ids, st.just(5), st.just(WHO), st.just(False), st.just(429), st.just("rate_limited")),
    st.builds(recalled, ids, saved=charges, charge=charges),
)
journals = st.lists(events, max_size=40)


def picture(oracle: Oracle) -> tuple[Any, ...]:
    """Everything that an oracle tells, to be compared."""
    states = {id: (exchange.state, exchange.credited) for id, exchange in oracle.exchanges.items()}
    return states, dict(oracle.balances), oracle.totals(), dict(oracle.rollups), list(oracle.alarms)


@settings(max_examples=examples(40, 2_000), deadline=None)
@given(journal=journals, data=st.data())
def test_replaying_changes_nothing(journal: list[Event], data: st.DataObject) -> None:
    """After any journal any part of it may come again: first wins, repeats are no-ops."""
    oracle = Oracle(journal)
    before = picture(oracle)
    # Evidence that ended an exchange ends it; told again it is evidence after the end, and confirms.
    # What came too early (an intent, a resolution, a fence, a hold that grew), and now meets another state, is a new
    # event to the journal.
    repeats = [event for event in journal if picture(Oracle([*journal, event])) == before]
    marks = [event for event in journal if isinstance(event, Progressed) and event.held == NOTHING]
    assert {event for event in journal if isinstance(event, Started | Intended | Recalled | Refused)} <= set(repeats)
    assert set(marks) <= set(repeats)
    for event in data.draw(st.lists(st.sampled_from(repeats), max_size=20) if repeats else st.just([])):
        oracle.apply(event)
    assert picture(oracle) == before


@settings(max_examples=examples(40, 2_000), deadline=None)
@given(journal=journals)
@example(
    journal=[
        intended("req_0", held=0),
        settled("req_0", charge=0, resolution="late_evidence"),
        settled("req_0", charge=1, resolution="late_evidence"),
    ]
)
def test_an_event_written_twice_in_a_row_counts_once(journal: list[Event]) -> None:
    """A journal in which every event is doubled tells the same money as the plain one."""
    plain = Oracle(journal)
    doubled = Oracle([event for event in journal for _ in range(2)])
    assert (dict(doubled.balances), doubled.totals(), doubled.rollups) == (
        dict(plain.balances),
        plain.totals(),
        plain.rollups,
    )


@settings(max_examples=examples(40, 2_000), deadline=None)
@given(journal=journals)
def test_the_ledger_always_balances(journal: list[Event]) -> None:
    """After every event: postings sum to zero, suspense is what unknowns hold, the provider has what was charged."""
    oracle = Oracle()
    fold: dict[str, int] = {}
    posted: set[str] = set()
    for event in journal:
        for transaction in oracle.apply(event):
            assert transaction.id not in posted
            assert sum(posting.amount for posting in transaction.postings) == 0
            posted.add(transaction.id)
            for account, amount in transaction.postings:
                fold[account] = fold.get(account, 0) + amount
        totals = oracle.totals()
        assert dict(oracle.balances) == fold
        assert totals.sum == 0
        assert sum(amount for account, amount in fold.items() if account.startswith("suspense:")) == totals.unknown
        assert -sum(amount for account, amount in fold.items() if account.startswith("provider:")) == totals.credited
        assert sum(sums.saved_cost for sums in oracle.rollups.values()) == sum(
            exchange.settled.saved_cost for exchange in oracle.exchanges.values() if exchange.settled
        )
        assert totals.request_cost == totals.rollup_cost
        assert totals.held == sum(
            exchange.intended.held.usd
            for exchange in oracle.exchanges.values()
            if exchange.intended and exchange.state in (State.DISPATCHED, State.UNKNOWN)
        )


@settings(max_examples=examples(40, 2_000), deadline=None)
@given(journal=journals)
def test_forgetting_what_ended_changes_no_figure(journal: list[Event]) -> None:
    """A million requests can be verified in little memory, with the same result."""
    assert picture(Oracle(journal, forget_ended=True)) == picture(Oracle(journal))


def test_amounts_of_an_unknown_hold_no_slot() -> None:
    """The slot died with the process; the money is still held."""
    oracle = Oracle([intended(), Started(1, 15)])
    assert oracle.held({}, (), "concurrency", 0, 100) == {(): 0}
    assert oracle.held({}, (), "usd", 0, 100) == {(): Amounts(usd=100).usd}
