"""What the console and the gate say to each other over the Unix socket in the data folder.

Messages are JSON objects, one a line, each at most ``LINE_BYTES_MAX`` bytes. The console connects and asks; the gate
answers every ``Ask`` with one ``Answer`` of the same ``n``, in order. The console is the only writer of the books, the
gate the only writer of the journal; this is how the first one's changes reach the second one's memory:

1. ``Load`` carries what changed since the last one (or everything, ``full``). The gate swaps its snapshot whole and
   answers ``Loaded`` with its journal position and the ids of limits whose balance it does not know: these admit
   nothing yet.
2. The console projects the journal up to that position, reads those limits' balances and sends ``Opening``.
3. From then on the gate counts for itself.

It is one file of some six hundred lines, because it is a protocol: both sides are read against all of it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import NOT_AWAITED, Awaited
from faregate.core.limits.habits import Habit, Trip
from faregate.core.limits.index import CompiledLimit
from faregate.core.limits.terms import PLAIN, Terms
from faregate.core.metering.service import ServiceTerms
from faregate.core.pricing.card import RateCard
from faregate.core.pricing.charging import ChargeRule
from faregate.core.restrictions import NOT_RESTRICTED, Restrictions
from faregate.core.routing.choose import PoolRule
from faregate.core.routing.health import DEFAULT_BREAKER, BreakerRule
from faregate.core.routing.retry import RetryRule
from faregate.core.tokens import Identity
from faregate.core.usage import Usage

#: A full load of 100,000 keys stays below it; longer lines end the connection.
LINE_BYTES_MAX = 256 * 1024 * 1024

#: Keys of one issuer that are taken; real ones publish fewer than ten.
ISSUER_KEYS_MAX = 64

#: Shorter texts would also mask what is no credential.
_MASKED_CHARACTERS_MIN = 8


class Key(msgspec.Struct, frozen=True, array_like=True):
    """A gateway key as the gate sees it: never the secret, only HMAC-SHA256 digests of it in hex."""

    id: str
    name: str
    #: digest → nanoseconds since 1970 after which it no longer opens (0: never); two while a rotation's grace runs.
    digests: dict[str, int]
    organization: str
    team: str = ""
    project: str = ""
    user: str = ""
    product: str = ""
    stage: str = ""
    role: str = "caller"
    #: ``active``, ``disabled`` or ``revoked``.
    state: str = "active"
    expires_at: int = 0
    #: Allowed model names and operations; ``None`` allows all.
    models: tuple[str, ...] | None = None
    operations: tuple[str, ...] | None = None
    #: What a request may say about itself: ``user``, ``tags``, ``run``, ``project``, ``stage``.
    may_set: tuple[str, ...] = ("user", "tags", "run")
    last4: str = ""
    #: Id of the subscription that it belongs to, empty for none.
    subscription: str = ""
    #: Networks that it may be used from, and beginnings of paths that it may call; ``None`` allows all.
    networks: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    #: What is kept of its calls' contents: ``off``, ``metadata`` or ``full``; empty as the configuration says.
    content: str = ""
    #: Whether its calls use the response cache: ``on`` or ``off``; empty where it says nothing.
    cache: str = ""
    #: Ranges of ``Priority`` that it may use, such as ``101-1000``; ``None`` allows all.
    priorities: tuple[str, ...] | None = None


class PayerRule(msgspec.Struct, frozen=True, array_like=True):
    """What a product or a user restricts whoever names it to."""

    kind: str
    organization: str
    name: str
    restrictions: Restrictions = NOT_RESTRICTED
    #: What is kept of contents, as a key's own.
    content: str = ""

    @property
    def place(self) -> tuple[str, str, str]:
        """By which it is found."""
        return self.kind, self.organization, self.name

    @property
    def restricts(self) -> bool:
        """Whether it has a word to say."""
        return bool(self.content) or self.restrictions != NOT_RESTRICTED


def restricted(key: Key, rules: Mapping[tuple[str, str, str], PayerRule]) -> Key:
    """A key as far as its product and its user allow, too."""
    for payer in (("product", key.organization, key.product), ("user", key.organization, key.user)):
        rule = rules.get(payer)
        if rule is not None:
            own = Restrictions(key.models, key.operations, key.paths, key.networks, key.expires_at, key.priorities)
            met = own.met_by(rule.restrictions)._asdict()
            # Its own word about contents goes before that of its payers.
            key = msgspec.structs.replace(key, content=key.content or rule.content, **met)
    return key


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """A limit as the gate enforces it; ``amount`` ``None`` is unlimited, 0 admits nothing."""

    id: str
    selector: dict[str, str]
    each: tuple[str, ...]
    unit: str
    amount: int | None
    #: ``second`` … ``year``, ``lifetime``, or empty for concurrency.
    window: str
    timezone: str = "UTC"
    mode: str = "hard"
    contact: str = ""
    #: Where a caller without an output cap may be given one that fits (RULINGS 8); a cap given by the caller never is.
    clamp: bool = False
    terms: Terms = PLAIN


def compiled(limit: Limit) -> CompiledLimit:
    """A limit as the core admits by it.

    Raises:
        KeyError: an unknown time zone.
    """
    return CompiledLimit(
        id=limit.id,
        selector=limit.selector,
        each=limit.each,
        unit=limit.unit,
        amount=limit.amount,
        window=limit.window,
        zone=ZoneInfo(limit.timezone) if limit.timezone not in ("", "UTC") else None,
        mode=limit.mode,
        contact=limit.contact,
        clamp=limit.clamp,
        terms=limit.terms,
    )


class Provider(msgspec.Struct, frozen=True):
    """One account at one model service."""

    name: str
    kind: str
    base_url: str
    #: Ready-made credential headers, such as ``{"authorization": "Bearer …"}``.
    credential: dict[str, str]
    api_version: str = ""
    #: When the client goes away: ``drain``, ``estimate`` or ``no_bill``; empty means the rule of RULINGS 12.
    client_gone: str = ""
    #: Ask for the usage event of streams (off for servers that refuse the option).
    stream_usage: bool = True
    #: Path that answers what became of a request id, empty where the provider cannot be asked.
    lookup: str = ""
    connect_timeout_ms: int = 5_000
    first_byte_timeout_ms: int = 60_000
    idle_timeout_ms: int = 60_000
    total_timeout_ms: int = 600_000
    ca_file: str = ""
    #: HTTP proxy for this provider as ``http://[user:password@]host:port``, empty for none.
    proxy: str = ""
    connections_max: int = 2_000
    #: Texts masked in bodies that the provider sends back (its credential, organization ids).
    masked: tuple[str, ...] = ()
    #: Its credential is not above: it comes with ``Credentials``, again and again, and calls wait for the first one.
    renewed: bool = False
    #: Where its name may lead when a connection is made, a key of ``dialects.urls.REACHES``; empty for anywhere.
    reach: str = ""


def masked_of(secret: str) -> tuple[str, ...]:
    """What of a secret is masked in bodies that come back."""
    return (secret,) if len(secret) >= _MASKED_CHARACTERS_MIN else ()


class Credential(msgspec.Struct, frozen=True, array_like=True):
    """What proves the gate to one provider until a moment."""

    provider: str
    #: It goes nowhere else: a provider that has moved meanwhile waits for another one.
    base_url: str
    #: Ready-made credential headers, as those of a provider.
    headers: dict[str, str]
    masked: tuple[str, ...] = ()
    #: Nanoseconds since 1970 UTC; 0 where it does not end by itself.
    expires_at: int = 0

    def __repr__(self) -> str:
        return f"Credential({self.provider!r}, expires_at={self.expires_at})"


class Deployment(msgspec.Struct, frozen=True):
    """One place to send a call to."""

    name: str
    provider: str
    #: What the provider calls it: the model in the body, or the segment of an Azure path.
    upstream_model: str
    #: The model it is priced as.
    model: str
    #: Successive rate cards, by time; empty means that its price is unknown.
    cards: tuple[RateCard, ...] = ()
    #: Most output tokens one choice can have, 0 where it is not known.
    output_tokens_max: int = 0
    #: Context window in tokens, 0 where it is not known.
    context_tokens_max: int = 0
    #: ``max_completion_tokens`` where the model knows it, else ``max_tokens``.
    cap_field: str = "max_tokens"
    #: Tokenizer encoding, empty where none is known.
    encoding: str = ""
    operations: tuple[str, ...] = ()
    #: Of a service behind the gate, which no model name leads to; ``None`` for all others.
    service: ServiceTerms | None = None
    #: It is known to think before it answers, in tokens that are billed and not shown.
    reasons: bool = False


class Selection(NamedTuple):
    """Callers for whom a name leads elsewhere: all of ``who`` must hold, as ``(field, value)`` of a caller."""

    who: tuple[tuple[str, str], ...]
    #: Names of pools and deployments, in order.
    steps: tuple[str, ...]


class Mirror(NamedTuple):
    """The deployment that a share of a name's calls is copied to."""

    to: str
    percent: int


