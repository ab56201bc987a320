"""Connections to a provider that a test plays itself, byte by byte."""

import asyncio
import socket
import time
from collections.abc import Callable

from faregate.proxy.answer_watch import AnswerWatch
from faregate.proxy.forward import chunk
from faregate.proxy.stream_queue import StreamQueue
from faregate.proxy.upstream import Pool, UpstreamConnection
from gates import provider

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Told:
    """What a connection told of its answer, in a list that may be shared."""

    def __init__(self, name: str, seen: list[tuple[str, bytes]]) -> None:
        self._name, self._seen = name, seen
        self.fails = False
        #: Chunks that were seen as such without being parsed.
        self.glances = 0

    def answered(self, status: int, head: bytes) -> None:
        """The head."""

    def arrived(self, pieces: list[bytes], whole: bool) -> None:
        """Some of the body."""
        if self.fails:
            raise RuntimeError("not foreseen")
        self._seen.append((self._name, b"".join(pieces) + (b"." if whole else b"")))

    def chunk_arrived(self, framed: bytes, piece: bytes) -> None:
        """Some of the body that was one chunk."""
        assert framed == chunk(piece)
        self.glances += 1
        self.arrived([piece], False)

    def upstream_lost(self, code: str, why: str) -> None:
        """The end."""
        self._seen.append((self._name, code.encode()))

    def mistaken(self, error: BaseException) -> None:
        """None of these calls fails."""
        raise error


class Line:
    """A connection of a pool, and the provider's end of it."""

    def __init__(self, connection: UpstreamConnection, far: socket.socket) -> None:
        self.connection, self.far = connection, far


class Lines:
    """Connections to a provider that a test plays itself, all of one pool."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        #: Turns of the loop that were taken for want of an answer alone.
        self.looks = 0
        streams, watch = StreamQueue(self._loop, time.monotonic_ns), AnswerWatch(self._look)
        self._pool = Pool(provider("http://127.0.0.1:1/v1"), self._loop, streams, watch)
        self.seen: list[tuple[str, bytes]] = []

    def _look(self, turn: Callable[[], None]) -> None:
        self.looks += 1
        self._loop.call_soon(turn)

    async def open(self, name: str, *, flows: bool) -> Line:
        """One on which an answer was asked for; where it ``flows``, its first piece has come and gone."""
        near, far = socket.socketpair()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        near.setblocking(False)
        _, connection = await self._loop.create_connection(lambda: UpstreamConnection(self._pool), sock=near)
        connection.send(Told(name, self.seen), b"POST / HTTP/1.1\r\n\r\n", b"")
        if flows:
            far.sendall(HEAD + chunk(b"first"))
            await self.until(lambda: (name, b"first") in self.seen)
            connection.let_wait()
            self.seen.clear()
        return Line(connection, far)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for it."""
        async with asyncio.timeout(5):
            while not reached():  # noqa: ASYNC110 - what is waited for is a list, which tells nobody
                await asyncio.sleep(0.001)
