"""One connection to the gate's socket: questions go out in order, answers come back in that order.

It knows lines and numbers, not what they mean; a wrong number or a cut line ends the connection.
"""

import asyncio
import contextlib
from collections import deque
from pathlib import Path
from typing import Final

import msgspec

from faregate.config.folder import short_path
from faregate.control import LINE_BYTES_MAX, Ask, Question, Reply, Trouble, decode_answer, encode
from faregate.errors import Failed, Unavailable

#: The gate answers within milliseconds; a full load of 100,000 keys takes it a few seconds.
ANSWER_SECONDS_MAX: Final = 5.0
LOAD_SECONDS_MAX: Final = 60.0


class GateWire:
    """A live connection; make one with ``connect``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._asked: deque[tuple[int, asyncio.Future[Reply]]] = deque()
        self._listening = asyncio.create_task(self._listen())
        #: Done as soon as the connection is gone.
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, path: str) -> "GateWire":
        """Connect to the gate's socket.

        Raises:
            OSError: nobody listens there.
        """
        with short_path(Path(path)) as short:
            return cls(*await asyncio.open_unix_connection(short, limit=LINE_BYTES_MAX))

    async def ask(self, body: Question, within_s: float = ANSWER_SECONDS_MAX) -> Reply:
        """Ask and wait for the answer.

        Raises:
            Unavailable: the connection is gone, or the answer did not come in time.
            Failed: the gate could not do it.
        """
        if self.gone.done():
            raise Unavailable("the gate does not answer")
        self._number += 1
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked.append((self._number, answered))
        self._writer.write(encode(Ask(self._number, body)) + b"\n")
        try:
            async with asyncio.timeout(within_s):
                reply = await answered
        except TimeoutError as error:
            raise Unavailable(f"the gate did not answer within {within_s:g} seconds") from error
        if isinstance(reply, Trouble):
            raise Failed(f"the gate refused: {reply.message}")
        return reply

    async def close(self) -> None:
        """Hang up; whoever waits for an answer is told."""
        self._listening.cancel()
        self._writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._listening
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _listen(self) -> None:
        try:
            while (line := await self._reader.readline()).endswith(b"\n"):
                answer = decode_answer(line)
                number, answered = self._asked.popleft()
                if answer.n != number:
                    # It is no answer to this, and nobody shall wait for one until the end of his time.
                    self._asked.appendleft((number, answered))
                    return
                if not answered.done():
                    answered.set_result(answer.body)
        except (OSError, ValueError, IndexError, msgspec.MsgspecError):
            # A cut, overlong or unasked-for line: the connection cannot be trusted any more, a new one can.
            return
        finally:
            self.gone.set_result(None)
            for _, answered in self._asked:
                if not answered.done():
                    answered.set_exception(Unavailable("the gate went away"))
            self._asked.clear()
