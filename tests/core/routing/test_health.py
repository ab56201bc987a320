"""The breaker of one deployment against a list of all that happened to it, and by table where a rule is a number."""

from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from faregate.core.routing.health import CLOSED, DEFAULT_BREAKER, OPEN, PROBING, SECOND, BreakerRule, Health, fails
from soaking import examples

START = 1_000 * SECOND
MS = SECOND // 1_000
THREE = BreakerRule(failures=3)
BY_NUMBER = BreakerRule(percent=0)


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
    health = Health(BreakerRule(failures=3, percent=0))
    health.failed(START, 500, "")
    health.failed(START, 500, "")
    for _ in range(100):
        health.answered(START, 100)

    assert health.failed(START + SECOND, 500, "")


@pytest.mark.parametrize("percent", [50, None])
@pytest.mark.parametrize(
    ("before", "well", "bad", "opens"),
    [
        (0, 0, 5, True),
        (0, 5, 5, True),
        (0, 6, 5, False),
        (0, 100, 5, False),
        (0, 0, 4, False),
        (0, 100, 100, True),
        (0, 101, 99, False),
        (100, 0, 5, True),
        (100, 5, 5, True),
        (100, 6, 5, False),
    ],
)
def test_besides_their_number_the_share_of_failures_must_be_reached(
    percent: int | None, before: int, well: int, bad: int, opens: bool
) -> None:
    """Half of the calls since the first failure is enough by default or by rule, and less than that is not."""
    health = Health(DEFAULT_BREAKER if percent is None else BreakerRule(percent=percent))
    for _ in range(before):
        health.answered(START, 100)
    health.failed(START, 500, "")
    for _ in range(well):
        health.answered(START, 100)
    for _ in range(bad - 1):
        health.failed(START, 500, "")

    assert health.closed is not opens


def every_333rd() -> list[bool]:
    """Three in a thousand as far apart as can be."""
    return [number % 333 == 0 for number in range(60_000)]


def here_and_there() -> list[bool]:
    """Three in a thousand as chance has it."""
    chance = Random(3)
    return [chance.random() < 0.003 for _ in range(60_000)]


@pytest.mark.parametrize("fail", [every_333rd(), here_and_there()], ids=["every_333rd", "here_and_there"])
@pytest.mark.parametrize(("rule", "trips"), [(DEFAULT_BREAKER, False), (BY_NUMBER, True)])
def test_few_failures_among_many_calls_never_open_it(rule: BreakerRule, trips: bool, fail: list[bool]) -> None:
    """Three in a thousand at 100 calls a second for ten minutes, where the number alone would have opened it."""
    health = Health(rule)
    for number, bad in enumerate(fail):
        now = START + number * 10 * MS
        if bad:
            health.failed(now, 500, "")
        elif health.counts:
            health.answered(now, 100)

    assert sum(fail) > 100
    assert (health.trips > 0) is trips


def test_calls_outside_the_interval_have_no_share() -> None:
    """A hundred good answers of a minute ago keep nobody from resting."""
    health = Health()
    health.failed(START, 500, "")
    for _ in range(100):
        health.answered(START, 100)

    assert outcomes(health, [60] * 5) == [False] * 4 + [True]


def test_what_is_no_failure_has_its_share_as_an_answer() -> None:
    """A refusal of the call itself says that the deployment works."""
    health = Health()
    health.failed(START, 500, "")
    for _ in range(6):
        health.failed(START, 400, "")

    assert outcomes(health, [0] * 5) == [False] * 4 + [True]


def test_a_changed_interval_begins_to_count_anew() -> None:
    """Calls that were counted by parts of a short interval do not stay in a long one for good."""
    health = Health(BreakerRule(interval=SECOND))
    health.failed(START, 500, "")
    for _ in range(100):
        health.answered(START, 100)
    health.adopt(BreakerRule(interval=100 * SECOND), measured=False)

    assert outcomes(health, [3_600] * 5) == [False] * 4 + [True]


def test_calls_are_counted_from_the_first_failure_until_an_interval_without_one() -> None:
    """Nobody need tell of calls to who is well: the end of the interval still counts, and then all begins anew."""
    health = Health()
    health.answered(START, 100)
    health.failed(START, 400, "")
    assert not health.counts
    counted = []
    health.failed(START, 500, "")
    for late in (0, SECOND, 30 * SECOND, 30 * SECOND + 1):
        counted.append(health.counts)
        health.answered(START + late, 100)
    assert [*counted, health.counts] == [True, True, True, True, False]

    assert outcomes(health, [31] * 5) == [False] * 4 + [True]
    assert health.counts


