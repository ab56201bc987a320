"""How exchanges end whose outcome was not learnt."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console_parts import NOON, SECOND, WHO
from faregate.control import Resolve, Unknown
from faregate.core.amounts import Amounts, held_amounts
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.charging import AT_COST, ChargeRule, charge_bound, text_of
from faregate.core.usage import NO_USAGE, Measure, Usage
from faregate.errors import Unavailable
from faregate.jobs.resolve_unknowns import (
    NeverSeen,
    NotServed,
    NoWord,
    Rules,
    Served,
    UnknownResolver,
    Word,
    decide,
)

RATES = (Rate("input_tokens", 2_500_000_000_000, 10**6), Rate("output_tokens", 10**13, 10**6))
USAGE = Usage(input_text=300, output_text=100)
CARD = RateCard("openai", "gpt-4o", "v1", (Tier(0, RATES),))
RULES = Rules(600 * SECOND, 86_400 * SECOND, "charge_estimate", 30 * SECOND)


def unknown(request_id: str = "req_1", seen: int = 50) -> Unknown:
    """Dispatched at noon with a hold of five million nano-dollars."""
    return Unknown(request_id, WHO, held_amounts(5_000_000, 400, 200), NOON, NOON, "v1", "openai/gpt-4o", seen, 400)


def after(seconds: int) -> int:
    return NOON + seconds * SECOND


#: Seconds since dispatch, and whether the call can still run then.
ENDS = [(0, False), (600, False), (630, False), (631, True)]


@pytest.mark.parametrize("seconds", [0, 1, 10**6])
def test_what_the_provider_served_costs_what_it_said(seconds: int) -> None:
    """Its word ends the call at any time, priced by the card of its hold."""
    order = decide(unknown(), Served(USAGE), CARD, RULES, after(seconds))
    assert order == Resolve("req_1", "ok", "provider_said", USAGE, "provider", 1_750_000, 1_750_000)


def test_what_was_served_in_part_is_cut() -> None:
    """The record says that the answer did not get to its end."""
    order = decide(unknown(), Served(Usage(input_text=300), complete=False), CARD, RULES, after(1))
    assert order is not None
    assert order.status == "cut"


def test_what_the_provider_ended_and_did_not_serve_is_free_at_once() -> None:
    """It says that no try of it runs any more: there is nothing to wait for."""
    order = decide(unknown(), NotServed(), CARD, RULES, after(1))
    assert order == Resolve("req_1", "failed", "not_served", NO_USAGE, "none", 0, 0)


@pytest.mark.parametrize("word", [NotServed(final=False), NeverSeen()])
@pytest.mark.parametrize(("seconds", "over"), ENDS)
def test_not_served_is_proof_only_when_the_call_cannot_run_any_more(seconds: int, over: bool, word: Word) -> None:
    """Before the longest request and its grace are over it may still be served, so it stays held; then it is free."""
    order = decide(unknown(), word, CARD, RULES, after(seconds))
    assert order == (Resolve("req_1", "failed", "not_served", NO_USAGE, "none", 0, 0) if over else None)


@pytest.mark.parametrize(("seconds", "over"), ENDS)
def test_usage_so_far_is_what_was_billed_only_when_the_call_cannot_run_any_more(seconds: int, over: bool) -> None:
    """A call that still runs would be booked at a part of what it costs."""
    word = Served(Usage(input_text=300, output_text=100), complete=False, final=False)
    order = decide(unknown(), word, CARD, RULES, after(seconds))
    assert (order is not None and order.charge == 1_750_000) is over


@pytest.mark.parametrize(
    ("policy", "cost", "charge"),
    [
        ("charge_estimate", 1_500_000, 1_500_000),
        ("operator_pays", 1_500_000, 1_500_000),
        ("charge_max", 5_000_000, 5_000_000),
    ],
)
def test_without_a_word_the_policy_decides_after_the_time_to_live(policy: str, cost: int, charge: int) -> None:
    """The estimate is the input's bound and the output seen last; the maximum is the hold."""
    rules = RULES._replace(policy=policy)
    assert decide(unknown(), NoWord(), CARD, rules, after(86_400)) is None
    order = decide(unknown(), NoWord(), CARD, rules, after(86_401))
    assert order is not None
    assert (order.resolution, order.cost, order.charge, order.usage_source) == (policy, cost, charge, "estimate")


