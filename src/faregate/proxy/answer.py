"""Steps 8 and 9: the provider's answer passes to the client while it is metered, and is settled before its last bytes.

A JSON answer is held whole (up to a bound), settled, and sent with its cost in a header. A stream passes byte for
byte as it comes; what ends it (``[DONE]``, or the last chunk) waits for the settlement. Whatever happens to either
side, each ``Answer`` ends in exactly one of *settled* and *lost*.

It is one file, and a long one, because every callback may find the answer in any of its states: apart, they could not
be checked against each other.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from faregate.core.ledger.events import NOT_AWAITED, Attempt, Lost, Progressed, Settled
from faregate.core.metering.fallback import Estimate
from faregate.core.metering.meter import Metered, Report, StreamMeter, metered_answer
from faregate.core.money import dollars
from faregate.core.pricing.charging import charge
from faregate.core.pricing.cost import Tariff
from faregate.core.routing.health import REASONS, Health
from faregate.core.usage import NO_USAGE, Measure, Usage, measures
from faregate.dialects.answers import usage_in_tail
from faregate.dialects.endings import Cut
from faregate.dialects.errors_shape import render_event
from faregate.dialects.kept import RESPONSE, Made
from faregate.errors import CODES, Problem, status_of
from faregate.ports import StoredAnswer
from faregate.proxy import kept_objects, receipt
from faregate.proxy.deadlines import LOOK_S, TOO_LONG, overdue
from faregate.proxy.failover import give_up, go_elsewhere
from faregate.proxy.forward import LAST_CHUNK, answer_head, chunk, content_type, mask, passed_headers
from faregate.proxy.guard import guarded
from faregate.proxy.refuse import FROM_PROVIDER, problem_answer
from faregate.proxy.routing import retry_after
from faregate.proxy.snapshot import Target
from faregate.proxy.stream_copy import StreamCopy
from faregate.proxy.stream_holds import StreamHold, first_look, is_held_whole
from faregate.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from faregate.proxy.exchange import Exchange

#: Answers larger than the bound for held bodies stream; their usage is looked for in this many last bytes.
TAIL_BYTES = 64 * 1024

#: A keep-alive connection that closes this soon after a request was written had been closing already.
STALE_NANOS = 1_000_000_000

#: Errors of providers are held whole up to this size; real ones have a few hundred bytes.
ERROR_BYTES_MAX = 1024 * 1024

#: The beginning of a stream that does not say which object it is about is held back up to this size.
WITHHELD_BYTES_MAX = 64 * 1024

#: Answers up to this size are held whole however much else is held: no object that a provider made is longer, and one
#: that passes in parts may not be understood.
HELD_IN_ANY_CASE_BYTES = 64 * 1024

#: An idempotent answer is kept for replay up to this size.
KEPT_BYTES_MAX = 1024 * 1024

_CACHE_MISS: Final = b"x-faregate-cache: miss\r\n"
_CACHE_OFF: Final = b"x-faregate-cache: off\r\n"

#: What the health of a deployment was told of a call.
_WELL = 1
_FAILED = 2

#: Reasons for which a provider is not read on: its client reads too slowly; it is not known yet how much may come.
_SLOW = 1
_HALTED = 2

#: A stream that is to go no further is ended with its next event, or after so much silence.
SILENCE_S = 1.0

#: What answers call the service tier that has no name in a price list.
_STANDARD_TIERS = frozenset(("default", "standard", "auto"))

#: Characters per token, as a fraction, where an estimate must do without a tokenizer: 3.5.
_TOKEN_CHARACTERS = (7, 2)


class Answer:
    """The provider's side of one exchange, from the first byte sent to the settlement."""

    __slots__ = (
        "_body",
        "_bytes",
        "_client_left_at",
        "_closely",
        "_concluding",
        "_connection",
        "_error",
        "_first_byte_us",
        "_first_token_us",
        "_gate",
        "_head",
        "_holding",
        "_kept",
        "_kept_max",
        "_last_at",
        "_listed",
        "_meter",
        "_object_id",
        "_on_record",
        "_out",
        "_passed",
        "_passed_bytes",
        "_passing",
        "_paused",
        "_pieces",
        "_probe",
        "_progress_at",
        "_receipt_at",
        "_request",
        "_retry_after",
        "_sent_at",
        "_sent_nanos",
        "_settled",
        "_status",
        "_told_health",
        "_unowned",
        "_upstream_ended",
        "_watched",
        "_withheld",
        "_written",
        "exchange",
    )

    #: Set when the request is sent, when its answer begins, and when some of it is held.
    _request: tuple[bytes, bytes]
    _sent_at: float
    _last_at: float
    _progress_at: float
    _passed: bytes
    _passed_bytes: int
    _pieces: list[bytes]
    _body: bytes
    #: Of a stream, set when it begins: no event may pass without a look, as its owner is not on record yet or it is
    #: about to end; and what looks after its hold, once its text may have used that up.
    _closely: bool
    _holding: "StreamHold | None"

    def __init__(self, exchange: "Exchange", connection: UpstreamConnection) -> None:
        self.exchange = exchange
        self._gate = exchange.gate
        self._connection: UpstreamConnection | None = connection
        self._status = 0
        self._meter: StreamMeter | None = None
        #: Of the pieces that are held, or of the copy that is kept.
        self._bytes = 0
        #: Too large to be held: passes on as it comes.
        self._passing = False
        #: Bytes for the client that wait for the settlement.
        self._out: list[bytes] = []
        self._head = b""
        self._concluding = False
        self._settled = False
        #: The end is journalled, and on the disk where that is waited for: the last bytes may go.
        self._on_record = False
        self._upstream_ended = False
        #: Why the provider is not read on: bits of ``_SLOW`` and ``_HALTED``.
        self._paused = 0
        self._error: Problem | None = None
        self._kept = StreamCopy() if exchange.idempotency or exchange.look is not None else None
        cache = exchange.gate.cache
        #: How long an answer may be that is kept.
        self._kept_max = KEPT_BYTES_MAX if exchange.idempotency or cache is None else cache.answer_bytes_max
        #: When the request was sent, 0 before.
        self._sent_nanos = 0
        self._first_byte_us = 0
        self._first_token_us = 0
        self._client_left_at = 0.0
        #: The object that the beginning of an answer names which is too large to be held.
        self._object_id = ""
        #: The stream's first event names an object of the provider's, whose owner must be on record before it passes.
        self._unowned = False
        self._withheld = b""
        #: The health of its deployment, where that hears of each call; and what a failed provider asks to be waited.
        self._watched: Health | None = None
        self._probe = 0
        self._told_health = 0
        self._written = False
        #: Its try stands among those of the exchange already.
        self._listed = False
        self._retry_after = 0
        #: Before which of the bytes that wait the receipt goes, 0 for none.
        self._receipt_at = 0

    def delivered(self) -> tuple[int, str, bytes, int]:
        """What came of it, for those who keep contents: status, code, the whole body, how many bytes passed.

        There is no whole body of a stream, nor of one too large to be held; of a failure it is what was told of it.
        """
        error = self._error
        if error is not None:
            return self._status or status_of(error), error.code, error.message.encode(), 0
        if self._meter is not None:
            return self._status, "", b"", 0
        if self._passing:
            return self._status, "", b"", getattr(self, "_passed_bytes", 0)
        return self._status, "", getattr(self, "_body", b""), 0

    def watch(self, health: Health, probe: int) -> None:
        """Tell the deployment's health of this call's beginning and end; ``probe`` is its number where it tries it."""
        self._watched, self._probe = health, probe
        health.begun()

    @property
    def was_sent(self) -> bool:
        """Whether the request was written to an open connection, so that its provider may have read it."""
        return self._written

    def taken_up(self) -> None:
        """No other place took the call: its end is told after all, and is listed where it came."""
        self._concluding = False
        self._listed = True

    def handed_over(self) -> None:
        """Another place has the call: this answer is over, and settles nothing."""
        self._settled = True
        self._unwatch()
        if self._bytes and not self._passing:
            self._gate.held_bytes -= self._bytes
            self._bytes = 0

    def _tell_well(self) -> None:
        """Tell the deployment's health that it answers as it should: a whole answer, or the first events of a stream.

        A call that was sent before somebody began to count is counted, too: its failure would be.
        """
        target = self.exchange.target
        assert target is not None
        if not self._told_health and (self._watched is not None or target.health.counts):
            self._told_health = _WELL
            waited_us = (self._sent_nanos - self.exchange.started) // 1000
            self._gate.deployments.answered(target, max(0, self._first_byte_us - waited_us), self._sent_nanos)

    def _blame(self, status: int, code: str) -> None:
        """Tell the deployment's health of a failure, but once of one call that is tried there again and again."""
        exchange, target = self.exchange, self.exchange.target
        assert target is not None
        self._told_health = _FAILED
        if self._probe or all(each.deployment != target.name for each in exchange.attempts):
            self._gate.deployments.failed(target, exchange.lane, status, code, self._retry_after, self._probe)

    def _unwatch(self) -> None:
        watched, self._watched = self._watched, None
        if watched is not None:
            watched.over()
            if self._probe and not self._told_health:
                # Nothing was learnt of the place: another call may try now.
                watched.gave_way(self._probe)

    @property
    def settled(self) -> bool:
        """Whether its end, or that it is not known, is on record."""
        return self._settled

    # -- the request goes out ------------------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes) -> None:
        """Send the request; the answer comes back through ``answered`` and ``arrived``."""
        connection = self._connection
        assert connection is not None
        gate = self._gate
        if self._concluding:
            # The gate was stopped while the intent went to the disk.
            return
        self._request = (head, body)
        self._sent_at = self._last_at = self._progress_at = gate.loop.time()
        self._sent_nanos = gate.monotonic_nanos()
        if self.exchange.client is None:
            # It left while the intent went to the disk.
            self._connection = None
            connection.give_back()
            self._settle_and_deliver("aborted", 499, "client_gone", NO_USAGE, "none", None)
            return
        if connection.transport.is_closing():
            self.upstream_lost("upstream_truncated", "the connection closed before the request was sent")
            return
        self._written = True
        connection.send(self, head, body)

    def _send_again(self) -> bool:
        """A keep-alive connection was closing while we wrote to it: nothing came back, so a fresh one is tried once."""
        connection, target = self._connection, self.exchange.target
        if connection is None or not connection.used or connection.heard or target is None:
            return False
        if self._gate.monotonic_nanos() - self._sent_nanos > STALE_NANOS:
            return False
        # The fresh one has not been used, so that there is no third time.
        self._connection = None
        target.pool.dial(
            guarded(self._connected_again, self.mistaken), guarded(self._not_connected_again, self.mistaken)
        )
        return True

    def _connected_again(self, connection: UpstreamConnection) -> None:
        target = self.exchange.target
        assert target is not None
        if self._settled or self._concluding:
            target.pool.give_back(connection)
            return
        self._connection = connection
        self._sent_at = self._last_at = self._gate.loop.time()
        connection.send(self, *self._request)

    def _not_connected_again(self, code: str, why: str) -> None:
        if not self._settled and not self._concluding:
            self._fail(code, why, unbilled=True)

    # -- the answer comes back (called by the connection) --------------------------------------------------------------

    def answered(self, status: int, head: bytes) -> None:
        """The head of the answer is whole."""
        self._status = status
        # It cannot be sent again any more; a long stream should not hold its request's bytes twice.
        self._request = (b"", b"")
        passed = self._passed = passed_headers(head)
        self._last_at = self._gate.now
        self._first_byte_us = (self._gate.monotonic_nanos() - self.exchange.started) // 1000
        if status >= 400:
            self._retry_after = retry_after(head, self._gate.wall_nanos())
            target = self.exchange.target
            if target is not None:
                # A provider that complains of a credential may repeat it, in a header as in its body.
                self._passed = passed = mask(passed, target.pool.masked)
            self._blame(status, "")
        if status == 200 and _has_events(passed):
            exchange = self.exchange
            call, target = exchange.call, exchange.target
            assert target is not None
            dialect = exchange.dialect
            if dialect.shown is not None:
                # A list passes only when what is not the caller's own was taken out of it.
                return
            hide = dialect.asks_usage and not call.usage_wanted and target.provider.stream_usage
            decoder = dialect.events()
            if self._gate.contents is not None:
                decoder = self._gate.contents.tapped(exchange, decoder)
            meter = self._meter = StreamMeter(decoder, hide, call.choices, dialect.last_mark)
            meter.watch(first_look(exchange), self._look_at_hold)
            self._unowned = self._closely = dialect.made is not None
            self._holding = None
            self._head = self._flowing_head(target)
            # The first events usually come in the same read and go out with the head; if not, it goes out alone.
            self._gate.loop.call_soon(guarded(self._write_head, self.mistaken))

    def arrived(self, pieces: list[bytes], whole: bool) -> None:
        """Pieces of the body, and whether the answer ends with them."""
        gate = self._gate
        self._last_at = gate.now
        meter = self._meter
        if whole:
            self._upstream_ended = True
            self._connection = None
            if meter is None and not self._bytes and not self._passing:
                # Nearly every whole answer comes in one read.
                self._whole_body(pieces[0] if len(pieces) == 1 else b"".join(pieces))
                return
        if meter is not None:
            self._stream_arrived(meter, pieces[0] if len(pieces) == 1 else b"".join(pieces), whole, b"")
            return
        if self._bytes:
            self._pieces += pieces
        else:
            self._pieces = pieces
        for piece in pieces:
            self._bytes += len(piece)
            gate.held_bytes += len(piece)
        if self._passing:
            self._pass(whole)
        elif whole:
            self._whole_body(b"".join(self._pieces))
        elif self._status >= 300:
            # It is searched for our credentials before it passes, so it must be whole.
            if self._bytes > ERROR_BYTES_MAX:
                self._cancel()
                self._fail("upstream_protocol", "its error is too large to be passed on")
        elif self._bytes > gate.settings.held_body_bytes_max or (
            gate.held_bytes > gate.settings.held_bodies_bytes_max and self._bytes > HELD_IN_ANY_CASE_BYTES
        ):
            self._start_passing()

    def chunk_arrived(self, framed: bytes, piece: bytes) -> None:
        """One chunk that ends no answer: as it came, and its data."""
        meter = self._meter
        if meter is None:
            self.arrived([piece], False)
            return
        self._last_at = self._gate.now
        self._stream_arrived(meter, piece, False, framed)

    def upstream_lost(self, code: str, why: str) -> None:
        """The provider's connection ended or broke the protocol before the answer was whole."""
        if self.exchange.ended:
            return
        connection = self._connection
        if self._settled or self._concluding:
            # Settled at ``[DONE]``: only the framing of the end was missing.
            self._upstream_ended = True
            self._connection = None
            self._out.append(self._last_chunk)
            self._flush()
            return
        if code == "upstream_truncated" and self._send_again():
            return
        self._connection = None
        silent = code == "upstream_truncated" and connection is not None and not connection.heard
        self._fail(code, why, unbilled=silent)

    # -- streams -------------------------------------------------------------------------------------------------------

    def _stream_arrived(self, meter: StreamMeter, data: bytes, whole: bool, framed: bytes) -> None:
        """More of a stream; ``framed`` is the same as a chunk, where it came as one."""
        if not self._told_health:
            self._tell_well()
        out = meter.feed(data) if data else b""
        if whole:
            out += meter.tail()
        if self._closely:
            if self._unowned:
                out = self._owned(meter, out, whole)
            if self._ends_with(meter, out, whole):
                return
        if not self._first_token_us and meter.first_token:
            self._first_token_us = self._elapsed_us()
            # What waits is handed on in one piece, beyond which a look at a hold that is too small would come too late.
            if self._connection is not None and is_held_whole(self.exchange):
                self._connection.let_wait()
        if self._kept is not None:
            self._keep(out)
        if not (whole or meter.done or self._concluding):
            # Nearly every event: it passes at once, and is understood later.
            self._write(framed if framed and out is data and self.exchange.request.chunked else self._framed(out))
            return
        if whole and not (self._concluding or meter.done or meter.finish_seen or meter.error_event):
            # The provider ended its stream in the middle of an answer, which the framing does not tell.
            if out:
                self._write(self._framed(out))
            self._fail("upstream_truncated", "its stream ended before the answer did")
            return
        if not self._concluding and self._gate.settings.stream_receipt:
            out = self._before_receipt(out, whole)
        last = self._framed(out) + self._last_chunk if whole else self._framed(out)
        if self._on_record and not self._out:
            self._write(last)
            if whole:
                self._end()
            return
        self._out.append(last)
        if not self._concluding:
            self._conclude_stream(meter)

    def _before_receipt(self, out: bytes, whole: bool) -> bytes:
        """Keep the last event apart, so that the receipt can go before it; returns it."""
        at = receipt.place(out, self.exchange.dialect.last_mark, whole)
        if at < 0:
            return out
        self._out.append(self._framed(out[:at]))
        self._receipt_at = len(self._out)
        return out[at:]

    def _owned(self, meter: StreamMeter, out: bytes, whole: bool) -> bytes:
        """Hold the first events back until it is known whose the object is that they name; nearly always at once."""
        out, self._withheld = self._withheld + out, b""
        id = meter.report.id
        if not id and not whole and len(out) <= WITHHELD_BYTES_MAX:
            self._withheld = out
            return b""
        self._unowned = False
        self._closely = self._holding is not None and self._holding.ending
        if id:
            if self.exchange.call.job:
                # Should this process die, whoever comes next knows where the end will be told.
                self._gate.mark_awaited(self._awaited_mark(id))
            kept_objects.remember(self.exchange, (Made(id, RESPONSE),))
        return out

    def _awaited_mark(self, object_id: str) -> Lost:
        """That the work goes on whatever becomes of this answer."""
        exchange = self.exchange
        attempts, awaited = self._tries(self.attempt("")), kept_objects.awaited(exchange, object_id)
        at, latency = self._gate.wall_nanos(), self._elapsed_us()
        return Lost(exchange.id, at, self._status, "", latency, self._first_byte_us, attempts, 0, awaited)

    def _conclude_stream(self, meter: StreamMeter) -> None:
        metered = meter.finish("complete")
        status, code = ("failed", "upstream_error") if metered.error else ("ok", "")
        self._conclude(status, 200, code, metered)

    # -- streams that go no further (see ``stream_holds``) -------------------------------------------------------------

    @property
    def concluding(self) -> bool:
        """Its end has begun: what it holds will not change any more, but for being given back."""
        return self._concluding or self._settled

    def _look_at_hold(self) -> None:
        """The text may have used up what is held."""
        meter, holding = self._meter, self._holding
        assert meter is not None
        if holding is None:
            holding = self._holding = StreamHold(self, meter)
            if not holding.concerns:
                return
        holding.look()

    def look_closely(self) -> None:
        """Let no event pass without a look any more."""
        self._closely = True

    def halt(self) -> None:
        """Read no further before ``read_on``."""
        connection = self._connection
        if connection is not None and not connection.transport.is_closing():
            self._paused |= _HALTED
            connection.pause()

    def read_on(self) -> None:
        """It is known what may still come."""
        self._read_on(_HALTED)

    def _read_on(self, reason: int) -> None:
        """One reason for not reading is gone."""
        if not self._paused & reason:
            return
        self._paused &= ~reason
        if self._paused:
            return
        self._last_at = self._gate.now
        if self._connection is not None:
            self._connection.resume()

    def _ends_with(self, meter: StreamMeter, out: bytes, whole: bool) -> bool:
        """End the stream with the last whole event in ``out``, where it is to go no further."""
        holding = self._holding
        if holding is None or not holding.ending or self.concluding or whole or meter.done or meter.finish_seen:
            # An answer that comes to its own end may do so.
            return False
        unfinished = meter.unfinished_bytes
        if unfinished >= len(out):
            return False
        self._end_short(meter, holding, out[: len(out) - unfinished])
        return True

    def _end_short(self, meter: StreamMeter, holding: StreamHold, sent: bytes) -> None:
        """Cancel the call, and end the stream as the provider would have ended it at its cap.

        It is charged what came of it, by our own count, within the hold.
        """
        exchange, reservation, end = self.exchange, self.exchange.reservation, self.exchange.dialect.end
        assert reservation is not None
        assert end is not None
        self._cancel()
        self._concluding = True
        # A repeat shall not be given half an answer for a whole one.
        self._kept = None
        if sent:
            self._write(self._framed(sent))
        metered = meter.finish("cut")
        decoder, now = meter.decoder, self._gate.wall_nanos() // 1_000_000_000
        if self._gate.contents is not None:
            decoder = self._gate.contents.untapped(decoder)

        def ended(usage: Usage, source: str) -> None:
            call = exchange.call
            if self._gate.settings.stream_receipt:
                self._out.append(b"")
                self._receipt_at = len(self._out)
            cut = Cut(sent, metered.report, usage, decoder, call.choices, call.usage_wanted, now)
            self._out.append(self._framed(end(cut)) + self._last_chunk)
            self._settle_and_deliver("cut", 200, holding.code, usage, source, metered.report, holding.limit)

        told = metered.told
        if told is not None and told.output_tokens <= reservation.amounts.output_tokens:
            ended(told, "provider")
            return

        def counted(estimate: Estimate) -> None:
            ended(estimate.usage, estimate.source)

        # A report is the least that was used; what goes beyond the hold is not charged.
        uncertain = metered._replace(unreported=max(metered.unreported, 1))
        self._gate.count_usage(exchange, uncertain, guarded(counted, self.mistaken))

    def _framed(self, data: bytes) -> bytes:
        """Bytes of an answer that goes on as it comes, as this client understands them."""
        return chunk(data) if self.exchange.request.chunked else data

    @property
    def _last_chunk(self) -> bytes:
        return LAST_CHUNK if self.exchange.request.chunked else b""

    def _flowing_head(self, target: Target) -> bytes:
        """The head of an answer that goes on as it comes, without the headers of its cost."""
        exchange = self.exchange
        ours, framing = self._our_headers(target), b"transfer-encoding: chunked\r\n"
        if not exchange.request.chunked:
            # HTTP/1.0 knows no chunks: the end of the connection is the end of the answer (RFC 9112 section 6.3).
            framing, exchange.keep_alive = b"", False
        return answer_head(self._status, self._passed, exchange.id, ours, framing, exchange.keep_alive)

    def _write_head(self) -> None:
        if self._head:
            self._write(b"")

    # -- whole bodies --------------------------------------------------------------------------------------------------

    def _whole_body(self, body: bytes) -> None:
        self._body = body
        status = self._status
        dialect = self.exchange.dialect
        if 200 <= status < 300:
            if dialect.answers_json and body[:1] != b"{" and body.lstrip()[:1] != b"{":
                self._fail("upstream_protocol", "its answer is not the JSON that was asked for")
                return
            report = dialect.usage_of(body)
            made = dialect.made(body) if dialect.made is not None else ()
            if report.pending and report.id:
                self._wait(report.id, made)
                return
            if made:
                kept_objects.remember(self.exchange, made)
            if self.exchange.free:
                kept_objects.ended(self.exchange)
                if dialect.shown is not None:
                    self._body = dialect.shown(body, kept_objects.own_of(self.exchange))
                self._settle_and_deliver("ok", status, "", NO_USAGE, "none", report)
            elif self.exchange.call.declared:
                self._settle_and_deliver("ok", status, "", *self._declared(report, body), report)
            elif report.usage is not None:
                self._settle_and_deliver("ok", status, "", report.usage, "provider", report)
            else:
                self._conclude("ok", status, "", metered_answer(report, dialect.answer_text(body)))
        elif 300 <= status < 400 or status < 200:
            self._fail("upstream_protocol", "it answered with a redirect, which is never followed")
        else:
            # A provider's error costs nothing unless it says otherwise (CAPABILITIES D10).
            report = dialect.usage_of(body)
            usage = report.usage
            source = "provider" if usage is not None else "none"

            def tell() -> None:
                self._settle_and_deliver("failed", status, "upstream_error", usage or NO_USAGE, source, report)

            # What was billed is charged, and not tried again.
            if usage is not None or not self._goes_elsewhere(status, "upstream_error", tell):
                tell()

    def _start_passing(self) -> None:
        """The answer is larger than what is held whole: it goes on as it comes."""
        target = self.exchange.target
        assert target is not None
        dialect = self.exchange.dialect
        if dialect.shown is not None:
            self._cancel()
            self._fail("upstream_protocol", "its list is too large to be looked through")
            return
        if dialect.made is not None and self._status < 300:
            made = dialect.made(b"".join(self._pieces))
            self._object_id = made[0].id if made else ""
            kept_objects.remember(self.exchange, made)
        self._body = b""
        self._passed_bytes = 0
        self._kept = None
        self._head = self._flowing_head(target)
        self._passing = True
        self._pass(False)

    def _pass(self, whole: bool) -> None:
        data = b"".join(self._pieces)
        self._gate.held_bytes -= self._bytes
        self._bytes = 0
        self._body = (self._body + data)[-TAIL_BYTES:]
        self._passed_bytes += len(data)
        if not whole:
            self._write(self._framed(data))
            return
        self._out.append(self._framed(data) + self._last_chunk)
        exchange = self.exchange
        if exchange.call.job:
            # Its last bytes do not tell whether the work is done; the object will.
            self._wait(self._object_id, ())
            return
        report = usage_in_tail(self._body, exchange.dialect.usage_of) if exchange.dialect.answers_json else Report()
        # Where it tells no usage its bytes count: a token of text is at least one.
        self._conclude("ok", self._status, "", Metered(report, "complete", "", self._passed_bytes))

    # -- the end: usage, settlement, last bytes ------------------------------------------------------------------------

    def _conclude(self, status: str, http_status: int, code: str, metered: Metered) -> None:
        """Step 9 begins: the usage is what the provider told, or our own count of what was delivered."""
        self._concluding = True
        if self.exchange.free:
            self._settle_and_deliver(status, http_status, code, NO_USAGE, "none", metered.report)
            return
        told = metered.told
        work = "" if told is not None else self._work_id
        if work:
            self._wait(work, ())
            return
        if self.exchange.call.declared:
            usage, source = self._declared(metered.report._replace(usage=told))
            self._settle_and_deliver(status, http_status, code, usage, source, metered.report)
            return
        if told is not None:
            self._settle_and_deliver(status, http_status, code, told, "provider", metered.report)
            return

        def counted(estimate: Estimate) -> None:
            self._settle_and_deliver(status, http_status, code, estimate.usage, estimate.source, metered.report)

        self._gate.count_usage(self.exchange, metered, guarded(counted, self.mistaken))

    def _declared(self, report: Report, body: bytes = b"") -> tuple[Usage, str]:
        """What a call that declares what it buys has used, and who says so.

        Some of these are sold by the piece and others by the token, and only the price tells which. What the answer
        does not say was known before: what was asked for, or our own count of its tokens, which is never less. Where
        tokens are the price, the pieces are told beside them and cost nothing: limits count them.
        """
        exchange = self.exchange
        declared, told, tariff = exchange.call.declared, report.usage, exchange.tariff
        if tariff.by_tokens:
            # Pieces with a price of their own would be billed twice.
            free = [each for each in declared if tariff.unpriced((each,))]
            if told is not None:
                return _beside(told, free), "provider"
            counted = exchange.dialect.counted
            usage = _beside(counted(body, exchange.call), free) if counted is not None else Usage(other=declared)
        elif told is None or not (told.other and {each.unit for each in declared} & {each.unit for each in told.other}):
            # An answer that tells tokens only tells nothing of what is paid.
            usage = (told or NO_USAGE)._replace(other=measures((*declared, *(told.other if told is not None else ()))))
        else:
            return told, "provider"
        return usage, "provider_invalid" if report.invalid else "counted"

    def _settle_and_deliver(
        self,
        status: str,
        http_status: int,
        code: str,
        usage: Usage,
        source: str,
        report: Report | None,
        limit: str = "",
    ) -> None:
        """Journal the settlement, then let the last bytes go; ``limit`` is the one that ended the answer."""
        if self._settled:
            return
        exchange, gate = self.exchange, self._gate
        self._concluding = True
        reservation, match, target = exchange.reservation, exchange.match, exchange.target
        assert reservation is not None
        assert match is not None
        assert target is not None
        tariff = exchange.tariff
        if report is not None and (report.service_tier or report.unknown or usage.other):
            tariff = self._tariff_of(report, usage, target, reservation.admitted_at)
        # What served nobody costs nothing, not even the price of a call.
        cost = tariff.cost(usage) if source != "none" else 0
        charging = match.charging
        due = cost if charging is None else charge(charging, cost, used=usage != NO_USAGE)
        now, sent, started = gate.monotonic_nanos(), self._sent_nanos, exchange.started
        latency = (now - started) // 1000
        first_token = self._first_token_us or self._first_byte_us
        over = due - reservation.amounts[0]
        look, cached = exchange.look, ""
        if look is not None:
            cached, look.status, look.cost = look.word, status, cost
            look.model = report.model if report is not None else ""
            look.finished = self._meter is None or self._meter.finish_seen
        # Named tuples' own constructors cost three times as much as the tuple's, on every request.
        attempt = tuple.__new__(Attempt, (target.name, self._status, code, (now - sent) // 1000))
        event = tuple.__new__(
            Settled,
            (
                exchange.id,
                gate.wall_nanos(),
                status,
                http_status,
                code,
                usage,
                source,
                cost,
                due,
                tariff.version,
                latency,
                first_token,
                self._tries(attempt),
                report.model if report is not None else "",
                report.id if report is not None else "",
                max(0, over),
                "",
                match.charge_rule,
                limit,
                cached,
                0,
            ),
        )
        if status == "ok" and not self._told_health and target.place is None:
            self._tell_well()
        position = gate.settle(reservation, event, due, usage)
        self._settled = True
        if self._receipt_at:
            self._out.insert(self._receipt_at, self._framed(receipt.comment(exchange, due, usage)))
        # A client that left gets none, and there may be no body to make one of.
        held = self._meter is None and not self._passing and self._error is None and code != "client_gone"
        answer = self._held_answer(target, due, usage) if held else b""
        if answer and not gate.waits_for_disk and exchange.client is not None:
            # Nobody waits for what is only counted.
            exchange.client.write(answer)
        if cost | due and gate.brakes is not None:
            gate.brakes.spent(match.who.key, max(cost, due), event.at, exchange.body)
        counters = match.answered if status == "ok" else gate.metrics.row(match.who, status)
        gate.metrics.settled((counters, usage, cost, latency, (sent - started) // 1000 if sent else 0, first_token))
        if answer:
            if not gate.waits_for_disk:
                self._end()
                return
            self._out.append(answer)
        if gate.waits_for_disk and position is not None:
            gate.journal.when_durable(position, guarded(self._recorded, self.mistaken))
        else:
            self._recorded()

    def _tries(self, attempt: Attempt) -> tuple[Attempt, ...]:
        """All tries of the exchange, this one among them."""
        tried = self.exchange.attempts
        if not tried:
            return (attempt,)
        return tried if self._listed else (*tried, attempt)

    def _tariff_of(self, report: Report, usage: Usage, target: Target, admitted_at: int) -> Tariff:
        """The tariff of the service tier that answered; an alarm counts what it has no price for."""
        tariff = self.exchange.tariff
        if report.service_tier:
            found = target.tariff_of(report.service_tier, admitted_at)
            if found is not None:
                tariff = found
            elif report.service_tier not in _STANDARD_TIERS:
                self._gate.metrics.unmeasured("service_tier", 1)
        if report.unknown:
            self._gate.metrics.unmeasured("member", report.unknown)
        unpriced = tariff.uncovered(usage.other) if usage.other else ""
        if unpriced:
            self._gate.metrics.unmeasured(unpriced.partition(" ")[0], 1)
        return tariff

    def _recorded(self) -> None:
        self._on_record = True
        self._flush()

    def _wait(self, object_id: str, made: tuple[Made, ...]) -> None:
        """The provider only accepted the work: its hold stays, and the console asks for its end.

        Without an id, which only an answer has that is too large to be held, nobody can ask: it is an unknown.
        """
        self._settled = self._concluding = True
        exchange, gate = self.exchange, self._gate
        target = exchange.target
        assert target is not None
        attempts = self._tries(self.attempt(""))
        latency = self._elapsed_us()
        awaited = kept_objects.awaited(exchange, object_id) if object_id else NOT_AWAITED
        # First where its cost will be told, then whose it is: nobody can ask for what he was not told of.
        position = gate.lose(exchange, self._status, "", latency, self._first_byte_us, attempts, 0, awaited)
        kept_objects.remember(exchange, made)
        if self._meter is None and not self._passing:
            self._out.append(self._held_answer(target, None))
        if gate.waits_for_disk and position is not None:
            gate.journal.when_durable(position, guarded(self._recorded, self.mistaken))
        else:
            self._recorded()

    def _held_answer(self, target: Target, due: int | None, usage: Usage = NO_USAGE) -> bytes:
        """The whole answer, now that it is known what its caller is charged; ``None`` where it is not known yet."""
        exchange = self.exchange
        body = self._body if self._status < 300 else mask(self._body, target.pool.masked)
        self._keep_whole(body)
        if due is None:
            framing = b"content-length: %d\r\n" % len(body)
        else:
            text, cached, write, audio, out, reasoning, spoken, other = usage
            tokens = text + cached + write + audio + out + reasoning + spoken
            if other:
                tokens = usage.input_tokens + usage.output_tokens
            consumed = self._gate.limit_headers.consumed
            framing = (
                f"x-faregate-cost: {dollars(due)}\r\n{consumed}{tokens}\r\ncontent-length: {len(body)}\r\n".encode()
            )
        match = exchange.match
        assert match is not None
        special = match.tells or self._status >= 400 or exchange.attempts or exchange.cap or exchange.notes
        special = special or exchange.caching
        ours = self._our_headers(target) if special else target.tag
        return answer_head(self._status, self._passed, exchange.id, ours, framing, exchange.keep_alive) + body

    def _our_headers(self, target: Target) -> bytes:
        exchange = self.exchange
        headers = target.tag
        headers += self._tries_header()
        if exchange.cap:
            headers += b"x-faregate-clamped: %d\r\n" % exchange.cap
        if exchange.caching:
            headers += _CACHE_MISS if exchange.look is not None else _CACHE_OFF
        if exchange.downgraded_from:
            headers += b"x-faregate-downgraded: %b\r\n" % exchange.downgraded_from.encode("ascii", "replace")
        if exchange.notes and self._gate.contents is not None:
            headers += self._gate.contents.header(exchange)
        if self._status >= 400:
            headers += FROM_PROVIDER
        return headers + exchange.limit_headers()

    def _tries_header(self) -> bytes:
        """How often the call was tried, where that is more than once."""
        tried = len(self.exchange.attempts) + (not self._listed)
        return b"x-faregate-attempts: %d\r\n" % tried if tried > 1 else b""

    def _fail(self, code: str, why: str, *, unbilled: bool = False, blamed: bool = True) -> None:
        """The answer will never be whole: decide what it costs, and tell the client what it may still be told.

        ``unbilled``: the provider closed without a byte, or was never sent a byte; no provider bills that
        (docs/decisions/005).
        """
        if self._settled or self._concluding:
            return
        target = self.exchange.target
        assert target is not None
        if target.place is None and code in REASONS and blamed and self._told_health != _FAILED:
            self._blame(0, code)
        # An error costs nothing, also where the provider did not get to the end of telling it (docs/decisions/005).
        status = self._status if self._status >= 400 else 0
        unbilled = unbilled or status > 0
        if self._meter is None and not self._passing and self._sent_nanos:
            outcome = "upstream_error" if status else "upstream_unsent" if unbilled else code

            def tell() -> None:
                self._tell_failure(code, why, unbilled=unbilled)

            if self._goes_elsewhere(status, outcome, tell):
                return
        self._tell_failure(code, why, unbilled=unbilled)

    def _goes_elsewhere(self, status: int, code: str, tell: Callable[[], None]) -> bool:
        """Whether another place is tried; then nothing is told before that has failed, too."""
        if not go_elsewhere(self, status, code, self._retry_after, tell):
            return False
        self._concluding = True
        return True

    def _tell_failure(self, code: str, why: str, *, unbilled: bool = False) -> None:
        self._concluding = True
        exchange = self.exchange
        target = exchange.target
        assert target is not None
        meter = self._meter
        status = "cut" if meter is not None or self._passing else "failed"
        metered = meter.finish("cut") if meter is not None else Metered(Report(), "cut")
        told = metered.told
        name, http_status = target.provider.name, CODES[code].status
        if self._work_id:
            self._error = Problem(code, f"Provider {name}: {why}. Its work goes on. Charged: pending.")
            self._lose(code)
        elif exchange.free:
            self._error = Problem(code, f"Provider {name}: {why}. Charged: nothing.")
            self._settle_failed(status, http_status, code, NO_USAGE, "none", metered.report)
        elif told is None and target.provider.lookup and not (unbilled and not self._sent_nanos):
            self._error = Problem(code, f"Provider {name}: {why}. Charged: pending.")
            self._lose(code)
        elif told is not None and not exchange.call.declared:
            self._error = Problem(code, f"Provider {name}: {why}. Charged: what it reported.")
            self._settle_failed(status, http_status, code, told, "provider", metered.report)
        elif unbilled:
            self._error = Problem(code, f"Provider {name}: {why}. Charged: nothing.")
            self._settle_failed(status, http_status, code, NO_USAGE, "none", metered.report)
        else:
            self._error = Problem(code, f"Provider {name}: {why}. Charged: an estimate of what was used.")
            if exchange.call.declared:
                usage, _ = self._declared(metered.report._replace(usage=told))
                self._settle_failed(status, http_status, code, usage, "estimate", metered.report)
                return

            def counted(estimate: Estimate) -> None:
                self._settle_failed(status, http_status, code, estimate.usage, "estimate", metered.report)

            self._gate.count_usage(exchange, metered, guarded(counted, self.mistaken))

    @property
    def _work_id(self) -> str:
        """The object at which the end of work can be asked for that goes on without anybody listening; else empty."""
        if not self.exchange.call.job:
            return ""
        meter = self._meter
        if meter is None:
            return self._object_id
        report = meter.report
        return report.id if report.usage is None else ""

    @property
    def _unnamed_work(self) -> bool:
        """Whether it is work that may go on by itself, and no object was named yet that will tell its end."""
        meter = self._meter
        return self.exchange.call.job and not (self._object_id if meter is None else meter.report.id)

    def _settle_failed(
        self, status: str, http_status: int, code: str, usage: Usage, source: str, report: Report
    ) -> None:
        self._out.append(self._error_bytes())
        self._settle_and_deliver(status, http_status, code, usage, source, report)

    def _lose(self, code: str) -> None:
        """The provider can be asked later what became of it: until then its money stays held."""
        self._settled = True
        exchange = self.exchange
        meter = self._meter
        tokens = meter.delivered_characters if meter is not None else 0
        work = self._work_id
        awaited = kept_objects.awaited(exchange, work) if work else NOT_AWAITED
        self._out.append(self._error_bytes())
        self._gate.lose(
            exchange,
            CODES[code].status,
            code,
            self._elapsed_us(),
            self._first_token_us or self._first_byte_us,
            self._tries(self.attempt(code)),
            _tokens_of(tokens),
            awaited,
        )
        self._recorded()

    def _error_bytes(self) -> bytes:
        """The failure as this client can still be told it: an error event where a stream runs, else a whole answer."""
        exchange = self.exchange
        assert self._error is not None
        shape = exchange.operation.shape if exchange.operation is not None else "openai"
        if self._meter is not None and not self._head:
            return self._framed(render_event(self._error, exchange.id, shape)) + self._last_chunk
        if self._passing:
            # Half a body is out: only closing without the last chunk says that it is not whole.
            exchange.keep_alive = False
            return b""
        self._head = b""
        extra = (exchange.target.tag if exchange.target is not None else b"") + self._tries_header()
        return problem_answer(self._error, exchange.id, shape, keep_alive=exchange.keep_alive, extra=extra)

    def _flush(self) -> None:
        """Let the last bytes go, as soon as everything is on record."""
        if not self._on_record:
            return
        out, self._out = self._out, []
        if out or self._head:
            self._write(b"".join(out))
        if self._upstream_ended or self._connection is None or self._error is not None:
            self._end()

    def _write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        client = self.exchange.client
        if client is not None and data:
            client.write(data)

    def _end(self) -> None:
        exchange, gate = self.exchange, self._gate
        if exchange.ended:
            return
        exchange.ended = True
        # Each would keep the other alive until the garbage collector comes round.
        exchange.answer = None
        self._unwatch()
        gate.closed(self)
        if self._bytes:
            if not self._passing:
                gate.held_bytes -= self._bytes
            self._bytes = 0
        if exchange.idempotency:
            self._remember()
        client = exchange.client
        if client is not None:
            client.ended(exchange.keep_alive)
        if exchange.look is not None:
            # Last and guarded: whatever becomes of it, the call has ended.
            guarded(self._offer, gate.tell_mistake)(exchange)
        gate.metrics.count_many()

    def _remember(self) -> None:
        exchange, kept = self.exchange, self._kept
        answer = None
        if kept is not None and self._error is None and self._status == 200:
            answer = StoredAnswer(self._status, b"content-type: %b\r\n" % content_type(self._passed), kept.joined())
        now = self._gate.wall_nanos()
        self._gate.answers.finish(exchange.who.key, exchange.idempotency, now, answer)

    def _offer(self, exchange: "Exchange") -> None:
        """Let the response cache have the answer, where all of it is at hand."""
        kept, cache = self._kept, self._gate.cache
        if cache is not None:
            body = kept.joined() if kept is not None and self._error is None else None
            # Its head is not there where no answer began.
            type = content_type(self._passed) if self._status else b""
            cache.ended(exchange, self._status, type, body)

    def _keep(self, data: bytes) -> None:
        """Keep a copy for replay, as long as it is small."""
        kept, gate = self._kept, self._gate
        if kept is None:
            return
        self._bytes += len(data)
        if self._bytes <= self._kept_max:
            gate.held_bytes += len(data)
            kept.add(data)
        else:
            self._kept = None
            gate.held_bytes -= self._bytes - len(data)
            self._bytes = 0

    def _keep_whole(self, body: bytes) -> None:
        """Keep an answer that came whole, as long as it is small."""
        if self._kept is not None:
            if len(body) <= self._kept_max:
                self._kept.only(body)
            else:
                self._kept = None

    # -- the client goes, slows down, or waits too long ----------------------------------------------------------------

    def client_gone(self) -> None:
        """The relay ends; the settlement does not (RULINGS 12)."""
        if self.exchange.ended:
            return
        self._client_left_at = self._gate.now
        if self.exchange.parked is not None:
            give_up(self.exchange)
            return
        if not self._sent_nanos:
            # The intent is on its way to the disk: ``send`` finds nobody there.
            return
        self.resume()
        self._catch_up()
        if self._settled:
            if self._upstream_ended:
                return
            self._cancel()
            self._end()
            return
        if self._concluding:
            # Its client's sweep is gone, and the end of the provider's body may never come.
            self._gate.drains.add(self)
            return
        target = self.exchange.target
        assert target is not None
        meter = self._meter
        if self._work_id:
            self._cancel()
            self._kept = None
            self._error = Problem("client_gone", "The client went away.")
            self._lose("client_gone")
            return
        policy = target.provider.client_gone or self._policy_when_left()
        if self._unnamed_work:
            # Only what comes yet says where the end of the work will be told.
            policy = "drain"
        if policy == "drain" and self._gate.may_drain():
            self._gate.drains.add(self)
            return
        self._cancel()
        self._concluding = True
        # Half an answer must not be replayed as a whole one.
        self._kept = None
        if policy == "no_bill":
            self._settle_and_deliver("aborted", 499, "client_gone", NO_USAGE, "none", None)
            return
        metered = meter.finish("aborted") if meter is not None else Metered(Report(), "aborted")
        self._conclude("aborted", 499, "client_gone", metered)

    def _policy_when_left(self) -> str:
        """What becomes of an answer whose client left, where its provider's configuration does not say."""
        return "drain" if self._meter is None or self._meter.finish_seen else "estimate"

    def _catch_up(self) -> bool:
        """Take what has come and waits, before the answer is ended; whether it has come to its own end with that."""
        if self._connection is not None:
            self._connection.catch_up()
        return self._settled or self._concluding

    def _cancel(self) -> None:
        """Close the provider's connection, which is the only way HTTP/1.1 has to stop an answer."""
        connection, self._connection = self._connection, None
        self._upstream_ended = True
        if connection is not None:
            connection.listener = None
            connection.close()

    def pause(self) -> None:
        """The client reads too slowly: stop reading the provider."""
        if self._connection is not None and not self._paused & _SLOW:
            self._paused |= _SLOW
            self._connection.pause()

    def resume(self) -> None:
        """The client caught up."""
        self._read_on(_SLOW)

    def sweep(self, now: float) -> None:
        """End what takes too long; mark progress about once a second."""
        exchange = self.exchange
        target = exchange.target
        assert target is not None
        if not self._sent_nanos:
            return
        if self._settled or self._concluding:
            # ``[DONE]`` was seen but not the end of the body: the client need not wait for it.
            if self._connection is not None and now - self._last_at > 1.0 and self._settled:
                self._cancel()
                self._out.append(self._last_chunk)
                self._flush()
            return
        lane = exchange.lane
        longest_ms = lane.longest_ms(target.name) if lane is not None and not self._unnamed_work else 0
        since_sent = now - self._sent_at
        why = overdue(
            target.provider,
            longest_ms,
            since_sent=since_sent,
            since_last=None if self._paused or not self._status else now - self._gate.heard_at(self._last_at) - LOOK_S,
            answered=bool(self._status),
        )
        blamed = bool(why)
        # Who does not wait for the name of work has not ended it, so that it would be free.
        asked_ms = 0 if self._unnamed_work else self._asked_ms()
        if not why and asked_ms and since_sent > asked_ms / 1000:
            # The caller's own deadline says nothing of the provider.
            why = TOO_LONG
        if self._client_left_at and now - self._client_left_at > self._gate.settings.drain_answer_ms / 1000:
            why = "it did not finish after the client had left"
        if why:
            if not self._catch_up():
                self._cancel()
                self._fail("upstream_timeout", why, blamed=blamed)
        elif self._meter is None or (self._closely and self._ends_in_silence(self._meter, now)):
            return
        elif now - self._progress_at >= self._gate.settings.progress_ms / 1000:
            self._progress_at = now
            tokens = _tokens_of(self._meter.delivered_characters)
            self._gate.tell_progress(Progressed(exchange.id, self._gate.wall_nanos(), tokens))

    def _asked_ms(self) -> int:
        """What the caller's own deadline leaves this try, 0 where it named none."""
        exchange = self.exchange
        asked = exchange.described.timeout_ms
        followed = exchange.look is not None and exchange.look.followed
        if not asked or (exchange.sent == 1 and not followed and not exchange.dialled):
            return asked
        return max(1, asked - (self._sent_nanos - exchange.started) // 1_000_000)

    def _ends_in_silence(self, meter: StreamMeter, now: float) -> bool:
        """End a stream that is to go no further and says nothing more, where no event is half sent."""
        holding = self._holding
        if holding is None or not holding.ending or now - self._last_at < SILENCE_S:
            return False
        if meter.unfinished_bytes or self._withheld or meter.finish_seen:
            return False
        self._end_short(meter, holding, b"")
        return True

    def cut(self) -> None:
        """The gate stops: end the stream with an error event and settle what was delivered."""
        if self.exchange.parked is not None:
            give_up(self.exchange)
            return
        if self._settled or self._concluding or self._catch_up():
            return
        self._cancel()
        self._fail("draining", "the gateway is stopping", unbilled=not self._sent_nanos)

    def mistaken(self, error: BaseException) -> None:
        """A step failed in a way that nobody foresaw."""
        self._gate.tell_mistake(error)
        self.abandon(Problem("internal", "The gateway failed while it relayed the answer. Charged: pending."))

    def abandon(self, problem: Problem) -> None:
        """End now. What is not settled is *unknown*: it stays held until its cost is found out (RULINGS 11)."""
        exchange = self.exchange
        if exchange.ended:
            return
        exchange.keep_alive = False
        # Whatever came is not given to anybody as the answer.
        self._kept = None
        if exchange.parked is not None:
            give_up(exchange)
            return
        try:
            self._cancel()
            if not self._settled:
                self._error = problem
                self._lose(problem.code)
        finally:
            # Where even that failed, its hold stays, and the client learns by its closed connection.
            self._end()

    def attempt(self, code: str) -> Attempt:
        """This try, as the record lists it."""
        target = self.exchange.target
        assert target is not None
        took = (self._gate.monotonic_nanos() - self._sent_nanos) // 1000 if self._sent_nanos else 0
        return Attempt(target.name, self._status, code, took)

    def _elapsed_us(self) -> int:
        return (self._gate.monotonic_nanos() - self.exchange.started) // 1000


def _has_events(passed: bytes) -> bool:
    """Whether an answer with these headers is a stream of events."""
    # Most are not, and the look for the bytes alone is cheap (``find`` is, see ``core.metering.meter``).
    return passed.find(b"text/event-stream") >= 0 and content_type(passed).startswith(b"text/event-stream")


def _beside(usage: Usage, pieces: list[Measure]) -> Usage:
    """``usage`` with those pieces of which it tells nothing itself."""
    told = {each.unit for each in usage.other}
    more = [each for each in pieces if each.unit not in told]
    return usage._replace(other=measures((*usage.other, *more))) if more else usage


def _tokens_of(characters: int) -> int:
    """A cheap estimate for progress marks: characters / 3.5, rounded up."""
    whole, part = _TOKEN_CHARACTERS
    return (characters * part + whole - 1) // whole
