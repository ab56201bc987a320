"""The facts the gate journals, in the past tense. The books are a fold of them and of nothing else.

Life of one exchange: ``Intended`` (its hold is taken and the provider's connection is open) → any number of
``Progressed`` → one ``Settled`` (or ``Lost``, and a ``Settled`` later). Where it is tried at another place it is
``Redirected`` before that, once for each. A refusal is one ``Refused``. ``Started`` opens
an epoch: every exchange of an older epoch that has not ended is *unknown* from then on, until a ``Settled`` with a
``resolution`` ends it. An answer that is given again from the cache is one ``Recalled``, which stands for an
``Intended`` and its ``Settled``.

Field order is the journal's format: add fields at the end, with a default. Times are nanoseconds since 1970 UTC,
durations are microseconds, money is nano-dollars.
"""

from typing import NamedTuple

from faregate.core.amounts import NOTHING, Amounts
from faregate.core.attribution import Attribution
from faregate.core.usage import NO_USAGE, Usage

#: ``Settled.status`` and the ``status`` of a request record.
STATUSES = ("ok", "refused", "failed", "aborted", "cut", "unknown", "pending")

#: ``Settled.usage_source``: where the billed units came from.
USAGE_SOURCES = ("provider", "counted", "estimate", "provider_invalid", "none")

#: ``Settled.cache``: what the response cache did, where it was to be used.
CACHE_WORDS = ("hit", "miss", "refresh")

#: ``Settled.resolution``: how an unknown exchange was ended; empty for an ordinary end.
RESOLUTIONS = ("", "provider_said", "not_served", "charge_estimate", "operator_pays", "charge_max", "late_evidence")

#: The member of the notes of a copy that names the call which it copies.
MIRROR_OF = "mirror_of"


class Attempt(NamedTuple):
    """One try at one deployment."""

    deployment: str
    #: The provider's HTTP status, 0 where no answer came.
    http_status: int = 0
    #: Our code for what went wrong, empty when it went well.
    code: str = ""
    duration_us: int = 0


class Started(NamedTuple):
    """A gate process took the journal."""

    epoch: int
    at: int


class Intended(NamedTuple):
    """A hold was taken and the provider's connection is open: from here on the provider may bill."""

    id: str
    at: int
    #: When the hold was admitted: it decides the window the call is charged to.
    admitted_at: int
    who: Attribution
    held: Amounts
    price_version: str
    stream: bool
    #: Input tokens as bounded or counted before the call, for an estimate when the provider never answers.
    input_tokens_bound: int = 0
    idempotency_key: str = ""
    #: The largest output cap that was injected or lowered by the gate, 0 where the caller's own stands.
    clamped_to: int = 0
    #: How the charge will follow from the cost, as ``core.pricing.charging`` writes it; empty where it is the cost.
    charge_rule: str = ""
    #: JSON of what limits did to the call beside holding it, such as ``{"would_refuse": ["lim_…"]}``; mostly empty.
    notes: str = ""
    #: Which try at a provider this is, and the id by which the provider knows it; empty where that is ``id``.
    attempt: int = 1
    asked_as: str = ""


class Progressed(NamedTuple):
    """About once a second: what had been delivered so far, for an estimate should the process die.

    Also how a running stream says that it holds more from now on (docs/decisions/016).
    """

    id: str
    at: int
    output_tokens: int
    #: All that is held from now on, where that has grown; nothing where it has not.
    held: Amounts = NOTHING


class Awaited(NamedTuple):
    """Work that goes on at the provider after its answer: where its end will be told, and how that is priced."""

    #: The provider's id of the object to look at; empty where nothing is awaited.
    object_id: str = ""
    #: Version of the rate card by the service tier that may answer; any other has the price of the intent.
    tier_prices: tuple[tuple[str, str], ...] = ()
    #: What the dialect needs to read the end, in its own words.
    facts: bytes = b""


NOT_AWAITED = Awaited()


class Lost(NamedTuple):
    """The provider may have served a dispatched exchange, and its outcome was not learnt: it is *unknown* from now on.

    Its money stays held, in suspense, until a ``Settled`` with a ``resolution`` ends it; its concurrency slot is free.
    Where the provider only accepted the work, its outcome is ``awaited``, and the record says *pending*. A stream of
    such work is marked so from its first event on, and ends like any other where it comes to its end.
    """

    id: str
    at: int
    http_status: int
    code: str
    latency_us: int
    first_token_us: int = 0
    attempts: tuple[Attempt, ...] = ()
    #: Output tokens delivered to the caller, as far as they were counted.
    output_tokens: int = 0
    awaited: Awaited = NOT_AWAITED

    @property
    def status(self) -> str:
        """As the request record says it."""
        return "pending" if self.awaited.object_id else "unknown"


