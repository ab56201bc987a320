"""From a share of a limit on, calls go to a cheaper model (CAPABILITIES D8)."""

import asyncio
import json
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest

from builders import START, HeldClock
from faregate.control import Deployment, Key, Limit, Load, Route
from faregate.core.ledger.events import Intended, Refused, Settled
from faregate.core.limits.terms import Action, Forced, Terms
from faregate.core.pricing.card import Rate, RateCard, Tier
from gates import RunningGate, deployment, key, money, provider, running_gate, scenario, secret, steered, truth

DOLLAR = 1_000_000_000

#: A tenth of what the usual model costs.
CHEAP = RateCard(
    "sim",
    "sim-fast",
    "sim/sim-fast@test",
    (Tier(0, (Rate("input_tokens", 10**11, 1_000_000), Rate("output_tokens", 2 * 10**11, 1_000_000))),),
)

DEPLOYMENTS = (
    deployment(),
    deployment("sim/cheap", model="sim-fast", upstream_model="sim-fast-2024", cards=(CHEAP,)),
    deployment("sim/other", model="sim-other", upstream_model="sim-other"),
)
ROUTES = (
    Route("sim-1", ("sim/sim-1",)),
    Route("cheap", ("sim/cheap",)),
    Route("sim-other", ("sim/other",)),
)


