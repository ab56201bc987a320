"""What one call of a service behind the gate used, measured by the gate itself: time, bytes, and what the answer told.

Owns the terms on which a service is offered, what no terms may say, the most that a call may use by them, and what it
used. Knows no prices, no bytes and no clock. The terms bound everything that is measured, so that no call can cost more
than what was held.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from faregate.core.usage import COUNT_MAX, Measure, Usage, measures

NANOS_PER_MILLISECOND: Final = 1_000_000

#: Both have bytes, each at a price of its own.
IN: Final = "in"
OUT: Final = "out"

#: Methods that can be offered. ``HEAD`` cannot: its answer promises a body that does not come, and only who asked
#: knows; ``CONNECT`` and ``TRACE`` are not meant for services.
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

#: Headers that say how a message is framed and where it goes; they are the gate's to write, whoever wants what.
FRAMING: Final = frozenset(
    """
    connection keep-alive proxy-connection te trailer transfer-encoding upgrade host content-length expect via
    """.split()
)

#: Those that no configuration lets pass: they are about one connection, they are ours to write, they say where a caller
#: is, or they hold its credential.
NEVER_PASSED: Final = FRAMING | frozenset(
    """
    proxy-authenticate proxy-authorization forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip
    accept-encoding authorization api-key x-api-key x-goog-api-key ocp-apim-subscription-key cookie set-cookie location
    priority idempotency-key
    x-request-id x-client-request-id openai-organization openai-project
    """.split()
)
#: Headers of a request that always pass.
USUAL_ASKED: Final = frozenset(
    """
    accept accept-language content-type content-encoding content-language content-disposition if-match if-none-match
    if-modified-since if-unmodified-since if-range range prefer user-agent traceparent
    """.split()
)
#: Headers of an answer that always pass.
USUAL_ANSWERED: Final = frozenset(
    """
    content-type content-encoding content-language content-disposition content-range accept-ranges etag last-modified
    cache-control expires vary age retry-after
    """.split()
)
#: Headers of a request that the gate writes, beside those of framing.
WRITTEN: Final = frozenset(("accept-encoding", "x-request-id", "x-client-request-id"))
#: Beginnings of names that are ours.
OURS: Final = ("x-faregate-", "openai-proxy-", "x-apim-", "sec-websocket-")


class Told(NamedTuple):
    """A quantity that the service tells in a header of its answer: ``divisor`` of what it tells are one ``unit``."""

    unit: str
    variant: str
    #: Lower-case name of the header.
    header: str
    #: The most of ``unit`` that one call may use; held, and billed where the header is missing or cannot be true.
    most: int
    divisor: int = 1


class ServiceTerms(NamedTuple):
    """How a service is offered and what bounds a call of it."""

    methods: tuple[str, ...] = ("GET", "POST")
    #: Beginnings of the paths that are offered, each a whole number of segments; empty offers all.
    paths: tuple[str, ...] = ()
    #: Lower-case names of headers that pass in both directions, beside those that always do.
    headers: tuple[str, ...] = ()
    duration_ms_max: int = 30_000
    request_bytes_max: int = COUNT_MAX
    answer_bytes_max: int = COUNT_MAX
    told: tuple[Told, ...] = ()
    #: What each call that ran uses, whatever it asked.
    fixed: tuple[Measure, ...] = ()
    #: Errors of the service cost what ran, too.
    bill_errors: bool = False


def may_authenticate(header: str) -> bool:
    """Whether a header of this lower-case name may hold our credential: it is sent once, and nobody else writes it."""
    return header not in (FRAMING | USUAL_ASKED | WRITTEN) and not header.startswith(OURS)


def may_tell(header: str) -> bool:
    """Whether a header of an answer of this lower-case name may tell a quantity."""
    return may_pass(header) and header not in USUAL_ANSWERED


def may_pass(header: str) -> bool:
    """Whether terms may let a header of this lower-case name pass."""
    return header not in NEVER_PASSED and not header.startswith(OURS)


def most(terms: ServiceTerms, request_bytes: int) -> tuple[Measure, ...]:
    """The most that a call with a body of ``request_bytes`` may use."""
    told = (Measure(each.unit, each.variant, each.most) for each in terms.told)
    return _measured(terms, terms.duration_ms_max, request_bytes, terms.answer_bytes_max, told)


def used(
    terms: ServiceTerms,
    busy_nanos: int,
    request_bytes: int,
    answer_bytes: int,
    told: Iterable[int | None],
    *,
    untold_at_most: bool = True,
) -> Usage:
    """What a call used that ran for ``busy_nanos``; started milliseconds count whole.

    ``told`` is what ``read_told`` gave for each of the terms' quantities; one that was not told counts at its maximum,
    or, with ``untold_at_most`` false, as nothing. Never more than ``most`` of the same terms and body.
    """
    milliseconds = min(-(-busy_nanos // NANOS_PER_MILLISECOND), terms.duration_ms_max)
    answered = min(answer_bytes, terms.answer_bytes_max)
    quantities = (
        Measure(each.unit, each.variant, (each.most if untold_at_most else 0) if quantity is None else quantity)
        for each, quantity in zip(terms.told, told, strict=True)
    )
    return Usage(other=_measured(terms, milliseconds, request_bytes, answered, quantities))


def read_told(told: Told, text: str) -> int | None:
    """How many units ``text``, the header of an answer, tells; ``None`` where it tells nothing that can be true.

    Started units count whole. It can be true up to the configured maximum.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(COUNT_MAX * told.divisor)):
        return None
    quantity = -(-int(text) // told.divisor)
    return quantity if quantity <= told.most else None


def _measured(
    terms: ServiceTerms, milliseconds: int, request_bytes: int, answer_bytes: int, told: Iterable[Measure]
) -> tuple[Measure, ...]:
    return measures(
        (
            Measure("busy_milliseconds", "", milliseconds),
            # For limits in seconds, which count whole ones: it has no price.
            Measure("seconds", "", -(-milliseconds // 1000)),
            Measure("bytes", IN, request_bytes),
            Measure("bytes", OUT, answer_bytes),
            *terms.fixed,
            *told,
        )
    )
