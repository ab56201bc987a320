"""The gate: one process's allowances, journal, snapshot and connections, and in which order they are told of things.

All of it runs on one event loop, so nothing here needs a lock: a reservation is checked and taken without an await
between. What cannot be decided in microseconds (counting tokens, opening connections, waiting for the disk) is done
elsewhere and comes back as a callback.

It is one file of more than six hundred lines, because that order is one thing: whoever changes it must see all of it.
"""

import asyncio
import logging
import os
import ssl
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar, cast

import msgspec

from faregate.config.settings import GateSettings
from faregate.control import Credential, Limit, Load, Provider, Unknown
from faregate.core.amounts import counted_tokens, posted_amounts
from faregate.core.ledger.events import (
    NOT_AWAITED,
    Attempt,
    Awaited,
    Event,
    Lost,
    Progressed,
    Refused,
    Settled,
    attempt_id,
)
from faregate.core.ledger.postings import payer_charge
from faregate.core.limits.admit import Allowances, Reservation
from faregate.core.limits.terms import Terms
from faregate.core.metering.fallback import Estimate, estimate
from faregate.core.metering.meter import Metered
from faregate.core.routing.retry import ROLL_MIDDLE, ROLL_SPREAD
from faregate.core.tokens import Identity
from faregate.core.ulid import UlidSource
from faregate.core.usage import COUNT_MAX, Usage
from faregate.errors import FaregateError, Problem
from faregate.ports import AnswerStore, Clock, JournalWriter, ObjectStore, ResponseStore, TokenCounter, Tokenizer
from faregate.proxy.answer import Answer
from faregate.proxy.answer_watch import AnswerWatch
from faregate.proxy.brakes import GateBrakes
from faregate.proxy.contents import ContentDesk, ContentKeeping, ContentLog
from faregate.proxy.control_socket import ControlSocket
from faregate.proxy.deadlines import LOOK_S, STANDSTILL_S
from faregate.proxy.exchange import Exchange
from faregate.proxy.guard import guarded
from faregate.proxy.metrics import Metrics
from faregate.proxy.mirror import Mirrors
from faregate.proxy.outside_usage import OutsideUsage
from faregate.proxy.reconfigured import Derived, derived
from faregate.proxy.response_cache import CacheDesk
from faregate.proxy.routing import Deployments
from faregate.proxy.server import ClientConnection
from faregate.proxy.snapshot import EMPTY, FAIL_OPEN, apply
from faregate.proxy.stream_queue import StreamQueue
from faregate.proxy.tokenize import TokenizerDesk
from faregate.proxy.tokens import CallerTokens
from faregate.proxy.upstream import Pool

logger = logging.getLogger("faregate.gate")

Counted = TypeVar("Counted", int, Estimate)
Made = TypeVar("Made")

#: What was cut at the end is settled within this time: its tokens may have to be counted, one call after the other.
CUT_S: Final = 5.0

#: So many connections are looked at in one go, about 0.1 ms, while there are not too many of them for the parts of a
#: round: all at once would make the calls that come meanwhile wait for milliseconds.
SWEPT_AT_ONCE: Final = 32
SWEEP_PARTS_MAX: Final = 50

#: Refusals wait this many at most before they are journalled (they are after the reply, in batches).
REFUSED_BATCH: Final = 256

_NOT_READY: Final = Problem("not_ready", "Not accepted: the gateway is starting.", retry_after_s=1)
_DRAINING: Final = Problem("draining", "Not accepted: the gateway is stopping; nothing was charged.", retry_after_s=1)
_FULL: Final = Problem("storage_full", "Not accepted: the disk is full; nothing was charged.", retry_after_s=5)
_BACKLOG: Final = Problem(
    "ledger_unavailable", "Not accepted: ledger unavailable; nothing was charged.", retry_after_s=1
)


#: Why ``FAIL_OPEN`` is there.
_FAIL_OPEN_TERMS: Final = Terms(reason="The ledger is unavailable; until it is back only so much may be spent.")


