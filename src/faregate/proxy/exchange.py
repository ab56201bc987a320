"""One exchange in ten steps (DESIGN section 4), as a machine of callbacks: no coroutine, lock or timer of its own.

    1 accept (server)   2 identify   3 read   4 recall   5 choose   6 bound   7 reserve   8 relay   9 settle   10 tell

Three promises are kept here. The exchange owns the provider's answer, the client's connection does not: a client that
goes away ends the relay, never the settlement. No answer byte leaves without a hold and no hold is without an end. A
second candidate is tried only before the first byte was sent.

The answer's side (steps 8 and 9) is in ``answer``. This side is one long file because every step may find what the one
before it left, and start over with another deployment, model or snapshot: apart, that could not be read in order.
"""

from typing import TYPE_CHECKING, Final, cast

from faregate.control import Key
from faregate.core.amounts import held_amounts
from faregate.core.attribution import Attribution
from faregate.core.call import Call
from faregate.core.ledger.events import Attempt, Event, Intended, Refused, attempt_id
from faregate.core.limits.admit import LimitRefusal, Reservation
from faregate.core.limits.refusal import is_of_place
from faregate.core.pricing.cost import Tariff
from faregate.core.routing.health import Health
from faregate.dialects import Dialect
from faregate.dialects.forms import announced
from faregate.dialects.jsonbody import BOM
from faregate.dialects.openai_chat import OPERATION as CHAT
from faregate.dialects.operations import ABOUT_OBJECTS, TIERS
from faregate.dialects.paths import Operation
from faregate.dialects.queries import passed_query
from faregate.dialects.quoting import unbounded
from faregate.dialects.splice import put
from faregate.errors import FaregateError, Problem, status_of
from faregate.ports import KeptObject
from faregate.proxy import failover, kept_objects, uploads
from faregate.proxy.alternatives import fitting_model
from faregate.proxy.answer import Answer
from faregate.proxy.bound import Held, Wants, fitting_cap, hold, upper_bound
from faregate.proxy.deadlines import TOO_LONG
from faregate.proxy.described import NOT_DESCRIBED, Described, attribution
from faregate.proxy.downgrade import downgraded, notes_of
from faregate.proxy.entry import Entered, Plan, enter, identified, not_offered, recall
from faregate.proxy.failover import Parked
from faregate.proxy.forward import VIA, request_head
from faregate.proxy.guard import guarded
from faregate.proxy.http1 import Request
from faregate.proxy.kept_objects import NOTHING_DUE
from faregate.proxy.refuse import limit_problem, limit_required, problem_answer
from faregate.proxy.routing import Lane, arrange, lane_for, nowhere, resting
from faregate.proxy.service_answer import ServiceAnswer
from faregate.proxy.snapshot import Match, Snapshot, Target
from faregate.proxy.stream_holds import reserve_stream
from faregate.proxy.upstream import CREDENTIAL_RETRY_S, UpstreamConnection

if TYPE_CHECKING:
    from faregate.proxy.contents import Capture
    from faregate.proxy.gate import Gate
    from faregate.proxy.replay import Replay
    from faregate.proxy.same_calls import Look
    from faregate.proxy.server import ClientConnection

_MISTAKE = Problem("internal", "The gateway failed; nothing was charged. Report this request id.", close=True)

#: Prompts up to this size are counted where a money limit is tight, larger ones when they would be refused.
_COUNTED_BYTES_MAX = 4 * 1024

#: Where the unusual fields of a call begin, and what they are for nearly every call.
_UNUSUAL: Final = Call._fields.index("media")
_USUAL: Final = Call("", "")[_UNUSUAL:]

#: Members that mean the same.
_TWINS: Final = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}

#: Units whose bound shrinks when the prompt is counted instead of measured.
_COUNTABLE = frozenset(("usd", "tokens", "input_tokens"))


