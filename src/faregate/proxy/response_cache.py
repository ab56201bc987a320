"""Step 4: an answer that was kept is given again, where call, caller and configuration allow it.

A call that may use the cache is looked up when its places are chosen and its content was looked at, and before anything
is held for it. A hit passes the limits of requests and concurrency like any call, is one record that says what it
saved, and never reaches a provider. What is not found goes on, and its answer is kept when it has ended well.

Nothing here may hold a call up: a store answers at once or within its own deadline, and is asked again by nobody.
"""

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from faregate.config.settings import CacheSettings
from faregate.control import Flush, FlushCache, Key, Sample
from faregate.core.amounts import held_amounts, posted_amounts
from faregate.core.caching.policy import (
    OFF,
    REFRESH,
    USE,
    CacheLabels,
    Outcome,
    hit_charge,
    may_keep,
    mode_of,
    wish_of,
)
from faregate.core.ledger.events import Recalled
from faregate.core.limits.admit import LimitRefusal, Standing
from faregate.core.money import dollars
from faregate.core.pricing.charging import charge
from faregate.core.usage import NO_USAGE
from faregate.dialects.canonical import Canonical, canonical
from faregate.dialects.intact import is_intact
from faregate.errors import FaregateError, Problem
from faregate.ports import CachedAnswer, Later, ResponseStore, StoredAnswer
from faregate.proxy import receipt
from faregate.proxy.described import attribution
from faregate.proxy.forward import answer_head
from faregate.proxy.guard import guarded
from faregate.proxy.refuse import limit_problem, limit_required
from faregate.proxy.replay import AT_ONCE_BYTES, Replay
from faregate.proxy.same_calls import READ_ASIDE_BYTES, Look, SameCalls, params_at
from faregate.proxy.snapshot import Hits, Match, Snapshot
from faregate.proxy.tokens import TokenKey

if TYPE_CHECKING:
    from faregate.proxy.described import Described
    from faregate.proxy.exchange import Exchange
    from faregate.proxy.gate import Gate
    from faregate.proxy.http1 import Request

#: Limits that hold a hit that costs nothing.
_RATES: Final = ("requests", "concurrency")

#: Calls that wait for the answer of another one, and how long at most.
_FOLLOWERS_MAX: Final = 1_000
_FOLLOWED_S: Final = 60.0

#: Flushes that may be asked about.
_FLUSHES_REMEMBERED: Final = 16

_SECOND: Final = 1_000_000_000

_WISH: Final = Problem("header_invalid", "x-faregate-cache: expected on, off or refresh.", "x-faregate-cache")
_WAITED: Final = Problem(
    "upstream_timeout", "It took longer than the whole answer may take; it waited for the same call of another caller."
)
_OLDER_WISH: Final = Problem("header_invalid", "openai-proxy-caching: expected 1 or 0.", "openai-proxy-caching")

_encode: Final = msgspec.json.Encoder().encode
_decode_notes: Final = msgspec.json.Decoder(dict[str, object]).decode


