"""Connections to providers: one keep-alive pool per provider, responses parsed by llhttp.

A connection carries one exchange at a time and knows nothing about it but the few methods of ``Listener``. Whatever is
odd about it (bytes after the end, a header block without end, an early close) ends it: it is never given to another
exchange.

What comes is handed on at once, but for the middle of a stream: that waits in ``StreamQueue``, and is handed on before
anything else is told of the connection. Whoever ends an answer asks for it first (``catch_up``); ``close`` drops it.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

import httptools

from faregate.control import Credential, Provider
from faregate.dialects.urls import may_reach
from faregate.proxy.answer_watch import AnswerWatch
from faregate.proxy.deadlines import LOOK_S, TOO_LONG
from faregate.proxy.forward import chunk_data_at
from faregate.proxy.stream_queue import StreamQueue

#: A provider's header block may be this large; real ones stay under 8 KiB.
HEAD_BYTES_MAX: Final = 64 * 1024

#: Interim (1xx) answers accepted before the real one; more is a storm.
INTERIM_MAX: Final = 8

#: Idle connections are closed before providers usually do it themselves, so that a request seldom meets a closing one.
IDLE_CLOSE_S: Final = 55.0


class Listener(Protocol):
    """What an exchange tells a connection it wants to hear."""

    def answered(self, status: int, head: bytes) -> None:
        """The head of the answer is whole: status line and header lines, without the empty line."""
        ...

    def arrived(self, pieces: list[bytes], whole: bool) -> None:
        """Pieces of the body that one read gave, and whether the answer ends with them."""
        ...

    def chunk_arrived(self, framed: bytes, piece: bytes) -> None:
        """One read gave exactly one chunk that ends no answer: as it came, and its data."""
        ...

    def upstream_lost(self, code: str, why: str) -> None:
        """The connection ended, or broke the protocol, before the answer was whole."""
        ...

    def mistaken(self, error: BaseException) -> None:
        """One of the calls above failed in a way that nobody foresaw."""
        ...


#: As much of one stream may wait for others to begin, some two hundred events; more passes at once.
LATE_BYTES_MAX: Final = 64 * 1024

#: Bodies up to this size are copied behind their heads, which costs less than a second buffer.
JOINED_BYTES_MAX: Final = 4 * 1024


class UpstreamConnection(asyncio.Protocol):
    """One connection to a provider."""

    __slots__ = (
        "_after_chunk",
        "_answer_head",
        "_between",
        "_feed",
        "_head",
        "_head_from",
        "_in_head",
        "_interim",
        "_keep_alive",
        "_late",
        "_llhttp",
        "_patient",
        "_paused",
        "_pieces",
        "_pool",
        "_queued",
        "_whole",
        "heard",
        "idle_since",
        "listener",
        "odd",
        "transport",
        "used",
        "write",
    )

    transport: asyncio.Transport
    write: Callable[[bytes], None]

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._llhttp = httptools.HttpResponseParser(self)
        self._feed = self._llhttp.feed_data
        self._pieces: list[bytes] = []
        #: Bytes from the start of the answer until its head is whole; llhttp checks them, and they are cut up
        #: afterwards.
        self._head = b""
        #: Where in them the head begins, behind interim answers.
        self._head_from = 0
        self._in_head = True
        self._answer_head = b""
        self._interim = 0
        self._keep_alive = False
        self._whole = False
        #: The last that llhttp told was the end of a chunk; and nothing has come behind it.
        self._after_chunk = False
        self._between = False
        #: What comes may wait for the turn of its stream, what does, and whether it stands in the queue for that.
        self._patient = False
        self._late = b""
        self._queued = False
        self._paused = False
        self.listener: Listener | None = None
        self.odd = ""
        #: Some bytes have come since the request was sent.
        self.heard = False
        #: It has carried an exchange before, so it may be a stale keep-alive connection.
        self.used = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open (and its TLS handshake done)."""
        self.transport = cast(asyncio.Transport, transport)
        self.write = self.transport.write

    def send(self, listener: Listener, head: bytes, body: bytes) -> None:
        """Send one request; ``listener`` hears of its answer."""
        self.listener = listener
        # A small body is joined with its head; a larger one is not copied for that. Both go out in one system call.
        if len(body) <= JOINED_BYTES_MAX:
            self.write(head + body)
        else:
            self.transport.writelines((head, body))
        self._pool.watch.sent()

    def data_received(self, data: bytes) -> None:
        """Take what came, at once or when it is its stream's turn."""
        if not self._patient:
            self._take(data)
        elif len(self._late) + len(data) > LATE_BYTES_MAX:
            data, self._late = self._late + data, b""
            self._take(data)
        else:
            self._late += data
            self._stand_in_queue()

    def _stand_in_queue(self) -> None:
        if not self._queued:
            self._queued = True
            self._pool.streams.add(self)

    def let_wait(self) -> None:
        """The beginning of this answer is out: the rest may wait until others have begun."""
        self._patient = True

    def take_turn(self) -> None:
        """It is this stream's turn to go on."""
        self._queued = False
        self.catch_up()

    def catch_up(self) -> bool:
        """Hand on what waits, unless nobody wants it now; whether there was something."""
        data = self._late
        if not data or self._paused:
            return False
        self._late = b""
        try:
            self._take(data)
        except Exception:  # No transport called, which would end the connection now, and tell its exchange.
            self.transport.abort()
            raise
        return True

    def pause(self) -> None:
        """Hand nothing on, and read no further, before ``resume``."""
        self._paused = True
        self.transport.pause_reading()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        self.transport.resume_reading()
        if self._late:
            self._stand_in_queue()

    def _take(self, data: bytes) -> None:
        """Parse what came and hand it on in one call."""
        listener = self.listener
        if listener is None:
            # Bytes nobody asked for: the connection cannot be trusted with the next request.
            self.close()
            return
        if self._between:
            # Nearly every event is one chunk in one read. That is seen at a glance, and llhttp misses nothing by it: it
            # goes on where it stands, before a chunk.
            at = chunk_data_at(data)
            if at:
                try:
                    listener.chunk_arrived(data, data[at:-2])
                except Exception as error:  # A mistake of ours must end this one answer, and never go unseen.
                    listener.mistaken(error)
                return
        if self._in_head:
            self.heard = True
            self._pool.watch.came()
            self._head = self._head + data if self._head else data
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self.odd = str(error) or "the answer cannot be parsed"
        except httptools.HttpParserUpgrade:
            self.odd = "the provider switched protocols unasked"
        # The first line of a chunk that is not whole yet cannot end so: it would be whole.
        self._between = self._after_chunk and not self._in_head and data.endswith(b"\r\n")
        pieces = self._pieces
        whole = self._whole
        if pieces or whole:
            self._pieces = []
            try:
                if whole:
                    self.listener = None
                    self._release()
                listener.arrived(pieces, whole)
            except Exception as error:  # A mistake of ours must end this one answer, and never go unseen.
                listener.mistaken(error)
        if self.listener is not listener:
            # The answer ended while it was told of these bytes.
            return
        if self.odd and not whole:
            self.listener = None
            self.close()
            _tell_lost(listener, "upstream_protocol", self.odd)
        elif self._in_head and len(self._head) > HEAD_BYTES_MAX and not whole:
            self.listener = None
            self.close()
            _tell_lost(listener, "upstream_protocol", "its header block is too large")

    def _release(self) -> None:
        self._whole = self.heard = self._patient = self._paused = self._between = False
        self._in_head = True
        self._head_from = 0
        self._interim = 0
        if self.odd or not self._keep_alive or self.transport.get_write_buffer_size():
            # An answer that came before its request was sent: the rest of that must not stand before the next one.
            self.close()
        else:
            self.used = True
            self._pool.give_back(self)

    def give_back(self) -> None:
        """Carry another exchange: nothing was sent for this one."""
        self._pool.give_back(self)

    def close(self) -> None:
        """Close and forget, and what waits with it."""
        self._late = b""
        self._pool.forget(self)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The provider, or we, closed."""
        # Nobody can ask for it later.
        self._paused = False
        self.catch_up()
        self._pool.forget(self)
        listener = self.listener
        if listener is not None:
            self.listener = None
            _tell_lost(listener, "upstream_truncated", "the connection closed before the answer was whole")

    def eof_received(self) -> bool:
        """Let an answer framed by the connection's end be whole (RFC 9112 section 6.3)."""
        self.catch_up()
        listener = self.listener
        if listener is not None and self._answer_head and not self._in_head:
            head = self._answer_head.lower()
            if b"\r\ncontent-length:" not in head and b"\r\ntransfer-encoding:" not in head:
                self.listener = None
                try:
                    listener.arrived([], True)
                except Exception as error:  # As above.
                    listener.mistaken(error)
        return False

    def pause_writing(self) -> None:
        """A request body fills the socket: it is in memory already, so there is nothing to slow down."""

    def resume_writing(self) -> None:
        """The socket drained."""

    # -- called by llhttp ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer starts; a second one to the same request is bytes after the end."""
        self._after_chunk = False
        if self._whole:
            self.odd = "bytes came after the end of the answer"

    def on_headers_complete(self) -> None:
        """The head is whole."""
        status = self._llhttp.get_status_code()
        listener = self.listener
        if listener is None or self._whole or self.odd:
            return
        end = self._head.find(b"\r\n\r\n", self._head_from)
        if status < 200:
            self._head_from = end + 4
            self._interim += 1
            if self._interim > INTERIM_MAX:
                self.odd = "it sent interim answers without end"
            return
        if end - self._head_from > HEAD_BYTES_MAX:
            self.odd = "its header block is too large"
            return
        head = self._head[self._head_from : end]
        self._head = b""
        self._in_head = False
        # llhttp only knows it here: after the message it has forgotten.
        self._keep_alive = self._llhttp.should_keep_alive()
        # Only an answer that the end of the connection may end is looked at again.
        self._answer_head = b"" if self._keep_alive else head
        try:
            listener.answered(status, head)
        except Exception as error:  # As above; llhttp would only stop, and leave an exchange that never ends.
            listener.mistaken(error)

    def on_body(self, data: bytes) -> None:
        """A piece of the body, chunk framing removed."""
        if self._in_head:
            # llhttp lets most of them have one; nothing of it could be told from the answer's own (RFC 9110, 15.2).
            self.odd = self.odd or "an interim answer had a body"
        elif not self._whole:
            self._pieces.append(data)

    def on_chunk_header(self) -> None:
        """The first line of a chunk is whole."""
        self._after_chunk = False

    def on_chunk_complete(self) -> None:
        """A chunk is whole, with the line end behind it."""
        self._after_chunk = True

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._llhttp.get_status_code() >= 200:
            self._whole = True


