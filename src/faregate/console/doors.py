"""The doors of the console, outermost first: name the request, ask who it is, read its body within a bound.

Closed by default: a path below ``/api/`` that nobody thought of wants a credential before it is a 404. What whoever has
one may do is asked at the route (``rights``). Trust in the Unix socket comes as a mark that our own listener sets in
the ASGI scope; no header can set it.
"""

import ipaddress
import json
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faregate.console import hook_secrets
from faregate.console.accounts import CONFLICT, MALFORMED, MISSING, Refusal
from faregate.console.audit import Author, author
from faregate.console.problems import failed_inside, respond
from faregate.console.reading import in_thread
from faregate.console.rights import PRINCIPAL
from faregate.console.sessions import Session, csrf_holds
from faregate.console.state import Console
from faregate.core.access import LOCAL, WEBHOOK, Principal
from faregate.core.networks import client_address, holds
from faregate.core.strict_json import Twice, once

#: Set in the scope by the listener on the Unix socket in the data folder: whoever can open it is root.
TRUSTED: Final = "faregate.trusted"
REQUEST_ID: Final = "faregate.request_id"
SESSION: Final = "faregate.session"
#: Headers that a route wants its answer to have, by their names, unless the answer is a refusal.
TOLD: Final = "faregate.told"
ACTOR: Final = "faregate.actor"

Found = TypeVar("Found")

CSRF_HEADER: Final = b"x-csrf-token"

BODY_BYTES_MAX: Final = 1024 * 1024
#: Price lists of all models there are have two megabytes.
PRICE_FILE_BYTES_MAX: Final = 8 * 1024 * 1024
#: Whole answers of providers are told here, streams of many thousand events among them.
_WITH_LONG_BODIES: Final = frozenset(
    {"/api/v1/prices/import", "/api/v1/prices/sync", "/api/v1/reprice", "/api/Quota/Update"}
)
BODY_SECONDS_MAX: Final = 15
#: A longer body is looked at in a thread, because nobody else is answered meanwhile: nobody asked yet whether whoever
#: sent it may do what it wants.
AT_ONCE_BYTES_MAX: Final = 64 * 1024
#: Deeper JSON has no use here; Python's own reader gives up a little above a thousand.
JSON_DEPTH_MAX: Final = 32

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: What proxies add to a request that they pass on, beside ``x-forwarded-…``.
_PROXY_HEADERS: Final = frozenset({b"forwarded", b"via", b"x-real-ip"})
_OPEN_API: Final = frozenset({"/api/openapi.json"})

_SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Under ``no-referrer`` browsers call the origin of the page's own forms ``null``, which nobody may be.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
)


def by_https(scope: Scope, console: Console) -> bool:
    """Whether the browser speaks TLS: with us, or with a proxy whose word our listener takes (``behind_proxy``)."""
    return console.facts.tls or scope.get("scheme") == "https"


def cookie_name(*, https: bool) -> str:
    """The session cookie; over TLS a name that browsers accept only from this host itself."""
    return "__Host-faregate_session" if https else "faregate_session"


def trusted(app: ASGIApp) -> ASGIApp:
    """``app`` for the listener on the Unix socket: every request through it is root's."""

    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, TRUSTED: True}, receive, send)

    return marked


class NameDoor:
    """Gives each request its id and each answer its security headers, and has an answer for every failure."""

    def __init__(self, app: ASGIApp, console: Console) -> None:
        self._app = app
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._console.new_id("req_")
        extra = [(b"x-faregate-request-id", request_id.encode()), *_SECURITY_HEADERS]
        if self._console.facts.tls:
            extra.append((b"strict-transport-security", b"max-age=31536000"))
        cacheable = scope["path"].startswith("/static/")
        extra.append((b"cache-control", b"max-age=3600" if cacheable else b"no-store"))

        started = False
        told: dict[bytes, bytes] = {}

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                more = extra if message["status"] >= 400 else [*extra, *told.items()]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            await self._app({**scope, REQUEST_ID: request_id, TOLD: told}, receive, sending)
        # The outermost place of ours: whatever it is, the caller is told in one shape, unless the answer has begun.
        except Exception as error:
            if started:
                raise
            await failed_inside(request_id, error)(scope, receive, sending)


#: The webhook's own secret, which opens its door alone.
_HOOK: Final = Principal(hook_secrets.ACTOR, WEBHOOK)
#: A scraper on this machine, which ``/metrics`` lets pass: the path takes no more than is read here.
_SCRAPER: Final = Principal("local", "auditor")

_OUTSIDE: Final = Refusal("ip_denied", "this key may not be used from the network that the request came from")


