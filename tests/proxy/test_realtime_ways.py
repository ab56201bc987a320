"""Realtime sessions among the deployments of a name: pools, turns, failover before the session is open, breakers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from faregate.control import Load, Route, RoutedPool, Selection
from faregate.core.ledger.events import Intended, Refused, Settled
from faregate.core.routing.choose import Member, PoolRule, Range
from faregate.core.routing.health import SECOND, BreakerRule
from gates import OPERATIONS, RunningGate, deployment, key, provider, running_gate, scenario, script, secret, steered
from realtimes import (
    CARD,
    SILENCE,
    SPEECH,
    WHISPER,
    client_of,
    hears,
    places,
    raw,
    says,
    talking,
    turn,
    until,
)

NAMES = ("one", "two", "three")
HEARD: Any = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "audio": {"input": {"transcription": {"model": "hear2"}}},
}
BREAKER = BreakerRule(failures=1, trip=60 * SECOND)


def members(*names: str) -> tuple[Member, ...]:
    return tuple(Member(name) for name in names or NAMES)


@contextlib.asynccontextmanager
async def pooled(
    folder: Path,
    rule: PoolRule,
    *selected: Selection,
    breaker: BreakerRule = BREAKER,
    urls: dict[str, str] | None = None,
    **fields: Any,
) -> AsyncIterator[RunningGate]:
    """Three places for sessions behind the name ``sim-1``, each at an account and under a model name of its own."""
    places = tuple(
        deployment(
            name,
            upstream_model=f"sim-{name}",
            provider=f"at-{name}",
            cards=(CARD,),
            output_tokens_max=4_096,
            context_tokens_max=fields.pop(f"window_{name}", 32_000),
            operations=(*OPERATIONS, "realtime"),
        )
        for name in NAMES
    )
    route = Route("sim-1", NAMES, ("pool",), selected)
    pool = RoutedPool(rule._replace(name="pool"), breaker)
    async with running_gate(folder, deployments=places, routes=(route,), pools=(pool,), **fields) as running:
        url = running.simulator.url + "/v1"
        accounts = tuple(provider((urls or {}).get(name, url), name=f"at-{name}") for name in NAMES)
        catalogue = msgspec.structs.replace(running.gate.snapshot.catalogue, providers=accounts)
        await running.ask(Load(2, catalogue=catalogue))
        yield running


def place_of(session: ClientConnection) -> str:
    """Where a session is."""
    assert session.response is not None
    return session.response.headers["x-faregate-deployment"]


async def places_of(running: RunningGate, count: int, **headers: str) -> list[str]:
    """Where so many sessions are opened, one after the other."""
    found = []
    for _ in range(count):
        async with opened(running, **headers) as session:
            found.append(place_of(session))
    return found


def opened(running: RunningGate, name: str = "caller", **headers: str) -> Any:
    """A session that is open."""
    return raw(running, headers={"authorization": f"Bearer {secret(name)}", **headers})


async def refused(running: RunningGate, name: str = "caller", **headers: str) -> Any:
    """The answer to a session that is not opened."""
    with pytest.raises(InvalidStatus) as told:
        await opened(running, name, **headers)
    return told.value.response


async def to_its_end(connection: AsyncRealtimeConnection) -> None:
    """Read until the session is closed."""
    while True:
        await connection.recv()


@scenario
async def test_sessions_take_turns(tmp_path: Path) -> None:
    """Each in turn, and every one of its calls is of the place where it is."""
    async with pooled(tmp_path, PoolRule("", members(), "round_robin")) as running:
        assert await places_of(running, 6) == [*NAMES, *NAMES]
        async with talking(running) as connection:
            await turn(connection)
            await turn(connection)
        assert [event.who.deployment for event in running.of(Intended)] == ["one", "one"]


@scenario
async def test_sessions_go_where_the_fewest_are(tmp_path: Path) -> None:
    """An open session keeps its place busy, a closed one does not."""
    async with pooled(tmp_path, PoolRule("", members(), "least_busy")) as running:
        async with opened(running) as first, opened(running) as second, opened(running) as third:
            assert {place_of(first), place_of(second), place_of(third)} == set(NAMES)
            left = place_of(second)
            await second.close()
            await running.until(lambda: sum(place.health.busy for place in running.gate.snapshot.routes["sim-1"]) == 2)
            assert await places_of(running, 1) == [left]
        await running.until(lambda: not any(place.health.busy for place in running.gate.snapshot.routes["sim-1"]))


@pytest.mark.parametrize("status", [401, 429, 500, 503])
@scenario
async def test_a_session_that_is_refused_is_opened_elsewhere(tmp_path: Path, status: int) -> None:
    """The caller learns where, and after how many tries; nothing of the first try is charged."""
    async with pooled(tmp_path, PoolRule("", members())) as running:
        await script(running, {"model": "sim-one", "path": "*realtime", "steer": {"status": status}})
        async with opened(running) as session:
            assert place_of(session) == "two"
            assert session.response is not None
            assert session.response.headers["x-faregate-attempts"] == "2"
        assert running.of(Refused) == running.of(Intended) == []


@scenario
async def test_the_first_record_of_a_session_lists_where_it_was_not_accepted(tmp_path: Path) -> None:
    """Once, before the deployment that took it, with the status that each gave."""
    async with pooled(tmp_path, PoolRule("", members())) as running:
        await script(running, {"model": "sim-one", "path": "*realtime", "steer": {"status": 503}})
        async with talking(running) as connection:
            await turn(connection)
            await turn(connection)
        first, second = running.of(Settled)
        assert [(each.deployment, each.http_status) for each in first.attempts] == [("one", 503), ("two", 200)]
        assert [each.deployment for each in second.attempts] == ["two"]


@scenario
async def test_a_refusal_that_would_be_the_same_elsewhere_is_told(tmp_path: Path) -> None:
    """A 400 is the caller's own: no other place is asked."""
    async with pooled(tmp_path, PoolRule("", members())) as running:
        await script(running, {"path": "*realtime", "steer": {"status": 400}})
        assert (await refused(running)).status_code == 400
        await running.until(lambda: running.of(Refused))
        (event,) = running.of(Refused)
        assert event.code == "upstream_protocol"


