"""A little HTTP service that does as its query says: for tests of what stands in front of it.

Runs in a test's loop (``little_service``) or as a process of its own (``python tests/little_service.py``, which prints
its port). It writes its answers byte by byte itself, so that it can be as wrong as any service. Fields of the query:

``status`` of the answer, ``size`` of its body (default: the request's body comes back), ``units`` and ``flops`` for the
headers that tell them, ``wait`` milliseconds before the head and ``gap`` between pieces, ``pieces`` of a chunked body,
``end`` (``never``, ``silent``, ``reset``, ``half_head``, ``half_body``) for how it fails, ``say`` for text in its body.
"""

import asyncio
import contextlib
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import parse_qsl


class Seen(NamedTuple):
    """One request as it came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for header, value in self.headers if header == name]


class LittleService:
    """The service: ``url`` says where it is, ``seen`` what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[Seen] = []
        #: Requests that have come, also those that are not answered yet.
        self.begun = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop, with everything that is open."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = [
            (name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:-2])
        ]
        length = next((int(value) for name, value in headers if name == "content-length"), 0)
        body = await reader.readexactly(length)
        self.begun += 1
        seen = Seen(method, target, headers, body)
        if target == "/_seen":
            told = [each._replace(body=each.body.decode("latin-1"))._asdict() for each in self.seen]  # type: ignore[arg-type]
            await self._write(writer, _head(200, {}, len(data := json.dumps(told).encode())) + data)
            return True
        self.seen.append(seen)
        return await self._answer(writer, seen, dict(parse_qsl(target.partition("?")[2])))

    async def _answer(self, writer: asyncio.StreamWriter, seen: Seen, wish: dict[str, str]) -> bool:
        status, end = int(wish.get("status", "200")), wish.get("end", "")
        body = b"x" * int(wish["size"]) if "size" in wish else seen.body
        body += wish.get("say", "").encode()
        if wish.get("say") == "secret":
            body += "".join(value for name, value in seen.headers if name in ("authorization", "x-key")).encode()
        told = {name: wish[name] for name in ("units", "flops") if name in wish}
        extra: dict[str, str] = {f"x-{name}": value for name, value in told.items()}
        extra |= {"content-type": wish.get("type", "application/octet-stream"), "server": "little", "etag": '"e"'}
        if "location" in wish:
            extra["location"] = wish["location"]
        if "set" in wish:
            extra[wish["set"]] = "set-by-service"
        await asyncio.sleep(int(wish.get("wait", "0")) / 1000)
        if end == "never":
            await asyncio.sleep(60)
        if end == "silent":
            return False
        if end == "reset":
            _reset(writer)
            return False
        pieces = int(wish.get("pieces", "0"))
        if status in (204, 304):
            await self._write(writer, _head(status, extra, None))
            return True
        if not pieces:
            whole = _head(status, extra, len(body)) + body
            if end == "half_head":
                whole = whole[:20]
            if end == "half_body":
                whole = whole[: -len(body) // 2]
            await self._write(writer, whole)
            return not end
        await self._write(writer, _head(status, extra | {"transfer-encoding": "chunked"}, None))
        size = -(-len(body) // pieces)
        for at in range(0, len(body), size):
            piece = body[at : at + size]
            await asyncio.sleep(int(wish.get("gap", "0")) / 1000)
            await self._write(writer, b"%x\r\n%b\r\n" % (len(piece), piece))
            if end == "half_body" and at:
                return False
        await self._write(writer, b"0\r\n\r\n")
        return True

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close as a crashed process does: with a reset, not with an end."""
    told = writer.get_extra_info("socket")
    told.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _head(status: int, headers: dict[str, str], length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"content-length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@contextlib.asynccontextmanager
async def little_service() -> AsyncIterator[LittleService]:
    """Run one for the block."""
    service = LittleService()
    await service.start()
    try:
        yield service
    finally:
        await service.close()


async def main() -> None:
    """Run as a process: print the port, serve until standard input ends."""
    async with little_service() as service:
        print(service.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
