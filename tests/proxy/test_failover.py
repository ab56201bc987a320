"""A call that fails before its first byte goes on elsewhere: one record, one price, and nothing free by accident."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from faregate.control import AskFigures, Deployment, Figures, Load, Resolve, Route
from faregate.core.ledger.events import Intended, Redirected, Settled
from faregate.core.ledger.oracle import Oracle
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.routing.health import SECOND, BreakerRule
from faregate.core.routing.retry import FAILOVER, RetryRule
from faregate.core.usage import Usage
from faregate.simulator import BlackHole
from gates import (
    RunningGate,
    allowances,
    books_agree,
    deployment,
    money,
    provider,
    running_gate,
    scenario,
    script,
    steered,
    truth,
)

MILLI = 1_000_000

#: Ten times the price of the usual place.
DEAR = RateCard(
    "west",
    "sim-b",
    "west/sim-b@test",
    (Tier(0, (Rate("input_tokens", 10**13, 1_000_000), Rate("output_tokens", 2 * 10**13, 1_000_000))),),
)

QUICK = {"connect_timeout_ms": 400, "first_byte_timeout_ms": 300, "idle_timeout_ms": 500, "total_timeout_ms": 5_000}


def places() -> tuple[Deployment, ...]:
    """Two places for one name, the second one dearer."""
    return (
        deployment("east", provider="east", upstream_model="sim-a", model="sim-a"),
        deployment("west", provider="west", upstream_model="sim-b", model="sim-b", cards=(DEAR,)),
    )


def two_places(
    folder: Path, to: Sequence[str] = ("east", "west"), **fields: Any
) -> AbstractAsyncContextManager[RunningGate]:
    """A gate with a name that leads to two accounts; the providers' addresses follow when the simulator has one."""
    return running_gate(folder, deployments=places(), routes=(Route("sim-1", tuple(to)),), **fields)


async def joined(running: RunningGate, **fields: Any) -> None:
    """Tell the gate where its two providers are."""
    url = running.simulator.url + "/v1"
    both = tuple(provider(url, name=name, **fields) for name in ("east", "west"))
    catalogue = msgspec.structs.replace(running.gate.snapshot.catalogue, providers=both)
    await running.ask(Load(2, catalogue=catalogue))


def fails(model: str = "sim-a", **steer: Any) -> dict[str, Any]:
    """A rule of the simulator's script: calls of a model fail."""
    return {"model": model, "steer": {"status": 503} | steer}


async def released(running: RunningGate) -> None:
    """Let the simulator answer what it was told to hold."""
    async with httpx2.AsyncClient(base_url=running.simulator.url) as client:
        await client.post("/simulator/release")


@pytest.mark.parametrize("status", [429, 500, 503, 401, 408])
@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_the_next_place_answers_at_once(tmp_path: Path, status: int, stream: bool) -> None:
    """The caller sees one good answer, its record lists both tries, and it is charged the price of the second."""
    async with two_places(tmp_path, limits=(money(10**10),)) as running:
        await joined(running)
        await script(running, fails(status=status))
        answer = await running.chat(steered(prompt_tokens=10, output_tokens=20), max_tokens=20, stream=stream)
        await running.until(lambda: running.of(Settled))
        settled, turn = running.of(Settled)[0], running.of(Redirected)[0]
        seen = await truth(running)
        posted = await allowances(running)

        assert answer.status_code == 200
        assert answer.headers["x-faregate-deployment"] == "west"
        assert answer.headers["x-faregate-attempts"] == "2"
        assert [(each.deployment, each.http_status, each.code) for each in settled.attempts] == [
            ("east", status, "upstream_error"),
            ("west", 200, ""),
        ]
        assert (settled.charge, settled.price_version) == (500_000, "west/sim-b@test")
        assert (turn.attempt, turn.who.deployment, turn.left) == (2, "west", None)
        assert [record["model"] for record in seen] == ["sim-a", "sim-b"]
        assert seen[1]["request_id"] == f"{seen[0]['request_id']}-2" == f"{settled.id}-2"
        assert posted == {"lim_money": (500_000, 0)}
        assert len(running.of(Intended)) == len(running.of(Settled)) == 1
        books_agree(running)


