"""Steps 8 and 9 for a service behind the gate: its answer passes as bytes, and the gate itself measures the call.

What is measured is the time from the first byte sent to the last one received, the bytes of both bodies, and what the
answer's head tells. An answer that says how long it is is held whole and told with its cost, as those of providers; any
other passes as it comes. What a call costs that did not end well (docs/decisions/014):

- an error of the service, or no answer because it closed the connection: nothing, or with ``bill_errors`` what ran;
- what was cut (at a maximum, by a stop, by a client that left, by the service in the middle of a good answer): what
  ran. Units that a cut answer did not come to tell cost nothing, unless the client left or asked for less time: then
  they cost the maximum.
"""

from typing import TYPE_CHECKING, Final

from faregate.core.metering.meter import Metered
from faregate.core.metering.service import ServiceTerms, used
from faregate.core.money import dollars
from faregate.core.usage import NO_USAGE, Usage
from faregate.dialects.services import IDEMPOTENT, Place, StreamMask, length_of
from faregate.errors import CODES, Problem
from faregate.proxy.answer import ERROR_BYTES_MAX, Answer
from faregate.proxy.forward import answer_head
from faregate.proxy.guard import guarded
from faregate.proxy.snapshot import Target
from faregate.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from faregate.proxy.exchange import Exchange

#: A call that one of these ended was cut by the gate while the service was at it.
_CUT: Final = frozenset(("upstream_timeout", "draining"))

#: Answers without a body, which must not say how long it is (RFC 9110 section 8.6).
_WITHOUT_BODY: Final = frozenset((204, 304))


