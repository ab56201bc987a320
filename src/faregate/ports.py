"""Everything the gateway needs from the world, as Protocols, on one page.

Adapters implement these; ``assembly`` is the only place that knows which. Each method says what it raises; a twin
that is switched off fails loudly rather than answering something made up. The page is long, and one on purpose: all
that the product needs from outside is seen at once.
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from faregate.core.caching.policy import CacheLabels
from faregate.core.comparison import Comparison
from faregate.core.ledger.events import Event
from faregate.errors import Problem


class Clock(Protocol):
    """Two clocks: the calendar's, for windows and records, and one that only moves forward, for durations."""

    def wall_nanos(self) -> int:
        """Nanoseconds since 1970 UTC."""
        ...

    def monotonic_nanos(self) -> int:
        """Nanoseconds of a clock that never steps back."""
        ...


class JournalWriter(Protocol):
    """The append-only file that every admission and settlement is written to before anybody learns of it."""

    @property
    def position(self) -> int:
        """Bytes ever written: the position just after the last record."""
        ...

    @property
    def epoch(self) -> int:
        """The epoch this writer opened."""
        ...

    def append(self, event: Event) -> int:
        """Write one event and return the position after it.

        When it returns, a crash of this process cannot lose the event any more.

        Raises:
            StorageFull: there is no room that the event may use; nothing of it is written.
            Unavailable: the journal is closed, or the disk lost data of it.
            Failed: the event is larger than a record may be.
        """
        ...

    def when_durable(self, position: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the event loop once everything below ``position`` has reached stable storage."""
        ...

    def close(self) -> None:
        """Sync and close; further appends are an error."""
        ...


class JournalRecord(NamedTuple):
    """One event read back, and the position just after it."""

    position: int
    event: Event
    #: Its number in the journal, counted from 1; 0 where nobody counted.
    sequence: int = 0


class JournalReader(Protocol):
    """Reads the journal that another process may be writing."""

    def read(self, position: int, bytes_max: int) -> Sequence[JournalRecord]:
        """Whole records from ``position`` on, about ``bytes_max`` of them; empty when there is nothing new yet.

        Raises:
            JournalCorrupt: a record that is not the last one fails its checksum, or a sequence number is missing.
        """
        ...

    def segments(self) -> Iterable[tuple[int, int]]:
        """``(first position, bytes)`` of every segment still kept, oldest first."""
        ...

    def sync(self) -> None:
        """Bring what was read to stable storage, so that the books never run ahead of the disk."""
        ...


class TokenCounter(Protocol):
    """Counts tokens of a text; slow on its first call, so the gate asks it off the loop."""

    def count(self, text: str, encoding: str) -> int:
        """Tokens of ``text``; an unknown ``encoding`` is counted as characters / 3.5, rounded up."""
        ...


class PromptCount(NamedTuple):
    """Input tokens of a chat's messages and tools. ``exact`` where the provider is known to count just so."""

    tokens: int
    exact: bool
    #: Tokens of each message with its framing, in order; what tools and the start of the answer add is not in them.
    messages: tuple[int, ...] = ()


class Tokenizer(TokenCounter, Protocol):
    """The tokenizer service: what a text's tokens are, and which encoding a model has. Slow on its first call."""

    def encoding_of(self, model: str) -> str:
        """The encoding of a model by its name, empty where none is known."""
        ...

    def prompt(self, messages: Sequence[Any], tools: Sequence[Any], model: str) -> PromptCount:
        """Input tokens of a chat with ``model``; by another encoding, and never exact, where it is not known."""
        ...

    def answer(self, asked: Mapping[str, Any], model_of: Callable[[str], str]) -> dict[str, Any] | Problem:
        """The answer to a question of ``/api/tokenize``; ``model_of`` says which model a configured name means."""
        ...

    def encodings(self) -> dict[str, Any]:
        """The answer of ``/api/encodings``: every encoding, and the models that have it."""
        ...


Row = dict[str, Any]


#: Begins the ids of what the configuration file declares and the books do not have.
DECLARED: Final = "file:"


class MadePlaces(NamedTuple):
    """What was made through the API of places to send calls to: rows of a kind each."""

    providers: Sequence[Row] = ()
    deployments: Sequence[Row] = ()
    models: Sequence[Row] = ()
    pools: Sequence[Row] = ()
    services: Sequence[Row] = ()


NO_PLACES: Final = MadePlaces()


#: ``(subject, posted)`` of one limit, in the order of the subjects; one without ``each`` has the subject ``()``.
Balances = list[tuple[tuple[str, ...], int]]


class BalanceQuery(NamedTuple):
    """What one limit counts: settled requests of whom, by which dimensions, in which unit, admitted when."""

    selector: Mapping[str, str]
    each: tuple[str, ...]
    unit: str
    #: Admitted at or after it; 0 leaves it open.
    since: int
    #: Admitted before it; 0 leaves it open.
    until: int = 0


class TrailMark(NamedTuple):
    """Lines of the trail of changes that tell of one change: numbers of the first and the last, and its hash."""

    first: int
    last: int
    hash: str


class ChainHead(NamedTuple):
    """The newest entry of the chain over what is booked: whoever keeps it can prove later what the books held."""

    number: int
    hash: str
    #: Nanoseconds since 1970 UTC.
    at: int


class Proof(NamedTuple):
    """What came of following the chain over what is booked from its first entry to its newest."""

    #: Sentences that name each row which was edited, removed, moved or put in, the first of each kind first.
    faults: Sequence[str]
    entries: int
    #: Rows that the chain covers.
    rows: int
    head: ChainHead
    #: What the books hold in excess or lack in what follows from the rest: roll-ups and reservations.
    derived: Sequence[str] = ()


class Books(Protocol):
    """The ledger database. One process writes to it; every method is a transaction of its own.

    Rows are plain dictionaries whose keys are the columns of ``storage/schema``. Money is integer nano-dollars,
    times are
    nanoseconds since 1970 UTC. All methods raise ``Unavailable`` where the database does not answer in its deadline.
    """

    # -- projection ---------------------------------------------------------------------------------------------------
    def projected(self) -> int:
        """The journal position up to which everything is in the books."""
        ...

    def project(self, records: Sequence[JournalRecord]) -> None:
        """Apply records in one transaction with the new position; those already applied are skipped."""
        ...

    # -- identity, limits, prices: each write also appends to the change feed ----------------------------------------
    # ``told`` are the lines of the trail of changes that tell of a change; they are chained in the same transaction.
    def put(self, kind: str, row: Row, *, told: TrailMark | None = None) -> int:
        """Insert or replace the row ``row['id']`` of a resource kind; returns the change sequence number.

        Kinds: ``organization team project user product stage subscription key limit limit_entry price price_list
        capacity channel alert provider deployment model``.
        """
        ...

    def put_all(self, kind: str, rows: Sequence[Row], *, told: TrailMark | None = None) -> None:
        """Insert or replace rows of a kind, all of them or none."""
        ...

    def put_together(
        self,
        rows: Sequence[tuple[str, Row]],
        removed: Sequence[tuple[str, str]] = (),
        *,
        told: TrailMark | None = None,
    ) -> None:
        """Put a few ``(kind, row)`` and remove a few ``(kind, id)`` that belong together, all of them or none."""
        ...

    def get(self, kind: str, id: str) -> Row | None:
        """One row of a resource kind."""
        ...

    def get_all(self, kind: str, ids: Sequence[str]) -> dict[str, Row]:
        """Those rows of a kind that there are, by their ids."""
        ...

    def remove(self, kind: str, id: str, *, told: TrailMark | None = None) -> bool:
        """Remove one row; false where there was none."""
        ...

    def listing(self, kind: str, /, *, after: str = "", limit: int = 1000, **equal: object) -> list[Row]:
        """Rows of a kind in the order of their ids, after a cursor id, filtered by equality.

        A filter ``column.member`` looks at a member of a JSON object.
        """
        ...

    def columns(self, kind: str, names: Sequence[str], /, *, after: str = "", limit: int = 1000) -> list[Sequence[Any]]:
        """What ``listing`` gives, by column: the values of each of ``names``, in the order of the rows' ids.

        For whoever needs some columns of very many rows.
        """
        ...

    def newest(self, kind: str, /, *, before: str = "", limit: int = 1000, **equal: object) -> list[Row]:
        """Rows of a kind in the reverse order of their ids, before a cursor id, filtered by equality."""
        ...

    def tally(self, kind: str, by: Sequence[str]) -> list[tuple[Row, int]]:
        """How many rows of a kind have which values in the columns ``by``."""
        ...

    def newest_change(self) -> int:
        """The sequence number of the newest change, 0 where there is none yet."""
        ...

    def changes(self, after: int, limit: int = 10_000) -> list[tuple[int, str, str]]:
        """``(sequence, kind, id)`` of changes after a sequence number, oldest first."""
        ...

    # -- balances ----------------------------------------------------------------------------------------------------
    def balances(self, selector: dict[str, str], each: tuple[str, ...], unit: str, since: int) -> Balances:
        """``(subject, posted)`` of what settled requests admitted at or after ``since`` add up to."""
        ...

    def balances_of(self, asked: Sequence[BalanceQuery]) -> list[Balances]:
        """The balances of many limits as of one moment, in their order; far faster than one by one."""
        ...

    def open_reservations(self, state: str | None = None) -> list[Row]:
        """Reservations that have not ended: ``dispatched`` or ``unknown``."""
        ...

    # -- looking -------------------------------------------------------------------------------------------------------
    def requests(self, *, after: str = "", limit: int = 100, newest_first: bool = True, **filters: object) -> list[Row]:
        """Request records, newest first by default; filters by any column, ``since``, ``until``, ``tag.NAME``.

        With ``booked_after``, the id of a record or nothing: those booked later, in the order of booking. With
        ``sort``, a column, in its order, the largest first by default; ``within_ms`` is how long it may take.

        Raises:
            Failed: ``search_too_long``.
        """
        ...

    def request(self, id: str, /, **equal: object) -> Row | None:
        """One request record, if it also fits filters by equality of any column."""
        ...

    def usage(self, by: Sequence[str], since: int, until: int, **filters: object) -> list[Row]:
        """Sums over settled requests grouped by dimensions: requests, tokens, rarer units, cost, charge."""
        ...

    def cache_use(
        self, by: Sequence[str], since: int, until: int, thresholds: Mapping[str, Sequence[int]], **filters: object
    ) -> list[Row]:
        """What caches did for settled calls that used one, this gateway's or their provider's.

        Calls are summed that agree in ``by``, ``cache``, ``price_version`` and ``other_units``, and in the prices that
        hold for them: ``thresholds`` are numbers of input tokens by the price versions that have other prices beyond
        them, and ``input_length`` is one that has the same prices, without what is among the other units. Summed are
        ``requests``, ``charge``, ``saved_cost``, ``input_cached`` and ``input_cache_write``. All of it is gone through
        and held in memory: ask for a long time piece by piece.
        """
        ...

    def comparison(
        self, since: int, until: int, most: int, *, stream: bool | None = None, **filters: object
    ) -> Comparison:
        """How deployments compare by the ``most`` newest settled calls of a time that were sent to one.

        Filters are dimensions and tags. By ``model`` and ``deployment`` a copy also counts as a pair, and only as one,
        where its original fits them; all others it has to fit itself.
        """
        ...

    def spending(self, keys: Sequence[str], since: int, until: int) -> list[tuple[str, str, int, int]]:
        """``(key, service, start, spent)`` of these keys, by quarters of an hour: cost or charge, whichever is more.

        ``since`` and ``until`` are edges of such quarters.
        """
        ...

    def rate_card(self, version: str) -> Row | None:
        """The rate card a charge was made with."""
        ...

    def keep_rate_cards(self, rows: Iterable[Row]) -> None:
        """Remember rate cards by version; known versions are left as they are."""
        ...

    def rate_card_versions(self, containing: str) -> list[str]:
        """Versions of kept rate cards whose name contains a text."""
        ...

    # -- corrections -------------------------------------------------------------------------------------------------
    def adjust(
        self,
        run: Row,
        lines: Sequence[Row],
        moved: Sequence[tuple[str, str, int]],
        *,
        told: TrailMark | None = None,
    ) -> bool:
        """Book a correcting run in one transaction; false where one of its id is booked already.

        ``lines`` say by how much each record is corrected, ``moved`` are ``(debited, credited, amount)``.
        """
        ...

    def adjustment(self, id: str) -> Row | None:
        """One correcting run."""
        ...

    def adjustments(self, *, after: str = "", limit: int = 100) -> list[Row]:
        """Correcting runs, newest first by their ids."""
        ...

    def adjustment_lines(self, run: str, *, after: str = "", limit: int = 10_000) -> list[Row]:
        """By how much a run corrected each record, in the order of their ids."""
        ...

    def corrections(self, ids: Sequence[str]) -> list[Row]:
        """What runs corrected of some records, oldest first, each with the run's ``reason``, ``kind`` and ``at``."""
        ...

    def adjusted_accounts(self) -> dict[str, int]:
        """Account → the sum of its postings that correct; they are part of all its postings."""
        ...

    def adjusted_runs(self) -> dict[str, tuple[int, int]]:
        """Run → what its transfers debited payers, and what they credited providers."""
        ...

    # -- proof and care ----------------------------------------------------------------------------------------------
    def totals(self) -> Row:
        """``requests postings held unknown sum open rollup_cost request_cost posted`` over everything."""
        ...

    def outbox_backlog(self) -> int:
        """How many facts wait to be copied outward."""
        ...

    def postings(self, after: int = 0, limit: int = 10_000) -> Iterator[Row]:
        """Ledger postings in order."""
        ...

    def keep_trail(self, told: TrailMark) -> None:
        """Chain lines of the trail of changes that no change of the books goes with."""
        ...

    def trail_marks(self, after: int = 0, limit: int = 10_000) -> list[TrailMark]:
        """What the chain knows of the trail of changes, in the order of its lines, beyond line ``after``."""
        ...

    def trail_lines(self) -> int:
        """How many lines of the trail of changes the chain covers."""
        ...

    def chain_head(self) -> ChainHead:
        """The newest entry of the chain."""
        ...

    def prove(self, on_progress: Callable[[int, int], None], anchor: str = "") -> Proof:
        """Follow the chain from its first entry to its newest, beside whoever writes; takes its time.

        ``on_progress`` is told how many rows were looked at, and of how many. With an ``anchor``, the hash of an entry,
        it is a fault if no entry has it.
        """
        ...

    def backup(self, file: str) -> None:
        """Write a consistent copy while in use.

        Raises:
            Failed: it could not be written whole; no partial file is left.
        """
        ...

    def is_backup(self, file: str) -> bool:
        """Whether a file is a backup of Faregate, of any version; neither a folder nor a device is opened for that."""
        ...

    def close(self) -> None:
        """Give the database back."""
        ...


class CredentialState(NamedTuple):
    """How the credential of a provider stands that is fetched and renewed."""

    provider: str
    #: There is one that may be used now.
    usable: bool
    #: Nanoseconds since 1970 UTC; 0 where it does not end by itself, or there is none.
    expires_at: int
    #: Why the last try failed, as the end of a sentence; empty where it did not.
    trouble: str
    renewals: int
    failures: int


class Tried(NamedTuple):
    """How the trial of a provider went: ``detail`` is a sentence, ``status`` 0 where nobody answered."""

    ok: bool
    detail: str
    status: int = 0
    #: How many models it listed.
    models: int = 0
    milliseconds: int = 0


class StoredAnswer(NamedTuple):
    """An answer kept for replay under its ``Idempotency-Key``; ``head`` holds its header lines, ``body`` its bytes."""

    status: int
    head: bytes
    body: bytes


class IdempotentCall(NamedTuple):
    """What is known of a call that came with an ``Idempotency-Key``.

    ``state`` is ``in_flight``, ``completed`` (its answer is not kept) or ``kept``.
    """

    digest: bytes
    request_id: str
    state: str


class AnswerStore(Protocol):
    """Remembers calls by (key id, ``Idempotency-Key``) for a day, across restarts, so that none is sent twice."""

    def find(self, key: str, name: str) -> IdempotentCall | None:
        """What is known of this call."""
        ...

    def answer(self, key: str, name: str) -> StoredAnswer | None:
        """The kept answer, read back from the file; ``None`` where it can no longer be read."""
        ...

    def begin(self, key: str, name: str, digest: bytes, request_id: str) -> None:
        """A call with this name is under way; in memory only, because nothing was sent yet."""
        ...

    def dispatched(self, key: str, name: str, at: int) -> None:
        """It is about to be sent: from here on a crash leaves it ``completed``."""
        ...

    def forget(self, key: str, name: str) -> None:
        """It ended without being sent."""
        ...

    def finish(self, key: str, name: str, at: int, answer: StoredAnswer | None) -> None:
        """It ended; ``None`` where the answer is too large to keep."""
        ...

    def expire(self, now: int) -> None:
        """Drop what is older than a day."""
        ...


class CachedAnswer(NamedTuple):
    """An answer that may be given again to the same call."""

    content_type: bytes
    body: bytes
    #: Nano-dollars that it cost when it was made.
    saved_cost: int
    made_at: int
    expires_at: int
    #: The request whose answer it was.
    request_id: str
    answered_model: str
    labels: CacheLabels


class Later(enum.Enum):
    """A store that has to ask elsewhere first."""

    ASKED = "asked"


#: What a store was found to hold, told on the loop that asked, exactly once and within the store's own deadline.
TellFound = Callable[[CachedAnswer | None], None]


class ResponseStore(Protocol):
    """Kept answers of one gate or of many. It loses what it likes at any time; it never raises and never waits.

    Owned by one event loop; all times are nanoseconds since 1970 UTC.
    """

    def find(self, key: bytes, now: int, then: TellFound) -> CachedAnswer | Later | None:
        """The answer that is kept for a key and has not expired, if that is known at once; else ``then`` is told."""
        ...

    def keep(self, key: bytes, answer: CachedAnswer, now: int) -> None:
        """Keep an answer until it expires, where there is room; an earlier one of the same key is forgotten."""
        ...

    def flush(self, wanted: CacheLabels, then: Callable[[int, str], None]) -> None:
        """Forget all that fit ``wanted``; tells how many, and a sentence why some may be left, empty where none are."""
        ...

    def samples(self) -> Sequence[tuple[str, int]]:
        """Figures by name, such as ``("faregate_cache_entries", 12)``."""
        ...

    def close(self) -> None:
        """Let go of files and connections; what was asked is not told any more."""
        ...


class Owner(NamedTuple):
    """To whom an object belongs: the payers of the call that made it."""

    organization: str
    team: str = ""
    project: str = ""


class KeptObject(NamedTuple):
    """An object that a provider keeps, and whose it is."""

    id: str
    #: ``response``, ``file`` or ``batch``.
    kind: str
    owner: Owner
    provider: str
    #: Where it was made, and the model as its caller named it; both may be empty.
    deployment: str
    model: str
    #: The call that made it.
    request_id: str
    #: Nanoseconds since 1970 UTC.
    made_at: int
    #: What its dialect wants to know of it later.
    facts: bytes = b""


class ObjectStore(Protocol):
    """Remembers whose the objects are that providers keep, across restarts; a stranger's is as one never made."""

    def find(self, owner: Owner, id: str) -> KeptObject | None:
        """The object of this id, if it is this owner's."""
        ...

    def owns(self, owner: Owner, id: str) -> bool:
        """Whether it is this owner's, without reading what is known of it."""
        ...

    def keep(self, kept: KeptObject) -> None:
        """Remember it. When it returns, a crash of this process cannot lose it; a full disk leaves it in memory."""
        ...

    def forget(self, owner: Owner, id: str) -> None:
        """It is gone at the provider."""
        ...

    def sync(self) -> None:
        """Bring what was written to stable storage. May be called from another thread."""
        ...

    def expire(self, now: int) -> None:
        """Drop what no provider keeps any more."""
        ...


class KeptText(NamedTuple):
    """A prompt or an answer as it is kept: its beginning, and how much there was of it."""

    text: str = ""
    #: Of the readable text, before anything was left out.
    characters: int = 0
    #: Of the body that it was read from.
    bytes: int = 0
    #: ``text`` is not all of it.
    truncated: bool = False


class ContentRecord(NamedTuple):
    """What is kept of one call beside its record in the books."""

    #: The request's.
    id: str
    #: Nanoseconds since 1970 UTC.
    at: int
    #: ``metadata`` or ``full``.
    kept: str
    stream: bool
    http_status: int
    code: str
    prompt: KeptText = KeptText()
    answer: KeptText = KeptText()
    #: ``(rule, action, where, count)`` of what was found; where is ``request`` for what was sent, ``prompt`` and
    #: ``answer`` for what is kept.
    found: tuple[tuple[str, str, str, int], ...] = ()


class ContentWriter(Protocol):
    """Where the gate leaves contents for the console to fetch. Used by one thread, never by the loop."""

    def append(self, record: ContentRecord) -> bool:
        """Leave one; false where it could not be written, and is lost."""
        ...

    def hand_over(self) -> None:
        """Let what was left be fetched. Cheap where there is nothing."""
        ...

    def close(self) -> None:
        """Hand over, and write no more."""
        ...


class Contents(Protocol):
    """Prompts and answers, apart from the books; each method is a transaction and raises ``Unavailable``."""

    def get(self, id: str) -> ContentRecord | None:
        """What is kept of a request."""
        ...

    def remove(self, id: str) -> bool:
        """Forget what is kept of a request, for good; false where nothing was."""
        ...

    def newest(self, before: str, limit: int, since: int = 0, until: int = 0) -> list[ContentRecord]:
        """Those before an id (all, where it is empty), the newest first."""
        ...

    def containing(self, text: str, before: str, among: int, since: int = 0, until: int = 0) -> tuple[list[str], str]:
        """Ids of the newest before an id whose prompt or answer holds a text, and the last id that was looked at.

        So many are looked at; the last id is empty where there are no more. The case of ASCII letters is nothing.
        """
        ...