@pytest.mark.parametrize(
    ("rule", "measured", "counted"),
    [
        (DEFAULT_BREAKER, False, [False, True, False]),
        (DEFAULT_BREAKER, True, [True, True, True]),
        (BY_NUMBER, False, [False, False, False]),
        (BY_NUMBER, True, [True, True, True]),
        (BreakerRule(enabled=False), False, [False, False, False]),
        (BreakerRule(enabled=False), True, [True, True, True]),
    ],
)
def test_calls_are_told_for_a_strategy_or_while_a_share_is_looked_at(
    rule: BreakerRule, measured: bool, counted: list[bool]
) -> None:
    """Before anything failed, after it, and once it is well again after its rest."""
    health = Health(rule, measured=measured)
    found = [health.counts]
    outcomes(health, [0] * 5)
    found.append(health.counts)
    health.claim(START + 20 * SECOND)
    health.answered(START + 21 * SECOND, 100)
    assert health.closed

    assert [*found, health.counts] == counted


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
    ("status", "retry_after", "others_well", "rests"),
    [
        (401, 0, True, True),
        (401, SECOND, True, True),
        (429, SECOND, True, True),
        (429, 0, True, False),
        (403, 0, True, False),
        (403, SECOND, True, False),
        (500, SECOND, True, False),
        (401, 0, False, False),
        (403, SECOND, False, False),
        (429, SECOND, False, False),
    ],
)
def test_an_account_that_is_refused_rests_at_once_while_others_can_take_over(
    status: int, retry_after: int, others_well: bool, rests: bool
) -> None:
    """Who stands alone is asked on, until there were as many failures as for any other."""
    health = Health()
    assert health.failed(START, status, "", retry_after, others_well=others_well) is rests
    later = [health.failed(START, status, "", retry_after) for _ in range(4)]

    assert later == [False, False, False, not rests]


def test_an_account_rests_at_once_however_well_its_other_calls_went() -> None:
    """Neither the number nor the share is asked for, and others that are well by now count, not those of before."""
    health = Health()
    assert not health.failed(START, 401, "")
    for _ in range(100):
        health.answered(START, 100)

    assert health.failed(START, 401, "", others_well=True)


@pytest.mark.parametrize(
    ("retry_after", "rest"),
    [(0, 20 * SECOND), (1, 1), (7 * SECOND, 7 * SECOND), (300 * SECOND, 300 * SECOND), (86_400 * SECOND, 300 * SECOND)],
)
def test_a_provider_says_how_long_it_rests_up_to_a_bound(retry_after: int, rest: int) -> None:
    """Its ``Retry-After`` is longer or shorter than the usual rest, and nobody is sent away for a day."""
    health = Health()
    health.failed(START, 401, "", retry_after, others_well=True)

    assert (health.may(START + rest - 1), health.may(START + rest)) == (False, True)
    assert health.wait(START) == max(rest, SECOND)
    assert health.wait(START + rest) == 0


def test_a_breaker_that_is_off_never_rests() -> None:
    """Whatever happens, calls pass; and one that rested passes calls as soon as it is switched off."""
    off = BreakerRule(enabled=False, failures=1)
    never = Health(off)
    assert [never.failed(START, status, "", SECOND, others_well=True) for status in (500, 401, 429)] == [False] * 3
    assert never.may(START)
    health = tripped()
    health.adopt(off, measured=False)

    assert (health.may(START), health.state, health.wait(START)) == (True, CLOSED, 0)


def test_what_was_learnt_outlives_a_change_of_the_rule() -> None:
    """Failures count on under a stricter rule, and who rests goes on resting."""
    health = Health()
    assert outcomes(health, [0, 0]) == [False, False]
    counted = [health.counts]
    for each, measured in ((BY_NUMBER, False), (BY_NUMBER, True), (THREE, False)):
        health.adopt(each, measured=measured)
        counted.append(health.counts)
    assert counted == [True, False, True, True]
    assert outcomes(health, [1]) == [True]
    health.adopt(DEFAULT_BREAKER, measured=False)

    assert (health.state, health.may(START + 20 * SECOND), health.counts) == (OPEN, False, True)


