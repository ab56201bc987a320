"""The chaos rig: a load, a nemesis that kills, a sampler that watches the limits, and the evidence for the checker.

The same load and the same checker judge Faregate and the naive gateway. Everything random comes from one printed seed.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from chaos.evidence import Booked, Evidence, Sample
from chaos.load import MODEL, Load, Tenant
from installation import CONFIG, PRICES, Installation, Refused, free_port, nanos

#: Unknown calls are asked for once no answer can come any more, so the provider's deadlines are short here; what a
#: client left is read to its end, so that its cost is known exactly. A load without end on a key without a past is what
#: the anomaly brake is for, so that its floor is far above it.
CHAOS_CONFIG = 'limits: {{brake: {{floor: "10000"}}}}\n' + CONFIG.replace(
    '    lookup: {{path: "{lookup}"}}\n',
    '    lookup: {{path: "{lookup}"}}\n    client_gone: drain\n'
    "    timeouts: {{connect: 1s, first_byte: 2s, idle: 2s, total: 3s}}\n",
)
SAMPLE_SECONDS = 0.1
RESOLVE_SECONDS = 60.0
PAGE = 1000
PRICE = (nanos(PRICES[MODEL][0]), nanos(PRICES[MODEL][1]))


class Plan(NamedTuple):
    """How much chaos: ``tree_every`` so many kills take the supervisor and both processes down at once."""

    kills: int
    seed: int
    clients: int = 16
    #: Seconds of life between ready and the kill.
    life: tuple[float, float] = (0.1, 0.6)
    tree_every: int = 4
    #: So many kills of the data plane are followed by one of the console, in the middle of its projection.
    console_every: int = 5
    durability: str = "process"
    #: Dollars: one tenant reaches its limit, the other never does, so that calls are under way at every kill.
    tight: str = "0.25"
    wide: str = "1000"

    def limits(self) -> dict[str, int]:
        """Tenant → limit in nano-dollars."""
        return {"tight": nanos(self.tight), "wide": nanos(self.wide)}


def run_faregate(folder: Path, plan: Plan) -> Evidence:
    """Load one real installation, kill it as planned, let it recover, and collect the evidence."""
    with Installation(folder, config=f"durability: {plan.durability}\n{CHAOS_CONFIG}") as running:
        return asyncio.run(_Run(running, plan).run())


class _Run:
    """One run over an installation."""

    def __init__(self, running: Installation, plan: Plan) -> None:
        self._running = running
        self._plan = plan
        self._samples: list[Sample] = []
        self._unknowns: list[int] = []
        self._recoveries: list[float] = []
        self._unknown_ids: set[str] = set()
        self._keys: dict[str, str] = {}
        self._limits: dict[str, str] = {}

    async def run(self) -> Evidence:
        """The whole run, from the first call to the last unknown."""
        tenants = [self._tenant("tight", self._plan.tight), self._tenant("wide", self._plan.wide)]
        load = Load(self._running.gateway_port, tenants, self._plan.clients, self._plan.seed)
        async with _background(load.run(), load.stop), _watching(self._sample):
            await self._nemesis()
            # The last life is not cut short: what it serves must be booked as well.
            await asyncio.sleep(self._plan.life[1])
            load.stop()
        verified = await asyncio.to_thread(self._settle)
        return Evidence(
            kills=self._plan.kills,
            truth=self._running.truth(),
            seen=load.seen,
            booked=self._booked(),
            samples=self._samples,
            limits=self._plan.limits(),
            prices={MODEL: PRICE},
            verified=verified,
            in_flight_max=load.in_flight_max,
            unknowns=self._unknowns,
            recoveries=self._recoveries,
        )

    def _tenant(self, name: str, dollars: str) -> Tenant:
        made = self._running.admin("POST", "/api/v1/keys", {"name": name, "project": name})
        self._keys[made["id"]] = name
        words = {"select": {"key": made["id"]}, "unit": "usd", "amount": dollars, "window": "lifetime"}
        self._limits[self._running.admin("POST", "/api/v1/limits", words)["id"]] = name
        return Tenant(name, made["secret"])

    async def _nemesis(self) -> None:
        """Kill at random moments of life, and wait until it lives again."""
        chance = random.Random(self._plan.seed)
        for n in range(1, self._plan.kills + 1):
            await asyncio.sleep(chance.uniform(*self._plan.life))
            died = time.monotonic()
            if n % self._plan.tree_every == 0:
                await asyncio.to_thread(self._running.kill_all)
                await asyncio.to_thread(self._running.start)
            else:
                dead = await asyncio.to_thread(self._running.kill_gate)
                if n % self._plan.console_every == 0:
                    await asyncio.to_thread(self._running.kill_console)
                await asyncio.to_thread(self._reborn, dead)
            self._recoveries.append(time.monotonic() - died)
            await asyncio.to_thread(self._count_unknowns)

    def _reborn(self, dead: int) -> None:
        """Wait for another gate than the dead one, and until it accepts calls."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                if self._running.gate_pid() != dead:
                    break
            except Refused:
                pass
            time.sleep(0.01)
        self._running.wait_ready()

    def _count_unknowns(self) -> None:
        """How many calls this kill made unknown; those of the kills before may wait for their answer still."""
        rows = self._patiently("GET", f"/api/v1/requests?status=unknown&limit={PAGE}")["data"]
        new = {row["id"] for row in rows} - self._unknown_ids
        self._unknown_ids |= new
        self._unknowns.append(len(new))

    def _patiently(self, method: str, path: str) -> Any:
        """An order to a console that may have been killed a moment ago."""
        end = time.monotonic() + RESOLVE_SECONDS
        while True:
            try:
                return self._running.admin(method, path)
            except (OSError, http.client.HTTPException):
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    async def _sample(self) -> None:
        """Read the limits as any admin can, as often as it is useful; a console that is down is asked again."""
        try:
            rows = await asyncio.to_thread(self._running.admin, "GET", "/api/v1/limits")
        except (OSError, http.client.HTTPException, Refused, ValueError):
            return
        for row in rows["data"]:
            if row["id"] in self._limits and row.get("posted") is not None:
                self._samples.append(Sample(self._limits[row["id"]], nanos(row["posted"]), nanos(row["held"])))

    def _settle(self) -> dict[str, Any]:
        """Wait until every unknown was resolved by asking the provider and nothing is held any more."""
        end = time.monotonic() + RESOLVE_SECONDS
        while True:
            verified = self._running.verify()
            settled = not nanos(verified["held"]) and not nanos(verified["unknown"])
            if settled or time.monotonic() > end:
                return verified
            time.sleep(0.3)

    def _booked(self) -> list[Booked]:
        rows: list[Booked] = []
        cursor = ""
        while True:
            page = self._running.admin("GET", f"/api/v1/requests?limit={PAGE}{cursor}")
            rows += [_booked(row, self._keys) for row in page["data"] if row["status"] != "refused"]
            if not page.get("next_cursor"):
                return rows
            cursor = f"&cursor={page['next_cursor']}"


