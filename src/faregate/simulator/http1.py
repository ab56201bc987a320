"""One HTTP/1.1 connection: bytes in, whole requests out, bytes back exactly as they are given. Knows no wire format.

Raw on purpose: the faults need bytes that no HTTP server would write, so writing is left to the caller. One request is
answered at a time; further ones wait in a short queue. Reading never pauses, so that a caller who leaves is noticed.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Coroutine
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import unquote_to_bytes

import httptools

HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 256
BODY_BYTES_MAX = 32 * 1024 * 1024
#: Requests sent ahead of their turn; a gateway sends none.
QUEUE_MAX = 8
#: Bytes of an unfinished body that are searched for an early fault.
EARLY_BYTES_MAX = 64 * 1024

HEAD_SECONDS = 30.0
BODY_SECONDS = 120.0
IDLE_SECONDS = 300.0
#: The longest any answer may take: faults that never end are ended here.
ANSWER_SECONDS = 900.0
#: How long a caller may leave a full write buffer unread.
UNREAD_SECONDS = 300.0


class Request(NamedTuple):
    """A request as it came; header names are in lower case, values are Latin-1."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    keep_alive: bool
    #: A fault that struck before the body was read.
    early: str
    #: What the one who answers keeps from one request to the next (files, batches); bounded by it.
    kept: dict[str, Any]

    def header(self, name: str) -> str:
        """The first header of that name, or an empty text."""
        for header, value in self.headers:
            if header == name:
                return value
        return ""


class Upgraded(Protocol):
    """What a connection has become."""

    def received(self, data: bytes) -> None:
        """Bytes came."""
        ...

    def gone(self) -> None:
        """The caller is gone."""
        ...


class Handler(Protocol):
    """Who answers requests."""

    bytes_sent: int

    def connected(self, connection: "Connection") -> bool:
        """A caller connects; ``False`` turns it away."""
        ...

    def disconnected(self, connection: "Connection") -> None:
        """A caller is gone."""
        ...

    def handle(self, connection: "Connection", request: Request) -> None:
        """Answer a request, now or later; ends with ``connection.finished``."""
        ...

    def fault_at_head(self, path: str) -> str:
        """The fault that strikes a request as soon as its head is read, or an empty text."""
        ...

    def fault_in_upload(self, start_of_body: bytes) -> str:
        """The fault asked for at the start of a body whose rest is not read yet, or an empty text."""
        ...


def plain(status: int, reason: str, body: bytes) -> bytes:
    """A JSON answer after which the connection closes, for requests that could not be read."""
    return b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        status,
        reason.encode(),
        len(body),
        body,
    )


