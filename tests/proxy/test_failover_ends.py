"""Whatever comes between two tries, each call ends once, holds what it may cost, and counts where it was sent."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from faregate.control import Deployment, Limit, Load, Route, RoutedPool, Selection
from faregate.core.ledger.events import Intended, Redirected, Settled
from faregate.core.ledger.oracle import Oracle
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.routing.choose import Member, PoolRule
from faregate.core.routing.health import SECOND, BreakerRule
from faregate.core.routing.retry import FAILOVER, RetryRule
from gates import (
    RunningGate,
    allowances,
    deployment,
    money,
    provider,
    running_gate,
    scenario,
    script,
    secret,
    steered,
    truth,
)

QUICK = {"connect_timeout_ms": 5_000, "first_byte_timeout_ms": 800, "idle_timeout_ms": 800, "total_timeout_ms": 5_000}
SLOW_ALSO = FAILOVER._replace(reasons=(*FAILOVER.reasons, "upstream_timeout", "upstream_truncated"))
NEVER_RESTS = BreakerRule(enabled=False)


class Tunnel:
    """An HTTP proxy that lets nobody through before it is told to: what is behind it takes long to connect to."""

    def __init__(self) -> None:
        self.asked = 0
        self.through = 0
        self.open = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            await self.open.wait()
            inner = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            self.through += 1
            await asyncio.gather(_pass(reader, inner[1]), _pass(inner[0], writer))
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def place(name: str, **fields: Any) -> Deployment:
    return deployment(name, provider=f"at-{name}", upstream_model=f"sim-{name}", **fields)


@asynccontextmanager
async def places(folder: Path, *names: str, slow: str = "", **fields: Any) -> AsyncIterator[tuple[RunningGate, Tunnel]]:
    """A gate whose name ``sim-1`` leads to some places, one of them behind a tunnel that is shut at first."""
    tunnel, lookup = Tunnel(), fields.pop("lookup", "")
    server = await asyncio.start_server(tunnel.serve, "127.0.0.1", 0)
    tunnel.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    deployments = tuple(place(name) for name in names)
    made = {"deployments": deployments, "routes": (Route("sim-1", names),), "breaker": NEVER_RESTS} | fields
    try:
        async with running_gate(folder, **made) as running:
            url = running.simulator.url + "/v1"
            accounts = tuple(
                provider(url, name=f"at-{name}", proxy=tunnel.url if name == slow else "", lookup=lookup, **QUICK)
                for name in (*names, "other")
            )
            catalogue = msgspec.structs.replace(running.gate.snapshot.catalogue, providers=accounts)
            await running.ask(Load(2, catalogue=catalogue))
            try:
                yield running, tunnel
            finally:
                tunnel.open.set()
                # Nobody is left on the way, so that all that was opened is closed with the gate.
                await running.until(lambda: tunnel.through == tunnel.asked)
                if running.gate.closed_for is None:
                    await running.chat()
    finally:
        server.close()


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("fault", [{"status": 503}, {"fault": "never_answer"}])
@scenario
async def test_a_client_that_leaves_while_the_next_place_is_dialled(
    tmp_path: Path, durability: str, fault: dict[str, Any]
) -> None:
    """Its calls end once, with what came of the first try; nothing stays open or held, and their names are free."""
    fields: dict[str, Any] = {"limits": (money(10**12),), "retry": SLOW_ALSO, "durability": durability}
    async with places(tmp_path, "one", "two", slow="two", **fields) as (running, tunnel):
        await script(running, {"model": "sim-one", "steer": fault})
        text = "many words in a long prompt " * 2_000
        headers = [{"idempotency-key": f"call-{n}"} for n in range(4)]
        calls = [asyncio.create_task(running.chat(text, headers=each)) for each in headers]
        await running.until(lambda: tunnel.asked == 4)
        for call in calls:
            call.cancel()
        await running.until(lambda: running.gate.connections == 0)
        tunnel.open.set()
        await running.until(lambda: len(running.of(Settled)) == 4)
        await running.until(lambda: running.gate.open_answers == 0)
        posted, held = (await allowances(running))["lim_money"]
        oracle = Oracle(running.events())

        assert held == 0
        assert (posted > 0) is ("fault" in fault)
        assert (oracle.totals().open, oracle.totals().request_cost) == (0, posted)
        assert {each.attempts[0].deployment for each in running.of(Settled)} == {"one"}
        assert running.of(Redirected) == []
        again = await running.chat(text, headers=headers[0])
        assert again.json()["error"]["code"] == "idem_completed" if "fault" in fault else again.status_code


@pytest.mark.parametrize("durability", ["process", "power"])
@scenario
async def test_a_gate_that_is_cut_while_the_next_place_is_dialled(tmp_path: Path, durability: str) -> None:
    """The caller is told what the first provider said, once, and nothing stays open."""
    async with places(tmp_path, "one", "two", slow="two", durability=durability) as (running, tunnel):
        await script(running, {"model": "sim-one", "steer": {"status": 503}})
        call = asyncio.create_task(running.chat())
        await running.until(lambda: tunnel.asked == 1)
        running.gate.drain()
        running.gate.drain()
        tunnel.open.set()
        answer = await call
        assert (answer.status_code, answer.headers["x-faregate-error-source"]) == (503, "provider")
        assert [each.http_status for each in running.of(Settled)] == [503]
        assert running.gate.open_answers == 0


@scenario
async def test_each_try_is_asked_for_by_its_own_id(tmp_path: Path) -> None:
    """Two tries that may have been billed are two unknowns of nobody's, each by the id that its provider was sent."""
    fields: dict[str, Any] = {"retry": SLOW_ALSO, "lookup": "/simulator/truth/{id}", "limits": (money(10**12),)}
    async with places(tmp_path, "one", "two", "three", **fields) as (running, _):
        stuck = [{"model": f"sim-{name}", "steer": {"fault": "never_answer"}} for name in ("one", "two")]
        await script(running, *stuck)
        answer = await running.chat()
        id = answer.headers["x-faregate-request-id"]
        assert answer.headers["x-faregate-attempts"] == "3"
        unknowns = {name: unknown for name, (unknown, _) in running.gate.unknowns.items()}
        assert {name: each.asked_as for name, each in unknowns.items()} == {f"{id}-1": id, f"{id}-2": f"{id}-2"}
        assert [each["request_id"] for each in await truth(running)] == [id, f"{id}-2", f"{id}-3"]


