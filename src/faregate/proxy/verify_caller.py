"""``/auth/verify``: tells another reverse proxy what the gate would say to a request that the proxy has before it.

The proxy sends the head of that request and names its method, URI and host in headers: those of nginx
(``X-Original-…``), of Traefik and Caddy (``X-Forwarded-…``), or, as Envoy does, by calling below this path with the
method itself. Judged are the credential, what it may call, and whether its limits have room. Nothing is held when the
answer leaves, nothing is charged or sent anywhere, and only refusals are records, as everywhere.

Whoever asks might be fooled by a header of the client's own, so two that contradict each other are refused.
"""

import ipaddress
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from faregate.control import Key
from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.admit import Reservation
from faregate.dialects.paths import VERIFY, Operation, route
from faregate.dialects.services import Below, below
from faregate.errors import Problem
from faregate.proxy.bound import upper_bound
from faregate.proxy.described import attribution
from faregate.proxy.http1 import Request
from faregate.proxy.refuse import limit_problem, limit_required, plain_answer
from faregate.proxy.snapshot import Match, Snapshot, Target

if TYPE_CHECKING:
    from faregate.proxy.exchange import Exchange

PATH: Final = b"/auth/verify"

_URIS: Final = (b"x-original-uri", b"x-forwarded-uri", b"x-original-url")
_METHODS: Final = (b"x-original-method", b"x-forwarded-method")
_HOSTS: Final = (b"x-original-host", b"x-forwarded-host")

_URI: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_URL: Final = re.compile(rb"https?://([^/?#\s]+)(/?[\x21\x22\x24-\x7e]*)", re.IGNORECASE)
_METHOD: Final = re.compile(rb"[A-Z]{1,32}")
_HOST: Final = re.compile(rb"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,64}\])(?::[0-9]{1,5})?")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

#: What a call needs at least of every limit, where what it may cost cannot be told from its head.
_LEAST: Final = Amounts(1, 1, 1, 1, 1, 1)

#: Header of the answer → dimension of the caller.
_TOLD: Final = (
    ("x-faregate-key-id", "key"),
    ("x-faregate-organization", "organization"),
    ("x-faregate-team", "team"),
    ("x-faregate-project", "project"),
    ("x-faregate-product", "product"),
    ("x-faregate-user", "user"),
    ("x-faregate-end-user", "end_user"),
    ("x-faregate-stage", "stage"),
    ("x-faregate-service", "service"),
)


class Asked(NamedTuple):
    """What a request wants, as far as its head tells."""

    operation: str
    #: Named by its path.
    model: str = ""
    #: What is asked of a service of the configuration.
    below: str | None = None
    target: Target | None = None
    #: It is held and charged when it passes the gate.
    metered: bool = True


def answer(exchange: "Exchange") -> Problem | None:
    """Answer 200 with who the caller is, or return why the request would be refused."""
    from faregate.proxy.entry import identified

    request, gate, snapshot = exchange.request, exchange.gate, exchange.snapshot
    told = original(request)
    if isinstance(told, Problem):
        return told
    host, asking = told
    # What a key may be used for depends on the request that the proxy has, not on the one that asks about it.
    exchange.request = asking
    try:
        problem = identified(exchange)
    finally:
        exchange.request = request
    if problem is not None:
        return problem
    key = exchange.key
    assert key is not None
    asked = asked_for(asking, host, snapshot)
    if isinstance(asked, Problem):
        return asked
    exchange.operation = Operation(asked.operation or VERIFY, metered=False)
    problem = (gate.closed_for if asked.metered else None) or _may(exchange, key, asked, asking)
    if problem is not None:
        return problem
    target = asked.target
    place = (target.model, target.name, target.provider.name) if target else (asked.model or asked.operation,) * 3
    who = attribution(key, exchange.described, "", *place, asked.operation)
    if asked.metered and _refused(exchange, who, asked):
        return None
    _tell(exchange, who)
    return None


# -- the request that is asked about -----------------------------------------------------------------------------------


def original(request: Request) -> tuple[bytes, Request] | Problem:
    """The host and the request that the proxy has before it, with its credential and all that it says of itself."""
    headers, path = request.headers, request.target
    uris, hosts = set(), set()
    for name in _URIS:
        value = headers.get(name)
        if value is None:
            continue
        whole = _URL.fullmatch(value) if name == b"x-original-url" else None
        if whole is not None:
            hosts.add(whole[1].lower())
            value = whole[2] if whole[2].startswith(b"/") else b"/" + whole[2]
        uris.add(value)
    rest = path[len(PATH) :]
    if rest.startswith(b"/") and len(rest) > 1:
        # As Envoy asks: everything is that of the request itself.
        uris.add(rest)
        hosts.add(headers.get(b"host", b"").lower())
    hosts |= {headers[name].lower() for name in _HOSTS if name in headers}
    methods = {headers[name] for name in _METHODS if name in headers}
    if not uris:
        return _unclear("name the URI of the request in X-Original-URI or X-Forwarded-Uri", "X-Original-URI")
    if len(uris) > 1 or len(methods) > 1 or len(hosts) > 1:
        return _unclear("they name two different requests; let the proxy remove those that clients send", None)
    uri, method = uris.pop(), methods.pop() if methods else request.method
    host = hosts.pop() if hosts else b""
    if _URI.fullmatch(uri) is None:
        return _unclear("the URI begins with / and is plain", "X-Original-URI")
    if _METHOD.fullmatch(method) is None or (host and _HOST.fullmatch(host) is None):
        return _unclear("method and host are those of one request", None)
    about = Request(method, uri, headers)
    about.describes = request.describes
    return host, about


