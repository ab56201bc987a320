"""Step 4: an answer that was kept is given again, where call, caller and configuration allow it.

A call that may use the cache is looked up when its places are chosen and its content was looked at, and before anything
is held for it. A hit passes the limits of requests and concurrency like any call, is one record that says what it
saved, and never reaches a provider. What is not found goes on, and its answer is kept when it has ended well.

Nothing here may hold a call up: a store answers at once or within its own deadline, and is asked again by nobody.
"""

import hmac
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from faregate.config.settings import CacheSettings
from faregate.control import Flush, FlushCache, Key, Sample
from faregate.core.amounts import held_amounts, posted_amounts
from faregate.core.caching.key import same_call_key
from faregate.core.caching.policy import (
    OFF,
    REFRESH,
    CacheLabels,
    Outcome,
    hit_charge,
    is_deterministic,
    is_kept_elsewhere,
    may_keep,
    mode_of,
    wish_of,
)
from faregate.core.ledger.events import Recalled
from faregate.core.limits.admit import LimitRefusal, Standing
from faregate.core.money import dollars
from faregate.core.pricing.charging import charge
from faregate.core.usage import NO_USAGE
from faregate.dialects.canonical import canonical
from faregate.dialects.intact import is_intact
from faregate.dialects.operations import ABOUT_OBJECTS
from faregate.errors import FaregateError, Problem
from faregate.ports import CachedAnswer, Later, ResponseStore, StoredAnswer
from faregate.proxy import receipt
from faregate.proxy.described import attribution
from faregate.proxy.forward import answer_head
from faregate.proxy.guard import guarded
from faregate.proxy.refuse import limit_problem, limit_required
from faregate.proxy.snapshot import Match, Snapshot, Target
from faregate.proxy.tokens import TokenKey

if TYPE_CHECKING:
    import asyncio

    from faregate.proxy.described import Described
    from faregate.proxy.exchange import Exchange
    from faregate.proxy.gate import Gate
    from faregate.proxy.http1 import Request

#: Headers of a request that decide what is answered beside its body.
_DECIDING: Final = (b"anthropic-version", b"anthropic-beta", b"openai-beta")

#: Parameters of a query that prove who asks; everything else of it is part of the key.
_CREDENTIALS: Final = ("subscription-key", "key")
_QUERY_FIELDS_MAX: Final = 32

#: Limits that hold a hit that costs nothing.
_RATES: Final = ("requests", "concurrency")

#: Calls that wait for the answer of another one, and how long at most.
_FOLLOWERS_MAX: Final = 1_000
_FOLLOWED_S: Final = 60.0

#: Flushes that may be asked about.
_FLUSHES_REMEMBERED: Final = 16

_SECOND: Final = 1_000_000_000

_WISH: Final = Problem("header_invalid", "x-faregate-cache: expected on, off or refresh.", "x-faregate-cache")
_OLDER_WISH: Final = Problem("header_invalid", "openai-proxy-caching: expected 1 or 0.", "openai-proxy-caching")

_encode: Final = msgspec.json.Encoder().encode
_decode_notes: Final = msgspec.json.Decoder(dict[str, object]).decode


class Look:
    """What the cache knows of one call that may use it."""

    __slots__ = ("cost", "flushes", "key", "labels", "leads", "model", "params", "status", "timer", "word")

    def __init__(self, key: bytes, labels: CacheLabels, params: tuple[tuple[str, str], ...], flushes: int) -> None:
        self.key = key
        self.labels = labels
        #: What its way puts into the body at the place that it was looked up for.
        self.params = params
        #: How often answers had been forgotten when it was looked up.
        self.flushes = flushes
        #: As its record says it: ``miss`` or ``refresh``.
        self.word = "miss"
        #: How it was settled, once it is: status, what it cost, and the model that its answer names.
        self.status = ""
        self.cost = 0
        self.model = ""
        #: Others wait for its answer; or it waits for another's until this timer.
        self.leads = False
        self.timer: asyncio.TimerHandle | None = None