class ServiceAnswer(Answer):
    """The service's side of one exchange."""

    __slots__ = ("_ended_nanos", "_head_seen", "_mask", "_place", "_received", "_told")

    def __init__(self, exchange: "Exchange", connection: UpstreamConnection) -> None:
        super().__init__(exchange, connection)
        target = exchange.target
        assert target is not None
        assert target.place is not None
        self._place: Place = target.place
        self._mask = StreamMask(self._place.masked)
        #: Bytes of the answer's body so far.
        self._received = 0
        self._head_seen = False
        #: For each quantity of the terms, what the head told; ``None`` where it told nothing that can be true.
        self._told: tuple[int | None, ...] = (None,) * len(self._place.terms.told)
        #: When the last byte came, 0 before.
        self._ended_nanos = 0

    @property
    def _terms(self) -> ServiceTerms:
        return self._place.terms

    def _send_again(self) -> bool:
        """Only what may be done twice is sent twice."""
        return self.exchange.request.method in IDEMPOTENT and super()._send_again()

    # -- the answer comes back -----------------------------------------------------------------------------------------

    def answered(self, status: int, head: bytes) -> None:
        """The head of the answer is whole."""
        exchange, gate = self.exchange, self._gate
        self._status = status
        self._request = (b"", b"")
        self._head_seen = True
        self._passed = self._place.passed_headers(head)
        self._told = self._place.told(head)
        self._last_at = gate.now
        self._first_byte_us = (gate.monotonic_nanos() - exchange.started) // 1000
        if _is_good(status) and status not in _WITHOUT_BODY and length_of(head) is None:
            target = exchange.target
            assert target is not None
            self._head = self._flowing_head(target)
            # It goes out alone unless the whole answer is there: then that can be told with its cost.
            gate.loop.call_soon(guarded(self._write_head, self.mistaken))

    def arrived(self, pieces: list[bytes], whole: bool) -> None:
        """Pieces of the body, and whether the answer ends with them."""
        gate = self._gate
        self._last_at = gate.now
        if whole:
            self._upstream_ended = True
            self._connection = None
            self._ended_nanos = gate.monotonic_nanos()
        if self._settled or self._concluding:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._received += len(data)
        most = self._terms.answer_bytes_max
        if self._received > most:
            self._cancel()
            self._fail("upstream_protocol", f"its answer is longer than the {most} bytes that it may have")
        elif self._passing or (self._head and not whole):
            self._pass_on(data, whole)
        elif whole:
            self._head = b""
            self._whole_body(b"".join((*self._pieces, data)) if self._bytes else data)
        else:
            self._hold(data)

    def _hold(self, data: bytes) -> None:
        """Keep a piece of an answer that is told whole, as far as it is not too large for that."""
        gate = self._gate
        if self._bytes:
            self._pieces.append(data)
        else:
            self._pieces = [data]
        self._bytes += len(data)
        gate.held_bytes += len(data)
        if not _is_good(self._status):
            if self._bytes > ERROR_BYTES_MAX:
                self._cancel()
                self._fail("upstream_protocol", "its error is too large to be passed on")
        elif self._bytes > gate.settings.held_body_bytes_max or gate.held_bytes > gate.settings.held_bodies_bytes_max:
            target = self.exchange.target
            assert target is not None
            data = b"".join(self._pieces)
            self._pieces = []
            gate.held_bytes -= self._bytes
            self._bytes = 0
            self._head = self._flowing_head(target)
            self._pass_on(data, False)

    def _pass_on(self, data: bytes, whole: bool) -> None:
        """Let bytes go as they come; the last ones wait for the settlement."""
        self._passing = True
        self._kept = None
        out = self._mask.feed(data)
        if not whole:
            self._write(self._framed(out))
            return
        self._out.append(self._framed(out + self._mask.end()) + self._last_chunk)
        self._settle_good()

    def _write_head(self) -> None:
        if self._head and not self._concluding:
            self._pass_on(b"", False)

    def _whole_body(self, body: bytes) -> None:
        self._body = body
        status = self._status
        if _is_good(status):
            self._settle_good()
        elif 300 <= status < 400:
            self._fail("upstream_protocol", "it answered with a redirect, which is never followed")
        else:
            usage, source = NO_USAGE, "none"
            if self._terms.bill_errors:
                usage, source = self._ran(untold_at_most=False), self._source(None in self._told)
            self._settle_and_deliver("failed", status, "upstream_error", usage, source, None)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _settle_good(self) -> None:
        usage = self._ran(untold_at_most=True)
        self._settle_and_deliver("ok", self._status, "", usage, self._source(None in self._told), None)

    def _ran(self, *, untold_at_most: bool) -> Usage:
        """What the call used so far."""
        if not self._sent_nanos:
            return NO_USAGE
        busy = (self._ended_nanos or self._gate.monotonic_nanos()) - self._sent_nanos
        sent = len(self.exchange.body)
        return used(self._terms, busy, sent, self._received, self._told, untold_at_most=untold_at_most)

    def _source(self, untold: bool) -> str:
        """Where the units come from: measured here, told by the service, or told so that nobody can believe it."""
        if not self._terms.told:
            return "counted"
        return "provider_invalid" if untold else "provider"

    def _fail(self, code: str, why: str, *, unbilled: bool = False, blamed: bool = True) -> None:
        """The answer will never be whole: it costs what ran if it was cut, and mostly nothing if the service failed."""
        if self._settled or self._concluding:
            return
        self._concluding = True
        good = self._head_seen and _is_good(self._status)
        cut = good or (code in _CUT and not self._head_seen)
        usage, source = NO_USAGE, "none"
        if self._sent_nanos and not unbilled and (cut or self._terms.bill_errors):
            # What a good answer left out of its head stands at its maximum; what no head came to tell is nothing,
            # unless it was the caller that did not wait for it.
            hurried = not self._head_seen and self._hurried(code)
            usage = self._ran(untold_at_most=good or hurried)
            source = self._source(None in self._told) if good else "estimate" if hurried else "counted"
        told = "what ran" if usage != NO_USAGE else "nothing"
        self._error = Problem(code, f"Service {self._place.service}: {why}. Charged: {told}.")
        status = "cut" if self._passing else "failed"
        self._out.append(self._error_bytes())
        self._settle_and_deliver(status, CODES[code].status, code, usage, source, None)

    def _hurried(self, code: str) -> bool:
        """Whether it was the caller that ended the call: it left, or gave it less time than the service may take."""
        asked = self.exchange.described.timeout_ms
        return bool(self._client_left_at) or (code == "upstream_timeout" and 0 < asked < self._terms.duration_ms_max)

    def _policy_when_left(self) -> str:
        """What passes as it comes has nobody to go to; what is held will be whole soon, and then it is known."""
        return "estimate" if self._passing else "drain"

    def _conclude(self, status: str, http_status: int, code: str, metered: Metered) -> None:
        """The client left, and what is left of the answer is not waited for: it costs what ran."""
        self._concluding = True
        untold = None in self._told
        source = "estimate" if untold and not self._head_seen else self._source(untold)
        self._settle_and_deliver(status, http_status, code, self._ran(untold_at_most=True), source, None)

    def _held_answer(self, target: Target, due: int | None, usage: Usage = NO_USAGE) -> bytes:
        """The whole answer, now that it is known what its caller is charged; a service is never done later."""
        assert due is not None
        exchange = self.exchange
        body = self._place.mask(self._body)
        self._keep_whole(body)
        framing = f"x-faregate-cost: {dollars(due)}\r\n".encode()
        if self._status not in _WITHOUT_BODY:
            framing += b"content-length: %d\r\n" % len(body)
        ours = self._our_headers(target)
        return answer_head(self._status, self._passed, exchange.id, ours, framing, exchange.keep_alive) + body


def _is_good(status: int) -> bool:
    """Whether the service did what it was asked; *not modified* is an answer, too, to those who asked whether."""
    return 200 <= status < 300 or status == 304