# -- open and probing --------------------------------------------------------------------------------------------------


def test_one_call_tries_whether_it_is_well_and_its_answer_closes_it() -> None:
    """From closed over open and probing to closed, with a clean slate."""
    health = tripped()
    then = START + 20 * SECOND
    assert (health.state, health.may(then - 1), health.may(then)) == (OPEN, False, True)
    assert health.claim(then)
    assert (health.state, health.may(then + SECOND), health.wait(then + SECOND)) == (PROBING, False, SECOND)
    health.answered(then + SECOND, 1_000_000)

    assert (health.state, health.may(then + SECOND), health.trips) == (CLOSED, True, 1)
    assert outcomes(health, [22] * 4) == [False] * 4


@pytest.mark.parametrize("askers", [1, 2, 500])
def test_one_call_alone_tries_it_however_many_ask(askers: int) -> None:
    """Nobody before its rest is over, the first one then, and nobody while that one is on its way."""
    health = tripped()
    then = START + 20 * SECOND
    assert [health.claim(then - 1) for _ in range(askers)] == [0] * askers

    for moment in (then, then + 20 * SECOND):
        numbers = [health.claim(moment) for _ in range(askers)]
        assert numbers[0] > 0
        assert numbers[1:] == [0] * (askers - 1)
        assert [health.claim(moment + 20 * SECOND - 1) for _ in range(askers)] == [0] * askers


def test_there_is_nothing_to_claim_of_one_that_is_well() -> None:
    """Calls pass there without a turn to take."""
    health = Health()

    assert (health.claim(START), health.state) == (0, CLOSED)


def test_a_call_that_begins_takes_nobodys_turn() -> None:
    """A call that was let through before it opened may be sent after that, and is only one more that it has."""
    health = tripped()
    then = START + 20 * SECOND
    health.begun()
    assert (health.state, health.may(then), health.busy) == (OPEN, True, 1)
    assert health.claim(then)
    health.begun()

    assert (health.state, health.busy) == (PROBING, 2)


@pytest.mark.parametrize(("retry_after", "rest"), [(0, 20 * SECOND), (90 * SECOND, 90 * SECOND)])
def test_a_probe_that_fails_lets_it_rest_again(retry_after: int, rest: int) -> None:
    """As long as the provider says, else as long as usual; that is no new trip."""
    health = tripped()
    then = START + 20 * SECOND
    probe = health.claim(then)

    assert not health.failed(then + SECOND, 503, "", retry_after, probe=probe)
    assert (health.state, health.trips) == (OPEN, 1)
    assert [health.may(then + SECOND + rest + late) for late in (-1, 0)] == [False, True]


def test_a_probe_that_is_refused_for_its_own_sake_closes_it() -> None:
    """Who can say that a call is wrong is well; a stranger's refusal may be of before, and tells nothing."""
    health = tripped()
    probe = health.claim(START + 20 * SECOND)
    health.failed(START + 21 * SECOND, 400, "")
    health.failed(START + 21 * SECOND, 400, "", probe=probe + 1)
    assert health.state == PROBING
    health.failed(START + 21 * SECOND, 400, "", probe=probe)

    assert health.state == CLOSED


def test_calls_that_were_sent_before_it_opened_do_not_close_it() -> None:
    """Others were on their way when it came to rest: that they end well, or are refused, says nothing of now."""
    health = Health()
    health.failed(START, 429, "", 60 * SECOND, others_well=True)
    health.answered(START + SECOND, 2_000_000)
    health.failed(START + SECOND, 400, "")
    assert (health.state, health.may(START + 59 * SECOND)) == (OPEN, False)
    health.claim(START + 60 * SECOND)
    health.answered(START + 61 * SECOND, 90_000_000)
    assert health.state == PROBING
    health.answered(START + 61 * SECOND, 500_000)

    assert health.state == CLOSED


def test_calls_that_fail_while_it_rests_can_only_make_that_longer() -> None:
    """The last of many calls that time out one after another counts."""
    health = Health()
    health.failed(START, 429, "", 60 * SECOND, others_well=True)
    health.failed(START + SECOND, 0, "upstream_timeout")
    assert not health.may(START + 59 * SECOND)
    health.failed(START + 50 * SECOND, 0, "upstream_timeout")

    assert [health.may(START + second * SECOND) for second in (69, 70)] == [False, True]