@scenario
async def test_what_may_be_billed_stays_held_until_it_is_the_operators(tmp_path: Path) -> None:
    """While another place is looked for in vain, others may spend only what is left; the limit holds."""
    rule = RetryRule(4, again=True, interval=SECOND, reasons=SLOW_ALSO.reasons)
    async with places(tmp_path, "one", "two", slow="two", retry=rule, limits=(money(450_000),)) as (running, tunnel):
        await script(running, {"model": "sim-one", "nth": 1, "steer": {"fault": "never_answer"}})
        first = asyncio.create_task(running.chat(steered("word " * 40, prompt_tokens=10), max_tokens=50))
        await running.until(lambda: tunnel.asked == 1)
        posted, held = (await allowances(running))["lim_money"]
        journalled = running.of(Intended)[0].held.usd
        assert posted == 0
        assert held >= journalled > 0
        refused = await running.chat(steered(prompt_tokens=100), max_tokens=150)
        assert refused.status_code == 429
        first.cancel()
        await running.until(lambda: running.of(Settled))
        posted, held = (await allowances(running))["lim_money"]
        assert held == 0
        assert 0 < posted <= 450_000


@scenario
async def test_a_close_without_a_byte_is_asked_for_where_that_can_be(tmp_path: Path) -> None:
    """The next place answers at once; what the first one did with the call its provider will say."""
    async with places(tmp_path, "one", "two", lookup="/simulator/truth/{id}") as (running, _):
        await script(running, {"model": "sim-one", "steer": {"fault": "reset_after_head"}})
        answer = await running.chat()
        (turn,) = running.of(Redirected)
        assert (answer.status_code, answer.headers["x-faregate-deployment"]) == (200, "two")
        assert turn.left is not None
        assert list(running.gate.unknowns) == [turn.left.id]


@scenario
async def test_a_rate_of_a_place_counts_what_was_sent_there(tmp_path: Path) -> None:
    """Two calls a minute reach the first place, whatever came of them; all others go on to the next."""
    limit = Limit("lim_rate", {"deployment": "one"}, (), "requests", 2, "minute")
    async with places(tmp_path, "one", "two", limits=(limit,)) as (running, _):
        await script(running, {"model": "sim-one", "steer": {"status": 503}})
        answers = [await running.chat() for _ in range(8)]
        assert {answer.status_code for answer in answers} == {200}
        assert [record["model"] for record in await truth(running)].count("sim-one") == 2


