"""How a realtime session comes about: from a client's upgrade request to two WebSockets that are open.

The client is answered only when the provider has accepted, so that every refusal is still an ordinary HTTP answer, with
the status and the code that any call would get. Then the session takes over.
"""

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import parse_qs, urlsplit

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.http11 import Request as UpgradeRequest
from websockets.http11 import Response as Handshake
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from faregate.dialects import openai_realtime
from faregate.dialects.operations import AZURE, OPENAI
from faregate.dialects.paths import Operation, route
from faregate.errors import Problem
from faregate.proxy.forward import HOP_TOKEN, answer_head, forwarded_headers, mask, passed_headers
from faregate.proxy.guard import guarded
from faregate.proxy.http1 import Request
from faregate.proxy.identify import QUERY_FIELDS_MAX
from faregate.proxy.realtime import Session
from faregate.proxy.realtime_holds import Account
from faregate.proxy.realtime_sockets import MESSAGE_BYTES_MAX, QUIET, Socket
from faregate.proxy.realtime_ways import Way
from faregate.proxy.refuse import FROM_PROVIDER, problem_answer
from faregate.proxy.routing import resting, retry_after
from faregate.proxy.snapshot import Target
from faregate.proxy.standing import peer_of
from faregate.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    import asyncio

    from faregate.proxy.gate import Gate

#: Browsers cannot set headers, so these are among the subprotocols that they offer (OpenAI, "Realtime API with
#: WebSockets"). Neither is ever echoed.
_KEY_PROTOCOL: Final = b"openai-insecure-api-key."
_BETA_PROTOCOL: Final = b"openai-beta.realtime-v1"
_PROTOCOL: Final = b"realtime"

_BETA: Final = b"realtime=v1"


