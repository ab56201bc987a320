"""A share of calls is copied to another deployment: nobody waits for the copy, and nobody has it on his bill."""

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from faregate.control import Load, Mirror, Route
from faregate.core.ledger.events import Intended, Refused, Settled
from faregate.core.ledger.oracle import Oracle
from faregate.core.limits.terms import Action, Terms
from faregate.core.routing.health import BreakerRule
from gates import (
    RunningGate,
    allowances,
    books_agree,
    deployment,
    key,
    money,
    running_gate,
    scenario,
    script,
    secret,
    steered,
    truth,
)

CALL: dict[str, Any] = {"prompt_tokens": 10, "output_tokens": 20}
COST = 50_000


def mirrored_gate(folder: Path, percent: int = 100, **fields: Any) -> AbstractAsyncContextManager[RunningGate]:
    """A gate with a name that leads to one place and is copied to another."""
    places = (
        deployment("one", upstream_model="sim-a", model="sim-1"),
        deployment("two", upstream_model="sim-b", model="sim-2"),
    )
    route = Route("sim-1", ("one",), mirror=Mirror("two", percent))
    return running_gate(folder, deployments=places, routes=(route,), **fields)


def copies(running: RunningGate) -> list[Intended]:
    """What was sent as a copy."""
    return [each for each in running.of(Intended) if "mirror_of" in each.notes]


async def settled(running: RunningGate, count: int) -> dict[str, Settled]:
    """The ends of so many exchanges, by id."""
    await running.until(lambda: len(running.of(Settled)) >= count)
    await running.until(lambda: not running.gate.mirrors.running)
    return {each.id: each for each in running.of(Settled)}


@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_a_copy_is_an_exchange_of_nobodys(tmp_path: Path, stream: bool) -> None:
    """The caller is charged its own call alone; the copy is on nobody's bill, and its record says what it copies."""
    async with mirrored_gate(tmp_path, limits=(money(10**10),)) as running:
        answer = await running.chat(steered(**CALL), stream=stream)
        ends = await settled(running, 2)
        (copy,) = copies(running)
        origin = answer.headers["x-faregate-request-id"]

        assert answer.headers["x-faregate-deployment"] == "one"
        assert json.loads(copy.notes) == {"mirror_of": origin}
        assert (copy.who.deployment, copy.who.model, copy.who.service) == ("two", "sim-2", "chat.completions")
        assert (copy.who.organization, copy.who.key, copy.who.team) == ("", "", "")
        assert (ends[copy.id].cost, ends[copy.id].charge, ends[copy.id].status) == (COST, COST, "ok")
        assert (ends[origin].cost, ends[origin].charge) == (COST, COST)
        assert (copy.stream, ends[copy.id].usage) == (stream, ends[origin].usage)
        assert await allowances(running) == {"lim_money": (COST, 0)}
        assert sorted(each["model"] for each in await truth(running)) == ["sim-a", "sim-b"]
        books_agree(running)


@pytest.mark.parametrize(("percent", "expected"), [(1, 0), (10, 4), (25, 10), (100, 40)])
@scenario
async def test_the_share_is_exact(tmp_path: Path, percent: int, expected: int) -> None:
    """Of forty calls the percentage is copied, evenly spread."""
    async with mirrored_gate(tmp_path, percent) as running:
        for _ in range(40):
            await running.chat(steered(**CALL))
        await settled(running, 40 + expected)
        assert len(copies(running)) == expected


@scenario
async def test_nobody_waits_for_a_copy(tmp_path: Path) -> None:
    """An answer comes as soon as its own place has answered, also where the copy's never does."""
    async with mirrored_gate(tmp_path, provider_fields={"first_byte_timeout_ms": 600}) as running:
        await script(running, {"model": "sim-b", "steer": {"fault": "never_answer"}})
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await running.chat(steered(**CALL))).status_code == 200
        assert loop.time() - began < 0.5
        ends = await settled(running, 2)
        (copy,) = copies(running)
        assert (ends[copy.id].status, ends[copy.id].code) == ("failed", "upstream_timeout")
        assert ends[copy.id].cost == ends[copy.id].charge
        books_agree(running)


