"""HTTP/1.1 by hand, for tests that must say and see every byte: no client library would send what is wrong here."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

CHAT = "/v1/chat/completions"
RECEIVE_BYTES = 1 << 16


class Answer(NamedTuple):
    """One answer: ``headers`` in lower case (repeated ones joined by a comma), ``body`` without chunk framing."""

    status: int
    headers: dict[str, str]
    body: bytes
    #: The server closed the connection after it.
    closed: bool
    seconds: float

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class NoAnswer(AssertionError):
    """The server closed, reset or said nothing in time; the text says which, and what had come."""


class Silence(NoAnswer):
    """The connection stayed open and nothing that is an answer came in time."""


def request(
    body: bytes = b"",
    *,
    path: str = CHAT,
    method: str = "POST",
    host: str | None = "127.0.0.1",
    secret: str | None = None,
    content_type: str | None = "application/json",
    length: str | None = "",
    headers: Iterable[tuple[str, str]] = (),
    version: str = "HTTP/1.1",
) -> bytes:
    """The bytes of a request. ``length`` empty means the true one, ``None`` leaves Content-Length away."""
    fields = [] if host is None else [("Host", host)]
    if secret is not None:
        fields.append(("Authorization", f"Bearer {secret}"))
    if content_type is not None:
        fields.append(("Content-Type", content_type))
    if length is not None:
        fields.append(("Content-Length", length or str(len(body))))
    fields += headers
    head = f"{method} {path} {version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    return head.encode("latin-1") + body


def exchange(port: int, data: bytes, *, seconds: float = 3.0, patience: float | None = None) -> Answer:
    """Send ``data`` on a fresh connection and read one answer, while still sending if need be.

    After ``patience`` seconds of silence the client closes its side, so that a server which waits for the rest of a
    request learns that there is none.

    Raises:
        NoAnswer: nothing that is an answer came within ``seconds``.
    """
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.setblocking(False)
        left, come = memoryview(data), b""
        parsed: Answer | None = None
        while parsed is None:
            rest = started + seconds - time.monotonic()
            wait = rest if patience is None else min(rest, patience)
            readable, writable, _ = select.select([connection], [connection] if left else [], [], max(wait, 0))
            if not readable and not writable and patience is not None and not left:
                connection.shutdown(socket.SHUT_WR)
                patience = None
            elif not readable and not writable:
                raise Silence(f"no answer in {seconds} s, came: {come[:200]!r}")
            if writable:
                left = _send(connection, left)
            if readable:
                piece = _receive(connection, come)
                come += piece
                parsed = parse(come, ended=not piece)
        elapsed = time.monotonic() - started
        return parsed._replace(seconds=elapsed, closed=_closes(connection, parsed))


def _send(connection: socket.socket, left: memoryview) -> memoryview:
    try:
        return left[connection.send(left) :]
    except (BrokenPipeError, ConnectionResetError):
        # The server may refuse a body before all of it came; what it said is still to be read.
        return left[len(left) :]


def _receive(connection: socket.socket, come: bytes) -> bytes:
    try:
        return connection.recv(RECEIVE_BYTES)
    except ConnectionResetError as error:
        raise NoAnswer(f"the connection was reset, came: {come[:200]!r}") from error


def _closes(connection: socket.socket, answer: Answer) -> bool:
    """Whether the server closes after an answer that says so; one that says nothing is not waited for."""
    if answer.closed or answer.headers.get("connection", "").lower() != "close":
        return answer.closed
    connection.setblocking(True)
    connection.settimeout(3)
    try:
        while connection.recv(RECEIVE_BYTES):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def parse(data: bytes, *, ended: bool = False) -> Answer | None:
    """One whole answer out of ``data``, or ``None`` while there is more to come.

    Raises:
        NoAnswer: the connection ended before the answer did, or it is not HTTP.
    """
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        if ended:
            raise NoAnswer(f"closed after {data[:200]!r}")
        return None
    lines = head.decode("latin-1").split("\r\n")
    if not lines[0].startswith("HTTP/1.1 "):
        raise NoAnswer(f"not HTTP: {data[:200]!r}")
    status = int(lines[0].split(" ")[1])
    if status == 100:
        return parse(rest, ended=ended)
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        name = name.lower()
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    if "content-length" in headers:
        length = int(headers["content-length"])
        body = rest[:length] if len(rest) >= length else None
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunk(rest)
    else:
        body = rest if ended else None
    if body is None:
        if ended:
            raise NoAnswer(f"closed inside the body of {lines[0]!r}, came {len(rest)} bytes")
        return None
    return Answer(status, headers, body, ended, 0.0)


def _unchunk(data: bytes) -> bytes | None:
    """The body of a chunked message, ``None`` while its last chunk has not come."""
    body = b""
    while True:
        line, separator, data = data.partition(b"\r\n")
        if not separator:
            return None
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            return body if data.startswith(b"\r\n") else None
        if len(data) < size + 2:
            return None
        body += data[:size]
        data = data[size + 2 :]
