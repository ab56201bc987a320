"""The money of a realtime session's turns: who pays, what is held, what is journalled, how each ends.

Every turn goes the way of a call: identify, choose, bound, reserve, journal the intent; then settle, or lose. What the
key may do, which limits hold and what it costs are asked anew for each turn, from the snapshot of that moment, so that
a key that is revoked while somebody speaks begins no further turn. Knows no event and no socket.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from faregate.control import Key, Unknown
from faregate.core.amounts import NOTHING
from faregate.core.attribution import Attribution
from faregate.core.call import AUDIO_IN, AUDIO_OUT, IMAGE_IN, Call
from faregate.core.ledger.events import Attempt, Intended, Lost, Refused, Settled
from faregate.core.limits.admit import Reservation
from faregate.core.metering.meter import Report
from faregate.core.pricing.charging import charge
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import NO_USAGE, Measure, Usage
from faregate.dialects import openai_realtime
from faregate.dialects.openai_audio import TRANSCRIPT_TOKENS, WRITTEN_TOKENS_PER_SECOND_MAX
from faregate.dialects.quoting import unbounded
from faregate.errors import FaregateError, Problem, status_of
from faregate.proxy.bound import Held, Wants, hold, upper_bound
from faregate.proxy.described import NOT_DESCRIBED, Described, attribution, describe
from faregate.proxy.http1 import Request
from faregate.proxy.identify import identify
from faregate.proxy.refuse import limit_problem, limit_required
from faregate.proxy.routing import Lane, known_by, lane_for, nowhere
from faregate.proxy.snapshot import Match, Snapshot, Target
from faregate.proxy.standing import outside
from faregate.proxy.tokens import TokenKey

if TYPE_CHECKING:
    from faregate.proxy.gate import Gate

#: Sound of one item that is transcribed, in seconds: the hold for its transcript is for so much.
ITEM_SECONDS_MAX: Final = 300

#: Input tokens of a transcript beside what is heard: its prompt.
_PROMPT_TOKENS: Final = 1_024
#: Twice what is documented for a second of sound.
_HEARD_PER_SECOND: Final = 20


class TurnHold:
    """One turn's hold, and what it takes to end it."""

    __slots__ = (
        "began_nanos",
        "cap",
        "first_us",
        "input_tokens",
        "match",
        "reservation",
        "seen_at",
        "target",
        "tariff",
    )

    def __init__(
        self, reservation: Reservation, match: Match, target: Target, tariff: Tariff, input_tokens: int, cap: int
    ) -> None:
        self.reservation = reservation
        self.match = match
        self.target = target
        self.tariff = tariff
        self.input_tokens = input_tokens
        #: The output cap to send where it is not the client's own, else 0.
        self.cap = cap
        self.began_nanos = 0
        #: Microseconds to the first of its answer, 0 before; and the coarse time of its last event.
        self.first_us = 0
        self.seen_at = 0.0