class Connection(asyncio.Protocol):
    """One caller's connection."""

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = handler
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        self._busy = False
        self.task: asyncio.Task[None] | None = None
        self._refused = b""
        self._drained: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._head_bytes = 0
        self._start_message()
        self._reading = False
        self._since = loop.time()
        self.gone = False
        self.loopback = False
        #: Whoever takes the bytes once the connection has become a WebSocket.
        self.upgraded: Upgraded | None = None

    def _start_message(self) -> None:
        self._in_head = True
        self._reading = True
        self._header_bytes = 0
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        #: The fault that waits for this request, and the one that has struck before its body was read.
        self._fault = ""
        self._early = ""

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the connection up, or turn it away when there are too many."""
        # A loop's own transports need not derive from asyncio's class, uvloop's do not.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.loopback = not isinstance(peer, tuple) or peer[0].startswith("127.") or peer[0] == "::1"
        if not self._handler.connected(self):
            self.gone = True
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone: what is being answered is told so."""
        self.gone = True
        if self.upgraded is not None:
            self.upgraded.gone()
        self._handler.disconnected(self)
        self._queue.clear()
        if self.task is not None:
            self.task.cancel()
        for waiting in (self._drained, self._gone):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def pause_writing(self) -> None:
        """The caller reads more slowly than is written."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """The caller has caught up."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a request that cannot be read is answered at once and ends the connection."""
        if self._refused:
            return
        if self.upgraded is not None:
            self._since = self._loop.time()
            self.upgraded.received(data)
            return
        if not self._reading:
            self._since = self._loop.time()
        self._feed(data)
        self._end_if_refused()

    def _feed(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.upgraded is not None:
                self.upgraded.received(data[upgrade.args[0] :])
                return
            self._refuse(400, "Bad Request", b'{"error":{"message":"No upgrades."}}')
        except httptools.HttpParserError:
            self._refuse(400, "Bad Request", b'{"error":{"message":"The request is not HTTP/1.1."}}')
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431, "Request Header Fields Too Large", b'{"error":{"message":"The head is too long."}}')
        elif not self._in_head and self._reading and not self._early:
            self._look_early()

    def _look_early(self) -> None:
        early = self._fault
        if not early and 0 < self._body_bytes <= EARLY_BYTES_MAX * 4:
            early = self._handler.fault_in_upload(b"".join(self._body)[:EARLY_BYTES_MAX])
        if early:
            self._early = early
            # The rest of the body is read and dropped, so that the caller is not blocked by it.
            self._enqueue(early, keep_alive=False)

    def _refuse(self, status: int, reason: str, body: bytes) -> None:
        if not self._refused:
            self._refused = plain(status, reason, body)

    def _end_if_refused(self) -> None:
        """Say no once everything asked before is answered."""
        if self._refused and not self._busy and not self._queue:
            self.write(self._refused)
            self.close()

    # What the parser tells.

    def on_message_begin(self) -> None:
        """Start a request."""
        self._start_message()

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEAD_BYTES_MAX:
            self._refuse(431, "Request Header Fields Too Large", b'{"error":{"message":"The head is too long."}}')
        elif len(self._headers) >= HEADERS_MAX:
            self._refuse(431, "Request Header Fields Too Large", b'{"error":{"message":"Too many headers."}}')
        elif self._in_head:
            self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Check what the parser lets through, and invite the body where asked to."""
        self._in_head = False
        hosts = sum(name == "host" for name, _ in self._headers)
        version = self._parser.get_http_version()
        if version != "1.1" or hosts != 1 or not self._url.startswith(b"/"):
            self._refuse(400, "Bad Request", b'{"error":{"message":"HTTP/1.1, one Host and a path are needed."}}')
            return
        self._fault = self._handler.fault_at_head(self._url.partition(b"?")[0].decode("latin-1"))
        if any(name == "expect" and value.lower() == "100-continue" for name, value in self._headers):
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > BODY_BYTES_MAX:
            self._body.clear()
            self._refuse(413, "Content Too Large", b'{"error":{"message":"The body is too long."}}')
        elif not self._early:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """A request is whole: answer it, or queue it behind the one being answered."""
        self._reading = False
        self._since = self._loop.time()
        self._head_bytes = 0
        self._in_head = True
        if self._refused:
            return
        if not self._early:
            self._enqueue(self._fault, keep_alive=self._parser.should_keep_alive())
        elif not self._busy:
            self.close()

    def _enqueue(self, fault: str, *, keep_alive: bool) -> None:
        path, _, query = self._url.partition(b"?")
        if b"%" in path:
            path = unquote_to_bytes(path)
        request = Request(
            self._parser.get_method().decode("latin-1"),
            path.decode("utf-8", "replace"),
            query.decode("latin-1"),
            self._headers,
            self._body[0] if len(self._body) == 1 else b"".join(self._body),
            keep_alive,
            fault,
            {},
        )
        if self._busy:
            self._queue.append(request)
            if len(self._queue) > QUEUE_MAX:
                self.abort()
            return
        self._busy = True
        self._handler.handle(self, request)

    # What the one who answers uses.

    def write(self, data: bytes) -> None:
        """Send bytes as they are; nothing happens when the caller is gone."""
        if self._transport is not None and not self.gone:
            self._handler.bytes_sent += len(data)
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the caller has read enough for more to be written; a caller who never does is cut off.

        Always lets the others have a turn, so that no long answer keeps them waiting.
        """
        await asyncio.sleep(0)
        if self._drained is not None:
            try:
                await asyncio.wait_for(self._drained, UNREAD_SECONDS)
            except TimeoutError:
                self.abort()

    async def wait_gone(self) -> None:
        """Wait until the caller leaves."""
        if not self.gone:
            self._gone = self._loop.create_future()
            await self._gone

    def perform(self, work: Coroutine[Any, Any, None]) -> None:
        """Answer in a task, which is cancelled when the caller leaves."""
        self.task = self._loop.create_task(work)

    def finished(self, *, keep_alive: bool) -> None:
        """The answer is written: take the next request, or close."""
        self._busy = False
        self.task = None
        self._since = self._loop.time()
        if self.gone:
            return
        if self._queue and keep_alive:
            self._busy = True
            self._handler.handle(self, self._queue.popleft())
        elif self._refused:
            self._end_if_refused()
        elif not keep_alive and not (self._early and self._reading):
            # After an early answer the rest of the body is still read; closing now would reset the connection.
            self.close()

    def close(self) -> None:
        """Close once everything written is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, and drop what is not sent."""
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Close with a TCP reset."""
        if self._transport is None:
            return
        raw: Any = self._transport.get_extra_info("socket")
        if raw is not None:
            # Lingering for zero seconds makes the kernel answer with RST instead of FIN.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def overdue(self, now: float) -> bool:
        """Whether this connection has waited longer than it may for a head, a body, an answer or the next request."""
        waited = now - self._since
        if self._busy:
            return waited > ANSWER_SECONDS
        if self._reading:
            return waited > (HEAD_SECONDS if self._in_head else BODY_SECONDS)
        return waited > IDLE_SECONDS
