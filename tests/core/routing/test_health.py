"""The breaker of one deployment against a list of all that happened to it, and by table where a rule is a number."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from faregate.core.routing.health import CLOSED, DEFAULT_BREAKER, OPEN, PROBING, SECOND, BreakerRule, Health, fails
from soaking import examples

START = 1_000 * SECOND
MS = SECOND // 1_000
THREE = BreakerRule(failures=3)


def tripped(rule: BreakerRule = DEFAULT_BREAKER, at: int = START) -> Health:
    """A deployment that has just come to rest."""
    health = Health(rule)
    for _ in range(rule.failures):
        health.failed(at, 500, "")
    return health


def outcomes(health: Health, moments: list[int]) -> list[bool]:
    """What each of these failures does, in seconds from the start."""
    return [health.failed(START + second * SECOND, 500, "") for second in moments]


# -- closed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        ([0, 0, 0], [False, False, True]),
        ([0, 15, 30], [False, False, True]),
        ([0, 15, 31], [False, False, False]),
        ([0, 31, 62, 93, 124], [False] * 5),
        ([0, 31, 40, 50], [False, False, False, True]),
        ([0, 0, 0, 0], [False, False, True, False]),
    ],
)
def test_as_many_failures_as_the_rule_says_within_the_interval_open_it(seconds: list[int], told: list[bool]) -> None:
    """Older ones do not count, both ends of the interval do, and that it rests is said once."""
    health = Health(THREE)

    assert outcomes(health, seconds) == told
    assert (health.closed, health.trips) == (True not in told, told.count(True))


def test_answers_between_failures_do_not_take_them_back() -> None:
    """Without a percentage the failures of the interval are counted, and not those in a row."""
    health = Health(THREE)
    health.failed(START, 500, "")
    health.failed(START, 500, "")
    health.answered(START, 100)

    assert health.failed(START + SECOND, 500, "")


@pytest.mark.parametrize(
    ("well", "bad", "opens"),
    [(0, 5, True), (5, 5, True), (6, 5, False), (100, 5, False), (0, 4, False), (100, 100, True), (101, 99, False)],
)
def test_besides_their_number_the_share_of_failures_must_be_reached(well: int, bad: int, opens: bool) -> None:
    """Half of the interval's calls is enough where the rule says 50 per cent, and less than that is not."""
    health = Health(BreakerRule(percent=50))
    assert health.counts
    for _ in range(well):
        health.answered(START, 100)
    for _ in range(bad):
        health.failed(START, 500, "")

    assert health.closed is not opens


def test_calls_outside_the_interval_have_no_share() -> None:
    """A hundred good answers of a minute ago keep nobody from resting."""
    health = Health(BreakerRule(percent=50))
    for _ in range(100):
        health.answered(START, 100)

    assert outcomes(health, [60] * 5) == [False] * 4 + [True]


def test_what_is_no_failure_has_its_share_as_an_answer() -> None:
    """A refusal of the call itself says that the deployment works."""
    health = Health(BreakerRule(percent=50))
    for _ in range(6):
        health.failed(START, 400, "")

    assert outcomes(health, [0] * 5) == [False] * 5


def test_a_changed_interval_begins_to_count_anew() -> None:
    """Calls that were counted by parts of a short interval do not stay in a long one for good."""
    health = Health(BreakerRule(percent=50, interval=SECOND))
    for _ in range(100):
        health.answered(START, 100)
    health.adopt(BreakerRule(percent=50, interval=100 * SECOND), has_others=False, counts=False)

    assert outcomes(health, [3_600] * 5) == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("status", "code", "failure"),
    [
        (500, "", True),
        (599, "", True),
        (401, "", True),
        (403, "", True),
        (429, "", True),
        (400, "", False),
        (404, "", False),
        (408, "", False),
        (499, "", False),
        (600, "", False),
        (0, "upstream_connect", True),
        (0, "upstream_timeout", True),
        (0, "credential_unavailable", True),
        (0, "cancelled", False),
        (0, "", False),
        (400, "upstream_connect", False),
    ],
)
def test_statuses_go_before_reasons_and_only_those_of_the_rule_are_failures(
    status: int, code: str, failure: bool
) -> None:
    """What the caller did wrong is not held against the deployment."""
    assert fails(DEFAULT_BREAKER, status, code) is failure
    assert Health(BreakerRule(failures=1)).failed(START, status, code) is failure


