"""What the gate holds, charges and tells where the charge is not the cost."""

from pathlib import Path

import pytest

from faregate.control import AskFigures, Figures, Resolve, Route
from faregate.core.ledger.events import Intended, Lost, Settled
from faregate.core.money import dollars
from faregate.core.pricing.card import Rate
from faregate.core.pricing.charging import ChargeRule, charge, charge_bound, rule_of
from faregate.core.usage import NO_USAGE, Usage
from gates import CARD, allowances, deployment, key, money, running_gate, scenario, steered

#: Ten percent and a tenth of a cent for team research.
MARKED_UP = ChargeRule((("team", "research"),), markup_ppm=100_000, fee=1_000_000)
TEXT = "markup 10 % + fee 0.001"
FREE = ChargeRule((("team", "research"),), free=True)
MESSAGE = steered(prompt_tokens=10, output_tokens=20)
#: By the card of the tests: 10 input tokens at 1,000 and 20 output tokens at 2,000 nano-dollars.
COST = 50_000
DUE = 1_055_000


@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_a_mark_up_and_a_fee_are_held_and_charged(tmp_path: Path, stream: bool) -> None:
    """The limit holds the charge's bound and counts the charge; the event tells both amounts and why they differ."""
    async with running_gate(tmp_path, charges=(MARKED_UP,), limits=(money(10**9),)) as running:
        answer = await running.chat(MESSAGE, stream=stream)
        await running.until(lambda: running.of(Settled))
        (intent,), (end,) = running.of(Intended), running.of(Settled)
        assert answer.status_code == 200
        assert (end.cost, end.charge, end.charge_rule, end.overrun) == (COST, DUE, TEXT, 0)
        assert intent.charge_rule == TEXT
        bound = intent.held.input_tokens * 1_000 + intent.held.output_tokens * 2_000
        assert intent.held.usd == charge_bound(MARKED_UP, bound) >= DUE
        assert await allowances(running) == {"lim_money": (DUE, 0)}
        if not stream:
            assert answer.headers["x-faregate-cost"] == dollars(DUE)


@scenario
async def test_a_free_call_charges_nothing_and_costs_what_it_costs(tmp_path: Path) -> None:
    """Not even a limit of nothing is in its way; the cost is in the event for the books."""
    async with running_gate(tmp_path, charges=(FREE,), limits=(money(0),)) as running:
        answer = await running.chat(MESSAGE)
        (intent,), (end,) = running.of(Intended), running.of(Settled)
        assert (answer.status_code, answer.headers["x-faregate-cost"]) == (200, "0")
        assert (end.cost, end.charge, end.charge_rule, intent.held.usd) == (COST, 0, "free", 0)
        assert await allowances(running) == {"lim_money": (0, 0)}


@scenario
async def test_rules_are_chosen_by_who_calls(tmp_path: Path) -> None:
    """Two keys of different teams, one deployment: only the one that a rule names is charged by it."""
    keys = (key(), key("other", team="sales"))
    async with running_gate(tmp_path, charges=(MARKED_UP,), keys=keys) as running:
        await running.chat(MESSAGE)
        await running.chat(MESSAGE, name="other")
        assert [(end.cost, end.charge, end.charge_rule) for end in running.of(Settled)] == [
            (COST, DUE, TEXT),
            (COST, COST, ""),
        ]


@scenario
async def test_a_project_named_in_a_header_decides(tmp_path: Path) -> None:
    """A rule for a project holds for calls that say they are for it, by whichever key they come."""
    rule = ChargeRule((("project", "other"),), fee=7)
    caller = key(may_set=("project",))
    async with running_gate(tmp_path, charges=(rule,), keys=(caller,)) as running:
        await running.chat(MESSAGE, headers={"x-faregate-project": "other"})
        await running.chat(MESSAGE)
        assert [end.charge - end.cost for end in running.of(Settled)] == [7, 0]


