"""Framing of requests: from a connection's bytes to whole requests, strictly, without sockets.

llhttp (through httptools) is the parser and refuses every ambiguous framing; what it leaves to its user is checked here
(RULINGS 17): the size of a head that never ends, exactly one ``Host``, the version, trailers, and how many pipelined
requests may wait. Callbacks never raise: what is wrong is kept in ``problem`` and told by the server.
"""

import re
from collections.abc import Callable
from typing import Final

import httptools

from faregate.errors import Problem

#: A client may send this many requests ahead of the answer; then its socket is not read until one is done.
PIPELINE_MAX: Final = 1

#: Fields that must not come twice, because two readers could believe two different ones.
_SINGLE: Final = frozenset((b"host", b"content-length", b"content-type", b"content-encoding", b"idempotency-key"))

#: Credentials may come in several headers, so a repeated one is told as a conflict of credentials.
_CREDENTIALS: Final = frozenset(
    (b"authorization", b"api-key", b"x-api-key", b"x-goog-api-key", b"ocp-apim-subscription-key")
)

#: By these a request says something about itself: who its end user is, which run it belongs to, and so on.
DESCRIBING: Final = frozenset(
    (
        b"x-faregate-project",
        b"x-faregate-user",
        b"x-faregate-tags",
        b"x-faregate-run",
        b"x-faregate-timeout",
        b"x-faregate-stage",
        b"openai-proxy-project",
        b"openai-proxy-staging",
        b"openai-proxy-user",
        b"x-request-timeout",
        b"x-custom-event-id",
        b"x-metadata",
        b"x-apim-end-user-id",
        b"x-apim-end-user-tenant-id",
        b"x-apim-client-application-id",
        b"x-apim-end-user-jwt",
    )
)

#: So many pieces of a body are kept apart; more, as tiny chunks make them, cost many times their bytes.
PIECES_MAX: Final = 1024

_HOST: Final = re.compile(rb"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Bounds:
    """How large a request may be, in bytes and fields."""

    __slots__ = ("body", "fields", "head", "upload", "uploads", "uri")

    def __init__(
        self,
        head: int,
        fields: int,
        uri: int,
        body: int,
        upload: int = 0,
        uploads: Callable[[bytes, bytes], bool] | None = None,
    ) -> None:
        self.head = head
        self.fields = fields
        self.uri = uri
        self.body = body
        #: The bound of a body for what ``uploads`` says of a method and a target that it takes files.
        self.upload = upload
        self.uploads = uploads

    def body_of(self, request: "Request") -> int:
        """The bound of a request's body; asked only where it is over the usual one."""
        if self.upload > self.body and self.uploads is not None and self.uploads(request.method, request.target):
            return self.upload
        return self.body


class Request:
    """One whole request. ``headers`` has lower-case names, repeated fields joined by a comma.

    Nobody changes it once it is whole: requests with the same head share one, and their bodies are handed on beside it.
    """

    __slots__ = (
        "body",
        "chunked",
        "describes",
        "found",
        "headers",
        "keep_alive",
        "method",
        "problem",
        "repeats",
        "target",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, headers: dict[bytes, bytes], body: bytes = b"") -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.keep_alive = True
        #: Its answer may come in chunks: it speaks HTTP/1.1.
        self.chunked = True
        self.describes = False
        self.problem: Problem | None = None
        #: Its head may come again on this connection, byte for byte; ``found`` is what was found out from it alone.
        self.repeats = False
        self.found: object = None
        #: What follows it on the connection is a WebSocket's, if it is accepted.
        self.upgrade = False


class KnownHead:
    """A head that llhttp has accepted on this connection, byte for byte but for the digits of Content-Length.

    Clients on a keep-alive connection send the same head again and again. When one read brings exactly such a head
    and its body, nothing in it can mean anything else than it did the first time, so it is neither parsed nor
    identified again.
    """

    __slots__ = ("_bounds", "_length", "_prefix", "_suffix", "_suffix_length", "request")

    def __init__(self, request: Request, head: bytes, digits: tuple[int, int], bounds: Bounds) -> None:
        self._prefix = head[: digits[0]]
        self._suffix = head[digits[1] :]
        self._length = len(self._prefix)
        self._suffix_length = len(self._suffix)
        self._bounds = bounds
        self.request = request

    def again(self, data: bytes) -> bytes | None:
        """The body that comes with ``data``, if that is this head and its whole body and nothing more."""
        start = self._length
        if data.startswith(self._prefix):
            end = data.find(b"\r", start, start + 9)
            if end > 0 and data.startswith(self._suffix, end):
                digits = data[start:end]
                body = data[end + self._suffix_length :]
                if digits.isdigit() and len(body) == int(digits) and len(body) <= self._bounds.body:
                    return body
        return None


_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,8})[ \t]*\r\n", re.IGNORECASE)