class Hits(NamedTuple):
    """Who hits of a key are charged to, and what holds them."""

    match: Match
    #: With the limits of requests and concurrency alone.
    rates: Standing


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
        #: Under one snapshot, (key, model, operation) → where its hits go.
        self._hits: dict[tuple[str, str, str], Hits] = {}
        self._hits_of: Snapshot | None = None
        self.adopt(settings)

    def adopt(self, settings: CacheSettings) -> None:
        """Work by other settings; the store is the one of the start."""
        self._settings = settings
        # Derived, so that what opens keys is in no other use.
        self._secret = hmac.digest(self._gate.peppers[0], b"faregate response cache", "sha256")

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
        look = self._look_of(exchange)
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
        self._give(exchange, look, found)
        return True

    def _look_of(self, exchange: "Exchange") -> Look | None:
        """What makes the call the same as others; ``None`` where nothing may be kept of it."""
        operation, call, dialect, key = exchange.operation, exchange.call, exchange.dialect, exchange.key
        assert operation is not None
        assert key is not None
        if exchange.free or call.objects or call.job or operation.name in ABOUT_OBJECTS or dialect.media != "json":
            return None
        body = canonical(exchange.body)
        if body is None or is_kept_elsewhere(body.members, dialect.made is not None):
            return None
        if self._settings.deterministic_only and not is_deterministic(body.members, call.has_output):
            return None
        target = exchange.candidates[0]
        stage = exchange.described.stage or key.stage
        project = exchange.described.project or key.project
        labels = CacheLabels(key.organization, stage, project, key.id, call.model, target.model)
        params = _params(exchange, target)
        request = exchange.request
        path, _, query = request.target.partition(b"?")
        parts: list[str | bytes] = [key.organization, stage, *self._shared_by(exchange, key, project)]
        parts += (request.method, path, *_deciding_query(query), operation.name, target.model)
        parts += (text for pair in params for text in pair)
        parts += (request.headers.get(name, b"") for name in _DECIDING)
        parts.append(body.text)
        return Look(same_call_key(self._secret, parts), labels, params, self._flushes)

    def _shared_by(self, exchange: "Exchange", key: Key, project: str) -> tuple[str, ...]:
        """Whom an answer is shared with, within the organization and the stage.

        Where a caller has no project, its team is what stands for it, and without a team the key alone, so that nobody
        shares with strangers by saying nothing.
        """
        share = self._settings.share
        if share == "organization":
            return ("organization",)
        person = (key.tenant, key.end_user) if type(key) is TokenKey else ()
        alone = ("key", key.id, *person)
        if share == "key":
            return alone
        if project:
            group: tuple[str, ...] = ("project", project)
        else:
            group = ("team", key.team) if key.team else alone
        if share == "project":
            return group
        end_user = exchange.described.end_user
        if not end_user:
            end_user = exchange.call.end_user if "user" in key.may_set else ""
        end_user = end_user or exchange.described.user or key.user
        return (*group, "end_user", end_user) if end_user else (*group, *alone)

    # -- what was found ------------------------------------------------------------------------------------------------

    def _told(self, exchange: "Exchange", found: CachedAnswer | None) -> None:
        """A store, or the same call of somebody else, has answered."""
        look = exchange.look
        if exchange.ended or look is None:
            return
        if look.timer is not None:
            look.timer.cancel()
            look.timer = None
        if exchange.client is None:
            exchange.client_left()
        elif found is not None:
            self._give(exchange, look, found)
        elif not self._missed(exchange, look):
            exchange.reserve()

    def _missed(self, exchange: "Exchange", look: Look) -> bool:
        """Nothing is kept: whether it waits for the answer of the same call that is under way."""
        if self._settings.single_flight and not look.leads and look.word == "miss":
            followers = self._flights.get(look.key)
            if followers is None:
                self._flights[look.key] = []
                look.leads = True
            elif len(followers) < _FOLLOWERS_MAX:
                # But once: where the first one brings nothing that all may have, each goes by itself.
                look.word = ""
                followers.append(exchange)
                asked = exchange.described.timeout_ms / 1000
                wait = min(asked, _FOLLOWED_S) if asked else _FOLLOWED_S
                given_up = guarded(partial(self._give_up, exchange), exchange.mistaken)
                look.timer = self._gate.loop.call_later(wait, given_up)
                return True
        look.word = "miss"
        self.outcomes["miss"] += 1
        return False

    def _give_up(self, exchange: "Exchange") -> None:
        look = exchange.look
        assert look is not None
        followers = self._flights.get(look.key, [])
        if exchange in followers:
            followers.remove(exchange)
        look.timer = None
        self.outcomes["late"] += 1
        self._told(exchange, None)

    def _give(self, exchange: "Exchange", look: Look, found: CachedAnswer) -> None:
        """Answer from what was kept: one reservation, one record, no provider."""
        gate = self._gate
        refused = gate.closed_for
        if exchange.snapshot is not gate.snapshot:
            # Looking it up took time: what was changed meanwhile decides.
            refused = refused or exchange.choose_again()
        if refused is not None:
            exchange.refuse(refused)
            return
        now = gate.wall_nanos()
        hits = self._hits_for(exchange)
        match = exchange.match = hits.match
        if (match.lacks_limit or match.covered_by) and match.lacks_limit_at(now):
            exchange.refuse(limit_required(match.who, exchange.snapshot.catalogue.require_limit_stages))
            return
        settings, saved = self._settings, found.saved_cost
        whole = saved if match.charging is None else charge(match.charging, saved, used=True)
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
        gate.metrics.settled((match.answered, NO_USAGE, 0, latency, latency, 0))
        self.outcomes["hit"] += 1
        if due and gate.brakes is not None:
            gate.brakes.spent(match.who.key, due, now, exchange.body)
        answer = self._answer(exchange, found, due, now)
        self._remember(exchange, found, now)
        if gate.contents is not None:
            gate.contents.recalled(exchange, found.body)
        if gate.waits_for_disk:
            gate.journal.when_durable(position, guarded(partial(exchange.write_whole, answer), exchange.mistaken))
        else:
            exchange.write_whole(answer)

    def _hits_for(self, exchange: "Exchange") -> Hits:
        """Who the hits of a caller are charged to: a model and no place, whose own limits are not theirs."""
        key, call, operation, described = exchange.key, exchange.call, exchange.operation, exchange.described
        assert key is not None
        assert operation is not None
        snapshot, model = exchange.snapshot, exchange.candidates[0].model
        if self._hits_of is not snapshot:
            self._hits, self._hits_of = {}, snapshot
        plain = not exchange.request.describes and not snapshot.describes and not call.end_user
        plain = plain and type(key) is not TokenKey
        place = (key.id, model, operation.name)
        known = self._hits.get(place) if plain else None
        if known is None:
            who = attribution(key, described, call.end_user, model, "", "", operation.name)
            match = Match(who, snapshot, self._gate.metrics.row(who, "ok"))
            limits = (limit for limit in match.standing.limits if limit.unit_name in _RATES)
            known = Hits(match, Standing(who, limits))
            if plain:
                self._hits[place] = known
        return known

    def _answer(self, exchange: "Exchange", found: CachedAnswer, due: int, now: int) -> bytes:
        """The whole answer of a hit."""
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
        return answer_head(200, passed, exchange.id, ours, framing, exchange.keep_alive) + body

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
        look, target = exchange.look, exchange.target
        assert look is not None
        if look.flushes == self._flushes and target is not None:
            capped = exchange.cap not in (0, self._gate.settings.default_output_tokens)
            elsewhere = target.model != look.labels.answered_by or _params(exchange, target) != look.params
            size = -1 if body is None else len(body)
            outcome = Outcome(look.status, http_status, size, capped, elsewhere or bool(exchange.downgraded_from))
            if body is not None and may_keep(outcome, self._settings.answer_bytes_max) and _intact(exchange, body):
                now = self._gate.wall_nanos()
                expires_at = now + self._settings.ttl_ms * 1_000_000
                kept = CachedAnswer(
                    content_type, body, look.cost, now, expires_at, exchange.id, look.model, look.labels
                )
                self._store.keep(look.key, kept, now)
                self._landed(look, kept)
                return
        self._landed(look, None)

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


def _intact(exchange: "Exchange", body: bytes) -> bool:
    """Whether an answer that ended well may be given to others, too."""
    return not exchange.dialect.answers_json or is_intact(body, stream=exchange.call.stream)


def _params(exchange: "Exchange", target: Target) -> tuple[tuple[str, str], ...]:
    """What the way of a call puts into its body at a place."""
    lane = exchange.lane
    step = lane.steps.get(target.name) if lane is not None and lane.steps else None
    return tuple(step.params) if step is not None else ()


def _deciding_query(query: bytes) -> list[str]:
    """A query's fields in one order, without what only proves who asks."""
    if not query:
        return []
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_QUERY_FIELDS_MAX)
    except ValueError:
        # Somebody else's as it stands.
        return [query.decode("latin-1")]
    return [text for name, value in sorted(fields) if name not in _CREDENTIALS for text in (name, value)]
