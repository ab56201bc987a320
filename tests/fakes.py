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
    AskFlush,
    Done,
    Drain,
    Figures,
    Flush,
    FlushCache,
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
from faregate.core.caching.policy import CacheLabels
from faregate.core.ledger.events import Event
from faregate.errors import Unavailable
from faregate.ports import CachedAnswer, JournalWriter, Later, TellFound


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


class AwayGate:
    """The console's gate, which answers nothing; what a test's own one tells is for its heirs to say."""

    connected = True

    def nudge(self) -> None:
        """Nobody to wake."""

    async def applied(self, within_s: float) -> bool:
        """Everything is, at once."""
        return True

    async def figures(self) -> Figures:
        """None."""
        raise Unavailable("the gate is away")

    async def allowances(self, limits: tuple[str, ...] = ()) -> Allowances:
        """None."""
        raise Unavailable("the gate is away")

    async def resolve(self, order: Resolve) -> bool:
        """Nobody is there to do it."""
        raise Unavailable("the gate is away")

    async def report(self, order: Report) -> Reported:
        """Nobody is there to book it."""
        raise Unavailable("the gate is away")

    async def flush_cache(self, order: FlushCache) -> Flush:
        """Nobody is there who keeps anything."""
        raise Unavailable("the gate is away")

    async def drain(self) -> None:
        """It is."""


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
        #: What it tells of a flush, one after the other, the last one again and again; without any it has no cache.
        self.flushes: list[Flush] = []
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
            case FlushCache() | AskFlush():
                if not self.flushes:
                    return Trouble("the response cache is switched off")
                return self.flushes.pop(0) if len(self.flushes) > 1 else self.flushes[0]
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


class HeldAnswers:
    """A response store that holds everything in a dictionary, and answers at once or when it is let."""

    def __init__(self, *, late: bool = False) -> None:
        self.kept: dict[bytes, CachedAnswer] = {}
        self.looked = 0
        self._late = late
        self._waiting: list[Callable[[], None]] = []

    def find(self, key: bytes, now: int, then: TellFound) -> CachedAnswer | Later | None:
        """As the port says; later where it is one that answers late."""
        self.looked += 1
        found = self.kept.get(key)
        found = found if found is not None and found.expires_at > now else None
        if not self._late:
            return found
        self._waiting.append(lambda: then(found))
        return Later.ASKED

    def tell(self) -> int:
        """Answer everything that was asked; how much that was."""
        waiting, self._waiting = self._waiting, []
        for told in waiting:
            told()
        return len(waiting)

    @property
    def asked(self) -> int:
        """How many wait to be told."""
        return len(self._waiting)

    def keep(self, key: bytes, answer: CachedAnswer, now: int) -> None:
        """As the port says."""
        self.kept[key] = answer

    def flush(self, wanted: CacheLabels, then: Callable[[int, str], None]) -> None:
        """As the port says."""
        gone = [key for key, answer in self.kept.items() if answer.labels.fits(wanted)]
        for key in gone:
            del self.kept[key]
        then(len(gone), "")

    def samples(self) -> list[tuple[str, int]]:
        """As the port says."""
        return [("faregate_cache_entries", len(self.kept))]

    def close(self) -> None:
        """As the port says."""
        self._waiting.clear()