#: A connection whose heads keep changing stops being looked at for repetition.
CHANGES_MAX: Final = 8


#: Names that are remembered in lower case, so that open connections share them; made-up ones must not fill the memory.
_NAMES_MAX: Final = 512


class _Names(dict[bytes, bytes]):
    """Header name as it came → in lower case, the same object each time."""

    def __missing__(self, name: bytes) -> bytes:
        lower = name.lower()
        if len(self) < _NAMES_MAX and len(name) <= 64:
            self[name] = self[lower] = lower
        return lower


_lower: Final = _Names().__getitem__


class RequestParser:
    """Feeds llhttp and collects whole requests in ``ready``.

    ``problem`` is set when the connection cannot be understood any further; a request that is merely unacceptable
    (too large, wrong host) comes out of ``ready`` with its own ``problem`` as soon as its head is known.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_bounds",
        "_changes",
        "_clean",
        "_describes",
        "_feed",
        "_field_bytes",
        "_fields",
        "_headers",
        "_in_body",
        "_llhttp",
        "_long",
        "_most",
        "_overhead",
        "_problem",
        "_request",
        "_url",
        "awaits_continue",
        "early",
        "head_bytes",
        "known",
        "problem",
        "ready",
    )

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._llhttp = httptools.HttpRequestParser(self)
        self._feed = self._llhttp.feed_data
        #: Hardly ever more than one, and a list takes a tenth of a deque's memory.
        self.ready: list[Request] = []
        self.problem: Problem | None = None
        #: Bytes of a head that has begun and not ended; the server watches its age.
        self.head_bytes = 0
        self.awaits_continue = False
        #: What came behind a request for an upgrade, which is no HTTP any more.
        self.early: bytes | None = None
        self._in_body = False
        #: llhttp stands between two requests.
        self._clean = True
        self.known: KnownHead | None = None
        self._changes = 0
        self._request: Request | None = None
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._fields = 0
        self._field_bytes = 0
        self._describes = False
        self._body: list[bytes] = []
        #: The beginning of a body that came in very many pieces.
        self._long: bytearray | None = None
        self._body_bytes = 0
        #: The bound of the body that is coming in, as far as it had to be looked at.
        self._most = self._bounds.body
        #: Bytes since the last one of the body: chunk sizes, extensions, trailers.
        self._overhead = 0
        self._problem: Problem | None = None

    def again(self, data: bytes) -> bytes | None:
        """The body in ``data``, where it holds the head of ``known`` once more, its whole body, and nothing else.

        Everything that ``feed`` got before must have been taken from ``ready``.
        """
        return self.known.again(data) if self._clean and self.known is not None else None

    @property
    def incoming(self) -> Request | None:
        """The request whose head has come and whose body has not, unless it was given up."""
        return self._request

    def refuse(self, problem: Problem) -> None:
        """Take no more of the body that is coming in; its request comes out of ``ready`` with ``problem``."""
        if self._request is not None:
            self._give_up(self._request, problem)

    @property
    def mid_request(self) -> bool:
        """Some bytes of a request have come, and not all of them."""
        return self.head_bytes > 0 or self._in_body

    @property
    def body_bytes(self) -> int:
        """Bytes of the current body that have come."""
        return self._body_bytes

    @property
    def in_body(self) -> bool:
        """The current request's head is complete and its body is not."""
        return self._in_body

    def feed(self, data: bytes) -> None:
        """Take what the socket gave."""
        clean = self._clean
        if self.problem is not None:
            # Nothing can be understood after it, and llhttp would go on collecting a field without end.
            return
        if self.early is not None:
            self.early += data
            if len(self.early) > self._bounds.body:
                self.problem = body_too_large(self._bounds.body)
            return
        self.head_bytes += len(data)
        in_body, body_bytes = self._in_body, self._body_bytes
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.ready and self.ready[-1].upgrade:
                self.early = data[upgrade.args[0] :]
            else:
                self.problem = _framing("protocol upgrades are not offered")
        except httptools.HttpParserError as error:
            # The parser's text names the rule and echoes nothing of what was sent.
            self.problem = _framing(str(error) or "the request cannot be parsed")
        if in_body and self._in_body:
            self._overhead = self._overhead + len(data) if self._body_bytes == body_bytes else 0
            if self._overhead > self._bounds.head:
                self.problem = _head_too_large(self._bounds)
        if self._in_body or self.ready:
            self.head_bytes = 0
        elif self.head_bytes > self._bounds.head:
            self.problem = _head_too_large(self._bounds)
        if clean and self._clean and len(self.ready) == 1 and self._changes < CHANGES_MAX and self.problem is None:
            self._learn(data, self.ready[0])

    def _learn(self, data: bytes, request: Request) -> None:
        """Remember the head of a request that came whole in one read."""
        self._changes += 1
        head = data[: len(data) - len(request.body)]
        lengths = _LENGTH.findall(head)
        if len(lengths) == 1 and data.find(b"\r\n\r\n") + 4 == len(head):
            plain = request.problem is None and request.keep_alive and b"expect" not in request.headers
            if plain and b"transfer-encoding" not in request.headers:
                found = _LENGTH.search(head)
                assert found is not None
                request.repeats = True
                self.known = KnownHead(request, head, found.span(1), self._bounds)

    # -- called by llhttp ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request starts."""
        self._clean = False
        self._reset()

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field; trailers come here too and are dropped."""
        if self._in_body:
            return
        self._fields += 1
        self._field_bytes += len(name) + len(value) + 4
        name = _lower(name)
        headers = self._headers
        if name in headers:
            if name in _SINGLE:
                self._problem = _framing(f"{name.decode('ascii', 'replace')} is given twice")
            elif name in _CREDENTIALS and headers[name] != value:
                self._problem = Problem("auth_conflict", "Two different credentials were sent. Send one.")
            else:
                headers[name] += b", " + value
        else:
            headers[name] = value
            if name in DESCRIBING:
                self._describes = True

    def on_headers_complete(self) -> None:
        """The head is whole: everything that can be refused without the body is refused now."""
        llhttp = self._llhttp
        headers = self._headers
        request = self._request = Request(llhttp.get_method(), self._url, headers)
        self._in_body = True
        request.describes = self._describes
        request.keep_alive = llhttp.should_keep_alive()
        version = llhttp.get_http_version()
        request.chunked = version == "1.1"
        problem = self._problem or _check_head(request, version, self._bounds)
        if problem is None and b"upgrade" in headers and llhttp.should_upgrade():
            # Refused here, because llhttp calls the request whole without its body.
            request.upgrade = _may_upgrade(request)
            if not request.upgrade:
                problem = _framing("protocol upgrades are not offered")
        if problem is None and (self._fields > self._bounds.fields or self._field_bytes > self._bounds.head):
            problem = _head_too_large(self._bounds)
        if problem is not None:
            self._give_up(request, problem)
        elif b"expect" in headers and request.chunked:
            # HTTP/1.0 does not know it (RFC 9110 section 10.1.1).
            self.awaits_continue = True

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(data)
        if self._body_bytes > self._most:
            if self._request is not None:
                self._most = self._bounds.body_of(self._request)
                if self._body_bytes > self._most:
                    self._give_up(self._request, body_too_large(self._most))
                    return
            else:
                return
        pieces = self._body
        pieces.append(data)
        if len(pieces) == PIECES_MAX:
            self._long = self._long if self._long is not None else bytearray()
            self._long += b"".join(pieces)
            pieces.clear()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._clean = True
        self._in_body = False
        self.awaits_continue = False
        request = self._request
        if request is None:
            return
        self._request = None
        pieces = self._body
        if self._long is None:
            request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        else:
            request.body = b"".join((self._long, *pieces))
            self._long = None
        self._body = []
        self.ready.append(request)

    def _give_up(self, request: Request, problem: Problem) -> None:
        """Answer at once and close: the rest of this request would only be read to be thrown away."""
        request.problem = problem._replace(close=True)
        request.keep_alive = False
        self._request = None
        self._body = []
        self._long = None
        self.ready.append(request)


def _check_head(request: Request, version: str, bounds: Bounds) -> Problem | None:
    headers = request.headers
    if version not in ("1.1", "1.0"):
        return _framing("only HTTP/1.1 and HTTP/1.0 are spoken")
    host = headers.get(b"host")
    if host is None:
        if version == "1.1":
            return _framing("Host is missing")
    elif _HOST.fullmatch(host) is None:
        return Problem("host_invalid", "Host header is not a valid host[:port].", "Host")
    target = request.target
    if len(target) > bounds.uri:
        return Problem("uri_too_long", f"Path exceeds {bounds.uri} bytes.")
    if not target.startswith(b"/"):
        problem = _to_origin_form(request, host)
        if problem is not None:
            return problem
    encoding = headers.get(b"transfer-encoding")
    if encoding is not None and (encoding.lower() != b"chunked" or version == "1.0"):
        return _framing("Transfer-Encoding must be exactly `chunked`, on HTTP/1.1")
    length = headers.get(b"content-length")
    if length is not None and len(length) > 7 and int(length) > bounds.body and int(length) > bounds.body_of(request):
        return body_too_large(bounds.body_of(request))
    expect = headers.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        return Problem("header_invalid", "Header Expect: only `100-continue` is understood.", "Expect")
    return None


def _may_upgrade(request: Request) -> bool:
    """Whether a request to change the protocol is one for a WebSocket, whose handshake has no body (RFC 6455)."""
    headers = request.headers
    if b"content-length" in headers or b"transfer-encoding" in headers or b"expect" in headers:
        return False
    return request.method == b"GET" and request.chunked and headers[b"upgrade"].lower() == b"websocket"


def _to_origin_form(request: Request, host: bytes | None) -> Problem | None:
    """Accept ``http://host/path`` only for the host that the ``Host`` header names (RFC 9112 section 3.2.2)."""
    scheme, separator, rest = request.target.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return Problem("uri_invalid", "Path is not valid: it must start with /.")
    if authority != host:
        return Problem("host_invalid", "Host header is not the host of the request target.", "Host")
    request.target = slash + path or b"/"
    return None


def _framing(rule: str) -> Problem:
    return Problem("bad_framing", f"Request framing is ambiguous: {rule}.", close=True)


def _head_too_large(bounds: Bounds) -> Problem:
    return Problem("header_too_large", f"Headers exceed {bounds.head} bytes (or {bounds.fields} fields).", close=True)


def body_too_large(limit: int) -> Problem:
    """The refusal for a body over ``limit`` bytes."""
    return Problem("body_too_large", f"Body exceeds {limit} bytes. Send a smaller one.", close=True)