class Exchange:
    """A call and its answer, from accept to settle."""

    __slots__ = (
        "answer",
        "attempts",
        "body",
        "caching",
        "call",
        "candidates",
        "cap",
        "capture",
        "client",
        "counted",
        "described",
        "dialect",
        "dialled",
        "dialling",
        "downgraded_by",
        "downgraded_from",
        "ended",
        "forwarded",
        "free",
        "gate",
        "id",
        "idempotency",
        "input_tokens",
        "keep_alive",
        "kept",
        "key",
        "lane",
        "look",
        "match",
        "notes",
        "operation",
        "overridden",
        "parked",
        "prepared",
        "probe",
        "replay",
        "request",
        "reservation",
        "rounds",
        "sent",
        "snapshot",
        "started",
        "target",
        "tariff",
        "tier_tariff",
        "tried_all",
        "turn",
    )

    dialect: Dialect
    call: Call
    tariff: Tariff
    #: Of the service tier that was asked for, where it is not the standard one.
    tier_tariff: Tariff | None
    #: What is kept of its content; never set where the gate has no desk for contents.
    capture: "Capture"

    def __init__(self, gate: "Gate", client: "ClientConnection", request: Request, body: bytes) -> None:
        self.gate = gate
        self.client: ClientConnection | None = client
        self.request = request
        self.body = body
        self.keep_alive = request.keep_alive
        self.id = gate.new_id()
        self.started = gate.monotonic_nanos()
        #: One exchange works from one snapshot, whatever the console changes meanwhile.
        self.snapshot: Snapshot = gate.snapshot
        self.operation: Operation | None = None
        self.key: Key | None = None
        self.described: Described = NOT_DESCRIBED
        #: The way its calls go, and of that the places in the order of this moment.
        self.lane: Lane | None = None
        self.candidates: tuple[Target, ...] = ()
        self.target: Target | None = None
        self.match: Match | None = None
        #: It looks at something that was charged when it was made, or ends it.
        self.free = False
        #: The object that the call is about, or the first that it names.
        self.kept: KeptObject | None = None
        self.reservation: Reservation | None = None
        #: Of the prompt: bounded by its length until they are ``counted``.
        self.input_tokens = 0
        self.counted = False
        self.cap = 0
        #: The model that was asked for, where another answers because of an action of the limit beside it.
        self.downgraded_from = ""
        self.downgraded_by = ""
        #: JSON of what limits did to it beside holding it, for its record.
        self.notes = ""
        #: The body to send, where making it took too long to be done when it is sent.
        self.prepared: bytes | None = None
        #: The body with what the way it goes puts into it; empty where that is nothing.
        self.overridden = b""
        self.forwarded = b""
        self.attempts: tuple[Attempt, ...] = ()
        #: Its turn on its lane until it is sent, -1 where it has taken none.
        self.turn = -1
        #: The health of the place that a connection is being opened to for it, which is busy with it from then on.
        self.dialling: Health | None = None
        #: A connection had to be opened for it, for which it waited.
        self.dialled = False
        #: How often it was sent to a provider, and how often all places were tried once more.
        self.sent = 0
        self.rounds = 0
        #: The answer of the try before, while another place is tried.
        self.parked: Parked | None = None
        #: No other place took it: the answer that was parked is being told, and nothing else begins any more.
        self.tried_all = False
        #: Its number as the one call that tries whether a place is well, and that place's health.
        self.probe: tuple[int, Health] | None = None
        self.idempotency = ""
        #: What is said of the response cache: ``use``, ``refresh``, ``off``, or nothing; and what that knows of it.
        self.caching = ""
        self.look: Look | None = None
        #: A large answer that was kept and goes out in parts.
        self.replay: Replay | None = None
        self.answer: Answer | None = None
        self.ended = False

    @property
    def who(self) -> Attribution:
        """Who the call is charged to; known once a deployment was chosen."""
        assert self.match is not None
        return self.match.who

    # -- the steps -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the steps up to the reservation, or answer at once."""
        entered = self.request.found
        if type(entered) is Entered and entered.snapshot is self.snapshot:
            # The same head came on this connection before, under this very snapshot; and it names no idempotency key.
            problem = self._begin_again(entered)
        else:
            problem = enter(self)
            issuers = self.gate.issuers
            # The keys of a token's issuer may have changed a moment ago.
            if (
                problem is None
                or issuers is None
                or not issuers.wait(problem, self._told_of_keys, self.gate.loop, len(self.body))
            ):
                self._entered(problem)
            return
        self._go_on(problem)

    def _told_of_keys(self) -> None:
        guarded(self._enter_again, self.mistaken)()

    def _enter_again(self) -> None:
        """The keys of the token's issuer were looked at, or that took too long: what is known now decides."""
        if self.client is None:
            self.client_left()
            return
        self.snapshot = self.gate.snapshot
        self._entered(enter(self))

    def _entered(self, problem: Problem | None) -> None:
        """Steps 3 to 5 behind a head that was looked at."""
        if problem is None and self.operation is not None and self.operation.metered:
            if uploads.is_large(self):
                problem = self._misread()
                if problem is None:
                    uploads.read(self, self.operation.deployment)
                    return
            else:
                problem = self._read(self.operation.deployment) or recall(self) or self._choose()
        self._go_on(problem)

    def _go_on(self, problem: Problem | None) -> None:
        """Steps 6 and 7, where a place was chosen."""
        if self.gate.contents is not None and problem is None and self.candidates:
            later, problem = self.gate.contents.look(self)
            if later:
                return
        brakes = self.gate.brakes
        if brakes is not None and brakes.bridged and problem is None and self.candidates and self.key is not None:
            problem = brakes.refuses(self.key.id, self.gate.wall_nanos())
        if problem is not None:
            self.refuse(problem)
        elif self.candidates:
            cache = self.gate.cache
            if not self.caching or cache is None or not cache.takes(self):
                self.reserve()

    def go_on_later(self, problem: Problem | None) -> None:
        """What took too long to be looked at on the loop goes on, or is refused."""
        if self.tried_all:
            return
        if self.client is None:
            self.client_left()
        else:
            self._go_on(problem)

    def take_body(self, body: bytes) -> Problem | None:
        """Go on with another body, of which only texts are others; nothing is held yet."""
        operation = self.operation
        assert operation is not None
        self.body = body
        # Its places are chosen already; a second time would take a second turn.
        return self._read(operation.deployment) or (None if self.lane is not None else self._choose())

    def was_read(self, call: Call | Problem) -> None:
        """A large form was read off the loop."""
        if self.client is None:
            self.client_left()
            return
        if isinstance(call, Problem):
            self.refuse(call)
            return
        self.call = call
        self.input_tokens = call.input_tokens_max
        self._go_on(recall(self) or self._choose())

    def _begin_again(self, entered: Entered) -> Problem | None:
        """Steps 3 and 5 behind a head that is known."""
        _, operation, self.dialect, self.key, self.forwarded, plans, self.caching = entered
        self.operation = operation
        problem = self.gate.closed_for or self._read(operation.deployment)
        if problem is not None:
            return problem
        call = self.call
        about_objects = bool(call.objects) or operation.name in ABOUT_OBJECTS
        plan = None if about_objects else plans.get(call.model)
        if plan is not None and not call.end_user:
            lane, match = plan
            if match is None or self.gate.deployments.resting:
                return arrange(self, lane)
            self.lane, self.candidates, self.match = lane, lane.fixed, match
            return None
        problem = self._choose()
        lane_found = self.lane
        if problem is None and lane_found is not None and not call.end_user and not about_objects:
            fixed = lane_found.fixed
            plans[call.model] = Plan(lane_found, self.match_at(fixed[0]) if fixed else None)
        return problem

    def _read(self, model: str) -> Problem | None:
        """Step 3: the few facts of the call; the body's bytes stay as they came."""
        operation = self.operation
        if operation is not None and operation.below is not None:
            # What it may use is the service's to say, which is looked up when the place is chosen.
            name = self._asked()
            self.call = Call(name, name, has_output=False)
            return None
        problem = self._misread() if self.dialect.media == "form" else None
        if problem is not None:
            return problem
        call = self.dialect.read(self.body, model, self.gate.settings.forbid_private_urls)
        if isinstance(call, Problem):
            return call
        self.call = call
        self.input_tokens = call.input_tokens_max
        return None

    def _misread(self) -> Problem | None:
        """Why a form would be read otherwise by the provider, which goes by the boundary of the header."""
        if announced(self.request.headers.get(b"content-type", b""), self.body):
            return None
        why = "Form is not valid: it does not begin with the boundary that Content-Type names."
        return Problem("form_invalid", why, "Content-Type")

    def _read_as(self, model: str) -> Problem | None:
        """Bound the call by what its body as it is sent asks of a model, which its name may hide."""
        name = self.call.model
        call = self.dialect.read(self.sent_body, model, self.gate.settings.forbid_private_urls)
        if isinstance(call, Problem):
            return call
        self.call = call._replace(model=name)
        if not self.counted:
            self.input_tokens = call.input_tokens_max
        return None

    @property
    def sent_body(self) -> bytes:
        """The body as the way it goes has it: what is bounded, counted and sent."""
        return self.overridden or self.body

    def _claim(self, target: Target) -> bool:
        """Be the one call that tries whether a place is well; where another one is, go on without that place."""
        if self.probe is not None and self.probe[1] is target.health:
            return True
        number = target.health.claim(self.gate.monotonic_nanos())
        if number:
            self.probe = number, target.health
            return True
        self.candidates = self.candidates[1:]
        if self.candidates:
            self.start_over()
            self._soon()
        else:
            lane = self.lane
            self.refuse(resting(self.call.model, lane.wait(self.gate.monotonic_nanos()) if lane is not None else 1))
        return False

    def give_way(self) -> None:
        """It will not tell whether a place is well: another call may try."""
        probe, self.probe = self.probe, None
        if probe is not None:
            probe[1].gave_way(probe[0])

    def _soon(self) -> None:
        """Go on with the next place a moment later: there may be hundreds of them, and no stack is that deep."""
        self.gate.loop.call_soon(guarded(self._go_on_there, self.mistaken))

    def _go_on_there(self) -> None:
        if self.ended or self.tried_all:
            return
        if self.client is None:
            self.client_left()
        else:
            self.reserve()

    def _fitted(self, target: Target) -> Problem | None:
        """Read the call as this very place has it: with what the way puts into its body, as its model reads it."""
        lane, operation = self.lane, self.operation
        assert operation is not None
        step = lane.steps.get(target.name) if lane is not None and lane.steps else None
        reads_as = target.reads_as if target.reads_as != self.call.model and self.call.operation == CHAT else ""
        puts = step is not None and step.params and not self.overridden and operation.name not in ABOUT_OBJECTS
        if step is not None and puts and self.dialect.media == "json":
            body = self.body[3:] if self.body[:3] == BOM else self.body
            for member, value in step.params:
                # Two names of one thing: what the caller called it is what it is put under.
                twin = _TWINS.get(member, "")
                name_used = twin if twin in self.call.members else member
                body = put(body, name_used, value.encode(), name_used in self.call.members)
            self.overridden = body
        elif not reads_as:
            return None
        return self._read_as(reads_as or operation.deployment)

    def _choose(self) -> Problem | None:
        """Step 5: the deployments this call may go to, in order."""
        if self.ended:
            return None
        key, operation, call, snapshot = self.key, self.operation, self.call, self.snapshot
        assert key is not None
        assert operation is not None
        if call.objects or operation.name in ABOUT_OBJECTS:
            return kept_objects.choose(self)
        if key.operations is not None and operation.name not in key.operations:
            return Problem("operation_forbidden", f"This key may not call {operation.name}.")
        if key.models is not None and call.model not in key.models:
            name = call.model or operation.name
            return Problem("model_forbidden", f"model: this key may not use {name[:64]!r}.", "model")
        if operation.below is not None:
            problem = not_offered(self.request, snapshot, operation, len(self.body))
            if problem is not None:
                return problem
            targets: tuple[Target, ...] = (snapshot.services[operation.name],)
        else:
            lane = self._lane(call.model)
            if isinstance(lane, Problem):
                return lane
            if lane is not None:
                return arrange(self, lane)
            targets = snapshot.routes.get(call.model, ())
        stage = self.described.stage or key.stage
        allowed = snapshot.stages.get(stage)
        self.candidates = _offered(targets, operation.name, allowed) if operation.below is not None else ()
        if self.candidates:
            place = self.candidates[0].place
            if place is not None:
                self.call = place.call(len(self.body))
            return None
        return nowhere(targets, snapshot, stage, call.model, operation.name)

    def _lane(self, model: str) -> Lane | Problem | None:
        """The way that calls of this caller go to a model."""
        key, operation = self.key, self.operation
        assert key is not None
        assert operation is not None
        priority = self.request.headers.get(b"priority", b"")
        return lane_for(self.snapshot, model, operation.name, key, self.described, priority)

    def permitted(self, model: str) -> Lane | None:
        """The way to another model that this caller may use for the same operation; none is no error."""
        key = self.key
        assert key is not None
        if key.models is not None and model not in key.models:
            return None
        lane = self._lane(model)
        return lane if isinstance(lane, Lane) else None

    def turn_to(self, call: Call, lane: Lane, asked: str, limit: str) -> None:
        """Another model shall answer than the one that was ``asked`` for, because of an action of ``limit``."""
        self.call = call
        arrange(self, lane)
        self.downgraded_from, self.downgraded_by = asked, limit
        self.start_over()

    def reserve(self) -> None:
        """Steps 6 and 7: hold the most the call may cost on every limit, or on none."""
        gate, call = self.gate, self.call
        if self.snapshot is not gate.snapshot:
            problem = self.choose_again()
            if problem is not None:
                self.refuse(problem)
                return
            call = self.call
        target = self.target = self.candidates[0]
        if not target.health.closed and not self._claim(target):
            return
        problem = self._fitted(target)
        if problem is not None:
            self.refuse(problem)
            return
        call = self.call
        now = gate.wall_nanos()
        if self.free:
            self._hold_nothing(target, now)
            return
        tariff = target.prices.at(now)
        if tariff is None:
            text = f"Model {call.model[:64]!r} has no valid price; the administrator must set one."
            self.refuse(Problem("price_unknown", text, "model"))
            return
        if call.job and self.operation is not None:
            tariff = target.tariff_of(TIERS.get(self.operation.name, ""), now) or tariff
        self.tariff = tariff
        # A bare None would be taken for all that it is in the rest of this function, which compiled code insists on.
        self.tier_tariff = cast("Tariff | None", None)
        if call[_UNUSUAL:] != _USUAL:
            problem = self._bound_closer(target, tariff, now)
            if problem is not None:
                self.refuse(problem)
                return
        match = self.match
        if match is None:
            match = self.match = self.match_at(target)
        if (match.lacks_limit or match.covered_by) and match.lacks_limit_at(now):
            self.refuse(limit_required(match.who, self.snapshot.catalogue.require_limit_stages))
            return
        if match.downgrades and not self.downgraded_from and downgraded(self, match, target, now):
            self.reserve()
            return
        whole = call.output_cap if call.output_cap is not None else target.output_tokens_max
        if whole or not call.has_output:
            # Nearly every call ends here: what it asks for fits.
            amounts = upper_bound(call, tariff, self.input_tokens, whole, self.tier_tariff, match.charging)
            standing = match.standing
            if standing.roomy_for:
                standing.roomy_for -= 1
            elif self._worth_counting(target) and gate.allowances.tight(standing, amounts, now):
                self._count(target)
                return
            if gate.steps and call.stream:
                reserved = reserve_stream(self, target, match, amounts, now)
            else:
                reserved = gate.allowances.reserve(self.id, standing, amounts, now)
            if type(reserved) is Reservation:
                self.reservation = reserved
                self.dispatch(target)
                return
        wants = self._wants(match)
        outcome = hold(self.id, wants, gate.allowances, now)
        if isinstance(outcome, Held):
            self.reservation = outcome.reservation
            self.cap = outcome.cap
            self.dispatch(target)
            return
        countable = not self.counted and outcome.limit.unit_name in _COUNTABLE and self._all_in_body
        # A large form is nearly all file, whose length a count would find once more, on the loop. A short body is also
        # counted where what was asked for cannot fit, so that the refusal tells what would.
        least = 1 if self._worth_counting(target) else 0
        if countable and target.encoding and not uploads.is_large(self) and self._may_fit(match, now, least):
            self._count(target)
            return
        self._refuse_for(outcome, wants, now)

    def _hold_nothing(self, target: Target, now: int) -> None:
        """Steps 6 and 7 of a look: limits of requests and concurrency hold, and none of money."""
        self.tariff, self.tier_tariff = NOTHING_DUE, None
        match = self.match = self.match or self.match_at(target)
        reserved = self.gate.allowances.reserve(self.id, match.standing, held_amounts(0, 0, 0), now)
        if not isinstance(reserved, Reservation):
            self.refuse(limit_problem(reserved, None, match.hidden), reserved.limit.id)
            return
        self.reservation = reserved
        if uploads.brings_lines(self):
            uploads.rename(self, target)
        else:
            self.dispatch(target)

    def _bound_closer(self, target: Target, tariff: Tariff, now: int) -> Problem | None:
        """What bounds a call that asks for more than text from its body: prices, tiers, the context window."""
        call = self.call
        missing = tariff.uncovered((*call.at_most, *call.declared))
        if call.service_tier:
            self.tier_tariff = target.tariff_of(call.service_tier, now)
            if self.tier_tariff is None:
                text = f"Model {call.model[:64]!r} has no price in the tier {call.service_tier[:32]!r}."
                return Problem("price_unknown", f"service_tier: {text} Leave it out.", "service_tier")
        if missing:
            text = f"Model {call.model[:64]!r} has no price for {missing[:128]}; the administrator must set one."
            return Problem("price_unknown", text, "model")
        if call.sealed and call.job and call.has_output and call.output_cap is None and not target.output_tokens_max:
            return unbounded("max_tokens", f"lines without a cap for {call.model[:64]!r}", "cap each of them")
        if call.whole_context or call.turns > 1:
            # What tools bring is read, too, and everything is read again in each turn.
            if not target.context_tokens_max:
                return unbounded("input", f"input whose length depends on {call.model[:64]!r}", "send it as text")
            self.input_tokens = max(call.input_tokens_max, target.context_tokens_max) * call.turns
        return None

    def _may_fit(self, match: Match, now: int, output: int) -> bool:
        """Whether there is room for the answer alone: else no count of the prompt helps, however long it takes.

        ``output`` is its least length in tokens, 0 for what was asked for.
        """
        if not output:
            cap = self.call.output_cap
            output = self.gate.settings.min_answer_tokens if cap is None else cap
        least = upper_bound(self.call, self.tariff, 0, output, self.tier_tariff, match.charging)
        room = self.gate.allowances.room(match.standing, now)
        return all(wanted <= left for wanted, left in zip(least, room, strict=True))

    def _worth_counting(self, target: Target) -> bool:
        """Whether a count of its tokens, instead of the bound by length, is cheap: short, and not done yet."""
        short = len(self.sent_body) <= _COUNTED_BYTES_MAX
        return short and not self.counted and bool(target.encoding) and self._all_in_body

    @property
    def _all_in_body(self) -> bool:
        """Whether the model reads nothing but what the body holds, so that a count of it is a bound."""
        return not self.call.whole_context and self.call.turns == 1

    def _count(self, target: Target) -> None:
        """Count the prompt's tokens, then reserve: away from a limit the length of the body bounds them well enough.

        Near one, calls must hold no more than they may cost, or fewer would be let through than the limit has room for.
        """
        self.counted = True
        counted = guarded(self._prompt_counted, self.mistaken)
        self.gate.count_tokens(self.dialect.prompt_text(self.sent_body), target.encoding, counted)

    def choose_again(self) -> Problem | None:
        """Counting tokens or a failed connection took time: the key, routes, prices and limits of now decide."""
        self.snapshot = self.gate.snapshot
        self.match = None
        before = self.target
        if self.downgraded_from:
            # Whether it still goes elsewhere is decided anew.
            asked, self.downgraded_from, self.downgraded_by = self.downgraded_from, "", ""
            self.notes = self.gate.contents.noted(self, "") if self.gate.contents is not None else ""
            # What it may use was read for the other model. Of a form it is the same for every one.
            misread = None if self.dialect.media == "form" else self._read_as(asked)
            self.call = self.call._replace(model=asked)
            if misread is not None:
                return misread
        problem = identified(self) or self._choose()
        failed = {attempt.deployment for attempt in self.attempts}
        left = tuple(target for target in self.candidates if target.name not in failed)
        # Once all of them failed, all are tried again.
        self.candidates = left if left or not self.rounds else self.candidates
        if problem is None and not self.candidates:
            problem = Problem("model_not_found", f"Model {self.call.model[:64]!r} has no deployment left.", "model")
        if self.candidates and self.candidates[0] is not before:
            self.start_over()
        return problem

    def start_over(self) -> None:
        """Another deployment has its own maximum, its own tokenizer and its own limits."""
        self.give_way()
        self.cap = 0
        self.prepared = None
        self.counted = False
        if self.overridden and self.operation is not None:
            # What the caller sent was read before without a problem.
            self.overridden = b""
            self._read_as(self.operation.deployment)
        self.input_tokens = self.call.input_tokens_max
        self.match = None

    def _wants(self, match: Match) -> Wants:
        assert self.target is not None
        settings = self.gate.settings
        return Wants(
            match.standing,
            self.call,
            self.target,
            self.tariff,
            self.input_tokens,
            settings.default_output_tokens,
            settings.min_answer_tokens,
            self.tier_tariff,
            match.charging,
        )

    def _prompt_counted(self, tokens: int) -> None:
        if self.tried_all:
            return
        if self.client is None:
            self.client_left()
            return
        overhead = self.dialect.prompt_tokens_overhead(self.sent_body)
        self.input_tokens = min(tokens + overhead, self.call.input_tokens_max)
        self.reserve()

    def _refuse_for(self, refusal: LimitRefusal, wants: Wants, now: int) -> None:
        of_place = all(is_of_place(binding) for binding in refusal.bindings)
        if of_place and len(self.candidates) > 1:
            # What is used up is that place's own budget or rate: the next one has another.
            self.candidates = self.candidates[1:]
            self.start_over()
            self._soon()
            return
        if of_place and failover.again_where_it_failed(self):
            return
        would_fit: dict[str, int | str] = {}
        cap = fitting_cap(wants, self.gate.allowances, now)
        if cap:
            would_fit["max_tokens"] = cap
        model = fitting_model(self, refusal, now)
        if model:
            would_fit["model"] = model
        match = self.match
        hidden = match.hidden if match is not None else ()
        problem = limit_problem(refusal, would_fit, hidden)
        lane = self.lane
        rest = lane.rest(self.gate.monotonic_nanos()) if lane is not None else 0
        if rest and of_place:
            # Another place of the name only rests: it may take the call long before this one has room again.
            problem = problem._replace(retry_after_s=min(rest, problem.retry_after_s or rest))
        self.refuse(problem, refusal.limit.id)

    def limit_headers(self) -> bytes:
        """What the caller's limits have left now, this call's hold or charge counted; nothing where none is told."""
        match = self.match
        if match is None or not match.tells:
            return b""
        gate = self.gate
        now = gate.wall_nanos()
        return gate.limit_headers.left(gate.allowances.figures(match.standing, now, match.hidden), now)

    def match_at(self, target: Target) -> Match:
        """The limits that concern this call; found once per key and deployment unless the request describes itself."""
        key, operation, call, described = self.key, self.operation, self.call, self.described
        assert key is not None
        assert operation is not None
        snapshot = self.snapshot
        plain = described is NOT_DESCRIBED and not call.end_user
        if plain:
            match = snapshot.matches.get((key.id, target.name, operation.name))
            if match is not None:
                return match
        provider = target.provider.name
        who = attribution(key, described, call.end_user, target.model, target.name, provider, operation.name)
        row = self.gate.metrics.row(who, "ok")
        match = Match(who, snapshot, row)
        if plain:
            snapshot.matches[key.id, target.name, operation.name] = match
        return match

    def dispatch(self, target: Target) -> None:
        """Step 8 begins: a connection to the chosen deployment."""
        reservation = self.reservation
        if self.downgraded_from or (reservation is not None and reservation.shadowed):
            shadowed = reservation.shadowed if reservation is not None else ()
            self.notes = notes_of(self.downgraded_from, self.downgraded_by, shadowed)
            if self.gate.contents is not None:
                self.notes = self.gate.contents.noted(self, self.notes)
        pool = target.pool
        if pool.lacks:
            self._not_connected("credential_unavailable", pool.lacks)
            return
        connection = pool.take()
        if connection is not None:
            self._connected(connection)
        else:
            health = target.health
            if health.counts:
                # Else a burst of calls would all find the same place idle.
                self.dialling = health
                health.begun()
            self.dialled = True
            connected, failed = guarded(self._connected, self.mistaken), guarded(self._not_connected, self.mistaken)
            within_ms = 0 if self.call.job else failover.left_ms(self, self.gate.monotonic_nanos())
            pool.dial(connected, failed, within_ms)

    def _dialled(self) -> None:
        dialling, self.dialling = self.dialling, None
        if dialling is not None:
            dialling.over()

    def _connected(self, connection: UpstreamConnection) -> None:
        """The connection is open: journal the intent, then send. From here on the provider may bill."""
        gate, target, reservation, match = self.gate, self.target, self.reservation, self.match
        assert target is not None
        self._dialled()
        over = self.ended or self.tried_all
        if over or reservation is None or match is None or self.client is None:
            target.pool.give_back(connection)
            if not over:
                self.client_left()
            return
        refused = gate.closed_for
        if self.dialled and self._out_of_patience():
            refused = refused or self._out_of_time(target)
        if self.snapshot is not gate.snapshot:
            # Opening the connection took time: what was changed meanwhile decides.
            refused = refused or self.choose_again()
            if refused is None and self.candidates[0] is not target:
                target.pool.give_back(connection)
                self.release()
                self.reserve()
                return
            self.match = match
        if refused is not None:
            target.pool.give_back(connection)
            self.refuse(refused)
            return
        at = gate.wall_nanos()
        parked = self.parked
        event: Event
        if parked is None:
            call = self.call
            # A named tuple's own constructor costs three times as much as the tuple's, on every request.
            event = tuple.__new__(
                Intended,
                (
                    self.id,
                    at,
                    reservation.admitted_at,
                    match.who,
                    reservation.amounts,
                    self.tariff.version,
                    call.stream,
                    self.input_tokens,
                    self.idempotency,
                    self.cap,
                    match.charge_rule,
                    self.notes,
                    1,
                    "",
                ),
            )
        else:
            event = failover.redirection(self, parked, reservation.amounts, reservation.admitted_at, at)
        try:
            position = gate.journal.append(event)
        except FaregateError:
            target.pool.give_back(connection)
            self.refuse(gate.disk_failed())
            return
        # The intent is on record: whatever happens from here on, the answer settles it.
        if parked is not None:
            self.parked = None
            gate.leave(parked.answer, parked.reservation, failover.left_behind(parked))
        self.sent += 1
        self.turn = -1
        self.answer = Answer(self, connection) if target.place is None else ServiceAnswer(self, connection)
        health = target.health
        probe, self.probe = self.probe, None
        if health.counts or probe is not None:
            self.answer.watch(health, probe[0] if probe is not None else 0)
        gate.answers_open.add(self.answer)
        if self.idempotency:
            gate.answers.dispatched(match.who.key, self.idempotency, at)
        if gate.waits_for_disk:
            gate.journal.when_durable(position, guarded(self._send, self.mistaken))
        else:
            self._send()

    def _send(self) -> None:
        target, operation, answer = self.target, self.operation, self.answer
        assert target is not None
        assert operation is not None
        assert answer is not None
        place, request = target.place, self.request
        if place is not None:
            own = b"%b%b\r\n%b" % (target.id_header, self.id.encode(), VIA)
            below = operation.below or ""
            answer.send(place.request_head(request.method, below, request.headers, own, len(self.body)), self.body)
            return
        body = self.prepared if self.prepared is not None else self.edited(target)
        if operation.name in ABOUT_OBJECTS:
            constant = target.head_about(
                operation.name, operation.object_id, passed_query(operation.name, request.target)
            )
        else:
            constant = target.heads.get(operation.name) or target.head_of(operation.name)
        id = self.id if self.sent == 1 else attempt_id(self.id, self.sent)
        answer.send(request_head(constant, self.forwarded, target.id_header, id, len(body)), body)
        if self.snapshot.mirrors and self.sent == 1 and self.key is not None and answer.was_sent:
            self.gate.mirrors.look(self)

    def edited(self, target: Target) -> bytes:
        """The caller's bytes, with the few splices that forwarding needs (docs/reference/gateway.md)."""
        call, body, dialect, operation = self.call, self.overridden or self.body, self.dialect, self.operation
        assert operation is not None
        model = None
        if operation.name in ABOUT_OBJECTS:
            # The lines of a batch name their deployment everywhere; nothing else here names a model.
            model = target.upstream_model if call.model and call.model != target.upstream_model else None
        elif self.downgraded_from or (
            target.rewrites_model and (operation.deployment or target.upstream_model != call.model)
        ):
            model = target.upstream_model
        ask_usage = dialect.asks_usage and call.stream and not call.usage_wanted and target.provider.stream_usage
        if model is None and not self.cap and not ask_usage and call.tool_cap is None and body[:1] == b"{":
            return body
        cap_field = dialect.cap_field or target.cap_field
        body = dialect.edit(body, call, model=model, cap=self.cap or None, cap_field=cap_field, ask_usage=ask_usage)
        if call.tool_cap is not None:
            name, most = call.tool_cap
            body = put(body, name, b"%d" % most, name in call.members)
        return body

    def _not_connected(self, code: str, why: str) -> None:
        """Nothing was sent: the next candidate is tried under a hold of its own, all in memory."""
        gate, target = self.gate, self.target
        assert target is not None
        self._dialled()
        waited = (gate.monotonic_nanos() - self.started) // 1000
        if self.ended or self.tried_all:
            return
        self.attempts = (*self.attempts, Attempt(target.name, 0, code, waited))
        if target.place is None and code != "upstream_timeout":
            # The caller's own deadline says nothing of the provider.
            probe = self.probe[0] if self.probe is not None else 0
            gate.deployments.failed(target, self.lane, 0, code, 0, probe)
        self.release()
        self.start_over()
        self.candidates = self.candidates[1:]
        if self.client is None:
            self.client_left()
        elif self._out_of_patience():
            self.refuse(self._out_of_time(target))
        elif self.candidates:
            self._soon()
        elif not failover.dial_again(self, code):
            text = f"Provider {target.provider.name}: {why}. Charged: nothing."
            self.refuse(Problem(code, text, retry_after_s=CREDENTIAL_RETRY_S if target.pool.lacks else 1))

    def _out_of_patience(self) -> bool:
        """Whether the caller's own deadline has passed, which says nothing of work that goes on after its answer."""
        return not self.call.job and failover.too_late(self, self.gate.monotonic_nanos())

    @staticmethod
    def _out_of_time(target: Target) -> Problem:
        return Problem("upstream_timeout", f"Provider {target.provider.name}: {TOO_LONG}. Charged: nothing.")

    # -- ends ----------------------------------------------------------------------------------------------------------

    def refuse(self, problem: Problem, limit: str = "") -> None:
        """Answer with a problem; nothing was sent, nothing stays held."""
        if self.parked is not None:
            # Something was sent before, and what came of that is told instead.
            failover.give_up(self)
            return
        self.release()
        problem, denial = self.gate.denials.chosen(problem)
        self.gate.metrics.refused(problem.code)
        keep_alive = self.keep_alive = self.keep_alive and not problem.close
        shape = self.operation.shape if self.operation is not None else "openai"
        if self.key is not None:
            self._tell_refused(problem, limit)
        left = self.limit_headers()
        self.write_whole(problem_answer(problem, self.id, shape, keep_alive=keep_alive, extra=left, denial=denial))

    def mistaken(self, error: BaseException) -> None:
        """A step failed in a way that nobody foresaw."""
        self.gate.tell_mistake(error)
        self.abandon()

    def abandon(self) -> None:
        """Something went wrong that nobody foresaw: end the request, with its hold, and say no more than that."""
        if self.ended:
            return
        if self.answer is not None:
            self.answer.abandon(_MISTAKE)
        elif self.replay is not None:
            # Half of it is out: only the end of the connection says that it is not whole.
            self.ended = True
            if self.client is not None:
                self.client.transport.abort()
        else:
            self.refuse(_MISTAKE)

    def _tell_refused(self, problem: Problem, limit: str) -> None:
        key, gate = self.key, self.gate
        assert key is not None
        if gate.contents is not None:
            gate.contents.refused(self, problem)
        call: Call | None = getattr(self, "call", None)
        who = (
            self.match.who
            if self.match is not None
            else attribution(
                key,
                self.described,
                model=call.model[:256] if call is not None else "",
                asked=self._asked(),
            )
        )
        latency = (gate.monotonic_nanos() - self.started) // 1000
        stream = call is not None and call.stream
        gate.tell_refused(
            Refused(self.id, gate.wall_nanos(), who, stream, status_of(problem), problem.code, latency, limit)
        )

    def _asked(self) -> str:
        """The operation, as records name it; where no service is called so, its name is only a text of the caller's."""
        operation = self.operation
        if operation is None or (operation.below is not None and operation.name not in self.snapshot.services):
            return ""
        return operation.name

    def release(self) -> None:
        """Hold nothing any more."""
        self.give_way()
        if self.reservation is not None:
            self.gate.allowances.release(self.reservation)
            self.reservation = None

    def client_left(self) -> None:
        """The client went away before anything was sent."""
        if self.answer is not None:
            # Something was sent before; its answer ends the call.
            return
        self.release()
        self._unanswered()
        self.ended = True

    def give_turn_back(self) -> None:
        """Nothing was sent in its turn: it is the next caller's."""
        turn, self.turn = self.turn, -1
        if turn >= 0 and self.lane is not None:
            self.lane.give_back(turn)

    def _unanswered(self) -> None:
        """Where it ends without an answer of a provider, nobody waits for one: no follower, and no repeat."""
        self.give_turn_back()
        if self.look is not None and self.answer is None and self.gate.cache is not None:
            self.gate.cache.gave_up(self)
        if self.idempotency and self.answer is None and self.key is not None:
            self.gate.answers.forget(self.key.id, self.idempotency)
            self.idempotency = ""

    def write_whole(self, answer: bytes) -> None:
        """Write an answer of ours and end."""
        self._unanswered()
        self.ended = True
        client = self.client
        if client is not None:
            if self.request.method == b"HEAD":
                # A body after the answer to HEAD would be read as the next answer.
                answer = answer[: answer.index(b"\r\n\r\n") + 4]
            client.write(answer)
            client.ended(self.keep_alive)

    # -- from the client's connection ----------------------------------------------------------------------------------

    def client_gone(self) -> None:
        """The client's connection closed."""
        self.client = None
        if self.ended:
            return
        if self.answer is not None:
            self.answer.client_gone()
        elif self.look is not None and self.look.timer is not None and self.gate.cache is not None:
            self.gate.cache.left(self)
        elif self.reservation is not None:
            # A connection is being opened or lines are being renamed; its callback finds nobody waiting.
            self.release()
        else:
            # It waits to be read or counted, in a line that may be long, and is no longer counted among what is held.
            self.body = b""

    def pause(self) -> None:
        """The client reads too slowly: stop reading the provider, or writing what is kept."""
        if self.answer is not None:
            self.answer.pause()
        elif self.replay is not None:
            self.replay.pause()

    def resume(self) -> None:
        """The client caught up."""
        if self.answer is not None:
            self.answer.resume()
        elif self.replay is not None:
            self.replay.resume()

    def sweep(self, now: float) -> None:
        """Deadlines of the provider's answer."""
        if self.answer is not None:
            self.answer.sweep(now)


def _offered(targets: tuple[Target, ...], operation: str, allowed: frozenset[str] | None) -> tuple[Target, ...]:
    """Those of ``targets`` that do an operation and whose provider is among those ``allowed``; ``None`` allows all."""
    return tuple(
        target
        for target in targets
        if operation in target.operations and (allowed is None or target.provider.name in allowed)
    )
