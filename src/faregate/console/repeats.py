"""Requests that are sent again under the same ``Idempotency-Key``: carried out once, answered the same.

What was asked and answered is remembered in memory, by who asked: for a day, and an answer that holds a secret for a
quarter of an hour. Whoever asks has room of his own, so that nobody makes us forget what others asked. Of what takes
too much room answers go first: then nothing is done twice, though not told again either. A restart forgets it; what
must not happen twice even then, such as a deposit, has a ``reference`` in the books.
(draft-ietf-httpapi-idempotency-key-header.)
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faregate.console.doors import ACTOR, REQUEST_ID, first
from faregate.console.problems import respond
from faregate.console.rights import PRINCIPAL
from faregate.console.state import Console
from faregate.console.texts import NANOS_PER_SECOND
from faregate.core.access import Principal

HEADER: Final = b"idempotency-key"
NAME_CHARACTERS_MAX: Final = 255

KEPT_NANOS: Final = 24 * 3600 * NANOS_PER_SECOND
SECRET_KEPT_NANOS: Final = 900 * NANOS_PER_SECOND
ANSWER_BYTES_MAX: Final = 64 * 1024
#: Of the requests and answers of one actor; a script that asks a thousand times can ask all of it again.
ACTOR_ENTRIES_MAX: Final = 2_000
ACTOR_BYTES_MAX: Final = 4 * 1024 * 1024
#: Of all together, which is what our memory has to hold; beyond it, room is taken from whoever has most.
ENTRIES_MAX: Final = 10_000
BYTES_MAX: Final = 16 * 1024 * 1024

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(slots=True, eq=False)
class _Known:
    """A request that was sent with a name."""

    actor: str
    name: str
    digest: bytes
    request_id: str
    until: int
    #: Who asked, as he was then: the answer is told to nobody who may do something else by now.
    asker: Principal | None = None
    #: The messages of its answer; ``None`` while it runs, and where it is not kept.
    answer: list[Message] | None = None
    running: bool = True
    size: int = 0


@dataclass(slots=True)
class _Mine:
    """What is remembered of one actor, oldest first."""

    known: dict[str, _Known] = field(default_factory=dict)
    bytes_kept: int = 0


@dataclass(slots=True)
class Repeats:
    """What is remembered. For the event loop's own thread; times are nanoseconds of a clock that never steps back."""

    actor_entries_max: int = ACTOR_ENTRIES_MAX
    actor_bytes_max: int = ACTOR_BYTES_MAX
    entries_max: int = ENTRIES_MAX
    bytes_max: int = BYTES_MAX
    actors: dict[str, _Mine] = field(default_factory=dict)
    entries: int = 0
    bytes_kept: int = 0

    def find(self, actor: str, name: str, now: int) -> _Known | None:
        """What is known of a request of this name."""
        found = self.actors[actor].known.get(name) if actor in self.actors else None
        if found is not None and not found.running and now >= found.until:
            self.forget(found)
            return None
        return found

    def begin(
        self, actor: str, name: str, digest: bytes, request_id: str, now: int, asker: Principal | None = None
    ) -> _Known | None:
        """A request of a name that is not known runs from now on; ``None`` where too many run to remember it."""
        if not self._has_room(actor):
            return None
        one = _Known(actor, name, digest, request_id, now + KEPT_NANOS, asker)
        self.actors.setdefault(actor, _Mine()).known[name] = one
        self.entries += 1
        return one

    def finish(self, one: _Known, answer: list[Message], now: int) -> None:
        """It ended with this answer, which is kept where it is not too large."""
        one.running = False
        size = sum(len(message.get("body", b"")) for message in answer)
        if size > ANSWER_BYTES_MAX:
            return
        if any(b'"secret"' in message.get("body", b"") for message in answer):
            one.until = now + SECRET_KEPT_NANOS
        mine = self.actors[one.actor]
        one.answer, one.size = answer, size
        mine.bytes_kept += size
        self.bytes_kept += size
        while mine.bytes_kept > self.actor_bytes_max:
            self._drop_answer(mine)
        while self.bytes_kept > self.bytes_max:
            self._drop_answer(max(self.actors.values(), key=lambda each: each.bytes_kept))

    def forget(self, one: _Known) -> None:
        """It may be sent again."""
        mine = self.actors[one.actor]
        del mine.known[one.name]
        self.entries -= 1
        mine.bytes_kept -= one.size
        self.bytes_kept -= one.size
        if not mine.known:
            del self.actors[one.actor]

    def _has_room(self, actor: str) -> bool:
        """Whether one more request of an actor can be remembered, after forgetting the oldest that have ended."""
        mine = self.actors.get(actor)
        if mine is not None and len(mine.known) >= self.actor_entries_max:
            return self._drop_oldest(mine)
        if self.entries < self.entries_max:
            return True
        return any(map(self._drop_oldest, sorted(self.actors.values(), key=lambda each: -len(each.known))))

    def _drop_oldest(self, mine: _Mine) -> bool:
        """Forget the oldest request of an actor that does not run any more; false where all of them run."""
        ended = next((one for one in mine.known.values() if not one.running), None)
        if ended is not None:
            self.forget(ended)
        return ended is not None

    def _drop_answer(self, mine: _Mine) -> None:
        """Keep the oldest answer of an actor no longer; that it was carried out stays known."""
        one = next(one for one in mine.known.values() if one.size)
        mine.bytes_kept -= one.size
        self.bytes_kept -= one.size
        one.answer, one.size = None, 0


class RepeatDoor:
    """Answers a request that was carried out before, and lets every other one pass."""

    def __init__(self, app: ASGIApp, console: Console, repeats: Repeats | None = None) -> None:
        self._app = app
        self._console = console
        self._repeats = repeats or Repeats()

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
        one = self._repeats.begin(actor, name, digest, scope[REQUEST_ID], now, scope[PRINCIPAL])
        if one is None:
            rule = "too many requests with an Idempotency-Key run at once; nothing was done, send it again"
            await respond(scope[REQUEST_ID], "unavailable", rule, headers={"retry-after": "1"})(scope, receive, send)
            return
        await self._first(one, message, scope, receive, send)

    async def _first(self, one: _Known, body: Message, scope: Scope, receive: Receive, send: Send) -> None:
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
                self._repeats.forget(one)
            else:
                self._repeats.finish(one, answer, self._console.clock.monotonic_nanos())

    async def _again(self, known: _Known, digest: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[str, str] = {}
        if known.digest != digest:
            code, rule = "idem_conflict", "this Idempotency-Key was used with another request; use a new one"
        elif known.running:
            code, rule = "idem_in_progress", f"the request of this Idempotency-Key ({known.request_id}) still runs"
            headers["retry-after"] = "1"
        elif known.answer is None or known.asker != scope[PRINCIPAL]:
            code = "idem_completed"
            rule = (
                f"the request of this Idempotency-Key was carried out as {known.request_id}; its answer is told no more"
            )
        else:
            for message in known.answer:
                if message["type"] == "http.response.start":
                    message = {**message, "headers": [*message["headers"], (b"idempotent-replayed", b"true")]}
                await send(message)
            return
        await respond(scope[REQUEST_ID], code, rule, headers=headers)(scope, receive, send)


def _digest(scope: Scope, body: bytes) -> bytes:
    told: Any = hashlib.sha256(f"{scope['method']} {scope['path']}\n".encode())
    told.update(scope.get("query_string", b"") + b"\n")
    # For another version of a thing it is another request.
    told.update(b",".join(value for name, value in scope["headers"] if name == b"if-match") + b"\n" + body)
    return bytes(told.digest())
