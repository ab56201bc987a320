"""Connections that stay open, for runs of so many requests that a client library would be most of their time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Self

from wire import RECEIVE_BYTES, Answer, NoAnswer, Silence, parse

SECONDS = 30.0


class Connection:
    """One that blocks: nothing else goes on while an answer is waited for, which is what a measurement wants."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, data: bytes) -> Answer:
        """Send one request and read its answer.

        Raises:
            NoAnswer: the connection ended before the answer did.
        """
        self._socket.sendall(data)
        come = b""
        while True:
            piece = self._socket.recv(RECEIVE_BYTES)
            come += piece
            answer = parse(come, ended=not piece)
            if answer is not None:
                return answer

    def close(self) -> None:
        """End it."""
        self._socket.close()


class Line:
    """One of many that wait side by side; it is opened again where the server closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def ask(self, data: bytes, *, last: bool = False, seconds: float = SECONDS) -> Answer:
        """Send one request and read its answer; ``last`` says at once that no more will come.

        Raises:
            NoAnswer: the connection ended before the answer did; ``Silence`` where nothing came in time.
        """
        fresh = self._open is None
        if self._open is None:
            self._open = await asyncio.open_connection("127.0.0.1", self._port, limit=RECEIVE_BYTES)
        try:
            async with asyncio.timeout(seconds):
                answer = await self._exchange(*self._open, data, last)
        except TimeoutError as error:
            self.close()
            raise Silence(f"no answer in {seconds} s") from error
        except (NoAnswer, OSError) as error:
            self.close()
            if fresh or last:
                raise NoAnswer(str(error)) from error
            # It was closed while nobody used it, which is no fault: the request was not read.
            return await self.ask(data, seconds=seconds)
        if last or answer.closed or answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, last: bool
    ) -> Answer:
        # The server may refuse a body before all of it came; what it said is still to be read.
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            if last and writer.can_write_eof():
                writer.write_eof()
            await writer.drain()
        come = b""
        while True:
            piece = await reader.read(RECEIVE_BYTES)
            come += piece
            answer = parse(come, ended=not piece)
            if answer is not None:
                return answer

    def close(self) -> None:
        """End it; the next request opens another."""
        if self._open is not None:
            with contextlib.suppress(OSError):
                self._open[1].close()
            self._open = None