@scenario
async def test_the_body_is_sent_again_as_it_was(tmp_path: Path) -> None:
    """Each try is sent the caller's bytes, with nothing but the model's name exchanged."""
    async with two_places(tmp_path) as running:
        await joined(running)
        await script(running, fails())
        answer = await running.chat(steered("héllo", prompt_tokens=7), temperature=0.25, seed=4)
        sent = [dict(record["headers"]) for record in await truth(running)]

        assert answer.status_code == 200
        lengths = {int(headers["content-length"]) for headers in sent}
        assert len(lengths) == 1


@scenario
async def test_where_all_fail_the_last_answer_is_told(tmp_path: Path) -> None:
    """The second provider's error passes as it is; nothing is charged or held, and both tries are on record."""
    async with two_places(tmp_path, limits=(money(10**10),)) as running:
        await joined(running)
        body = {"error": {"message": "west is full", "type": "x", "code": "full"}}
        await script(running, fails(), fails("sim-b", status=529, body=body))
        answer = await running.chat()
        settled = running.of(Settled)[0]

        assert (answer.status_code, answer.json()) == (529, body)
        assert answer.headers["x-faregate-attempts"] == "2"
        assert (settled.status, settled.charge, settled.http_status) == ("failed", 0, 529)
        assert [each.deployment for each in settled.attempts] == ["east", "west"]
        assert await allowances(running) == {"lim_money": (0, 0)}
        books_agree(running)


@scenario
async def test_a_place_that_does_not_fit_the_limit_is_not_used(tmp_path: Path) -> None:
    """The dearer place would go beyond the limit: the first provider's answer is told, and the hold is given back."""
    async with two_places(tmp_path, limits=(money(300_000),)) as running:
        await joined(running)
        await script(running, fails(status=429, headers={"retry-after": "7"}))
        answer = await running.chat(steered(prompt_tokens=10, output_tokens=20), max_tokens=50)
        seen = [record["model"] for record in await truth(running)]
        settled = running.of(Settled)[0]

        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert seen == ["sim-a"]
        assert [each.deployment for each in settled.attempts] == ["east"]
        assert running.of(Redirected) == []
        assert await allowances(running) == {"lim_money": (0, 0)}
        books_agree(running)


@pytest.mark.parametrize("status", [400, 404, 422])
@scenario
async def test_what_is_the_callers_fault_is_not_tried_again(tmp_path: Path, status: int) -> None:
    """An error about the call itself would be the same everywhere."""
    async with two_places(tmp_path) as running:
        await joined(running)
        await script(running, fails(status=status))
        answer = await running.chat()
        assert answer.status_code == status
        assert len(await truth(running)) == 1


