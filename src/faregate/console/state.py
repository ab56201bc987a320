"""What the console is made of: its collaborators, passed in once, and what they must be able to do.

Only ``assembly`` knows the concrete ones. Nothing here is a global, so two consoles can live in one process.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple, Protocol

from faregate.config.findings import Finding
from faregate.config.schema import AzureBudget
from faregate.config.secret_box import SecretBox, box_of
from faregate.console.accounts import KeyRing
from faregate.console.audit import AuditTrail
from faregate.console.running import Runs
from faregate.console.sessions import Sessions
from faregate.console.turns import Turns
from faregate.console.verifying import Verifying
from faregate.control import Allowances, Catalogue, Figures, Flush, FlushCache, Report, Reported, Resolve
from faregate.core.access import LOCAL, Principal
from faregate.core.alerts import AddressFault
from faregate.core.pricing.listing import BundledList, Explanation, PriceFile
from faregate.ports import (
    NO_PLACES,
    Books,
    Clock,
    Contents,
    CredentialState,
    JournalReader,
    MadePlaces,
    Row,
    Tokenizer,
    Tried,
)

#: Each looks for less than a millisecond; more would only wait for the books.
AT_ONCE_THREADS: Final = 4


class CompileCatalogue(Protocol):
    """Makes everything that decides where a call may go and what it costs."""

    def __call__(
        self, price_rows: Sequence[Row], projects: Sequence[str], made: MadePlaces = NO_PLACES, /
    ) -> Catalogue:
        """The catalogue by own price rows, names of declared projects, and what the API made of providers."""
        ...


class PriceBook(Protocol):
    """What is known of prices beside those in force: how files of them are read, and where a price comes from."""

    def read(self, text: str, name: str, format: str) -> PriceFile:
        """The prices of a file's ``text``; ``name`` is what its places are called after.

        Raises:
            ValueError: there is no such ``format``; the message names those that there are.
        """
        ...

    def explain(
        self,
        prices: Sequence[Row],
        projects: Sequence[str],
        provider: str,
        model: str,
        at: int,
        made: MadePlaces = NO_PLACES,
    ) -> Sequence[Explanation]:
        """What ``model`` costs ``at`` a moment, at one provider or, with an empty name, at each that has it."""
        ...

    def bundled(self, made: MadePlaces = NO_PLACES) -> BundledList:
        """The list prices that ship with this version, of the kinds of providers that are declared or were made."""
        ...


class Projector(Protocol):
    """The thread that copies the journal into the books, as far as the console speaks to it."""

    def paused(self) -> AbstractContextManager[object]:
        """No batch is projected while this is held; entering waits for the batch that runs.

        It may be left by another thread than the one that entered it.
        """
        ...

    @property
    def trouble(self) -> str:
        """Why projection does not go on, as a sentence; empty while all is well."""
        ...


class Gate(Protocol):
    """The gate as the rest of the console sees it; every method raises ``Unavailable`` where it does not answer."""

    @property
    def connected(self) -> bool:
        """Whether the gate is there and works from what the console sent."""
        ...

    def nudge(self) -> None:
        """Look at the change feed now. May be called from any thread."""
        ...

    async def applied(self, within_s: float) -> bool:
        """Whether the gate works from every change made so far; waits at most ``within_s`` seconds for it."""
        ...

    async def figures(self) -> Figures:
        """Live figures."""
        ...

    async def allowances(self, limits: tuple[str, ...] = ()) -> Allowances:
        """Live allowances of some limits, all when empty."""
        ...

    async def resolve(self, order: Resolve) -> bool:
        """End an unknown exchange; false where it had ended before."""
        ...

    async def report(self, order: Report) -> Reported:
        """Book a call that went past the gate, once; ``Reported.refused`` says why it could not be."""
        ...

    async def flush_cache(self, order: FlushCache) -> Flush:
        """Have kept answers forgotten; how far that has come once it is done, or has taken too long."""
        ...

    async def drain(self) -> None:
        """Stop accepting."""
        ...


#: Kind of channel and its address → what is wrong with it. It may look names up, so it runs in a thread.
CheckAddress = Callable[[str, str], AddressFault | None]


class Reread(NamedTuple):
    """What became of reading the configuration again; ``code`` is empty where it is in force."""

    code: str = ""
    #: Why it is not, as a sentence, and each problem of the file.
    message: str = ""
    problems: tuple[Finding, ...] = ()
    #: Keys that changed and wait for a restart.
    restart: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Check(NamedTuple):
    """One thing that ``verify`` looked at."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True)
