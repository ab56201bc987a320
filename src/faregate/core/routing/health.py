"""The health of one deployment: a circuit breaker, the calls that it has now, and how fast it begins to answer.

Pure: moments come in, in nanoseconds of any clock that never goes back. The breaker is that of M. Nygard, "Release It!"
(2007): *closed* while calls pass; *open* once enough of them failed within an interval, and then nothing passes for a
while; after that one call passes as a *probe*, whose end closes the breaker or opens it again.
"""

from collections import deque
from typing import Final, NamedTuple

SECOND: Final = 1_000_000_000

CLOSED: Final = "closed"
OPEN: Final = "open"
PROBING: Final = "probing"

#: What went wrong where no status tells it: codes of ours.
REASONS: Final = (
    "upstream_connect",
    "upstream_timeout",
    "upstream_truncated",
    "upstream_protocol",
    "credential_unavailable",
)

#: It says that the account is at fault and not the call: it rests at once while another can take over. 403 does not:
#: some providers answer it to what is in one call.
_ACCOUNT: Final = 401
_TOO_MANY: Final = 429

#: A share of failures is looked at in this many parts of the interval.
_PARTS: Final = 10

#: The latency of who has not answered for this long counts half, so that it is tried again in time.
_FADES_NANOS: Final = 30 * SECOND

#: A new latency counts for one part in so many.
_LATENCY_PARTS: Final = 8


class BreakerRule(NamedTuple):
    """When a deployment rests, and for how long; durations in nanoseconds."""

    enabled: bool = True
    #: Failures within the interval that open it.
    failures: int = 5
    #: Per cent of the calls since the first of these that must have failed besides, 0 where the count alone decides.
    percent: int = 50
    interval: int = 30 * SECOND
    #: How long it rests where the provider does not say.
    trip: int = 20 * SECOND
    #: A provider's ``Retry-After`` is followed up to here.
    trip_max: int = 300 * SECOND
    #: Statuses that are failures, as ranges with both ends.
    statuses: tuple[tuple[int, int], ...] = ((401, 401), (403, 403), (429, 429), (500, 599))
    #: Of ``REASONS``, those that are failures.
    reasons: tuple[str, ...] = REASONS


DEFAULT_BREAKER: Final = BreakerRule()


