"""A copy of some calls goes to another deployment, so that its answers, cost and speed can be compared; nobody waits.

The copy is an exchange of nobody's: no payer has it on his bill and no limit of the caller's counts it, but what it
costs is real money, which limits on its deployment, its provider or everything hold. Its record names the request that
it copies; its answer is metered to the end and thrown away. Where there is no room for it, it is left out.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from faregate.core.attribution import Attribution
from faregate.core.limits.admit import LimitRefusal
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
        target = snapshot.targets.get(mirror.to)
        fits = target is not None and operation.name in target.operations and target.health.closed
        full = len(self.running) >= COPIES_MAX or len(exchange.body) > COPIED_BYTES_MAX or self._gate.draining
        if target is None or not fits or full or snapshot is not self._gate.snapshot:
            self.outcomes["left_out"] += 1
            return
        self.outcomes["copied"] += 1
        copy = Copy(self._gate, exchange, target)
        self.running.add(copy)
        self._gate.loop.call_soon(guarded(copy.reserve, copy.mistaken))


class Copy(Exchange):
    """A copy of an exchange at one other place."""

    __slots__ = ("_origin", "_place")

    def __init__(self, gate: "Gate", of: Exchange, target: Target) -> None:
        nobody = Nobody(gate)
        super().__init__(gate, nobody, Request(of.request.method, of.request.target, {}), of.sent_body)
        nobody.exchange = self
        self._place = target.name
        self._origin = _encode({"mirror_of": of.id}).decode()
        self.operation = of.operation
        self.dialect = of.dialect
        self.forwarded = of.forwarded
        # What is asked is what the caller asked, whatever its own way has made of it meanwhile.
        self.call = of.call
        self.input_tokens = of.call.input_tokens_max
        self.candidates = (target,)

    def _match(self, target: Target) -> Match:
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
