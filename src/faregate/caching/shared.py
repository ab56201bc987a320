"""Answers on a Redis or Valkey server, which several gateways share.

The server is trusted with nothing (``caching.sealing``) and waited for by nobody: a look-up has a deadline, only so
many are on their way at once, and a server that does not answer is left alone for a while (``caching.breaker``).
Writing waits in a bounded line.

No value is fetched that is longer than any of ours: ``GETRANGE`` asks for so many bytes and one more.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from faregate.caching.breaker import REST_S, Breaker
from faregate.caching.lane import Command, Lane, connector
from faregate.caching.sealing import HEADER_BYTES, PREFIX, VALUE_BYTES_MAX, Seal, name_of
from faregate.core.caching.policy import CacheLabels
from faregate.ports import CachedAnswer, Later, TellFound

logger = logging.getLogger("faregate.cache")

#: Connections that look-ups share; writing has one of its own, and so has each flush.
LOOK_LANES: Final = 4

#: Look-ups on their way at once; more are told at once that there is nothing.
LOOKS_MAX: Final = 256

#: Answers that wait to be written, and their bytes.
WRITES_MAX: Final = 256
WRITES_BYTES_MAX: Final = 32 * 1024 * 1024

#: How long a connection may be silent before it is given up. Callers do not wait that long.
LOOK_S: Final = 1.0
WRITE_S: Final = 3.0

#: Flushes at once, the time of one, and how many names the server is asked for in one go.
FLUSHES_MAX: Final = 4
FLUSH_S: Final = 60.0
SCANNED_AT_ONCE: Final = 500

_NANOS_PER_MS: Final = 1_000_000
_AWAY: Final = "The cache server did not answer: some answers may be left there."
_TOO_MANY: Final = "The cache is being emptied already: some answers may be left."
_CLOSED: Final = "The cache is closed."


class _Look:
    """One look-up."""

    __slots__ = ("asked_at", "key", "now", "then", "timer")

    def __init__(self, key: bytes, now: int, asked_at: float, then: TellFound) -> None:
        self.key = key
        self.now = now
        self.asked_at = asked_at
        #: ``None`` once he was told.
        self.then: TellFound | None = then
        self.timer: asyncio.TimerHandle

    def tell(self, answer: CachedAnswer | None) -> None:
        then, self.then = self.then, None
        self.timer.cancel()
        if then is not None:
            then(answer)


class SharedStore:
    """Implements ``ResponseStore`` on the server that ``url`` names.

    Raises:
        ValueError: the URL is none of such a server.
    """

    def __init__(self, url: str, secret: bytes, timeout_ms: int, loop: asyncio.AbstractEventLoop) -> None:
        self._connect = connector(url)
        self._seal = Seal(secret)
        self._timeout_s = timeout_ms / 1000
        self._loop = loop
        self._breaker = Breaker()
        self._looks = [Lane(self._connect, loop, LOOK_S) for _ in range(LOOK_LANES)]
        self._writes = Lane(self._connect, loop, WRITE_S)
        self._flushes: set[asyncio.Task[None]] = set()
        self._failures = 0
        #: What the log has a line of already; afterwards it is only counted.
        self._told_of: set[str] = set()
        self._closed = False
        # So that the first call finds a connection; what it says is looked at by the calls.
        self._looks[0].ask(("PING",), lambda said: None)

    def find(self, key: bytes, now: int, then: TellFound) -> CachedAnswer | Later | None:
        """Asked at the server, unless it rests or too much was asked already."""
        asked_at = self._loop.time()
        lane = min(self._looks, key=_load)
        if self._closed or sum(map(_load, self._looks)) >= LOOKS_MAX:
            self._failures += not self._closed
            return None
        if not self._breaker.may_ask(asked_at):
            return None
        look = _Look(key, now, asked_at, then)
        look.timer = self._loop.call_later(self._timeout_s, self._too_late, look)
        lane.ask(("GETRANGE", name_of(key), 0, VALUE_BYTES_MAX), lambda said: self._was_said(look, said))
        return Later.ASKED

    def keep(self, key: bytes, answer: CachedAnswer, now: int) -> None:
        """Keep an answer until it expires; it is written some time after."""
        writes = self._writes
        if self._closed:
            return
        if writes.load >= WRITES_MAX or not self._breaker.may_ask(self._loop.time()):
            self._failures += 1
            return
        milliseconds = (answer.expires_at - now) // _NANOS_PER_MS
        value = self._sealed(key, answer) if milliseconds > 0 else b""
        if 0 < len(value) <= min(VALUE_BYTES_MAX, WRITES_BYTES_MAX - writes.bytes):
            writes.ask(("SET", name_of(key), value, "PX", milliseconds), self._was_written, len(value))
        else:
            # The earlier one is forgotten nevertheless.
            self._failures += milliseconds > 0
            writes.ask(("UNLINK", name_of(key)), self._was_written)

    def _sealed(self, key: bytes, answer: CachedAnswer) -> bytes:
        try:
            return self._seal.sealed(key, answer)
        except (ValueError, OverflowError):
            # Half of a character in a name.
            return b""

    def flush(self, wanted: CacheLabels, then: Callable[[int, str], None]) -> None:
        """Forget all of this secret's that fit, whichever gateway kept them. It reads labels and fetches no answer."""
        if self._closed or len(self._flushes) >= FLUSHES_MAX:
            self._loop.call_soon(then, 0, _CLOSED if self._closed else _TOO_MANY)
            return
        task = self._loop.create_task(self._flush(self._seal.wanted(wanted), then))
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    def samples(self) -> Sequence[tuple[str, int]]:
        """What went wrong; how much is kept is the server's to say."""
        return (("faregate_cache_failures_total", self._failures),)

    def close(self) -> None:
        """Let go of all connections; what waits to be written is lost."""
        self._closed = True
        for lane in (*self._looks, self._writes):
            lane.close()
        for task in self._flushes:
            task.cancel()

    # -- what the server says ------------------------------------------------------------------------------------------

    def _too_late(self, look: _Look) -> None:
        self._failed("no answer in time")
        look.tell(None)

    def _was_said(self, look: _Look, said: Any) -> None:
        if self._closed or look.then is None:
            look.timer.cancel()
            return
        if not isinstance(said, bytes | ResponseError):
            self._failed(_reason(said))
            look.tell(None)
            return
        self._answered()
        answer = None
        if isinstance(said, ResponseError):
            self._wonder("cache_server_refused", _reason(said))
        elif said:
            answer = self._seal.opened(look.key, said)
            if answer is None:
                self._wonder("cache_value_foreign", "it was not written with our secret for its key")
            elif answer.expires_at <= look.now + int((self._loop.time() - look.asked_at) * 1_000_000_000):
                answer = None
        look.tell(answer)

    def _was_written(self, said: Any) -> None:
        if self._closed:
            return
        if isinstance(said, ResponseError):
            # It is there, and has no room, or is a copy that may not be written to.
            self._wonder("cache_server_refused", _reason(said))
        elif isinstance(said, Exception):
            self._failed(_reason(said))
        else:
            self._answered()

    def _answered(self) -> None:
        if self._breaker.answered():
            logger.info("cache_server_back")

    def _failed(self, why: str) -> None:
        self._failures += 1
        if self._breaker.failed(self._loop.time()):
            logger.warning("cache_server_rests", extra={"why": why, "seconds": REST_S})

    def _wonder(self, what: str, why: str) -> None:
        self._failures += 1
        if what not in self._told_of:
            self._told_of.add(what)
            logger.warning(what, extra={"why": why})

    # -- forgetting ----------------------------------------------------------------------------------------------------

    async def _flush(self, wanted: tuple[bytes, ...], then: Callable[[int, str], None]) -> None:
        count, trouble = [0], ""
        lane = Lane(self._connect, self._loop, WRITE_S)
        try:
            async with asyncio.timeout(FLUSH_S):
                # What waits to be written comes first, or it would be there afterwards.
                await self._writes.asked(("PING",))
                await self._forget(lane, wanted, count)
        except TimeoutError:
            trouble = _AWAY
        except ResponseError as error:
            trouble = f"The cache server refused: {_reason(error)}."
        except Exception as error:  # Of whatever kind; the server is away or speaks something else.
            trouble = _AWAY
            self._failed(_reason(error))
        finally:
            lane.close()
        if not self._closed:
            then(count[0], trouble)

    async def _forget(self, lane: Lane, wanted: tuple[bytes, ...], count: list[int]) -> None:
        cursor = b"0"
        while True:
            scan: Command = ("SCAN", cursor, "MATCH", PREFIX + b"*", "COUNT", SCANNED_AT_ONCE)
            cursor, names = _told(await lane.asked(scan))
            asked = [(name, lane.asked(("GETRANGE", name, 0, HEADER_BYTES - 1))) for name in names]
            fitting = []
            for name, future in asked:
                header = await future
                if isinstance(header, bytes):
                    if self._seal.fits(header, wanted):
                        fitting.append(name)
                elif not isinstance(header, ResponseError):
                    # A name that holds no text was never ours; anything else means that the server is away.
                    _told(header)
            if fitting:
                count[0] += _told(await lane.asked(("UNLINK", *fitting)))
            if cursor == b"0":
                return


def _told(said: Any) -> Any:
    if isinstance(said, Exception):
        raise said
    return said


def _load(lane: Lane) -> int:
    return lane.load


def _reason(error: object) -> str:
    # What an exception says may name the server and what it was asked; its kind does not.
    return type(error).__name__