@scenario
async def test_a_caller_who_is_led_elsewhere_gets_nowhere_else(tmp_path: Path) -> None:
    """What its places cannot do is not done at the places of others."""
    only = place("one", operations=("chat.completions",)), place("two")
    selected = (Selection((("team", "research"),), ("one",)),)
    routes = (Route("sim-1", ("one", "two"), ("two",), selected),)
    async with places(tmp_path, "one", "two", deployments=only, routes=routes) as (running, _):
        chat = await running.chat()
        body = {"model": "sim-1", "input": "some words"}
        headers = {"authorization": f"Bearer {secret('caller')}"}
        embeddings = await running.client.post("/v1/embeddings", json=body, headers=headers)
        assert chat.headers["x-faregate-deployment"] == "one"
        assert (embeddings.status_code, embeddings.json()["error"]["code"]) == (404, "model_not_found")
        assert len(await truth(running)) == 1


@scenario
async def test_a_callers_own_deadline_says_nothing_of_the_provider(tmp_path: Path) -> None:
    """However many callers wait a tenth of a second only, the place does not rest."""
    async with places(tmp_path, "one", breaker=BreakerRule(failures=3, percent=0)) as (running, _):
        await script(running, {"nth": [1, 6], "steer": {"hold": True}})
        hurried = await asyncio.gather(*(running.chat(headers={"x-faregate-timeout": "100ms"}) for _ in range(6)))
        assert {answer.status_code for answer in hurried} == {504}
        assert (await running.chat()).status_code == 200


