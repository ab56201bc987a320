"""The console's end of the Unix socket in the data folder: what changed goes to the gate, live figures come back.

It owns the order of things: load, project exactly up to where the gate was, read balances there, open; then follow the
change feed. While the gate is away it keeps trying; each new connection begins with a full load, so that nothing that
happened meanwhile can be missed. It runs on one event loop; ``nudge`` may be called from any thread. It is one file of
more than six hundred lines, because that order is one thing.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from faregate.console.compile import all_keys, all_limits, card_rows, key_of, limit_of
from faregate.console.openings import questions
from faregate.console.payer_rules import PayerRules, caching_of, project_teams
from faregate.console.reading import every, in_thread, made_places
from faregate.console.records import usage_of
from faregate.console.wire import LOAD_SECONDS_MAX, GateWire
from faregate.control import (
    Allowances,
    AskAllowances,
    AskBrakes,
    AskFigures,
    AskFlush,
    Balance,
    Brakes,
    Catalogue,
    Credential,
    Credentials,
    Done,
    Drain,
    Figures,
    Flush,
    FlushCache,
    Habits,
    Limit,
    Load,
    Loaded,
    Opening,
    Projected,
    Provider,
    Question,
    Reconfigure,
    Reply,
    Report,
    Reported,
    Resolve,
    TellIssuerKeys,
    Unknown,
    WantedIssuerKeys,
)
from faregate.core.limits.index import spared_subjects
from faregate.core.tokens import Issuer
from faregate.errors import Conflict, Failed, FaregateError, Unavailable
from faregate.ports import Books, Clock, JournalReader, Row

if TYPE_CHECKING:
    # A start begins here, before the rest of the console is loaded.
    from faregate.console.state import CompileCatalogue, Projector

log = logging.getLogger(__name__)

#: Each change is followed by a nudge; polling is for what a nudge could miss, such as a restored file.
POLL_SECONDS: Final = 0.5
RETRY_SECONDS_MIN: Final = 0.05
RETRY_SECONDS_MAX: Final = 0.5

#: A new gate waits so long for credentials that are being fetched; calls that need one are refused until it is there.
CREDENTIALS_SECONDS_MAX: Final = 3.0

#: How often it is asked how far a flush of the response cache has come, for how long, and how many may run: the gate
#: remembers only the newest few.
FLUSH_POLL_SECONDS: Final = 0.05
FLUSH_SECONDS_MAX: Final = 60.0
FLUSHES_MAX: Final = 4

_CHANGES_MAX: Final = 10_000

#: Keys that are sent again because of a payer, at once: a revocation waits for no more of them.
_PART: Final = 2_000

#: Keys that a new gate is sent at once: it takes them in while the next ones are read.
_KEYS_PART: Final = 20_000

#: So many parts may be read that the gate has not taken in yet.
_PARTS_AHEAD: Final = 4

_READ_BYTES: Final = 1024 * 1024

#: Kinds of resources that the catalogue is compiled from.
_CATALOGUE_KINDS: Final = frozenset({"price", "provider", "deployment", "pool", "model", "service", "project", "stage"})

#: Kinds of resources that the gate is told of.
_LOADED_KINDS: Final = _CATALOGUE_KINDS | {"key", "limit"}

Answered = TypeVar("Answered", Loaded, Done, Figures, Allowances, Reported, Brakes, WantedIssuerKeys, Flush)
Made = TypeVar("Made")


class GateLink:
    """Implements ``Gate``. ``run`` keeps it connected until it is cancelled."""

    def __init__(
        self,
        socket_path: str,
        books: Books,
        journal: JournalReader,
        projector: "Projector",
        compile_catalogue: "CompileCatalogue",
        clock: Clock,
        part: int = _PART,
        keys_part: int = _KEYS_PART,
        flush_seconds: float = FLUSH_SECONDS_MAX,
    ) -> None:
        self._socket_path = socket_path
        self._books = books
        self._journal = journal
        self._projector = projector
        self._compile = compile_catalogue
        self._clock = clock
        self._payers = PayerRules(books)
        self._wire: GateWire | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._nudged = asyncio.Event()
        self._first_contact = asyncio.Event()
        #: Nothing is read of the books any more for a new gate: all was, or it has failed and is tried again.
        self._was_read = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._sequence = 0
        self._told_position = 0
        #: Payers that restrict otherwise than their keys were sent → the last of these keys that was sent again.
        self._behind: dict[tuple[str, str, str], str] = {}
        self._part = part
        self._keys_part = keys_part
        self._flush_seconds = flush_seconds
        self._flushing = 0
        #: The providers of the catalogue that was compiled last, by name.
        self.providers: Mapping[str, Provider] = {}
        #: Likewise the issuers of tokens.
        self.issuers: tuple[Issuer, ...] = ()
        #: The newest credential of each provider whose credential is renewed, and those that the gate was not told of.
        self._credentials: dict[str, Credential] = {}
        self._untold: set[str] = set()
        self._credentials_tried = asyncio.Event()
        self._credentials_tried.set()
        self._trouble = "the gate was not reached yet"
        #: What the gate works by besides what is loaded, as JSON, and whether a gate that is met may work by another.
        self.gate_settings = b""
        self._restate = False
        #: One load or change of settings at a time: a catalogue by the old ones must not come after the new.
        self._turn = asyncio.Lock()

    # -- what the rest of the console asks ----------------------------------------------------------------------------
    @property
    def connected(self) -> bool:
        """Whether the gate is there and works from what the console sent."""
        return self._wire is not None

    def nudge(self) -> None:
        """Look at the change feed now. May be called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._nudged.set)

    def expect_credentials(self) -> None:
        """Some providers need credentials that are being fetched: a new gate takes no calls before that was tried."""
        self._credentials_tried.clear()

    def credentials_tried(self) -> None:
        """Each of them was fetched, or could not be."""
        self._credentials_tried.set()

    def renew(self, credentials: Sequence[Credential]) -> None:
        """Hand the gate credentials that are in force from now on. For the event loop's own thread."""
        for each in credentials:
            self._credentials[each.provider] = each
            self._untold.add(each.provider)
        self._nudged.set()

    async def read(self, within_s: float) -> None:
        """Wait until what the gate needs was read, or could not be, at most ``within_s`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._was_read.wait()

    async def contact(self, within_s: float) -> None:
        """Wait until the gate has everything, at most ``within_s`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._first_contact.wait()

    async def applied(self, within_s: float) -> bool:
        """Whether the gate works from every change made so far; waits at most ``within_s`` seconds for it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._nudged.set()
        try:
            async with asyncio.timeout(within_s):
                await done
        except TimeoutError:
            return False
        return True

    async def figures(self) -> Figures:
        """Live figures.

        Raises:
            Unavailable: the gate does not answer.
        """
        return await self._asked(AskFigures(), Figures)

    async def allowances(self, limits: tuple[str, ...] = ()) -> Allowances:
        """Live allowances of some limits, all when empty.

        Raises:
            Unavailable: the gate does not answer.
        """
        return await self._asked(AskAllowances(limits), Allowances)

    async def resolve(self, order: Resolve) -> bool:
        """End an unknown exchange; false where it had ended before.

        Raises:
            Unavailable: the gate does not answer.
        """
        return (await self._asked(order, Done)).changed

    async def report(self, order: Report) -> Reported:
        """Book a call that went past the gate, unless the books or the gate know it.

        The books are looked through over the connection that is asked then: a gate that takes its place meanwhile
        would not know what the one before it booked.

        Raises:
            Unavailable: the gate does not answer.
        """
        wire = self._wire
        if wire is None:
            raise Unavailable(self._trouble)

        def look() -> tuple[int, Row | None]:
            looked_to = self._books.projected()
            found = (self._books.request(each) for each in (order.id, *order.also))
            return looked_to, next((row for row in found if row is not None), None)

        looked_to, known = await in_thread(look)
        if known is not None and known["status"] == "unknown":
            # Its gate died between the two halves of the booking: the second one is told again.
            return Reported(await self.resolve(_end_of(known["id"], order)))
        if known is not None:
            return Reported(changed=False, same=(known["charge"], usage_of(known)) == (order.charge, order.usage))
        return _expected(await wire.ask(msgspec.structs.replace(order, looked_to=looked_to)), Reported)

    async def flush_cache(self, order: FlushCache) -> Flush:
        """Have kept answers forgotten; how far that has come once it is done, or has taken too long.

        It is asked over one connection, because another gate numbers its flushes anew. What went wrong after the flush
        was begun is its ``trouble``.

        Raises:
            Unavailable: the gate does not answer; nothing is known to be forgotten.
            Conflict: ``cache_off``: the gate has no response cache.
            Failed: ``concurrency_limited``: too many are under way.
        """
        wire = self._wire
        if wire is None:
            raise Unavailable(self._trouble)
        if self._flushing >= FLUSHES_MAX:
            rule = "the response cache is being flushed already; nothing was done, send it again later"
            raise Failed(rule, code="concurrency_limited")
        self._flushing += 1
        try:
            try:
                begun = _expected(await wire.ask(order), Flush)
            except Failed as error:
                hint = "cache.enabled in faregate.yaml switches it on at the next start"
                raise Conflict(error.message, code="cache_off", hint=hint) from error
            return await self._flushed(wire, begun)
        finally:
            self._flushing -= 1

    async def _flushed(self, wire: GateWire, flush: Flush) -> Flush:
        """How far a flush that was begun has come in the end."""
        try:
            async with asyncio.timeout(self._flush_seconds):
                while not flush.done:
                    await asyncio.sleep(FLUSH_POLL_SECONDS)
                    flush = _expected(await wire.ask(AskFlush(flush.number)), Flush)
        except TimeoutError:
            trouble = flush.trouble or f"it was not done within {self._flush_seconds:g} seconds, and goes on"
            return msgspec.structs.replace(flush, trouble=trouble)
        except (Unavailable, Failed) as error:
            return msgspec.structs.replace(flush, trouble=error.message)
        return flush

    async def brakes(self) -> Brakes:
        """Keys that tripped the anomaly brake, and those whose past the gate wants to know.

        Raises:
            Unavailable: the gate does not answer.
        """
        return await self._asked(AskBrakes(), Brakes)

    async def tell_habits(self, habits: Habits) -> None:
        """Tell the past of keys, and which trips are limits by now.

        Raises:
            Unavailable: the gate does not answer.
        """
        await self._asked(habits, Done)

    async def reconfigure(self, settings: bytes, compile_catalogue: "CompileCatalogue") -> None:
        """Let the gate work by other settings (``GateSettings`` as JSON) and another catalogue, and follow that.

        Raises:
            Unavailable: the gate does not answer; whatever became of it, the next connection begins with what was
                before.
            Failed: it works on as before, for the reason that is told.
        """
        async with self._turn:
            wire, before, providers, issuers = self._wire, self._compile, self.providers, self.issuers
            if wire is None:
                raise Unavailable(self._trouble, hint="try again when it is there")
            self._compile = compile_catalogue
            try:
                catalogue = await in_thread(self._catalogue)
                _expected(await wire.ask(Reconfigure(msgspec.Raw(settings), catalogue), LOAD_SECONDS_MAX), Done)
            except BaseException as error:  # Also when cancelled: both planes go on as they were.
                self._compile, self.providers, self.issuers = before, providers, issuers
                self._restate = self._restate or (isinstance(error, Unavailable) and bool(self.gate_settings))
                raise
            self.gate_settings, self._restate = settings, True

    async def tell_issuer_keys(self, order: TellIssuerKeys) -> WantedIssuerKeys:
        """Hand over the public keys of issuers, and hear which are wanted.

        Raises:
            Unavailable: the gate does not answer.
        """
        return await self._asked(order, WantedIssuerKeys)

    async def drain(self) -> None:
        """Let the gate stop accepting.

        Raises:
            Unavailable: the gate does not answer.
        """
        await self._asked(Drain(), Done)

    async def _asked(self, question: Question, kind: type[Answered]) -> Answered:
        if self._wire is None:
            raise Unavailable(self._trouble)
        return _expected(await self._wire.ask(question), kind)

    # -- life ---------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Connect, follow the change feed, and connect again, until cancelled."""
        self._loop = asyncio.get_running_loop()
        wait = RETRY_SECONDS_MIN
        while True:
            try:
                wire = await GateWire.connect(self._socket_path)
            except OSError:
                self._trouble = "the gate is not running"
            else:
                try:
                    await self._begin(wire)
                    wait = RETRY_SECONDS_MIN
                    await self._follow(wire)
                except (FaregateError, OSError) as error:
                    self._trouble = f"the gate is not in touch: {error}"
                    log.warning("gate_link_lost", extra={"reason": str(error)})
                finally:
                    self._wire = None
                    await wire.close()
            await asyncio.sleep(wait)
            wait = min(wait * 2, RETRY_SECONDS_MAX)

    async def _begin(self, wire: GateWire) -> None:
        """Load everything, then open every balance and all unknowns, as of one journal position."""
        sequence = await in_thread(self._books.newest_change)
        limits = await in_thread(lambda: tuple(all_limits(self._books)))
        figures = _expected(await wire.ask(AskFigures()), Figures)
        if self._restate:
            # It may be one that was started by other settings, or that took those which its console gave up.
            _expected(await wire.ask(Reconfigure(msgspec.Raw(self.gate_settings))), Done)
        # Before the load that names their providers, so that no call finds its provider without one.
        self._untold = set(self._credentials)
        await self._tell_credentials(wire)
        async with _resting(self._projector):
            if figures.sequence:
                load = await in_thread(lambda: self._full_load(sequence, limits))
                self._was_read.set()
                await self._send_and_open(wire, load, first=True)
                keys = len(load.keys)
            else:
                keys = await self._begin_anew(wire, figures.position, sequence, limits)
        self._sequence = sequence
        self._told_position = 0
        self._wire = wire
        self._first_contact.set()
        log.info("gate_link_open", extra={"sequence": sequence, "keys": keys, "limits": len(limits)})

    async def _begin_anew(self, wire: GateWire, position: int, sequence: int, limits: tuple[Limit, ...]) -> int:
        """Load a gate that has nothing yet, which takes no calls, so that its journal stands still at ``position``.

        All limits will lack their balances. They are summed while the rest is read, and while the gate takes it in.
        Returns how many keys it has now.
        """
        parts: asyncio.Queue[Load | None] = asyncio.Queue(_PARTS_AHEAD)
        reading = asyncio.gather(
            self._read_parts(sequence, parts),
            in_thread(lambda: self._opening(position, [limit.id for limit in limits], limits, first=True)),
            return_exceptions=True,
        )
        # Before the gate has taken it in and credentials are there, which the rest of the program fetches.
        reading.add_done_callback(lambda _: self._was_read.set())
        try:
            loaded, keys = await self._send_parts(wire, Load(sequence, full=True, limits=limits), parts)
        except BaseException:  # Also when cancelled: the books are read to the end before they may be closed.
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            raise
        unread, summed = await reading
        if unread is not None:
            raise unread
        if isinstance(summed, BaseException):
            raise summed
        if loaded.position != position or set(loaded.pending) != set(summed.limits):
            # It was no new gate, or another console spoke to it: what was summed is of no use.
            summed = await in_thread(lambda: self._opening_of(loaded, limits, first=True))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CREDENTIALS_SECONDS_MAX):
                await self._credentials_tried.wait()
        await self._tell_credentials(wire)
        _expected(await wire.ask(summed, LOAD_SECONDS_MAX), Done)
        return keys

    async def _read_parts(self, sequence: int, parts: "asyncio.Queue[Load | None]") -> None:
        """Read keys, then the catalogue, ahead of what the gate takes in; ``None`` follows the last part."""
        found = self._parts(sequence)
        try:
            while (part := await in_thread(lambda: next(found, None))) is not None:
                await parts.put(part)
        except Exception:  # Of any kind: whoever sends must not wait for a part that never comes.
            await parts.put(None)
            raise
        await parts.put(None)

    async def _send_parts(self, wire: GateWire, first: Load, parts: "asyncio.Queue[Load | None]") -> tuple[Loaded, int]:
        """Send ``first``, then all ``parts``; what the gate answered to the first one, and how many keys there were."""
        answer, keys = _expected(await wire.ask(first, LOAD_SECONDS_MAX), Loaded), 0
        while (part := await parts.get()) is not None:
            _expected(await wire.ask(part, LOAD_SECONDS_MAX), Loaded)
            keys += len(part.keys)
        return answer, keys

    async def _follow(self, wire: GateWire) -> None:
        """Pass on changes and the projector's progress, for as long as the connection lives."""
        while not wire.gone.done():
            self._nudged.clear()
            waiting, self._waiting = self._waiting, []
            try:
                async with self._turn:
                    while load := await in_thread(self._next_load):
                        await self._pass_on(wire, load)
                        self._sequence = load.sequence
            except BaseException:  # Also when cancelled: they are served by the full load of the next connection.
                self._waiting += waiting
                raise
            for each in waiting:
                if not each.done():
                    each.set_result(None)
            await self._tell_position(wire)
            await self._tell_credentials(wire)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._nudged_or_gone(wire)
        raise Unavailable("the gate hung up")

    async def _nudged_or_gone(self, wire: GateWire) -> None:
        nudged = asyncio.ensure_future(self._nudged.wait())
        either: list[asyncio.Future[Any]] = [nudged, wire.gone]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            nudged.cancel()

    async def _tell_credentials(self, wire: GateWire) -> None:
        while self._untold:
            told = {provider: self._credentials[provider] for provider in self._untold}
            _expected(await wire.ask(Credentials(tuple(told.values()))), Done)
            # One that was renewed meanwhile is told with the next ones.
            self._untold -= {name for name, each in told.items() if self._credentials[name] is each}

    async def _tell_position(self, wire: GateWire) -> None:
        position = await in_thread(self._books.projected)
        if position > self._told_position:
            _expected(await wire.ask(Projected(position)), Done)
            self._told_position = position

    # -- loading and opening ------------------------------------------------------------------------------------------
    async def _pass_on(self, wire: GateWire, load: Load) -> None:
        """Send what changed; only new limits have balances that the gate could lack."""
        if not load.limits:
            _expected(await wire.ask(load, LOAD_SECONDS_MAX), Loaded)
            return
        async with _resting(self._projector):
            await self._send_and_open(wire, load, first=False)

    async def _send_and_open(self, wire: GateWire, load: Load, *, first: bool) -> None:
        """Send ``load``; open what the gate then lacks, read from the books exactly where the gate was.

        Projection must rest meanwhile, so that the books stand neither before nor behind that position.
        """
        loaded = _expected(await wire.ask(load, LOAD_SECONDS_MAX), Loaded)
        if loaded.pending or first:
            opening = await in_thread(lambda: self._opening_of(loaded, load.limits, first))
            _expected(await wire.ask(opening, LOAD_SECONDS_MAX), Done)

    def _opening_of(self, loaded: Loaded, limits: Iterable[Limit], first: bool) -> Opening:
        """What the gate lacks after a load; one that is gone from the books is opened without a balance."""
        known = {limit.id: limit for limit in limits}
        missing = [id for id in loaded.pending if id not in known]
        known.update((id, limit_of(row)) for id, row in self._books.get_all("limit", missing).items())
        found = [known[id] for id in loaded.pending if id in known]
        return self._opening(loaded.position, loaded.pending, found, first)

    def _opening(self, position: int, ids: Sequence[str], limits: Iterable[Limit], first: bool) -> Opening:
        """Opens ``ids`` with the balances of ``limits`` at a position, to which the journal is projected.

        With the unknowns of older epochs, if ``first``.
        """
        self._project_to(position)
        now = self._clock.wall_nanos()
        limits = list(limits)
        spares = {each.id: spared_subjects(each.terms.spared, each.each) for each in limits if each.terms.spared}
        asked = [(limit.id, moment, query) for limit in limits for moment, query in questions(limit, now)]
        # All at once: limits are many, what must be summed for them is not.
        found = self._books.balances_of([query for _, _, query in asked])
        balances = tuple(
            Balance(id, subject, moment, posted)
            for (id, moment, _), sums in zip(asked, found, strict=True)
            for subject, posted in sums
            if not (spares and (spared := spares.get(id)) is not None and spared(subject))
        )
        unknowns = tuple(unknown_of(row) for row in self._books.open_reservations("unknown")) if first else ()
        return Opening(position, tuple(ids), balances, first, unknowns)

    def _project_to(self, position: int) -> None:
        """Project what is missing up to ``position`` and nothing beyond it.

        Raises:
            Unavailable: the journal that can be read ends before it.
        """
        while (projected := self._books.projected()) < position:
            records = [each for each in self._journal.read(projected, _READ_BYTES) if each.position <= position]
            if not records:
                raise Unavailable(f"the journal cannot be read from {projected} up to {position}")
            self._journal.sync()
            self._books.project(records)

    # -- what is sent -------------------------------------------------------------------------------------------------
    def _parts(self, sequence: int) -> Iterator[Load]:
        """All keys, some at a time, then the catalogue and what stops or restricts callers that have no key."""
        halted = self._payers.read()
        self._behind.clear()
        keys = self._payers.applied(all_keys(self._books))
        while some := tuple(islice(keys, self._keys_part)):
            yield Load(sequence, keys=some)
        yield Load(sequence, catalogue=self._catalogue(), halted=halted, restricting=self._payers.rules)

    def _full_load(self, sequence: int, limits: tuple[Limit, ...]) -> Load:
        """Everything at once, for a gate that works: ``limits`` being all of these."""
        *parts, last = self._parts(sequence)
        keys = tuple(key for part in parts for key in part.keys)
        return msgspec.structs.replace(last, full=True, keys=keys, limits=limits)

    def _next_load(self) -> Load | None:
        """What changed since the last load, then keys that another change concerns; ``None`` where there is neither."""
        while changes := self._books.changes(self._sequence, _CHANGES_MAX):
            touched = self._payers.touched(changes)
            self._behind.update((rule.place, "") for rule in touched)
            halted = self._payers.halted_by(changes)
            if touched or halted is not None or any(kind in _LOADED_KINDS for _, kind, _ in changes):
                break
            # Alerts, entries of limits, most of payers: the gate knows nothing of them, and a load is work for it.
            self._sequence = changes[-1][0]
        else:
            return self._next_part()
        keys, keys_removed = self._changed(changes, "key", key_of)
        keys = tuple(self._payers.applied(keys))
        limits, limits_removed = self._changed(changes, "limit", limit_of)
        catalogue = self._catalogue() if any(kind in _CATALOGUE_KINDS for _, kind, _ in changes) else None
        return Load(
            changes[-1][0], False, keys, keys_removed, limits, limits_removed, catalogue, halted, tuple(touched)
        )

    def _next_part(self) -> Load | None:
        """Some of the keys that a payer restricts otherwise than they were sent, as they are now."""
        while self._behind:
            payer, after = next(iter(self._behind.items()))
            kind, organization, name = payer
            within: dict[str, object] = {"organization": organization, kind: name}
            rows = self._books.listing("key", after=after, limit=self._part, **within)
            if rows:
                self._behind[payer] = rows[-1]["id"]
                return Load(self._sequence, keys=tuple(self._payers.applied(map(key_of, rows))))
            del self._behind[payer]
        return None

    def _changed(
        self, changes: Sequence[tuple[int, str, str]], wanted: str, compiled: Callable[[Row], Made]
    ) -> tuple[tuple[Made, ...], tuple[str, ...]]:
        """Rows of one kind among the changes as they are now, and the ids of those that are gone."""
        ids = list(dict.fromkeys(id for _, kind, id in changes if kind == wanted))
        rows = self._books.get_all(wanted, ids)
        return tuple(compiled(row) for row in rows.values()), tuple(id for id in ids if id not in rows)

    def _catalogue(self) -> Catalogue:
        """Compile the catalogue and keep its rate cards, so that every charge can be derived later."""
        projects = every(self._books, "project")
        names = [str(row["name"]) for row in projects]
        catalogue = self._compile(every(self._books, "price"), names, made_places(self._books))
        stages = every(self._books, "stage")
        catalogue = msgspec.structs.replace(
            catalogue,
            project_teams=project_teams(projects),
            caching=(*catalogue.caching, *caching_of(projects, stages)),
            stage_names=tuple((row["organization"], row["name"]) for row in stages),
        )
        self.providers = {provider.name: provider for provider in catalogue.providers}
        self.issuers = catalogue.identity.issuers if catalogue.identity is not None else ()
        self._books.keep_rate_cards(card_rows(catalogue))
        return catalogue


@contextlib.asynccontextmanager
async def _resting(projector: "Projector") -> AsyncIterator[None]:
    """Hold projection. A cancellation while it is being taken still gives it back."""
    rest = contextlib.ExitStack()
    try:
        await in_thread(lambda: rest.enter_context(projector.paused()))
        yield
    finally:
        await in_thread(rest.close)


def unknown_of(row: Row) -> Unknown:
    """An open reservation of state ``unknown`` as the gate and the jobs see it."""
    intent = row["intent"]
    return Unknown(
        id=intent.id,
        who=intent.who,
        held=intent.held,
        admitted_at=intent.admitted_at,
        dispatched_at=intent.at,
        price_version=intent.price_version,
        deployment=intent.who.deployment,
        output_tokens_seen=row["output_tokens_seen"],
        input_tokens_bound=intent.input_tokens_bound,
        charge_rule=intent.charge_rule,
        awaited=row["awaited"],
        asked_as=intent.asked_as,
    )


def _end_of(id: str, order: Report) -> Resolve:
    """The end of a reported call whose beginning alone is journalled."""
    return Resolve(
        id,
        "ok",
        "late_evidence",
        order.usage,
        order.usage_source,
        order.cost,
        order.charge,
        order.provider_request_id,
        order.answered_model,
        order.price_version,
    )


def _expected(reply: Reply, kind: type[Answered]) -> Answered:
    if not isinstance(reply, kind):
        raise Unavailable(f"the gate answered {type(reply).__name__} where {kind.__name__} was expected")
    return reply
