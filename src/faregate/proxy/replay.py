"""A large answer that is kept goes out in parts, as fast as its client reads it.

All who are given it share its bytes: what a client has not read yet is never more than one part of them, and between a
few parts others have their turn.
"""

from typing import TYPE_CHECKING, Final

from faregate.proxy.guard import guarded

if TYPE_CHECKING:
    from faregate.proxy.exchange import Exchange

#: Answers up to this size are written at once.
AT_ONCE_BYTES: Final = 64 * 1024

#: Parts that are written before others have their turn.
_PARTS_AT_ONCE: Final = 4


class Replay:
    """The rest of one answer."""

    __slots__ = ("_at", "_body", "_exchange", "_paused")

    def __init__(self, exchange: "Exchange", body: bytes) -> None:
        self._exchange = exchange
        self._body = body
        self._at = 0
        self._paused = False

    def begin(self, head: bytes) -> None:
        """Write the head, and go on by itself."""
        client = self._exchange.client
        if client is not None:
            client.write(head)
        self._go()

    def pause(self) -> None:
        """The client reads too slowly."""
        self._paused = True

    def resume(self) -> None:
        """The client caught up."""
        if self._paused:
            self._paused = False
            self._soon()

    def _soon(self) -> None:
        exchange = self._exchange
        exchange.gate.loop.call_soon(guarded(self._go, exchange.mistaken))

    def _go(self) -> None:
        exchange = self._exchange
        body, at = self._body, self._at
        for _ in range(_PARTS_AT_ONCE):
            client = exchange.client
            if exchange.ended or self._paused:
                return
            if client is None:
                exchange.ended = True
                return
            part = body[at : at + AT_ONCE_BYTES]
            at = self._at = at + len(part)
            if part:
                client.write(part)
            if at >= len(body):
                exchange.ended = True
                client.ended(exchange.keep_alive)
                return
        self._soon()