class CacheDesk:
    """Where calls are looked up, by the settings of one configuration and the store of the process."""

    def __init__(self, gate: "Gate", settings: CacheSettings, store: ResponseStore) -> None:
        self._gate = gate
        self._store = store
        #: Lookups by what came of them.
        self.outcomes = {"hit": 0, "miss": 0, "refresh": 0, "late": 0}
        #: Key of a call that is under way → those that wait for its answer.
        self._flights: dict[bytes, list[Exchange]] = {}
        self._flushes = 0
        self._flushed: deque[Flush] = deque(maxlen=_FLUSHES_REMEMBERED)
        self.adopt(settings)

    def adopt(self, settings: CacheSettings) -> None:
        """Work by other settings; the store is the one of the start."""
        self._settings = settings
        self.answer_bytes_max = settings.answer_bytes_max
        self._same = SameCalls(settings, self._gate.peppers[0])

    # -- whether -------------------------------------------------------------------------------------------------------

    def mode(self, request: "Request", key: Key, described: "Described", snapshot: Snapshot) -> str | Problem:
        """What a head says of the cache: ``use``, ``refresh``, ``off``, or empty where nobody ever spoke of it."""
        headers = request.headers
        ours, older = headers.get(b"x-faregate-cache"), headers.get(b"openai-proxy-caching")
        wish = wish_of(ours, older, headers.get(b"cache-control"))
        if wish is None:
            return _WISH if ours is not None else _OLDER_WISH
        organization, caching = key.organization, snapshot.caching
        words = [key.cache] if key.cache else []
        if caching:
            stage, project = described.stage or key.stage, described.project or key.project
            places = (("stage", "", stage), ("stage", organization, stage), ("project", organization, project))
            words += [caching[place] for place in places if place in caching]
        default = self._settings.default
        if not words and not wish and default == OFF:
            return ""
        return mode_of(words, wish, default)

    def takes(self, exchange: "Exchange") -> bool:
        """Look a call up; whether it is answered, or goes on later. Nothing is held for it yet."""
        if exchange.look is not None or exchange.caching == OFF:
            return False
        body = exchange.body if self._same.may_keep_any(exchange) else b""
        if len(body) <= READ_ASIDE_BYTES:
            return self._looks_up(exchange, None)
        then = guarded(partial(self._read, exchange), exchange.mistaken)
        self._gate.aside(lambda: canonical(body), then, exchange.mistaken)
        return True

    def _read(self, exchange: "Exchange", body: Canonical | None) -> None:
        """A large body was read off the loop."""
        if exchange.ended:
            return
        if exchange.client is None:
            exchange.client_left()
        elif body is None:
            exchange.caching = OFF
            exchange.reserve()
        elif not self._looks_up(exchange, body):
            exchange.reserve()

    def _looks_up(self, exchange: "Exchange", body: Canonical | None) -> bool:
        """Look it up by its body, which is read here unless it was read before."""
        problem = self._renewed(exchange)
        if problem is not None:
            exchange.refuse(problem)
            return True
        if exchange.caching == OFF:
            return False
        look = self._same.look_of(exchange, body, self._flushes)
        if look is None:
            exchange.caching = OFF
            return False
        exchange.look = look
        if exchange.caching == REFRESH:
            look.word = "refresh"
            self.outcomes["refresh"] += 1
            return False
        told = guarded(partial(self._told, exchange), exchange.mistaken)
        found = self._store.find(look.key, self._gate.wall_nanos(), told)
        if found is Later.ASKED:
            return True
        assert found is None or isinstance(found, CachedAnswer)
        if found is None:
            return self._missed(exchange, look)
        self._give(exchange, found)
        return True

    # -- what was found ------------------------------------------------------------------------------------------------

    def _told(self, exchange: "Exchange", found: CachedAnswer | None) -> None:
        """A store, or the same call of somebody else, has answered."""
        look = exchange.look
        if exchange.ended or look is None:
            return
        if look.timer is not None:
            look.timer.cancel()
            look.timer = None
        # What it held while it waited.
        exchange.release()
        if exchange.client is None:
            exchange.client_left()
            return
        if exchange.snapshot is not self._gate.snapshot or look.followed:
            # It leads nobody: those are told by the one whom they follow.
            problem = self._look_anew(exchange, look)
            if problem is not None:
                exchange.refuse(problem)
                return
            if exchange.look is None or exchange.look.key != look.key:
                # What was found was looked for under another project, model or word than hold now.
                found = None
            look = exchange.look
        if look is not None and look.flushes != self._flushes:
            look.flushes, found = self._flushes, None
        if found is not None and look is not None and look.word != "refresh":
            self._give(exchange, found)
        elif look is None or not self._missed(exchange, look):
            exchange.reserve()

    def _look_anew(self, exchange: "Exchange", before: Look) -> Problem | None:
        """What was changed while it was looked up decides: who it is charged to, where it goes, who says off."""
        exchange.look = None
        problem = self._renewed(exchange, waited=True)
        if problem is None and exchange.caching != OFF:
            look = exchange.look = self._same.look_of(exchange, None, self._flushes)
            if look is None:
                exchange.caching = OFF
            else:
                look.followed = before.followed
                look.word = "refresh" if exchange.caching == REFRESH else before.word
        return problem

    def _renewed(self, exchange: "Exchange", *, waited: bool = False) -> Problem | None:
        """Let a call that has waited go by what holds now; its key may have come to its end, too."""
        if exchange.snapshot is self._gate.snapshot and not waited:
            return None
        problem = exchange.choose_again()
        key = exchange.key
        if problem is not None or key is None:
            return problem
        mode = self.mode(exchange.request, key, exchange.described, exchange.snapshot)
        if isinstance(mode, Problem):
            return mode
        exchange.caching = mode or OFF
        return None

    def _missed(self, exchange: "Exchange", look: Look) -> bool:
        """Nothing is kept: whether it waits for the answer of the same call that is under way."""
        if look.word == "refresh":
            return False
        if self._settings.single_flight and not look.followed:
            followers = self._flights.get(look.key)
            if followers is None:
                self._flights[look.key] = []
                look.leads = True
            elif len(followers) < _FOLLOWERS_MAX:
                if not self._may_wait(exchange):
                    return True
                # But once: where the first one brings nothing that all may have, each goes by itself.
                look.followed = True
                followers.append(exchange)
                left = self._left_s(exchange)
                wait = _FOLLOWED_S if left is None else min(left, _FOLLOWED_S)
                given_up = guarded(partial(self._give_up, exchange), exchange.mistaken)
                look.timer = self._gate.loop.call_later(wait, given_up)
                return True
        self.outcomes["miss"] += 1
        return False

    def _may_wait(self, exchange: "Exchange") -> bool:
        """Take a request and a slot for the time in which it waits; refused where there is none."""
        hits, now = self._hits_for(exchange), self._gate.wall_nanos()
        reserved = self._gate.allowances.reserve(exchange.id, hits.rates, held_amounts(0, 0, 0), now)
        if isinstance(reserved, LimitRefusal):
            exchange.match = hits.match
            exchange.refuse(limit_problem(reserved, None, hits.match.hidden), reserved.limit.id)
            return False
        exchange.reservation = reserved
        return True

    def left(self, exchange: "Exchange") -> None:
        """The client of a call that waits for another's answer went away."""
        look = exchange.look
        if look is not None and look.timer is not None:
            look.timer.cancel()
            look.timer = None
            followers = self._flights.get(look.key, [])
            if exchange in followers:
                followers.remove(exchange)
        exchange.client_left()

    def _left_s(self, exchange: "Exchange") -> float | None:
        """Seconds that the caller's own deadline leaves, ``None`` where it named none."""
        asked_ms = exchange.described.timeout_ms
        if not asked_ms:
            return None
        return max(0.0, asked_ms / 1000 - (self._gate.monotonic_nanos() - exchange.started) / _SECOND)

    def _give_up(self, exchange: "Exchange") -> None:
        look = exchange.look
        assert look is not None
        followers = self._flights.get(look.key, [])
        if exchange in followers:
            followers.remove(exchange)
        look.timer = None
        exchange.release()
        self.outcomes["late"] += 1
        if self._left_s(exchange) == 0:
            exchange.refuse(_WAITED)
        else:
            self._told(exchange, None)

    def _give(self, exchange: "Exchange", found: CachedAnswer) -> None:
        """Answer from what was kept: one reservation, one record, no provider."""
        gate = self._gate
        refused = gate.closed_for
        if refused is not None:
            exchange.refuse(refused)
            return
        now = gate.wall_nanos()
        # What its own call would be charged, by the rules of the place that it would go to.
        place = exchange.match_at(exchange.candidates[0])
        if (place.lacks_limit or place.covered_by) and place.lacks_limit_at(now):
            exchange.refuse(limit_required(place.who, exchange.snapshot.catalogue.require_limit_stages))
            return
        hits = self._hits_for(exchange)
        match = exchange.match = hits.match
        settings, saved = self._settings, found.saved_cost
        whole = saved if place.charging is None else charge(place.charging, saved, used=True)
        due = hit_charge(whole, settings.charge_percent)
        held = due if settings.without_credit else whole
        standing = match.standing if held else hits.rates
        reserved = gate.allowances.reserve(exchange.id, standing, held_amounts(held, 0, 0), now)
        if isinstance(reserved, LimitRefusal):
            exchange.refuse(limit_problem(reserved, None, match.hidden), reserved.limit.id)
            return
        latency = (gate.monotonic_nanos() - exchange.started) // 1000
        notes = _decode_notes(exchange.notes) if exchange.notes else {}
        notes["answer_of"] = found.request_id
        event = Recalled(
            exchange.id,
            now,
            reserved.admitted_at,
            match.who,
            exchange.call.stream,
            saved,
            due,
            latency,
            found.answered_model,
            "",
            _encode(notes).decode(),
            exchange.idempotency,
        )
        try:
            position = gate.journal.append(event)
        except FaregateError:
            gate.allowances.release(reserved)
            exchange.refuse(gate.disk_failed())
            return
        gate.allowances.settle(reserved, posted_amounts(due, NO_USAGE))
        exchange.give_turn_back()
        gate.metrics.settled((match.answered, NO_USAGE, 0, latency, latency, 0))
        self.outcomes["hit"] += 1
        if due and gate.brakes is not None:
            gate.brakes.spent(match.who.key, due, now, exchange.body)
        head, body = self._answer(exchange, found, due, now)

        def told() -> None:
            # Nobody is given what a failing power supply could still take back.
            self._remember(exchange, found, now)
            if gate.contents is not None:
                gate.contents.recalled(exchange, found.body)
            if len(body) <= AT_ONCE_BYTES:
                exchange.write_whole(head + body)
            else:
                replay = exchange.replay = Replay(exchange, body)
                replay.begin(head)
            gate.metrics.count_many()

        if gate.waits_for_disk:
            gate.journal.when_durable(position, guarded(told, exchange.mistaken))
        else:
            told()

    def _hits_for(self, exchange: "Exchange") -> Hits:
        """Who the hits of a caller are charged to: a model and no place, whose own limits are not theirs."""
        key, call, operation, described = exchange.key, exchange.call, exchange.operation, exchange.described
        assert key is not None
        assert operation is not None
        snapshot, model = exchange.snapshot, exchange.candidates[0].model
        plain = not exchange.request.describes and not snapshot.describes and not call.end_user
        plain = plain and type(key) is not TokenKey
        place = (key.id, model, operation.name)
        known = snapshot.hits.get(place) if plain else None
        if known is None:
            who = attribution(key, described, call.end_user, model, "", "", operation.name)
            match = Match(who, snapshot, self._gate.metrics.row(who, "ok"))
            limits = (limit for limit in match.standing.limits if limit.unit_name in _RATES)
            known = Hits(match, Standing(who, limits))
            if plain:
                snapshot.hits[place] = known
        return known

    def _answer(self, exchange: "Exchange", found: CachedAnswer, due: int, now: int) -> tuple[bytes, bytes]:
        """Head and body of the answer of a hit; the body is what is kept, unless a receipt stands in it."""
        body, gate = found.body, self._gate
        age = max(0, now - found.made_at) // _SECOND
        match = exchange.match
        assert match is not None
        consumed = gate.limit_headers.consumed
        model = exchange.candidates[0].model
        ours = f"x-faregate-model: {model}\r\nx-faregate-cache: hit\r\nage: {age}\r\n".encode()
        if exchange.notes and gate.contents is not None:
            ours += gate.contents.header(exchange)
        ours += exchange.limit_headers()
        if exchange.call.stream and gate.settings.stream_receipt:
            at = receipt.place(body, exchange.dialect.last_mark, True)
            if at >= 0:
                body = body[:at] + receipt.comment(exchange, due, NO_USAGE) + body[at:]
        framing = f"x-faregate-cost: {dollars(due)}\r\n{consumed}0\r\ncontent-length: {len(body)}\r\n".encode()
        passed = b"content-type: %b\r\n" % found.content_type
        return answer_head(200, passed, exchange.id, ours, framing, exchange.keep_alive), body

    def _remember(self, exchange: "Exchange", found: CachedAnswer, now: int) -> None:
        """The same call under the same name is answered the same, also when this answer is no longer kept here."""
        name, match = exchange.idempotency, exchange.match
        if not name or match is None:
            return
        exchange.idempotency = ""
        head = b"content-type: %b\r\n" % found.content_type
        self._gate.answers.dispatched(match.who.key, name, now)
        self._gate.answers.finish(match.who.key, name, now, StoredAnswer(200, head, found.body))

    # -- what is kept --------------------------------------------------------------------------------------------------

    def ended(self, exchange: "Exchange", http_status: int, content_type: bytes, body: bytes | None) -> None:
        """A call that was looked up has ended; ``body`` is its answer, ``None`` where not all of it is at hand."""
        look = exchange.look
        assert look is not None
        kept: CachedAnswer | None = None
        try:
            if body is not None and self._is_what_was_looked_for(exchange, look):
                size = len(body)
                outcome = Outcome(look.status, http_status, size, finished=look.finished)
                if may_keep(outcome, self.answer_bytes_max) and _intact(exchange, content_type, body):
                    now = self._gate.wall_nanos()
                    kept = CachedAnswer(
                        *(content_type, body, look.cost, now, now + self._settings.ttl_ms * 1_000_000),
                        *(exchange.id, look.model, look.labels),
                    )
                    self._store.keep(look.key, kept, now)
        finally:
            self._landed(look, kept)

    def _is_what_was_looked_for(self, exchange: "Exchange", look: Look) -> bool:
        """Whether any such call would be answered so: nothing has changed, and no limit of its own cut it."""
        key, target = exchange.key, exchange.target
        if key is None or target is None or look.flushes != self._flushes or exchange.downgraded_from:
            return False
        if exchange.cap not in (0, self._gate.settings.default_output_tokens):
            return False
        if target.model != look.labels.answered_by or params_at(exchange, target) != look.params:
            return False
        if exchange.snapshot is look.snapshot:
            return True
        mode = self.mode(exchange.request, key, exchange.described, exchange.snapshot)
        return mode in (USE, REFRESH) and self._same.shared_by(exchange, key) == look.shared

    def gave_up(self, exchange: "Exchange") -> None:
        """A call that was looked up ends without an answer of a provider."""
        look = exchange.look
        if look is not None:
            self._landed(look, None)

    def _landed(self, look: Look, kept: CachedAnswer | None) -> None:
        """Whoever waits for an answer has it, or goes on alone."""
        if not look.leads:
            return
        look.leads = False
        for follower in self._flights.pop(look.key, ()):
            self._gate.loop.call_soon(guarded(partial(self._told, follower, kept), follower.mistaken))

    # -- for administrators --------------------------------------------------------------------------------------------

    def flush(self, order: FlushCache) -> Flush:
        """Begin to forget answers; what calls that run are answered meanwhile is not kept either."""
        self._flushes += 1
        number = self._flushes
        wanted = CacheLabels(order.organization, order.stage, order.project, order.key, order.model)
        self._flushed.append(Flush(number))

        def done(removed: int, trouble: str) -> None:
            for at, each in enumerate(self._flushed):
                if each.number == number:
                    self._flushed[at] = Flush(number, True, removed, trouble)

        self._store.flush(wanted, done)
        return self.flushed(number)

    def flushed(self, number: int) -> Flush:
        """How far a flush has come; one that is not remembered came to nothing that anybody could still learn."""
        lost = Flush(number, True, 0, "the gateway was started anew, or has forgotten it; flush again")
        return next((each for each in self._flushed if each.number == number), lost)

    def samples(self) -> tuple[Sample, ...]:
        """Figures for the metrics page."""
        told = [Sample("faregate_cache_lookups_total", (("outcome", name),), n) for name, n in self.outcomes.items()]
        return (*told, *(Sample(name, (), value) for name, value in self._store.samples()))

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()


def _intact(exchange: "Exchange", content_type: bytes, body: bytes) -> bool:
    """Whether an answer that ended well is what was asked for, to its end."""
    stream = content_type.startswith(b"text/event-stream")
    if stream is not exchange.call.stream:
        return False
    return not (stream or exchange.dialect.answers_json) or is_intact(body, stream=stream)
