"""One exchange in ten steps (DESIGN section 4), as a machine of callbacks: no coroutine, lock or timer of its own.

    1 accept (server)   2 identify   3 read   4 recall   5 choose   6 bound   7 reserve   8 relay   9 settle   10 tell

Three promises are kept here. The exchange owns the provider's answer, the client's connection does not: a client that
goes away ends the relay, never the settlement. No answer byte leaves without a hold and no hold is without an end. A
second candidate is tried only before the first byte was sent.

The answer's side (steps 8 and 9) is in ``answer``.
"""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from faregate.control import Key
from faregate.core.attribution import Attribution
from faregate.core.call import Call
from faregate.core.ledger.events import Attempt, Intended, Refused
from faregate.core.limits.admit import LimitRefusal, Reservation
from faregate.core.pricing.cost import Tariff
from faregate.dialects import DIALECTS, Dialect
from faregate.dialects.errors_shape import models_answer
from faregate.dialects.paths import Operation, route
from faregate.dialects.splice import edit
from faregate.errors import Problem, status_of
from faregate.proxy.answer import Answer
from faregate.proxy.bound import Held, Wants, hold, largest_cap, upper_bound
from faregate.proxy.forward import HOP_TOKEN, forwarded_headers, request_head
from faregate.proxy.http1 import Request
from faregate.proxy.identify import NOT_DESCRIBED, Described, describe, identify
from faregate.proxy.refuse import limit_problem, plain_answer, problem_answer
from faregate.proxy.snapshot import Match, Snapshot, Target
from faregate.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from faregate.proxy.gate import Gate
    from faregate.proxy.server import ClientConnection


class Entered(NamedTuple):
    """What a head alone tells under one snapshot: its path, its key, and the headers that pass on."""

    snapshot: Snapshot
    operation: Operation
    key: Key
    forwarded: bytes


_MISTAKE = Problem("internal", "The gateway failed; nothing was charged. Report this request id.", close=True)

#: Units whose bound shrinks when the prompt is counted instead of measured.
_COUNTABLE = frozenset(("usd", "tokens", "input_tokens"))