def test_another_rule_has_other_failures() -> None:
    """Ranges have both ends, and reasons that are not named are none."""
    rule = BreakerRule(statuses=((404, 404), (500, 502)), reasons=("upstream_timeout",))

    assert [fails(rule, status, "") for status in (404, 429, 500, 502, 503)] == [True, False, True, True, False]
    assert [fails(rule, 0, code) for code in ("upstream_timeout", "upstream_connect")] == [True, False]


@pytest.mark.parametrize(
    ("status", "retry_after", "has_others", "rests"),
    [
        (401, 0, True, True),
        (403, 0, True, True),
        (429, SECOND, True, True),
        (429, 0, True, False),
        (500, SECOND, True, False),
        (401, 0, False, False),
        (403, SECOND, False, False),
        (429, SECOND, False, False),
    ],
)
def test_an_account_that_is_refused_rests_at_once_where_others_can_take_over(
    status: int, retry_after: int, has_others: bool, rests: bool
) -> None:
    """Who stands alone is asked on, until there were as many failures as for any other."""
    assert Health(has_others=has_others).failed(START, status, "", retry_after) is rests


@pytest.mark.parametrize(
    ("retry_after", "rest"),
    [(0, 20 * SECOND), (1, 1), (7 * SECOND, 7 * SECOND), (300 * SECOND, 300 * SECOND), (86_400 * SECOND, 300 * SECOND)],
)
def test_a_provider_says_how_long_it_rests_up_to_a_bound(retry_after: int, rest: int) -> None:
    """Its ``Retry-After`` is longer or shorter than the usual rest, and nobody is sent away for a day."""
    health = Health(has_others=True)
    health.failed(START, 401, "", retry_after)

    assert (health.may(START + rest - 1), health.may(START + rest)) == (False, True)
    assert health.wait(START) == max(rest, SECOND)
    assert health.wait(START + rest) == 0


def test_a_breaker_that_is_off_never_rests() -> None:
    """Whatever happens, calls pass; and one that rested passes calls as soon as it is switched off."""
    off = BreakerRule(enabled=False, failures=1)
    never = Health(off, has_others=True)
    assert [never.failed(START, status, "", SECOND) for status in (500, 401, 429)] == [False] * 3
    assert never.may(START)
    health = tripped()
    health.adopt(off, has_others=True, counts=False)

    assert (health.may(START), health.state, health.wait(START)) == (True, CLOSED, 0)


def test_what_was_learnt_outlives_a_change_of_the_rule() -> None:
    """Failures count on under a stricter rule, and who rests goes on resting."""
    health = Health()
    assert outcomes(health, [0, 0]) == [False, False]
    health.adopt(THREE, has_others=False, counts=True)
    assert health.counts
    assert outcomes(health, [1]) == [True]
    health.adopt(DEFAULT_BREAKER, has_others=True, counts=False)

    assert (health.state, health.may(START + 20 * SECOND), health.counts) == (OPEN, False, False)


# -- open and probing --------------------------------------------------------------------------------------------------


def test_one_call_tries_whether_it_is_well_and_its_answer_closes_it() -> None:
    """From closed over open and probing to closed, with a clean slate."""
    health = tripped()
    then = START + 20 * SECOND
    assert (health.state, health.may(then - 1), health.may(then)) == (OPEN, False, True)
    health.begun(then)
    assert (health.state, health.may(then + SECOND), health.wait(then + SECOND)) == (PROBING, False, SECOND)
    health.answered(then + SECOND, 1_000_000)

    assert (health.state, health.may(then + SECOND), health.trips) == (CLOSED, True, 1)
    assert outcomes(health, [22] * 4) == [False] * 4


@pytest.mark.parametrize(("retry_after", "rest"), [(0, 20 * SECOND), (90 * SECOND, 90 * SECOND)])
def test_a_probe_that_fails_lets_it_rest_again(retry_after: int, rest: int) -> None:
    """As long as the provider says, else as long as usual; that is no new trip."""
    health = tripped()
    then = START + 20 * SECOND
    health.begun(then)

    assert not health.failed(then + SECOND, 503, "", retry_after)
    assert (health.state, health.trips) == (OPEN, 1)
    assert [health.may(then + SECOND + rest + late) for late in (-1, 0)] == [False, True]


def test_a_probe_that_is_refused_for_its_own_sake_closes_it() -> None:
    """Who can say that a call is wrong is well."""
    health = tripped()
    health.begun(START + 20 * SECOND)
    health.failed(START + 21 * SECOND, 400, "")

    assert health.state == CLOSED