class Route(msgspec.Struct, frozen=True):
    """A model name that callers may use, and every deployment that it may go to."""

    model: str
    to: tuple[str, ...]
    #: Names of pools and deployments in the order in which they are used, where that is not just ``to``.
    steps: tuple[str, ...] = ()
    #: The first that fits a caller goes before ``steps``.
    selected: tuple[Selection, ...] = ()
    #: Longest time of a whole answer, 0 where only providers say.
    timeout_ms: int = 0
    mirror: Mirror | None = None


class RoutedPool(msgspec.Struct, frozen=True):
    """Deployments that stand in for each other, and when one of them rests."""

    rule: PoolRule
    breaker: BreakerRule = DEFAULT_BREAKER
    #: ``None`` where it is as for all.
    retry: RetryRule | None = None


class Catalogue(msgspec.Struct, frozen=True):
    """Everything that decides where a call may go and what it costs."""

    providers: tuple[Provider, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    routes: tuple[Route, ...] = ()
    #: Stage → names of the providers it may use; a stage that is not named may use all.
    stages: dict[str, tuple[str, ...]] = {}
    projects: tuple[str, ...] = ()
    require_limit: bool = False
    #: Stages whose callers need a money limit though others do not.
    require_limit_stages: tuple[str, ...] = ()
    #: What payers are charged, where that is not the cost: the first rule that matches a call.
    charges: tuple[ChargeRule, ...] = ()
    #: Callers without keys, and whom callers act for; ``None`` where nothing of it is configured.
    identity: Identity | None = None
    #: ``(organization, name, team)`` of every project; without a team where it was put into none. Empty where nobody
    #: told whose the projects are.
    project_teams: tuple[tuple[str, str, str], ...] = ()
    pools: tuple[RoutedPool, ...] = ()
    #: Of deployments in no pool.
    breaker: BreakerRule = DEFAULT_BREAKER
    #: Of all calls along pools that have no rule of their own; ``None`` tries each place once.
    retry: RetryRule | None = None
    #: Projects and stages that say whether their calls use the response cache, and what: ``(kind, organization, name,
    #: word)``. A stage of the configuration file is of no organization, and means everybody's.
    caching: tuple[tuple[str, str, str, str], ...] = ()
    #: ``(organization, name)`` of stages that were made beside those of the configuration.
    stage_names: tuple[tuple[str, str], ...] = ()


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Rows that changed, up to change ``sequence``; ``full`` replaces everything the gate had."""

    sequence: int
    full: bool = False
    keys: tuple[Key, ...] = ()
    keys_removed: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    limits_removed: tuple[str, ...] = ()
    catalogue: Catalogue | None = None
    #: ``(kind, organization, name)`` of every payer whose keys are stopped, of a subscription its id; ``None`` where
    #: nothing of it changed.
    halted: tuple[tuple[str, str, str], ...] | None = None
    #: Products and users that restrict otherwise than before, as they do now, for callers whose keys nobody stored:
    #: what is stored comes restricted.
    restricting: tuple[PayerRule, ...] = ()


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The gate works from ``sequence`` now; ``pending`` limits wait for their balance as of ``position``."""

    sequence: int
    position: int
    epoch: int
    pending: tuple[str, ...] = ()


class Balance(msgspec.Struct, frozen=True, array_like=True):
    """What a limit has posted for one subject in the window that holds ``window_start``."""

    limit: str
    subject: tuple[str, ...]
    window_start: int
    posted: int


class Unknown(msgspec.Struct, frozen=True, array_like=True):
    """An exchange whose outcome is not known, or not yet: its money stays held."""

    id: str
    who: Attribution
    held: Amounts
    admitted_at: int
    dispatched_at: int
    price_version: str
    deployment: str = ""
    output_tokens_seen: int = 0
    input_tokens_bound: int = 0
    #: As its intent was journalled with.
    charge_rule: str = ""
    #: Where its end will be told, when the provider only accepted the work.
    awaited: Awaited = NOT_AWAITED
    #: The id by which its provider knows it, where that is not its own.
    asked_as: str = ""


class Opening(msgspec.Struct, frozen=True, tag="opening"):
    """Balances of pending limits as of journal ``position``, and (``first`` only) the unknowns of older epochs."""

    position: int
    limits: tuple[str, ...]
    balances: tuple[Balance, ...]
    first: bool = False
    unknowns: tuple[Unknown, ...] = ()


class Projected(msgspec.Struct, frozen=True, tag="projected"):
    """The books hold the journal up to ``position``: the gate measures its backlog from there."""

    position: int


class Credentials(msgspec.Struct, frozen=True, tag="credentials"):
    """What proves the gate to providers from now on; those that are not named keep what they have."""

    credentials: tuple[Credential, ...]


class AskFigures(msgspec.Struct, frozen=True, tag="ask_figures"):
    """Ask for live figures."""


class AskAllowances(msgspec.Struct, frozen=True, tag="ask_allowances"):
    """Ask for the live allowances of some limits (all, when empty)."""

    limits: tuple[str, ...] = ()


class Resolve(msgspec.Struct, frozen=True, tag="resolve"):
    """End an unknown exchange: the gate journals it as ``Settled``.

    ``price_version`` is that of the rate card it was priced with, where that is not the one of its intent.
    """

    id: str
    status: str
    resolution: str
    usage: Usage
    usage_source: str
    cost: int
    charge: int
    provider_request_id: str = ""
    answered_model: str = ""
    price_version: str = ""


class Report(msgspec.Struct, frozen=True, tag="report"):
    """Book a call that went past the gate: it journals it as intended and settled, and counts it on every limit.

    It counts beyond an amount, too, because it has happened. ``id`` names the call for good, so that booking it again
    changes nothing; ``also`` are other ids that the same call may have been booked under.
    """

    id: str
    who: Attribution
    usage: Usage
    usage_source: str
    cost: int
    charge: int
    price_version: str
    charge_rule: str = ""
    answered_model: str = ""
    provider_request_id: str = ""
    stream: bool = False
    #: What the reporter calls the call, kept as its idempotency key.
    reference: str = ""
    #: A unit that was used and has no price, empty where there is none: an alarm counts it.
    unpriced: str = ""
    also: tuple[str, ...] = ()
    #: The journal position up to which the books were looked through for it.
    looked_to: int = 0


class Reported(msgspec.Struct, frozen=True, tag="reported"):
    """What became of a report: ``changed`` where it was booked now, ``same`` where what was booked before is the same.

    ``refused`` is a sentence that says why it could not be booked; empty where it could.
    """

    changed: bool = True
    same: bool = True
    refused: str = ""


class AskBrakes(msgspec.Struct, frozen=True, tag="ask_brakes"):
    """Ask which keys tripped the anomaly brake, and whose past the gate wants to know."""


class Habits(msgspec.Struct, frozen=True, tag="habits"):
    """What the books say of the past of some keys; ``taken`` trips, by key and moment, are limits by now."""

    habits: tuple[Habit, ...]
    taken: tuple[tuple[str, int], ...] = ()


class FlushCache(msgspec.Struct, frozen=True, tag="flush_cache"):
    """Begin to forget kept answers that have all of these labels; empty ones stand for all."""

    organization: str = ""
    stage: str = ""
    project: str = ""
    key: str = ""
    model: str = ""


class AskFlush(msgspec.Struct, frozen=True, tag="ask_flush"):
    """Ask how far a flush has come; only the newest few are remembered."""

    number: int


class Flush(msgspec.Struct, frozen=True, tag="flush"):
    """A flush that was begun. Once it is ``done`` no such answer is given again, but for what ``trouble`` says."""

    number: int
    done: bool = False
    removed: int = 0
    #: Why not everything could be looked at; empty where all is well.
    trouble: str = ""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Stop accepting; let what runs finish."""


class Reconfigure(msgspec.Struct, frozen=True, tag="reconfigure"):
    """Work by other settings and another catalogue from now on: by both, or by neither and with ``Trouble`` told."""

    #: ``GateSettings`` as JSON.
    settings: msgspec.Raw
    catalogue: Catalogue | None = None


class Done(msgspec.Struct, frozen=True, tag="done"):
    """It was done; ``changed`` is false where it had been done before."""

    changed: bool = True


class Trouble(msgspec.Struct, frozen=True, tag="trouble"):
    """It could not be done."""

    message: str


class AllowanceView(msgspec.Struct, frozen=True, array_like=True):
    """One allowance at this moment; times in nanoseconds since 1970, ``resets_at`` 0 where the window has no end."""

    limit: str
    subject: tuple[str, ...]
    posted: int
    held: int
    window_start: int
    resets_at: int
    #: The amount in force, what was carried over included; -1 for unlimited.
    amount: int = -1


class Allowances(msgspec.Struct, frozen=True, tag="allowances"):
    """Answer to ``AskAllowances``."""

    allowances: tuple[AllowanceView, ...]
    pending: tuple[str, ...] = ()


class Brakes(msgspec.Struct, frozen=True, tag="brakes"):
    """Answer to ``AskBrakes``: trips stay in it until they are ``taken``, keys until their habits were told."""

    trips: tuple[Trip, ...] = ()
    wanted: tuple[str, ...] = ()
    in_force: int = 0


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One metric sample: a counter or gauge with its labels."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: int


class Histogram(msgspec.Struct, frozen=True, array_like=True):
    """One histogram: cumulative counts by upper bound in microseconds, their sum in microseconds and total count."""

    name: str
    labels: tuple[tuple[str, str], ...]
    buckets: tuple[tuple[int, int], ...]
    sum_us: int
    count: int


class RestingDeployment(msgspec.Struct, frozen=True, array_like=True):
    """A deployment whose breaker is not closed."""

    name: str
    #: ``open`` or ``probing``.
    state: str
    #: Milliseconds until it may be tried again.
    wait_ms: int = 0


class Figures(msgspec.Struct, frozen=True, tag="figures"):
    """The gate at this moment."""

    ready: bool
    draining: bool
    epoch: int
    position: int
    projected: int
    sequence: int
    open_exchanges: int
    held_nanos: int
    unknown_count: int
    unknown_nanos: int
    connections: int
    samples: tuple[Sample, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    #: Accepted work that goes on; it is not among the unknown.
    pending_count: int = 0
    pending_nanos: int = 0
    #: Keys that the anomaly brake holds.
    braked_keys: int = 0
    #: Calls are taken though the books do not follow.
    failing_open: bool = False
    #: Deployments that take no calls, or only one that tries whether they are well again.
    resting: tuple[RestingDeployment, ...] = ()


class IssuerKeys(msgspec.Struct, frozen=True, array_like=True):
    """The public keys that an issuer of tokens published at a moment, in nanoseconds since 1970 UTC."""

    issuer: str
    #: As JWK have them (RFC 7517 section 4).
    keys: tuple[dict[str, Any], ...]
    fetched_at: int


class TellIssuerKeys(msgspec.Struct, frozen=True, tag="tell_issuer_keys"):
    """Keys of issuers, and which issuers were looked at, with whatever result; the answer says which are wanted."""

    sets: tuple[IssuerKeys, ...] = ()
    answered: tuple[str, ...] = ()


class WantedIssuerKeys(msgspec.Struct, frozen=True, tag="wanted_issuer_keys"):
    """Names of issuers: tokens name an ``unknown`` key of these, and of those all keys are ``missing``."""

    unknown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


Question = (
    Load
    | Opening
    | Projected
    | Credentials
    | AskFigures
    | AskAllowances
    | Resolve
    | Report
    | AskBrakes
    | Habits
    | Drain
    | TellIssuerKeys
    | Reconfigure
    | FlushCache
    | AskFlush
)
Reply = Loaded | Done | Trouble | Allowances | Figures | Reported | Brakes | WantedIssuerKeys | Flush


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """One line from the console."""

    n: int
    body: Question


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """One line from the gate."""

    n: int
    body: Reply


encode = msgspec.json.Encoder().encode
decode_ask = msgspec.json.Decoder(Ask).decode
decode_answer = msgspec.json.Decoder(Answer).decode
