"""Which of a provider's deadlines has passed. Pure: durations in, a reason out."""

from typing import Final

from faregate.control import Provider

#: Open calls are looked at this often, in seconds, and the moment of their last bytes is known as exactly as that: a
#: deadline is met late by up to twice as long, and never early.
LOOK_S: Final = 0.25

#: Where two looks are this far apart, in seconds, the gate itself stood still between them. What came meanwhile was not
#: read in time, so the second is put off by ``LOOK_S``: by so much, and the standstill, a deadline may be met later.
STANDSTILL_S: Final = 2 * LOOK_S

#: What is told where the bound of a whole answer has passed, the provider's or the caller's.
TOO_LONG: Final = "it took longer than the whole answer may take"


def overdue(
    provider: Provider,
    asked_ms: int,
    *,
    since_sent: float,
    since_last: float | None,
    answered: bool,
) -> str:
    """Why an answer has taken too long, in words for the caller; empty where it has not.

    ``asked_ms`` is the caller's own bound, 0 for none. ``since_sent`` and ``since_last`` are seconds since the request
    was sent and since the last bytes came; the latter is ``None`` while the gate itself does not read.
    """
    total_ms = min(asked_ms, provider.total_timeout_ms) if asked_ms else provider.total_timeout_ms
    if since_sent > total_ms / 1000:
        return TOO_LONG
    if not answered:
        late = since_sent > provider.first_byte_timeout_ms / 1000
        return "it did not begin to answer in time" if late else ""
    if since_last is not None and since_last > provider.idle_timeout_ms / 1000:
        return "its answer stalled"
    return ""
