"""Speaking to a running simulator by hand: sockets that see every byte, and its doors."""

import json
import socket
import time
from typing import Any, NamedTuple

from faregate.simulator import Simulator

KEY = "sk-upstream-0123456789"
CHAT = "/v1/chat/completions"


class Heard(NamedTuple):
    """Everything a connection said, and how it ended: ``closed``, ``reset`` or still open and ``silent``."""

    data: bytes
    end: str

    @property
    def head(self) -> bytes:
        """Status line and headers."""
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        """What follows the head, as it came."""
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        """The status of the answer."""
        return int(self.data.split(b" ", 2)[1])


class Provider:
    """A running simulator, spoken to from the test's thread."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.port = simulator.port
        self.url = simulator.url

    def connect(self) -> socket.socket:
        """A fresh connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def talk(self, data: bytes, *, seconds: float = 20.0) -> Heard:
        """Send bytes and hear everything until the end, or what came within ``seconds``."""
        with self.connect() as connection:
            connection.sendall(data)
            return hear(connection, seconds)

    def ask(self, body: object, *, seconds: float = 20.0, path: str = CHAT, request_id: str = "") -> Heard:
        """Post JSON on a connection of its own."""
        return self.talk(post(body, path=path, request_id=request_id), seconds=seconds)

    def steer(self, steering: dict[str, Any], *, stream: bool = False, **options: Any) -> Heard:
        """Ask a chat whose message holds a steering line; ``fields`` go into the body."""
        return self.ask(chat(steering, stream=stream, **options.pop("fields", {})), **options)

    def door(self, method: str, name: str, body: object = None) -> tuple[int, Any]:
        """Ask the simulator itself."""
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} /simulator/{name} HTTP/1.1", "host: s", "connection: close", f"content-length: {len(data)}"]
        heard = self.talk("\r\n".join([*lines, "", ""]).encode() + data)
        return heard.status, json.loads(heard.body)

    def record(self, request_id: str) -> dict[str, Any]:
        """The one record of a request id; waits for it, as the record of a broken call follows the break."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            records = self.door("GET", f"truth?request_id={request_id}")[1]["data"]
            if records:
                assert len(records) == 1
                found: dict[str, Any] = records[0]
                return found
            time.sleep(0.01)
        raise AssertionError(f"no record of {request_id}")

    def until(self, **state: int) -> None:
        """Wait until the simulator's counters say so."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            now = self.door("GET", "state")[1]
            if all(now[name] == value for name, value in state.items()):
                return
            time.sleep(0.01)
        raise AssertionError(f"never {state}, last {now}")


def chat(steering: dict[str, Any] | None = None, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """A chat body, with a steering line if there is steering."""
    text = "hello" if steering is None else f"hello\nsim: {json.dumps(steering)}"
    body: dict[str, Any] = {"model": "sim-1", "messages": [{"role": "user", "content": text}], **fields}
    return {**body, "stream": True} if stream else body


def post(body: object, *, path: str = CHAT, request_id: str = "", close: bool = True, key: str | None = KEY) -> bytes:
    """The bytes of a request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: simulator", f"content-length: {len(data)}"]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if request_id:
        lines.append(f"x-client-request-id: {request_id}")
    if close:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + data


def hear(connection: socket.socket, seconds: float) -> Heard:
    """Read until the end, or what comes within ``seconds``."""
    pieces: list[bytes] = []
    deadline = time.monotonic() + seconds
    while True:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            piece = connection.recv(1 << 16)
        except TimeoutError:
            return Heard(b"".join(pieces), "silent")
        except ConnectionResetError:
            return Heard(b"".join(pieces), "reset")
        if not piece:
            return Heard(b"".join(pieces), "closed")
        pieces.append(piece)


def unchunk(body: bytes) -> bytes:
    """A chunked body without its framing; fails on anything that is not whole."""
    content = b""
    while True:
        size_text, _, body = body.partition(b"\r\n")
        size = int(size_text, 16)
        if size == 0:
            assert body == b"\r\n"
            return content
        content, body = content + body[:size], body[size + 2 :]


def sse(heard: Heard) -> list[Any]:
    """The events of a whole stream: JSON decoded, ``[DONE]`` and comments as text."""
    events = unchunk(heard.body).decode().split("\n\n")
    assert events.pop() == ""
    texts = [event.removeprefix("data: ") for event in events]
    return [json.loads(text) if text.startswith("{") else text for text in texts]