class Gate:
    """The data plane. ``serve`` runs it until it is told to drain."""

    def __init__(
        self,
        settings: GateSettings,
        clock: Clock,
        journal: JournalWriter,
        counter: Tokenizer,
        answers: AnswerStore,
        objects: ObjectStore,
        keeping: ContentKeeping | None = None,
        responses: ResponseStore | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        #: Read several times per request, so without a detour.
        self.wall_nanos = clock.wall_nanos
        self.monotonic_nanos = clock.monotonic_nanos
        self.journal = journal
        self.answers = answers
        self.objects = objects
        self.metrics = Metrics()
        self.adopt(derived(settings))
        self.allowances = Allowances(settings.limits_each_max)
        self.snapshot = EMPTY
        #: The health of all places, which outlives snapshots.
        self.deployments = Deployments(_tell_rest, clock.monotonic_nanos)
        #: Whose tokens open the gate; ``None`` where no issuer is configured.
        self.issuers: CallerTokens | None = None
        self.waits_for_disk = settings.durability == "power"
        self.new_id = UlidSource("req_", clock.wall_nanos, os.urandom).__call__
        #: The loop's time at the last sweep: coarse, and free to read.
        self.now = 0.0
        #: When the gate stood still last, by the sweeps before and after that; and whether one is put off for it now.
        self._stood_from = self._stood_until = 0.0
        self._put_off = False
        self.loop: asyncio.AbstractEventLoop
        self._streams: StreamQueue
        self._watch: AnswerWatch
        #: Why calls are not taken at this moment; ``None`` when they are.
        self.closed_for: Problem | None = _NOT_READY
        self.opened_first = False
        #: Calls are taken though the books do not follow, up to ``limits.fail_open`` dollars.
        self.failing_open = False
        self.draining = False
        self.projected = 0
        self.held_bytes = 0
        #: Key → bytes of its large bodies that are coming in; only keys that have some.
        self.coming: dict[str, int] = {}
        self.unknowns: dict[str, tuple[Unknown, Reservation]] = {}
        self.drains: set[Answer] = set()
        #: Answers of calls that are at providers now.
        self.answers_open: set[Answer] = set()
        self._connections: set[ClientConnection] = set()
        #: Those that this round of the sweep has not come to yet, and how many it takes at once.
        self._unswept: list[ClientConnection | Answer | Exchange] = []
        self._swept_at_once = SWEPT_AT_ONCE
        self._sweep_s = LOOK_S
        self._pools: dict[str, Pool] = {}
        #: The newest credential of each provider whose credential is renewed; a load brings none.
        self._credentials: dict[str, Credential] = {}
        self._refused: list[Refused] = []
        self._unwritten: deque[tuple[Event, Callable[[], object] | None]] = deque()
        self._counter: TokenCounter = counter
        self._counting = ThreadPoolExecutor(1, "count-tokens")
        #: Those whose vocabulary was asked for.
        self._encodings: set[str] = set()
        #: Large forms are read here, so that no count of tokens waits for them.
        self._reading = ThreadPoolExecutor(1, "read-files")
        self.tokenizer = TokenizerDesk(counter)
        self.outside = OutsideUsage(self)
        #: ``None`` where the configuration has no brake.
        self.brakes = GateBrakes(settings.brake, self.metrics) if settings.brake is not None else None
        #: ``None`` where no content is ever kept or looked at.
        self.contents: ContentDesk | None = None
        self._keeping = keeping
        self._content_log = ContentLog(keeping.writer) if keeping is not None else None
        self.keep_contents()
        #: Copies of calls that go to other places to be compared.
        self.mirrors = Mirrors(self)
        #: ``None`` where the configuration switches the response cache off, or nothing was given to keep it in.
        self.cache: CacheDesk | None = None
        if settings.cache is not None and responses is not None:
            self.cache = CacheDesk(self, settings.cache, responses)
        self._drained: asyncio.Future[None] | None = None
        self._server: asyncio.Server | None = None

    def adopt(self, found: Derived) -> None:
        """Work by what follows from settings, those of the start or later ones."""
        self.bounds, self.peppers, self.steps = found.bounds, found.peppers, found.steps
        self.denials, self.limit_headers = found.denials, found.limit_headers

    # -- life ----------------------------------------------------------------------------------------------------------

    async def serve(self, listening: Callable[[int], None] | None = None) -> int:
        """Listen until drained; returns the process's exit code. ``listening`` hears the port."""
        self.loop = asyncio.get_running_loop()
        self._streams = StreamQueue(self.loop, self.monotonic_nanos)
        self._watch = AnswerWatch(self.loop.call_soon)
        self.now = self.loop.time()
        self._drained = self.loop.create_future()
        control = ControlSocket(self)
        await control.listen(os.path.join(self.settings.data_dir, "gate.sock"))
        self._server = await self.loop.create_server(
            lambda: ClientConnection(self),
            self.settings.host,
            self.settings.port,
            backlog=4096,
            ssl=_listener_tls(self.settings),
        )
        if listening is not None:
            # uvloop gives a list where a tuple is declared, which compiled code would refuse.
            listening(cast(Any, self._server).sockets[0].getsockname()[1])
        sweep = self.loop.call_later(LOOK_S, self._sweep)
        try:
            await self._drained
        finally:
            sweep.cancel()
            self._server.close()
            for client in list(self._connections):
                client.transport.abort()
            await control.close()
            self._tell_refusals()
            self._write_unwritten()
            for pool in self._pools.values():
                pool.close()
            self._counting.shutdown(wait=False, cancel_futures=True)
            self._reading.shutdown(wait=False, cancel_futures=True)
            self.tokenizer.close()
            self.journal.close()
            if self._content_log is not None:
                self._content_log.close()
            if self.cache is not None:
                self.cache.close()
        return 0

    def drain(self) -> None:
        """Stop accepting, let what runs finish, then end; called again: end now."""
        if self.draining:
            self._cut_all()
            return
        self.draining = True
        self.closed_for = _DRAINING
        self.mirrors.stop()
        if self._server is not None:
            self._server.close()
        self.loop.call_later(self.settings.drain_ms / 1000, self._cut_all)
        self._check_drained()

    def _cut_all(self) -> None:
        for answer in list(self.answers_open):
            guarded(answer.cut, answer.mistaken)()
        # Counting and the disk may still be awaited by the last settlements; what stays open becomes unknown.
        self.loop.call_later(CUT_S, self._finish)
        self._check_drained()

    def _check_drained(self) -> None:
        if self.draining and not self.answers_open:
            for client in list(self._connections):
                if client.exchange is None:
                    client.close()
            if not any(client.busy for client in self._connections):
                self._finish()

    def _finish(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def heard_at(self, last_at: float) -> float:
        """From when silence counts that follows bytes noted at ``last_at``: from the end of a standstill since then.

        What is read after one is read before the sweep that finds it out, and noted as if it had come before.
        """
        return self._stood_until if last_at == self._stood_from else last_at

    def _sweep(self) -> None:
        """A few times a second: deadlines, idle connections, what waits to be written."""
        before, self.now = self.now, self.loop.time()
        now = self.now
        if now - before > STANDSTILL_S and not self._put_off:
            # A stall of the machine, or a stopped process: what came meanwhile is read first. But once, or stalls one
            # after the other would put every deadline off.
            self._put_off = True
            self._stood_from, self._stood_until = before, now
            self.loop.call_later(LOOK_S, self._sweep)
            return
        self._put_off = False
        begins = not self._unswept
        if begins:
            self._begin_round()
        # Whatever goes wrong below, the next part has its turn.
        self.loop.call_later(self._sweep_s, self._sweep)
        at_once = self._swept_at_once
        part, self._unswept = self._unswept[:at_once], self._unswept[at_once:]
        for swept in part:
            if not self._is_open(swept):
                continue
            try:
                swept.sweep(now)
            except Exception as error:  # One connection's mistake must not stop the deadlines of all the others.
                swept.mistaken(error)
        if begins:
            for pool in self._pools.values():
                pool.close_idle(now)
                if pool.expires_at:
                    pool.look_at_credential(self.wall_nanos())
            self.metrics.count()
            self._tell_refusals()
            self._write_unwritten()
            self.judge()
            self._check_drained()
            now_nanos = self.wall_nanos()
            self.answers.expire(now_nanos)
            self.objects.expire(now_nanos)

    def _begin_round(self) -> None:
        """Take all that is open now, to be looked at in parts a moment apart."""
        self._unswept = [*self._connections, *self.drains, *self.mirrors.running]
        count = max(1, len(self._unswept))
        parts = min(-(-count // SWEPT_AT_ONCE), SWEEP_PARTS_MAX)
        self._swept_at_once = -(-count // parts)
        self._sweep_s = LOOK_S / parts

    def _is_open(self, swept: "ClientConnection | Answer | Exchange") -> bool:
        """Whether it has not ended since this round of the sweep began."""
        return swept in self._connections or swept in self.drains or swept in self.mirrors.running

    def judge(self) -> None:
        """Decide whether calls are taken."""
        if self.draining:
            self.closed_for = _DRAINING
        elif not self.opened_first:
            self.closed_for = _NOT_READY
        elif self._unwritten:
            self.closed_for = _FULL
        elif self.journal.position - self.projected > self.settings.journal_backlog_max:
            if self.settings.fail_open_nanos and not self.failing_open:
                self._fail_open()
            self.closed_for = None if self.failing_open else _BACKLOG
        else:
            self.closed_for = None
            # Not at once, or the amount could be spent again at every turn about the bound.
            if self.failing_open and self.journal.position - self.projected < self.settings.journal_backlog_max // 2:
                self.failing_open = False
                self.apply(Load(self.snapshot.sequence, limits_removed=(FAIL_OPEN,)))

    def _fail_open(self) -> None:
        """Go on without the books for so many dollars and no more: one more hard limit, on everything."""
        self.failing_open = True
        self.apply(Load(self.snapshot.sequence, limits=(self._fail_open_row,)))
        self.allowances.open_balance(FAIL_OPEN, [], self.wall_nanos())
        logger.warning("failing_open", extra={"nanos": self.settings.fail_open_nanos})

    @property
    def _fail_open_row(self) -> Limit:
        amount = self.settings.fail_open_nanos
        return Limit(FAIL_OPEN, {}, (), "usd", amount, "lifetime", terms=_FAIL_OPEN_TERMS)

    # -- connections ---------------------------------------------------------------------------------------------------

    def welcome(self, client: ClientConnection) -> bool:
        """A client connected; false when there are too many."""
        self._connections.add(client)
        return len(self._connections) <= self.settings.connections_max

    def farewell(self, client: ClientConnection) -> None:
        """A client's connection is gone."""
        self._connections.discard(client)

    def count_coming(self, key: str, more: int) -> None:
        """Count bytes of a key's large bodies while they come in; fewer again when they are whole or given up."""
        bytes_now = self.coming.get(key, 0) + more
        if bytes_now:
            self.coming[key] = bytes_now
        else:
            self.coming.pop(key, None)

    @property
    def connections(self) -> int:
        """Open client connections."""
        return len(self._connections)

    def roll(self) -> int:
        """How much of its jitter a wait gets, in thousandths: anything between the ends with the same chance."""
        return ROLL_MIDDLE - ROLL_SPREAD + int.from_bytes(os.urandom(4), "big") % (2 * ROLL_SPREAD + 1)

    def closed(self, answer: Answer) -> None:
        """An answer is settled and delivered, as far as there was somebody to deliver it to."""
        if self.contents is not None:
            self.contents.closed(answer)
        self.answers_open.discard(answer)
        if self.drains:
            self.drains.discard(answer)
        if self.draining:
            self.loop.call_soon(self._check_drained)

    @property
    def open_answers(self) -> int:
        """How many calls are at providers now."""
        return len(self.answers_open)

    def may_drain(self) -> bool:
        """Whether one more answer may be read to its end though its client left."""
        return len(self.drains) < self.settings.drains_max

    def apply(self, load: Load) -> tuple[str, ...]:
        """Work by another snapshot from now on; returns the ids of the limits that wait for their balance.

        Raises:
            ValueError, KeyError, OSError: prices that overlap, an unknown time zone, a CA file that is gone: the old
                snapshot stays in force, with its connections.
        """
        pools: dict[str, Pool] = {}

        def pool_of(provider: Provider) -> Pool:
            """The pool of a provider; another URL or credential is another pool."""
            old = self._pools.get(provider.name)
            if old is not None and old.provider == provider:
                pools[provider.name] = old
                return old
            pool = pools[provider.name] = Pool(provider, self.loop, self._streams, self._watch)
            known = self._credentials.get(provider.name)
            if known is not None:
                pool.renew(known, self.wall_nanos())
            return pool

        if load.full and self.failing_open:
            # The console knows nothing of this limit, and comes back before the books have followed.
            load = msgspec.structs.replace(load, limits=(*load.limits, self._fail_open_row))
        health = self.deployments.prepared(load.catalogue) if load.catalogue is not None else {}
        snapshot = apply(self.snapshot, load, pool_of, health)
        if load.catalogue is not None:
            self.deployments.adopt(load.catalogue, health)
            self._take_issuers(load.catalogue.identity)
        pending: tuple[str, ...] = ()
        if snapshot.limits is not self.snapshot.limits:
            # A change of keys or prices is no reason to go through fifty thousand limits.
            pending = self.allowances.replace_limits(snapshot.limits, self.wall_nanos())
        self.snapshot = snapshot
        if load.catalogue is not None:
            retired, self._pools = self._pools, pools
            for name, pool in retired.items():
                if pools.get(name) is not pool:
                    pool.close()
            self._credentials = {name: each for name, each in self._credentials.items() if name in pools}
        return pending

    def _take_issuers(self, identity: Identity | None) -> None:
        """Trust these issuers from now on; where nothing changed, what was verified stays so."""
        if identity is None or not identity.issuers:
            self.issuers = None
        elif self.issuers is None or self.issuers.identity != identity:
            self.issuers = CallerTokens(identity, self.issuers)

    def renew(self, credentials: Sequence[Credential]) -> None:
        """Prove ourselves to providers by other credentials from now on; no snapshot changes and no connection closes.

        They may come before the load that names their providers, so that no call finds its provider without one.
        """
        now = self.wall_nanos()
        renewed: set[Pool] = set()
        for each in credentials:
            self._credentials[each.provider] = each
            pool = self._pools.get(each.provider)
            if pool is not None and pool.renew(each, now):
                renewed.add(pool)
        if renewed:
            for target in self.snapshot.targets.values():
                if target.pool in renewed:
                    target.heads.clear()

    def keep_contents(self) -> None:
        """Keep contents, and look into requests, as the settings of now say; calls that run are not looked at again."""
        settings, keeping, log = self.settings.content, self._keeping, self._content_log
        if settings is None or keeping is None or log is None:
            self.contents = None
        else:
            self.contents = ContentDesk(settings, keeping.finder, log)
            self.metrics.contents = log.outcomes

    # -- the journal ---------------------------------------------------------------------------------------------------

    def disk_failed(self) -> Problem:
        """The journal took no more: no calls are taken until it does."""
        self.closed_for = _FULL
        return _FULL

    def settle(self, reservation: Reservation, event: Settled, charge: int, usage: Usage) -> int | None:
        """Journal a settlement, then post it; the position to wait for, ``None`` when it could not be written yet.

        Until it is written its money stays held, so nothing is admitted on what nobody will remember.
        """
        posted = posted_amounts(charge, usage)
        try:
            position = self.journal.append(event)
        except FaregateError:
            self.closed_for = _FULL
            self._unwritten.append((event, lambda: self.allowances.settle(reservation, posted)))
            return None
        self.allowances.settle(reservation, posted)
        return position

    def lose(
        self,
        exchange: Exchange,
        http_status: int,
        code: str,
        latency_us: int,
        first_token_us: int,
        attempts: tuple[Attempt, ...],
        output_tokens: int,
        awaited: Awaited = NOT_AWAITED,
    ) -> int | None:
        """The outcome of a dispatched call was not learnt, or not yet: its money stays held, its slot is free.

        Returns the position to wait for, ``None`` where it could not be written yet.
        """
        reservation = exchange.reservation
        assert reservation is not None
        at = self.wall_nanos()
        lost = Lost(exchange.id, at, http_status, code, latency_us, first_token_us, attempts, output_tokens, awaited)
        unknown = Unknown(
            exchange.id,
            exchange.who,
            reservation.amounts,
            reservation.admitted_at,
            at,
            exchange.tariff.version,
            exchange.who.deployment,
            output_tokens,
            exchange.input_tokens,
            exchange.match.charge_rule if exchange.match is not None else "",
            awaited,
            attempt_id(exchange.id, exchange.sent) if exchange.sent > 1 else "",
        )
        return self.lost(lost, unknown, reservation)

    def mark_awaited(self, lost: Lost) -> None:
        """Journal where the end of work will be told whose answer still comes; its own end, if it comes, is the end."""
        self._append_or_keep(lost)

    def lost(self, lost: Lost, unknown: Unknown, reservation: Reservation) -> int | None:
        """Journal that an outcome was not learnt, and hold its money as that of an unknown; the position after it."""
        position = self._append_or_keep(lost)
        if lost.code:
            self.metrics.refused(lost.code)
        self.allowances.release(reservation, sent=True)
        self.hold_unknown(unknown)
        return position

    def hold_unknown(self, unknown: Unknown) -> None:
        """Keep the money of an unknown exchange held."""
        if unknown.id not in self.unknowns:
            now = self.wall_nanos()
            reservation = self.allowances.hold_unknown(unknown.id, unknown.who, unknown.held, unknown.admitted_at, now)
            self.unknowns[unknown.id] = (unknown, reservation)

    def leave(self, answer: Answer, held: Reservation, left: Unknown | None) -> None:
        """Another place has the call of an answer; what may have been billed there is unknown, and the operator's."""
        self.answers_open.discard(answer)
        answer.handed_over()
        self.allowances.release(held)
        if left is not None:
            self.hold_unknown(left)

    def resolve(self, event: Settled) -> bool:
        """End an unknown exchange; false where it had ended before."""
        known = self.unknowns.pop(event.id, None)
        if known is None:
            return False
        unknown, reservation = known
        # That it was lost may be among what a full disk did not take, and comes first.
        self._write_unwritten()
        self.settle(reservation, event, payer_charge(event), event.usage)
        counters = self.metrics.row(unknown.who, event.status)
        self.metrics.settled((counters, event.usage, event.cost, event.latency_us, 0, event.first_token_us))
        return True

    def tell_mistake(self, error: BaseException) -> None:
        """Log where an unforeseen error arose, without its text, which may quote what a caller sent."""
        places = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        logger.error("a request failed", extra={"error": type(error).__name__, "at": places[-8:]})

    def tell_progress(self, event: Progressed) -> None:
        """A progress mark is only an estimate's aid: on a full disk it is left out."""
        if not self._unwritten:
            self._append_or_keep(event)

    def tell_refused(self, event: Refused) -> None:
        """Refusals are journalled after the reply, in batches: nothing was held, so nothing waits for them."""
        self._refused.append(event)
        if len(self._refused) >= REFUSED_BATCH:
            self._tell_refusals()

    def _tell_refusals(self) -> None:
        refused, self._refused = self._refused, []
        for event in refused:
            self._append_or_keep(event)

    def _append_or_keep(self, event: Event) -> int | None:
        if self._unwritten:
            self._unwritten.append((event, None))
            return None
        try:
            return self.journal.append(event)
        except FaregateError:
            self.closed_for = _FULL
            self._unwritten.append((event, None))
            return None

    def _write_unwritten(self) -> None:
        """Try again what a full disk did not take, oldest first."""
        while self._unwritten:
            event, then = self._unwritten[0]
            try:
                self.journal.append(event)
            except FaregateError:
                return
            self._unwritten.popleft()
            if then is not None:
                then()

    def aside(
        self, work: Callable[[], Made], then: Callable[[Made], None], failed: Callable[[BaseException], None]
    ) -> None:
        """Do what takes long off the loop, one after the other; exactly one of the callbacks hears of it."""

        def done(future: "asyncio.Future[Made]") -> None:
            error = asyncio.CancelledError() if future.cancelled() else future.exception()
            if error is not None:
                failed(error)
            else:
                then(future.result())

        self.loop.run_in_executor(self._reading, work).add_done_callback(done)

    # -- counting tokens -----------------------------------------------------------------------------------------------

    def count_tokens(self, texts: Sequence[str], encoding: str, then: Callable[[int], None]) -> None:
        """Count the tokens of some texts off the loop (loading a vocabulary takes a third of a second).

        Where they cannot be counted it is ``COUNT_MAX``, so that the bound by length stands.
        """
        future = self.loop.run_in_executor(self._counting, _count, self._counter, tuple(texts), encoding)
        future.add_done_callback(lambda done: then(self._counted(done, COUNT_MAX)))

    def load_tokenizer(self, encoding: str) -> None:
        """Have a vocabulary at hand before the first count that a running answer waits for."""
        if encoding not in self._encodings:
            self._encodings.add(encoding)
            self.count_tokens((" ",), encoding, _nothing)

    def count_usage(self, exchange: Exchange, metered: Metered, then: Callable[[Estimate], None]) -> None:
        """What a call used, by our own count, for a provider that told nothing usable.

        Where even that fails, its whole input bound and a token for each character: a call is never free by accident.
        """
        reservation, target = exchange.reservation, exchange.target
        assert reservation is not None
        assert target is not None
        held, encoding = reservation.amounts, target.encoding
        # What tools may use on top is not what is counted here.
        more_in, more_out = counted_tokens(exchange.call.at_most)
        input_most, output_most = held.input_tokens - more_in, held.output_tokens - more_out
        body, dialect = exchange.sent_body, exchange.dialect
        known = exchange.input_tokens if exchange.counted else 0

        def count() -> Estimate:
            tokens = known
            if not tokens:
                tokens = _count(self._counter, dialect.prompt_text(body), encoding)
                tokens += dialect.prompt_tokens_overhead(body)
            return estimate(
                metered,
                self._counter,
                encoding,
                # Our own count is never charged above the hold: the provider was not asked for more.
                input_tokens=min(tokens, input_most),
                output_tokens_max=output_most,
            )

        most = Usage(input_text=input_most, output_text=min(metered.characters, output_most))
        future = self.loop.run_in_executor(self._counting, count)
        future.add_done_callback(lambda done: then(self._counted(done, Estimate(most, "estimate"))))

    def _counted(self, done: "asyncio.Future[Counted]", otherwise: Counted) -> Counted:
        """What was counted, or ``otherwise``: an exchange that waits for it must go on in any case."""
        if done.cancelled():
            return otherwise
        error = done.exception()
        if error is None:
            return done.result()
        self.tell_mistake(error)
        return otherwise


def _tell_rest(deployment: str, rests: bool) -> None:
    level, event = (logging.WARNING, "deployment_rests") if rests else (logging.INFO, "deployment_is_back")
    logger.log(level, event, extra={"deployment": deployment})


def _nothing(tokens: int) -> None:
    """Only the vocabulary was wanted."""


def _count(counter: TokenCounter, texts: Sequence[str], encoding: str) -> int:
    return sum(counter.count(text, encoding) for text in texts)


def _listener_tls(settings: GateSettings) -> ssl.SSLContext | None:
    if settings.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(settings.tls.certificate_file, settings.tls.key_file)
    return context