class IdentityDoor:
    """Says who asks, below ``/api/`` and at ``/metrics``; puts the session of a cookie into the scope."""

    def __init__(self, app: ASGIApp, console: Console) -> None:
        self._app = app
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        session_id = _cookie(scope, cookie_name(https=by_https(scope, self._console)))
        session = await self._at_once(lambda: self._session(session_id)) if session_id else None
        scope = {**scope, SESSION: None, ACTOR: "", PRINCIPAL: None}
        if session is not None and self._is_near(session[1], scope):
            scope[SESSION], scope[PRINCIPAL] = (session_id, session[0]), session[1]
        if hook_secrets.is_hook(scope["path"]):
            refusal = hook_secrets.refusal(self._console, scope)
            scope[ACTOR] = hook_secrets.ACTOR
        else:
            refusal = await self._at_once(lambda: self._refusal(scope)) if _guarded(scope) else None
        if refusal is None:
            author.set(Author(scope[ACTOR], scope[REQUEST_ID]))
            await self._app(scope, receive, send)
            return
        headers = {"www-authenticate": 'Bearer realm="faregate"'} if refusal.code.startswith("auth_") else {}
        await respond(scope[REQUEST_ID], refusal.code, refusal.detail, headers=headers)(scope, receive, send)

    async def _at_once(self, look: Callable[[], Found]) -> Found:
        """Look at the books without waiting for those who read or change them."""
        return await in_thread(look, self._console.at_once.submit)

    def _session(self, session_id: str) -> tuple[Session, Principal] | None:
        clock = self._console.clock
        session = self._console.sessions.find(session_id, clock.monotonic_nanos())
        principal = None if session is None else self._standing(session)
        return None if session is None or principal is None else (session, principal)

    def _standing(self, session: Session) -> Principal | None:
        return self._console.ring.standing(session.key, session.digest, self._console.clock.wall_nanos())

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Why the request may not pass, ``None`` where it may."""
        if scope.get(TRUSTED) is True:
            scope[ACTOR], scope[PRINCIPAL] = LOCAL.id, LOCAL
            return None
        credentials = [value for name, value in scope["headers"] if name == b"authorization"]
        secrets = _function_keys(scope) if _is_quota(scope["path"]) else []
        if scope["path"] == hook_secrets.QUOTA_BUDGET:
            secrets += [value.decode("latin-1") for value in hook_secrets.given(scope)]
        if not credentials and not secrets:
            return self._without_credential(scope)
        for credential in credentials:
            scheme, _, secret = credential.decode("latin-1").partition(" ")
            if len(credentials) > 1 or scheme.lower() != "bearer" or not secret.strip():
                return MALFORMED
            secrets.append(secret.strip())
        if len(set(secrets)) > 1:
            return CONFLICT
        if hook_secrets.opens_budget(self._console, scope["path"], secrets[0]):
            scope[ACTOR], scope[PRINCIPAL] = hook_secrets.ACTOR, _HOOK
            return None
        found = self._console.ring.opened(secrets[0], self._console.clock.wall_nanos())
        if isinstance(found, Refusal):
            return found
        if not self._is_near(found, scope):
            return _OUTSIDE
        scope[ACTOR], scope[PRINCIPAL] = found.id, found
        return None

    def _is_near(self, principal: Principal, scope: Scope) -> bool:
        """Whether a request comes from where the key of whoever asks may be used; proxies that are trusted say so."""
        networks = principal.restrictions.networks
        if networks is None:
            return True
        peer = scope["client"][0] if scope.get("client") else ""
        forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        address = client_address(peer, forwarded.decode("latin-1"), self._console.facts.trusted_proxies)
        return holds(networks, address)

    def _without_credential(self, scope: Scope) -> Refusal | None:
        if scope["path"] == "/metrics" and not self._console.facts.behind_proxy and _is_local(scope):
            scope[PRINCIPAL] = _SCRAPER
            return None
        if scope[SESSION] is None:
            return MISSING
        session: Session = scope[SESSION][1]
        tokens = [value.decode("latin-1") for name, value in scope["headers"] if name == CSRF_HEADER]
        if scope["method"] not in _READING and not (tokens and csrf_holds(session, tokens[0])):
            return Refusal("csrf_failed", "a session may change something only with its x-csrf-token")
        scope[ACTOR] = session.key
        return None


def _guarded(scope: Scope) -> bool:
    path = scope["path"]
    return path == "/metrics" or path == "/api" or (path.startswith("/api/") and path not in _OPEN_API)


def _is_quota(path: str) -> bool:
    return path.startswith("/api/Quota") and path[len("/api/Quota") :][:1] in ("", "/")


def _function_keys(scope: Scope) -> list[str]:
    """The credentials of a request as the service had them whose interface the Quota API is: a header, or ``code``."""
    found = [value.decode("latin-1").strip() for name, value in scope["headers"] if name == b"x-functions-key"]
    query = scope.get("query_string", b"").decode("latin-1")
    # What does not divide into fields is refused where the parameters are read; here it only holds no credential.
    found += [value.strip() for name, value in parse_qsl(query, max_num_fields=None) if name == "code"]
    return found


def _cookie(scope: Scope, wanted: str) -> str:
    """The session id of the request's cookie; empty where there is none, or more than one."""
    found = []
    for name, value in scope["headers"]:
        if name == b"cookie":
            try:
                jar = SimpleCookie(value.decode("latin-1"))
            except CookieError:
                return ""
            found += [jar[wanted].value] if wanted in jar else []
            if value.count(wanted.encode() + b"=") > 1:
                return ""
    return found[0] if len(found) == 1 else ""