class Redirected(NamedTuple):
    """A dispatched exchange failed before its first byte and is sent elsewhere: what is held from now on, and where.

    All that it says replaces what the intent said. The try before cost nothing, or it is *left* behind as an exchange
    of its own: its provider may have billed it, and then the operator pays. Both are one record, so that no crash can
    come between them.
    """

    id: str
    at: int
    #: 2 for the second try at a provider.
    attempt: int
    admitted_at: int
    who: Attribution
    held: Amounts
    price_version: str
    input_tokens_bound: int = 0
    clamped_to: int = 0
    charge_rule: str = ""
    notes: str = ""
    left: Intended | None = None
    lost: Lost | None = None


def attempt_id(id: str, attempt: int) -> str:
    """The id of one try at a provider, under which the provider can be asked: that of the request for the first one."""
    return id if attempt <= 1 else f"{id}-{attempt}"


def left_id(id: str, attempt: int) -> str:
    """The id in the books of a try that was left behind."""
    return f"{id}-{attempt}"


def redirected(intent: Intended, event: Redirected) -> Intended:
    """The intent as it stands after a redirection; the same one where that is not newer."""
    if event.attempt <= intent.attempt:
        return intent
    return intent._replace(
        at=event.at,
        admitted_at=event.admitted_at,
        who=event.who,
        held=event.held,
        price_version=event.price_version,
        input_tokens_bound=event.input_tokens_bound,
        clamped_to=event.clamped_to,
        charge_rule=event.charge_rule,
        notes=event.notes,
        attempt=event.attempt,
        asked_as=attempt_id(event.id, event.attempt),
    )


class Settled(NamedTuple):
    """A dispatched exchange ended; the hold is resolved, the payer debited and the provider credited."""

    id: str
    at: int
    status: str
    http_status: int
    code: str
    usage: Usage
    usage_source: str
    #: What the provider is owed.
    cost: int
    #: What the payer is debited.
    charge: int
    price_version: str
    latency_us: int
    #: 0 where no first byte came.
    first_token_us: int
    attempts: tuple[Attempt, ...] = ()
    answered_model: str = ""
    provider_request_id: str = ""
    #: Nano-dollars by which the charge is more than the hold, 0 otherwise.
    overrun: int = 0
    resolution: str = ""
    #: How the charge followed from the cost, as ``core.pricing.charging`` writes it; empty where it is the cost.
    charge_rule: str = ""
    #: The limit that ended a running answer, where one did.
    limit: str = ""
    #: What the response cache did: ``hit``, ``miss``, ``refresh``; empty where it was not to be used.
    cache: str = ""
    #: Of a hit, what the answer had cost when it was made.
    saved_cost: int = 0


class Recalled(NamedTuple):
    """An answer was given again that was kept before: no provider was asked, and what it had cost was saved."""

    id: str
    at: int
    #: When it was admitted: it decides the window the call is charged to.
    admitted_at: int
    #: No deployment and no provider is among it.
    who: Attribution
    stream: bool
    saved_cost: int
    #: What the payer is debited all the same.
    charge: int
    latency_us: int
    answered_model: str = ""
    charge_rule: str = ""
    #: As an intent has them; they name the request whose answer it was.
    notes: str = ""
    idempotency_key: str = ""


def recalled_as(event: Recalled) -> tuple[Intended, Settled]:
    """A hit as the books take it: an exchange that began and ended at once and used nothing."""
    held = Amounts(usd=event.charge)
    begun = Intended(
        event.id,
        event.at,
        event.admitted_at,
        event.who,
        held,
        "",
        event.stream,
        idempotency_key=event.idempotency_key,
        charge_rule=event.charge_rule,
        notes=event.notes,
    )
    ended = Settled(
        event.id,
        event.at,
        "ok",
        200,
        "",
        NO_USAGE,
        "none",
        0,
        event.charge,
        "",
        event.latency_us,
        0,
        answered_model=event.answered_model,
        charge_rule=event.charge_rule,
        cache="hit",
        saved_cost=event.saved_cost,
    )
    return begun, ended


class Refused(NamedTuple):
    """An identified caller was refused; nothing was held or charged."""

    id: str
    at: int
    who: Attribution
    stream: bool
    http_status: int
    code: str
    latency_us: int = 0
    #: The limit that refused, where one did.
    limit: str = ""


Event = Started | Intended | Progressed | Lost | Settled | Refused | Redirected | Recalled


__all__ = [
    "CACHE_WORDS",
    "MIRROR_OF",
    "NOT_AWAITED",
    "NO_USAGE",
    "RESOLUTIONS",
    "STATUSES",
    "USAGE_SOURCES",
    "Attempt",
    "Awaited",
    "Event",
    "Intended",
    "Lost",
    "Progressed",
    "Recalled",
    "Redirected",
    "Refused",
    "Settled",
    "Started",
    "attempt_id",
    "left_id",
    "recalled_as",
    "redirected",
]