class Secrets:
    """What the console signs and digests with; never shown, logged or sent anywhere."""

    #: ``(id, key in hex)``; the first makes new digests, all are tried.
    peppers: tuple[tuple[str, str], ...]
    #: Signs cursors.
    session: bytes
    #: Tells this installation from others, and ``(id, key in base64)`` of what secrets in the books are sealed with:
    #: the first seals, all open. Without any no secret can be kept in the books.
    installation: str = ""
    encryption: tuple[tuple[str, str], ...] = ()

    @property
    def pepper_keys(self) -> tuple[bytes, ...]:
        """The peppers' bytes, the one for new digests first."""
        return tuple(bytes.fromhex(key) for _, key in self.peppers)


class CacheFacts(NamedTuple):
    """What the configuration says of the response cache."""

    enabled: bool = False
    store: str = "embedded"
    default: str = "off"
    ttl_seconds: int = 0
    share: str = "project"


_NO_CACHE: Final = CacheFacts()


@dataclass(frozen=True)
class Facts:
    """Facts of the configuration that the console shows or needs."""

    version: str
    data_dir: str
    gateway_url: str = ""
    #: Whether the console's own listener speaks TLS: cookies are marked ``Secure`` then, whatever a proxy says.
    tls: bool = False
    #: Whether the configuration says that a reverse proxy stands in front: no peer is taken for local then.
    behind_proxy: bool = False
    #: Label sets per metric beyond which the rest is counted as ``other``.
    label_sets_max: int = 500
    #: What the gate goes by for callers without an output cap, and for addresses in requests; quotes tell the same.
    default_output_tokens: int = 4_096
    min_answer_tokens: int = 256
    forbid_private_urls: bool = True
    #: Names of the answers that limits may choose; ``None`` where the configuration is not known.
    denials: frozenset[str] | None = None
    #: Networks of reverse proxies whose X-Forwarded-For is believed where a key is restricted to networks.
    trusted_proxies: tuple[str, ...] = ()
    #: Name and port of each listener of this installation, and the largest body that its gateway takes at all.
    listeners: tuple[tuple[str, int], ...] = ()
    body_bytes_max: int = 10 * 1024**2
    #: Keys and products may say that contents are kept, as it is known for how long.
    keeps_contents: bool = False
    cache: CacheFacts = _NO_CACHE