def _is_local(scope: Scope) -> bool:
    """Whether the peer is this machine, asks for itself, and addressed this machine as such.

    The last keeps a web page from making a browser read it. A proxy on this machine makes a local peer of everybody:
    it is known by what it adds, or by HTTP/1.0, as nginx speaks it unless told otherwise; Prometheus and curl do not.
    """
    if scope.get("http_version") == "1.0" or any(_by_proxy(name) for name, _ in scope["headers"]):
        return False
    client = scope.get("client")
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if not client or len(hosts) != 1:
        return False
    host = hosts[0].rsplit(":", 1)[0] if not hosts[0].endswith("]") else hosts[0]
    return _loopback(client[0]) and (host == "localhost" or _loopback(host.strip("[]")))


def _by_proxy(name: bytes) -> bool:
    return name in _PROXY_HEADERS or name.startswith(b"x-forwarded")


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class BodyDoor:
    """Reads the body of an API request within its bound and deadline, and refuses what is not strict JSON."""

    def __init__(self, app: ASGIApp, console: Console) -> None:
        self._app = app
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI exchange."""
        if scope["type"] != "http" or scope["method"] in _READING:
            await self._app(scope, receive, send)
            return
        body = b""
        fault: tuple[str, str] | None = None
        with anyio.move_on_after(BODY_SECONDS_MAX) as deadline:
            body, fault = await _read(receive, _bytes_max(scope["path"]))
        if deadline.cancelled_caught:
            fault = ("body_timeout", f"the body was not there within {BODY_SECONDS_MAX} seconds")
        if fault is None and body and scope["path"].startswith(("/api/", hook_secrets.PATHS)):
            long = len(body) > AT_ONCE_BYTES_MAX
            fault = await in_thread(lambda: _json_fault(scope, body)) if long else _json_fault(scope, body)
        if fault is not None and fault[0].startswith("json_") and not scope["path"].startswith("/api/"):
            fault = ("wh_body", fault[1])
        if fault is not None:
            await respond(scope[REQUEST_ID], fault[0], fault[1])(scope, receive, send)
            return
        whole: Message = {"type": "http.request", "body": body, "more_body": False}
        await self._app(scope, first(whole, receive), send)


def first(message: Message, receive: Receive) -> Receive:
    """What receives ``message``, then whatever comes."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return message

    return receiving


def _bytes_max(path: str) -> int:
    """The most bytes of a body that is sent to this path."""
    if path.startswith(hook_secrets.PATHS):
        return hook_secrets.BODY_BYTES_MAX
    return PRICE_FILE_BYTES_MAX if path in _WITH_LONG_BODIES else BODY_BYTES_MAX


async def _read(receive: Receive, bytes_max: int) -> tuple[bytes, tuple[str, str] | None]:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"", ("client_gone", "the client left")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > bytes_max:
            return b"", ("body_too_large", f"a body has at most {bytes_max} bytes")
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks), None


def _json_fault(scope: Scope, body: bytes) -> tuple[str, str] | None:
    """Code and sentence of what keeps the body from being one strict JSON value."""
    kinds = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-type"]
    media = kinds[0].partition(";")[0].strip().lower() if len(kinds) == 1 else ""
    if media != "application/json":
        return "media_unsupported", "send the body as Content-Type: application/json"
    if any(name == b"content-encoding" for name, _ in scope["headers"]):
        return "encoding_unsupported", "send the body without Content-Encoding"
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return "json_utf8", "the body is not UTF-8"
    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=_no_constant)
    except Twice:
        return "json_dup_key", "an object of the body names a field twice"
    except RecursionError:
        return "json_depth", f"the body is nested deeper than {JSON_DEPTH_MAX} levels"
    except ValueError:
        # Also numbers of more digits than Python converts.
        return "json_invalid", "the body is not valid JSON"
    if _depth(value) > JSON_DEPTH_MAX:
        return "json_depth", f"the body is nested deeper than {JSON_DEPTH_MAX} levels"
    return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _depth(value: Any) -> int:
    """Levels of arrays and objects, without recursion."""
    level, current = 0, [value]
    while current:
        nested = [each for each in current if isinstance(each, dict | list)]
        level += bool(nested)
        current = [inner for each in nested for inner in (each.values() if isinstance(each, dict) else each)]
    return level