def test_calls_that_were_sent_before_it_opened_do_not_close_it() -> None:
    """Others were on their way when it came to rest: that they end well, or are refused, says nothing of now."""
    health = Health(has_others=True)
    health.failed(START, 429, "", 60 * SECOND)
    health.answered(START + SECOND, 2_000_000)
    health.failed(START + SECOND, 400, "")
    assert (health.state, health.may(START + 59 * SECOND)) == (OPEN, False)
    health.begun(START + 60 * SECOND)
    health.answered(START + 61 * SECOND, 90_000_000)
    assert health.state == PROBING
    health.answered(START + 61 * SECOND, 500_000)

    assert health.state == CLOSED


def test_calls_that_fail_while_it_rests_can_only_make_that_longer() -> None:
    """The last of many calls that time out one after another counts."""
    health = Health(has_others=True)
    health.failed(START, 429, "", 60 * SECOND)
    health.failed(START + SECOND, 0, "upstream_timeout")
    assert not health.may(START + 59 * SECOND)
    health.failed(START + 50 * SECOND, 0, "upstream_timeout")

    assert [health.may(START + second * SECOND) for second in (69, 70)] == [False, True]


@pytest.mark.parametrize(("trip", "given_up"), [(20 * SECOND, 20 * SECOND), (MS, SECOND)])
def test_a_probe_that_is_never_heard_of_again_does_not_close_it_for_ever(trip: int, given_up: int) -> None:
    """After another rest somebody else may try."""
    health = tripped(BreakerRule(trip=trip))
    then = START + trip
    health.begun(then)

    assert [health.may(then + given_up + late) for late in (-1, 0)] == [False, True]


def test_a_probe_that_says_nothing_makes_way_for_the_next_one() -> None:
    """Its client went away before the deployment could answer."""
    health = tripped()
    health.begun(START + 20 * SECOND)
    health.over()
    health.gave_way()

    assert (health.state, health.may(START + 20 * SECOND), health.busy) == (OPEN, True, 0)


# -- calls and latency -------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=40))
def test_it_is_as_busy_as_calls_have_begun_and_not_ended(events: list[bool]) -> None:
    """An end without a beginning, as after a change of the configuration, makes nobody less than idle."""
    health, running = Health(), 0
    for begins in events:
        if begins:
            health.begun(START)
        else:
            health.over()
        running = running + 1 if begins else max(0, running - 1)
        assert health.busy == running


def test_latency_is_unknown_until_it_answers_and_then_moves_towards_what_is_heard() -> None:
    """The first answer is believed, each later one counts an eighth."""
    health = Health()
    assert health.latency(START) == 0
    health.answered(START, 800_000)
    assert health.latency(START) == 800_000
    health.answered(START, 1_600_000)
    assert health.latency(START) == 900_000
    health.answered(START, 0)

    assert health.latency(START) == 787_500


def test_latency_fades_while_nothing_is_heard() -> None:
    """Half of it every 30 seconds, so that a slow one is tried again in time; what is heard ends that."""
    health = Health()
    health.answered(START, 800_000)
    faded = [health.latency(START + second * SECOND) for second in (29, 30, 59, 60, 90)]
    assert faded == [800_000, 400_000, 400_000, 200_000, 100_000]
    assert health.latency(START + 10**9 * SECOND) == 0
    assert health.latency(START - SECOND) == 800_000
    health.answered(START + 60 * SECOND, 800_000)

    assert health.latency(START + 60 * SECOND) == 800_000


def test_a_refusal_says_nothing_of_how_fast_it_answers() -> None:
    """Who refuses its first call at once is not the fastest of all, and a fading latency goes on fading."""
    health = Health()
    health.failed(START, 400, "")
    assert health.latency(START) == 0
    health.answered(START, 800_000)
    health.failed(START + 30 * SECOND, 404, "")

    assert health.latency(START + 30 * SECOND) == 400_000


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30))
def test_latency_stays_between_the_fastest_and_the_slowest_answer(heard: list[int]) -> None:
    """A mean is never outside of what it is the mean of, and known as long as something was heard just now."""
    health = Health()
    for latency_us in heard:
        health.answered(START, latency_us)

    assert max(1, min(heard)) <= health.latency(START) <= max(1, *heard)


# -- all that can happen, in any order ---------------------------------------------------------------------------------


