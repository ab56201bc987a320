"""A real gate in this process: real sockets, journal and simulator, with the console's part played by the test."""

import asyncio
import contextlib
import functools
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from faregate import control
from faregate.assembly.clock import SystemClock
from faregate.catalogue.tokens import ToktokCounter
from faregate.config.patterns import finder
from faregate.config.settings import GateSettings
from faregate.control import (
    Allowances,
    AskAllowances,
    Catalogue,
    Deployment,
    Key,
    Limit,
    Load,
    Opening,
    Provider,
    Route,
    RoutedPool,
)
from faregate.core import keys
from faregate.core.ledger.events import Event
from faregate.core.ledger.oracle import Oracle
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.charging import ChargeRule
from faregate.core.routing.health import DEFAULT_BREAKER, BreakerRule
from faregate.core.routing.retry import RetryRule
from faregate.core.tokens import Identity
from faregate.journal.answers import FileAnswerStore
from faregate.journal.append import FileJournal
from faregate.journal.contents import ContentSpool
from faregate.journal.objects import FileObjectStore
from faregate.journal.read import FileJournalReader
from faregate.ports import Clock, JournalWriter, ResponseStore
from faregate.proxy.contents import ContentKeeping
from faregate.proxy.gate import Gate
from faregate.simulator import Simulator
from faregate.simulator import serve as simulate
from loopback import NO_TLS

PEPPER = bytes(range(32))

#: 1 and 2 micro-dollars a token: 1,000 and 2,000 nano-dollars.
CARD = RateCard(
    "sim",
    "sim-1",
    "sim/sim-1@test",
    (
        Tier(
            0, (Rate("input_tokens", 1_000_000_000_000, 1_000_000), Rate("output_tokens", 2_000_000_000_000, 1_000_000))
        ),
    ),
)
OPERATIONS = ("chat.completions", "completions", "embeddings")


def secret(name: str) -> str:
    """The same well-formed key for the same name."""
    return keys.make(hashlib.sha256(name.encode()).digest())


def key(name: str = "caller", **fields: Any) -> Key:
    """A caller's key, opened by ``secret(name)``."""
    digest = keys.digest(PEPPER, secret(name))
    defaults: dict[str, Any] = {"organization": "default", "team": "research", "project": "search"}
    return Key(f"key_{name}", name, {digest: 0}, **(defaults | fields))


def provider(url: str, **fields: Any) -> Provider:
    """The simulator as a provider."""
    defaults: dict[str, Any] = {"kind": "openai", "credential": {"authorization": "Bearer sk-provider"}}
    return Provider(name=fields.pop("name", "sim"), base_url=url, **(defaults | fields))


def deployment(name: str = "sim/sim-1", **fields: Any) -> Deployment:
    """One model at the simulator."""
    defaults: dict[str, Any] = {
        "provider": "sim",
        "upstream_model": "sim-1",
        "model": "sim-1",
        "cards": (CARD,),
        "output_tokens_max": 16_384,
        "cap_field": "max_completion_tokens",
        "encoding": "o200k_base",
        "operations": OPERATIONS,
    }
    return Deployment(name=name, **(defaults | fields))