class Owner(Protocol):
    """The client's connection, as far as an opening needs it."""

    transport: "asyncio.Transport"

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection, and everything about it, is over."""
        ...


class Wanted(NamedTuple):
    """What an upgrade request asks for."""

    model: str
    shape: str
    #: The generation before the one in service, which Azure's dated versions speak.
    beta: bool
    api_version: str


class Opening:
    """One session that is being opened."""

    def __init__(self, gate: "Gate", owner: Owner, request: Request, early: bytes) -> None:
        self._gate = gate
        self._owner = owner
        self._request = request
        self._id = gate.new_id()
        self._began_nanos = gate.monotonic_nanos()
        self._began_at = gate.now
        self._shape = OPENAI
        self._wanted: Wanted | None = None
        self._account: Account | None = None
        self._answer: Handshake | None = None
        self._way: Way | None = None
        #: When the try under way began, and its number: what comes of an earlier one concerns nobody any more.
        self._tried_at = gate.now
        self._try = 0
        self._provider: Socket | None = None
        self._session: Session | None = None
        self._refused = False
        # Nothing of the client is heard until there is somebody to hear it; its socket tells when it leaves.
        framing = ServerProtocol(state=OPEN, max_size=MESSAGE_BYTES_MAX, logger=QUIET)
        self._client = Socket(self, framing, owner.transport, gate.now)
        self._client.on_gone = self._client_gone
        self._client.hold_back(early)

    # -- the request ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Check the request, and call the provider."""
        problem = self._enter()
        issuers = self._gate.issuers
        # The keys of a token's issuer may have changed a moment ago.
        again = guarded(self._enter_again, self.mistaken)
        if problem is None or issuers is None or not issuers.wait(problem, again, self._gate.loop):
            self._entered(problem)

    def _enter_again(self) -> None:
        """The keys of the token's issuer were looked at, or that took too long: what is known now decides."""
        if not self._refused:
            self._entered(self._enter())

    def _entered(self, problem: Problem | None) -> None:
        if problem is not None:
            self._refuse(problem)
        else:
            self._dial()

    def _enter(self) -> Problem | None:
        request = self._request
        found = route(request.method, request.target)
        if isinstance(found, Problem):
            return found
        if found.name != openai_realtime.OPERATION:
            rule = "protocol upgrades are offered for realtime sessions alone"
            return Problem("bad_framing", f"Request framing is ambiguous: {rule}.", close=True)
        wanted = wanted_of(request, found)
        if isinstance(wanted, Problem):
            return wanted
        self._wanted, self._shape = wanted, wanted.shape
        credential = _credential_of(request)
        if credential is not None:
            return credential
        self._account = Account(self._gate, request, wanted.model, peer_of(self._owner.transport))
        lane = self._account.choose()
        if isinstance(lane, Problem):
            return lane
        via = request.headers.get(b"via")
        if via is not None and HOP_TOKEN in via.lower():
            return Problem("header_invalid", "Header Via: this request has passed Faregate before; it loops.", "Via")
        answer = accept(request)
        if isinstance(answer, Problem):
            return answer
        self._answer = answer
        self._way = Way(self._gate, lane, self._account.known_by(lane))
        return self._go()

    # -- the provider --------------------------------------------------------------------------------------------------

    def _go(self) -> Problem | None:
        """Turn to the next deployment that could hold a session of this caller; why there is none."""
        way, account = self._way, self._account
        assert way is not None
        assert account is not None
        problem: Problem | None = None
        while (target := way.target) is not None:
            found = account.checked(target)
            if found is not None:
                problem = problem or found
                way.skip()
            elif way.begin():
                self._tried_at = self._gate.now
                return None
        return problem or resting(account.model, way.lane.wait(self._gate.monotonic_nanos()))

    def _dial(self) -> None:
        target = self._target
        pool = target.pool
        if pool.lacks:
            self._not_connected(self._try, "credential_unavailable", pool.lacks)
            return
        connected = guarded(partial(self._connected, self._try, target), self.mistaken)
        pool.dial(connected, guarded(partial(self._not_connected, self._try), self.mistaken))

    @property
    def _target(self) -> Target:
        assert self._way is not None
        target = self._way.target
        assert target is not None
        return target

    def _not_connected(self, number: int, code: str, why: str) -> None:
        """Nothing was sent: the next place is tried."""
        if not self._refused and number == self._try:
            self._failed(
                Problem(code, f"Provider {self._target.provider.name}: {why}. Charged: nothing.", retry_after_s=1)
            )

    def _failed(self, problem: Problem, status: int = 0, retry_after: int = 0) -> None:
        """This deployment did not accept; the next one is tried, or the caller told why."""
        if not self._tries_on(status, problem.code, retry_after):
            self._refuse(problem)

    def _tries_on(self, status: int, code: str, retry_after: int = 0) -> bool:
        """Whether another deployment is tried in the place of one that did not accept."""
        way = self._way
        assert way is not None
        provider, self._provider = self._provider, None
        # Whatever a connection that is still being opened comes to, it is not that of the next deployment.
        self._try += 1
        if not way.failed(status, code, retry_after) or self._go() is not None:
            self._provider = provider
            return False
        if provider is not None:
            provider.abort()
        self._dial()
        return True

    def _connected(self, number: int, target: Target, connection: UpstreamConnection) -> None:
        """The provider's connection is open: ask for the upgrade."""
        if self._refused or number != self._try:
            connection.close()
            return
        wanted = self._wanted
        assert wanted is not None
        provider = target.provider
        parts = urlsplit(provider.base_url)
        version = wanted.api_version or provider.api_version
        path = openai_realtime.upstream_target(
            provider.kind, parts.path.rstrip("/"), target.upstream_model, wanted.beta, version
        )
        scheme = "wss" if parts.scheme == "https" else "ws"
        uri = parse_uri(f"{scheme}://{parts.netloc}{path}")
        framing = ClientProtocol(uri, max_size=MESSAGE_BYTES_MAX, logger=QUIET)
        request = framing.connect()
        for name, value in target.pool.credential.items():
            request.headers[name] = value
        for line in forwarded_headers(_forwardable(self._request.headers)).split(b"\r\n"):
            field, colon, text = line.partition(b": ")
            if colon:
                request.headers[field.decode("latin-1")] = text.decode("latin-1")
        if wanted.beta and provider.kind != AZURE:
            request.headers["openai-beta"] = _BETA.decode()
        request.headers[target.id_header.decode().rstrip(": ")] = self._id
        self._provider = Socket(self, framing, connection.transport, self._gate.now)
        self._provider.on_gone = lambda: self._provider_gone(target, connection)
        framing.send_request(request)
        self._provider.send_handshake()

    def _provider_gone(self, target: Target, connection: UpstreamConnection) -> None:
        target.pool.forget(connection)
        if self._session is not None:
            self._session.lost()

    # -- what the sockets tell -----------------------------------------------------------------------------------------

    def shaken(self, socket: Socket, answer: Handshake, accepted: bool) -> None:
        """The provider answered."""
        if self._refused or socket is not self._provider:
            return
        target = self._target
        if accepted:
            self._open(target)
        elif 400 <= answer.status_code < 600:
            head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.raw_items()).encode(
                "latin-1", "replace"
            )
            if not self._tries_on(answer.status_code, "", retry_after(b"\r\n" + head, self._gate.wall_nanos())):
                self._pass_error(target, answer, head)
        else:
            why = "it answered the handshake in a way that is no WebSocket's"
            self._failed(Problem("upstream_protocol", f"Provider {target.provider.name}: {why}. Charged: nothing."))

    def message(self, socket: Socket, data: bytes) -> None:
        """No side is heard before both are open."""

    def full(self, socket: Socket, is_full: bool) -> None:
        """Nothing large is written before both are open."""

    def ended(self, socket: Socket, code: int, reason: str) -> None:
        """One side is gone before both were open."""
        if self._refused or self._session is not None:
            return
        if socket is self._provider:
            why = "it closed before the session was open"
            name = self._target.provider.name
            self._failed(Problem("upstream_truncated", f"Provider {name}: {why}. Charged: nothing."))
        elif socket is self._client:
            self._refused = True
            self._over()
            if self._provider is not None:
                self._provider.abort()

    def mistaken(self, error: BaseException) -> None:
        """Something failed in a way that nobody foresaw; nothing was begun yet."""
        self._gate.tell_mistake(error)
        if self._session is not None:
            self._session.mistaken(error)
        elif not self._refused:
            self._refuse(Problem("internal", "The gateway failed; nothing was charged. Report this request id."))

    def _open(self, target: Target) -> None:
        """Both are open: answer the client, and let the session begin."""
        answer, provider, account, way = self._answer, self._provider, self._account, self._way
        assert answer is not None
        assert way is not None
        assert provider is not None
        assert account is not None
        problem = account.again(target)
        if isinstance(problem, Problem):
            # Its key was revoked, or its name leads elsewhere, while the provider made up its mind.
            self._refuse(problem)
            return
        answer.headers["x-faregate-request-id"] = answer.headers["x-request-id"] = self._id
        answer.headers["x-faregate-model"] = target.model
        answer.headers["x-faregate-deployment"] = target.name
        if way.failed_tries:
            answer.headers["x-faregate-attempts"] = str(len(way.failed_tries) + 1)
            account.list_tries(way.failed_tries)
        way.accepted()
        self._owner.transport.write(answer.serialize())
        session = Session(self._gate, account, target, (self._client, provider), self._finish, way.broke)
        self._session = session
        self._client.tell(session)
        provider.tell(session)
        self._client.let_in()

    # -- ends ----------------------------------------------------------------------------------------------------------

    @property
    def _attempts_header(self) -> bytes:
        """The header that tells how many places were asked, where these were several."""
        tried = len(self._way.failed_tries) if self._way is not None else 0
        return b"x-faregate-attempts: %d\r\n" % tried if tried > 1 else b""

    def _refuse(self, problem: Problem) -> None:
        self._write(problem_answer(problem, self._id, self._shape, keep_alive=False, extra=self._attempts_header))
        account = self._account or Account(self._gate, self._request, "")
        account.refused(self._id, problem, "", self._began_nanos)

    def _pass_error(self, target: Target, answer: Handshake, head: bytes) -> None:
        """The provider's own refusal, with its status and body, but for our credential."""
        body = mask(bytes(answer.body or b""), target.pool.masked)
        passed = mask(passed_headers(head), target.pool.masked)
        framing = b"content-length: %d\r\n" % len(body)
        self._write(
            answer_head(
                answer.status_code, passed, self._id, self._attempts_header + target.tag + FROM_PROVIDER, framing, False
            )
            + body
        )
        assert self._account is not None
        why = f"Provider {target.provider.name} refused the session with {answer.status_code}."
        self._account.refused(self._id, Problem("upstream_protocol", why), "", self._began_nanos)

    def _over(self) -> None:
        """No deployment is tried any more, or the session has ended."""
        if self._way is not None:
            self._way.over()

    def _write(self, answer: bytes) -> None:
        self._refused = True
        self._over()
        self._owner.transport.write(answer)
        self._client.pause(False)
        self._owner.transport.close()
        if self._provider is not None:
            self._provider.abort()

    def _client_gone(self) -> None:
        if self._session is not None:
            self._session.lost()
        else:
            self._refused = True
            self._finish()

    def _finish(self) -> None:
        self._over()
        self._owner.connection_lost(None)

    # -- what the client's connection asks -----------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Something is not over yet."""
        return self._session.busy if self._session is not None else not self._client.gone

    def drain(self) -> None:
        """The gate stops."""
        if self._session is not None:
            self._session.drain()
        elif not self._refused:
            self._refuse(Problem("draining", "Not accepted: the gateway is stopping; nothing was charged."))

    def sweep(self, now: float) -> None:
        """Called a few times a second."""
        if self._session is not None:
            self._session.sweep(now)
            return
        slow = self._gate.settings.slow_reader_ms / 1000
        if self._refused:
            if now - self._began_at > slow:
                self._client.abort()
            return
        if self._way is None or self._way.target is None:
            # The keys of a token's issuer are looked at.
            return
        provider = self._way.target.provider
        if now - self._tried_at > (provider.connect_timeout_ms + provider.first_byte_timeout_ms) / 1000:
            why = "it did not accept the session in time"
            self._failed(Problem("upstream_timeout", f"Provider {provider.name}: {why}. Charged: nothing."))