@dataclass(frozen=True)
class Console:
    """Everything an endpoint may use."""

    #: As whoever asks sees them: of a principal with a scope, what lies outside is as absent.
    books: Books
    journal: JournalReader
    clock: Clock
    #: Prefix such as ``key_`` → a new sortable id.
    new_id: Callable[[str], str]
    #: Count → so many random bytes.
    random: Callable[[int], bytes]
    secrets: Secrets
    compile_catalogue: CompileCatalogue
    facts: Facts
    #: ``None`` where no gate runs, as for a command on a stopped installation.
    gate: Gate | None = None
    #: ``None`` where nothing projects, as above.
    projector: Projector | None = None
    #: Compares the books with the journal; slow, so it runs in a thread.
    check_journal: Callable[[], Sequence[Check]] | None = None
    #: ``None`` where nobody counts tokens: quotes are bounded by length then, and the tokenizer service is away.
    tokenizer: Tokenizer | None = None
    #: ``None`` where no configuration is there to tell the providers.
    price_book: PriceBook | None = None
    #: Fixed capacities that the configuration file declares, as rows.
    capacities: Sequence[Row] = ()
    #: Where alerts go by the configuration file, as rows; their ids begin with ``file:``.
    channels: Sequence[Row] = ()
    #: How alerts of Azure's budgets are taken; ``None`` where their door is shut.
    azure_budget: AzureBudget | None = None
    #: ``None`` where nobody sends alerts.
    check_address: CheckAddress | None = None
    #: Providers, deployments, pools, names of models and services by the configuration, as rows; their ids begin with
    #: ``file:``.
    declared: MadePlaces = NO_PLACES
    #: Name of a provider → how a harmless question to it went; ``None`` where nobody can ask.
    try_provider: Callable[[str], Awaitable[Tried]] | None = None
    #: How the credentials of providers stand that are fetched and renewed.
    credentials: Callable[[], Sequence[CredentialState]] = tuple
    #: What was found wrong with the file of the books since it was opened, empty for nothing.
    damage: Callable[[], str] = str
    #: Reads the configuration again; ``None`` where nobody can.
    reread: Callable[[], Awaitable[Reread]] | None = None
    #: Prompts and answers that were kept; ``None`` where nobody knows where.
    contents: Contents | None = None
    #: Who asks. What the product does by itself, it does as whoever may do everything.
    principal: Principal = field(init=False, default=LOCAL)
    #: The books as they are, whoever asks: to find out whether a name is taken, or what decides for everybody. Nothing
    #: that is read from them is shown.
    all_books: Books = field(init=False)
    #: Seals and opens secrets in the books; ``None`` where there is no key for that.
    box: SecretBox | None = field(init=False)
    ring: KeyRing = field(init=False)
    sessions: Sessions = field(init=False)
    runs: Runs = field(init=False)
    audit: AuditTrail = field(init=False)
    #: Serialises every read-check-write of resources, because names and selectors are unique by rule.
    changing: Lock = field(init=False, default_factory=Lock)
    #: Who waits for that on behalf of a request.
    turns: Turns = field(init=False, default_factory=Turns)
    #: Threads for what must not wait for those who read: who asks, and whether all is well.
    at_once: ThreadPoolExecutor = field(
        init=False, default_factory=lambda: ThreadPoolExecutor(AT_ONCE_THREADS, "doors")
    )
    #: The same for alerts, which are raised in the middle of changes; nothing else is waited for while it is held.
    telling: Lock = field(init=False, default_factory=Lock)
    verifying: Verifying = field(init=False, default_factory=Verifying)
    #: Alerts raised since the start, by kind.
    alerts_raised: Counter[str] = field(init=False, default_factory=Counter)
    #: How often the configuration was read again since the start, by result.
    reloads: Counter[str] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        object.__setattr__(self, "all_books", self.books)
        secrets = self.secrets
        object.__setattr__(self, "box", box_of(secrets.installation, secrets.encryption, self.random))
        object.__setattr__(self, "ring", KeyRing(self.books, self.secrets.pepper_keys))
        object.__setattr__(self, "sessions", Sessions(self.random))
        object.__setattr__(self, "runs", Runs(self.clock))
        object.__setattr__(self, "audit", AuditTrail(Path(self.facts.data_dir)))

    def take_over(self, other: "Console") -> None:
        """Work by another configuration from now on; what was begun and counted, locks and sessions stay.

        It is the one moment at which a console changes: whoever serves by it need not be made anew. A request that
        runs may see one thing of before and one of now, as it may of any other change.
        """
        for each in fields(self):
            if (each.init and each.name not in _STAY) or each.name in ("box", "ring"):
                object.__setattr__(self, each.name, getattr(other, each.name))


#: Collaborators that no configuration changes.
_STAY: Final = frozenset({"books", "journal", "clock", "new_id", "random", "gate", "projector", "reread", "damage"})
