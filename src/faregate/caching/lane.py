"""One connection to a Redis or Valkey server. What is asked goes out in the order it came, several in one go.

No task belongs to a single question, so that nobody who gives up waiting leaves a connection behind whose answers are
taken for those of the next. Whoever asks has his own deadline; a lane waits longer, so that a connection which takes
its time to be opened is there for the next one.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ResponseError

#: Questions that go out at once, and their bytes.
BATCH_MAX: Final = 64
BATCH_BYTES_MAX: Final = 2 * 1024 * 1024

#: How long a connection may take to be opened.
_CONNECT_S: Final = 1.0

#: What a command is made of, and what is told of it: what the server said, or why it said nothing. What it refused is
#: a ``ResponseError``, any other exception means that it did not answer.
Command = tuple[bytes | str | int, ...]
Then = Callable[[Any], None]


class Ask(NamedTuple):
    """A question, and who wants to know."""

    command: Command
    size: int
    then: Then


def connector(url: str) -> Callable[[], AbstractConnection]:
    """What makes connections to a server.

    Raises:
        ValueError: the URL begins neither with redis:// nor with rediss:// or unix://, or says what nobody knows.
    """
    # The pool reads the URL, and makes connections; it keeps none of ours.
    pool = ConnectionPool.from_url(url, socket_connect_timeout=_CONNECT_S, protocol=2, driver_info=None)
    # Whatever the URL says of them: bytes stay bytes, nothing is sent twice, and who waits how long is said here.
    pool.connection_kwargs.update(
        protocol=2, decode_responses=False, retry=None, socket_timeout=None, health_check_interval=0
    )
    return pool.make_connection


class Lane:
    """Questions to a server over one connection, opened when somebody asks. ``answer_s`` is for all of one go."""

    def __init__(
        self, connect: Callable[[], AbstractConnection], loop: asyncio.AbstractEventLoop, answer_s: float
    ) -> None:
        self._connect = connect
        self._loop = loop
        self._answer_s = answer_s
        self._waiting: deque[Ask] = deque()
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None
        #: Held, or it would be collected before it is done.
        self._closing: asyncio.Task[None] | None = None
        #: Questions and bytes that are not answered yet.
        self.load = 0
        self.bytes = 0

    def ask(self, command: Command, then: Then, size: int = 0) -> None:
        """Ask something; ``then`` is told on the loop, exactly once unless the lane is closed before."""
        self._waiting.append(Ask(command, size, then))
        self.load += 1
        self.bytes += size
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    def asked(self, command: Command) -> "asyncio.Future[Any]":
        """What is said to a question, or the exception that says why nothing is."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def tell(said: Any) -> None:
            if not future.done():
                future.set_result(said)

        self.ask(command, tell)
        return future

    def close(self) -> None:
        """Let go of the connection; nobody is told anything any more."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._closing = self._loop.create_task(self._drop())

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._go(self._batch())
        finally:
            self._task = None

    def _batch(self) -> list[Ask]:
        batch, size = [self._waiting.popleft()], 0
        while self._waiting and len(batch) < BATCH_MAX and size <= BATCH_BYTES_MAX:
            size += self._waiting[0].size
            batch.append(self._waiting.popleft())
        return batch

    async def _go(self, batch: list[Ask]) -> None:
        unanswered = deque(batch)
        # A server may close a connection that was idle; that is seen only when it is used, and nothing was lost by it.
        for _ in range(1 if self._connection is None else 2):
            try:
                async with asyncio.timeout(self._answer_s):
                    await self._exchange(unanswered)
                return
            except TimeoutError as error:
                problem: Exception = error
                break
            except asyncio.CancelledError:
                await self._drop()
                raise
            except Exception as error:  # Whatever a server says that is none, or its name that does not resolve.
                problem = error
                if len(unanswered) < len(batch):
                    break
                await self._drop()
        await self._drop()
        while unanswered:
            self._tell(unanswered.popleft(), problem)

    async def _exchange(self, unanswered: deque[Ask]) -> None:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect()
            await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_packed_command(
            connection.pack_commands([each.command for each in unanswered]), check_health=False
        )
        while unanswered:
            try:
                said = await connection.read_response(disable_decoding=True)
            except ResponseError as error:
                said = error
            self._tell(unanswered.popleft(), said)

    def _tell(self, ask: Ask, said: Any) -> None:
        self.load -= 1
        self.bytes -= ask.size
        # Not at once: a mistake of his must not end the lane.
        self._loop.call_soon(ask.then, said)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)