@scenario
async def test_an_error_that_was_billed_is_charged_and_not_tried_again(tmp_path: Path) -> None:
    """Whoever reports usage has done the work: a second try would be paid twice."""
    body = {"error": {"message": "late"}, "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
    async with two_places(tmp_path) as running:
        await joined(running)
        await script(running, fails(status=500, body=body))
        answer = await running.chat()
        settled = running.of(Settled)[0]
        assert (answer.status_code, settled.charge, settled.cost) == (500, 20_000, 20_000)
        assert len(await truth(running)) == 1


@scenario
async def test_a_stream_is_not_tried_again_after_its_first_byte(tmp_path: Path) -> None:
    """Bytes that the caller has cannot be taken back: it is told that the stream broke."""
    async with two_places(tmp_path) as running:
        await joined(running)
        await script(running, {"model": "sim-a", "steer": {"fault": "reset_mid_stream", "output_tokens": 10}})
        answer = await running.chat(stream=True)
        await running.until(lambda: running.of(Settled))
        assert "upstream_truncated" in answer.text
        assert running.of(Settled)[0].status == "cut"
        assert len(await truth(running)) == 1


SLOW_ALSO = FAILOVER._replace(reasons=(*FAILOVER.reasons, "upstream_timeout", "upstream_truncated"))


@scenario
async def test_what_may_have_been_billed_is_the_operators(tmp_path: Path) -> None:
    """A try that timed out is left behind as an unknown of nobody's; the caller pays the second alone.

    The provider is asked for it by the id of the first try. Limits of its place, or of everything, hold what it may
    have cost, and then what it did cost; those of the caller do not.
    """
    limits = (
        money(10**10, selector={}),
        money(10**10, id="lim_east", selector={"deployment": "east"}),
        money(10**10, id="lim_team", selector={"team": "research"}),
    )
    async with two_places(tmp_path, limits=limits, retry=SLOW_ALSO) as running:
        await joined(running, lookup="/simulator/truth/{id}", **QUICK)
        await script(running, {"model": "sim-a", "steer": {"fault": "never_answer"}})
        answer = await running.chat(steered(prompt_tokens=10, output_tokens=20), max_tokens=20)
        figures = await running.ask(AskFigures())
        left = f"{answer.headers['x-faregate-request-id']}-1"
        (known, _) = running.gate.unknowns[left]

        assert answer.status_code == 200
        assert answer.headers["x-faregate-deployment"] == "west"
        assert isinstance(figures, Figures)
        assert (figures.unknown_count, figures.held_nanos) == (1, 0)
        whole = figures.unknown_nanos
        assert whole >= 20_000
        assert (known.who.organization, known.who.deployment, left) == ("", "east", f"{known.asked_as}-1")
        of_caller = {"lim_team": (500_000, 0)}
        assert await allowances(running) == {"lim_money": (500_000, whole), "lim_east": (0, whole), **of_caller}

        await running.ask(Resolve(left, "ok", "provider_said", Usage(10, output_text=5), "provider", 20_000, 20_000))
        oracle = books_agree(running)
        assert await allowances(running) == {"lim_money": (520_000, 0), "lim_east": (20_000, 0), **of_caller}
        assert oracle.balances["provider:east"] == -20_000
        assert oracle.totals().request_cost == 520_000


@scenario
async def test_a_timeout_is_not_tried_again_unless_that_is_wanted(tmp_path: Path) -> None:
    """By default nobody pays twice for one call: a time-out is told, and what may have been billed is settled."""
    async with two_places(tmp_path) as running:
        await joined(running, **QUICK)
        await script(running, {"model": "sim-a", "steer": {"fault": "never_answer"}})
        answer = await running.chat()
        assert answer.status_code == 504
        assert running.of(Redirected) == []


@scenario
async def test_a_lone_place_is_tried_again_after_a_wait(tmp_path: Path) -> None:
    """As often as is configured, the provider's Retry-After included; the last answer counts."""
    rule = RetryRule(2, again=True, interval=60 * MILLI)
    breaker = BreakerRule(enabled=False)
    async with two_places(tmp_path, ("east",), retry=rule, breaker=breaker) as running:
        await joined(running)
        await script(running, {"model": "sim-a", "nth": [1, 2], "steer": {"status": 503}})
        began = asyncio.get_running_loop().time()
        answer = await running.chat()
        took = asyncio.get_running_loop().time() - began

        assert answer.status_code == 200
        assert answer.headers["x-faregate-attempts"] == "3"
        assert took >= 0.09
        assert [each.attempt for each in running.of(Redirected)] == [2, 3]
        books_agree(running)


@pytest.mark.parametrize("to", [("east", "west"), ("west", "east")])
@pytest.mark.parametrize("failures", [1, 2, 4])
@scenario
async def test_a_place_that_is_full_ends_no_tries(tmp_path: Path, to: tuple[str, str], failures: int) -> None:
    """Where the other place has no room, the one that failed is tried as often as if it were alone."""
    full = money(0, selector={"deployment": "west"}, unit="requests")
    rule = RetryRule(3, again=True, interval=5 * MILLI)
    breaker = BreakerRule(enabled=False)
    async with two_places(tmp_path, to, retry=rule, breaker=breaker, limits=(full,)) as running:
        await joined(running)
        await script(running, {"model": "sim-a", "nth": [1, failures], "steer": {"status": 500}})
        answer = await running.chat()
        tries = min(failures + 1, 4)

        assert answer.status_code == (500 if failures == 4 else 200)
        assert [each["model"] for each in await truth(running)] == ["sim-a"] * tries
        assert [each.deployment for each in running.of(Settled)[0].attempts] == ["east"] * tries
        books_agree(running)


@scenario
async def test_where_nothing_has_room_any_more_the_tries_end(tmp_path: Path) -> None:
    """The place that failed is full meanwhile, too: its answer is told after as many waits as there are tries."""
    limits = (
        money(0, selector={"deployment": "west"}, unit="requests"),
        money(1, selector={"deployment": "east"}, unit="requests", id="lim_east"),
    )
    rule = RetryRule(3, again=True, interval=5 * MILLI)
    async with two_places(tmp_path, retry=rule, limits=limits) as running:
        await joined(running)
        await script(running, fails(status=500))
        answer = await running.chat()

        assert answer.status_code == 500
        assert len(await truth(running)) == 1
        books_agree(running)


@scenario
async def test_a_wait_that_is_too_long_is_told_instead(tmp_path: Path) -> None:
    """A provider that asks for more than anybody waits here is not asked again."""
    rule = RetryRule(3, again=True, interval=MILLI, wait_max=SECOND)
    async with two_places(tmp_path, ("east",), retry=rule) as running:
        await joined(running)
        await script(running, fails(status=429, headers={"retry-after": "60"}))
        answer = await running.chat()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
        assert len(await truth(running)) == 1


@scenario
async def test_a_client_that_leaves_meanwhile_holds_nothing(tmp_path: Path) -> None:
    """Its call ends with the first provider's answer, on record and for nothing."""
    rule = RetryRule(3, again=True, interval=5 * SECOND)
    async with two_places(tmp_path, ("east",), retry=rule, limits=(money(10**10),)) as running:
        await joined(running)
        await script(running, fails())
        call = asyncio.create_task(running.chat())
        await running.until(lambda: len(running.gate.answers_open) == 1)
        await running.until(lambda: next(iter(running.gate.answers_open)).exchange.parked is not None)
        call.cancel()
        await running.until(lambda: running.of(Settled))
        assert running.of(Settled)[0].charge == 0
        assert await allowances(running) == {"lim_money": (0, 0)}
        assert running.gate.open_answers == 0
        books_agree(running)


@scenario
async def test_a_gate_that_stops_tells_what_it_knows(tmp_path: Path) -> None:
    """Who waits for another try when the gate is cut gets the first provider's answer."""
    rule = RetryRule(3, again=True, interval=30 * SECOND)
    async with two_places(tmp_path, ("east",), retry=rule) as running:
        await joined(running)
        await script(running, fails(status=503))
        call = asyncio.create_task(running.chat())
        await running.until(lambda: len(running.gate.answers_open) == 1)
        await running.until(lambda: next(iter(running.gate.answers_open)).exchange.parked is not None)
        running.gate.drain()
        running.gate.drain()
        assert (await call).status_code == 503
        books_agree(running)


@scenario
async def test_the_callers_own_deadline_ends_the_tries(tmp_path: Path) -> None:
    """No try begins after the time that the caller gave."""
    rule = RetryRule(5, again=True, interval=10 * SECOND)
    async with two_places(tmp_path, ("east",), retry=rule) as running:
        await joined(running)
        await script(running, fails())
        answer = await running.chat(headers={"x-faregate-timeout": "1s"})
        assert answer.status_code == 503
        assert len(await truth(running)) == 1


@scenario
async def test_a_crash_in_between_leaves_one_unknown(tmp_path: Path) -> None:
    """The journal says at which place the call was when its process died, and what it held there."""
    async with two_places(tmp_path) as running:
        await joined(running)
        await script(running, fails(), {"model": "sim-b", "steer": {"hold": True}})
        call = asyncio.create_task(running.chat(steered(prompt_tokens=10), max_tokens=50))
        await running.until(lambda: running.of(Redirected))
        oracle = Oracle(running.events())
        (exchange,) = oracle.open().values()
        assert exchange.intended is not None
        assert (exchange.intended.who.deployment, exchange.intended.attempt) == ("west", 2)
        assert exchange.intended.held == running.of(Redirected)[0].held
        await released(running)
        assert (await call).status_code == 200


@scenario
async def test_the_same_idempotency_key_is_one_call(tmp_path: Path) -> None:
    """A call that went elsewhere is kept under its name as any other, and replayed."""
    async with two_places(tmp_path) as running:
        await joined(running)
        await script(running, fails())
        headers = {"idempotency-key": "once"}
        first = await running.chat(headers=headers)
        second = await running.chat(headers=headers)
        assert first.json() == second.json()
        assert second.headers["idempotent-replayed"] == "true"
        assert [record["model"] for record in await truth(running)] == ["sim-a", "sim-b"]


@scenario
async def test_many_calls_lose_nothing(tmp_path: Path) -> None:
    """A crowd of calls through a place that fails now and then: one record each, and the sums are the providers'."""
    async with two_places(tmp_path, limits=(money(10**12),), breaker=BreakerRule(enabled=False)) as running:
        await joined(running)
        await script(running, *({"model": "sim-a", "nth": n, "steer": {"status": 503}} for n in range(1, 120, 3)))
        answers = await asyncio.gather(*(running.chat(steered(output_tokens=n % 20)) for n in range(120)))
        assert {answer.status_code for answer in answers} == {200}
        seen = await truth(running)
        served = [record for record in seen if record["served"]]
        oracle = books_agree(running)
        assert len(running.of(Settled)) == len(served) == 120
        assert 0 < len(running.of(Redirected)) == len(seen) - len(served)
        tokens = sum(json.loads(json.dumps(record["usage"]))["completion_tokens"] for record in served)
        assert tokens == sum(settled.usage.output_tokens for settled in running.of(Settled))
        posted, held = (await allowances(running))["lim_money"]
        assert (posted, held) == (oracle.totals().request_cost, 0)


@pytest.mark.parametrize(("asked", "status", "places"), [("300ms", 504, []), ("20s", 200, ["sim-b"])])
@scenario
async def test_nothing_is_sent_after_the_callers_deadline(
    tmp_path: Path, asked: str, status: int, places: list[str]
) -> None:
    """A place that is slow to accept a connection uses up the caller's time; the next is asked in time or not."""
    with BlackHole() as hole:
        async with two_places(tmp_path, limits=(money(10**10),)) as running:
            good = provider(running.simulator.url + "/v1", name="west")
            slow = provider(f"http://127.0.0.1:{hole.port}/v1", name="east", connect_timeout_ms=600)
            catalogue = msgspec.structs.replace(running.gate.snapshot.catalogue, providers=(slow, good))
            await running.ask(Load(2, catalogue=catalogue))
            answer = await running.chat(headers={"x-faregate-timeout": asked}, max_tokens=20)
            await running.until(lambda: len(running.of(Settled)) == len(places))

            assert answer.status_code == status
            assert [record["model"] for record in await truth(running)] == places
            assert len(running.of(Intended)) == len(places)
            assert (await allowances(running))["lim_money"][1] == 0