def limit(*actions: Action, **fields: Any) -> Limit:
    """A dollar for the team; from a thousandth of it on its actions are in force."""
    return money(DOLLAR // 1_000, "month", terms=Terms(actions=actions, **fields))


def to_cheap(percent: int = 4, **fields: Any) -> Action:
    return Action("downgrade", percent, to="cheap", **fields)


async def _spend(running: RunningGate, **fields: Any) -> None:
    """Five per cent of the limit."""
    answer = await running.chat(steered(prompt_tokens=10, output_tokens=20), max_tokens=20, **fields)
    assert answer.status_code == 200
    assert "x-faregate-downgraded" not in answer.headers


@scenario
async def test_calls_beyond_the_share_go_to_the_cheaper_model(tmp_path: Path) -> None:
    """Its place, its name in the body, its price; the header, the intent and the provider say the same."""
    actions = (to_cheap(models=("sim-1",)),)
    async with running_gate(tmp_path, limits=(limit(*actions),), deployments=DEPLOYMENTS, routes=ROUTES) as running:
        await _spend(running)
        answer = await running.chat(steered(prompt_tokens=10, output_tokens=20), max_tokens=20)
        last_intent, last_settled = running.of(Intended)[-1], running.of(Settled)[-1]
        asked = [record["model"] for record in await truth(running)]

        assert answer.status_code == 200
        assert answer.headers["x-faregate-model"] == "sim-fast"
        assert answer.headers["x-faregate-deployment"] == "sim/cheap"
        assert answer.headers["x-faregate-downgraded"] == "sim-1"
        assert answer.headers["x-faregate-cost"] == "0.000005"
        assert asked == ["sim-1", "sim-fast-2024"]
        assert (last_intent.who.model, last_intent.who.deployment) == ("sim-fast", "sim/cheap")
        assert json.loads(last_intent.notes) == {"downgraded_from": "sim-1", "limit": "lim_money"}
        assert (last_settled.charge, last_settled.price_version) == (5_000, "sim/sim-fast@test")


@scenario
async def test_a_stream_is_downgraded_too(tmp_path: Path) -> None:
    """The header says it before the first event."""
    async with running_gate(tmp_path, limits=(limit(to_cheap()),), deployments=DEPLOYMENTS, routes=ROUTES) as running:
        await _spend(running)
        answer = await running.chat(stream=True, max_tokens=20)

        assert answer.headers["x-faregate-downgraded"] == "sim-1"
        assert answer.headers["x-faregate-model"] == "sim-fast"
        assert running.of(Settled)[-1].price_version == "sim/sim-fast@test"


def _keys(**fields: Any) -> tuple[Key, ...]:
    return (key(**fields),)


@pytest.mark.parametrize(
    ("action", "fields"),
    [
        (to_cheap(), {"goes": "sim-fast"}),
        (to_cheap(90), {}),
        (to_cheap(models=("sim-other",)), {}),
        (to_cheap(), {"keys": _keys(models=("sim-1",))}),
        (to_cheap(), {"keys": _keys(stage="dev"), "stages": {"dev": ("sim",)}}),
        (Action("downgrade", 4, to="sim-1"), {}),
        (Action("downgrade", 4, to="gone"), {}),
        (Action("downgrade", 4, to="unpriced"), {}),
        (Action("downgrade", 4, to="silent"), {}),
        (to_cheap(basis="forecast"), {}),
    ],
    ids=["control", "not yet", "another", "key", "stage", "itself", "gone", "unpriced", "operation", "no forecast"],
)
@scenario
async def test_where_it_may_not_go_it_goes_where_it_was_meant_to(
    tmp_path: Path, action: Action, fields: dict[str, Any]
) -> None:
    """A downgrade saves money and never refuses: what the caller may not use, or what has no price, is left alone.

    The first row, which may go there, shows that the others would.
    """
    more = (
        *DEPLOYMENTS[2:],
        deployment("other/cheap", provider="other", model="sim-fast", upstream_model="sim-fast", cards=(CHEAP,)),
        deployment("sim/unpriced", model="unpriced", upstream_model="sim-fast", cards=()),
        deployment("sim/silent", model="silent", upstream_model="sim-fast", cards=(CHEAP,), operations=("embeddings",)),
    )
    deployments: tuple[Deployment, ...] = (DEPLOYMENTS[0], *more)
    routes = (
        ROUTES[0],
        Route("cheap", ("other/cheap",)),
        Route("sim-other", ("sim/other",)),
        Route("unpriced", ("sim/unpriced",)),
        Route("silent", ("sim/silent",)),
    )
    async with running_gate(
        tmp_path,
        limits=(limit(action),),
        deployments=deployments,
        routes=routes,
        keys=fields.get("keys"),
        stages=fields.get("stages"),
    ) as running:
        catalogue = running.gate.snapshot.catalogue
        providers = (*catalogue.providers, provider(catalogue.providers[0].base_url, name="other"))
        await running.ask(Load(2, catalogue=msgspec.structs.replace(catalogue, providers=providers)))
        await _spend(running)
        answer = await running.chat(max_tokens=20)

        went = fields.get("goes", "sim-1")
        assert (answer.status_code, answer.headers["x-faregate-model"]) == (200, went)
        assert ("x-faregate-downgraded" in answer.headers) is (went != "sim-1")
        assert bool(running.of(Intended)[-1].notes) is (went != "sim-1")


@pytest.mark.parametrize(
    ("fields", "went"),
    [
        ({"max_tokens": 100}, "sim-fast"),
        ({"max_tokens": 101}, "sim-1"),
        ({"max_tokens": 20, "service_tier": "flex"}, "sim-1"),
    ],
    ids=["fits", "cap", "tier"],
)
@scenario
async def test_what_the_cheaper_model_cannot_do_goes_where_it_was_meant_to(
    tmp_path: Path, fields: dict[str, Any], went: str
) -> None:
    """Longer answers than it has, which its provider would refuse, and service tiers that have no price there."""
    usual = deployment()
    tiered = usual.cards[0]._replace(service_tier="flex")
    deployments = (
        msgspec.structs.replace(usual, cards=(*usual.cards, tiered)),
        msgspec.structs.replace(DEPLOYMENTS[1], output_tokens_max=100),
        DEPLOYMENTS[2],
    )
    async with running_gate(tmp_path, limits=(limit(to_cheap()),), deployments=deployments, routes=ROUTES) as running:
        await _spend(running)
        answer = await running.chat(**fields)

        assert (answer.status_code, answer.headers["x-faregate-model"]) == (200, went)


@scenario
async def test_a_forecast_that_is_in_force_downgrades_until_it_ends(tmp_path: Path) -> None:
    """Whatever is spent."""
    clock = HeldClock()
    action = to_cheap(basis="forecast")
    forced = limit(action, forced=(Forced(0, START + 60 * 10**9),))
    async with running_gate(tmp_path, limits=(forced,), deployments=DEPLOYMENTS, routes=ROUTES, clock=clock) as running:
        first = await running.chat(max_tokens=20)
        clock.now += 61 * 10**9
        second = await running.chat(max_tokens=20)

        assert first.headers["x-faregate-downgraded"] == "sim-1"
        assert "x-faregate-downgraded" not in second.headers


@scenario
async def test_a_call_that_fits_only_the_cheaper_model_passes(tmp_path: Path) -> None:
    """It is bound and held at the price of the model that answers."""
    async with running_gate(tmp_path, limits=(limit(to_cheap()),), deployments=DEPLOYMENTS, routes=ROUTES) as running:
        await _spend(running)
        answer = await running.chat(max_tokens=2_000)

        assert answer.status_code == 200
        assert running.of(Intended)[-1].held.usd < DOLLAR // 1_000


@scenario
async def test_the_cheaper_model_has_limits_of_its_own(tmp_path: Path) -> None:
    """A refusal names the limit of the model that would have answered."""
    own = Limit("lim_cheap", {"model": "sim-fast"}, (), "requests", 0, "minute")
    async with running_gate(
        tmp_path, limits=(limit(to_cheap()), own), deployments=DEPLOYMENTS, routes=ROUTES
    ) as running:
        await _spend(running)
        answer = await running.chat(max_tokens=20)
        await running.until(lambda: running.of(Refused))

        assert (answer.status_code, answer.json()["error"]["faregate"]["limit"]) == (429, "lim_cheap")
        assert running.of(Refused)[0].who.model == "sim-fast"


@scenario
async def test_embeddings_and_paths_of_azure_are_downgraded(tmp_path: Path) -> None:
    """Wherever the model is named: in the body, or in the path of the caller."""
    async with running_gate(tmp_path, limits=(limit(to_cheap()),), deployments=DEPLOYMENTS, routes=ROUTES) as running:
        await _spend(running)
        headers = {"authorization": f"Bearer {secret('caller')}"}
        embedded = await running.client.post("/v1/embeddings", json={"model": "sim-1", "input": "a"}, headers=headers)
        azure = await running.client.post(
            "/openai/deployments/sim-1/chat/completions?api-version=2024-10-21",
            json={"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 20},
            headers=headers,
        )
        asked = [record["model"] for record in await truth(running)]

        assert (embedded.status_code, azure.status_code) == (200, 200)
        assert (embedded.headers["x-faregate-downgraded"], azure.headers["x-faregate-downgraded"]) == ("sim-1", "sim-1")
        assert asked == ["sim-1", "sim-fast-2024", "sim-fast-2024"]


@scenario
async def test_a_shadow_limit_notes_what_it_would_have_refused(tmp_path: Path) -> None:
    """The call passes, and its record says which limit would have stopped it; both notes stand side by side."""
    shadow = Limit("lim_shadow", {}, (), "requests", 1, "lifetime", mode="shadow")
    async with running_gate(
        tmp_path, limits=(limit(to_cheap()), shadow), deployments=DEPLOYMENTS, routes=ROUTES
    ) as running:
        await _spend(running)
        await running.chat(max_tokens=20)
        first, second = running.of(Intended)

        assert first.notes == ""
        assert json.loads(second.notes) == {
            "would_refuse": ["lim_shadow"],
            "downgraded_from": "sim-1",
            "limit": "lim_money",
        }


@scenario
async def test_what_is_not_downgraded_any_more_goes_back(tmp_path: Path) -> None:
    """A limit that is raised lets the next call go to the model that it asks for."""
    async with running_gate(tmp_path, limits=(limit(to_cheap()),), deployments=DEPLOYMENTS, routes=ROUTES) as running:
        await _spend(running)
        before = await running.chat(max_tokens=20)
        raised = money(DOLLAR, "month", terms=Terms(actions=(to_cheap(),)))
        await running.ask(Load(2, limits=(raised,)))
        after = await running.chat(max_tokens=20)

        assert before.headers["x-faregate-model"] == "sim-fast"
        assert after.headers["x-faregate-model"] == "sim-1"


TURNS = [{"role": "user", "content": "Hello."}]


@pytest.mark.parametrize(
    ("kind", "operation", "path", "body"),
    [
        ("openai", "responses", "/v1/responses", {"model": "sim-1", "input": "Hello.", "max_output_tokens": 20}),
        ("azure_openai", "responses", "/v1/responses", {"model": "sim-1", "input": "Hello.", "max_output_tokens": 20}),
        ("azure_openai", "chat.completions", "/v1/chat/completions",
         {"model": "sim-1", "messages": TURNS, "max_tokens": 20}),
        ("anthropic", "messages", "/v1/messages", {"model": "sim-1", "messages": TURNS, "max_tokens": 20}),
        ("gemini", "gemini.generate", "/v1beta/models/sim-1:generateContent",
         {"contents": [{"parts": [{"text": "Hello."}]}], "generationConfig": {"maxOutputTokens": 20}}),
    ],
)  # fmt: skip
@scenario
async def test_each_wire_format_names_the_model_that_answers(
    tmp_path: Path, kind: str, operation: str, path: str, body: dict[str, Any]
) -> None:
    """In the body or in the path, as its kind of provider wants it."""
    forced = limit(to_cheap(basis="forecast"), forced=(Forced(0, 1 << 62),))
    deployments = tuple(
        msgspec.structs.replace(each, operations=(operation,), output_tokens_max=64) for each in DEPLOYMENTS
    )
    async with running_gate(tmp_path, limits=(forced,), deployments=deployments, routes=ROUTES) as running:
        catalogue = running.gate.snapshot.catalogue
        below = {"azure_openai": "", "gemini": "/v1beta"}.get(kind, "/v1")
        credential = {"x-goog-api-key" if kind == "gemini" else "authorization": "Bearer sk-provider"}
        url = running.simulator.url + below
        changed = provider(url, kind=kind, api_version="2024-10-21", credential=credential)
        await running.ask(Load(2, catalogue=msgspec.structs.replace(catalogue, providers=(changed,))))
        answer = await running.client.post(path, json=body, headers={"authorization": f"Bearer {secret('caller')}"})
        asked = [record["model"] for record in await truth(running)]

        assert answer.status_code == 200, answer.text
        assert answer.headers["x-faregate-downgraded"] == "sim-1"
        assert asked == ["sim-fast-2024"]


@scenario
async def test_a_downgrade_that_is_taken_back_forgets_how_the_other_model_was_bound(tmp_path: Path) -> None:
    """The limit changes while the prompt is counted: the model that was asked for searches, and that is held, too."""
    search = "sim-search-preview"
    rates = (*CHEAP.tiers[0].rates, Rate("web_searches", 10 * DOLLAR, 1))
    card = RateCard("sim", search, "sim/search@test", (Tier(0, rates),))
    deployments = (
        *DEPLOYMENTS,
        deployment("sim/search", model=search, upstream_model=search, cards=(card,), context_tokens_max=100),
    )
    routes = (*ROUTES, Route(search, ("sim/search",)))
    budget = money(DOLLAR // 20, "month", terms=Terms(actions=(to_cheap(1, models=(search,)),)))
    async with running_gate(tmp_path, limits=(budget,), deployments=deployments, routes=routes) as running:
        for _ in range(12):
            await _spend(running)
        before = await running.chat(model=search, max_tokens=20)
        started, counting = Event(), Event()
        running.gate._counting.submit(started.set)
        running.gate._counting.submit(counting.wait, 10)
        await running.until(lambda: started.is_set() and not running.gate._counting._work_queue.qsize())
        call = asyncio.create_task(running.chat(model=search, max_tokens=20))
        await running.until(lambda: running.gate._counting._work_queue.qsize() > 0)
        plain = msgspec.structs.replace(budget, terms=Terms())
        await running.ask(Load(running.gate.snapshot.sequence + 1, limits=(plain,)))
        counting.set()
        answer = await call

        assert before.headers["x-faregate-downgraded"] == search
        assert (answer.status_code, answer.headers["x-faregate-model"]) == (200, search)
        assert running.of(Intended)[-1].held.usd > DOLLAR // 100