@scenario
async def test_one_call_alone_dials_a_place_that_rested(tmp_path: Path) -> None:
    """While its connection is opened all others are refused, or go elsewhere; the provider sees one."""
    breaker = BreakerRule(failures=1, trip=SECOND // 5)
    async with places(tmp_path, "one", slow="one", breaker=breaker) as (running, tunnel):
        tunnel.open.set()
        await script(running, {"nth": 1, "steer": {"status": 503}})
        assert (await running.chat()).status_code == 503
        for target in running.gate.snapshot.targets.values():
            target.pool.close_idle(0.5)
            target.pool.close_idle(1e9)
        tunnel.open.clear()
        health = running.gate.snapshot.targets["one"].health
        await running.until(lambda: health.may(running.gate.monotonic_nanos()))
        probe = asyncio.create_task(running.chat())
        await running.until(lambda: tunnel.asked == 2)
        others = await asyncio.gather(*(running.chat() for _ in range(10)))
        assert {answer.json()["error"]["code"] for answer in others} == {"upstream_resting"}
        tunnel.open.set()
        assert (await probe).status_code == 200
        assert len(await truth(running)) == 2
        assert (await running.chat()).status_code == 200


@scenario
async def test_a_call_that_all_refuse_stops_nobody_else(tmp_path: Path) -> None:
    """A 403 that each provider answers to what is in one call rests none of them."""
    async with places(tmp_path, "one", "two", breaker=BreakerRule()) as (running, _):
        poison = [{"model": f"sim-{name}", "nth": 1, "steer": {"status": 403}} for name in ("one", "two")]
        await script(running, *poison)
        assert (await running.chat()).status_code == 403
        assert (await running.chat()).headers["x-faregate-deployment"] == "one"


@scenario
async def test_hundreds_of_full_places_end_in_a_refusal(tmp_path: Path) -> None:
    """Each is looked at in turn, and the caller is told of the last one's limit."""
    many = tuple(deployment(f"d{n}") for n in range(300))
    limit = Limit("lim_each", {}, ("deployment",), "requests", 0, "minute")
    routes = (Route("sim-1", tuple(each.name for each in many)),)
    async with running_gate(tmp_path, deployments=many, routes=routes, limits=(limit,)) as running:
        answer = await running.chat()
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")


def along(*members: Member) -> dict[str, Any]:
    return {"routes": (Route("sim-1", ("one",), ("pool",)),), "pools": (RoutedPool(PoolRule("pool", members)),)}


@scenario
async def test_what_a_step_adds_is_counted(tmp_path: Path) -> None:
    """Tools that the way puts into the body are part of what is bounded, also where the prompt is counted."""
    tools = json.dumps(
        [{"type": "function", "function": {"name": f"f{n}", "description": "what it is for " * 5}} for n in range(20)]
    )
    fields = along(Member("one", params=(("tools", tools),))) | {"limits": (money(5 * 10**6),)}
    async with places(tmp_path, "one", **fields) as (running, _):
        await running.chat(max_tokens=10)
        assert running.of(Intended)[0].held.input_tokens > 300


SEARCH = RateCard(
    "at-one",
    "gpt-4o-search-preview",
    "v1",
    (
        Tier(
            0,
            (
                Rate("input_tokens", 10**12, 1_000_000),
                Rate("output_tokens", 2 * 10**12, 1_000_000),
                Rate("web_searches", 25 * 10**12, 1_000),
            ),
        ),
    ),
)


@pytest.mark.parametrize("room", [10**13, 3 * 10**8])
@scenario
async def test_params_do_not_hide_what_a_model_may_use(tmp_path: Path, room: int) -> None:
    """A model that searches holds its searches and its whole context, and the cap that the way sets."""
    searching = (place("one", model="gpt-4o-search-preview", cards=(SEARCH,), context_tokens_max=128_000),)
    fields = along(Member("one", params=(("max_tokens", "4000"),)))
    fields |= {"deployments": searching, "limits": (money(room),)}
    async with places(tmp_path, "one", **fields) as (running, _):
        answer = await running.chat(max_tokens=10)
        assert answer.status_code == 200, answer.text
        held = running.of(Intended)[0].held
        assert held.output_tokens == 4_000
        assert held.input_tokens >= 128_000


BROKEN = [
    b"HTTP/1.1 500 No\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{}",
    b"HTTP/1.1 429 No\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{",
]


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[str]:
    """A provider that says the same to everybody and hangs up; its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
            writer.write(answer)
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


@asynccontextmanager
async def behind(folder: Path, answer: bytes, *names: str, **fields: Any) -> AsyncIterator[RunningGate]:
    """A gate whose first place is at a provider that says ``answer``; the others are well."""
    async with places(folder, *names, **fields) as (running, _), saying(answer) as url:
        accounts = [provider(url, name="at-one", **QUICK)]
        accounts += [provider(running.simulator.url + "/v1", name=f"at-{name}") for name in names[1:]]
        catalogue = msgspec.structs.replace(running.gate.snapshot.catalogue, providers=tuple(accounts))
        await running.ask(Load(3, catalogue=catalogue))
        yield running


@pytest.mark.parametrize("answer", BROKEN)
@scenario
async def test_an_error_that_breaks_off_is_an_error(tmp_path: Path, answer: bytes) -> None:
    """It costs nothing and is tried elsewhere, as one that was told to its end."""
    async with behind(tmp_path / "two", answer, "one", "two") as running:
        found = await running.chat()
        assert (found.status_code, found.headers["x-faregate-attempts"]) == (200, "2")
    async with behind(tmp_path / "one", answer, "one") as running:
        assert (await running.chat()).status_code == 502
        assert [(each.charge, each.cost) for each in running.of(Settled)] == [(0, 0)]


@scenario
async def test_a_call_that_fails_in_two_ways_counts_once(tmp_path: Path) -> None:
    """An error that breaks off is one failure of its place."""
    breaker = BreakerRule(failures=4, percent=0)
    async with behind(tmp_path, BROKEN[0], "one", breaker=breaker) as running:
        statuses = [(await running.chat()).status_code for _ in range(5)]
        assert statuses == [502, 502, 502, 502, 503]


@scenario
async def test_a_good_head_is_no_good_answer(tmp_path: Path) -> None:
    """A place whose answers all break off after a good head rests, however large a share must fail."""
    half = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"id":'
    breaker = BreakerRule(failures=3, percent=90)
    async with behind(tmp_path, half, "one", breaker=breaker) as running:
        statuses = [(await running.chat()).status_code for _ in range(5)]
        assert statuses == [502, 502, 502, 503, 503]


@scenario
async def test_tries_are_told_where_the_last_one_ends_in_an_error_of_ours(tmp_path: Path) -> None:
    """Two answers that break off are two tries."""
    rule = RetryRule(1, again=True, interval=1, reasons=("upstream_truncated",))
    half = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"
    async with behind(tmp_path, half, "one", retry=rule) as running:
        answer = await running.chat()
        assert (answer.status_code, answer.headers["x-faregate-attempts"]) == (502, "2")


@scenario
async def test_a_cap_of_the_way_goes_by_the_callers_name_of_it(tmp_path: Path) -> None:
    """Who says max_completion_tokens gets the way's max_tokens under that name, and one cap is sent."""
    fields = along(Member("one", params=(("max_tokens", "7"),)))
    async with places(tmp_path, "one", **fields) as (running, _):
        answer = await running.chat(steered(output_tokens=30), max_tokens=None, max_completion_tokens=900)
        assert answer.status_code == 200, answer.text
        assert running.of(Settled)[0].usage.output_tokens == 7
