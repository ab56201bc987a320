"""Steps 2 to 4 of an exchange: what the head of a request says, and the answers that need no provider.

A head is looked at once. What was found out from it alone is remembered with the connection (``Entered``), because
clients send the same head again and again; it holds for one snapshot, so that a revoked key or a changed route is seen
at once.
"""

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from faregate.control import Key
from faregate.dialects import DIALECTS, Dialect
from faregate.dialects.errors_shape import models_answer
from faregate.dialects.operations import ABOUT_OBJECTS
from faregate.dialects.paths import VERIFY, Operation, route, unmetered
from faregate.errors import Problem
from faregate.proxy import verify_caller
from faregate.proxy.described import describe
from faregate.proxy.forward import HOP_TOKEN, answer_head, forwarded_headers
from faregate.proxy.http1 import Request
from faregate.proxy.identify import identify
from faregate.proxy.refuse import plain_answer
from faregate.proxy.routing import Lane
from faregate.proxy.snapshot import Match, Snapshot
from faregate.proxy.standing import outside, peer_of
from faregate.proxy.tokenize import TOKENIZER_OPERATIONS
from faregate.proxy.tokens import TokenKey

if TYPE_CHECKING:
    import asyncio

    from faregate.proxy.exchange import Exchange
    from faregate.proxy.gate import Gate


class Plan(NamedTuple):
    """The way that the calls of one head to one model go, and what they are charged to where it has one order only."""

    lane: Lane
    match: Match | None


class Entered(NamedTuple):
    """What a head alone tells under one snapshot: its path, its key, and the headers that pass on."""

    snapshot: Snapshot
    operation: Operation
    dialect: Dialect
    key: Key
    forwarded: bytes
    #: By model; only for models that are routed, so there are never more than those.
    plans: dict[str, Plan]
    #: What it says of the response cache, as ``exchange.caching``.
    caching: str = ""


def admissible(gate: "Gate", request: Request, transport: "asyncio.Transport") -> Key | Problem:
    """Whose the body that belongs to this head is, if it is worth being received: a known path, and a known key."""
    operation = _routed(request)
    if isinstance(operation, Problem):
        return operation
    # A gate that is starting knows no keys yet: nobody may be told that theirs is not valid.
    closed = gate.closed_for if operation.metered else _starting(gate)
    if closed is not None:
        return closed
    found = identify(request, gate.snapshot, gate.peppers, gate.wall_nanos(), gate.issuers)
    if isinstance(found, Problem):
        # Where the keys of its token's issuer are just being looked at, the body may come in meanwhile.
        return (gate.issuers.stand_in(found) if gate.issuers is not None else None) or found
    if found.networks is not None or found.paths is not None:
        problem = outside(gate, found, request, peer_of(transport))
        if problem is not None:
            return problem
    if operation.below is None:
        return found
    return not_offered(request, gate.snapshot, operation, 0) or found


def _starting(gate: "Gate") -> Problem | None:
    """Why nobody can be known yet."""
    return None if gate.opened_first else gate.closed_for


def not_offered(request: Request, snapshot: Snapshot, operation: Operation, body_bytes: int) -> Problem | None:
    """Why a service behind the gate is not asked what the request asks of it."""
    target = snapshot.services.get(operation.name)
    if target is None or target.place is None:
        return Problem("not_found", f"No service is called {operation.name}.")
    return target.place.refusal(request.method, request.headers, operation.below or "", body_bytes)


def _routed(request: Request) -> Operation | Problem:
    """The operation of a request; one that is declared and that no dialect reads yet is refused by its name."""
    operation = route(request.method, request.target)
    if type(operation) is Operation and operation.metered and operation.name not in DIALECTS:
        # A service behind the gate has no dialect: its bodies are bytes.
        return operation if operation.below is not None else unmetered(operation.name)
    return operation


