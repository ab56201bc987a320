"""Requests that are sent again under the same ``Idempotency-Key``: carried out once, answered the same.

What was asked and answered is remembered in memory, by who asked: for a day, and an answer that holds a secret for a
quarter of an hour. A restart forgets it; what must not happen twice even then, such as a deposit, has a ``reference``
in the books. (draft-ietf-httpapi-idempotency-key-header.)
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faregate.console.doors import ACTOR, REQUEST_ID, first
from faregate.console.problems import respond
from faregate.console.state import Console
from faregate.console.texts import NANOS_PER_SECOND

HEADER: Final = b"idempotency-key"
NAME_CHARACTERS_MAX: Final = 255

KEPT_NANOS: Final = 24 * 3600 * NANOS_PER_SECOND
SECRET_KEPT_NANOS: Final = 900 * NANOS_PER_SECOND
ENTRIES_MAX: Final = 10_000
ANSWER_BYTES_MAX: Final = 64 * 1024
ALL_BYTES_MAX: Final = 16 * 1024 * 1024

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(slots=True)
class _Known:
    """A request that was sent with a name."""

    digest: bytes
    request_id: str
    until: int
    #: The messages of its answer; ``None`` while it runs, and where it is not kept.
    answer: list[Message] | None = None
    running: bool = True
    size: int = 0


@dataclass(slots=True)
class Repeats:
    """What is remembered. For the event loop's own thread; times are nanoseconds of a clock that never steps back."""

    known: OrderedDict[tuple[str, str], _Known] = field(default_factory=OrderedDict)
    bytes_kept: int = 0

    def find(self, actor: str, name: str, now: int) -> _Known | None:
        """What is known of a request of this name."""
        found = self.known.get((actor, name))
        if found is not None and not found.running and now >= found.until:
            self.forget(actor, name)
            return None
        return found

    def begin(self, actor: str, name: str, digest: bytes, request_id: str, now: int) -> None:
        """It runs from now on."""
        while len(self.known) >= ENTRIES_MAX:
            self._drop_oldest()
        self.known[actor, name] = _Known(digest, request_id, now + KEPT_NANOS)

    def finish(self, actor: str, name: str, answer: list[Message], now: int) -> None:
        """It ended with this answer, which is kept where it is not too large."""
        one = self.known.get((actor, name))
        if one is None:
            return
        one.running = False
        size = sum(len(message.get("body", b"")) for message in answer)
        if size > ANSWER_BYTES_MAX:
            return
        if any(b'"secret"' in message.get("body", b"") for message in answer):
            one.until = now + SECRET_KEPT_NANOS
        one.answer, one.size = answer, size
        self.bytes_kept += size
        while self.bytes_kept > ALL_BYTES_MAX:
            self._drop_oldest()

    def forget(self, actor: str, name: str) -> None:
        """It may be sent again."""
        gone = self.known.pop((actor, name), None)
        if gone is not None:
            self.bytes_kept -= gone.size

    def _drop_oldest(self) -> None:
        _, gone = self.known.popitem(last=False)
        self.bytes_kept -= gone.size


class RepeatDoor:
    """Answers a request that was carried out before, and lets every other one pass."""

    def __init__(self, app: ASGIApp, console: Console) -> None:
        self._app = app
        self._console = console
        self._repeats = Repeats()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI exchange; its body is whole, as ``BodyDoor`` gives it."""
        if scope["type"] != "http" or scope["method"] in _READING:
            await self._app(scope, receive, send)
            return
        names = [value for name, value in scope["headers"] if name == HEADER]
        # Whoever did not have to say who he is shares no memory with others of that kind.
        if not names or not scope[ACTOR]:
            await self._app(scope, receive, send)
            return
        name, actor = names[0].decode("latin-1"), scope[ACTOR]
        if len(names) > 1 or not 1 <= len(name) <= NAME_CHARACTERS_MAX or not name.isprintable() or not name.isascii():
            rule = f"Idempotency-Key: expected one, of 1 to {NAME_CHARACTERS_MAX} printable characters"
            await respond(scope[REQUEST_ID], "idem_invalid", rule)(scope, receive, send)
            return
        message = await receive()
        digest = _digest(scope, message.get("body", b""))
        now = self._console.clock.monotonic_nanos()
        known = self._repeats.find(actor, name, now)
        if known is not None:
            await self._again(known, digest, scope, receive, send)
            return
        self._repeats.begin(actor, name, digest, scope[REQUEST_ID], now)
        await self._first(actor, name, message, scope, receive, send)

    async def _first(self, actor: str, name: str, body: Message, scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []

        async def sending(message: Message) -> None:
            answer.append(message)
            await send(message)

        status = 500
        try:
            await self._app(scope, first(body, receive), sending)
            status = answer[0]["status"] if answer else 500
        finally:
            # What failed inside may be tried again; so may what was refused, for nothing was done.
            if status >= 400:
                self._repeats.forget(actor, name)
            else:
                self._repeats.finish(actor, name, answer, self._console.clock.monotonic_nanos())

    async def _again(self, known: _Known, digest: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[str, str] = {}
        if known.digest != digest:
            code, rule = "idem_conflict", "this Idempotency-Key was used with another request; use a new one"
        elif known.running:
            code, rule = "idem_in_progress", f"the request of this Idempotency-Key ({known.request_id}) still runs"
            headers["retry-after"] = "1"
        elif known.answer is None:
            code = "idem_completed"
            rule = f"the request of this Idempotency-Key was carried out as {known.request_id}; its answer is not kept"
        else:
            for message in known.answer:
                if message["type"] == "http.response.start":
                    message = {**message, "headers": [*message["headers"], (b"idempotent-replayed", b"true")]}
                await send(message)
            return
        await respond(scope[REQUEST_ID], code, rule, headers=headers)(scope, receive, send)


def _digest(scope: Scope, body: bytes) -> bytes:
    told: Any = hashlib.sha256(f"{scope['method']} {scope['path']}\n".encode())
    told.update(scope.get("query_string", b"") + b"\n" + body)
    return bytes(told.digest())
