"""The way of a call among the deployments of a name: pools, callers that are led elsewhere, steps of their own."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from fakes import HeldAnswers
from faregate.config.settings import CacheSettings
from faregate.control import AskFigures, Figures, Limit, Load, Route, RoutedPool, Selection
from faregate.core.ledger.events import Intended, Redirected, Settled
from faregate.core.routing.choose import Member, PoolRule, Range
from faregate.core.routing.health import SECOND, BreakerRule
from faregate.core.routing.retry import FAILOVER
from gates import RunningGate, deployment, key, money, provider, running_gate, scenario, script, steered, truth

MILLI = 1_000_000

NAMES = ("one", "two", "three")


def members(*names: str, **fields: Any) -> tuple[Member, ...]:
    return tuple(Member(name, **fields) for name in names or NAMES)


@asynccontextmanager
async def pooled(
    folder: Path, rule: PoolRule, *selected: Selection, breaker: BreakerRule | None = None, **fields: Any
) -> AsyncIterator[RunningGate]:
    """A gate with three places behind the name ``sim-1``, each at an account and under a model name of its own."""
    places = tuple(deployment(name, upstream_model=f"sim-{name}", provider=f"at-{name}") for name in NAMES)
    timeout_ms, gone = fields.pop("timeout_ms", 0), fields.pop("client_gone", "")
    route = Route("sim-1", NAMES, ("pool",), selected, timeout_ms)
    pool = RoutedPool(rule._replace(name="pool"), breaker or BreakerRule())
    async with running_gate(folder, deployments=places, routes=(route,), pools=(pool,), **fields) as running:
        url = running.simulator.url + "/v1"
        accounts = tuple(provider(url, name=f"at-{name}", client_gone=gone) for name in NAMES)
        catalogue = msgspec.structs.replace(running.gate.snapshot.catalogue, providers=accounts)
        await running.ask(Load(2, catalogue=catalogue))
        yield running


async def places_of(running: RunningGate, count: int, **fields: Any) -> list[str]:
    """Where so many calls go, one after the other."""
    return [(await running.chat(**fields)).headers["x-faregate-deployment"] for _ in range(count)]


@scenario
async def test_turns_are_exact(tmp_path: Path) -> None:
    """Each in turn, over one connection as over many."""
    async with pooled(tmp_path, PoolRule("", members(), "round_robin")) as running:
        assert await places_of(running, 6) == [*NAMES, *NAMES]
        answers = await asyncio.gather(*(running.chat() for _ in range(30)))
        assert Counter(each.headers["x-faregate-deployment"] for each in answers) == dict.fromkeys(NAMES, 10)


@scenario
async def test_a_higher_group_waits_until_the_lower_one_fails(tmp_path: Path) -> None:
    """Provisioned capacity first; the rest is used only while that rests."""
    rule = PoolRule("", (Member("one"), Member("two", group=2), Member("three", group=2)), "round_robin")
    async with pooled(tmp_path, rule, breaker=BreakerRule(failures=1, trip=60 * SECOND)) as running:
        assert set(await places_of(running, 4)) == {"one"}
        await script(running, {"model": "sim-one", "steer": {"status": 500}})
        assert set(await places_of(running, 4)) == {"two", "three"}
        assert [each["model"] for each in await truth(running)].count("sim-one") == 5


@pytest.mark.parametrize("sticky", ["key", "user", "run"])
@scenario
async def test_who_stays_stays(tmp_path: Path, sticky: str) -> None:
    """The same key, end user or run is always led to one place, and others to others; nobody's calls are spread."""
    keys = tuple(key(name) for name in ("caller", *(f"k{n}" for n in range(12))))
    async with pooled(tmp_path, PoolRule("", members(), "round_robin", sticky=sticky), keys=keys) as running:
        seen: dict[str, set[str]] = {}
        for who in [f"k{n}" for n in range(12)] * 3:
            headers = {"x-faregate-user": who} if sticky == "user" else {"x-faregate-run": who}
            name = who if sticky == "key" else "caller"
            answer = await running.chat(name=name, headers=headers if sticky != "key" else {})
            seen.setdefault(who, set()).add(answer.headers["x-faregate-deployment"])
        assert all(len(places) == 1 for places in seen.values())
        assert len(set.union(*seen.values())) == 3
        if sticky != "key":
            assert set(await places_of(running, 3)) == set(NAMES)