class Health:
    """What is known of one deployment. ``closed`` and ``busy`` may be read at any time."""

    __slots__ = (
        "_calls",
        "_failures",
        "_heard_at",
        "_latency_us",
        "_measured",
        "_opened_at",
        "_probe",
        "_probe_at",
        "busy",
        "closed",
        "counts",
        "rests_until",
        "rule",
        "trips",
    )

    def __init__(self, rule: BreakerRule = DEFAULT_BREAKER, *, measured: bool = False) -> None:
        #: Calls pass without being looked at.
        self.closed = True
        #: Calls that it has now.
        self.busy = 0
        self.trips = 0
        self.rests_until = 0
        #: Moments of the newest failures.
        self._failures: deque[int] = deque()
        #: Part of time → calls and failures, for a share.
        self._calls: dict[int, list[int]] = {}
        #: When it opened: who was sent a call before knows nothing of how it is since.
        self._opened_at = 0
        #: When the probe began, 0 for none; and the number of the newest one, by which it is known.
        self._probe_at = 0
        self._probe = 0
        self._latency_us = 0
        self._heard_at = 0
        self.rule = rule
        #: Each call's beginning and end has to be told, not only failures.
        self.counts = measured
        self.adopt(rule, measured=measured)

    def adopt(self, rule: BreakerRule, *, measured: bool) -> None:
        """Go by another rule from now on; what was learnt stays."""
        if rule.interval != self.rule.interval:
            # They were counted by parts of another length.
            self._calls.clear()
        self.rule = rule
        #: A strategy goes by how busy and how fast it is.
        self._measured = measured
        self.counts = measured or (rule.percent > 0 and bool(self._failures))
        self._failures = deque(self._failures, maxlen=max(1, rule.failures))
        if not rule.enabled:
            self.closed = True

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``probing``; an open one whose rest is over stays so until a call comes."""
        if self.closed:
            return CLOSED
        return PROBING if self._probe_at else OPEN

    def may(self, now: int) -> bool:
        """Whether a call may go there: always, or as the one that tries whether it is well again.

        A probe that never ended must not close it for good: after another rest it is given up.
        """
        if self.closed:
            return True
        if self._probe_at and now - self._probe_at < max(self.rule.trip, SECOND):
            return False
        return now >= self.rests_until

    def wait(self, now: int) -> int:
        """Nanoseconds until it may be tried again, at least one where it may not be now."""
        return 0 if self.may(now) else max(self.rests_until - now, SECOND)

    def latency(self, now: int) -> int:
        """Microseconds to the first byte, a moving mean that fades while nothing is heard; 0 where nothing is known."""
        if not self._latency_us:
            return 0
        return self._latency_us >> min(60, max(0, now - self._heard_at) // _FADES_NANOS)

    # -- what happens --------------------------------------------------------------------------------------------------

    def claim(self, now: int) -> int:
        """Take the turn of the one call that tries whether it is well; its number, 0 where there is none to take."""
        if self.closed or not self.may(now):
            return 0
        self._probe_at = max(1, now)
        self._probe += 1
        return self._probe

    def begun(self) -> None:
        """A call goes there."""
        self.busy += 1

    def over(self) -> None:
        """A call that had begun has ended, whatever became of it."""
        if self.busy:
            self.busy -= 1

    def gave_way(self, probe: int) -> None:
        """The call with this number ended without a word about the deployment: another one may try."""
        if probe == self._probe:
            self._probe_at = 0

    def answered(self, now: int, latency_us: int, sent_at: int | None = None) -> None:
        """It answered as it should; a call that it was sent before it opened does not close it.

        ``sent_at`` is when the call was sent, where that is not ``latency_us`` ago.
        """
        self._well(now, now - latency_us * 1_000 if sent_at is None else sent_at)
        known = self._latency_us
        self._latency_us = max(1, known + (latency_us - known) // _LATENCY_PARTS if known else latency_us)
        self._heard_at = now

    def _well(self, now: int, sent_at: int) -> None:
        if self.closed:
            if self.rule.percent and self._failures:
                if now - self._failures[-1] > self.rule.interval:
                    # Nothing has failed for a whole interval: nobody need be counted any more.
                    self._forget()
                else:
                    self._count(now, 0)
        elif sent_at >= self._opened_at:
            self.closed = True
            self._probe_at = 0
            self._forget()

    def _forget(self) -> None:
        self._failures.clear()
        self._calls.clear()
        self.counts = self._measured

    def failed(
        self, now: int, status: int, code: str, retry_after: int = 0, *, others_well: bool = False, probe: int = 0
    ) -> bool:
        """It did not; returns whether it rests from now on and did not before.

        ``status`` is 0 where no answer came, ``code`` empty where one did; ``retry_after`` is what the provider asks
        for, in nanoseconds, 0 where it says nothing. While ``others_well`` can take its calls it may rest as soon as
        its provider asks for that. ``probe`` is the number of the call where it is the one that tries. What is no
        failure by the rule is an answer like any other, except that its latency does not count.
        """
        rule = self.rule
        if not rule.enabled:
            return False
        if not fails(rule, status, code):
            # Of an open one only the call that tries tells anything.
            if self.closed or (probe and probe == self._probe):
                self._well(now, now)
            return False
        if not self.closed:
            # The call that tries failed, or one that had begun before it opened.
            if probe and probe == self._probe:
                self._probe_at = 0
            self.rests_until = max(self.rests_until, now + self._rest(retry_after))
            return False
        self._failures.append(now)
        if rule.percent:
            self.counts = True
            self._count(now, 1)
        at_once = others_well and (status == _ACCOUNT or (status == _TOO_MANY and retry_after > 0))
        if not (at_once or self._too_many(now)):
            return False
        self.closed = False
        self.trips += 1
        self._opened_at = max(1, now)
        self._probe_at = 0
        # Who tried it before it closed knows nothing of how it is since: its number is nobody's now.
        self._probe += 1
        self.rests_until = now + self._rest(retry_after)
        return True

    def _too_many(self, now: int) -> bool:
        rule, failures = self.rule, self._failures
        since = now - rule.interval
        if len(failures) < rule.failures or failures[-rule.failures] < since:
            return False
        if not rule.percent:
            return True
        first = since // self._part
        calls = failed = 0
        for part, (each, bad) in self._calls.items():
            if part > first:
                calls, failed = calls + each, failed + bad
        return failed * 100 >= calls * rule.percent

    def _rest(self, retry_after: int) -> int:
        rule = self.rule
        return min(retry_after, rule.trip_max) if retry_after > 0 else rule.trip

    @property
    def _part(self) -> int:
        return max(1, self.rule.interval // _PARTS)

    def _count(self, now: int, failed: int) -> None:
        part = now // self._part
        found = self._calls.get(part)
        if found is None:
            self._calls = {each: count for each, count in self._calls.items() if each > part - _PARTS}
            found = self._calls[part] = [0, 0]
        found[0] += 1
        found[1] += failed


def fails(rule: BreakerRule, status: int, code: str) -> bool:
    """Whether an outcome is a failure by a rule."""
    if status:
        return any(low <= status <= high for low, high in rule.statuses)
    return code in rule.reasons
