"""Whatever kind a limit is of, it inherits what admission promises, against a model that adds up every call.

A call is admitted exactly when it fits every limit that stops it, is held on all of them or on none, and ``posted +
held`` stays within the amount that is in force, through deposits, cuts, raises that begin and end, windows that end,
calls that ask for more, and clocks that are set back. ``make soak`` looks at 20,000 examples and more.
"""

from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.limits.plain_sums import FOREVER, Between, Call, Rate, counted, covered, level, spent
from faregate.core.amounts import UNITS, Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.admit import Allowances, CompiledLimit, LimitIndex, Reservation, Standing
from faregate.core.limits.terms import Action, Past, Raise, Terms
from faregate.core.limits.windows import HOUR, MINUTE, SECOND, window_of
from soaking import examples

NOON = 1_789_387_200 * SECOND
CONCURRENCY = UNITS.index("concurrency")


class Spec(NamedTuple):
    """A limit of the model: what it is compiled of, and when which of it was in force."""

    id: str
    fields: dict[str, Any]
    terms: Terms

    def compiled(self) -> CompiledLimit:
        """Ready for admission."""
        return CompiledLimit(id=self.id, terms=self.terms, **self.fields)


class Version(NamedTuple):
    """A limit as it stood from a moment on."""

    since: int
    limit: CompiledLimit


# -- the model ---------------------------------------------------------------------------------------------------------


def in_force(limit: CompiledLimit, at: int) -> int | None:
    """The amount at a moment: nothing bounds it before it begins and after it ends; the largest raise counts."""
    terms = limit.terms
    if at < terms.since or 0 < terms.until <= at or limit.amount is None:
        return None
    return max([limit.amount, *(each.amount for each in terms.raises if each.since <= at < each.until)])


def with_carried(calls: list[Call], versions: list[Version], who: Attribution, now: int) -> int | None:
    """The amount at a moment and what the window before left of its own."""
    limit = versions[-1].limit
    amount = in_force(limit, now)
    if amount is None or not limit.terms.carry_max:
        return amount
    start = window_of(limit.window, limit.zone, now)[0]
    start_before = window_of(limit.window, limit.zone, start - 1)[0]
    if start_before < limit.terms.carry_from:
        return amount
    last = [version.limit for version in versions if version.since <= start - 1] or [versions[0].limit]
    # Raises are the present ones: a raise that is taken back leaves nothing of itself.
    before = in_force(last[-1].__class__(**fields_of(last[-1], terms=limit.terms)), start - 1)
    spent_before = sum(call.weight(limit) for call in counted(calls, limit, who) if start_before <= call.at < start)
    return amount if before is None else amount + min(limit.terms.carry_max, max(0, before - spent_before))


def fields_of(limit: CompiledLimit, **other: Any) -> dict[str, Any]:
    """What a limit was compiled of."""
    return {
        "id": limit.id, "selector": dict(limit.selector), "each": limit.each, "unit": limit.unit_name,
        "amount": limit.amount, "window": limit.window, "zone": limit.zone, "terms": limit.terms,
        "mode": "hard" if limit.hard else "shadow" if limit.shadow else "soft", **other,
    }  # fmt: skip


def rates_of(versions: list[Version]) -> list[Rate]:
    """Which amounts drained when."""
    found: list[Rate] = []
    for version, end in zip(versions, [*(after.since for after in versions[1:]), FOREVER], strict=True):
        terms = version.limit.terms
        moments = {version.since, terms.since, terms.until}
        moments |= {moment for each in terms.raises for moment in (each.since, each.until)}
        acting = [moment for moment in sorted(moments) if version.since <= moment < end]
        found += [Rate(moment, in_force(version.limit, moment)) for moment in acting]
    return found


def takes_of(call: Call, limit: CompiledLimit) -> list[tuple[int, int]]:
    """What counts of a call, by moment: what it did not use is of its last takes."""
    left, found = call.weight(limit), []
    if limit.each:
        # The counter may have been idle for so long that it is gone: what exceeds the hold then counts nowhere.
        left = min(left, call.held[limit.unit])
    for place, (at, amounts) in enumerate(call.takes):
        last = place == len(call.takes) - 1
        part = left if last else min(left, amounts[limit.unit])
        found.append((at, part))
        left -= part
    return found


