"""Step 1: client connections. Bytes in, whole requests out, one exchange at a time, back-pressure both ways."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from faregate.errors import Problem
from faregate.proxy.entry import Entered, admissible
from faregate.proxy.exchange import Exchange
from faregate.proxy.guard import guarded
from faregate.proxy.http1 import PIPELINE_MAX, Request, RequestParser
from faregate.proxy.refuse import problem_answer

if TYPE_CHECKING:
    from faregate.proxy.gate import Gate
    from faregate.proxy.realtime_opening import Opening

#: Bytes waiting for a client before its provider is no longer read (GUARANTEES, back-pressure).
WRITE_BUFFER_BYTES: Final = 64 * 1024


#: Bodies above this are counted among all that are held; below it the number of connections bounds them.
COUNTED_BYTES: Final = 16 * 1024

#: How long a client that still sends may take to read the answer that refuses what it sends.
LINGER_S: Final = 2.0


_TOO_MANY_BODIES: Final = Problem("overloaded", "Too many large bodies are held now; retry later.", retry_after_s=1)
_TOO_MANY_OF_KEY: Final = Problem(
    "concurrency_limited",
    "This key is sending as much in large bodies at once as one key may. Retry when one of them is through, send fewer "
    "at once, or ask the administrator to raise gateway.key_bodies_bytes_max.",
    retry_after_s=1,
)


class ClientConnection(asyncio.Protocol):
    """One client. Owns nothing of an exchange but the right to hear its answer."""

    __slots__ = (
        "_admitted",
        "_body_held",
        "_body_seen",
        "_closing",
        "_closing_since",
        "_gate",
        "_head_since",
        "_lingering",
        "_parser",
        "_reading",
        "_sender",
        "_unread",
        "exchange",
        "gone",
        "idle_since",
        "paused_since",
        "transport",
        "upgraded",
        "write",
    )

    transport: asyncio.Transport
    write: Callable[[bytes], None]

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate
        self._parser = RequestParser(gate.bounds)
        #: The request whose head was found worth its body, and the bytes of that body that are counted.
        self._admitted: Request | None = None
        self._body_held = 0
        #: Id of the key in whose share these bytes are counted; empty where they are in none.
        self._sender = ""
        #: How many bytes of the body had come at the last look at its speed.
        self._body_seen = 0
        #: Bytes of answers that wait for a client that reads slowly.
        self._unread = 0
        self._closing = False
        self._closing_since = 0.0
        #: It still sends: it gets a moment to read its answer before the connection is torn down.
        self._lingering = False
        self._reading = True
        self._head_since = 0.0
        self.exchange: Exchange | None = None
        self.gone = False
        #: The WebSocket that the connection has become; it hears of everything then.
        self.upgraded: Opening | None = None
        #: Coarse times of the event loop's clock, kept by the sweep: no timer per connection.
        self.idle_since = gate.now
        self.paused_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self.transport = cast(asyncio.Transport, transport)
        self.write = self.transport.write
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        if not self._gate.welcome(self):
            self.fail(Problem("overloaded", "Too many connections are open; retry later.", retry_after_s=1, close=True))

    def data_received(self, data: bytes) -> None:
        """Bytes of one or more requests."""
        if self._closing:
            return
        parser = self._parser
        if self.exchange is None and not self.paused_since and not parser.ready:
            body = parser.again(data)
            if body is not None and parser.known is not None:
                self._begin(parser.known.request, body)
                return
        parser.feed(data)
        if self.exchange is None:
            self._next()
        if (parser.ready or parser.problem is not None) and not self._closing:
            if self._reading and (len(parser.ready) >= PIPELINE_MAX or parser.problem is not None):
                self._reading = False
                self.transport.pause_reading()
            if self.exchange is None and not parser.ready and parser.problem is not None:
                self.fail(parser.problem)
        elif parser.in_body:
            self._body_comes()

    def _body_comes(self) -> None:
        """A body that does not come with its head is received only for a known key, and within the bound of all."""
        gate, parser = self._gate, self._parser
        request = parser.incoming
        if request is None or self._closing:
            return
        if self.exchange is not None:
            # One body at a time: this one is read when the answer before it is out.
            self._reading = False
            self.transport.pause_reading()
            return
        problem: Problem | None = None
        if self._admitted is not request:
            found = admissible(gate, request, self.transport)
            if isinstance(found, Problem):
                problem, self._sender = found, ""
            else:
                self._sender = found.id
            self._admitted = request
        # Small ones are bounded by the number of connections, as those that come in one piece.
        if parser.body_bytes > COUNTED_BYTES:
            if self._over_bound(parser.body_bytes):
                problem = problem or _TOO_MANY_BODIES
            if gate.coming.get(self._sender, 0) > gate.settings.key_bodies_bytes_max:
                problem = _TOO_MANY_OF_KEY
        if problem is not None:
            parser.refuse(problem)
            self._next()
        elif parser.awaits_continue:
            self._continue()

    def _count_unread(self, held: int) -> None:
        """Count what waits for this client to read among all bodies that are held."""
        self._gate.held_bytes += held - self._unread
        self._unread = held

    def _over_bound(self, held: int) -> bool:
        """Count this connection's body; whether all bodies together are too many."""
        self._count_body(held)
        return self._gate.held_bytes > self._gate.settings.held_bodies_bytes_max

    def _count_body(self, held: int) -> None:
        """Count what is in memory of this connection's body among all that are held, and in its key's share."""
        more = held - self._body_held
        self._gate.held_bytes += more
        self._body_held = held
        if self._sender:
            self._gate.count_coming(self._sender, more)

    def _leave_share(self) -> None:
        """Its call begins, or its body is given up: from here on it is one call of its key, which limits bound."""
        if self._sender:
            self._gate.count_coming(self._sender, -self._body_held)
            self._sender = ""

    def _continue(self) -> None:
        """Let a client that waits for leave send its body; never in the middle of the answer before."""
        parser = self._parser
        parser.awaits_continue = False
        if parser.in_body and not parser.body_bytes and not self._closing:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _next(self) -> None:
        """Start the next whole request, if there is one."""
        ready = self._parser.ready
        # One at a time, and none while the answers before it are unread: ``ended`` and ``resume_writing`` come back.
        if ready and self.exchange is None and not self._closing and not self.paused_since:
            request: Request = ready.pop(0)
            # The request may stay for as long as the connection; its body must not.
            body, request.body = request.body, b""
            if request.upgrade:
                self._upgrade(request)
                return
            self._begin(request, body)
        if not self._reading and len(ready) < PIPELINE_MAX and not self._closing:
            self._reading = True
            self.transport.resume_reading()

    def _begin(self, request: Request, body: bytes) -> None:
        exchange = self.exchange = Exchange(self._gate, self, request, body)
        try:
            if len(body) <= COUNTED_BYTES:
                exchange.begin()
            else:
                self._leave_share()
                if self._over_bound(len(body)):
                    exchange.refuse(_TOO_MANY_BODIES)
                else:
                    exchange.begin()
        except Exception as error:  # A mistake of ours must end this one request, and give back what it holds.
            exchange.mistaken(error)

    def _upgrade(self, request: Request) -> None:
        """From here on the connection is a WebSocket's, or is being refused as one."""
        self._parser.known = None
        if self._reading:
            self._reading = False
            self.transport.pause_reading()
        # Loaded with the first session, and off the loop: four MiB and a tenth of a second that most gates never need.
        loading = self._gate.loop.run_in_executor(None, _load_opening)
        loading.add_done_callback(guarded(lambda loaded: self._open_session(request, loaded.result()), self.mistaken))

    def _open_session(self, request: Request, make: "type[Opening]") -> None:
        if self.gone or self._closing:
            return
        self.transport.resume_reading()
        opening = self.upgraded = make(self._gate, self, request, self._parser.early or b"")
        guarded(opening.begin, opening.mistaken)()

    def mistaken(self, error: BaseException) -> None:
        """Something about this connection failed in a way that nobody foresaw."""
        if self.exchange is not None:
            self.exchange.mistaken(error)
        else:
            self._gate.tell_mistake(error)
            self.transport.abort()

    def ended(self, keep_alive: bool) -> None:
        """The exchange is over and its answer is written."""
        self.exchange = None
        if self._body_held:
            self._admitted = None
            self._leave_share()
            self._count_body(0)
        if self.gone:
            return
        if not keep_alive or self._closing or self._gate.draining:
            self.close()
        elif self._parser.ready:
            # On the loop's next turn, so that one client's pipeline cannot starve the others.
            self._gate.loop.call_soon(self._resume)
        elif self._parser.problem is not None:
            self.fail(self._parser.problem)
        else:
            self.idle_since = self._gate.now
            if not self._reading:
                self._reading = True
                self.transport.resume_reading()
            if self._parser.in_body:
                self._body_comes()

    def _resume(self) -> None:
        if self.exchange is None and not self.gone:
            self._next()

    @property
    def busy(self) -> bool:
        """An exchange runs, or an answer is not out yet."""
        if self.upgraded is not None:
            return self.upgraded.busy
        return self.exchange is not None or self.transport.get_write_buffer_size() > 0

    def fail(self, problem: Problem) -> None:
        """Tell what is wrong with the connection itself, and close it."""
        self._gate.metrics.refused(problem.code)
        self.write(problem_answer(problem, self._gate.new_id(), "openai", keep_alive=False))
        self.close()

    def close(self) -> None:
        """Close once everything is written; what still comes in is not looked at."""
        if self.upgraded is not None:
            self.upgraded.drain()
            return
        if not self._closing:
            self._closing_since = self._gate.now
            # Closing on bytes that nobody read resets the connection, and the answer is lost with it.
            parser = self._parser
            sends = parser.in_body or parser.head_bytes > 0 or parser.problem is not None
            self._lingering = sends and not self.gone and self.transport.can_write_eof()
        self._closing = True
        if self._lingering:
            if not self._reading:
                self._reading = True
                self.transport.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def sweep(self, now: float) -> None:
        """Called a few times a second: ends what takes too long."""
        if self.upgraded is not None:
            self.upgraded.sweep(now)
            return
        settings = self._gate.settings
        parser = self._parser
        known = parser.known
        if known is not None:
            found = known.request.found
            if type(found) is Entered and found.snapshot is not self._gate.snapshot:
                # It is of no use any more, and must not keep a whole snapshot alive.
                known.request.found = None
        if self.paused_since and now - self.paused_since > settings.slow_reader_ms / 1000:
            self.transport.abort()
            return
        if self._closing and self.exchange is None:
            # A client that never reads its last answer must not keep its connection.
            if now - self._closing_since > (LINGER_S if self._lingering else settings.slow_reader_ms / 1000):
                self.transport.abort()
            return
        if self.exchange is not None:
            self.exchange.sweep(now)
            self._head_since = 0.0
        elif parser.mid_request:
            if not self._head_since:
                self._head_since, self._body_seen = now, 0
            age = now - self._head_since
            if not parser.in_body:
                if age > settings.header_timeout_ms / 1000:
                    self.fail(Problem("header_timeout", "Headers arrived too slowly.", close=True))
            elif age > settings.body_grace_ms / 1000:
                # What came since the last look counts: a fast beginning buys no silence.
                if parser.body_bytes - self._body_seen < age * settings.body_bytes_per_second_min:
                    self.fail(Problem("body_timeout", "Body arrived too slowly.", close=True))
                self._head_since, self._body_seen = now, parser.body_bytes
        elif not parser.ready:
            self._head_since = 0.0
            if self._gate.draining or now - self.idle_since > settings.keep_alive_ms / 1000:
                self.close()

    def pause_writing(self) -> None:
        """The client reads slower than the provider writes."""
        self.paused_since = self._gate.now
        self._count_unread(self.transport.get_write_buffer_size())
        if self.exchange is not None:
            guarded(self.exchange.pause, self.exchange.mistaken)()

    def resume_writing(self) -> None:
        """The client caught up."""
        self.paused_since = 0.0
        self._count_unread(0)
        if self.exchange is not None:
            guarded(self.exchange.resume, self.exchange.mistaken)()
        elif self._parser.ready:
            self._gate.loop.call_soon(self._resume)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.gone = True
        self._closing = True
        self._gate.farewell(self)
        self._count_body(0)
        self._count_unread(0)
        if self.exchange is not None:
            guarded(self.exchange.client_gone, self.exchange.mistaken)()


def _load_opening() -> "type[Opening]":
    from faregate.proxy.realtime_opening import Opening

    return Opening