class Breaker(RuleBasedStateMachine):
    """Calls begin where they may and end as they like, against what the rule says of everything that happened."""

    @initialize(
        failures=st.integers(1, 4),
        interval=st.integers(1, 40),
        trip=st.integers(1, 30),
        trip_max=st.integers(1, 60),
        enabled=st.sampled_from((True, True, True, False)),
        has_others=st.booleans(),
    )
    def begin(self, failures: int, interval: int, trip: int, trip_max: int, enabled: bool, has_others: bool) -> None:
        self.rule = BreakerRule(
            enabled, failures, interval=interval * SECOND, trip=trip * SECOND, trip_max=trip_max * SECOND
        )
        self.has_others = has_others
        self.health = Health(self.rule, has_others=has_others)
        self.now = START
        #: When each that is on its way began.
        self.calls: list[int] = []
        #: Failures while it was closed, the rest that it was given, and who tries.
        self.failures: list[int] = []
        self.opened_at = 0
        self.rests_until = 0
        self.probe_at = 0
        self.trips = 0

    # What the rule says.

    def may(self) -> bool:
        if not self.opened_at:
            return True
        lost = max(self.rule.trip, SECOND)
        return self.now >= self.rests_until and (not self.probe_at or self.now - self.probe_at >= lost)

    def close(self) -> None:
        self.opened_at = self.probe_at = 0
        self.failures.clear()

    def rest(self, retry_after: int) -> int:
        return min(retry_after, self.rule.trip_max) if retry_after else self.rule.trip

    # What happens.

    @rule(milliseconds=st.integers(0, 15_000))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds * MS

    @rule()
    def it_rests_to_the_end(self) -> None:
        self.now = max(self.now, self.rests_until)

    @rule()
    def a_call_comes(self) -> None:
        if self.health.may(self.now):
            self.health.begun(self.now)
            self.calls.append(self.now)
            if self.opened_at:
                self.probe_at = self.now

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 99))
    def one_is_answered(self, which: int) -> None:
        since = self.calls.pop(which % len(self.calls))
        self.health.answered(self.now, (self.now - since) // 1_000)
        self.health.over()
        if self.opened_at and since >= self.opened_at:
            self.close()

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 99))
    def one_is_refused_for_its_own_sake(self, which: int) -> None:
        self.calls.pop(which % len(self.calls))
        assert not self.health.failed(self.now, 400, "")
        self.health.over()
        if self.rule.enabled and self.probe_at:
            self.close()

    @precondition(lambda self: self.calls)
    @rule(
        which=st.integers(0, 99),
        status=st.sampled_from((0, 401, 403, 429, 500, 503)),
        seconds=st.sampled_from((0, 0, 1, 30, 10_000)),
    )
    def one_fails(self, which: int, status: int, seconds: int) -> None:
        self.calls.pop(which % len(self.calls))
        retry_after = seconds * SECOND if status else 0
        said = self.health.failed(self.now, status, "" if status else "upstream_timeout", retry_after)
        self.health.over()
        opens = False
        if not self.rule.enabled:
            pass
        elif self.opened_at:
            self.probe_at = 0
            self.rests_until = max(self.rests_until, self.now + self.rest(retry_after))
        else:
            self.failures.append(self.now)
            counted = sum(self.now - self.rule.interval <= moment for moment in self.failures)
            at_once = self.has_others and (status in (401, 403) or (status == 429 and retry_after > 0))
            opens = at_once or counted >= self.rule.failures
            if opens:
                self.opened_at, self.rests_until = self.now, self.now + self.rest(retry_after)
                self.trips += 1
        assert said is opens

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 99))
    def one_is_lost(self, which: int) -> None:
        self.calls.pop(which % len(self.calls))
        self.health.over()

    # What always holds.

    @invariant()
    def calls_pass_as_the_rule_says(self) -> None:
        health = self.health
        assert health.may(self.now) is self.may()
        assert (health.wait(self.now) == 0) is self.may()
        assert health.closed is not bool(self.opened_at)
        assert health.state == (CLOSED if health.closed else PROBING if self.probe_at else OPEN)
        assert (health.busy, health.trips) == (len(self.calls), self.trips)

    @invariant()
    def nobody_is_sent_away_for_longer_than_the_rule_says(self) -> None:
        assert self.health.wait(self.now) <= max(self.rule.trip, self.rule.trip_max, SECOND)

    @invariant()
    def nothing_passes_while_it_rests(self) -> None:
        if not self.health.closed and self.now < self.rests_until:
            assert not self.health.may(self.now)

    @invariant()
    def it_never_stays_closed_to_all_for_ever(self) -> None:
        assert self.health.may(max(self.now, self.rests_until) + max(self.rule.trip, SECOND))

    @invariant()
    def one_that_is_off_lets_everything_pass(self) -> None:
        assert self.rule.enabled or self.health.may(self.now)


TestBreaker = Breaker.TestCase
TestBreaker.settings = settings(max_examples=examples(60, 1_000), stateful_step_count=40, deadline=None)