class Verdict(NamedTuple):
    """What the model says of one limit and one call."""

    must_refuse: bool
    may_refuse: bool
    counts: Between


def verdict(calls: list[Call], versions: list[Version], who: Attribution, wanted: int, now: int) -> Verdict:
    """Whether a limit has to refuse a call of ``wanted``, and whether it may."""
    limit = versions[-1].limit
    need = wanted if limit.terms.estimate else 1
    amount = with_carried(calls, versions, who, now)
    if limit.terms.algorithm:
        between = drained(calls, versions, who, now)
        top = None if amount is None else burst(limit, amount)
    else:
        between = spent(calls, limit, who, now)
        top = amount
    stops = [amount * action.percent // 100 for action in limit.terms.actions if amount is not None]
    tops = [*([top] if top is not None and (limit.hard or limit.shadow) else []), *stops]
    if not tops:
        return Verdict(False, False, between)
    return Verdict(between.least + need > min(tops), between.most + need > min(tops), between)


def burst(limit: CompiledLimit, amount: int) -> int:
    """What passes at once."""
    if amount == 0:
        return 0
    if limit.terms.burst:
        return min(limit.terms.burst, amount)
    return max(1, amount // 10) if limit.unit_name == "requests" else amount


def drained(calls: list[Call], versions: list[Version], who: Attribution, now: int) -> Between:
    """What has not drained: at least by what was used at the pace in force, at most by what was held at the slowest."""
    limit, rates = versions[-1].limit, rates_of(versions)
    mine = counted(calls, limit, who)
    used = [take for call in mine for take in takes_of(call, limit)]
    held = [(at, amounts[limit.unit]) for call in mine for at, amounts in call.takes]
    # What was used beyond the hold may be filled in when the call ends.
    held += [(call.ended_at, max(0, call.weight(limit) - call.held[limit.unit])) for call in mine]
    if not limit.terms.estimate:
        used = held = [(call.ended_at, call.weight(limit)) for call in mine if call.posted is not None]
    paces = [rate.amount for rate in rates] + [in_force(version.limit, version.since) for version in versions]
    slowest = min((pace for pace in paces if pace is not None), default=0)
    least = level(used, rates, limit.period, now)
    most = level(held, [Rate(0, slowest)], limit.period, now)
    return Between(-(-least // limit.period), -(-most // limit.period))


# -- the limits --------------------------------------------------------------------------------------------------------

small = st.sampled_from((0, 0, 1, 2, 5, 8))
sizes = st.sampled_from((0, 1, 2, 5, 8, 8))
calls_of = st.tuples(sizes, sizes).map(lambda two: Amounts(usd=two[0], tokens=two[1], requests=1, concurrency=1))
people = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from(("", "p", "q"))).map(
    lambda names: Attribution(team=names[0], user=names[1], end_user=names[2])
)
nobody: dict[str, str] = {}
selectors = st.sampled_from((nobody, nobody, nobody, {"team": "a"}, {"user": "x"}))
eachs = st.sampled_from(((), (), (), ("user",), ("team", "end_user")))
amounts = st.one_of(st.integers(0, 15), st.integers(4, 20), st.integers(4, 20), st.none())
modes = st.sampled_from(("hard", "hard", "hard", "soft", "shadow"))
moments = st.sampled_from((1, SECOND, 30 * SECOND, MINUTE, 10 * MINUTE, HOUR, 25 * HOUR)).map(
    lambda after: NOON + after
)
raises = st.lists(
    st.builds(lambda amount, since, length: Raise(amount, since, since + length), st.integers(0, 25), moments, moments),
    max_size=2,
).map(lambda found: tuple(each._replace(until=each.until - NOON) for each in found))
periods_in_force = st.one_of(
    st.just((0, 0)), st.just((0, 0)), st.tuples(moments, moments).filter(lambda ab: ab[0] < ab[1])
)
stops = st.one_of(st.just(()), st.just(()), st.builds(lambda at: (Action("stop", at),), st.integers(30, 100)))


def made(window: st.SearchStrategy[str], units: tuple[str, ...], terms: st.SearchStrategy[Terms]) -> Any:
    """Limits over windows of one kind."""
    return st.builds(
        lambda selector, each, unit, amount, window, mode, zone, terms, span, more: (
            {
                "selector": selector, "each": each, "unit": unit, "amount": amount, "window": window, "mode": mode,
                "zone": zone,
            },
            terms._replace(since=span[0], until=span[1], raises=() if amount is None else more),
        ),
        selectors, eachs, st.sampled_from(units), amounts, window, modes,
        st.sampled_from((None, ZoneInfo("Asia/Kolkata"))), terms, periods_in_force, raises,
    )  # fmt: skip


COUNTED = ("usd", "tokens", "requests")
calendar = made(
    st.sampled_from(("second", "minute", "hour", "day", "lifetime")),
    COUNTED,
    stops.map(lambda actions: Terms(actions=actions)),
)
carrying = made(st.sampled_from(("day", "week")), COUNTED, st.integers(1, 12).map(lambda most: Terms(carry_max=most)))
rolling = made(
    st.sampled_from(("rolling 1s", "rolling 7s", "rolling 1m", "rolling 24h")),
    COUNTED,
    stops.map(lambda actions: Terms(actions=actions)),
)
smooth = made(
    st.sampled_from(("second", "minute", "rolling 7s")),
    COUNTED,
    st.sampled_from((0, 0, 1, 4)).map(lambda at_once: Terms(algorithm="smooth", burst=at_once)),
)
unestimated = made(
    st.sampled_from(("minute", "day", "rolling 1m")),
    ("usd", "tokens"),
    st.sampled_from((Terms(estimate=False), Terms(estimate=False, algorithm="smooth"))),
)
slots = made(st.just(""), ("concurrency",), st.just(Terms()))


def sane(found: tuple[dict[str, Any], Terms]) -> tuple[dict[str, Any], Terms]:
    """What nobody may set is not asked for: see ``term_rules``."""
    fields, terms = found
    if fields["mode"] == "shadow" or terms.algorithm:
        terms = terms._replace(actions=())
    if fields["window"] == "day":
        terms = terms._replace(algorithm="")
    if terms.carry_max and fields["amount"] is None:
        fields = fields | {"amount": 7}
    return fields, terms


class Kind(NamedTuple):
    """Limits of one kind, and how long one waits for something to happen to them."""

    limits: st.SearchStrategy[tuple[dict[str, Any], Terms]]
    waits: tuple[int, ...]

    def specs(self) -> st.SearchStrategy[list[Spec]]:
        """A few of them at once."""
        rows = st.lists(self.limits.map(sane), min_size=1, max_size=3)
        return rows.map(lambda found: [Spec(f"lim_{number}", *row) for number, row in enumerate(found)])

    def steps(self) -> st.SearchStrategy[list[tuple[Any, ...]]]:
        """What happens to a gate that has them."""
        which = st.integers(0, 30)
        waits = st.tuples(st.just("wait"), st.sampled_from((1, SECOND, *self.waits, *self.waits)), small)
        edges = st.tuples(st.just("edge"), which, st.sampled_from((-1, 0, 1)))
        return st.lists(
            st.one_of(
                st.tuples(st.just("ask"), people, calls_of),
                st.tuples(st.just("ask"), people, calls_of),
                st.tuples(st.just("ask"), people, calls_of),
                waits,
                edges,
                st.tuples(st.just("settle"), which, small),
                st.tuples(st.just("release"), which, small),
                st.tuples(st.just("more"), which, small),
                st.tuples(st.just("back"), st.sampled_from((1, SECOND, HOUR)), small),
                st.tuples(st.just("amount"), which, st.integers(0, 20)),
                st.tuples(st.just("raise"), which, st.integers(1, 25)),
                st.tuples(st.just("mode"), which, st.sampled_from(("hard", "soft", "shadow"))),
            ),
            min_size=10,
            max_size=50,
        )


SHORT = (SECOND // 60, SECOND // 2, 7 * SECOND, 20 * SECOND, MINUTE)
KINDS = {
    "calendar": Kind(calendar, (SECOND // 2, 20 * SECOND, 25 * MINUTE, 13 * HOUR)),
    "carrying": Kind(carrying, (6 * HOUR, 12 * HOUR, 24 * HOUR, 7 * 24 * HOUR)),
    "rolling": Kind(rolling, (*SHORT, 12 * HOUR)),
    "smooth": Kind(smooth, SHORT),
    "without an estimate": Kind(unestimated, (*SHORT, 13 * HOUR)),
    "slots": Kind(slots, (SECOND, MINUTE)),
    "several": Kind(
        st.one_of(calendar, carrying, rolling, smooth, unestimated, slots), (SECOND // 2, 7 * SECOND, MINUTE, 13 * HOUR)
    ),
}


# -- the gate beside the model -----------------------------------------------------------------------------------------


class Both:
    """Allowances and the model, asked the same."""

    def __init__(self, specs: list[Spec]) -> None:
        self.specs = specs
        self.now = NOON
        self.behind = 0
        self.versions = {spec.id: [Version(NOON, spec.compiled())] for spec in specs}
        self.allowances = Allowances()
        self.calls: list[Call] = []
        self.reservations: list[Reservation] = []
        self.replace()
        for id in self.allowances.pending():
            self.allowances.open_balance(id, [], NOON)

    def wall(self) -> int:
        """The wall clock, which may have been set back."""
        return self.now - self.behind

    def limits(self) -> list[CompiledLimit]:
        """The limits as they stand."""
        return [versions[-1].limit for versions in self.versions.values()]

    def replace(self) -> None:
        """Work by the limits as they stand, by standings of their own."""
        self.index = LimitIndex(self.limits())
        self.allowances.replace_limits(self.index, self.wall())
        self.standings: dict[Attribution, Standing] = {}

    def do(self, step: str, first: Any, second: Any) -> None:
        """One step."""
        if step == "wait":
            self.now, self.behind = self.now + first, 0
            # Time is what allowances were last told.
            list(self.allowances.views(self.now, ()))
        elif step == "edge":
            self.do("wait", max(0, self.edge(first) + second - self.now), 0)
        elif step == "back":
            self.behind += first
        elif step == "ask":
            self.ask(first, second)
        elif step in ("amount", "raise", "mode"):
            self.change(step, self.specs[first % len(self.specs)].id, second)
        elif self.calls:
            number = first % len(self.calls)
            if step == "more":
                self.more(number, Amounts(usd=second, tokens=second))
            else:
                self.end(number, step, second)

    def edge(self, pick: int) -> int:
        """A moment to come at which something ends: a window, what a call took of a rolling one, or a raise."""
        found = {self.now}
        for limit in self.limits():
            if limit.paced:
                lengths = (limit.period, limit.period + limit.period // 60)
                found |= {at + length for call in self.calls for at, _ in call.takes for length in lengths}
            else:
                found.add(window_of(limit.window, limit.zone, self.now)[1])
            found |= {each.until for each in limit.terms.raises} | {limit.terms.since, limit.terms.until}
        ahead = sorted(moment for moment in found if moment >= self.now)
        return ahead[pick % min(4, len(ahead))]

    def ask(self, who: Attribution, wanted: Amounts) -> None:
        """A call is held exactly where it fits; a refusal names whom it does not, and leaves nothing behind."""
        standing = self.standings.setdefault(who, Standing(who, self.index.matching(who)))
        verdicts = {
            id: verdict(self.calls, versions, who, wanted[versions[-1].limit.unit], self.now)
            for id, versions in self.versions.items()
            if covered(versions[-1].limit, who)
        }
        shadows = {limit.id for limit in self.limits() if limit.shadow}
        must = {id for id, each in verdicts.items() if each.must_refuse}
        may = {id for id, each in verdicts.items() if each.may_refuse}
        before = self.figures()
        outcome = self.allowances.reserve("req", standing, wanted, self.wall())
        if isinstance(outcome, Reservation):
            assert must - shadows == set()
            assert must & shadows <= set(outcome.shadowed) <= may & shadows
            assert outcome.admitted_at == self.now
            self.calls.append(Call(who, self.now, wanted))
            self.reservations.append(outcome)
        else:
            named = {outcome.limit.id, *outcome.others}
            assert must - shadows <= named <= may - shadows
            told = verdicts[outcome.limit.id].counts
            assert told.least <= outcome.posted + outcome.held <= told.most
            assert self.figures() == before

    def more(self, number: int, more: Amounts) -> None:
        """A call that runs asks for more: it gets it on everything it holds on, never above a limit, or on nothing."""
        call, before = self.calls[number], self.figures()
        if not self.allowances.extend(self.reservations[number], more, self.wall()):
            assert self.figures() == before
            return
        assert call.posted is None
        call.takes.append((self.now, more))
        for versions in self.versions.values():
            limit = versions[-1].limit
            if more[limit.unit] and limit.hard and limit.terms.estimate and covered(limit, call.who):
                self.within(versions, call)

    def within(self, versions: list[Version], call: Call) -> None:
        """What the window of a call that was extended counts, and the one that is carried to, is within the amount."""
        limit = versions[-1].limit
        if limit.terms.algorithm:
            return
        start, end = window_of(limit.window, limit.zone, call.at)
        if not limit.rolling and not (start <= self.now < (end or FOREVER)):
            amount = in_force(limit, self.now)
            total = sum(each.weight(limit) for each in counted(self.calls, limit, call.who) if start <= each.at < end)
            assert amount is None or limit.terms.carry_max or total <= amount
        counts = verdict(self.calls, versions, call.who, 0, self.now)
        assert not counts.must_refuse

    def end(self, number: int, step: str, used: int) -> None:
        """A call ends, once: it posts what it used, which is now and then more than it held."""
        call, reservation = self.calls[number], self.reservations[number]
        posted = Amounts() if step == "release" else call.held._replace(usd=used, tokens=used, concurrency=0)
        end = self.allowances.release(reservation) if step == "release" else self.allowances.settle(reservation, posted)
        assert end is (call.posted is None)
        if end:
            call.posted, call.ended_at = posted, self.now

    def change(self, step: str, id: str, figure: Any) -> None:
        """A deposit or a cut, a raise from now on, or another mode."""
        limit = self.versions[id][-1].limit
        terms, fields = limit.terms, {}
        if limit.amount is None or (step == "mode" and terms.actions):
            return
        if step == "amount":
            fields["amount"] = figure
            terms = terms._replace(history=(*terms.history, Past(self.now, limit.amount)))
        elif step == "raise":
            terms = terms._replace(raises=(*terms.raises, Raise(figure, self.now, self.now + 20 * SECOND)))
        else:
            fields["mode"] = figure
        self.versions[id].append(Version(self.now, CompiledLimit(**fields_of(limit, terms=terms, **fields))))
        self.replace()

    def figures(self) -> dict[tuple[str, tuple[str, ...]], tuple[int, int]]:
        """(Limit, subject) → (posted, held), where there is anything."""
        return {
            (view.limit, view.subject): (view.posted, view.held)
            for view in self.allowances.views(self.wall())
            if view.posted or view.held
        }

    def check(self) -> None:
        """Every counter says what the calls add up to, and what is in force; the money held is that of open calls."""
        by_id = {limit.id: limit for limit in self.limits()}
        for view in self.allowances.views(self.wall()):
            limit = by_id[view.limit]
            named = dict(limit.selector) | dict(zip(limit.each, view.subject, strict=True))
            like = Attribution()._replace(**named)  # type: ignore[arg-type]
            versions = self.versions[view.limit]
            counts = verdict(self.calls, versions, like, 0, self.now).counts
            amount = with_carried(self.calls, versions, like, self.now)
            bursts = limit.terms.algorithm and amount is not None
            assert view.amount == (burst(limit, amount) if bursts and amount is not None else amount)
            assert counts.least <= view.posted + view.held <= counts.most
        open_calls = [call for call in self.calls if call.posted is None]
        assert self.allowances.held_total_usd == sum(call.held.usd for call in open_calls)
        assert self.allowances.open_count == len(open_calls)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(40, 3_000), deadline=None)
@given(drawn=st.data())
def test_every_kind_of_limit_agrees_with_the_sum_of_its_calls(kind: str, drawn: st.DataObject) -> None:
    """Calls are admitted exactly when they fit every limit that stops them, by the sum over all calls so far."""
    both = Both(drawn.draw(KINDS[kind].specs()))
    for step, first, second in drawn.draw(KINDS[kind].steps()):
        both.do(step, first, second)
        both.check()
