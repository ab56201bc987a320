"""Puts the simulator together: takes requests, answers the plain ones at once, hands the others to an ``Exchange``.

Knows the order of things: route, credential, body, steering, plan, record, answer.
"""

import asyncio
import contextlib
import json
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from faregate.simulator import credentials, doors, realtime, shapes
from faregate.simulator.asks import Ask, AskInvalid
from faregate.simulator.batches import BatchClerk
from faregate.simulator.exchange import JSON, Call, Exchange, content_type, error_of, id_headers, record_of, status_line
from faregate.simulator.faults import FAULTS, Where
from faregate.simulator.http1 import Connection, Request
from faregate.simulator.misbehave import OK
from faregate.simulator.plan import Plan, make
from faregate.simulator.routes import Route, route_of
from faregate.simulator.speakers import Speaker
from faregate.simulator.steering import Script, ScriptInvalid, Steering, convert, load_script, named_in_upload, steer
from faregate.simulator.truth import TruthLog

CONNECTIONS_MAX = 4096
REQUEST_ID_CHARACTERS_MAX = 256
SWEEP_SECONDS = 5.0
BACKLOG = 4096
CLOSE_SECONDS = 10.0
#: Objects that speakers keep (files, batches, answers); the oldest are forgotten.
KEPT_MAX = 10_000

#: A model that no provider has, for tests of its 404.
MISSING_MODEL = "sim-missing"

_REQUEST_ID_HEADERS = ("x-client-request-id", "x-ms-client-request-id")