def _booked(row: dict[str, Any], keys: dict[str, str]) -> Booked:
    return Booked(
        row["id"],
        keys[row["key"]],
        row["status"],
        nanos(row["cost"] or "0"),
        row["input_tokens"],
        row["output_tokens"],
        row["usage_source"],
    )


@asynccontextmanager
async def _background(work: Any, stop: Any) -> AsyncIterator[None]:
    """Run ``work`` beside the block, and end both together."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        stop()
        await task


@asynccontextmanager
async def _watching(sample: Any) -> AsyncIterator[None]:
    """Call ``sample`` again and again beside the block."""

    async def again() -> None:
        while True:
            await sample()
            await asyncio.sleep(SAMPLE_SECONDS)

    task = asyncio.ensure_future(again())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run_naive(folder: Path, plan: Plan) -> Evidence:
    """The same load on the naive gateway, killed and started again as planned."""
    with Installation(folder, serve=False) as simulator:
        return asyncio.run(_naive(simulator, plan))


async def _naive(simulator: Installation, plan: Plan) -> Evidence:
    records, port = simulator.folder / "naive.jsonl", free_port()
    limit = plan.limits()["tight"]
    command = [sys.executable, str(Path(__file__).with_name("naive.py")), str(port), str(simulator.simulator_port)]
    command += [str(records), *map(str, (limit, *PRICE))]
    load = Load(port, [Tenant("tight", "tight"), Tenant("wide", "wide")], plan.clients, plan.seed)
    chance = random.Random(plan.seed)
    process = await asyncio.create_subprocess_exec(*command)
    try:
        async with _background(load.run(), load.stop):
            for _ in range(plan.kills):
                await asyncio.sleep(0.4 + chance.uniform(*plan.life))
                process.kill()
                await process.wait()
                process = await asyncio.create_subprocess_exec(*command)
            await asyncio.sleep(1.0)
        await asyncio.sleep(0.5)
    finally:
        process.kill()
        await process.wait()
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    booked = [
        Booked(one["request_id"], one["tenant"], "ok", one["cost_nanos"], one["input_tokens"], one["output_tokens"])
        for one in lines
    ]
    return Evidence(
        kills=plan.kills,
        truth=simulator.truth(),
        seen=load.seen,
        booked=booked,
        samples=[],
        limits=plan.limits(),
        prices={MODEL: PRICE},
        in_flight_max=load.in_flight_max,
    )
