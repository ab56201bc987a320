"""When a call that failed is tried again, and after how long. Pure: the roll of the dice is an argument.

Waits are those of Azure API Management's retry policy: the interval alone is the same each time; with a delta they grow
by it; with a maximum as well they double, ``interval + 2^(n-1) x 0.8…1.2 of delta``, up to there.
"""

from typing import Final, NamedTuple

from faregate.core.routing.health import REASONS, SECOND

RETRIES_MAX: Final = 5

#: A roll is a number of thousandths around this one: how much of its jitter a wait gets.
ROLL_MIDDLE: Final = 1_000
ROLL_SPREAD: Final = 200


class RetryRule(NamedTuple):
    """How often a call is tried again; durations in nanoseconds."""

    #: Tries after the first one. Where ``again`` is false each deployment is tried once at most.
    tries: int = RETRIES_MAX
    #: Once every deployment has failed they are tried again, after a wait.
    again: bool = False
    interval: int = SECOND
    delta: int = 0
    #: 0 for no maximum.
    most: int = 0
    #: The first try of all again comes at once.
    first_fast: bool = False
    #: Longest ``Retry-After`` of a provider that is waited for.
    wait_max: int = 10 * SECOND
    statuses: tuple[tuple[int, int], ...] = ((401, 401), (403, 403), (408, 408), (429, 429), (500, 599))
    #: Of ``health.REASONS``: a time-out and a broken answer may have been billed, and are not among those by default.
    reasons: tuple[str, ...] = ("upstream_connect", "credential_unavailable", "upstream_unsent")


#: Each other deployment of the name is tried once.
FAILOVER: Final = RetryRule()

#: What may be tried again without a status: our codes, and a connection that closed before a byte came back.
RETRIED_REASONS: Final = (*REASONS, "upstream_unsent")


def may_retry(rule: RetryRule, tried: int, status: int, code: str) -> bool:
    """Whether a call that was tried ``tried`` times may be tried once more after this outcome."""
    if tried > rule.tries:
        return False
    if status:
        return any(low <= status <= high for low, high in rule.statuses)
    return code in rule.reasons


def wait(rule: RetryRule, round_number: int, roll: int, retry_after: int = 0) -> int | None:
    """Nanoseconds before every deployment is tried again, for the ``round_number``-th time, from 1.

    ``retry_after`` is what the provider asks for, 0 where it says nothing. ``None`` where that is longer than anybody
    waits here: the caller is told instead.
    """
    if retry_after > rule.wait_max:
        return None
    if round_number == 1 and rule.first_fast:
        return retry_after
    roll = max(ROLL_MIDDLE - ROLL_SPREAD, min(ROLL_MIDDLE + ROLL_SPREAD, roll))
    if rule.most:
        doubled = (1 << min(round_number - 1, 40)) * rule.delta * roll // ROLL_MIDDLE
        found = min(rule.most, rule.interval + doubled)
    else:
        found = (rule.interval + (round_number - 1) * rule.delta) * roll // ROLL_MIDDLE
    return max(found, retry_after)