def _unclear(rule: str, header: str | None) -> Problem:
    return Problem("header_invalid", f"It is not clear which request is meant: {rule}.", header)


def asked_for(request: Request, host: bytes, snapshot: Snapshot) -> Asked | Problem:
    """What a request wants: a service by its host or by the first segment of its path, or what the gate itself offers.

    The first label of a host name is a service's name; addresses have none. Ports say nothing.
    """
    by_host, by_path = _label(host), _segment(request.target)
    if by_host in snapshot.services:
        return _at_service(by_host, request.target, snapshot)
    found = route(request.method, request.target)
    if isinstance(found, Operation):
        if found.below is not None:
            return Asked(found.name, below=found.below, target=snapshot.services.get(found.name))
        targets = snapshot.routes.get(found.deployment, ()) if found.deployment else ()
        able = [target for target in targets if found.name in target.operations]
        return Asked(found.name, found.deployment, None, able[0] if able else None, found.metered)
    if by_path in snapshot.services or not by_host:
        rest = request.target[len(by_path) + 1 :]
        return _at_service(by_path, rest if rest.startswith((b"/", b"?")) else b"/" + rest, snapshot)
    return _at_service(by_host, request.target, snapshot)


def _at_service(name: str, target: bytes, snapshot: Snapshot) -> Asked | Problem:
    """A request to a service, if its path means the same to everybody: the proxy may read it in another way than we."""
    found = below(b"/services/" + (name or "any").encode() + target)
    if isinstance(found, Problem):
        return found
    return Asked(name, below=found.target if isinstance(found, Below) else "", target=snapshot.services.get(name))


def _label(host: bytes) -> str:
    """The name that the first label of a host gives a service; empty for addresses and for names of one label."""
    text = host.decode("latin-1")
    bare = text[1 : text.index("]")] if text.startswith("[") else text.partition(":")[0]
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        label, dot, _ = bare.partition(".")
        return label if dot and _NAME.fullmatch(label) else ""
    return ""


def _segment(target: bytes) -> str:
    """The first segment of a path, where it can be a service's name."""
    text = target.partition(b"?")[0].decode("latin-1").split("/")[1]
    return text if _NAME.fullmatch(text) else ""


# -- the decision ------------------------------------------------------------------------------------------------------


def _may(exchange: "Exchange", key: Key, asked: Asked, request: Request) -> Problem | None:
    """Why the caller may not ask for it, whatever it costs."""
    snapshot = exchange.snapshot
    if not asked.metered:
        return None
    if key.operations is not None and asked.operation not in key.operations:
        return Problem("operation_forbidden", f"This key may not call {asked.operation[:64] or 'this'}.")
    if asked.model and key.models is not None and asked.model not in key.models:
        return Problem("model_forbidden", f"model: this key may not use {asked.model[:64]!r}.", "model")
    target = asked.target
    if target is None:
        return None
    allowed = snapshot.stages.get(exchange.described.stage or key.stage)
    if allowed is not None and target.provider.name not in allowed:
        stage = exchange.described.stage or key.stage
        return Problem("stage_forbidden", f"Stage {stage} has no provider for this.", "model")
    place = target.place
    return place.refusal(request.method, request.headers, asked.below or "", 0) if place is not None else None


def _refused(exchange: "Exchange", who: Attribution, asked: Asked) -> bool:
    """Refuse where a limit is required and missing, or has no room."""
    gate, snapshot = exchange.gate, exchange.snapshot
    now = gate.wall_nanos()
    match = exchange.match = Match(who, snapshot, [])
    if match.lacks_limit_at(now):
        exchange.refuse(limit_required(who, snapshot.catalogue.require_limit_stages))
        return True
    brakes = gate.brakes
    problem = brakes.refuses(who.key, now) if brakes is not None and brakes.bridged else None
    if problem is not None:
        exchange.refuse(problem)
        return True
    outcome = gate.allowances.reserve(exchange.id, match.standing, _wanted(asked, match, now), now)
    if isinstance(outcome, Reservation):
        # Within one turn of the loop, so that nobody finds it held; and nothing was tried that a shadow would count.
        gate.allowances.release(outcome)
        for limit in outcome.shadowed:
            gate.allowances.shadow_refusals[limit] -= 1
        return False
    exchange.refuse(limit_problem(outcome, None, match.hidden), outcome.limit.id)
    return True


def _wanted(asked: Asked, match: Match, now: int) -> Amounts:
    """The most that a call of a service may cost, as the gate would hold it; of all others the least that any costs."""
    target = asked.target
    tariff = target.prices.at(now) if target is not None and target.place is not None else None
    if target is None or target.place is None or tariff is None:
        return _LEAST
    return upper_bound(target.place.call(0), tariff, 0, 0, None, match.charging)


def _tell(exchange: "Exchange", who: Attribution) -> None:
    """Say who the caller is, in headers that a proxy can copy; what is not known is left out."""
    lines = []
    for header, dimension in _TOLD:
        value: str = getattr(who, dimension)
        if value:
            # Names may hold any character; a header's value holds visible ASCII.
            lines.append(f"{header}: {quote(value, safe=_PLAIN)}\r\n")
    head = "".join(lines).encode("ascii") + b"cache-control: no-store\r\n"
    exchange.write_whole(plain_answer(200, b'{"ok":true}', exchange.id, keep_alive=exchange.keep_alive, extra=head))


#: Visible ASCII but the percent sign, by which all else is escaped.
_PLAIN: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