@pytest.mark.parametrize("status", [400, 429, 500])
@scenario
async def test_a_copy_that_fails_is_tried_once(tmp_path: Path, status: int) -> None:
    """Nobody notices, it goes nowhere else, and its place's breaker hears of it."""
    async with mirrored_gate(tmp_path, breaker=BreakerRule(failures=1)) as running:
        await script(running, {"model": "sim-b", "steer": {"status": status}})
        for _ in range(3):
            assert (await running.chat(steered(**CALL))).status_code == 200
            await running.until(lambda: not running.gate.mirrors.running)
        sent = 3 if status == 400 else 1
        await settled(running, 3 + sent)
        assert len(copies(running)) == sent
        assert running.gate.mirrors.outcomes == {"copied": sent, "left_out": 3 - sent}


@scenario
async def test_limits_of_its_place_hold_a_copy(tmp_path: Path) -> None:
    """A budget on the deployment bounds what mirroring may cost, and refuses no caller."""
    limit = money(100_000, id="lim_mirror", selector={"deployment": "two"})
    async with mirrored_gate(tmp_path, limits=(limit,)) as running:
        for _ in range(3):
            assert (await running.chat(steered(**CALL), max_tokens=20)).status_code == 200
            await running.until(lambda: not running.gate.mirrors.running)
        assert len(copies(running)) == 1
        assert await allowances(running) == {"lim_mirror": (COST, 0)}
        assert running.of(Refused) == []
        books_agree(running)


@scenario
async def test_no_limit_is_required_of_nobody(tmp_path: Path) -> None:
    """Where every call needs a money limit, a copy has nobody who could have one."""
    async with mirrored_gate(tmp_path, limits=(money(10**10),)) as running:
        catalogue = msgspec.structs.replace(running.gate.snapshot.catalogue, require_limit=True)
        await running.ask(Load(2, catalogue=catalogue))
        assert (await running.chat(steered(**CALL))).status_code == 200
        await settled(running, 2)
        assert len(copies(running)) == 1


@scenario
async def test_a_place_that_is_gone_is_copied_to_no_more(tmp_path: Path) -> None:
    """A mirror whose deployment is not there is left out."""
    async with mirrored_gate(tmp_path) as running:
        catalogue = running.gate.snapshot.catalogue
        left = tuple(each for each in catalogue.deployments if each.name != "two")
        await running.ask(Load(2, catalogue=msgspec.structs.replace(catalogue, deployments=left)))
        assert (await running.chat(steered(**CALL))).status_code == 200
        assert running.gate.mirrors.outcomes == {"copied": 0, "left_out": 1}
        assert copies(running) == []


@scenario
async def test_what_is_refused_is_not_copied(tmp_path: Path) -> None:
    """Only what was sent is sent twice."""
    async with mirrored_gate(tmp_path, limits=(money(0),)) as running:
        assert (await running.chat(steered(**CALL))).status_code == 429
        assert running.gate.mirrors.outcomes == {"copied": 0, "left_out": 0}


@scenario
async def test_a_stop_ends_copies_like_calls(tmp_path: Path) -> None:
    """A gate that stops lets copies end, and settles what they used."""
    async with mirrored_gate(tmp_path, limits=()) as running:
        await running.chat(steered(**CALL))
        await running.until(lambda: len(copies(running)) == 1)
    assert Oracle(running.events()).totals().open == 0


@scenario
async def test_copies_have_a_bound(tmp_path: Path) -> None:
    """A slow place takes only so many at once; the others are left out and counted."""
    async with mirrored_gate(tmp_path) as running:
        await script(running, {"model": "sim-b", "steer": {"first_delay_ms": 1_500}})

        async def one() -> httpx2.Response:
            return await running.chat(steered(**CALL))

        answers = await asyncio.gather(*(one() for _ in range(80)))
        assert {each.status_code for each in answers} == {200}
        assert running.gate.mirrors.outcomes == {"copied": 64, "left_out": 16}
        await settled(running, 144)
        books_agree(running)


