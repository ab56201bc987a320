"""The two WebSockets of a realtime session: frames in, whole messages out, back-pressure, pings, and what is abuse.

The protocol itself is the Sans-I/O layer of ``websockets`` (docs/decisions/013); here are the socket, the bounds that
it leaves to its user, and the clock. No extension is offered or accepted, so that no message is larger than it looks.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from websockets.exceptions import WebSocketException
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN, SEND_EOF
from websockets.protocol import Protocol as Framing

#: One event: OpenAI takes 15 MiB of sound in one.
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
#: Frames of one message; real clients send one, or some of 64 KiB.
FRAGMENTS_MAX: Final = 1_024
#: Pings and pongs from the other side in one second; real ones come every some seconds.
CONTROLS_MAX: Final = 32

#: How often the other side is asked whether it is there, and how long it may be silent then.
PING_S: Final = 20.0
SILENT_S: Final = 60.0
#: How long the other side may take to answer a close.
CLOSE_S: Final = 2.0

#: Bytes waiting for one side before the other is no longer read.
WRITE_BUFFER_BYTES: Final = 64 * 1024

#: More than a client may send before its session is open, which no client does, is left in its socket.
EARLY_BYTES_MAX: Final = 16 * 1024

REASON_BYTES_MAX: Final = 123

#: Messages above this are counted among all bodies that are held, as they come.
COUNTED_BYTES: Final = 16 * 1024

#: Codes that must not be sent, as they say that there was none.
_NO_CODES: Final = (1005, 1006, 1015)


#: The library logs whole frames where it may; none of them is for a log.
QUIET: Final = logging.getLogger("faregate.realtime.frames")
QUIET.setLevel(logging.CRITICAL)


class Listener(Protocol):
    """What a socket tells its session."""

    def shaken(self, socket: "Socket", answer: Response, accepted: bool) -> None:
        """The other side answered the handshake."""
        ...

    def message(self, socket: "Socket", data: bytes) -> None:
        """A whole message of text came."""
        ...

    def ended(self, socket: "Socket", code: int, reason: str) -> None:
        """The other side closed, or is gone (1006); told once."""
        ...

    def full(self, socket: "Socket", is_full: bool) -> None:
        """The other side reads more slowly than it is written to, or has caught up."""
        ...

    def mistaken(self, error: BaseException) -> None:
        """One of the calls above failed in a way that nobody foresaw."""
        ...


class Socket(asyncio.Protocol):
    """One side, on a transport that is connected already."""

    def __init__(self, listener: Listener, framing: Framing, transport: asyncio.Transport, now: float) -> None:
        self._listener = listener
        self._framing = framing
        self._transport = transport
        self._pieces: list[bytes] = []
        #: Bytes that came before somebody listens; ``None`` once somebody does.
        self._early: bytearray | None = None
        self._begun = False
        self._over = False
        self._closed_at = 0.0
        self._paused = False
        self.full_since = 0.0
        self._controls = 0
        self._controls_since = now
        self._now = now
        self._heard_at = now
        self._pinged_at = now
        #: The socket is closed, on both sides.
        self.gone = False
        #: Told of bytes of messages that are not whole yet; false where they are too many.
        self.on_held: Callable[[int], bool] | None = None
        self._held = 0
        self._coming = 0
        self.on_gone: Callable[[], None] | None = None
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        transport.set_protocol(self)

    def tell(self, listener: Listener) -> None:
        """Tell another listener from now on."""
        self._listener = listener

    # -- bytes in ------------------------------------------------------------------------------------------------------

    def hold_back(self, early: bytes) -> None:
        """Keep what came, and a little of what comes, until ``let_in``; that the other side leaves is noticed."""
        self._early = bytearray(early)

    def let_in(self) -> None:
        """Somebody listens from now on: what was kept counts as if it came now."""
        early, self._early = self._early, None
        if early:
            self.data_received(bytes(early))
        self.pause(False)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._early is not None:
            self._early += data
            if len(self._early) > EARLY_BYTES_MAX:
                self.pause(True)
            return
        self._heard_at = self._now
        if self._over:
            # Only the end of the closing handshake is still of interest.
            return
        self._coming += len(data)
        self._framing.receive_data(data)
        self._take()
        self._count()

    def eof_received(self) -> bool:
        """The other side will send nothing more."""
        self._framing.receive_eof()
        self._take()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._end(1006, "")
        self._count()
        self.gone = True
        if self.on_gone is not None:
            self.on_gone()

    def _take(self) -> None:
        """Hand on what came, answer what the protocol answers by itself, and end what broke its rules."""
        framing = self._framing
        for event in framing.events_received():
            if self._over:
                break
            try:
                if isinstance(event, Frame):
                    self._frame(event)
                elif isinstance(event, Response):
                    self._listener.shaken(self, event, framing.handshake_exc is None)
            except Exception as error:  # A mistake of ours must end this one session, and never go unseen.
                self._listener.mistaken(error)
        self._flush()
        if framing.handshake_exc is not None or framing.parser_exc is not None:
            sent = framing.close_sent
            self._end(sent.code if sent is not None else 1006, sent.reason if sent is not None else "")

    def _count(self) -> None:
        """Count what is in memory of a large message that is not whole."""
        held = self._coming if self._coming > COUNTED_BYTES and not self._over else 0
        more, self._held = held - self._held, held
        if more and self.on_held is not None and not self.on_held(more) and more > 0:
            self._break(CloseCode.TRY_AGAIN_LATER, "too many large messages are held now")
            self._count()

    def _frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        # What is left of this read begins another frame.
        self._coming = sum(map(len, self._pieces))
        if opcode in (Opcode.PING, Opcode.PONG):
            self._controls += 1
            if self._controls > CONTROLS_MAX:
                self._break(CloseCode.POLICY_VIOLATION, "too many control frames")
            return
        if opcode is Opcode.CLOSE:
            told = self._framing.close_rcvd
            self._end(told.code if told is not None else 1005, told.reason if told is not None else "")
            return
        if opcode is Opcode.BINARY:
            self._break(CloseCode.UNSUPPORTED_DATA, "events are text")
            return
        self._pieces.append(bytes(frame.data))
        if not frame.fin:
            self._coming += len(frame.data)
            if len(self._pieces) >= FRAGMENTS_MAX:
                self._break(CloseCode.POLICY_VIOLATION, "too many fragments")
            return
        self._coming = 0
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                self._break(CloseCode.INVALID_DATA, "not UTF-8")
                return
        self._listener.message(self, data)

    def _break(self, code: int, reason: str) -> None:
        """The other side abuses the protocol."""
        self.close(code, reason)
        self._end(code, reason)

    def _end(self, code: int, reason: str) -> None:
        if not self._over:
            self._over = True
            self._closed_at = self._now
            self._pieces = []
            try:
                self._listener.ended(self, code, reason)
            except Exception as error:  # As above.
                self._listener.mistaken(error)

    # -- bytes out -----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        for data in self._framing.data_to_send():
            if data is SEND_EOF or not data:
                self._transport.close()
            else:
                self._transport.write(data)

    def send_handshake(self) -> None:
        """Write what the framing has ready."""
        self._flush()

    @property
    def open(self) -> bool:
        """Messages can be sent."""
        return self._framing.state is OPEN and not self._over

    def send(self, message: bytes) -> None:
        """Send one message of text; nothing where the side is closed."""
        if self._framing.state is OPEN:
            self._framing.send_text(message)
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Begin to close; the side has a moment to answer."""
        if not self._closed_at:
            self._closed_at = self._now
        if self._framing.state is OPEN:
            if code in _NO_CODES or not 1000 <= code < 5000:
                code, reason = CloseCode.INTERNAL_ERROR, ""
            reason = reason.encode()[:REASON_BYTES_MAX].decode("utf-8", "ignore")
            try:
                self._framing.send_close(code, reason)
            except WebSocketException:
                # A code that only others may use.
                self._framing.send_close(CloseCode.INTERNAL_ERROR)
            self._flush()
        elif not self._over:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # -- flow and time -------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The other side reads slowly."""
        self.full_since = self._now or 1.0
        self._listener.full(self, True)

    def resume_writing(self) -> None:
        """It caught up."""
        self.full_since = 0.0
        self._listener.full(self, False)

    def pause(self, paused: bool) -> None:
        """Stop or go on reading from this side."""
        if paused != self._paused and not self._transport.is_closing():
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
                self._heard_at = self._now

    @property
    def waiting_bytes(self) -> int:
        """What is written and not sent yet."""
        return self._transport.get_write_buffer_size()

    def sweep(self, now: float, slow_s: float) -> None:
        """Called a few times a second: pings, and the end of what is silent."""
        if now - self._controls_since >= 1.0:
            self._controls, self._controls_since = 0, now
        self._now = now
        if self._closed_at:
            if (now - self._closed_at > CLOSE_S and not self.waiting_bytes) or now - self._closed_at > slow_s:
                self._transport.abort()
            return
        slow = self.full_since and now - self.full_since > slow_s
        if slow or (not self._paused and now - self._heard_at > SILENT_S):
            self._transport.abort()
        elif self._framing.state is OPEN and now - self._pinged_at > PING_S:
            self._pinged_at = now
            self._framing.send_ping(b"faregate")
            self._flush()