def wanted_of(request: Request, operation: Operation) -> Wanted | Problem:
    """What a request for a session asks: its model, and the generation of the interface."""
    path, _, query = request.target.partition(b"?")
    try:
        fields = parse_qs(query.decode("ascii"), max_num_fields=QUERY_FIELDS_MAX)
    except (ValueError, UnicodeDecodeError):
        return Problem("uri_invalid", f"The query has more than {QUERY_FIELDS_MAX} fields; leave some out.")
    if "call_id" in fields:
        text = "call_id: the sound of a call by WebRTC or SIP passes the gateway by, so that it is not metered."
        return Problem("operation_unmetered", text, "call_id")
    if fields.get("intent", ["conversation"]) != ["conversation"]:
        text = "intent: sessions that only transcribe or translate are not metered yet, so they are not passed on."
        return Problem("operation_unmetered", text, "intent")
    names = {*fields.get("model", ()), *fields.get("deployment", ())}
    if len(names) > 1:
        return Problem("field_conflict", "model: two different models are named; name one.", "model")
    name = names.pop() if names else ""
    if not 0 < len(name) <= 256 or not name.isprintable():
        return Problem("field_missing", "model: expected ?model= (or Azure's ?deployment=) in the path.", "model")
    versions = fields.get("api-version", [""])
    version = versions[0]
    if len(versions) > 1 or len(version) > 40 or (not version.replace("-", "").replace(".", "").isalnum() and version):
        return Problem("field_range", "api-version: expected one version such as 2025-04-01-preview.", "api-version")
    offered = _offered(request)
    headers = request.headers
    dated = path == b"/openai/realtime"
    beta = dated or _BETA in headers.get(b"openai-beta", b"") or _BETA_PROTOCOL in offered
    return Wanted(name, "azure_openai" if dated else operation.shape, beta, version)


