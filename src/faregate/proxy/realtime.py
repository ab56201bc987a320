"""A realtime session: events pass between two WebSockets, and no response begins that nothing is held for.

Client and provider see each other's events byte for byte but for a few edits (docs/reference/gateway.md). Before a
``response.create`` passes, its turn is held for and its intent journalled; before ``response.done`` passes, the turn is
settled. Voice activity detection never begins a response by itself: the gate takes that from the provider and sends
``response.create`` where the client wants answers (docs/decisions/013).

It is one file, and a long one, because every event may find the session in any of its states, as in ``answer``.
"""

import re
import secrets
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from websockets.http11 import Response as Handshake

from faregate.core.ledger.events import Progressed
from faregate.core.metering.meter import Report
from faregate.core.usage import NO_USAGE, Usage
from faregate.dialects import openai_realtime as events
from faregate.dialects.openai_realtime import Changes, Setup, Told, Wish
from faregate.errors import CODES, Problem
from faregate.proxy.deadlines import overdue
from faregate.proxy.guard import guarded
from faregate.proxy.realtime_counts import delivered_tokens, estimated
from faregate.proxy.realtime_hearing import TOO_MANY, Hearing
from faregate.proxy.realtime_holds import Account, TurnHold
from faregate.proxy.realtime_sockets import Socket
from faregate.proxy.realtime_turns import OPEN_MAX, Context, Turn, Turns
from faregate.proxy.snapshot import Target

if TYPE_CHECKING:
    from faregate.proxy.gate import Gate

#: How long a provider may take to confirm a ``session.update``.
UPDATE_S: Final = 15.0
#: How long the end of a cancelled response is waited for when its client has left: it tells the true usage.
FAREWELL_S: Final = 3.0
#: Turns that are under way when a session has lasted as long as it may are given this long.
OVERTIME_S: Final = 60.0
#: Unconfirmed ``session.update`` events; real clients send one.
UPDATES_MAX: Final = 16

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
POLICY: Final = 1008
BROKEN: Final = 1011

#: Closes by which a provider says that it failed (RFC 6455 section 7.4.1; 1006 is no word at all). Others tell of what
#: a caller sent, of an end in order, or are our own: no single caller may rest a deployment for all.
_FAILED: Final = frozenset((1006, BROKEN, 1012, 1014))

_SELF_STARTING: Final = Problem(
    "feature_unbounded",
    "turn_detection: this provider would begin responses by itself, which cannot be bounded; "
    "set turn_detection to null and send response.create.",
    "session.audio.input.turn_detection",
)
_OURS: Final = Problem(
    "field_range", "event_id: it looks like one of the gateway's own ids; name it otherwise.", "event_id"
)
_OUR_NAME: Final = re.compile("req_[0-9A-Z]{26}").fullmatch
_NOT_ASKED: Final = Problem("upstream_protocol", "The provider began a response that nobody asked for.")


class _Update(NamedTuple):
    """A ``session.update`` that the provider has not answered yet."""

    id: str
    #: The client's own name of it, and what it changes; both empty for one of ours.
    name: str | None
    changes: Changes | None
    at: float
    #: The model that would transcribe.
    transcriber: Target | None = None


