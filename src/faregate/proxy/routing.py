"""Step 5 at the gate: the deployments of a name in the order of this moment, and what is heard of each of them.

The decisions are ``core.routing``'s. Here is what they go by: the health of every deployment, which outlives the
snapshots, and for each way that calls go (``Lane``) the orders that can be known beforehand, so that a call whose
deployments are all well pays one look into a tuple.
"""

from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from math import lcm
from typing import TYPE_CHECKING, Final

from faregate.control import Catalogue, Key, RestingDeployment, Sample
from faregate.core.routing.choose import (
    BY_TURN,
    USUAL_TOKENS,
    Choice,
    Fact,
    Forbidden,
    PoolRule,
    choose,
    first_choices,
    groups_of,
    priority_of,
    ranges_for,
)
from faregate.core.routing.health import SECOND, BreakerRule, Health
from faregate.core.routing.retry import RetryRule
from faregate.core.routing.ways import Caller, chosen, fits
from faregate.errors import Problem

if TYPE_CHECKING:
    from faregate.proxy.described import Described
    from faregate.proxy.exchange import Exchange
    from faregate.proxy.snapshot import Snapshot, Target

#: Places in all orders that are made beforehand; pools with more turns and members are put in order call by call.
_ORDERED_MAX: Final = 8_192

#: Digits of a wait that are read: more of them are ages, too.
_DIGITS_MAX: Final = 12

#: Strategies that go by more than failures.
_COUNTING: Final = frozenset(("least_busy", "latency"))

_ALL_WELL: Final = Fact()


