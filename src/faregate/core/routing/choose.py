"""Which deployments a call is tried at, in which order, and why: a function of the pool, their health and a turn.

A route is one or several *pools* in order; a deployment that is named by itself is a pool of one. Within a pool its
groups follow each other, and the pool's strategy orders each group. Nothing here is random: *turns* are counted, so
that shares are exact, and a caller that is to stay where it was is found again by what it is known by.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from math import gcd
from typing import Final, NamedTuple

from faregate.core.priorities import PRIORITY_MAX, admitted

STRATEGIES: Final = ("ordered", "weighted", "round_robin", "least_busy", "latency", "cost")

#: Those whose order is known before the call is: it depends on the turn alone.
BY_TURN: Final = frozenset(("ordered", "weighted", "round_robin"))

#: By position, what the entries of a pool's ``priority`` are for where they do not say so.
USUAL_RANGES: Final = ((0, 100), (101, 500), (501, 1_000))

WEIGHT_MAX: Final = 100

#: Input and output tokens of the call by which the cost of places is compared.
USUAL_TOKENS: Final = (1_000, 500)


class Member(NamedTuple):
    """A deployment of a pool."""

    deployment: str
    #: Its share of the turns, in ``weighted``.
    weight: int = 1
    #: Lower ones are used first; the next one's only where none of these may be called.
    group: int = 1
    #: Members that are put into the body of a call that goes there, as ``(name, JSON text)``.
    params: tuple[tuple[str, str], ...] = ()
    #: Milliseconds that its whole answer may take along this way, 0 where only its provider says.
    timeout_ms: int = 0


class Range(NamedTuple):
    """Who sends a ``Priority`` within it, both ends included, is tried at these first, in order."""

    low: int
    high: int
    use: tuple[str, ...]
    #: For these callers only, each as ``(field, value)`` that must hold of it; for everybody where there are none.
    only: tuple[tuple[tuple[str, str], ...], ...] = ()


class PoolRule(NamedTuple):
    """Deployments that stand in for each other."""

    #: Empty for a deployment that is named by itself.
    name: str
    members: tuple[Member, ...]
    strategy: str = "ordered"
    ranges: tuple[Range, ...] = ()
    #: What a caller is known by who is to stay at one deployment: ``key``, ``user``, ``run``; empty for nobody.
    sticky: str = ""
    #: Who asks for a range that is not for it is refused; otherwise the next one below counts that is.
    refuses: bool = False

    @property
    def deployments(self) -> tuple[str, ...]:
        """All that it may lead to, each once."""
        return tuple(
            dict.fromkeys((*(each.deployment for each in self.members), *(n for each in self.ranges for n in each.use)))
        )


class Fact(NamedTuple):
    """What a choice goes by at this moment."""

    #: It may be called: its breaker is closed, or waits for somebody to try.
    may: bool = True
    busy: int = 0
    latency_us: int = 0
    #: Nano-dollars that a usual call costs there.
    cost: int = 0


class Choice(NamedTuple):
    """Where to try, in this order; and what was left out, with why."""

    order: tuple[str, ...]
    resting: tuple[str, ...] = ()
    why: tuple[str, ...] = ()


def priority_of(text: bytes) -> int | None:
    """The number of a ``Priority`` header; ``None`` for what is missing, no number, or out of 0 … 1000.

    Whoever says nothing, or nonsense, is nobody of importance: such a call goes where all calls go (CAPABILITIES D3).
    """
    text = text.strip()
    if not text.isdigit() or len(text) > 4:
        return None
    number = int(text)
    return number if number <= PRIORITY_MAX else None


# Weights without a common divisor make thousands of turns: too many to be found again for each call.
@lru_cache(maxsize=256)
def schedule(weights: tuple[int, ...]) -> tuple[int, ...]:
    """A sequence of positions in which each occurs as often as its weight, as evenly spread as can be.

    Smooth weighted round robin, as nginx has it: each turn everyone gains its weight, the richest is served and pays
    the sum of all.
    """
    if not weights:
        return ()
    divisor = gcd(*weights)
    shares = [weight // divisor for weight in weights]
    total = sum(shares)
    credit = [0] * len(shares)
    found: list[int] = []
    for _ in range(total):
        credit = [have + share for have, share in zip(credit, shares, strict=True)]
        best = max(range(len(credit)), key=lambda each: (credit[each], -each))
        credit[best] -= total
        found.append(best)
    return tuple(found)


def first_choices(rule: PoolRule, members: Sequence[Member]) -> tuple[int, ...]:
    """Who is first at each turn, as a position among ``members`` of one group; one for strategies without turns."""
    if rule.strategy == "weighted":
        return schedule(tuple(member.weight for member in members))
    if rule.strategy == "ordered":
        return (0,)
    return tuple(range(len(members)))


def at_home(known_by: bytes, members: Sequence[Member]) -> int:
    """The position at which somebody stays, by share of the weights; the same for as long as the members are."""
    number = int.from_bytes(blake2b(known_by, digest_size=8).digest(), "big") % sum(each.weight for each in members)
    for position, member in enumerate(members):
        number -= member.weight
        if number < 0:
            return position
    raise AssertionError("a weight is at least 1")


def groups_of(rule: PoolRule) -> tuple[tuple[Member, ...], ...]:
    """The members, group by group, each in the order in which they were written."""
    found: dict[int, list[Member]] = {}
    for member in rule.members:
        found.setdefault(member.group, []).append(member)
    return tuple(tuple(found[group]) for group in sorted(found))


def choose(
    rules: Sequence[PoolRule],
    facts: Mapping[str, Fact],
    turn: int,
    ranges: Sequence[int] = (),
    known_by: bytes = b"",
) -> Choice:
    """The order in which a call is tried. ``facts`` names every deployment of ``rules`` that the caller may use.

    ``ranges`` says for each rule which of its ranges counts for the call, -1 for none.
    """
    order: dict[str, str] = {}
    resting: dict[str, None] = {}
    for position, rule in enumerate(rules):
        at = ranges[position] if position < len(ranges) else -1
        if at >= 0:
            mine = rule.ranges[at]
            _take(mine.use, f"priority {mine.low} to {mine.high}", facts, order, resting)
        for members in groups_of(rule):
            usable = [member for member in members if member.deployment in facts]
            # The share of one that rests is everybody's, and not its neighbour's.
            well = [member for member in usable if facts[member.deployment].may]
            names, reason = _arranged(rule, usable, well, facts, turn, known_by) if well else ([], "")
            _take([*names, *(member.deployment for member in usable)], reason, facts, order, resting)
    return Choice(tuple(order), tuple(resting), tuple(order.values()))


class Forbidden(NamedTuple):
    """A priority that is not for this caller, where that is refused."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" if self.low != self.high else str(self.low)