@scenario
async def test_a_turn_in_which_nothing_is_sent_is_the_next_callers(tmp_path: Path) -> None:
    """Refused calls between those that pass take none of their turns."""
    poor = Limit("lim_poor", {"key": "key_poor"}, (), "usd", 0, "lifetime")
    async with pooled(
        tmp_path, PoolRule("", members(), "round_robin"), keys=(key(), key("poor")), limits=(poor,)
    ) as running:
        seen = []
        for _ in range(6):
            assert (await running.chat(name="poor")).status_code == 429
            seen += await places_of(running, 1)
        assert seen == [*NAMES, *NAMES]


@scenario
async def test_hits_of_the_cache_take_no_turns(tmp_path: Path) -> None:
    """Each prompt is asked twice: those that are sent are spread as the pool says."""
    async with pooled(
        tmp_path, PoolRule("", members(), "round_robin"), cache=CacheSettings(default="on"), responses=HeldAnswers()
    ) as running:
        seen = []
        for number in range(6):
            first = await running.chat(f"prompt {number}")
            again = await running.chat(f"prompt {number}")
            assert again.headers["x-faregate-cache"] == "hit"
            seen.append(first.headers["x-faregate-deployment"])
        assert seen == [*NAMES, *NAMES]


@scenario
async def test_a_burst_is_spread_over_the_least_busy_places(tmp_path: Path) -> None:
    """A place is busy with a call as soon as a connection is opened for it."""
    async with pooled(tmp_path, PoolRule("", members(), "least_busy")) as running:
        answers = await asyncio.gather(*(running.chat() for _ in range(30)))
        found = Counter(answer.headers["x-faregate-deployment"] for answer in answers)
        assert all(8 <= found[name] <= 12 for name in NAMES)
        assert {name: running.gate.snapshot.targets[name].health.busy for name in NAMES} == dict.fromkeys(NAMES, 0)


@scenario
async def test_the_wait_for_a_place_that_rests_is_told_where_the_others_budget_is_used_up(tmp_path: Path) -> None:
    """The month of the one ends in weeks, the rest of the other in seconds: that is when a call passes."""
    spent = Limit("lim_two", {"deployment": "two"}, (), "requests", 0, "month")
    rule = PoolRule("", members("one", "two"), "ordered")
    breaker = BreakerRule(failures=1, trip=5 * SECOND)
    async with pooled(tmp_path, rule, limits=(spent,), breaker=breaker) as running:
        await script(running, {"model": "sim-one", "steer": {"status": 500}})
        await running.chat()
        refused = await running.chat()
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 5


@scenario
async def test_the_least_busy_place_is_next(tmp_path: Path) -> None:
    """While calls hang at two places, the third gets the next ones."""
    async with pooled(tmp_path, PoolRule("", members(), "least_busy")) as running:
        for name in ("one", "two"):
            await script(running, {"model": f"sim-{name}", "steer": {"hold": True}})
        hanging = [asyncio.create_task(running.chat()) for _ in range(3)]
        await running.until(lambda: any(task.done() for task in hanging))
        busy = [task for task in hanging if not task.done()]
        assert set(await places_of(running, 3)) <= set(NAMES)
        async with httpx2.AsyncClient(base_url=running.simulator.url) as client:
            await client.post("/simulator/release")
        await asyncio.gather(*busy)
        assert {name: running.gate.snapshot.targets[name].health.busy for name in NAMES} == dict.fromkeys(NAMES, 0)


@scenario
async def test_the_fastest_place_is_preferred(tmp_path: Path) -> None:
    """Each is tried once; after that whoever began to answer soonest gets the calls."""
    async with pooled(tmp_path, PoolRule("", members(), "latency")) as running:
        slow = [{"model": f"sim-{name}", "steer": {"first_delay_ms": 80}} for name in ("one", "three")]
        await script(running, *slow)
        assert set(await places_of(running, 3)) == set(NAMES)
        assert await places_of(running, 5) == ["two"] * 5


