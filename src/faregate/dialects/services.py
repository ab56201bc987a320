"""Any HTTP service behind the gate: which of its paths may be asked for, and which bytes pass to it and back.

What a service says is nobody's to understand: its bodies are bytes. Owned here is what keeps its address, its
credential and its neighbours safe: paths that mean the same to every reader, headers by allow-list in both directions,
and the masking of secrets in answers. Prices and measuring are ``core.metering.service``'s.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

from faregate.core.call import Call
from faregate.core.metering.service import USUAL_ANSWERED, USUAL_ASKED, ServiceTerms, most, read_told
from faregate.errors import Problem

#: Doing these twice is the same as doing them once (RFC 9110 section 9.2.2).
IDEMPOTENT: Final = frozenset((b"GET", b"PUT", b"DELETE", b"OPTIONS"))

#: Without a body these go out without its length, as every client sends them.
_BODILESS: Final = frozenset((b"GET", b"DELETE", b"OPTIONS"))

_SERVICE: Final = re.compile(rb"/services/([A-Za-z0-9][A-Za-z0-9._-]{0,63})((?:/[^?]*)?)")

#: Characters of a path and of a query as they are, and escapes (RFC 3986 section 3.3).
_PATH: Final = re.compile(rb"(?:[A-Za-z0-9/._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*")
_QUERY: Final = re.compile(rb"[\x21\x22\x24-\x7e]*")

#: Escapes of these change which path is meant, depending on who reads it: slashes, dots, percent signs, the end of a
#: segment's name, and control characters.
_CHANGING: Final = re.compile(rb"%(?:[01][0-9A-Fa-f]|2[5EeFf]|3[Bb]|5[Cc]|7[Ff])")

#: ASCII in more bytes than it takes, which is no UTF-8 (RFC 3629 section 3): some servers read it as slashes and dots.
_OVERLONG: Final = re.compile(rb"%(?:[Cc][01]|[Ee]0%[89]|[Ff]0%8)")

#: ``.`` and ``..``, also with parameters or spaces that some servers cut off before they resolve them.
_DOTS: Final = re.compile(rb"/\.{1,2}(?:%20)*(?:[;/]|\Z)")

#: The name under which a caller's credential may stand in a query.
CREDENTIAL_FIELD: Final = "subscription-key"


class Below(NamedTuple):
    """A path below ``/services``: the name of the service and what is asked of it."""

    service: str
    #: The path below the service, empty or beginning with a slash, and the query without the caller's credential.
    target: str


def below(target: bytes) -> Below | Problem | None:
    """What a request target asks of which service; ``None`` where it is no path below ``/services``."""
    path, mark, query = target.partition(b"?")
    found = _SERVICE.fullmatch(path)
    if found is None:
        return None
    rest = found[2]
    if _PATH.fullmatch(rest) is None or _QUERY.fullmatch(query) is None or b"//" in rest:
        return _unclear()
    if any(pattern.search(rest) is not None for pattern in (_CHANGING, _OVERLONG, _DOTS)):
        return _unclear()
    kept = _without_credential(query) if mark else b""
    return Below(found[1].decode(), (rest + b"?" + kept if kept else rest).decode("ascii"))


def _unclear() -> Problem:
    rule = "it must be plain, without dot segments, empty segments, and escapes of slashes, dots and control characters"
    return Problem("uri_invalid", f"Path is not valid: {rule}.")


def _without_credential(query: bytes) -> bytes:
    """The query as it was sent, without the fields that hold the caller's credential, however they are spelt."""
    if b"key" not in query.lower() and b"%" not in query:
        return query
    fields = query.split(b"&")
    kept = [field for field in fields if _name_of(field) != CREDENTIAL_FIELD]
    return b"&".join(kept)


def _name_of(field: bytes) -> str:
    return unquote_plus(field.partition(b"=")[0].decode("ascii")).strip().lower()