class Account:
    """Who a session is charged to, and where it may go."""

    def __init__(self, gate: "Gate", request: Request, model: str, peer: str = "") -> None:
        self._gate = gate
        self._request = request
        #: The address at the client's end of the connection.
        self._peer = peer
        self.model = model
        self.key: Key | None = None
        self._described: Described = NOT_DESCRIBED
        #: Tries of opening the session that failed, until a record has told of them.
        self._failed_tries: tuple[Attempt, ...] = ()

    # -- who, and where ------------------------------------------------------------------------------------------------

    def choose(self) -> Lane | Problem:
        """The way that the session's model goes for its caller now."""
        gate = self._gate
        snapshot: Snapshot = gate.snapshot
        found = identify(self._request, snapshot, gate.peppers, gate.wall_nanos(), gate.issuers)
        if isinstance(found, Problem):
            return found
        key = self.key = found
        if key.networks is not None or key.paths is not None:
            problem = outside(gate, key, self._request, self._peer)
            if problem is not None:
                return problem
        if self._request.describes or snapshot.describes or type(key) is TokenKey:
            described = describe(self._request, key, snapshot, gate.issuers, gate.wall_nanos())
            if isinstance(described, Problem):
                return described
            self._described = described
        if gate.closed_for is not None:
            return gate.closed_for
        if key.operations is not None and openai_realtime.OPERATION not in key.operations:
            return Problem("operation_forbidden", f"This key may not call {openai_realtime.OPERATION}.")
        return self._lane(self.model, openai_realtime.OPERATION)

    def _lane(self, model: str, operation: str) -> Lane | Problem:
        """The way of this caller to a model, for any operation where none is named."""
        key, snapshot = self.key, self._gate.snapshot
        assert key is not None
        if key.models is not None and model not in key.models:
            return Problem("model_forbidden", f"model: this key may not use {model[:64]!r}.", "model")
        priority = self._request.headers.get(b"priority", b"")
        lane = lane_for(snapshot, model, operation, key, self._described, priority)
        if lane is not None:
            return lane
        stage, what = self._described.stage or key.stage, operation or openai_realtime.TRANSCRIPTION
        return nowhere(snapshot.routes.get(model, ()), snapshot, stage, model, what)

    def known_by(self, lane: Lane) -> bytes:
        """What the caller stays at one place by, as far as the way asks for that."""
        assert self.key is not None
        return known_by(self.key, self._described, "", lane.sticky) if lane.sticky else b""

    def again(self, target: Target) -> Target | Problem:
        """The place where the session is, as it stands now."""
        found = self.choose()
        if isinstance(found, Problem):
            return found
        for one in found.reachable():
            if one.name == target.name and one.provider.name == target.provider.name:
                return one
        text = f"Model {self.model[:64]!r} no longer goes where this session is; open another."
        return Problem("model_not_found", text, "model")

    def transcriber(self, model: str, target: Target) -> Target | Problem:
        """The model that transcribes, at the session's own provider, with a price for what it hears."""
        lane = self._lane(model, "")
        if isinstance(lane, Problem):
            return lane
        now = self._gate.wall_nanos()
        for one in lane.reachable():
            if one.provider.name != target.provider.name:
                continue
            tariff = one.prices.at(now)
            if tariff is not None and not tariff.uncovered((Measure("seconds", "", 1),)):
                return one
        text = f"Model {model[:64]!r} has no valid price at this provider; the administrator must set one."
        return Problem("price_unknown", f"transcription.model: {text}", "transcription.model")

    def checked(self, target: Target) -> Problem | None:
        """Why no turn could ever be held for there; ``None`` where it can."""
        if not target.context_tokens_max:
            what = f"a conversation with {self.model[:64]!r}, whose context window is not known"
            return unbounded("model", what, "the administrator must set models[].max_context_tokens")
        found = self._priced(target, openai_realtime.OPERATION)
        return found if isinstance(found, Problem) else None

    def _match(self, target: Target, operation: str) -> Match:
        gate, described = self._gate, self._described
        snapshot: Snapshot = gate.snapshot
        assert self.key is not None
        plain = described is NOT_DESCRIBED
        name = (self.key.id, target.name, operation)
        match = snapshot.matches.get(name) if plain else None
        if match is None:
            who = self._who(target.model, target.name, target.provider.name, operation)
            row = gate.metrics.row(who, "ok")
            match = Match(who, snapshot, row)
            if plain:
                snapshot.matches[name] = match
        return match

    def _who(self, model: str, deployment: str, provider: str, operation: str) -> Attribution:
        assert self.key is not None
        return attribution(self.key, self._described, "", model, deployment, provider, operation)

    # -- holds ---------------------------------------------------------------------------------------------------------

    def hold_response(
        self, id: str, target: Target, input_tokens: int, cap: int | None, speaks: bool
    ) -> TurnHold | tuple[Problem, str]:
        """Hold the most that a response may cost, or say why not and which limit refused."""
        media = AUDIO_IN | IMAGE_IN | (AUDIO_OUT if speaks else 0)
        call = Call(openai_realtime.OPERATION, self.model, stream=True, output_cap=cap, media=media)
        found = self._priced(target, call.operation)
        if isinstance(found, Problem):
            return found, ""
        match, tariff, now = found
        settings = self._gate.settings
        aim = min(settings.default_output_tokens, openai_realtime.CAP_MAX)
        least = min(settings.min_answer_tokens, aim)
        wants = Wants(match.standing, call, target, tariff, input_tokens, aim, least, None, match.charging)
        outcome = hold(id, wants, self._gate.allowances, now)
        if isinstance(outcome, Held):
            return TurnHold(outcome.reservation, match, target, tariff, input_tokens, outcome.cap)
        return limit_problem(outcome, None, match.hidden), outcome.limit.id

    def hold_transcript(self, id: str, target: Target) -> TurnHold | tuple[Problem, str]:
        """Hold the most that the transcript of one item may cost; it runs beside its session and takes no slot."""
        written = max(TRANSCRIPT_TOKENS, WRITTEN_TOKENS_PER_SECOND_MAX * ITEM_SECONDS_MAX)
        call = Call(
            openai_realtime.TRANSCRIPTION,
            target.model,
            stream=True,
            output_cap=written,
            media=AUDIO_IN,
            at_most=(Measure("seconds", "", ITEM_SECONDS_MAX),),
        )
        found = self._priced(target, call.operation)
        if isinstance(found, Problem):
            return found, ""
        match, tariff, now = found
        input_tokens = _PROMPT_TOKENS + _HEARD_PER_SECOND * ITEM_SECONDS_MAX
        amounts = upper_bound(call, tariff, input_tokens, written, None, match.charging)._replace(concurrency=0)
        outcome = self._gate.allowances.reserve(id, match.standing, amounts, now)
        if isinstance(outcome, Reservation):
            return TurnHold(outcome, match, target, tariff, input_tokens, 0)
        return limit_problem(outcome, None, match.hidden), outcome.limit.id

    def _priced(self, target: Target, operation: str) -> tuple[Match, Tariff, int] | Problem:
        """The limits and the prices of this moment, and the moment."""
        gate = self._gate
        now = gate.wall_nanos()
        tariff = target.prices.at(now)
        if tariff is None:
            text = f"Model {target.model[:64]!r} has no valid price any more; the administrator must set one."
            return Problem("price_unknown", text, "model")
        match = self._match(target, operation)
        if match.lacks_limit_at(now):
            return limit_required(match.who, gate.snapshot.catalogue.require_limit_stages)
        if gate.brakes is not None and gate.brakes.bridged:
            problem = gate.brakes.refuses(match.who.key, now)
            if problem is not None:
                return problem
        return match, tariff, now

    def force(self, id: str, target: Target, operation: str) -> TurnHold:
        """Account for what a provider began unasked: nothing is held, and what it costs is posted all the same."""
        gate = self._gate
        match = self._match(target, operation)
        now = gate.wall_nanos()
        tariff = target.prices.at(now)
        assert tariff is not None, "it had a price when the session was opened"
        outcome = gate.allowances.reserve(id, match.standing, NOTHING, now)
        if not isinstance(outcome, Reservation):
            outcome = gate.allowances.hold_unknown(id, match.who, NOTHING, now, now)
        return TurnHold(outcome, match, target, tariff, 0, 0)

    def begin(self, held: TurnHold) -> int | Problem:
        """Journal the intent; the position to wait for where that must reach the disk."""
        gate = self._gate
        reservation = held.reservation
        intent = Intended(
            reservation.id,
            gate.wall_nanos(),
            reservation.admitted_at,
            held.match.who,
            reservation.amounts,
            held.tariff.version,
            True,
            held.input_tokens,
            "",
            held.cap,
            held.match.charge_rule,
        )
        try:
            position = gate.journal.append(intent)
        except FaregateError:
            gate.allowances.release(reservation)
            return gate.disk_failed()
        held.began_nanos = gate.monotonic_nanos()
        held.seen_at = gate.now
        return position

    # -- ends ----------------------------------------------------------------------------------------------------------

    def list_tries(self, failed: Iterable[Attempt]) -> None:
        """Before it was accepted, the session was tried elsewhere: the record of what it does first is to list that."""
        self._failed_tries = tuple(failed)

    def settle(
        self,
        held: TurnHold,
        status: str,
        http_status: int,
        code: str,
        usage: Usage,
        source: str,
        report: Report | None = None,
    ) -> int | None:
        """Journal what a turn cost, then post it; the position to wait for, ``None`` when it is not written yet."""
        gate, match, tariff = self._gate, held.match, held.tariff
        if report is not None and report.unknown:
            gate.metrics.unmeasured("member", report.unknown)
        unpriced = tariff.unpriced(usage.other) if usage.other else ""
        if unpriced:
            gate.metrics.unmeasured(unpriced.partition(" ")[0], 1)
        cost = tariff.cost(usage) if usage != NO_USAGE or status == "ok" else 0
        due = cost if match.charging is None else charge(match.charging, cost, used=usage != NO_USAGE)
        latency = (gate.monotonic_nanos() - held.began_nanos) // 1000
        event = Settled(
            held.reservation.id,
            gate.wall_nanos(),
            status,
            http_status,
            code,
            usage,
            source,
            cost,
            due,
            tariff.version,
            latency,
            held.first_us,
            (*self._failed_tries, Attempt(held.target.name, http_status, code, latency)),
            report.model if report is not None else "",
            report.id if report is not None else "",
            max(0, due - held.reservation.amounts.usd),
            "",
            match.charge_rule,
        )
        position = gate.settle(held.reservation, event, due, usage)
        self._failed_tries = ()
        if gate.brakes is not None:
            gate.brakes.spent(match.who.key, max(cost, due), event.at)
        counters = match.answered if status == "ok" else gate.metrics.row(match.who, status)
        gate.metrics.settled((counters, usage, cost, latency, 0, held.first_us))
        return position

    def lose(self, held: TurnHold, http_status: int, code: str, output_tokens: int) -> None:
        """What became of a turn was not learnt, and its provider can be asked: its money stays held until then."""
        gate, reservation = self._gate, held.reservation
        at = gate.wall_nanos()
        latency = (gate.monotonic_nanos() - held.began_nanos) // 1000
        attempts = (*self._failed_tries, Attempt(held.target.name, 0, code, latency))
        lost = Lost(reservation.id, at, http_status, code, latency, held.first_us, attempts, output_tokens)
        unknown = Unknown(
            reservation.id,
            held.match.who,
            reservation.amounts,
            reservation.admitted_at,
            at,
            held.tariff.version,
            held.target.name,
            output_tokens,
            held.input_tokens,
            held.match.charge_rule,
        )
        gate.lost(lost, unknown, reservation)
        self._failed_tries = ()

    def refused(self, id: str, problem: Problem, limit: str, began_nanos: int) -> None:
        """Record a refusal, where it is known who was refused."""
        gate = self._gate
        gate.metrics.refused(problem.code)
        if self.key is None:
            return
        who = self._who(self.model[:256], "", "", openai_realtime.OPERATION)
        latency = (gate.monotonic_nanos() - began_nanos) // 1000
        gate.tell_refused(Refused(id, gate.wall_nanos(), who, True, status_of(problem), problem.code, latency, limit))