@scenario
async def test_an_error_that_used_nothing_has_no_fee(tmp_path: Path) -> None:
    """What the provider bills nobody for is charged to nobody."""
    async with running_gate(tmp_path, charges=(MARKED_UP,), limits=(money(10**9),)) as running:
        answer = await running.chat(steered(status=500))
        (end,) = running.of(Settled)
        assert (answer.status_code, end.usage, end.cost, end.charge) == (500, NO_USAGE, 0, 0)
        assert await allowances(running) == {"lim_money": (0, 0)}


@scenario
async def test_a_cap_is_lowered_to_what_the_charge_leaves_room_for(tmp_path: Path) -> None:
    """A caller without a cap gets the largest whose charge still fits, and not a token more."""
    limit = money(1_000_000 + 1_100 * 3_000)
    async with running_gate(tmp_path, charges=(MARKED_UP,), limits=(limit,)) as running:
        answer = await running.chat("Say hello.", max_tokens=None)
        (intent,) = running.of(Intended)
        assert answer.status_code == 200
        assert intent.clamped_to == intent.held.output_tokens > 256
        cost = intent.held.input_tokens * 1_000 + intent.held.output_tokens * 2_000
        assert intent.held.usd == charge_bound(MARKED_UP, cost) <= limit.amount  # type: ignore[operator]
        assert charge_bound(MARKED_UP, cost + 2_000) > limit.amount  # type: ignore[operator]


@scenario
async def test_a_lost_call_keeps_its_rule(tmp_path: Path) -> None:
    """Its unknown holds the charge's bound, and its end is journalled with the rule of its hold."""
    fields = {"idle_timeout_ms": 300, "lookup": "/simulator/truth"}
    charges, limits = (MARKED_UP,), (money(10**9),)
    async with running_gate(tmp_path, charges=charges, limits=limits, provider_fields=fields) as running:
        await running.chat(steered(fault="stall", prompt_tokens=10, output_tokens=20), stream=True)
        await running.until(lambda: running.of(Lost))
        (intent,) = running.of(Intended)
        figures = await running.ask(AskFigures())
        assert isinstance(figures, Figures)
        assert figures.unknown_nanos == intent.held.usd
        due = charge(rule_of(intent.charge_rule), COST)
        order = Resolve(intent.id, "cut", "provider_said", Usage(10, output_text=20), "provider", COST, due)
        await running.ask(order)
        (end,) = running.of(Settled)
        assert (end.cost, end.charge, end.charge_rule, end.overrun) == (COST, DUE, TEXT, 0)
        assert await allowances(running) == {"lim_money": (DUE, 0)}


@scenario
async def test_what_is_billed_beyond_the_hold_is_an_overrun_of_the_charge(tmp_path: Path) -> None:
    """A provider that bills more than it was asked for: the overrun is what the payer is charged above its hold."""
    async with running_gate(tmp_path, charges=(MARKED_UP,)) as running:
        await running.chat(steered(prompt_tokens=10_000))
        (intent,), (end,) = running.of(Intended), running.of(Settled)
        assert end.charge == charge(MARKED_UP, end.cost)
        assert end.overrun == end.charge - intent.held.usd > 0


@scenario
async def test_another_name_does_not_hide_that_a_model_searches(tmp_path: Path) -> None:
    """A model that searches in every call is held with its search, whatever callers know it by."""
    searching = Rate("web_searches", 25_000_000_000_000, 1_000)
    cards = (CARD._replace(tiers=(CARD.tiers[0]._replace(rates=(*CARD.tiers[0].rates, searching)),)),)
    named = deployment("sim/house", model="gpt-4o-search-preview", cards=cards, context_tokens_max=100_000)
    plain = deployment("sim/plain", cards=cards, context_tokens_max=100_000)
    routes = (Route("house", ("sim/house",)), Route("plain", ("sim/plain",)))
    async with running_gate(tmp_path, deployments=(named, plain), routes=routes) as running:
        for model in ("house", "plain"):
            assert (await running.chat(MESSAGE, model=model)).status_code == 200
        house, other = running.of(Intended)
        # The search, and what it brings the model to read.
        read = (house.held.input_tokens - other.held.input_tokens) * 1_000
        assert house.held.usd - other.held.usd == 25_000_000 + read > 25_000_000