@scenario
async def test_the_last_refusal_is_told_where_all_refuse(tmp_path: Path) -> None:
    """With its status and what its provider asks to be waited; then all of them rest."""
    async with pooled(tmp_path, PoolRule("", members())) as running:
        await script(running, {"path": "*realtime", "steer": {"status": 503, "headers": {"retry-after": "7"}}})
        answer = await refused(running)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
        rests = await refused(running)
        assert (rests.status_code, b"upstream_resting" in rests.body) == (503, True)
        assert 1 <= int(rests.headers["retry-after"]) <= 7


@pytest.mark.parametrize("fault", ["closed", "silent", "gone", "odd"])
@scenario
async def test_a_place_that_does_not_answer_is_passed_by(tmp_path: Path, fault: str) -> None:
    """No connection, no answer in time, an end of it, an answer that is no WebSocket's: the next one is asked."""

    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if fault == "odd":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        if fault == "silent":
            await reader.read()
        writer.close()

    server = await asyncio.start_server(odd, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    if fault == "closed":
        server.close()
    async with pooled(tmp_path, PoolRule("", members()), urls={"one": url}) as running:
        if fault == "silent":
            catalogue = running.gate.snapshot.catalogue
            first = msgspec.structs.replace(catalogue.providers[0], connect_timeout_ms=100, first_byte_timeout_ms=200)
            providers = (first, *catalogue.providers[1:])
            await running.ask(Load(3, catalogue=msgspec.structs.replace(catalogue, providers=providers)))
        assert await places_of(running, 2) == ["two", "two"]
        (resting,) = running.gate.deployments.told(running.gate.monotonic_nanos())
        assert resting.name == "one"
    server.close()


@scenario
async def test_a_place_that_rests_is_tried_by_one_session(tmp_path: Path) -> None:
    """After its rest a session that opens there closes the breaker."""
    breaker = BREAKER._replace(trip=SECOND // 5)
    async with pooled(tmp_path, PoolRule("", members()), breaker=breaker) as running:
        await script(running, {"model": "sim-one", "path": "*realtime", "nth": 1, "steer": {"status": 500}})
        assert await places_of(running, 2) == ["two", "two"]
        await asyncio.sleep(0.3)
        assert await places_of(running, 2) == ["one", "one"]
        assert running.gate.deployments.resting == 0


@scenario
async def test_a_session_that_its_provider_breaks_off_counts_as_a_failure(tmp_path: Path) -> None:
    """The next session is opened elsewhere; one that the caller closes counts for nothing."""
    async with pooled(tmp_path, PoolRule("", members())) as running:
        assert await places_of(running, 2) == ["one", "one"]
        async with talking(running) as connection:
            await says(connection, steered(fault="reset_mid_stream", output_tokens=50))
            await connection.response.create()
            with pytest.raises(ConnectionClosed):
                await to_its_end(connection)
        assert await places_of(running, 1) == ["two"]
        (event,) = running.of(Settled)
        assert (event.status, event.code) == ("cut", "upstream_truncated")


@scenario
async def test_what_leads_elsewhere_for_some_callers_leads_their_sessions(tmp_path: Path) -> None:
    """A team's own place is for its sessions alone, and a turn does not find the way of others."""
    selected = Selection((("team", "voice"),), ("three",))
    async with pooled(
        tmp_path, PoolRule("", members("one", "two")), selected, keys=(key(), key("v", team="voice"))
    ) as running:
        assert await places_of(running, 2) == ["one", "one"]
        async with opened(running, "v") as session:
            assert place_of(session) == "three"


@scenario
async def test_a_priority_asks_for_its_range(tmp_path: Path) -> None:
    """The header of the upgrade request counts as that of any call."""
    rule = PoolRule("", members("two", "three"), ranges=(Range(0, 100, ("one",)),))
    async with pooled(tmp_path, rule) as running:
        assert await places_of(running, 1) == ["two"]
        assert await places_of(running, 1, priority="5") == ["one"]


@scenario
async def test_a_key_stays_at_its_place(tmp_path: Path) -> None:
    """Where the pool says so, every session of a key is opened at the same one."""
    keys = tuple(key(f"k{n}") for n in range(8))
    async with pooled(tmp_path, PoolRule("", members(), "round_robin", sticky="key"), keys=keys) as running:
        seen: Counter[tuple[str, str]] = Counter()
        for n in [*range(8)] * 2:
            async with opened(running, f"k{n}") as session:
                seen[f"k{n}", place_of(session)] += 1
        assert set(seen.values()) == {2}
        assert len({place for _, place in seen}) > 1


@scenario
async def test_a_place_that_could_hold_no_session_is_passed_by(tmp_path: Path) -> None:
    """Without a known window nothing bounds its turns; the next place has one."""
    async with pooled(tmp_path, PoolRule("", members()), window_one=0) as running:
        assert await places_of(running, 1) == ["two"]
        assert running.gate.deployments.resting == 0


# -- while a session is being opened -----------------------------------------------------------------------------------


@contextlib.contextmanager
def unanswering() -> Iterator[str]:
    """An address whose connections are neither opened nor refused: its backlog is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}/v1"


async def set_up(running: RunningGate, **timeouts: int) -> None:
    """Give each account a secret of its own, and all of them these times."""
    catalogue = running.gate.snapshot.catalogue
    accounts = tuple(
        msgspec.structs.replace(each, credential={"authorization": f"Bearer sk-of-{each.name}"}, **timeouts)
        for each in catalogue.providers
    )
    await running.ask(Load(3, catalogue=msgspec.structs.replace(catalogue, providers=accounts)))


def idle(running: RunningGate) -> bool:
    """No place is busy, or is being tried."""
    healths = [place.health for place in running.gate.snapshot.routes["sim-1"]]
    return not any(health.busy or health.state == "probing" for health in healths)


async def keep_head(seen: list[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Keep what is asked, and answer nothing."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.read()
    writer.close()


@scenario
async def test_a_connection_that_comes_too_late_is_nobodys(tmp_path: Path) -> None:
    """After a standstill two tries are over at once: no place is sent what was meant for another, nor blamed for it."""
    heads: dict[str, list[bytes]] = {"two": [], "three": []}
    async with contextlib.AsyncExitStack() as stack:
        urls = {"one": stack.enter_context(unanswering())}
        for name, seen in heads.items():
            server = await asyncio.start_server(partial(keep_head, seen), "127.0.0.1", 0)
            stack.callback(server.close)
            urls[name] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        running = await stack.enter_async_context(pooled(tmp_path, PoolRule("", members()), urls=urls))
        await set_up(running, connect_timeout_ms=1_000, first_byte_timeout_ms=1_000)
        asyncio.get_running_loop().call_later(0.6, time.sleep, 3)
        with contextlib.suppress(InvalidStatus, TimeoutError):
            async with asyncio.timeout(8):
                await opened(running)
        await running.until(lambda: idle(running))
    for name, seen in heads.items():
        for head in seen:
            assert f"sk-of-at-{name}".encode() in head
            assert f"model=sim-{name}".encode() in head
    assert heads["two"]


@pytest.mark.parametrize("rests", [False, True])
@scenario
async def test_a_client_that_leaves_while_a_session_is_opened_leaves_nothing_behind(
    tmp_path: Path, rests: bool
) -> None:
    """No place stays busy, and where it was the one that tries whether a place is well, the next one may."""
    seen: list[bytes] = []
    server = await asyncio.start_server(partial(keep_head, seen), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    breaker = BREAKER._replace(trip=SECOND // 5)
    async with pooled(tmp_path, PoolRule("", members("one")), urls={"one": url}, breaker=breaker) as running:
        if rests:
            place = running.gate.snapshot.routes["sim-1"][0]
            running.gate.deployments.failed(place, None, 500, "")
            await asyncio.sleep(0.3)
        for n in range(2):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    await opened(running)
            await running.until(lambda: idle(running))
            assert len(seen) == n + 1
    server.close()


@scenario
async def test_a_stop_while_a_session_is_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    """It is refused as draining, and no other place is asked."""
    seen: list[bytes] = []
    server = await asyncio.start_server(partial(keep_head, seen), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with pooled(tmp_path, PoolRule("", members()), urls={"one": url}) as running:
        opening = asyncio.ensure_future(refused(running))
        await running.until(lambda: seen)
        running.gate.drain()
        answer = await opening
        assert (answer.status_code, b"draining" in answer.body) == (503, True)
        assert idle(running)
    server.close()


@pytest.mark.parametrize(("code", "failed"), [(1000, False), (1009, False), (3000, False), (1011, True), (1012, True)])
@scenario
async def test_closes_that_tell_of_the_caller_are_no_failures_of_the_place(
    tmp_path: Path, code: int, failed: bool
) -> None:
    """A message that is too large for its provider rests no deployment; a provider that says that it failed does."""

    async def close(session: ServerConnection) -> None:
        await session.close(code)

    async with serve(close, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/v1"
        async with pooled(tmp_path, PoolRule("", members()), urls={"one": url}) as running:
            async with opened(running) as session:
                with contextlib.suppress(ConnectionClosed):
                    await session.recv()
            await running.until(lambda: idle(running))
            assert (running.gate.deployments.resting == 1) is failed


@scenario
async def test_a_key_that_is_revoked_while_its_session_is_opened_has_none(tmp_path: Path) -> None:
    """The provider may take its time; what holds when it accepts decides."""
    accept = asyncio.Event()

    async def slowly(session: ServerConnection) -> None:
        await session.wait_closed()

    async def when_told(*_: Any) -> None:
        await accept.wait()

    async with serve(slowly, "127.0.0.1", 0, process_request=when_told) as server:
        url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/v1"
        async with pooled(tmp_path, PoolRule("", members()), urls={"one": url}) as running:
            opening = asyncio.ensure_future(refused(running))
            await running.until(lambda: server.connections or not idle(running))
            await running.ask(Load(4, keys=(key(state="revoked"),)))
            accept.set()
            assert (await opening).status_code == 401
            await running.until(lambda: idle(running))


@scenario
async def test_what_transcribes_is_found_along_the_callers_way(tmp_path: Path) -> None:
    """A name that leads a team elsewhere transcribes for it there, and for nobody else; the dear one is not theirs."""
    dear = deployment("dear", upstream_model="whisper-1", model="dear", cards=(WHISPER,), operations=())
    routes = (
        Route("sim-1", ("sim/sim-1",)),
        Route("hear2", ("sim/whisper-1", "dear"), ("sim/whisper-1",), (Selection((("team", "vip"),), ("dear",)),)),
    )
    keys = (key(), key("vip", team="vip"))
    async with running_gate(tmp_path, deployments=(*places(), dear), routes=routes, keys=keys) as running:
        for name in ("caller", "vip"):
            async with client_of(running, name) as client, client.realtime.connect(model="sim-1") as connection:
                await connection.session.update(session=HEARD)
                await until(connection, "session.updated")
                await hears(connection, SPEECH + SILENCE)
                await until(connection, "conversation.item.input_audio_transcription.completed")
                await until(connection, "response.done", "session.updated")
    asked = {
        (event.who.team, event.who.deployment)
        for event in running.of(Intended)
        if event.who.service == "realtime.transcription"
    }
    assert asked == {("research", "sim/whisper-1"), ("vip", "dear")}