def takes_uploads(method: bytes, target: bytes) -> bool:
    """Whether a request brings files, whose bound is a larger one."""
    operation = route(method, target)
    dialect = DIALECTS.get(operation.name) if isinstance(operation, Operation) else None
    return dialect is not None and dialect.media == "form"


def enter(exchange: "Exchange") -> Problem | None:
    """Find the operation and the key; answer what needs no provider."""
    request = exchange.request
    operation = _routed(request)
    if not isinstance(operation, Problem):
        # Also a request that is refused is answered in the shape of its path.
        exchange.operation = operation
    if request.problem is not None:
        return request.problem
    if isinstance(operation, Problem):
        # Nothing is served here; a known caller's attempt is a record all the same.
        gate = exchange.gate
        found = identify(request, exchange.snapshot, gate.peppers, gate.wall_nanos(), gate.issuers)
        exchange.key = None if isinstance(found, Problem) else found
        return operation
    if operation.below is not None:
        return exchange.gate.closed_for or identified(exchange)
    if operation.metered:
        dialect = exchange.dialect = DIALECTS[operation.name]
        problem = (
            exchange.gate.closed_for
            or identified(exchange)
            or _check_media(exchange, dialect.media)
            or _take_caching(exchange)
        )
        if problem is None:
            _remember(exchange)
        return problem
    if operation.name.startswith("health."):
        _answer_health(exchange, operation.name == "health.ready")
        return None
    if operation.name == VERIFY:
        return _starting(exchange.gate) or verify_caller.answer(exchange)
    problem = _starting(exchange.gate) or identified(exchange)
    if problem is not None:
        return problem
    if operation.name in TOKENIZER_OPERATIONS:
        return exchange.gate.tokenizer.answer(exchange)
    return _answer_models(exchange, operation)


def identified(exchange: "Exchange") -> Problem | None:
    """Step 2: who asks."""
    gate, request = exchange.gate, exchange.request
    snapshot = exchange.snapshot
    found = identify(request, snapshot, gate.peppers, gate.wall_nanos(), gate.issuers)
    if isinstance(found, Problem):
        return found
    exchange.key = found
    if found.networks is not None or found.paths is not None:
        client = exchange.client
        problem = outside(gate, found, request, peer_of(client.transport) if client is not None else "")
        if problem is not None:
            return problem
    if request.describes or snapshot.describes or type(found) is TokenKey:
        described = describe(request, found, snapshot, gate.issuers, gate.wall_nanos())
        if isinstance(described, Problem):
            return described
        exchange.described = described
    via = request.headers.get(b"via")
    if via is not None and HOP_TOKEN in via.lower():
        return Problem("header_invalid", "Header Via: this request has passed Faregate before; it loops.", "Via")
    return None


def _check_media(exchange: "Exchange", wanted: str) -> Problem | None:
    """The head's part of step 3: whether the body is of the media type that the operation reads."""
    headers = exchange.request.headers
    media = headers.get(b"content-type")
    if wanted == "json":
        if media != b"application/json" and not _is_json(media):
            return Problem("media_unsupported", "Send Content-Type application/json.", "Content-Type")
    elif wanted == "form" and (media is None or not media.lower().startswith(b"multipart/form-data;")):
        return Problem("media_unsupported", "Send Content-Type multipart/form-data.", "Content-Type")
    if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
        return Problem("encoding_unsupported", "Compressed request bodies are not accepted.", "Content-Encoding")
    exchange.forwarded = forwarded_headers(headers)
    return None


def _take_caching(exchange: "Exchange") -> Problem | None:
    """What the head says of the response cache."""
    cache, key = exchange.gate.cache, exchange.key
    if cache is not None and key is not None:
        mode = cache.mode(exchange.request, key, exchange.described, exchange.snapshot)
        if isinstance(mode, Problem):
            return mode
        exchange.caching = mode
    return None


