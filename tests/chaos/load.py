"""The load of a chaos run: bounded raw-socket clients that call, half of them streaming, and log what they saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Sequence
from typing import NamedTuple

from chaos.evidence import Seen

CALL_SECONDS = 8.0
MODEL = "sim-1"
OUTPUT_CAP = 64
ABORTS = 0.1
#: A client whose limit is spent asks again only now and then, and leaves the machine to the others.
REFUSED_SECONDS = 0.2
#: The longest answer takes 0.4 s; a busy machine is given more.
LEFT_SECONDS = 1.5
#: Between a failed connection and the next try.
PAUSE_SECONDS = (0.05, 0.15)


class Tenant(NamedTuple):
    """Who calls: a name for the log, and the credential."""

    name: str
    secret: str


class Load:
    """Clients that call one gateway until they are told to stop; ``seen`` is their log."""

    def __init__(self, port: int, tenants: Sequence[Tenant], clients: int, seed: int) -> None:
        self._port = port
        self._tenants = tenants
        self._clients = clients
        self._seed = seed
        self._stopping = asyncio.Event()
        self.seen: list[Seen] = []
        self.in_flight = 0
        self.in_flight_max = 0

    async def run(self) -> None:
        """Run all clients until ``stop``; each ends its current call."""
        async with asyncio.TaskGroup() as group:
            for n in range(self._clients):
                group.create_task(self._client(n))

    def _ended(self) -> None:
        self.in_flight -= 1

    def stop(self) -> None:
        """No new calls from now on."""
        self._stopping.set()

    async def _client(self, n: int) -> None:
        chance = random.Random(f"{self._seed}/{n}")
        tenant = self._tenants[n % len(self._tenants)]
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stopping.is_set():
            stream = chance.random() < 0.5
            call = _Call(tenant, stream, chance)
            try:
                if connection is None:
                    connection = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self._port), CALL_SECONDS)
                self.in_flight += 1
                self.in_flight_max = max(self.in_flight_max, self.in_flight)
                try:
                    async with asyncio.timeout(CALL_SECONDS):
                        await call.make(*connection)
                finally:
                    # A call that its client left is still under way until the gateway has read it to its end.
                    asyncio.get_running_loop().call_later(LEFT_SECONDS if call.left else 0.0, self._ended)
            except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
                # The gateway died under the call, which is what this rig is for; what was seen until then counts.
                _close(connection)
                connection = None
            if call.sent:
                self.seen.append(Seen(call.request_id, tenant.name, stream, call.status, call.whole))
            if call.status == 429:
                await asyncio.sleep(REFUSED_SECONDS)
            elif not call.whole or call.status != 200:
                await asyncio.sleep(chance.uniform(*PAUSE_SECONDS))
            if call.last:
                _close(connection)
                connection = None
        _close(connection)


def _close(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None) -> None:
    if connection is not None:
        with contextlib.suppress(OSError):
            connection[1].close()


class _Call:
    """One call and what was seen of its answer so far."""

    def __init__(self, tenant: Tenant, stream: bool, chance: random.Random) -> None:
        steering = {"output_tokens": chance.randint(3, 60), "first_delay_ms": chance.randint(0, 40)}
        if stream:
            steering["delay_ms"] = chance.randint(0, 6)
        body = {
            "model": MODEL,
            "messages": [
                {"role": "user", "content": f"{'word ' * chance.randint(1, 60)}\nsim: {json.dumps(steering)}"}
            ],
            "max_tokens": OUTPUT_CAP,
            "stream": stream,
        }
        payload = json.dumps(body).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {tenant.secret}\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        self._bytes = head.encode() + payload
        self.sent = False
        self.request_id = ""
        self.status = 0
        self.whole = False
        self.last = False
        self.left = False
        #: A few clients leave in the middle of a stream: their calls must be booked like all others.
        self._leaves = stream and chance.random() < ABORTS

    async def make(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send it and read the answer to its end."""
        self.sent = True
        writer.write(self._bytes)
        await writer.drain()
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.request_id = headers.get("x-faregate-request-id", "")
        self.last = headers.get("connection", "").lower() == "close"
        if "content-length" in headers:
            await reader.readexactly(int(headers["content-length"]))
            self.whole = True
            return
        done = False
        if self._leaves:
            self.last = self.left = True
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            chunk = await reader.readexactly(size + 2)
            done = done or b"data: [DONE]" in chunk
        await reader.readexactly(2)
        # A stream that ends in an error event is told to its client as cut, and is not whole.
        self.whole = done