@pytest.mark.parametrize(
    "held",
    [
        held_amounts(5_000_000, 400, 200, (Measure("images", "1024x1024", 2),)),
        held_amounts(5_000_000, 0, 0, (Measure("seconds", "", 30),)),
        held_amounts(5_000_000, 0, 0, (Measure("busy_milliseconds", "", 30_000),)),
    ],
)
def test_what_is_not_sold_by_the_token_is_not_free_for_want_of_an_estimate(held: Amounts) -> None:
    """Nothing was seen of images, recordings and services, so that they cost what they held."""
    order = decide(msgspec.structs.replace(unknown(), held=held), NoWord(), CARD, RULES, after(86_401))
    assert order is not None
    assert (order.cost, order.charge, order.usage_source) == (5_000_000, 5_000_000, "estimate")


def test_usage_without_its_card_is_not_guessed_at() -> None:
    """It waits for somebody to look, and ends by policy at the hold."""
    assert decide(unknown(), Served(Usage(input_text=3)), None, RULES, after(10)) is None
    order = decide(unknown(), Served(Usage(input_text=3)), None, RULES, after(90_000))
    assert order is not None
    assert order.charge == 5_000_000


@given(
    st.sampled_from([NoWord(), NeverSeen(), NotServed()]),
    st.integers(0, 10**6),
    st.integers(0, 10_000),
    st.sampled_from(["charge_estimate", "operator_pays", "charge_max"]),
)
def test_no_guess_exceeds_the_hold(word: Word, seconds: int, seen: int, policy: str) -> None:
    """Only a provider's own word may cost more than was held."""
    order = decide(unknown(seen=seen), word, CARD, RULES._replace(policy=policy), after(seconds))
    assert order is None or 0 <= order.charge <= order.cost <= 5_000_000


#: A card that sells images, too.
IMAGES = CARD._replace(tiers=(Tier(0, (*RATES, Rate("images", 40_000_000_000, 1))),))
MARKED_UP = ChargeRule(markup_ppm=100_000, fee=1_000_000)


def charged_by(rule: ChargeRule, cost: int = 5_000_000) -> Unknown:
    """An unknown under a charge rule, with the hold that the rule makes of the bound of its cost."""
    held = held_amounts(charge_bound(rule, cost), 400, 200)
    return Unknown("req_1", WHO, held, NOON, NOON, "v1", "openai/gpt-4o", 50, 400, text_of(rule))


def test_what_was_served_is_charged_by_the_rule_of_its_hold() -> None:
    """Cost and charge differ by what was agreed when it was admitted, whatever is configured now."""
    order = decide(charged_by(MARKED_UP), Served(USAGE), CARD, RULES, after(1))
    assert order is not None
    assert (order.cost, order.charge) == (1_750_000, 2_925_000)
    order = decide(charged_by(ChargeRule(free=True)), Served(USAGE), CARD, RULES, after(1))
    assert order is not None
    assert (order.cost, order.charge) == (1_750_000, 0)


def test_units_beside_tokens_are_priced_and_told() -> None:
    """A provider's word about images reaches the books as it is."""
    usage = Usage(input_text=300, other=(Measure("images", "", 2),))
    order = decide(unknown(), Served(usage), IMAGES, RULES, after(1))
    assert order is not None
    assert (order.usage, order.cost) == (usage, 750_000 + 80_000_000)


@pytest.mark.parametrize(
    ("rule", "policy", "cost", "charge"),
    [
        (MARKED_UP, "charge_max", 5_000_000, 6_500_000),
        (MARKED_UP, "charge_estimate", 1_500_000, 2_650_000),
        (ChargeRule(free=True), "charge_max", 3_000_000, 0),
        (ChargeRule(free=True), "charge_estimate", 1_500_000, 0),
        (ChargeRule(discount_ppm=1_000_000), "charge_max", 3_000_000, 0),
    ],
)
def test_policy_ends_by_the_rule_of_the_hold(rule: ChargeRule, policy: str, cost: int, charge: int) -> None:
    """The maximum is the whole hold; what is free to its payer costs what its tokens may have cost."""
    order = decide(charged_by(rule), NoWord(), CARD, RULES._replace(policy=policy), after(86_401))
    assert order is not None
    assert (order.cost, order.charge) == (cost, charge)