class Deployments:
    """The health of every deployment, by name; it stays when the configuration changes."""

    __slots__ = ("_by_name", "_monotonic_nanos", "_tell", "resting")

    def __init__(self, tell: Callable[[str, bool], None], monotonic_nanos: Callable[[], int]) -> None:
        """``tell`` hears of a deployment that it rests from now on (true), or takes calls as ever again (false)."""
        self._by_name: dict[str, Health] = {}
        self._tell = tell
        self._monotonic_nanos = monotonic_nanos
        #: How many do not take calls as ever: while it is 0 nobody has to look.
        self.resting = 0

    def prepared(self, catalogue: Catalogue) -> dict[str, Health]:
        """The health of all that a catalogue names: what is known of them, or a new one; nothing is changed yet."""
        return {each.name: self._by_name.get(each.name) or Health() for each in catalogue.deployments}

    def adopt(self, catalogue: Catalogue, prepared: dict[str, Health]) -> None:
        """Go by the rules of another catalogue; what is no longer in it is forgotten."""
        rules: dict[str, tuple[BreakerRule, bool]] = {}
        for pool in catalogue.pools:
            for name in pool.rule.deployments:
                rule, measured = rules.get(name, (pool.breaker, False))
                rules[name] = rule, measured or pool.rule.strategy in _COUNTING
        for name, health in prepared.items():
            rule, measured = rules.get(name, (catalogue.breaker, False))
            health.adopt(rule, measured=measured)
        self._by_name = prepared
        self.resting = sum(not health.closed for health in prepared.values())

    def samples(self) -> tuple[Sample, ...]:
        """How often each has come to rest since the gate began."""
        return tuple(
            Sample("faregate_deployment_trips_total", (("deployment", name),), health.trips)
            for name, health in self._by_name.items()
            if health.trips
        )

    def told(self, now: int) -> tuple[RestingDeployment, ...]:
        """Those that rest now."""
        return tuple(
            RestingDeployment(name, health.state, health.wait(now) // 1_000_000)
            for name, health in self._by_name.items()
            if not health.closed
        )

    def failed(
        self, target: "Target", lane: "Lane | None", status: int, code: str, retry_after: int = 0, probe: int = 0
    ) -> None:
        """A deployment failed, or answered what may be a failure by its rule."""
        health, now = target.health, self._monotonic_nanos()
        before = health.closed
        others = lane is not None and any(each.health.closed for each in lane.members if each is not target)
        health.failed(now, status, code, retry_after, others_well=others, probe=probe)
        self._changed(target.name, health, before)

    def answered(self, target: "Target", latency_us: int, sent_at: int) -> None:
        """A deployment answered as it should."""
        health, now = target.health, self._monotonic_nanos()
        before = health.closed
        health.answered(now, latency_us, sent_at)
        self._changed(target.name, health, before)

    def _changed(self, name: str, health: Health, before: bool) -> None:
        if health.closed is before:
            return
        self._tell(name, before)
        if self._by_name.get(name) is health:
            self.resting += 1 if before else -1


class Lane:
    """One way that calls go: the deployments of a name that a kind of caller may use for an operation."""

    __slots__ = (
        "_by_name",
        "_facts",
        "_given_back",
        "_orders",
        "_ranges",
        "_rules",
        "fixed",
        "members",
        "retry",
        "steps",
        "sticky",
        "timeout_ms",
        "turn",
    )

    def __init__(
        self,
        rules: Sequence[PoolRule],
        members: tuple["Target", ...],
        ranges: tuple[int, ...],
        retry: RetryRule | None = None,
        timeout_ms: int = 0,
    ) -> None:
        self.members = members
        self.retry = retry
        #: Of the longest answer along this way, 0 where only providers say.
        self.timeout_ms = timeout_ms
        #: Deployment → how it is used here, where that is not as everywhere.
        self.steps = {
            each.deployment: each for rule in rules for each in rule.members if each.params or each.timeout_ms
        }
        self.turn = 0
        #: Turns of calls that were never sent, for those who come next.
        self._given_back: list[int] = []
        self._by_name = {target.name: target for target in members}
        self._rules = tuple(rules)
        self._ranges = ranges
        self._facts: dict[str, Fact] = dict.fromkeys(self._by_name, _ALL_WELL)
        #: By what a caller is known that is to stay where it was, in the order in which they are looked at.
        self.sticky = tuple(dict.fromkeys(rule.sticky for rule in rules if rule.sticky))
        self._orders = self._known_orders()
        #: The only order there is, where all are well.
        self.fixed = self._orders[0] if len(self._orders) == 1 else ()

    def _known_orders(self) -> tuple[tuple["Target", ...], ...]:
        if self.sticky or any(rule.strategy not in BY_TURN for rule in self._rules):
            return ()
        rounds = 1
        for rule in self._rules:
            for group in groups_of(rule):
                usable = [member for member in group if member.deployment in self._by_name]
                rounds = lcm(rounds, max(1, len(first_choices(rule, usable))))
        if rounds * len(self.members) > _ORDERED_MAX:
            return ()
        orders = (choose(self._rules, self._facts, turn, self._ranges).order for turn in range(rounds))
        return tuple(tuple(self._by_name[name] for name in order) for order in orders)

    def take(self, all_well: bool, now: int, wall_now: int, known_by: bytes) -> tuple[int, tuple["Target", ...]]:
        """The number of this turn, and the deployments in its order without those that rest; none where all of them do.

        Who sends nothing in the end gives the turn back, or the shares were those of calls that no deployment saw.
        """
        if self._given_back:
            turn = self._given_back.pop()
        else:
            turn = self.turn
            self.turn = turn + 1
        orders = self._orders
        if orders and (all_well or all(target.health.closed for target in self.members)):
            return turn, orders[turn % len(orders)]
        return turn, tuple(self._by_name[name] for name in self.choice(turn, now, wall_now, known_by).order)

    def give_back(self, turn: int) -> None:
        """A turn in which nothing was sent is the next caller's."""
        self._given_back.append(turn)

    def longest_ms(self, deployment: str) -> int:
        """Milliseconds that an answer of a deployment may take along this way, 0 where only its provider says."""
        step = self.steps.get(deployment)
        own = step.timeout_ms if step is not None else 0
        return min(own, self.timeout_ms) if own and self.timeout_ms else own or self.timeout_ms

    def first(self, now: int) -> "Target | None":
        """One that may be called now, whose turn need not be next."""
        return next((target for target in self.members if target.health.may(now)), None)

    def reachable(self) -> tuple["Target", ...]:
        """All that its callers may be sent to, as if each of them were well."""
        return tuple(self._by_name[name] for name in choose(self._rules, self._facts, 0, self._ranges).order)

    def choice(self, turn: int, now: int, wall_now: int, known_by: bytes) -> Choice:
        """The order and its reasons, by the facts of this moment."""
        facts = {target.name: _fact(target, now, wall_now) for target in self.members}
        return choose(self._rules, facts, turn, self._ranges, known_by)

    def rest(self, now: int) -> int:
        """Whole seconds until the first of those that rest may be tried again, 0 where none rests."""
        waits = [target.health.wait(now) for target in self.members if not target.health.closed]
        return max(1, -(-min(waits) // SECOND)) if waits else 0

    def wait(self, now: int) -> int:
        """Whole seconds until one of them may be tried again, at least one."""
        return self.rest(now) or 1


def _fact(target: "Target", now: int, wall_now: int) -> Fact:
    health = target.health
    tariff = target.prices.at(wall_now)
    # What has no price costs more than all that has: it is refused where it comes to it.
    cost = tariff.bound(*USUAL_TOKENS) if tariff is not None else 1 << 62
    return Fact(health.may(now), health.busy, health.latency(now), cost)


def lane_for(
    snapshot: "Snapshot", model: str, operation: str, key: Key, described: "Described", priority_header: bytes
) -> Lane | Problem | None:
    """The lane of a caller; ``None`` where no deployment of the name does the operation (if one is named) for it.

    It is a problem to ask for a priority that is not for everybody, where its pool refuses that.

    Lanes are made when they are first asked for and gone with the snapshot. There are as many as there are models,
    operations, stages and rules, never as many as callers.
    """
    rows = snapshot.pooled.get(model)
    stage = described.stage or key.stage
    stage = stage if stage in snapshot.stages else ""
    at, priority = -1, None
    ranges: tuple[int, ...] = ()
    if rows is not None:
        if rows.selected:
            at = chosen([each.who for each in rows.selected], _caller(key, described))
        if priority_header:
            priority = priority_of(priority_header)
    if priority is None:
        # Nearly every call that does not repeat a head comes here: its lane is known.
        known = snapshot.lanes.get((model, operation, stage, at, ranges))
        if known is not None:
            return known
    rules = snapshot.rules_of(model, at)
    if priority is not None:
        found = ranges_for(rules, priority, lambda who: fits(who, _caller(key, described)), key.priorities)
        if isinstance(found, Forbidden):
            text = f"Priority: this key may not use {found}."
            return Problem("priority_forbidden", text, "Priority")
        ranges = found
    place = (model, operation, stage, at, ranges)
    lane = snapshot.lanes.get(place)
    if lane is None:
        lane = _lane(snapshot, model, operation, stage, rules, ranges)
        if lane is not None:
            snapshot.lanes[place] = lane
    return lane


def _lane(
    snapshot: "Snapshot", model: str, operation: str, stage: str, rules: Sequence[PoolRule], ranges: tuple[int, ...]
) -> Lane | None:
    allowed = snapshot.stages.get(stage)
    named = {name for rule in rules for name in rule.deployments}
    members = tuple(
        target
        for target in snapshot.routes.get(model, ())
        if target.name in named
        and (not operation or operation in target.operations)
        and (allowed is None or target.provider.name in allowed)
    )
    if not members:
        return None
    route = snapshot.pooled.get(model)
    return Lane(rules, members, ranges, snapshot.retry_of(rules), route.timeout_ms if route is not None else 0)


def _caller(key: Key, described: "Described") -> Caller:
    return Caller(
        key.organization,
        key.team,
        described.project or key.project,
        described.product or key.product,
        described.stage or key.stage,
        described.user or key.user,
        key.id,
        key.name,
    )


def arrange(exchange: "Exchange", lane: Lane) -> Problem | None:
    """Put the candidates of a call in the order of this moment."""
    gate = exchange.gate
    known = b""
    if lane.sticky:
        key = exchange.key
        assert key is not None
        known = known_by(key, exchange.described, exchange.call.end_user, lane.sticky)
    now = gate.monotonic_nanos()
    exchange.give_turn_back()
    exchange.lane = lane
    # Another place may be first now, which other limits hold.
    exchange.match = None
    exchange.turn, exchange.candidates = lane.take(not gate.deployments.resting, now, gate.wall_nanos(), known)
    if exchange.candidates:
        return None
    return resting(exchange.call.model, lane.wait(now))


def nowhere(targets: Sequence["Target"], snapshot: "Snapshot", stage: str, model: str, operation: str) -> Problem:
    """Why a caller has no way to a model or service, whose places for anybody are ``targets``: they only tell that."""
    allowed = snapshot.stages.get(stage)
    if targets and allowed is not None and not any(target.provider.name in allowed for target in targets):
        return Problem("stage_forbidden", f"Stage {stage} has no provider for this model.", "model")
    return Problem("model_not_found", f"Model {model[:64]!r} is not configured for {operation}.", "model")


def resting(model: str, wait_s: int) -> Problem:
    """Every deployment of a name rests."""
    text = f"Every deployment of {model[:64]!r} has failed too often and rests; nothing was sent or charged."
    return Problem("upstream_resting", text, "model", retry_after_s=wait_s)


def known_by(key: Key, described: "Described", end_user: str, sticky: Sequence[str]) -> bytes:
    """What a caller stays by; empty where it says nothing of that kind. ``end_user`` is whom its body names."""
    for name in sticky:
        if name == "key":
            found = key.id
        elif name == "run":
            found = described.run
        else:
            found = described.end_user or end_user or key.user
        if found:
            return f"{key.organization}\n{found}".encode()
    return b""


def retry_after(head: bytes, wall_now: int) -> int:
    """Nanoseconds that a provider asks for by ``Retry-After`` or ``retry-after-ms`` in a head, 0 for nothing said.

    Seconds or a date, as RFC 9110 section 10.2.3 has it; the other one is OpenAI's and Azure's own.
    """
    told = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name, text = name.strip().lower(), value.strip()
        if name == b"retry-after-ms" and text.isdigit():
            return _number(text) * 1_000_000
        if name == b"retry-after":
            if text.isdigit():
                told = _number(text) * SECOND
            else:
                told = max(0, _moment(text) - wall_now)
    return told


def _number(text: bytes) -> int:
    """A number of any length, where more than some digits only say that it is long."""
    return int(text) if len(text) <= _DIGITS_MAX else 10**_DIGITS_MAX


def _moment(text: bytes) -> int:
    try:
        return int(parsedate_to_datetime(text.decode("latin-1")).timestamp()) * SECOND
    except (ValueError, OverflowError, OSError):
        return 0