def ranges_for(
    rules: Sequence[PoolRule],
    priority: int,
    fits: Callable[[tuple[tuple[str, str], ...]], bool],
    allowed: tuple[str, ...] | None = None,
) -> tuple[int, ...] | Forbidden:
    """Which range of each rule counts for a caller of a priority, -1 for none; each pool decides for itself.

    ``fits`` says whether all of some ``(field, value)`` hold of the caller, ``allowed`` which priorities its credential
    may use; ``None`` allows all. Who asks for another one is refused by a pool that refuses, and otherwise counts as
    the next less urgent one that it may use.
    """
    found: list[int] = []
    own = admitted(allowed, priority)
    for rule in rules:
        asked = _range_of(rule, priority)
        if own != priority:
            if rule.refuses and asked >= 0:
                return Forbidden(priority, priority)
            asked = _range_of(rule, own) if own is not None else -1
        if asked >= 0 and not _is_for(rule.ranges[asked], fits):
            if rule.refuses:
                return Forbidden(rule.ranges[asked].low, rule.ranges[asked].high)
            beyond = rule.ranges[asked].high
            below = sorted((each.low, at) for at, each in enumerate(rule.ranges) if each.low > beyond)
            asked = next((at for _, at in below if _is_for(rule.ranges[at], fits)), -1)
        found.append(asked)
    return tuple(found)


def _range_of(rule: PoolRule, priority: int) -> int:
    return next((at for at, each in enumerate(rule.ranges) if each.low <= priority <= each.high), -1)


def _is_for(each: Range, fits: Callable[[tuple[tuple[str, str], ...]], bool]) -> bool:
    return not each.only or any(fits(one) for one in each.only)


def _take(
    names: Sequence[str], reason: str, facts: Mapping[str, Fact], order: dict[str, str], resting: dict[str, None]
) -> None:
    for name in names:
        fact = facts.get(name)
        if fact is None or name in order or name in resting:
            continue
        if fact.may:
            order[name] = reason
        else:
            resting[name] = None


def _arranged(
    rule: PoolRule,
    group: Sequence[Member],
    members: Sequence[Member],
    facts: Mapping[str, Fact],
    turn: int,
    known_by: bytes,
) -> tuple[list[str], str]:
    """Those ``members`` of a group that may be called in order, and why. ``turn`` ends ties of strategies that measure.

    Who stays is at home at one of the whole group. While that rests, another one is its home.
    """
    if known_by and rule.sticky:
        home = group[at_home(known_by, group)]
        first = members.index(home) if home in members else at_home(known_by, members)
        return _from(first, members), f"stays by {rule.sticky}"
    strategy = rule.strategy
    if strategy in BY_TURN:
        firsts = first_choices(rule, members)
        return _from(firsts[turn % len(firsts)], members), strategy
    turned = [*members[turn % len(members) :], *members[: turn % len(members)]]
    if strategy == "least_busy":
        # By what each has to do for its weight; cross-multiplied, so that no fraction is rounded away.
        common = 1
        for member in turned:
            common = common * member.weight // gcd(common, member.weight)
        turned.sort(key=lambda each: facts[each.deployment].busy * (common // each.weight))
    elif strategy == "latency":
        turned.sort(key=lambda each: facts[each.deployment].latency_us)
    else:
        turned.sort(key=lambda each: facts[each.deployment].cost)
    return [each.deployment for each in turned], strategy


def _from(first: int, members: Sequence[Member]) -> list[str]:
    """All members, beginning with one of them."""
    return [each.deployment for each in (*members[first:], *members[:first])]