@pytest.mark.parametrize(("trip", "given_up"), [(20 * SECOND, 20 * SECOND), (MS, SECOND)])
def test_a_probe_that_is_never_heard_of_again_does_not_close_it_for_ever(trip: int, given_up: int) -> None:
    """After another rest somebody else may try, and what the lost one still says moves nothing."""
    health = tripped(BreakerRule(trip=trip))
    then = START + trip
    lost = health.claim(then)
    assert [health.may(then + given_up + late) for late in (-1, 0)] == [False, True]
    assert health.claim(then + given_up - 1) == 0
    probe = health.claim(then + given_up)
    assert probe not in (0, lost)
    health.gave_way(lost)
    health.failed(then + given_up, 400, "", probe=lost)
    health.failed(then + given_up, 503, "", probe=lost)
    assert (health.state, health.claim(then + given_up + trip - 1)) == (PROBING, 0)
    health.failed(then + given_up, 400, "", probe=probe)

    assert health.state == CLOSED


def test_a_probe_that_says_nothing_makes_way_for_the_next_one() -> None:
    """Its client went away before the deployment could answer."""
    health = tripped()
    probe = health.claim(START + 20 * SECOND)
    health.begun()
    health.over()
    health.gave_way(probe)

    assert (health.state, health.may(START + 20 * SECOND), health.busy) == (OPEN, True, 0)


def test_a_strangers_end_does_not_free_the_turn_of_the_one_that_tries() -> None:
    """A call of before that fails or says nothing lets no second one try beside the first."""
    health = tripped()
    then = START + 20 * SECOND
    probe = health.claim(then)
    for stranger in (0, probe + 1):
        health.gave_way(stranger)
        assert (health.state, health.claim(then)) == (PROBING, 0)
        health.failed(START, 503, "", probe=stranger)
        assert (health.state, health.claim(then)) == (PROBING, 0)
    health.gave_way(probe)

    assert (health.state, health.claim(then) > probe) == (OPEN, True)


def test_a_probe_of_before_does_not_close_one_that_opened_again() -> None:
    """An earlier one that was given up closed it after all: the later one's refusal says nothing of what came then."""
    health = tripped()
    health.claim(START + 20 * SECOND)
    later = health.claim(START + 40 * SECOND)
    health.answered(START + 41 * SECOND, 21_000_000)
    assert outcomes(health, [42] * 5) == [False] * 4 + [True]
    health.failed(START + 43 * SECOND, 400, "", probe=later)

    assert (health.state, health.may(START + 62 * SECOND - 1)) == (OPEN, False)


# -- calls and latency -------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=40))
def test_it_is_as_busy_as_calls_have_begun_and_not_ended(events: list[bool]) -> None:
    """An end without a beginning, as after a change of the configuration, makes nobody less than idle."""
    health, running = Health(), 0
    for begins in events:
        if begins:
            health.begun()
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


class Call(NamedTuple):
    """One that is on its way: since when, and its number where it is to try whether the deployment is well."""

    since: int
    probe: int


