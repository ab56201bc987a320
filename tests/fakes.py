"""Supported twins of the parts that a test does without."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from faregate.control import (
    Allowances,
    AllowanceView,
    Answer,
    Ask,
    AskAllowances,
    AskFigures,
    Done,
    Drain,
    Figures,
    Limit,
    Load,
    Loaded,
    Opening,
    Projected,
    Reply,
    Report,
    Reported,
    Resolve,
    Trouble,
    decode_ask,
    encode,
)
from faregate.core.ledger.events import Event
from faregate.ports import JournalWriter


class JournalAround:
    """A journal that passes everything on to a real one; what differs is for its heirs to say."""

    def __init__(self, real: JournalWriter) -> None:
        self.real = real

    @property
    def position(self) -> int:
        """As the real one."""
        return self.real.position

    @property
    def epoch(self) -> int:
        """As the real one."""
        return self.real.epoch

    def append(self, event: Event) -> int:
        """As the real one."""
        return self.real.append(event)

    def when_durable(self, position: int, callback: Callable[[], None]) -> None:
        """As the real one."""
        self.real.when_durable(position, callback)

    def close(self) -> None:
        """As the real one."""
        self.real.close()


class FakeGate:
    """Speaks the gate's side of the control socket and remembers all that it was told.

    ``position`` is where its journal stands; limits that it was not opened are pending, as with the real one.
    """

    def __init__(self, path: Path, position: Callable[[], int] = lambda: 0) -> None:
        self.path = path
        self.position = position
        self.heard: list[object] = []
        self.limits: dict[str, Limit] = {}
        self.opened: set[str] = set()
        self.views: tuple[AllowanceView, ...] = ()
        self.figures: Figures | None = None
        #: Ids of unknowns that it still holds.
        self.unknown: set[str] = set()
        #: Answers nothing while set.
        self.silent = False
        #: The text of the trouble that the next load meets.
        self.refusal = ""
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        """Open the socket."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def hang_up(self) -> None:
        """Close the socket and every connection."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.close()
        self.path.unlink(missing_ok=True)
        await asyncio.sleep(0)

    def loads(self) -> list[Load]:
        """Every load so far."""
        return [each for each in self.heard if isinstance(each, Load)]

    def openings(self) -> list[Opening]:
        """Every opening so far."""
        return [each for each in self.heard if isinstance(each, Opening)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while line := await reader.readline():
                ask: Ask = decode_ask(line)
                self.heard.append(ask.body)
                if not self.silent:
                    writer.write(encode(Answer(ask.n, self._answer(ask.body))) + b"\n")
                    await writer.drain()
        self._writers.discard(writer)
        writer.close()

    def _answer(self, body: object) -> Reply:
        match body:
            case Load():
                return self._loaded(body)
            case Opening():
                self.opened |= set(body.limits)
                self.unknown |= {each.id for each in body.unknowns}
            case AskFigures():
                figures = self.figures or Figures(True, False, 1, self.position(), 0, 0, 0, 0, 0, 0, 0)
                return msgspec.structs.replace(figures, position=self.position())
            case AskAllowances():
                return Allowances(self.views, tuple(sorted(set(self.limits) - self.opened)))
            case Report():
                return Reported()
            case Resolve():
                held = body.id in self.unknown
                self.unknown.discard(body.id)
                return Done(held)
            case Projected() | Drain():
                pass
        return Done()

    def _loaded(self, load: Load) -> Reply:
        if self.refusal:
            refusal, self.refusal = self.refusal, ""
            return Trouble(refusal)
        if load.full:
            self.limits.clear()
        self.limits |= {each.id: each for each in load.limits}
        for each in load.limits_removed:
            self.limits.pop(each, None)
            self.opened.discard(each)
        pending = tuple(sorted(set(self.limits) - self.opened))
        return Loaded(load.sequence, self.position(), 1, pending)
