"""A copy of some calls goes to another deployment, so that its answers, cost and speed can be compared; nobody waits.

The copy is an exchange of nobody's: no payer has it on his bill and no limit of the caller's counts it, but what it
costs is real money, which limits on its deployment, its provider or everything hold. Its record names the request that
it copies; its answer is metered to the end and thrown away. Where there is no room for it, it is left out.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from faregate.core.attribution import Attribution
from faregate.core.caching.policy import is_kept_elsewhere
from faregate.core.call import Call
from faregate.core.ledger.events import MIRROR_OF
from faregate.core.limits.admit import LimitRefusal, Standing
from faregate.dialects.canonical import canonical
from faregate.dialects.operations import ABOUT_OBJECTS
from faregate.errors import Problem
from faregate.proxy.bound import Wants
from faregate.proxy.exchange import Exchange
from faregate.proxy.guard import guarded
from faregate.proxy.http1 import Request
from faregate.proxy.refuse import limit_problem
from faregate.proxy.server import ClientConnection
from faregate.proxy.snapshot import Match, Target
from faregate.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from faregate.proxy.gate import Gate

#: Copies that run at once; a slow place must not fill the memory.
COPIES_MAX: Final = 64

#: Larger ones are not copied: they would be held until the copy was sent.
COPIED_BYTES_MAX: Final = 1024 * 1024

_STOPPED: Final = Problem("draining", "The gateway is stopping.")

_encode: Final = msgspec.json.Encoder().encode


class Mirrors:
    """The copies of one gate: whose turn it is, and those that run."""

    __slots__ = ("_gate", "_turns", "outcomes", "running")

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate
        #: Model → calls that could have been copied.
        self._turns: dict[str, int] = {}
        self.outcomes = {"copied": 0, "left_out": 0}
        self.running: set[Exchange] = set()

    def look(self, exchange: Exchange) -> None:
        """Copy a call that was just sent, where it is its turn: of a hundred calls exactly the percentage is."""
        call, operation, snapshot = exchange.call, exchange.operation, exchange.snapshot
        mirror = snapshot.mirrors.get(call.model)
        if mirror is None or operation is None or exchange.dialect.media != "json":
            return
        if call.objects or call.job or exchange.free or operation.name in ABOUT_OBJECTS:
            return
        turn = self._turns.get(call.model, 0) + 1
        self._turns[call.model] = turn
        if turn * mirror.percent // 100 == (turn - 1) * mirror.percent // 100:
            return
        copy = self._copy(exchange, snapshot.targets.get(mirror.to))
        if copy is None:
            self.outcomes["left_out"] += 1
            return
        self.running.add(copy)
        self._gate.loop.call_soon(guarded(copy.reserve, copy.mistaken))

    def _copy(self, exchange: Exchange, target: Target | None) -> "Copy | None":
        """The copy of a call, ``None`` where it may not go there, or there is no room."""
        operation, key, snapshot = exchange.operation, exchange.key, exchange.snapshot
        if target is None or operation is None or key is None or snapshot is not self._gate.snapshot:
            return None
        if len(self.running) >= COPIES_MAX or len(exchange.body) > COPIED_BYTES_MAX or self._gate.draining:
            return None
        if operation.name not in target.operations or not target.health.closed:
            return None
        allowed = snapshot.stages.get(exchange.described.stage or key.stage)
        if allowed is not None and target.provider.name not in allowed:
            return None
        if exchange.dialect.made is not None:
            read = canonical(exchange.body)
            if read is None or is_kept_elsewhere(read.members, True):
                # The provider would keep an object that nobody owns.
                return None
        call = exchange.dialect.read(exchange.body, operation.deployment, self._gate.settings.forbid_private_urls)
        return None if isinstance(call, Problem) else Copy(self._gate, exchange, target, call)

    def stop(self) -> None:
        """The gate stops: nobody waits for copies. What they used is settled."""
        for copy in list(self.running):
            if copy.answer is not None:
                guarded(copy.answer.cut, copy.answer.mistaken)()
            else:
                guarded(copy.refuse, copy.mistaken)(_STOPPED)


class Copy(Exchange):
    """A copy of an exchange at one other place."""

    __slots__ = ("_origin", "_place")

    def __init__(self, gate: "Gate", of: Exchange, target: Target, call: Call) -> None:
        nobody = Nobody(gate)
        # What the caller asked, without what its own way put into it.
        super().__init__(gate, nobody, Request(of.request.method, of.request.target, {}), of.body)
        nobody.exchange = self
        self._place = target.name
        self._origin = _encode({MIRROR_OF: of.id}).decode()
        self.operation = of.operation
        self.dialect = of.dialect
        self.forwarded = of.forwarded
        self.call = call
        self.input_tokens = call.input_tokens_max
        # The body may name a model that a limit sent elsewhere: what is sent names that of the place.
        self.downgraded_from = of.downgraded_from
        self.candidates = (target,)

    def match_at(self, target: Target) -> Match:
        """It is charged to nobody, and no limit is required of nobody."""
        operation = self.operation
        assert operation is not None
        place = "", target.name, operation.name
        match = self.snapshot.matches.get(place)
        if match is None:
            who = Attribution(
                model=target.model,
                deployment=target.name,
                provider=target.provider.name,
                service=operation.name,
            )
            match = Match(who, self.snapshot, self.gate.metrics.row(who, "ok"))
            # What is charged for it is what it costs, whatever is charged for the calls of others.
            match.charge_rule, match.charging = "", None
            match.lacks_limit, match.covered_by, match.tells, match.downgrades = False, (), False, False
            # A slot is its place's own: a place that is slow must not take the slots of callers. What counts calls or
            # money in the books counts it here, too.
            limits = (each for each in match.standing.limits if each.of_place or each.unit_name != "concurrency")
            match.standing = Standing(who, limits)
            self.snapshot.matches[place] = match
        return match

    def choose_again(self) -> Problem | None:
        """The place is the one place, as long as it is there."""
        self.snapshot = self.gate.snapshot
        self.match = None
        target = self.snapshot.targets.get(self._place)
        if target is None:
            return Problem("model_not_found", "The deployment of the mirror is gone.")
        self.candidates = (target,)
        return None

    def _refuse_for(self, refusal: LimitRefusal, wants: Wants, now: int) -> None:
        """No room: there is nobody to be told what would fit."""
        self.refuse(limit_problem(refusal, None, frozenset()), refusal.limit.id)

    def _connected(self, connection: UpstreamConnection) -> None:
        """Its record says what it copies, whatever limits noted meanwhile."""
        self.notes = self._origin
        super()._connected(connection)
        if self.answer is not None:
            self.gate.mirrors.outcomes["copied"] += 1

    def refuse(self, problem: Problem, limit: str = "") -> None:
        """It is left out: no room, no connection. Nobody is told, and no caller was refused."""
        self.release()
        self.gate.mirrors.outcomes["left_out"] += 1
        self.write_whole(b"")


class Nobody(ClientConnection):
    """The client of a copy: reads everything, and keeps nothing."""

    def __init__(self, gate: "Gate") -> None:
        super().__init__(gate)
        self.write = _thrown_away

    def ended(self, keep_alive: bool) -> None:
        """Nothing comes after it."""
        self._gate.mirrors.running.discard(self.exchange)
        self.exchange = None


def _thrown_away(data: bytes) -> None:
    """Nobody reads it."""