class Exchange:
    """A call and its answer, from accept to settle."""

    __slots__ = (
        "answer",
        "attempts",
        "call",
        "candidates",
        "cap",
        "client",
        "counted",
        "counters",
        "described",
        "dialect",
        "ended",
        "forwarded",
        "gate",
        "id",
        "idempotency",
        "input_tokens",
        "key",
        "operation",
        "request",
        "reservation",
        "snapshot",
        "started",
        "target",
        "tariff",
        "who",
    )

    dialect: Dialect
    call: Call
    tariff: Tariff
    who: Attribution
    counters: list[int]

    def __init__(self, gate: "Gate", client: "ClientConnection", request: Request) -> None:
        self.gate = gate
        self.client: ClientConnection | None = client
        self.request = request
        self.id = gate.new_id()
        self.started = gate.monotonic_nanos()
        #: One exchange works from one snapshot, whatever the console changes meanwhile.
        self.snapshot: Snapshot = gate.snapshot
        self.operation: Operation | None = None
        self.key: Key | None = None
        self.described: Described = NOT_DESCRIBED
        self.candidates: list[Target] = []
        self.target: Target | None = None
        self.reservation: Reservation | None = None
        self.input_tokens = 0
        self.counted = False
        self.cap = 0
        self.forwarded = b""
        self.attempts: tuple[Attempt, ...] = ()
        self.idempotency = ""
        self.answer: Answer | None = None
        self.ended = False

    # -- the steps -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the steps up to the reservation, or answer at once."""
        found = self.request.head.found if self.request.head is not None else None
        if type(found) is Entered and found.snapshot is self.snapshot:
            # The same head came on this connection before, under this very snapshot; and it names no idempotency key.
            _, self.operation, self.key, self.forwarded = found
            problem = self.gate.closed_for or self._read() or self._choose()
        else:
            problem = self.request.problem or self._enter()
            if problem is None and self.operation is not None and self.operation.metered:
                problem = self._identify() or self._read() or self._recall() or self._choose()
        if problem is not None:
            self.refuse(problem)
        elif self.candidates:
            self._reserve()

    def _enter(self) -> Problem | None:
        """What needs no key: health, unknown paths; and whether calls are taken at all."""
        request = self.request
        operation = route(request.method, request.target)
        if isinstance(operation, Problem):
            return operation
        self.operation = operation
        if operation.metered:
            return self.gate.closed_for
        if operation.name.startswith("health."):
            self._answer_health(operation.name == "health.ready")
            return None
        problem = self._identify()
        if problem is None:
            problem = self._answer_models(operation)
        return problem

    def _identify(self) -> Problem | None:
        """Step 2: who asks."""
        gate, request = self.gate, self.request
        found = identify(request, self.snapshot, gate.peppers, gate.wall_nanos())
        if isinstance(found, Problem):
            return found
        self.key = found
        if request.describes:
            described = describe(request, found, self.snapshot)
            if isinstance(described, Problem):
                return described
            self.described = described
        via = request.headers.get(b"via")
        if via is not None and HOP_TOKEN in via.lower():
            return Problem("header_invalid", "Header Via: this request has passed Faregate before; it loops.", "Via")
        operation = self.operation
        assert operation is not None
        return self._check_media() if operation.metered else None

    def _check_media(self) -> Problem | None:
        """The head's part of step 3; and remember what this head said, if it says the same every time."""
        request, key = self.request, self.key
        headers = request.headers
        media = headers.get(b"content-type")
        if media != b"application/json" and not _is_json(media):
            return Problem("media_unsupported", "Send Content-Type application/json.", "Content-Type")
        if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
            return Problem("encoding_unsupported", "Compressed request bodies are not accepted.", "Content-Encoding")
        self.forwarded = forwarded_headers(headers)
        if request.head is not None and key is not None and self.operation is not None:
            timeless = not key.expires_at and not any(key.digests.values())
            if timeless and not request.describes and b"idempotency-key" not in headers:
                request.head.found = Entered(self.snapshot, self.operation, key, self.forwarded)
        return None

    def _read(self) -> Problem | None:
        """Step 3: the few facts of the call; the body's bytes stay as they came."""
        request, operation = self.request, self.operation
        assert operation is not None
        self.dialect = DIALECTS[operation.name]
        call = self.dialect.read(
            request.body,
            model=operation.deployment,
            forbid_private_urls=self.gate.settings.forbid_private_urls,
        )
        if isinstance(call, Problem):
            return call
        self.call = call
        return None

    def _recall(self) -> Problem | None:
        """Step 4: the same call under the same ``Idempotency-Key`` is never sent twice."""
        name = self.request.headers.get(b"idempotency-key")
        if name is None:
            return None
        assert self.key is not None
        text = name.decode("latin-1")
        if not 1 <= len(text) <= 255 or not text.isprintable():
            rule = "Idempotency-Key: expected 1 to 255 printable characters."
            return Problem("idem_invalid", rule, "Idempotency-Key")
        digest = hashlib.sha256(self.request.target + b"\n" + self.request.body).digest()
        answers = self.gate.answers
        known = answers.find(self.key.id, text)
        if known is None:
            self.idempotency = text
            answers.begin(self.key.id, text, digest, self.id)
            return None
        if known.digest != digest:
            return Problem("idem_conflict", "This Idempotency-Key was used with a different body.", "Idempotency-Key")
        if known.state == "in_flight":
            rule = f"The call with this Idempotency-Key ({known.request_id}) is still under way; retry later."
            return Problem("idem_in_progress", rule, "Idempotency-Key", retry_after_s=1)
        kept = answers.answer(self.key.id, text) if known.state == "kept" else None
        if kept is None:
            rule = (
                f"The call with this Idempotency-Key was made; its answer is not kept. See request {known.request_id}."
            )
            return Problem("idem_completed", rule, "Idempotency-Key", details={"request_id": known.request_id})
        self._write_whole(
            plain_answer(
                kept.status,
                kept.body,
                known.request_id,
                keep_alive=self.request.keep_alive,
                extra=kept.head + b"idempotent-replayed: true\r\n",
            )
        )
        return None

    def _choose(self) -> Problem | None:
        """Step 5: the deployments this call may go to, in order."""
        if self.ended:
            return None
        key, operation, call, snapshot = self.key, self.operation, self.call, self.snapshot
        assert key is not None
        assert operation is not None
        if key.operations is not None and operation.name not in key.operations:
            return Problem("operation_forbidden", f"This key may not call {operation.name}.")
        if key.models is not None and call.model not in key.models:
            return Problem("model_forbidden", f"model: this key may not use {call.model[:64]!r}.", "model")
        targets = snapshot.routes.get(call.model, ())
        allowed = snapshot.stages.get(self.described.stage or key.stage)
        for target in targets:
            if operation.name in target.operations and (allowed is None or target.provider.name in allowed):
                self.candidates.append(target)
        if self.candidates:
            return None
        if targets and allowed is not None and not any(t.provider.name in allowed for t in targets):
            stage = self.described.stage or key.stage
            return Problem("stage_forbidden", f"Stage {stage} has no provider for this model.", "model")
        return Problem("model_not_found", f"Model {call.model[:64]!r} is not configured for {operation.name}.", "model")

    def _reserve(self) -> None:
        """Steps 6 and 7: hold the most the call may cost on every limit, or on none."""
        gate, call = self.gate, self.call
        # Counting tokens or a failed connection takes time: the limits that hold now are what admits the call.
        self.snapshot = gate.snapshot
        target = self.target = self.candidates[0]
        now = gate.wall_nanos()
        tariff = target.prices.at(now)
        if tariff is None:
            text = f"Model {call.model[:64]!r} has no valid price; the administrator must set one."
            self.refuse(Problem("price_unknown", text, "model"))
            return
        self.tariff = tariff
        match = self._match(target)
        self.who = match.who
        self.counters = match.answered
        if self.snapshot.catalogue.require_limit and not any(limit.unit_name == "usd" for limit in match.limits):
            text = "No money limit applies to this key, and the administrator requires one."
            self.refuse(Problem("limit_required", text))
            return
        input_tokens = self.input_tokens or call.input_tokens_max
        whole = call.output_cap if call.output_cap is not None else target.output_tokens_max
        if whole or not call.has_output:
            # Nearly every call ends here: what it asks for fits.
            amounts = upper_bound(call, tariff, input_tokens, whole)
            reserved = gate.allowances.reserve(self.id, match.limits, match.who, amounts, now)
            if type(reserved) is Reservation:
                self.reservation = reserved
                self._dispatch()
                return
        wants = self._wants(match)
        outcome = hold(self.id, wants, gate.allowances, now)
        if isinstance(outcome, Held):
            self.reservation = outcome.reservation
            self.cap = outcome.cap
            self._dispatch()
            return
        if not self.counted and outcome.limit.unit_name in _COUNTABLE and target.encoding:
            # Away from a limit the length of the body bounds its tokens well enough; here an exact count may fit.
            self.counted = True
            gate.count_tokens(
                self.dialect.prompt_text(self.request.body), target.encoding, self._guarded(self._prompt_counted)
            )
            return
        self._refuse_for(outcome, wants, now)

    def _wants(self, match: Match) -> Wants:
        assert self.target is not None
        settings = self.gate.settings
        return Wants(
            match.who,
            match.limits,
            self.call,
            self.target,
            self.tariff,
            self.input_tokens or self.call.input_tokens_max,
            settings.default_output_tokens,
            settings.min_answer_tokens,
        )

    def _prompt_counted(self, tokens: int) -> None:
        self.input_tokens = min(
            tokens + self.dialect.prompt_tokens_overhead(self.request.body), self.call.input_tokens_max
        )
        if self.client is None:
            self._give_up()
        else:
            self._reserve()

    def _refuse_for(self, refusal: LimitRefusal, wants: Wants, now: int) -> None:
        cap = largest_cap(wants, self.gate.allowances, now) if self.call.has_output else -1
        would_fit = {"max_tokens": cap} if cap >= self.gate.settings.min_answer_tokens else None
        self.refuse(limit_problem(refusal, would_fit), refusal.limit.id)

    def _match(self, target: Target) -> Match:
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
        end_user, source = described.end_user, "header"
        if not end_user:
            allowed = call.end_user and "user" in key.may_set
            end_user, source = (call.end_user, "body") if allowed else ("", "")
        who = Attribution(
            key.organization,
            key.team,
            described.project or key.project,
            key.user,
            end_user,
            key.id,
            key.product,
            described.stage or key.stage,
            described.run,
            target.model,
            target.name,
            target.provider.name,
            operation.name,
            described.tags,
            source,
        )
        match = Match(who, tuple(snapshot.limits.matching(who)), self.gate.metrics.row(who, "ok"))
        if plain:
            snapshot.matches[key.id, target.name, operation.name] = match
        return match

    def _dispatch(self) -> None:
        """Step 8 begins: a connection to the chosen deployment."""
        assert self.target is not None
        pool = self.target.pool
        connection = pool.take()
        if connection is not None:
            self._connected(connection)
        else:
            pool.dial(self._guarded(self._connected), self._guarded(self._not_connected))

    def _connected(self, connection: UpstreamConnection) -> None:
        """The connection is open: journal the intent, then send. From here on the provider may bill."""
        gate, target, reservation = self.gate, self.target, self.reservation
        assert target is not None
        if reservation is None or self.client is None:
            target.pool.give_back(connection)
            self._give_up()
            return
        refused = gate.closed_for
        if refused is not None:
            target.pool.give_back(connection)
            self.refuse(refused)
            return
        at = gate.wall_nanos()
        intent = Intended(
            self.id,
            at,
            reservation.admitted_at,
            self.who,
            reservation.amounts,
            self.tariff.version,
            self.call.stream,
            self.input_tokens or self.call.input_tokens_max,
            self.idempotency,
            self.cap,
        )
        position = gate.journal_intent(intent)
        if position is None:
            target.pool.give_back(connection)
            self.refuse(gate.closed_for or Problem("storage_full", "Not accepted: the disk is full.", retry_after_s=5))
            return
        if self.idempotency:
            gate.answers.dispatched(self.who.key, self.idempotency, at)
        self.answer = Answer(self, connection)
        if gate.waits_for_disk:
            gate.journal.when_durable(position, self._guarded(self._send))
        else:
            self._send()

    def _send(self) -> None:
        target, operation, answer = self.target, self.operation, self.answer
        assert target is not None
        assert operation is not None
        assert answer is not None
        body = self._edited(target)
        constant = target.heads[operation.name]
        answer.send(request_head(constant, self.forwarded, target.provider.kind, self.id, len(body)), body)

    def _edited(self, target: Target) -> bytes:
        """The caller's bytes, with the few splices that forwarding needs (docs/reference/gateway.md)."""
        call, operation = self.call, self.operation
        assert operation is not None
        model = None
        ask_usage = call.stream and not call.usage_wanted and target.provider.stream_usage
        if target.rewrites_model and (operation.deployment or target.upstream_model != call.model):
            model = target.upstream_model
        body = self.request.body
        if model is None and not self.cap and not ask_usage and body[:1] == b"{":
            return body
        # Only chat knows the newer name of the cap.
        cap_field = target.cap_field if operation.name == "chat.completions" else "max_tokens"
        return edit(body, call, model=model, cap=self.cap or None, cap_field=cap_field, ask_usage=ask_usage)

    def _not_connected(self, code: str, why: str) -> None:
        """Nothing was sent: the next candidate is tried under a hold of its own, all in memory."""
        gate, target = self.gate, self.target
        assert target is not None
        waited = (gate.monotonic_nanos() - self.started) // 1000
        self.attempts = (*self.attempts, Attempt(target.name, 0, code, waited))
        self._release()
        # The next one has its own maximum and its own tokenizer.
        self.cap = self.input_tokens = 0
        self.counted = False
        del self.candidates[0]
        if self.client is None:
            self._give_up()
        elif self.candidates:
            self._reserve()
        else:
            text = f"Provider {target.provider.name}: {why}. Charged: nothing."
            self.refuse(Problem(code, text, retry_after_s=1))

    # -- ends ----------------------------------------------------------------------------------------------------------

    def refuse(self, problem: Problem, limit: str = "") -> None:
        """Answer with a problem; nothing was sent, nothing stays held."""
        self._release()
        self.gate.metrics.refused(problem.code)
        keep_alive = self.request.keep_alive and not problem.close
        shape = self.operation.shape if self.operation is not None else "openai"
        if self.key is not None:
            self._tell_refused(problem, limit)
        self.request.keep_alive = keep_alive
        self._write_whole(problem_answer(problem, self.id, shape, keep_alive=keep_alive))

    def _guarded(self, step: Callable[..., None]) -> Callable[..., None]:
        """A step that is called back later, and not by the client's connection: it must not fail unseen either."""

        def run(*arguments: Any) -> None:
            try:
                step(*arguments)
            except Exception as error:  # A mistake of ours must end this one request, and give back what it holds.
                self.gate.tell_mistake(error)
                self.abandon()

        return run

    def abandon(self) -> None:
        """Something went wrong that nobody foresaw: end the request, with its hold, and say no more than that."""
        if self.ended:
            return
        if self.answer is not None:
            self.answer.cut(_MISTAKE)
        else:
            self.refuse(_MISTAKE)

    def _tell_refused(self, problem: Problem, limit: str) -> None:
        key, operation, gate = self.key, self.operation, self.gate
        assert key is not None
        call: Call | None = getattr(self, "call", None)
        who = getattr(self, "who", None) or Attribution(
            key.organization,
            key.team,
            self.described.project or key.project,
            key.user,
            self.described.end_user,
            key.id,
            key.product,
            self.described.stage or key.stage,
            self.described.run,
            call.model[:256] if call is not None else "",
            service=operation.name if operation is not None else "",
            tags=self.described.tags,
        )
        latency = (gate.monotonic_nanos() - self.started) // 1000
        stream = call is not None and call.stream
        gate.tell_refused(
            Refused(self.id, gate.wall_nanos(), who, stream, status_of(problem), problem.code, latency, limit)
        )

    def _release(self) -> None:
        if self.reservation is not None:
            self.gate.allowances.release(self.reservation)
            self.reservation = None

    def _give_up(self) -> None:
        """The client went away before anything was sent."""
        self._release()
        self._forget_name()
        self.ended = True

    def _forget_name(self) -> None:
        if self.idempotency and self.answer is None and self.key is not None:
            self.gate.answers.forget(self.key.id, self.idempotency)
            self.idempotency = ""

    def _write_whole(self, answer: bytes) -> None:
        """Write an answer of ours and end."""
        self._forget_name()
        self.ended = True
        client = self.client
        if client is not None:
            if self.request.method == b"HEAD":
                # A body after the answer to HEAD would be read as the next answer.
                answer = answer[: answer.index(b"\r\n\r\n") + 4]
            client.write(answer)
            client.ended(self.request.keep_alive)

    def _answer_health(self, ready: bool) -> None:
        closed = self.gate.closed_for if ready else None
        status, body = (200, b'{"status":"ok"}') if closed is None else (503, b'{"status":"unavailable"}')
        self._write_whole(plain_answer(status, body, self.id, keep_alive=self.request.keep_alive))

    def _answer_models(self, operation: Operation) -> Problem | None:
        """``/v1/models`` is answered here, with the models this key may use."""
        assert self.key is not None
        names = self.snapshot.model_names
        if self.key.models is not None:
            allowed = frozenset(self.key.models)
            names = tuple(name for name in names if name in allowed)
        body = models_answer(names, operation.deployment)
        if body is None:
            return Problem("model_not_found", f"Model {operation.deployment[:64]!r} is not configured.", "model")
        self._write_whole(plain_answer(200, body, self.id, keep_alive=self.request.keep_alive))
        return None

    # -- from the client's connection ----------------------------------------------------------------------------------

    def client_gone(self) -> None:
        """The client's connection closed."""
        self.client = None
        if self.answer is not None:
            self.answer.client_gone()
        elif self.reservation is not None:
            # A connection is being opened or tokens are being counted; its callback finds nobody waiting.
            self._release()

    def pause(self) -> None:
        """The client reads too slowly: stop reading the provider."""
        if self.answer is not None:
            self.answer.pause()

    def resume(self) -> None:
        """The client caught up."""
        if self.answer is not None:
            self.answer.resume()

    def sweep(self, now: float) -> None:
        """Deadlines of the provider's answer."""
        if self.answer is not None:
            self.answer.sweep(now)


def _is_json(media: bytes | None) -> bool:
    """``application/json``, with no charset or UTF-8."""
    if media is None:
        return False
    essence, _, parameters = media.lower().partition(b";")
    parameters = parameters.strip().replace(b'"', b"")
    return essence.strip() == b"application/json" and parameters in (b"", b"charset=utf-8", b"charset=utf8")