rules_of_charges = st.one_of(
    st.just(AT_COST),
    st.just(ChargeRule(free=True)),
    st.builds(ChargeRule, st.just(()), st.integers(0, 10**6), st.integers(0, 10**7), st.integers(0, 10**9)),
)


@given(
    rules_of_charges,
    st.integers(0, 10**7),
    st.sampled_from(["charge_estimate", "operator_pays", "charge_max"]),
    st.booleans(),
)
def test_no_guess_exceeds_the_hold_under_any_rule(rule: ChargeRule, bound: int, policy: str, kept: bool) -> None:
    """With its rate card or without, nothing is charged beyond the hold, and nothing is negative."""
    each = charged_by(rule, bound)
    order = decide(each, NoWord(), CARD if kept else None, RULES._replace(policy=policy), after(86_401))
    assert order is not None
    assert 0 <= order.charge <= each.held.usd
    assert order.cost >= 0
    assert rule != AT_COST or order.charge == order.cost


class World:
    """Books, provider and gate of a resolver, as lists."""

    def __init__(self, *words: tuple[str, Word]) -> None:
        self.words = dict(words)
        self.open = [unknown(request_id) for request_id, _ in words]
        self.asked: list[str] = []
        self.ended: list[Resolve] = []
        self.gate_is_away = False

    async def lookup(self, each: Unknown) -> Word:
        self.asked.append(each.id)
        return self.words[each.id]

    async def resolve(self, order: Resolve) -> bool:
        if self.gate_is_away:
            raise Unavailable("the gate is not running")
        self.ended.append(order)
        return True

    def resolver(self, **more: Any) -> UnknownResolver:
        return UnknownResolver(
            unknowns=lambda: self.open,
            card=lambda version: CARD if version == "v1" else None,
            lookup=self.lookup,
            resolve=self.resolve,
            rules=lambda each: RULES,
            **{"wall_nanos": lambda: after(5), **more},
        )

    def runs(self, count: int) -> None:
        """Let one resolver run so many times, one after the other."""
        resolver = self.resolver()

        async def work() -> None:
            for _ in range(count):
                await resolver.run()

        asyncio.run(work())


def test_a_run_ends_what_can_be_ended_and_asks_later_for_the_rest() -> None:
    """What is waited for is not asked again at once; what was ended is not ended twice."""
    billed = Served(Usage(input_text=1))
    world = World(("req_1", billed), ("req_2", NeverSeen()), ("req_3", billed), ("req_4", NotServed(final=False)))
    world.runs(2)
    assert sorted(order.id for order in world.ended) == ["req_1", "req_3"]
    assert sorted(world.asked) == ["req_1", "req_2", "req_3", "req_4"]


def test_a_gate_that_is_away_is_told_with_the_next_run() -> None:
    """Nothing is lost: the unknown stays open and is ended when the gate is back."""
    world = World(("req_1", Served(Usage(input_text=1))))
    world.gate_is_away = True
    resolver = world.resolver()

    async def work() -> None:
        await resolver.run()
        world.gate_is_away = False
        await resolver.run()

    asyncio.run(work())
    assert [order.id for order in world.ended] == ["req_1"]


def test_a_lookup_that_breaks_stops_nobody_else() -> None:
    """Its unknown is asked for again later, as where there is no word, and the others end now."""
    world = World(
        ("req_1", Served(Usage(input_text=1))), ("req_2", NotServed()), ("req_3", Served(Usage(input_text=1)))
    )
    del world.words["req_2"]
    world.runs(2)
    assert sorted(order.id for order in world.ended) == ["req_1", "req_3"]
    assert world.asked.count("req_2") == 1


def test_policy_ends_what_no_lookup_can() -> None:
    """After its time to live a call whose provider cannot even be asked is ended like any other."""
    world = World(("req_1", NoWord()))
    world.words.clear()
    asyncio.run(world.resolver(wall_nanos=lambda: after(86_401)).run())
    assert [(order.id, order.resolution) for order in world.ended] == [("req_1", "charge_estimate")]


def test_ten_thousand_unknowns_are_ended_within_the_promised_minute() -> None:
    """Guarantee G4: the whole backlog goes in one run."""
    world = World(*[(f"req_{number}", Served(Usage(input_text=1))) for number in range(10_000)])
    resolver = world.resolver()

    async def work() -> None:
        async with asyncio.timeout(60):
            await resolver.run()

    asyncio.run(work())
    assert len(world.ended) == 10_000