def _tell_lost(listener: Listener, code: str, why: str) -> None:
    try:
        listener.upstream_lost(code, why)
    except Exception as error:  # As above.
        listener.mistaken(error)


#: A credential that could not be fetched is asked for again within this time, at most.
CREDENTIAL_RETRY_S: Final = 5

_NO_CREDENTIAL: Final = "its credential was not fetched yet, or its stored secret does not open"
_EXPIRED: Final = "its credential has expired and could not be renewed"


class Pool:
    """Keep-alive connections to one provider, and what proves the gate to it."""

    __slots__ = (
        "_dialling",
        "_host",
        "_idle",
        "_loop",
        "_open",
        "_port",
        "_proxy",
        "_tls",
        "closed",
        "credential",
        "expires_at",
        "lacks",
        "masked",
        "provider",
        "streams",
        "watch",
    )

    def __init__(
        self, provider: Provider, loop: asyncio.AbstractEventLoop, streams: StreamQueue, watch: AnswerWatch
    ) -> None:
        self.provider = provider
        self.streams = streams
        self.watch = watch
        #: The headers that prove the gate to it; one that is ``renewed`` changes while connections stay open.
        self.credential = provider.credential
        #: Texts that its answers must not show.
        self.masked = provider.masked
        #: When the credential ends, in nanoseconds since 1970 UTC; 0 for never.
        self.expires_at = 0
        #: Why nothing may be sent to it now, as the end of a sentence; empty where that may be.
        self.lacks = _NO_CREDENTIAL if provider.renewed else ""
        self._loop = loop
        parts = urlsplit(provider.base_url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _tls_context(provider) if parts.scheme == "https" else None
        self._proxy = urlsplit(provider.proxy) if provider.proxy else None
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._dialling: set[asyncio.Task[None]] = set()
        self.closed = False

    @property
    def open_connections(self) -> int:
        """Connections open or being opened."""
        return len(self._open) + len(self._dialling)

    def renew(self, credential: Credential, now_nanos: int) -> bool:
        """Prove the gate by another credential from now on, if it is for here; open connections stay open."""
        provider = self.provider
        if not provider.renewed or credential.base_url != provider.base_url:
            return False
        # What is under way may still be answered with a text that shows the one before.
        self.masked = (*provider.masked, *credential.masked, *self.masked[: len(credential.masked)])
        self.credential = credential.headers
        self.expires_at = credential.expires_at
        self.lacks = ""
        self.look_at_credential(now_nanos)
        return True

    def look_at_credential(self, now_nanos: int) -> None:
        """Send nothing any more with a credential that has ended."""
        if self.expires_at and now_nanos >= self.expires_at and not self.lacks:
            self.lacks = _EXPIRED

    def take(self) -> UpstreamConnection | None:
        """An idle connection, the one used last first, or ``None``."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    def dial(
        self, connected: Callable[[UpstreamConnection], None], failed: Callable[[str, str], None], within_ms: int = 0
    ) -> None:
        """Open a connection in the background; exactly one of the callbacks hears of it.

        ``within_ms`` is how long the caller would wait for it, 0 for as long as its provider may take.
        """
        if self.open_connections >= self.provider.connections_max:
            failed("overloaded", "all connections to it are in use")
            return
        task = self._loop.create_task(self._dial(connected, failed, within_ms))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _dial(
        self, connected: Callable[[UpstreamConnection], None], failed: Callable[[str, str], None], within_ms: int
    ) -> None:
        own_ms = self.provider.connect_timeout_ms
        caller_ends = 0 < within_ms < own_ms
        try:
            async with asyncio.timeout(None) as limit:
                bound_ms = within_ms if caller_ends else own_ms
                timer = self._loop.call_later(bound_ms / 1000, self._look_once_more, limit)
                try:
                    connection = await self._connect()
                finally:
                    timer.cancel()
        except TimeoutError:
            if caller_ends:
                failed("upstream_timeout", TOO_LONG)
            else:
                failed("upstream_connect", "it did not accept a connection in time")
        except ssl.SSLError as error:
            failed("upstream_connect", f"its TLS certificate or handshake was refused ({error.reason or 'TLS'})")
        except _OutOfReach:
            failed("upstream_connect", "its name leads to an address that it may not have")
        except socket.gaierror:
            failed("upstream_connect", "its name could not be resolved")
        except (OSError, ConnectionError, _TunnelRefused):
            failed("upstream_connect", "it does not accept connections")
        except Exception:  # Whatever it is, one of the callbacks must hear of it, or the call would wait for ever.
            failed("upstream_connect", "its address or its proxy cannot be used")
        else:
            self._open.add(connection)
            connected(connection)

    def _look_once_more(self, limit: asyncio.Timeout) -> None:
        """A connection was not there in time; where the gate itself stood still, it came meanwhile and is read now."""
        limit.reschedule(self._loop.time() + LOOK_S)

    async def _connect(self) -> UpstreamConnection:
        if self._proxy is not None:
            return await self._connect_through_proxy()
        if not self.provider.reach:
            return await self._connect_to(self._host)
        failed: OSError | None = None
        for address in await self._looked_up():
            try:
                return await self._connect_to(address)
            except OSError as error:
                failed = error
        raise failed or OSError("it has no address")

    async def _connect_to(self, host: str) -> UpstreamConnection:
        _, connection = await self._loop.create_connection(
            lambda: UpstreamConnection(self),
            host,
            self._port,
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )
        return connection

    async def _looked_up(self) -> list[str]:
        """The addresses of the host at this moment, all within reach.

        The connection goes to what was looked at, not to what the name says a moment later. One address that is out of
        reach is enough to refuse: a name that leads to both is a trap.

        Raises:
            _OutOfReach: the name leads where this provider may not be.
        """
        found = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not all(may_reach(each, self.provider.reach) for each in addresses):
            raise _OutOfReach
        return addresses

    async def _connect_through_proxy(self) -> UpstreamConnection:
        assert self._proxy is not None
        transport, tunnel = await self._loop.create_connection(
            lambda: _Tunnel(self._loop), self._proxy.hostname or "", self._proxy.port or 80
        )
        try:
            await tunnel.open(self._host, self._port, self._proxy.username, self._proxy.password)
        except BaseException:  # Whatever stops the tunnel, also a cancellation, must not leak its socket.
            transport.abort()
            raise
        connection = UpstreamConnection(self)
        if self._tls is None:
            transport.set_protocol(connection)
            connection.connection_made(transport)
            return connection
        secured = await self._loop.start_tls(transport, connection, self._tls, server_hostname=self._host)
        assert secured is not None
        connection.connection_made(secured)
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next exchange."""
        if self.closed:
            connection.close()
            return
        connection.idle_since = 0.0
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection is no longer usable."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self, now: float) -> None:
        """Close connections that nobody used for a while, counted from the first call of this that finds them idle."""
        for connection in list(self._idle):
            if not connection.idle_since:
                connection.idle_since = now
            elif now - connection.idle_since > IDLE_CLOSE_S:
                connection.close()

    def close(self) -> None:
        """Close what is idle now, and the rest when its exchange ends."""
        self.closed = True
        for connection in list(self._idle):
            connection.close()


class _OutOfReach(Exception):
    """The provider's name leads to a private address, or to where clouds keep their secrets."""


class _TunnelRefused(Exception):
    """The HTTP proxy did not open a tunnel."""


class _Tunnel(asyncio.Protocol):
    """``CONNECT`` through an HTTP proxy (RFC 9110 section 9.3.6); the socket is handed on once it answered 200."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._answer = b""
        self._done: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The proxy accepted the connection."""
        self._transport = cast(asyncio.Transport, transport)

    async def open(self, host: str, port: int, user: str | None, password: str | None) -> None:
        """Ask for the tunnel and wait for the answer."""
        assert self._transport is not None
        request = f"CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n"
        if user is not None:
            credential = b64encode(f"{user}:{password or ''}".encode()).decode()
            request += f"proxy-authorization: Basic {credential}\r\n"
        self._transport.write(request.encode() + b"\r\n")
        await self._done

    def data_received(self, data: bytes) -> None:
        """Collect the proxy's answer, at most 8 KiB of it."""
        self._answer += data
        if self._done.done():
            return
        if b"\r\n\r\n" in self._answer:
            status = self._answer.split(b" ", 2)[1:2]
            if status == [b"200"]:
                self._done.set_result(None)
            else:
                self._done.set_exception(_TunnelRefused())
        elif len(self._answer) > 8192:
            self._done.set_exception(_TunnelRefused())

    def connection_lost(self, exc: Exception | None) -> None:
        """The proxy closed before it answered."""
        if not self._done.done():
            self._done.set_exception(_TunnelRefused())


def _tls_context(provider: Provider) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=provider.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # HTTP/1.1 is all that is spoken; saying so keeps a server from choosing HTTP/2.
    context.set_alpn_protocols(["http/1.1"])
    return context