class Session:
    """One session, from the first event to the last settlement."""

    def __init__(
        self,
        gate: "Gate",
        account: Account,
        target: Target,
        sockets: tuple[Socket, Socket],
        finished: Callable[[], None],
        broke: Callable[[str], None],
    ) -> None:
        """``finished`` is told once all is over, ``broke`` with a code before that, where the provider failed."""
        self._gate = gate
        self._account = account
        self._target = target
        self._client, self._provider = sockets
        self._finished = finished
        self._broke = broke
        self._opened_at = gate.now
        self._client.on_held = self._count_coming
        self._provider.on_held = self._count_held
        self._turns = Turns()
        self._context = Context()
        self._setup = Setup(detection={}, answers_itself=True)
        #: The client wants the server to answer what voice activity detection hears.
        self._wants_answers = True
        self._updates: deque[_Update] = deque()
        #: Commits of the client's that are not answered yet: our name of each, and the client's.
        self._commits: deque[tuple[str, str | None]] = deque(maxlen=OPEN_MAX)
        self._hearing = Hearing(gate, account, self._turns, self._when_on_disk)
        self._self_starting = False
        #: Events of the client, and of the provider, that wait.
        self._inbox: deque[bytes] = deque()
        self._outbox: deque[bytes] = deque()
        #: Sound that waits for the disk.
        self._sound: deque[bytes] = deque()
        self._created = False
        #: What the client says next depends on the provider's answer; so many intents are on their way to the disk.
        self._settling = False
        self._on_disk = 0
        self._provider_waits = False
        self._client_full = False
        self._provider_full = False
        self._leaving_at = 0.0
        self._draining_at = 0.0
        self._progress_at = gate.now
        self._over = False
        self._count = 0
        #: In our names of events, so that no client can have a complaint that is about one of them.
        self._secret = secrets.token_hex(8)

    # -- what the sockets tell -----------------------------------------------------------------------------------------

    def shaken(self, socket: Socket, answer: Handshake, accepted: bool) -> None:
        """Both handshakes are long over."""

    def message(self, socket: Socket, data: bytes) -> None:
        """An event came."""
        if socket is self._client:
            if not self._leaving_at:
                self._inbox.append(data)
                self._pump_client()
        else:
            self._outbox.append(data)
            self._pump_provider()

    def full(self, socket: Socket, is_full: bool) -> None:
        """One side reads slowly: the other is not read."""
        if socket is self._client:
            self._client_full = is_full
        else:
            self._provider_full = is_full
        self._flow()

    def ended(self, socket: Socket, code: int, reason: str) -> None:
        """One side closed."""
        if socket is self._client:
            self._leave()
        elif not self._over:
            if code in _FAILED:
                self._broke("upstream_truncated")
            self._break_off("upstream_truncated", code if code != 1005 else NORMAL, reason)

    def mistaken(self, error: BaseException) -> None:
        """Something failed in a way that nobody foresaw: what is open becomes unknown, nothing goes on."""
        self._gate.tell_mistake(error)
        if not self._over:
            self._over = True
            for turn in self._turns.open():
                self._account.lose(turn.hold, CODES["internal"].status, "internal", 0)
            self._turns = Turns()
            self._client.close(BROKEN, "the gateway failed")
            self._provider.abort()
            self.lost()

    def _count_coming(self, more: int) -> bool:
        """Count bytes of a client's message that is not whole; whether it is not too much of its key, or of all."""
        gate, key = self._gate, self._account.key
        if key is not None:
            gate.count_coming(key.id, more)
            if gate.coming.get(key.id, 0) > gate.settings.key_bodies_bytes_max:
                self._count_held(more)
                return False
        return self._count_held(more)

    def _count_held(self, more: int) -> bool:
        self._gate.held_bytes += more
        return self._gate.held_bytes <= self._gate.settings.held_bodies_bytes_max

    @property
    def _waits(self) -> bool:
        """Nothing is taken from the client now."""
        return not self._created or self._settling or self._on_disk > 0

    def _flow(self) -> None:
        self._client.pause(self._waits or self._provider_full)
        self._provider.pause(self._provider_waits or self._client_full)

    # -- from the client -----------------------------------------------------------------------------------------------

    def _pump_client(self) -> None:
        inbox = self._inbox
        while inbox and not self._waits and not self._over and not self._leaving_at:
            data = inbox.popleft()
            wish = events.wish(data, self._gate.settings.forbid_private_urls)
            if isinstance(wish, Problem):
                self._complain(self._gate.new_id(), wish, None)
            elif wish.event_id and _OUR_NAME(wish.event_id):
                # A complaint about it would be taken for one about a turn, and release its hold.
                self._complain(self._gate.new_id(), _OURS, wish.event_id)
            elif wish.type == "response.create":
                self._create(data, wish)
            elif wish.type == "input_audio_buffer.append":
                self._append(data, wish)
            elif wish.type == "session.update":
                self._update(data, wish)
            else:
                self._pass(data, wish)
        self._flow()

    def _settled(self) -> None:
        """The provider answered what the client's next event depends on."""
        self._settling = False
        self._pump_client()

    def _when_on_disk(self, position: int, then: Callable[[], None]) -> None:
        """Take no more from the client until a record has reached the disk."""
        self._on_disk += 1

        def on_disk() -> None:
            self._on_disk -= 1
            if not self._over:
                then()
                self._send_sound()
                self._pump_client()

        self._gate.journal.when_durable(position, guarded(on_disk, self.mistaken))

    def _send_sound(self) -> None:
        """Sound whose transcript's intent has reached the disk passes."""
        while self._sound and not self._on_disk:
            self._provider.send(self._sound.popleft())

    def _pass(self, data: bytes, wish: Wish) -> None:
        """What begins nothing."""
        if wish.type == "input_audio_buffer.commit":
            if self._turns.hearing is not None:
                # Named, so that its refusal is known: what was held for stays in the buffer then.
                id = self._event_id()
                self._commits.append((id, wish.event_id))
                data = events.named(data, id)
            self._turns.commit()
            self._hearing.begin()
        elif wish.type == "input_audio_buffer.clear":
            self._hearing.clear(ours=False)
        elif wish.type == "conversation.item.create":
            self._read(data, wish)
        self._provider.send(data)

    def _read(self, data: bytes, wish: Wish) -> None:
        """What an event holds is read by the model from now on."""
        context = self._context
        context.wrote(max(0, len(data) - wish.audio_bytes * 4 // 3))
        if wish.audio_bytes:
            context.heard(wish.audio_bytes, self._bytes_per_second)
        context.whole |= wish.pictured

    @property
    def _bytes_per_second(self) -> int:
        """The fewest bytes that a second of the client's sound may have."""
        known = self._setup.input_bytes_per_second
        return min(known, Setup().input_bytes_per_second) if self._updates else known

    def _update(self, data: bytes, wish: Wish) -> None:
        changes = wish.changes
        assert changes is not None
        if len(self._updates) >= UPDATES_MAX:
            self._complain(self._gate.new_id(), TOO_MANY, wish.event_id)
            return
        transcriber: Target | None = None
        if changes.transcriber:
            found = self._account.transcriber(changes.transcriber, self._target)
            if isinstance(found, Problem):
                self._complain(self._gate.new_id(), found, wish.event_id)
                return
            before = self._hearing.transcriber
            for update in self._updates:
                if update.changes is not None and update.changes.transcriber is not None:
                    before = update.transcriber
            problem = self._hearing.change(before, found)
            if problem is not None:
                self._complain(self._gate.new_id(), problem, wish.event_id)
                return
            transcriber = found
            if found.upstream_model != changes.transcriber:
                data = events.put_at(data, changes.transcriber_path, b'"%b"' % found.upstream_model.encode())
        if changes.model:
            if changes.model not in (self._account.model, self._target.upstream_model):
                text = "session.model: a session keeps the model that it was opened with; leave it out."
                self._complain(self._gate.new_id(), Problem("field_conflict", text, "session.model"), wish.event_id)
                return
            if changes.model != self._target.upstream_model:
                model = b'"%b"' % self._target.upstream_model.encode()
                data = events.put_at(data, ("session", "model"), model)
        if changes.detection:
            data = events.put_at(data, (*changes.detection_path, "create_response"), b"false")
        self._context.wrote(len(data))
        id = self._event_id()
        self._updates.append(_Update(id, wish.event_id, changes, self._gate.now, transcriber))
        self._provider.send(events.named(data, id))

    def _event_id(self) -> str:
        self._count += 1
        return f"faregate_{self._secret}_{self._count}"

    def _append(self, data: bytes, wish: Wish) -> None:
        """Sound passes once it is known that it begins nothing by itself, and what transcribes it is held for."""
        if self._self_starting and self._setup.answers_itself:
            self._complain(self._gate.new_id(), _SELF_STARTING, wish.event_id)
            return
        settling = any(update.changes is None or _concerns_sound(update.changes) for update in self._updates)
        if settling or self._setup.answers_itself:
            self._inbox.appendleft(data)
            if not settling:
                self._quieten()
            self._settling = True
            return
        refused = self._hearing.listen(wish.audio_bytes, self._bytes_per_second, self._setup.detection is not None)
        if refused is not None:
            self._complain(self._gate.new_id(), refused[0], wish.event_id, refused[1])
            if self._hearing.barred:
                self._leave(POLICY, refused[0].code)
            return
        self._hearing.passed(wish.audio_bytes)
        self._context.heard(wish.audio_bytes, self._bytes_per_second)
        if self._on_disk:
            # Its transcript's intent has not reached the disk.
            self._sound.append(data)
            return
        self._provider.send(data)

    def _quieten(self) -> None:
        """Take from the provider that it begins responses by itself; the gate does that from now on."""
        id = self._event_id()
        self._updates.append(_Update(id, None, None, self._gate.now))
        self._provider.send(events.quiet_event(id, self._setup.beta, self._setup.detection or {}))

    # -- turns ---------------------------------------------------------------------------------------------------------

    def _create(self, data: bytes, wish: Wish) -> None:
        """A response is asked for: hold, journal, pass."""
        self._read(data, wish)
        setup = self._setup
        speaks = self._may_speak and wish.text_name != events.text_name(setup.beta)
        cap = self._session_cap
        if wish.cap_name:
            # In the name of the other generation it caps nothing, and may yet lift the session's.
            cap = wish.cap if wish.cap_name == events.cap_name(setup.beta) else None
        self._begin(data, wish.event_id, cap, speaks, wish.beside)

    # What is not confirmed yet may be refused, or may be something else by then: it bounds nothing.

    @property
    def _session_cap(self) -> int | None:
        return None if self._updates else self._setup.cap

    @property
    def _may_speak(self) -> bool:
        return self._setup.speaks or bool(self._updates)

    def _begin(
        self, data: bytes, name: str | None, cap: int | None, speaks: bool, beside: bool = False, own: bool = False
    ) -> None:
        gate, account = self._gate, self._account
        id = gate.new_id()
        if self._turns.full:
            self._complain(id, TOO_MANY, name)
            return
        target = account.again(self._target)
        if isinstance(target, Problem):
            self._complain(id, target, name)
            if target is not gate.closed_for:
                # It may begin nothing any more, whatever it sends.
                self._leave(POLICY, target.code)
            return
        held = account.hold_response(id, target, self._context.bound(target.context_tokens_max), cap, speaks)
        if not isinstance(held, TurnHold):
            self._complain(id, held[0], name, held[1])
            return
        position = account.begin(held)
        if isinstance(position, Problem):
            self._complain(id, position, name)
            return
        turn = Turn(id, held, name)
        turn.beside, turn.own = beside, own
        self._turns.ask(turn)
        data = events.named(data, id)
        if held.cap:
            data = events.put_at(data, ("response", events.cap_name(self._setup.beta)), b"%d" % held.cap)
        if gate.waits_for_disk:
            self._when_on_disk(position, lambda: self._provider.send(data))
        else:
            self._provider.send(data)

    def _complain(self, id: str, problem: Problem, name: str | None, limit: str = "") -> None:
        """Tell the client what is not passed on, as the provider tells its own errors; the session stays."""
        self._account.refused(id, problem, limit, self._gate.monotonic_nanos())
        self._client.send(events.error_event(problem, id, name))

    # -- from the provider ---------------------------------------------------------------------------------------------

    def _pump_provider(self) -> None:
        outbox = self._outbox
        while outbox and not self._provider_waits and not self._over:
            data = outbox.popleft()
            told = events.told(data)
            kind = told.type
            if told.characters or told.audio_bytes:
                self._delivered(told)
            if kind == "response.done":
                self._done(data, told)
                continue
            if kind == "response.created":
                self._began(told)
            elif told.setup is not None:
                data = self._set_up(data, told.setup, kind == "session.updated")
            elif kind == "error" and told.id:
                data = self._failed(data, told)
            elif kind == "input_audio_buffer.speech_started":
                self._hearing.spoken(told.at_ms)
            elif kind == "input_audio_buffer.speech_stopped":
                self._turns.spoken(told.id)
                self._hearing.ceased(told.at_ms)
            elif kind == "input_audio_buffer.cleared":
                self._hearing.cleared()
            elif kind in (events.TRANSCRIBED, events.NOT_TRANSCRIBED):
                self._send_settled(data, self._hearing.transcribed(told, self._setup))
                continue
            if data:
                self._client.send(data)
            if kind == "input_audio_buffer.committed":
                self._committed(told.id)
        self._flow()
        if self._leaving_at and not self._turns.responses:
            self._part()

    def _delivered(self, told: Told) -> None:
        self._turns.delivered(told.id, told.characters, told.audio_bytes)
        held = self._turns.hold_of(told.id)
        if held is not None:
            held.seen_at = self._gate.now
            if not held.first_us:
                held.first_us = (self._gate.monotonic_nanos() - held.began_nanos) // 1000

    def _set_up(self, data: bytes, setup: Setup, answers: bool) -> bytes:
        """The provider told what the session is set to."""
        self._setup = setup
        if not self._created:
            self._created = True
            self._context.wrote(len(data))
            self._wants_answers = setup.answers_itself
            self._hearing.set_up(setup.transcriber, self._target)
            self._gate.loop.call_soon(guarded(self._settled, self.mistaken))
            return data
        update = self._updates.popleft() if answers and self._updates else None
        if update is not None and update.changes is None:
            self._self_starting = setup.answers_itself
            data = b""
        elif update is not None and update.changes is not None:
            changes = update.changes
            if changes.detection is not None:
                self._wants_answers = changes.detection and changes.wants_answers
            if changes.transcriber is not None:
                self._hearing.transcriber, self._hearing.named = update.transcriber, changes.transcriber
        self._hearing.set_up(setup.transcriber, self._target)
        if data and self._wants_answers and setup.detection is not None and not setup.answers_itself:
            data = events.restored(data, setup)
        self._gate.loop.call_soon(guarded(self._settled, self.mistaken))
        return data

    def _failed(self, data: bytes, told: Told) -> bytes:
        """The provider complains about one of our events, or about a client's that has a name of ours."""
        for update in self._updates:
            if update.id == told.id:
                self._updates.remove(update)
                self._gate.loop.call_soon(guarded(self._settled, self.mistaken))
                if update.changes is None:
                    self._self_starting = True
                    return b""
                return events.unnamed(data, update.name)
        for commit in self._commits:
            if commit[0] == told.id:
                self._commits.remove(commit)
                self._hearing.uncommit()
                return events.unnamed(data, commit[1])
        turn = self._turns.refused(told.id)
        if turn is None:
            return data
        self._account.settle(turn.hold, "failed", 400, "upstream_error", NO_USAGE, "none")
        # Of what the gate asked for by itself a client would not have heard.
        return events.unnamed(data, turn.name) if not turn.own else b""

    def _began(self, told: Told) -> None:
        if self._turns.ended(told.id):
            return
        turn = self._turns.began(told.id)
        if turn is None:
            turn = self._unasked(told.id)
        turn.hold.seen_at = self._gate.now
        if self._leaving_at:
            self._provider.send(events.cancel_event(told.id))

    def _unasked(self, response: str) -> Turn:
        """The provider began what nothing was held for: it is accounted for, and the session ends."""
        id = self._gate.new_id()
        held = self._account.force(id, self._target, events.OPERATION)
        position = self._account.begin(held)
        turn = Turn(id, held)
        if not isinstance(position, Problem):
            self._turns.adopt(turn, response)
        self._gate.loop.call_soon(guarded(self._stop_unasked, self.mistaken))
        return turn

    def _stop_unasked(self) -> None:
        if not self._over:
            self._complain(self._gate.new_id(), _NOT_ASKED, None)
            self._leave(POLICY, _NOT_ASKED.code)

    def _done(self, data: bytes, told: Told) -> None:
        """A response ended: its turn is settled before the client learns of it."""
        if self._turns.ended(told.id):
            self._client.send(data)
            return
        turn = self._turns.done(told.id)
        if turn is None:
            turn = self._unasked(told.id)
            self._turns.done(told.id)
        report = told.report or Report()
        status, http_status, code = "ok", 200, ""
        if told.status == "failed":
            status, code = "failed", "upstream_error"
        elif self._leaving_at:
            status, http_status, code = "aborted", CODES["client_gone"].status, "client_gone"
        used, source = report.usage, "provider"
        if used is None:
            delivered = bool(turn.characters or turn.audio_bytes)
            if status == "failed" and not delivered and not report.invalid:
                used, source = NO_USAGE, "none"
            else:
                used, source = (
                    estimated(turn, self._context, self._setup),
                    "provider_invalid" if report.invalid else "counted",
                )
        if not turn.beside:
            self._context.answered(used)
        position = self._account.settle(turn.hold, status, http_status, code, used, source, report)
        self._send_settled(data, position)

    def _send_settled(self, data: bytes, position: int | None) -> None:
        if not self._gate.waits_for_disk or position is None:
            self._client.send(data)
            return
        self._provider_waits = True

        def on_disk() -> None:
            self._provider_waits = False
            self._client.send(data)
            self._pump_provider()

        self._gate.journal.when_durable(position, guarded(on_disk, self.mistaken))

    def _committed(self, item: str) -> None:
        """Sound became an item: what voice activity detection heard is answered, where the client wants that."""
        by_itself = self._turns.committed(item)
        if not by_itself and self._commits:
            self._commits.popleft()
        more = by_itself or self._setup.detection is not None
        if more and (self._leaving_at or self._hearing.listen(0, 1, detecting=True) is not None):
            # What is in the buffer already must not become an item that nothing is held for.
            self._hearing.keep(item)
            self._hearing.clear(ours=True)
            self._provider.send(events.CLEAR_EVENT)
        if by_itself and self._wants_answers and not self._setup.answers_itself and not self._leaving_at:
            self._begin(events.create_event(""), None, self._session_cap, self._may_speak, own=True)

    # -- ends ----------------------------------------------------------------------------------------------------------

    def _leave(self, code: int = NORMAL, reason: str = "") -> None:
        """The client is gone, or is sent away: what runs is cancelled; its end, which tells its cost, is waited for."""
        if self._over or self._leaving_at:
            return
        self._leaving_at = self._gate.now or 1.0
        self._inbox.clear()
        self._client.close(code, reason)
        if not self._turns.responses or self._target.provider.client_gone == "no_bill":
            self._part()
            return
        self._provider_full = self._client_full = False
        for turn in self._turns.open():
            if turn.key and not turn.transcript:
                self._provider.send(events.cancel_event(turn.key))
        self._flow()

    def _part(self) -> None:
        """Nothing more is waited for from the provider."""
        self._end("aborted", "client_gone", NORMAL, "")

    def _break_off(self, code: str, close_code: int, reason: str) -> None:
        """The provider is gone, or takes too long, or the gate stops."""
        if self._leaving_at:
            self._part()
            return
        if self._turns.responses:
            told = f"{reason or 'The provider closed the session.'} Charged: what was used as far as it came."
            self._client.send(events.error_event(Problem(code, told), self._gate.new_id(), None))
        self._end("cut", code, close_code, reason)

    def _close(self, close_code: int, reason: str) -> None:
        """Close both sides politely; what is open is settled by what came of it."""
        self._end("cut", "draining", close_code, reason)

    def _end(self, status: str, code: str, close_code: int, reason: str) -> None:
        if self._over:
            return
        self._over = True
        self._inbox.clear()
        self._outbox.clear()
        provider = self._target.provider
        http_status = CODES[code].status
        for turn in self._turns.open():
            held: TurnHold = turn.hold
            if turn.transcript:
                self._hearing.end(turn, status, http_status, code, self._setup)
            elif status == "aborted" and provider.client_gone == "no_bill":
                self._account.settle(held, status, http_status, code, NO_USAGE, "none")
            elif provider.lookup and status == "cut":
                self._account.lose(held, http_status, code, delivered_tokens(turn, self._setup))
            else:
                used = estimated(turn, self._context, self._setup)
                self._account.settle(held, status, http_status, code, used, _source(used))
        self._turns = Turns()
        for text in self._target.pool.masked:
            reason = reason.replace(text, "***") if text else reason
        self._client.close(close_code, reason)
        self._provider.close(NORMAL, "")
        self.lost()

    def lost(self) -> None:
        """One of the sockets may be gone: with both, and everything settled, the session is over."""
        if self._over and self._client.gone and self._provider.gone:
            self._finished()

    # -- what the connection asks --------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Something is not settled, or not told to the client yet."""
        return not self._over or self._client.waiting_bytes > 0

    def drain(self) -> None:
        """The gate stops: close as soon as no turn is under way."""
        if not self._draining_at:
            self._draining_at = self._gate.now or 1.0
        if not self._over and not self._leaving_at and not self._turns.responses:
            self._close(GOING_AWAY, "the gateway is stopping")
        if self._over:
            # Its own close was sent; nobody is left to wait for the answer.
            self._provider.abort()

    def sweep(self, now: float) -> None:
        """Called a few times a second: ends what takes too long."""
        settings = self._gate.settings
        self._client.sweep(now, settings.slow_reader_ms / 1000)
        self._provider.sweep(now, settings.slow_reader_ms / 1000)
        if self._over:
            return
        if self._leaving_at:
            if now - self._leaving_at > FAREWELL_S:
                self._part()
            return
        if self._gate.draining:
            self.drain()
            if now - self._draining_at > settings.drain_ms / 1000:
                self._break_off("draining", GOING_AWAY, "the gateway is stopping")
            return
        age = now - self._opened_at
        most = settings.realtime_session_ms / 1000
        if age > most and (not self._turns.responses or age > most + OVERTIME_S):
            self._close(GOING_AWAY, "the session has lasted as long as it may")
            return
        why = self._late(now)
        if why:
            self._broke("upstream_timeout")
            self._break_off("upstream_timeout", BROKEN, why)
        elif now - self._progress_at >= settings.progress_ms / 1000:
            self._progress_at = now
            self._tell_progress()

    def _late(self, now: float) -> str:
        """What of the provider's takes too long, in words; empty where nothing does."""
        provider = self._target.provider
        if not self._created:
            late = now - self._opened_at > provider.first_byte_timeout_ms / 1000
            return "the provider did not open the session in time" if late else ""
        if self._updates and now - self._updates[0].at > UPDATE_S:
            return "the provider did not confirm a session.update in time"
        gate_nanos = self._gate.monotonic_nanos()
        for turn in self._turns.open():
            if turn.transcript:
                continue
            held: TurnHold = turn.hold
            why = overdue(
                provider,
                0,
                since_sent=(gate_nanos - held.began_nanos) / 1e9,
                since_last=None if self._client_full or self._provider_waits else now - held.seen_at,
                answered=bool(turn.key),
            )
            if why:
                return f"of a response, {why}"
        return ""

    def _tell_progress(self) -> None:
        for turn in self._turns.open():
            if turn.key and not turn.transcript:
                tokens = delivered_tokens(turn, self._setup)
                self._gate.tell_progress(Progressed(turn.id, self._gate.wall_nanos(), tokens))


def _concerns_sound(changes: Changes) -> bool:
    return changes.detection is not None or changes.transcriber is not None


def _source(used: Usage) -> str:
    return "estimate" if used != NO_USAGE else "none"