@scenario
async def test_some_callers_are_led_elsewhere(tmp_path: Path) -> None:
    """By team, by the name of a key, by a stage that the request names; the first that fits counts."""
    keys = (key(), key("vip", team="sales"), key("other", team="other", may_set=("stage",)))
    selected = (
        Selection((("key", "vip"), ("team", "sales")), ("three",)),
        Selection((("stage", "dev"),), ("two", "three")),
    )
    stages = {"dev": tuple(f"at-{name}" for name in NAMES)}
    rule = PoolRule("", members("one"))
    async with pooled(tmp_path, rule, *selected, keys=keys, stages=stages) as running:
        assert await places_of(running, 2) == ["one", "one"]
        assert await places_of(running, 2, name="vip") == ["three", "three"]
        assert await places_of(running, 1, name="other") == ["one"]
        assert await places_of(running, 2, name="other", headers={"x-faregate-stage": "dev"}) == ["two", "two"]


@scenario
async def test_a_priority_of_others_is_refused_where_that_is_wanted(tmp_path: Path) -> None:
    """403 with the range, nothing sent; whom it is for goes there."""
    ranges = (Range(0, 100, ("three",), only=((("team", "sales"),),)),)
    rule = PoolRule("", members("one", "two"), "ordered", ranges, refuses=True)
    async with pooled(tmp_path, rule, keys=(key(), key("vip", team="sales"))) as running:
        refused = await running.chat(headers={"priority": "7"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "priority_forbidden")
        assert "0 to 100" in refused.json()["error"]["message"]
        assert await places_of(running, 1, name="vip", headers={"priority": "7"}) == ["three"]
        assert await places_of(running, 1, headers={"priority": "700"}) == ["one"]
        assert len(await truth(running)) == 2


@pytest.mark.parametrize(("refuses", "place"), [(False, "two"), (True, "")])
@scenario
async def test_a_key_uses_its_own_priorities_alone(tmp_path: Path, refuses: bool, place: str) -> None:
    """What it may not ask for counts as the next one that it may, or is refused; nothing is sent or charged then."""
    ranges = (Range(0, 100, ("three",)), Range(101, 500, ("two",)))
    rule = PoolRule("", members("one"), "ordered", ranges, refuses=refuses)
    keys = (key(priorities=("200-1000",)), key("vip"), key("none", priorities=()))
    async with pooled(tmp_path, rule, keys=keys) as running:
        answer = await running.chat(headers={"priority": "7"})
        if refuses:
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "priority_forbidden")
            assert "may not use 7" in answer.json()["error"]["message"]
        else:
            assert answer.headers["x-faregate-deployment"] == place
            assert await places_of(running, 1, name="none", headers={"priority": "7"}) == ["one"]
        assert await places_of(running, 1, name="vip", headers={"priority": "7"}) == ["three"]
        assert await places_of(running, 1, headers={"priority": "300"}) == ["two"]
        assert await places_of(running, 1, headers={"priority": "900"}) == ["one"]
        assert await places_of(running, 1) == ["one"]


STEPS = (
    Member("one", params=(("temperature", "0.20"), ("max_tokens", "7"), ("metadata", '{"a":[1]}'))),
    Member("two", params=(("seed", "4"),)),
    Member("three"),
)


@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_steps_put_their_params_into_the_body(tmp_path: Path, stream: bool) -> None:
    """What the step says goes before what the caller said, and bounds the call; the next step has its own."""
    async with pooled(tmp_path, PoolRule("", STEPS), limits=(money(10**10),)) as running:
        await script(running, {"model": "sim-one", "nth": 2, "steer": {"status": 503}})
        first = await running.chat(steered(output_tokens=30), temperature=1, max_tokens=20, stream=stream)
        second = await running.chat(steered(output_tokens=30), temperature=1, max_tokens=20, stream=stream)
        await running.until(lambda: len(running.of(Settled)) == 2)
        intents, (turn,) = running.of(Intended), running.of(Redirected)
        ends = running.of(Settled)

        assert (first.status_code, second.status_code) == (200, 200)
        assert [end.usage.output_tokens for end in ends] == [7, 20]
        assert [intent.held.output_tokens for intent in intents] == [7, 7]
        assert turn.held.output_tokens == 20


@scenario
async def test_a_step_that_is_too_slow_makes_way_for_the_next(tmp_path: Path) -> None:
    """Its own time is over before its provider's; with time-outs among the reasons the next step is asked."""
    slow = Member("one", timeout_ms=300)
    retry = FAILOVER._replace(reasons=(*FAILOVER.reasons, "upstream_timeout"))
    async with pooled(tmp_path, PoolRule("", (slow, Member("two"))), retry=retry) as running:
        await script(running, {"model": "sim-one", "steer": {"hold": True}})
        answer = await running.chat()
        assert (answer.status_code, answer.headers["x-faregate-deployment"]) == (200, "two")
        settled = running.of(Settled)
        assert [each.code for end in settled for each in end.attempts if each.code] == ["upstream_timeout"]