def _remember(exchange: "Exchange") -> None:
    """Keep what this head said, if it says the same every time it comes."""
    request, key, operation = exchange.request, exchange.key, exchange.operation
    if not request.repeats or key is None or operation is None or operation.name in ABOUT_OBJECTS:
        return
    if exchange.dialect.media == "form":
        # Each has a boundary of its own; and large ones are not read on the loop.
        return
    timeless = not key.expires_at and not any(key.digests.values())
    describes = request.describes or exchange.snapshot.describes
    if timeless and not describes and b"idempotency-key" not in request.headers:
        request.found = Entered(
            exchange.snapshot, operation, exchange.dialect, key, exchange.forwarded, {}, exchange.caching
        )


def recall(exchange: "Exchange") -> Problem | None:
    """Step 4: the same call under the same ``Idempotency-Key`` is never sent twice."""
    request = exchange.request
    name = request.headers.get(b"idempotency-key")
    if name is None:
        return None
    assert exchange.key is not None
    key = exchange.key.id
    text = name.decode("latin-1")
    if not 1 <= len(text) <= 255 or not text.isprintable():
        rule = "Idempotency-Key: expected 1 to 255 printable characters."
        return Problem("idem_invalid", rule, "Idempotency-Key")
    # A look and a deletion of the same object have the same path, and no body.
    method = b"" if request.method == b"POST" else request.method + b" "
    told = hashlib.sha256(method + request.target + b"\n")
    told.update(exchange.body)
    if type(exchange.key) is TokenKey:
        # One key for all people of an application: what one of them was answered is nothing that another may have.
        told.update(f"\n{exchange.key.tenant}\n{exchange.key.end_user}".encode())
    digest = told.digest()
    answers = exchange.gate.answers
    known = answers.find(key, text)
    if known is None:
        exchange.idempotency = text
        answers.begin(key, text, digest, exchange.id)
        return None
    if known.digest != digest:
        return Problem("idem_conflict", "This Idempotency-Key was used with a different body.", "Idempotency-Key")
    if known.state == "in_flight":
        rule = f"The call with this Idempotency-Key ({known.request_id}) is still under way; retry later."
        return Problem("idem_in_progress", rule, "Idempotency-Key", retry_after_s=1)
    kept = answers.answer(key, text) if known.state == "kept" else None
    if kept is None:
        rule = f"The call with this Idempotency-Key was made; its answer is not kept. See request {known.request_id}."
        return Problem("idem_completed", rule, "Idempotency-Key", details={"request_id": known.request_id})
    exchange.write_whole(
        answer_head(
            kept.status,
            kept.head,
            known.request_id,
            b"idempotent-replayed: true\r\n",
            b"content-length: %d\r\n" % len(kept.body),
            exchange.keep_alive,
        )
        + kept.body
    )
    return None


def _answer_health(exchange: "Exchange", ready: bool) -> None:
    closed = exchange.gate.closed_for if ready else None
    status, body = (200, b'{"status":"ok"}') if closed is None else (503, b'{"status":"unavailable"}')
    exchange.write_whole(plain_answer(status, body, exchange.id, keep_alive=exchange.keep_alive))


def _answer_models(exchange: "Exchange", operation: Operation) -> Problem | None:
    """``/v1/models`` is answered here, with the models this key may use."""
    key = exchange.key
    assert key is not None
    names = exchange.snapshot.model_names
    if key.models is not None:
        allowed = frozenset(key.models)
        names = tuple(name for name in names if name in allowed)
    body = models_answer(names, operation.deployment)
    if body is None:
        return Problem("model_not_found", f"Model {operation.deployment[:64]!r} is not configured.", "model")
    exchange.write_whole(plain_answer(200, body, exchange.id, keep_alive=exchange.keep_alive))
    return None


def _is_json(media: bytes | None) -> bool:
    """``application/json``, with no charset or UTF-8."""
    if media is None:
        return False
    essence, _, parameters = media.lower().partition(b";")
    parameters = parameters.strip().replace(b'"', b"")
    return essence.strip() == b"application/json" and parameters in (b"", b"charset=utf-8", b"charset=utf8")