class Simulator:
    """A running provider. Made by ``serve``; everything public may be used from tests in the same process."""

    def __init__(self, truth: TruthLog, script: Script | None, keys: Iterable[str]) -> None:
        self.truth = truth
        self.script = script
        self.connections: set[Connection] = set()
        self.bytes_sent = 0
        #: Calls being answered, by request id.
        self.open_calls: dict[str, int] = {}
        self.dispatched = 0
        self.in_flight = 0
        self.holding = False
        self.host = ""
        self.port = 0
        self._keys = frozenset(keys)
        self._kept: dict[str, Any] = {}
        self._batches = BatchClerk(self)
        self._held: deque[asyncio.Future[None]] = deque()
        self._turns: dict[str, int] = {}
        self._unnamed = 0
        self._closed = False
        self._emptied = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    # Life.

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self, loop), host, port, backlog=BACKLOG)
        self.host = host
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = loop.create_task(self._sweep())

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for connection in [one for one in self.connections if one.overdue(loop.time())]:
                connection.abort()

    async def close(self) -> None:
        """Stop: cut off what is being answered, and leave the truth of it on disk."""
        if self._closed:
            return
        self._closed = True
        self._batches.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()
        # Connections end one turn later, their calls another; each leaves its record, which the log has to wait for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self.connections or self.in_flight:
                    await self._emptied.wait()
        if self._server is not None:
            await self._server.wait_closed()
        await self.truth.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # What the connections tell.

    def connected(self, connection: Connection) -> bool:
        """Take a connection, up to a bound."""
        if self._closed or len(self.connections) >= CONNECTIONS_MAX:
            return False
        self.connections.add(connection)
        return True

    def disconnected(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        self._look_empty()

    def _look_empty(self) -> None:
        if self._closed and not self.connections and not self.in_flight:
            self._emptied.set()

    def fault_at_head(self, path: str) -> str:
        """Ask the script for a fault that needs no body."""
        rule = self.script.at_head(path) if self.script is not None else None
        return str(rule["fault"]) if rule is not None else ""

    def fault_in_upload(self, start_of_body: bytes) -> str:
        """Look for a ``sim:`` line that asks for an early fault."""
        return named_in_upload(start_of_body)

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer one request."""
        if request.path.startswith(doors.PREFIX):
            if connection.loopback:
                status, headers, body = doors.answer(self, request)
            else:
                status, headers, body = 404, b"", shapes.error(404, "There is nothing here.")
            self._reply(connection, request, status, body, headers)
            return
        if request.path in realtime.PATHS:
            self._converse(connection, request)
            return
        route = route_of(request.path)
        if route is None:
            body = shapes.error(404, f"Invalid URL ({request.method} {request.path[:512]})")
            self._reply(connection, request, 404, body)
            return
        speaker = next((one for one in route.speakers if one.method == request.method), None)
        if speaker is not None:
            self._call(connection, request, route, speaker)
        elif route.speakers or request.method != "GET":
            hint = f"(HINT: use {' or '.join(route.methods)})"
            complaint = f"Not allowed to {request.method} on {request.path[:512]} {hint}"
            body = error_of(route.speakers[0], 405, complaint) if route.speakers else shapes.error(405, complaint)
            self._reply(connection, request, 405, body)
        else:
            self._models(connection, request, route)

    def _converse(self, connection: Connection, request: Request) -> None:
        """Open a realtime session."""
        azure = request.path.startswith("/openai")
        shown = credentials.found(request.headers, credentials.AZURE if azure else credentials.BEARER)
        route = Route((), azure=azure, versioned=request.path == "/openai/realtime")
        refusal = self._refusal(request, route, shown, None)
        if refusal is None and realtime.wanted(request) in ("", MISSING_MODEL):
            refusal = 404, _missing(realtime.wanted(request))
        if refusal is None and request.header("upgrade").lower() != "websocket":
            refusal = 400, shapes.error(400, "This is a WebSocket.")
        headers = b""
        if refusal is None and self.script is not None:
            refusal, headers = _scripted(self.script, request)
        if refusal is not None:
            self._reply(connection, request, *refusal, headers)
            return
        told = dict(credentials.described(*shown)) if shown is not None else None
        conversation = realtime.Conversation(self, connection, request, told)
        if conversation.begin():
            connection.upgraded = conversation

    def _reply(self, connection: Connection, request: Request, status: int, body: bytes, headers: bytes = b"") -> None:
        """Answer what is no call and so leaves no record."""
        length = b"content-length: %d\r\n\r\n" % len(body)
        connection.write(status_line(status) + JSON + headers + length + body)
        connection.finished(keep_alive=request.keep_alive)

    def _models(self, connection: Connection, request: Request, route: Route) -> None:
        shown = credentials.found(request.headers, credentials.AZURE if route.azure else credentials.BEARER)
        refusal = self._refusal(request, route, shown, None)
        if refusal is not None:
            self._reply(connection, request, *refusal)
        elif route.name == MISSING_MODEL:
            self._reply(connection, request, 404, _missing(route.name))
        else:
            self._reply(connection, request, 200, shapes.model(route.name) if route.name else shapes.models())

    # Calls.

    def _refusal(
        self, request: Request, route: Route, shown: tuple[str, str] | None, speaker: Speaker | None
    ) -> tuple[int, bytes] | None:
        """Status and body for a request without the right credential or version."""
        if shown is None or (self._keys and shown[1] not in self._keys):
            if speaker is not None and speaker.error is not None:
                return 401, speaker.error(401, "The API key is missing or wrong.")
            if route.azure:
                return 401, shapes.azure_error(401, "Access denied due to invalid subscription key.")
            if shown is None:
                return 401, shapes.error(401, "You didn't provide an API key.")
            return 401, shapes.error(401, "Incorrect API key provided.", code="invalid_api_key")
        if route.versioned and "api-version=" not in request.query:
            return 404, shapes.azure_error(404, "Resource not found")
        return None

    def _call(self, connection: Connection, request: Request, route: Route, speaker: Speaker) -> None:
        accepted = speaker.credentials or (credentials.AZURE if route.azure else credentials.BEARER)
        shown = credentials.found(request.headers, accepted)
        credential = dict(credentials.described(*shown)) if shown is not None else None
        call = Call(request, self._request_id(request), route.name, credential, speaker, route.azure)
        refusal = self._refusal(request, route, shown, speaker)
        if refusal is None and self.truth.full:
            refusal = 503, call.error(503, "The truth log takes no more records.")
            self._reply(connection, request, *refusal)
            return
        self.in_flight += 1
        self.open_calls[call.request_id] = self.open_calls.get(call.request_id, 0) + 1
        if refusal is not None:
            self._fail(connection, call, *refusal)
            return
        self.dispatched += 1
        try:
            plan = self._plan(request, route, call)
        except AskInvalid as problem:
            self._fail(connection, call, problem.status, call.error(problem.status, str(problem), param=problem.param))
        except ScriptInvalid as problem:
            self._fail(connection, call, 400, call.error(400, str(problem), code="sim_invalid"))
        else:
            self._batches.look_at(call, plan)
            self._answer(connection, call, plan)

    def _request_id(self, request: Request) -> str:
        for name, value in request.headers:
            if name in _REQUEST_ID_HEADERS and value:
                return value[:REQUEST_ID_CHARACTERS_MAX]
        self._unnamed += 1
        return f"sim-{self._unnamed}"

    def _plan(self, request: Request, route: Route, call: Call) -> Plan:
        if request.early:
            # The body was not read, so nothing is known of what it asks.
            ask = Ask(call.speaker.kind, route.name or "sim-1", "", 1, stream=False)
            return make(ask, Steering(output_tokens=1, fault=request.early), call.request_id, route.azure)
        while len(self._kept) >= KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        ask = call.speaker.read(request._replace(kept=self._kept), route.name)
        rule = self.script.at_body(request.path, ask.model) if self.script is not None else None
        return make(ask, steer(ask.model, ask.text, rule), call.request_id, route.azure)

    def _answer(self, connection: Connection, call: Call, plan: Plan) -> None:
        """Answer at once what needs neither time nor care, the rest in a task."""
        steering = plan.steering
        if plan.ask.model == MISSING_MODEL:
            missing = f"The model `{plan.ask.model}` does not exist."
            self._fail(connection, call, 404, call.error(404, missing, code="model_not_found"))
            return
        waits = self.holding or steering.hold or steering.first_delay_ms
        if waits or plan.ask.stream or not _is_plain(steering):
            connection.perform(Exchange(self, connection, call, plan).run())
            return
        body = call.speaker.answer(plan)
        head = OK + content_type(call.speaker, plan) + id_headers(call, plan.provider_request_id)
        answer = head + b"content-length: %d\r\n\r\n" % len(body) + body
        self._send_recorded(connection, call, answer, plan)

    def _fail(self, connection: Connection, call: Call, status: int, body: bytes) -> None:
        answer = status_line(status) + JSON + b"content-length: %d\r\n\r\n" % len(body) + body
        self._send_recorded(connection, call, answer, None, status)

    def _send_recorded(
        self, connection: Connection, call: Call, answer: bytes, plan: Plan | None, status: int = 200
    ) -> None:
        """Send an answer once its record is on disk; if it cannot be written, nothing is sent."""

        def then(written: bool) -> None:
            self.ended(call)
            if written:
                connection.write(answer)
                connection.finished(keep_alive=call.request.keep_alive)
            else:
                connection.abort()

        if not call.speaker.recorded:
            then(True)
            return
        told = call.speaker.usage(plan, None) if plan is not None else None
        self.truth.append(record_of(self, call, plan, status, told), then)

    # What the exchanges and the doors need.

    def ended(self, call: Call) -> None:
        """A call's record is on disk: it can be asked for from now on."""
        self.in_flight -= 1
        left = self.open_calls.get(call.request_id, 1) - 1
        if left:
            self.open_calls[call.request_id] = left
        else:
            self.open_calls.pop(call.request_id, None)
        self._look_empty()

    def now(self) -> str:
        """The time, RFC 3339 in UTC."""
        return datetime.now(UTC).isoformat()

    def turn(self, fault: str) -> int:
        """How many calls had this fault before."""
        turn = self._turns.get(fault, 0)
        self._turns[fault] = turn + 1
        return turn

    async def held(self) -> None:
        """Wait for a release."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held.append(waiting)
        try:
            await waiting
        finally:
            # Released ones are out already; one whose caller left is not.
            with contextlib.suppress(ValueError):
                self._held.remove(waiting)

    def hold_all(self) -> None:
        """Hold every answer that is not begun yet."""
        self.holding = True

    def release(self, count: int | None = None) -> int:
        """Let held answers go, the oldest first; without a count all of them, and nothing is held any more."""
        if count is None:
            self.holding = False
            count = len(self._held)
        released = 0
        while self._held and released < count:
            waiting = self._held.popleft()
            if not waiting.done():
                waiting.set_result(None)
                released += 1
        return released

    def reset(self) -> None:
        """Forget truth, counters and holds; held answers go."""
        self.release()
        self.truth.forget()
        self._turns.clear()
        self._batches.close()
        self._kept.clear()
        self._unnamed = 0
        self.dispatched = 0
        self.bytes_sent = 0
        if self.script is not None:
            self.script.restart()

    def state(self) -> dict[str, int]:
        """Counters of now."""
        return {
            "dispatched": self.dispatched,
            "in_flight": self.in_flight,
            "held": len(self._held),
            "connections": len(self.connections),
            "bytes_sent": self.bytes_sent,
            "last_seq": self.truth.last_seq,
        }


def _is_plain(steering: Steering) -> bool:
    if steering.status is not None or steering.body is not None or steering.headers or steering.served is not None:
        return False
    return not steering.fault or FAULTS[steering.fault].where is Where.USAGE


def _scripted(script: Script, request: Request) -> tuple[tuple[int, bytes] | None, bytes]:
    """A session's refusal by the script and the headers that come with it; no refusal where no rule has a status."""
    rule = script.at_body(request.path, realtime.wanted(request))
    if rule is None or rule.get("status") is None:
        return None, b""
    steering = convert(rule)
    status = steering.status or 500
    headers = "".join(f"{name}: {value}\r\n" for name, value in steering.headers.items())
    return (status, shapes.error(status, "The simulator was asked for this error.")), headers.encode("latin-1")


def _missing(model: str) -> bytes:
    return shapes.error(404, f"The model `{model}` does not exist.", code="model_not_found")


async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    script: Script | None = None,
    truth_file: Path | None = None,
    keys: Iterable[str] = (),
) -> Simulator:
    """Start a simulator in the running loop; ``await close()`` ends it.

    ``keys`` are the credentials it accepts, any if there are none. Without a ``truth_file`` the truth is kept in an
    unnamed temporary file. Raises ``OSError`` if the address is taken, ``ValueError`` if the file is no truth log.
    """
    simulator = Simulator(TruthLog(truth_file), script, keys)
    try:
        await simulator.start(host, port)
    except OSError:
        await simulator.truth.close()
        raise
    return simulator


def print_ready(simulator: Simulator) -> None:
    """Tell on standard output, in one line of JSON, where it listens."""
    print(json.dumps({"host": simulator.host, "port": simulator.port, "url": simulator.url}), flush=True)


def run(
    host: str = "127.0.0.1",
    port: int = 0,
    script: Path | None = None,
    truth_file: Path | None = None,
    *,
    keys: Iterable[str] = (),
    ready: Callable[[Simulator], None] = print_ready,
) -> None:
    """Serve until SIGTERM or SIGINT, then leave the truth on disk and return.

    Raises ``ScriptInvalid`` for a bad script, ``OSError`` if the address is taken, ``ValueError`` if the truth file is
    none.
    """
    rules = load_script(script) if script is not None else None

    async def until_stopped() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with await serve(host, port, script=rules, truth_file=truth_file, keys=keys) as simulator:
            ready(simulator)
            await stop.wait()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(until_stopped())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