class RunningGate(NamedTuple):
    """A gate that accepts calls, and everything around it."""

    gate: Gate
    url: str
    simulator: Simulator
    client: httpx2.AsyncClient
    folder: Path

    def events(self) -> list[Event]:
        """The journal so far."""
        records = FileJournalReader(self.folder / "journal").read(0, 1 << 30)
        return [record.event for record in records]

    def of(self, kind: type) -> list[Any]:
        """The journal's events of one kind."""
        return [event for event in self.events() if type(event) is kind]

    async def ask(self, body: control.Question) -> control.Reply:
        """Say one thing over the control socket, as the console does."""
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "gate.sock"))
        writer.write(control.encode(control.Ask(1, body)) + b"\n")
        answer = control.decode_answer(await reader.readline())
        writer.close()
        await writer.wait_closed()
        return answer.body

    async def chat(self, text: str = "Say hello.", *, name: str = "caller", **fields: Any) -> httpx2.Response:
        """One chat call with the key of that name."""
        headers = fields.pop("headers", {})
        body = {"model": "sim-1", "messages": [{"role": "user", "content": text}], "max_tokens": 50} | fields
        return await self.client.post(
            "/v1/chat/completions",
            json={field: value for field, value in body.items() if value is not None},
            headers={"authorization": f"Bearer {secret(name)}"} | headers,
        )

    async def until(self, condition: Any, seconds: float = 5.0) -> None:
        """Wait for something that happens a moment later."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running_gate(
    folder: Path,
    *,
    limits: Sequence[Limit] = (),
    keys: Sequence[Key] | None = None,
    providers: Sequence[Provider] | None = None,
    deployments: Sequence[Deployment] | None = None,
    routes: Sequence[Route] | None = None,
    stages: dict[str, tuple[str, ...]] | None = None,
    provider_fields: dict[str, Any] | None = None,
    charges: Sequence[ChargeRule] = (),
    identity: Identity | None = None,
    pools: Sequence[RoutedPool] = (),
    breaker: BreakerRule = DEFAULT_BREAKER,
    retry: RetryRule | None = None,
    opened: bool = True,
    journal_kind: Callable[[FileJournal], JournalWriter] = lambda journal: journal,
    clock: Clock | None = None,
    responses: ResponseStore | None = None,
    caching: Sequence[tuple[str, str, str, str]] = (),
    **settings: Any,
) -> AsyncIterator[RunningGate]:
    """Start a simulator and a gate that calls it; both end with the block."""
    simulator = await simulate()
    os.makedirs(folder, exist_ok=True)
    loop = asyncio.get_running_loop()
    clock = clock or SystemClock()
    journal = journal_kind(FileJournal(folder / "journal", clock, loop.call_soon_threadsafe))
    answers = FileAnswerStore(folder / "answers", clock.wall_nanos())
    objects = FileObjectStore(folder / "objects", clock.wall_nanos())
    defaults: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "data_dir": str(folder)}
    gate = Gate(
        GateSettings(peppers=(("p1", PEPPER.hex()),), **(defaults | settings)),
        clock,
        journal,
        ToktokCounter(),
        answers,
        objects,
        ContentKeeping(ContentSpool(folder / "contents", clock.wall_nanos), finder),
        responses,
    )
    port: asyncio.Future[int] = loop.create_future()
    serving = asyncio.create_task(gate.serve(port.set_result))
    url = f"http://127.0.0.1:{await asyncio.wait_for(port, 5)}"
    places = deployments if deployments is not None else (deployment(),)
    catalogue = Catalogue(
        tuple(providers or (provider(simulator.url + "/v1", **(provider_fields or {})),)),
        tuple(places),
        tuple(routes or (Route(place.model, (place.name,)) for place in places)),
        stages or {},
        ("search", "other"),
        charges=tuple(charges),
        identity=identity,
        pools=tuple(pools),
        breaker=breaker,
        retry=retry,
        caching=tuple(caching),
    )
    async with httpx2.AsyncClient(verify=NO_TLS, base_url=url, timeout=20) as client:
        running = RunningGate(gate, url, simulator, client, folder)
        load = Load(1, True, tuple(keys if keys is not None else (key(),)), (), tuple(limits), (), catalogue)
        loaded = await running.ask(load)
        assert isinstance(loaded, control.Loaded), loaded
        if opened:
            await running.ask(Opening(loaded.position, loaded.pending, (), first=True))
        try:
            yield running
        finally:
            await client.aclose()
            gate.drain()
            await asyncio.wait_for(serving, 10)
            await simulator.close()


def scenario(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in a loop of its own, its fixtures as usual."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(test(*arguments, **fixtures))

    return run


def steered(text: str = "Say hello.", **steering: Any) -> str:
    """A user message that steers the simulator's answer."""
    return f"{text}\nsim: {json.dumps(steering)}"


def money(amount: int, window: str = "lifetime", **fields: Any) -> Limit:
    """A limit in nano-dollars on the team of the default key."""
    defaults: dict[str, Any] = {"selector": {"team": "research"}, "each": (), "unit": "usd"}
    return Limit(fields.pop("id", "lim_money"), **(defaults | fields), amount=amount, window=window)


async def script(running: RunningGate, *rules: dict[str, Any]) -> None:
    """Give the simulator a script."""
    async with httpx2.AsyncClient(verify=NO_TLS, base_url=running.simulator.url) as client:
        answer = await client.post("/simulator/script", json=list(rules))
        assert answer.status_code < 300, answer.text


async def truth(running: RunningGate) -> list[dict[str, Any]]:
    """What the simulator says it served."""
    async with httpx2.AsyncClient(verify=NO_TLS, base_url=running.simulator.url) as client:
        answer = await client.get("/simulator/truth")
        data: list[dict[str, Any]] = answer.json()["data"]
        return data


def books_agree(running: RunningGate) -> Oracle:
    """The ledger as a fold of the journal: nothing is open, and every posting has its other side."""
    oracle = Oracle(running.events())
    totals = oracle.totals()
    assert (totals.sum, totals.open, totals.held) == (0, 0, 0)
    return oracle


async def allowances(running: RunningGate) -> dict[str, tuple[int, int]]:
    """Posted and held of every limit."""
    answer = await running.ask(AskAllowances())
    assert isinstance(answer, Allowances)
    return {view.limit: (view.posted, view.held) for view in answer.allowances}