@scenario
async def test_a_name_has_its_own_time(tmp_path: Path) -> None:
    """An answer that takes longer than its name allows ends with 504, whatever its provider may take."""
    async with pooled(tmp_path, PoolRule("", members("one")), timeout_ms=300) as running:
        answer = await running.chat(steered(hold=True))
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")


@scenario
async def test_a_resting_place_is_tried_by_one_call_alone(tmp_path: Path) -> None:
    """After its rest one call goes there, and while that runs all others go elsewhere; its success brings all back."""
    rule = PoolRule("", members("one", "two"))
    async with pooled(tmp_path, rule, breaker=BreakerRule(failures=1, trip=SECOND // 4)) as running:
        await script(running, {"model": "sim-one", "nth": 1, "steer": {"status": 500}})
        assert await places_of(running, 2) == ["two", "two"]
        await script(running, {"model": "sim-one", "nth": 1, "steer": {"hold": True}})
        await running.until(lambda: running.gate.snapshot.targets["one"].health.may(running.gate.monotonic_nanos()))
        probe = asyncio.create_task(running.chat())
        await running.until(lambda: running.gate.snapshot.targets["one"].health.state == "probing")
        figures = await running.ask(AskFigures())
        assert isinstance(figures, Figures)
        assert [(each.name, each.state) for each in figures.resting] == [("one", "probing")]
        assert await places_of(running, 3) == ["two"] * 3
        async with httpx2.AsyncClient(base_url=running.simulator.url) as client:
            await client.post("/simulator/release")
        assert (await probe).headers["x-faregate-deployment"] == "one"
        assert await places_of(running, 2) == ["one", "one"]


@scenario
async def test_a_probe_whose_client_leaves_makes_way_for_another(tmp_path: Path) -> None:
    """Nothing was learnt of the deployment, so that the next call may try."""
    rule = PoolRule("", members("one", "two"))
    breaker = BreakerRule(failures=1, trip=30 * SECOND)
    async with pooled(tmp_path, rule, breaker=breaker, client_gone="no_bill") as running:
        health = running.gate.snapshot.targets["one"].health
        await script(running, {"model": "sim-one", "nth": 1, "steer": {"status": 500}})
        await running.chat()
        health.rests_until = 0
        await script(running, {"model": "sim-one", "nth": 1, "steer": {"hold": True}})
        probe = asyncio.create_task(running.chat(stream=True))
        await running.until(lambda: health.state == "probing")
        probe.cancel()
        await running.until(lambda: health.state == "open")
        assert await places_of(running, 1) == ["one"]
        assert health.state == "closed"


@pytest.mark.parametrize("full", [("one",), ("one", "two"), NAMES])
@scenario
async def test_a_full_limit_of_a_place_sends_calls_on(tmp_path: Path, full: tuple[str, ...]) -> None:
    """A budget of one deployment is no budget of the name; where every place is full the call is refused as ever."""
    limits = tuple(money(0, id=f"lim_{name}", selector={"deployment": name}) for name in full)
    async with pooled(tmp_path, PoolRule("", members()), limits=limits) as running:
        answer = await running.chat()
        if full == NAMES:
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "budget_exhausted")
            assert await truth(running) == []
        else:
            assert answer.headers["x-faregate-deployment"] == NAMES[len(full)]
            assert "x-faregate-attempts" not in answer.headers


@scenario
async def test_a_reload_keeps_what_is_known_of_deployments(tmp_path: Path) -> None:
    """A place that rests goes on resting when keys, prices or pools change."""
    rule = PoolRule("", members("one", "two"))
    async with pooled(tmp_path, rule, breaker=BreakerRule(failures=1, trip=60 * SECOND)) as running:
        await script(running, {"model": "sim-one", "steer": {"status": 500}})
        await running.chat()
        await running.ask(Load(3, catalogue=running.gate.snapshot.catalogue))
        assert await places_of(running, 2) == ["two", "two"]
        assert json.dumps([each["model"] for each in await truth(running)]).count("sim-one") == 1