class Breaker(RuleBasedStateMachine):
    """Calls begin where they may and end as they like, against what the rule says of everything that happened."""

    @initialize(
        failures=st.integers(1, 4),
        percent=st.sampled_from((0, 50, 50, 80, 100)),
        interval=st.integers(1, 40),
        trip=st.integers(1, 30),
        trip_max=st.integers(1, 60),
        enabled=st.sampled_from((True, True, True, False)),
        measured=st.booleans(),
    )
    def begin(
        self, failures: int, percent: int, interval: int, trip: int, trip_max: int, enabled: bool, measured: bool
    ) -> None:
        self.rule = BreakerRule(enabled, failures, percent, interval * SECOND, trip * SECOND, trip_max * SECOND)
        self.measured = measured
        self.health = Health(self.rule, measured=measured)
        self.now = START
        self.calls: list[Call] = []
        #: All that was heard while it was closed, and whether that was a failure.
        self.heard: list[tuple[int, bool]] = []
        #: The rest that it was given, who tries, and since when.
        self.opened_at = 0
        self.rests_until = 0
        self.probe = 0
        self.probe_at = 0
        self.trips = 0

    # What the rule says.

    def may(self) -> bool:
        if not self.opened_at:
            return True
        lost = max(self.rule.trip, SECOND)
        return self.now >= self.rests_until and (not self.probe_at or self.now - self.probe_at >= lost)

    def failures(self) -> list[int]:
        return [moment for moment, bad in self.heard if bad]

    def well(self) -> None:
        failures = self.failures()
        if failures and self.now - failures[-1] > self.rule.interval:
            self.heard.clear()
        self.heard.append((self.now, False))

    def too_many(self) -> bool:
        since, part = self.now - self.rule.interval, self.rule.interval // 10
        if sum(since <= moment for moment in self.failures()) < self.rule.failures:
            return False
        first = [bad for _, bad in self.heard].index(True)
        share = [bad for moment, bad in self.heard[first:] if moment // part > since // part]
        return sum(share) * 100 >= len(share) * self.rule.percent

    def close(self) -> None:
        self.opened_at = self.probe = self.probe_at = 0
        self.heard.clear()

    def tries(self, call: Call) -> bool:
        return call.probe > 0 and call.probe == self.probe

    def rest(self, retry_after: int) -> int:
        return min(retry_after, self.rule.trip_max) if retry_after else self.rule.trip

    # What happens.

    @rule(milliseconds=st.integers(0, 15_000))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds * MS

    @rule()
    def it_rests_to_the_end(self) -> None:
        self.now = max(self.now, self.rests_until)

    @rule(askers=st.integers(1, 3))
    def calls_come(self, askers: int) -> None:
        numbers = [self.health.claim(self.now) for _ in range(askers)]
        tries = bool(self.opened_at) and self.may()
        assert [number > 0 for number in numbers] == [tries] + [False] * (askers - 1)
        if tries:
            self.probe, self.probe_at = numbers[0], self.now
        for number in numbers:
            if number or not self.opened_at:
                self.health.begun()
                self.calls.append(Call(self.now, number))

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 99))
    def one_is_answered(self, which: int) -> None:
        call = self.calls.pop(which % len(self.calls))
        self.health.answered(self.now, (self.now - call.since) // 1_000)
        self.health.over()
        if not self.opened_at:
            self.well()
        elif call.since >= self.opened_at:
            self.close()

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 99))
    def one_is_refused_for_its_own_sake(self, which: int) -> None:
        call = self.calls.pop(which % len(self.calls))
        assert not self.health.failed(self.now, 400, "", probe=call.probe)
        self.health.over()
        if not self.opened_at:
            self.well()
        elif self.tries(call):
            self.close()

    @precondition(lambda self: self.calls)
    @rule(
        which=st.integers(0, 99),
        status=st.sampled_from((0, 401, 403, 429, 500, 503)),
        seconds=st.sampled_from((0, 0, 1, 30, 10_000)),
        others_well=st.booleans(),
    )
    def one_fails(self, which: int, status: int, seconds: int, others_well: bool) -> None:
        call = self.calls.pop(which % len(self.calls))
        retry_after = seconds * SECOND if status else 0
        code = "" if status else "upstream_timeout"
        said = self.health.failed(self.now, status, code, retry_after, others_well=others_well, probe=call.probe)
        self.health.over()
        opens = False
        if not self.rule.enabled:
            pass
        elif self.opened_at:
            if self.tries(call):
                self.probe_at = 0
            self.rests_until = max(self.rests_until, self.now + self.rest(retry_after))
        else:
            self.heard.append((self.now, True))
            at_once = others_well and (status == 401 or (status == 429 and retry_after > 0))
            opens = at_once or self.too_many()
            if opens:
                self.opened_at, self.rests_until = self.now, self.now + self.rest(retry_after)
                self.trips += 1
        assert said is opens

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 99), gives_way=st.booleans())
    def one_is_lost(self, which: int, gives_way: bool) -> None:
        call = self.calls.pop(which % len(self.calls))
        self.health.over()
        if gives_way:
            self.health.gave_way(call.probe)
            if self.tries(call):
                self.probe_at = 0

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
    def calls_are_told_while_they_are_needed(self) -> None:
        assert self.health.counts is (self.measured or (self.rule.percent > 0 and bool(self.failures())))

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