def _offered(request: Request) -> list[bytes]:
    """The subprotocols that a client offers."""
    return [one.strip() for one in request.headers.get(b"sec-websocket-protocol", b"").split(b",")]


def _credential_of(request: Request) -> Problem | None:
    """Put a credential that is a subprotocol where any other request has it; two different ones are refused."""
    keys = {one[len(_KEY_PROTOCOL) :] for one in _offered(request) if one.startswith(_KEY_PROTOCOL)}
    if not keys:
        return None
    told = request.headers.get(b"api-key")
    if len(keys) > 1 or (told is not None and told not in keys):
        return Problem("auth_conflict", "Two different credentials were sent. Send one.")
    request.headers[b"api-key"] = keys.pop()
    return None


def accept(request: Request) -> Handshake | Problem:
    """The answer that opens a client's WebSocket, or why its handshake is refused (RFC 6455 section 4.2)."""
    headers = Headers()
    for name, value in request.headers.items():
        # No extension is accepted: what compresses can be small on the wire and large in memory.
        if name not in (b"sec-websocket-protocol", b"sec-websocket-extensions"):
            headers[name.decode("latin-1")] = value.decode("latin-1")
    answer = ServerProtocol(logger=QUIET).accept(UpgradeRequest(request.target.decode("ascii", "replace"), headers))
    if answer.status_code != 101:
        text = "the WebSocket handshake is not whole: Connection, Upgrade, Sec-WebSocket-Key and -Version 13 are needed"
        return Problem("bad_framing", f"Request framing is ambiguous: {text}.", close=True)
    chosen = _chosen(_offered(request))
    if chosen:
        answer.headers["Sec-WebSocket-Protocol"] = Subprotocol(chosen.decode("latin-1"))
    return answer


def _chosen(offered: list[bytes]) -> bytes:
    """The subprotocol to speak: browsers fail a connection for which none of theirs is chosen."""
    if _PROTOCOL in offered:
        return _PROTOCOL
    return next((one for one in offered if one == _BETA_PROTOCOL), b"")


def _forwardable(headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The client's headers without those that concern its own handshake alone."""
    return {name: value for name, value in headers.items() if name not in (b"openai-beta", b"content-type", b"accept")}