class Place:
    """One service, ready to be called: its terms and the constant parts of what is sent to it. Immutable."""

    __slots__ = ("_back", "_host", "_there", "masked", "prefix", "service", "terms")

    def __init__(
        self, service: str, terms: ServiceTerms, base_url: str, credential: Mapping[str, str], masked: Sequence[str]
    ) -> None:
        self.service = service
        self.terms = terms
        _, _, rest = base_url.partition("://")
        authority, _, prefix = rest.partition("/")
        self.prefix = f"/{prefix}".rstrip("/")
        lines = "".join(f"{name}: {value}\r\n" for name, value in credential.items())
        # What an answer holds must be seen to be masked, so it must not come compressed.
        self._host = f"host: {authority}\r\n{lines}accept-encoding: identity\r\n".encode("latin-1")
        self._there = frozenset(name.encode() for name in (*USUAL_ASKED, *terms.headers))
        told = (each.header for each in terms.told)
        self._back = frozenset(name.encode() for name in (*USUAL_ANSWERED, *terms.headers, *told))
        self.masked = tuple(text.encode() for text in masked if text)

    def refusal(self, method: bytes, headers: Mapping[bytes, bytes], target: str, body_bytes: int) -> Problem | None:
        """Why a request is not passed on, as far as its head and the length of its body tell."""
        terms, name = self.terms, self.service
        if "websocket" in headers.get(b"upgrade", b"").decode("latin-1").lower():
            return Problem(
                "operation_unmetered", f"WebSocket at service {name} is not metered, so it is not passed on."
            )
        if method.decode("latin-1") not in terms.methods:
            allow = ", ".join(terms.methods)
            return Problem("method_not_allowed", f"Use {allow}.", details={"allow": allow})
        path = target.partition("?")[0]
        if terms.paths and not any(path == at or path.startswith(at.rstrip("/") + "/") for at in terms.paths):
            return Problem("not_found", f"Service {name} offers no such path.")
        length = headers.get(b"content-length", b"")
        if body_bytes > terms.request_bytes_max or (length.isdigit() and int(length) > terms.request_bytes_max):
            text = f"Body exceeds the {terms.request_bytes_max} bytes that service {name} takes. Send a smaller one."
            return Problem("body_too_large", text, close=True)
        return None

    def call(self, body_bytes: int) -> Call:
        """The facts of a call: all that bounds it is what it may use at most."""
        at_most = most(self.terms, body_bytes)
        return Call(self.service, self.service, has_output=False, at_most=at_most, sealed=True)

    def request_head(
        self, method: bytes, target: str, headers: Mapping[bytes, bytes], own: bytes, body_bytes: int
    ) -> bytes:
        """The head of the request to the service; ``own`` holds our own lines, such as the request id."""
        line = f"{self.prefix}{target}" if self.prefix or target.startswith("/") else f"/{target}"
        parts = [b"%b %b HTTP/1.1\r\n" % (method, line.encode("ascii")), self._host]
        named = _named_by_connection(headers)
        for name, value in headers.items():
            if name in self._there and name not in named:
                parts += (name, b": ", value, b"\r\n")
        parts.append(own)
        if body_bytes or method not in _BODILESS:
            parts.append(b"content-length: %d\r\n" % body_bytes)
        parts.append(b"\r\n")
        return b"".join(parts)

    def passed_headers(self, head: bytes) -> bytes:
        """The lines of an answer's head that a caller may see, secrets masked."""
        lines = _fields(head)
        named = _named_by_connection(
            {b"connection": b",".join(value for name, value in lines if name == b"connection")}
        )
        seen = [b"%b: %b\r\n" % (name, value) for name, value in lines if name in self._back and name not in named]
        return self.mask(b"".join(seen))

    def told(self, head: bytes) -> tuple[int | None, ...]:
        """The quantities that a head tells; ``None`` for one that is missing, told twice or cannot be true."""
        found: list[int | None] = []
        for each in self.terms.told:
            values = [value for name, value in _fields(head) if name == each.header.encode()]
            found.append(read_told(each, values[0].decode("latin-1")) if len(values) == 1 else None)
        return tuple(found)

    def mask(self, data: bytes) -> bytes:
        """Bytes of an answer without our credential at the service."""
        for secret in self.masked:
            data = data.replace(secret, b"***")
        return data


def length_of(head: bytes) -> int | None:
    """How long an answer says that its body is; ``None`` where it does not say."""
    for name, value in _fields(head):
        if name == b"content-length" and value.isdigit() and len(value) < 19:
            return int(value)
    return None


class StreamMask:
    """Masks secrets in an answer that passes in pieces, also where one stands across two of them.

    It holds back no more than might be the beginning of a secret.
    """

    __slots__ = ("_held", "_secrets")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may pass now."""
        if not self._secrets:
            return data
        data = self._held + data
        for secret in self._secrets:
            data = data.replace(secret, b"***")
        keep = max(_overlap(data, secret) for secret in self._secrets)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def end(self) -> bytes:
        """What was held back: no more comes."""
        held, self._held = self._held, b""
        return held


def _overlap(data: bytes, secret: bytes) -> int:
    """How many bytes at the end of ``data`` are the beginning of ``secret``."""
    for length in range(min(len(secret) - 1, len(data)), 0, -1):
        if data.endswith(secret[:length]):
            return length
    return 0


def _fields(head: bytes) -> list[tuple[bytes, bytes]]:
    """The header lines of an answer's head, names in lower case."""
    fields = []
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            fields.append((name.strip().lower(), value.strip(b" \t")))
    return fields


def _named_by_connection(headers: Mapping[bytes, bytes]) -> frozenset[bytes]:
    """Headers that ``Connection`` says are about this connection alone (RFC 9110 section 7.6.1)."""
    value = headers.get(b"connection")
    return frozenset(name.strip().lower() for name in value.split(b",")) if value else frozenset()