@scenario
async def test_a_stage_is_not_copied_where_it_may_not_go(tmp_path: Path) -> None:
    """What a stage may not be sent to directly no mirror sends there."""
    async with mirrored_gate(tmp_path, keys=(key(stage="eu"),), stages={"eu": ("sim",)}) as running:
        catalogue = running.gate.snapshot.catalogue
        other = msgspec.structs.replace(catalogue.providers[0], name="us")
        places = [
            each if each.name == "one" else msgspec.structs.replace(each, provider="us")
            for each in catalogue.deployments
        ]
        changed = msgspec.structs.replace(catalogue, providers=(*catalogue.providers, other), deployments=tuple(places))
        await running.ask(Load(2, catalogue=changed))
        assert (await running.chat(steered(**CALL))).status_code == 200
        await asyncio.sleep(0.1)
        assert copies(running) == []
        assert running.gate.mirrors.outcomes == {"copied": 0, "left_out": 1}


@scenario
async def test_a_copy_takes_no_slot_of_the_callers(tmp_path: Path) -> None:
    """A place that stalls holds the slots of its own limit, never those of a limit on everything."""
    limits = (
        money(1, window="", id="lim_all", unit="concurrency", selector={}),
        money(1, window="", id="lim_place", unit="concurrency", selector={"deployment": "two"}),
    )
    async with mirrored_gate(tmp_path, limits=limits) as running:
        await script(running, {"model": "sim-b", "steer": {"first_delay_ms": 600}})
        for _ in range(3):
            assert (await running.chat(steered(**CALL))).status_code == 200
        assert running.gate.mirrors.outcomes == {"copied": 1, "left_out": 2}
        await settled(running, 4)
        assert await allowances(running) == {"lim_all": (0, 0), "lim_place": (0, 0)}


@scenario
async def test_the_copy_of_a_downgraded_call_asks_for_its_own_model(tmp_path: Path) -> None:
    """The body names the model that was too dear; the copy names that of its place, and is priced as that."""
    places = (deployment("one", upstream_model="sim-a"), deployment("two", upstream_model="cheap", model="sim-2"))
    routes = (Route("sim-1", ("one",)), Route("cheap", ("one",), mirror=Mirror("two", 100)))
    downgrading = money(10**10, terms=Terms(actions=(Action("downgrade", 0, to="cheap"),)))
    async with running_gate(tmp_path, deployments=places, routes=routes, limits=(downgrading,)) as running:
        answer = await running.chat(steered(**CALL))
        assert answer.headers["x-faregate-downgraded"] == "sim-1"
        await settled(running, 2)
        assert sorted(each["model"] for each in await truth(running)) == ["cheap", "sim-a"]


@scenario
async def test_responses_that_would_be_stored_are_not_copied(tmp_path: Path) -> None:
    """The mirror's provider would keep an object that nobody owns; one that is not stored is copied."""
    places = tuple(
        deployment(name, upstream_model=upstream, model="sim-1", operations=("responses",))
        for name, upstream in (("one", "sim-a"), ("two", "sim-b"))
    )
    route = Route("sim-1", ("one",), mirror=Mirror("two", 100))
    async with running_gate(tmp_path, deployments=places, routes=(route,)) as running:
        headers = {"authorization": f"Bearer {secret('caller')}"}
        for store in (None, True, False):
            body = {"model": "sim-1", "input": "hi", "max_output_tokens": 50} | (
                {} if store is None else {"store": store}
            )
            answer = await running.client.post("/v1/responses", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
        await running.until(lambda: not running.gate.mirrors.running)
        assert running.gate.mirrors.outcomes == {"copied": 1, "left_out": 2}


@scenario
async def test_a_stop_waits_for_no_copy(tmp_path: Path) -> None:
    """A copy that hangs is cut at once and settled, so that a stop takes no longer than without it."""
    loop = asyncio.get_running_loop()
    async with mirrored_gate(tmp_path) as running:
        await script(running, {"model": "sim-b", "steer": {"fault": "never_answer"}})
        assert (await running.chat(steered(**CALL))).status_code == 200
        await running.until(lambda: len(copies(running)) == 1)
        began = loop.time()
    assert loop.time() - began < 5
    assert Oracle(running.events()).totals().open == 0
