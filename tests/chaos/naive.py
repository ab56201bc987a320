"""The negative control: a gateway as one would write it on a Friday. It is a part of the rig, never of the product.

It checks what was spent before a call, adds the cost after the answer, and writes its records every 250 ms. So it
must lose records when it is killed and overshoot its limit when calls run side by side; a checker that does not
notice is broken.

    python naive.py PORT UPSTREAM_PORT RECORDS_FILE LIMIT_NANOS INPUT_NANOS OUTPUT_NANOS
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import uuid
from pathlib import Path

FLUSH_SECONDS = 0.25
#: The tenant with a limit; any other may spend what it likes.
LIMITED = "tight"
USAGE = re.compile(rb'"prompt_tokens":\s*(\d+).*?"completion_tokens":\s*(\d+)', re.DOTALL)


class Naive:
    """Spending in memory, records in a list that is written now and then."""

    def __init__(self, upstream: int, file: Path, limit: int, prices: tuple[int, int]) -> None:
        self.upstream = upstream
        self.file = file
        self.limit = limit
        self.prices = prices
        self.waiting: list[dict[str, object]] = []
        self.spent: dict[str, int] = {}
        #: A call whose client has left is read to its end all the same; nobody else would hold its task then.
        self.serving: set[asyncio.Task[None]] = set()
        for line in file.read_text().splitlines() if file.exists() else ():
            record = json.loads(line)
            self.spent[record["tenant"]] = self.spent.get(record["tenant"], 0) + record["cost_nanos"]

    async def flush(self) -> None:
        """Write the records of the last quarter of a second."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            records, self.waiting = self.waiting, []
            with self.file.open("a") as out:
                out.writelines(json.dumps(record) + "\n" for record in records)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a new connection until it has come to its end."""
        task = asyncio.ensure_future(self.serve(reader, writer))
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer calls on one connection until it closes."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                tenant = re.search(rb"Bearer (\S+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                await self.call(tenant[1].decode() if tenant else "", body, writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def call(self, tenant: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Check, call, pass on, and only then remember."""
        request_id = f"req_{uuid.uuid4().hex}"
        if tenant == LIMITED and self.spent.get(tenant, 0) >= self.limit:
            writer.write(
                b"HTTP/1.1 429 Too Many\r\nx-faregate-request-id: %b\r\ncontent-length: 0\r\n\r\n" % request_id.encode()
            )
            return
        if json.loads(body)["stream"]:
            body = body[:-1] + b', "stream_options": {"include_usage": true}}'
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        up_writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: sim\r\ncontent-type: application/json\r\n"
            b"connection: close\r\nauthorization: Bearer sk-upstream\r\n"
            b"x-client-request-id: %b\r\ncontent-length: %d\r\n\r\n"
            % (request_id.encode(), len(body)) + body
        )  # fmt: skip
        head = await up_reader.readuntil(b"\r\n\r\n")
        head = re.sub(rb"connection: *close\r\n", b"", head, flags=re.IGNORECASE)
        writer.write(head[:-2] + b"x-faregate-request-id: %b\r\n\r\n" % request_id.encode())
        come = b""
        while piece := await up_reader.read(65536):
            come += piece
            if not writer.is_closing():
                writer.write(piece)
        up_writer.close()
        if usage := USAGE.search(come):
            cost = (int(usage[1]) * self.prices[0] + int(usage[2]) * self.prices[1]) // 1_000_000
            self.spent[tenant] = self.spent.get(tenant, 0) + cost
            tokens = {"input_tokens": int(usage[1]), "output_tokens": int(usage[2])}
            self.waiting.append({"request_id": request_id, "tenant": tenant, "cost_nanos": cost, **tokens})


async def main(port: int, upstream: int, file: Path, limit: int, prices: tuple[int, int]) -> None:
    """Serve until killed."""
    naive = Naive(upstream, file, limit, prices)
    for _ in range(200):
        with contextlib.suppress(OSError):
            server = await asyncio.start_server(naive.accept, "127.0.0.1", port)
            break
        # Another test tries just now whether the port is free.
        await asyncio.sleep(0.01)
    else:
        raise SystemExit(f"port {port} stays taken")
    async with server:
        await asyncio.gather(server.serve_forever(), naive.flush())


if __name__ == "__main__":
    arguments = sys.argv[1:]
    numbers = list(map(int, arguments[3:]))
    asyncio.run(main(int(arguments[0]), int(arguments[1]), Path(arguments[2]), numbers[0], (numbers[1], numbers[2])))
