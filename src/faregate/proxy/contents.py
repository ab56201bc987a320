"""What is looked for in requests before they are sent, and what is kept of calls after they ended.

Both are off by default, and a gate without them has no desk at all: a call pays for one look at that. Rules run on a
request before anything is held for it, large requests off the loop. What is kept is collected while a call runs
(``Capture``), and made readable, searched and written by a thread of its own (``ContentLog``) behind a bounded line:
where that is full a content is dropped and counted, and no call waits.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import msgspec

from faregate.config.settings import ContentSettings
from faregate.control import Key
from faregate.core.metering.meter import Event, EventDecoder, StreamMeter
from faregate.core.redaction import Found, Pattern, Redacted, Rule, added, matches_any, redacted
from faregate.dialects import Dialect, strings, texts
from faregate.errors import Problem, status_of
from faregate.ports import ContentRecord, ContentWriter, KeptText

if TYPE_CHECKING:
    from faregate.proxy.answer import Answer
    from faregate.proxy.exchange import Exchange

#: Larger requests are searched off the loop: this much takes about a millisecond.
AT_ONCE_BYTES_MAX: Final = 32 * 1024

#: Contents that wait to be written, and the bytes that they may hold.
WAITING_MAX: Final = 2_000
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024

#: What was written is handed over to the console so often.
HAND_OVER_S: Final = 0.5

#: At a stop, for what still waits.
CLOSE_S: Final = 2.0

#: What rules look at beyond the cut, where a match that begins before it may end: longer than any credential.
_BEYOND_CUT: Final = 8 * 1024

#: Between the texts of a request when they are searched as one.
_GAP: Final = "\n\0\n"

#: Between those that people read.
_GAP_SHOWN: Final = "\n\n"

_encode: Final = msgspec.json.Encoder().encode
_decode_notes: Final = msgspec.json.Decoder(dict[str, object]).decode

#: How a rule's action is told of in the header of an answer.
_TOLD: Final = {"redact": "redacted", "warn": "warned", "block": "blocked"}


class ContentKeeping(NamedTuple):
    """What a desk needs from the world."""

    #: For the thread of the log alone.
    writer: ContentWriter
    #: A pattern's text → what searches for it in linear time.
    finder: Callable[[str], Pattern]


class Capture:
    """What is collected of one call."""

    __slots__ = ("found", "kept", "tap")

    def __init__(self, kept: str) -> None:
        #: ``off``, ``metadata`` or ``full``.
        self.kept = kept
        #: What the rules found in the request before it was sent.
        self.found: tuple[Found, ...] = ()
        #: Of an answer that is a stream.
        self.tap: TextTap | None = None


class TextTap:
    """A stream's own decoder, with a copy of the text that it finds: its beginning, choice by choice."""

    __slots__ = ("_choices", "_left", "_most", "_pieces", "characters", "inner")

    def __init__(self, inner: EventDecoder, choices: int, characters_max: int) -> None:
        self.inner = inner
        self._choices = choices
        self._most = self._left = characters_max
        self._pieces: dict[int, list[str]] = {}
        self.characters = 0

    def __call__(self, payload: bytes) -> Event | str:
        """What the data of one event says."""
        told = self.inner(payload)
        text = told if isinstance(told, str) else told.text
        if text:
            self._add(text, payload)
        elif not isinstance(told, str) and told.error:
            self._keep(0, texts.raw_text(payload))
        return told

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """The text of many events at once, where each says nothing but text."""
        if self._choices > 1:
            # One by one, so that each choice is told from the others.
            return None
        text = self.inner.plain_text(payloads)
        if text:
            self._keep(0, text)
        return text

    def _add(self, text: str, payload: bytes) -> None:
        pieces = texts.choice_pieces(payload) if self._choices > 1 else []
        for index, piece in pieces or [(0, text)]:
            self._keep(index, piece)

    def _keep(self, choice: int, text: str) -> None:
        self.characters += len(text)
        if self._left > 0:
            self._pieces.setdefault(choice, []).append(text[: self._left])
            self._left -= len(text)

    @property
    def kept_characters(self) -> int:
        """How much of the text is kept."""
        return min(self.characters, self._most)

    @property
    def texts(self) -> list[str]:
        """What was kept of each choice."""
        return ["".join(self._pieces[choice]) for choice in sorted(self._pieces)]


class Looked(NamedTuple):
    """What rules made of a request."""

    body: bytes
    found: tuple[Found, ...] = ()
    blocked_by: str = ""


class _Rules:
    """Rules in their order, and which of them can be searched for in many texts at once."""

    __slots__ = ("anchored", "every", "others")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.every = tuple(rules)
        #: By where a text begins or ends: each text is searched for itself.
        self.anchored = tuple(rule for rule in self.every if rule.pattern.anchored)
        self.others = tuple(rule for rule in self.every if not rule.pattern.anchored)

    def __bool__(self) -> bool:
        return bool(self.every)


class _Side(NamedTuple):
    """The texts of one side of a call as they are read by people, before anything is left out."""

    texts: Sequence[str]
    characters: int
    bytes: int
    #: What the rules by where a text begins or ends found in it; ``None`` where they were not tried yet.
    found: tuple[Found, ...] | None = None


class ContentLog:
    """The line of contents that wait, and the thread that writes them."""

    def __init__(self, writer: ContentWriter) -> None:
        self._writer = writer
        self._waiting: deque[tuple[Callable[[], ContentRecord], int]] = deque()
        self._bytes = 0
        self._wake = threading.Condition()
        self._stopping = False
        #: ``kept``, ``dropped`` (the line was full) and ``lost`` (the disk was, or it could not be read). All are there
        #: from the start: a dictionary that grows in one thread may not be gone through in another.
        self.outcomes = {"kept": 0, "dropped": 0, "lost": 0}
        self._thread: threading.Thread | None = None

    def put(self, make: Callable[[], ContentRecord], size: int) -> None:
        """Let ``make`` be called and its record be written some time; never waits. ``size`` is what it holds."""
        with self._wake:
            if len(self._waiting) >= WAITING_MAX or self._bytes + size > WAITING_BYTES_MAX or self._stopping:
                self.outcomes["dropped"] += 1
                return
            self._waiting.append((make, size))
            self._bytes += size
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="contents", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _run(self) -> None:
        written = False
        while True:
            with self._wake:
                if not self._waiting and not self._stopping:
                    self._wake.wait(HAND_OVER_S if written else None)
                if not self._waiting:
                    if self._stopping:
                        break
                    idle, make, size = True, None, 0
                else:
                    (make, size), idle = self._waiting.popleft(), False
            if idle:
                if written:
                    self._writer.hand_over()
                written = False
                continue
            assert make is not None
            written = self._write(make) or written
            with self._wake:
                self._bytes -= size
        self._writer.close()

    def _write(self, make: Callable[[], ContentRecord]) -> bool:
        try:
            written = self._writer.append(make())
        except Exception:  # A body that nobody foresaw must not end the thread; its content is lost, and counted so.
            written = False
        self.outcomes["kept" if written else "lost"] += 1
        return written

    def close(self) -> None:
        """Write what waits, as far as time allows, and hand it over."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)


class ContentDesk:
    """Where calls are looked at, by the rules and the defaults of one configuration."""

    def __init__(self, settings: ContentSettings, finder: Callable[[str], Pattern], log: ContentLog) -> None:
        self._settings = settings
        self._log = log
        rules = [
            (Rule(each.name, finder(each.pattern), each.action, each.check), each.apply) for each in settings.rules
        ]
        #: Tried on a request before it is sent.
        self._sent = _Rules(rule for rule, apply in rules if apply in ("provider", "both"))
        # What a provider may not see is not kept either, also of calls that were refused before anybody looked.
        self._prompt = _Rules(rule for rule, apply in rules if apply != "provider" or rule.action != "warn")
        self._answer = _Rules(rule for rule, apply in rules if apply in ("log", "both"))

    # -- before it is sent ---------------------------------------------------------------------------------------------

    def look(self, exchange: "Exchange") -> tuple[bool, Problem | None]:
        """Look at a call for which nothing is held yet: whether it goes on later, and why it is refused."""
        if exchange.free or exchange.key is None or getattr(exchange, "capture", None) is not None:
            return False, None
        capture = exchange.capture = Capture(self._kept_of(exchange.key))
        operation = exchange.operation
        if not self._sent or operation is None or operation.below is not None:
            return False, None
        dialect, body = exchange.dialect, exchange.body
        if len(body) <= AT_ONCE_BYTES_MAX:
            return False, self._settle(exchange, capture, _looked_at(body, dialect, self._sent))

        def then(looked: Looked) -> None:
            # Whoever left is not asked after any more, and has no body.
            problem = self._settle(exchange, capture, looked) if exchange.client is not None else None
            exchange.go_on_later(problem)

        exchange.gate.aside(lambda: _looked_at(body, dialect, self._sent), then, exchange.mistaken)
        return True, None

    def _settle(self, exchange: "Exchange", capture: Capture, looked: Looked) -> Problem | None:
        """Let the call go on with what the rules left of it, or refuse it."""
        capture.found = looked.found
        if looked.blocked_by:
            text = f"The rule {looked.blocked_by} lets no call through that holds such a text; take it out."
            return Problem("content_blocked", text, details={"rule": looked.blocked_by})
        if looked.found:
            exchange.notes = self.noted(exchange, exchange.notes)
        return None if looked.body is exchange.body else exchange.take_body(looked.body)

    def noted(self, exchange: "Exchange", notes: str) -> str:
        """A record's notes, with what the rules found."""
        capture: Capture | None = getattr(exchange, "capture", None)
        if capture is None or not capture.found:
            return notes
        told = _decode_notes(notes) if notes else {}
        told["content"] = [{"rule": each.name, "action": each.action, "times": each.times} for each in capture.found]
        return _encode(told).decode()

    def header(self, exchange: "Exchange") -> bytes:
        """The header that tells a caller what became of his request; nothing where nothing did."""
        capture: Capture | None = getattr(exchange, "capture", None)
        if capture is None or not capture.found:
            return b""
        told = ", ".join(f"{each.name}={_TOLD[each.action]}" for each in capture.found)
        return f"x-faregate-content: {told}\r\n".encode("ascii", "replace")

    # -- while and after it runs ---------------------------------------------------------------------------------------

    def tapped(self, exchange: "Exchange", decoder: EventDecoder) -> EventDecoder:
        """The decoder of a stream, which also keeps its text where that is wanted."""
        capture: Capture | None = getattr(exchange, "capture", None)
        if capture is None or capture.kept == "off":
            return decoder
        tap = capture.tap = TextTap(decoder, exchange.call.choices, self._settings.characters_max + _BEYOND_CUT)
        return tap

    def untapped(self, decoder: EventDecoder) -> EventDecoder:
        """The dialect's own decoder."""
        return decoder.inner if isinstance(decoder, TextTap) else decoder

    def closed(self, answer: "Answer") -> None:
        """A call that was sent has ended."""
        exchange = answer.exchange
        capture: Capture | None = getattr(exchange, "capture", None)
        if capture is None or capture.kept == "off":
            return
        status, code, body, passed = answer.delivered()
        self._keep(exchange, capture, status, code, body, passed)

    def recalled(self, exchange: "Exchange", answer: bytes) -> None:
        """A call was answered from the response cache."""
        capture: Capture | None = getattr(exchange, "capture", None)
        if capture is None or capture.kept == "off":
            return
        if not exchange.call.stream:
            self._keep(exchange, capture, 200, "", answer, 0)
            return
        dialect, choices = exchange.dialect, exchange.call.choices
        tap = capture.tap = TextTap(dialect.events(), choices, self._settings.characters_max + _BEYOND_CUT)

        def replay() -> None:
            # Its text is read from its events, as it was when they came; not on the loop.
            StreamMeter(tap, False, choices, dialect.last_mark).feed(answer)

        self._keep(exchange, capture, 200, "", b"", len(answer), replay)

    def refused(self, exchange: "Exchange", problem: Problem) -> None:
        """A known caller was refused, and nothing was sent."""
        key = exchange.key
        if key is None or exchange.free:
            return
        capture: Capture | None = getattr(exchange, "capture", None)
        if capture is None:
            capture = Capture(self._kept_of(key))
        if capture.kept == "off" or not exchange.body:
            return
        self._keep(exchange, capture, status_of(problem), problem.code, problem.message.encode(), 0)

    def _keep(
        self,
        exchange: "Exchange",
        capture: Capture,
        status: int,
        code: str,
        answer: bytes,
        passed: int,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Let the log make a record of it; what it has to do ``before`` is done by its thread, too."""
        request, dialect = exchange.body, cast("Dialect | None", getattr(exchange, "dialect", None))
        form = dialect is not None and dialect.media == "form"
        tap, id, at = capture.tap, exchange.id, exchange.gate.wall_nanos()

        def make() -> ContentRecord:
            if before is not None:
                before()
            if dialect is not None and form:
                found = dialect.prompt_text(request)
                prompt = _Side(found, len(_GAP_SHOWN.join(found)), len(request))
            else:
                prompt = _side(request, texts.request_text, self._prompt, len(request))
            if tap is not None:
                said = _Side(tap.texts, tap.characters, passed)
            else:
                said = _side(answer, texts.answer_text, self._answer, passed or len(answer))
            record = ContentRecord(id, at, capture.kept, tap is not None, status, code)
            return self._record(capture, record, prompt, said)

        self._log.put(make, len(request) + len(answer) + (tap.kept_characters if tap is not None else 0))

    def _record(self, capture: Capture, record: ContentRecord, prompt: _Side, answer: _Side) -> ContentRecord:
        """What is written: texts without what may not be kept, cut where they are too long."""
        found = [(each.name, each.action, "request", each.times) for each in capture.found]
        whole = capture.kept == "full"
        kept: list[KeptText] = []
        for where, side, rules in (("prompt", prompt, self._prompt), ("answer", answer, self._answer)):
            most = self._settings.characters_max
            # What the rules have no time for is not kept anyway.
            made = _shown(side, rules, most + _BEYOND_CUT)
            found += [(each.name, each.action, where, each.times) for each in made.found]
            shown = made.text[:most] if whole and not made.blocked_by else ""
            cut = whole and (bool(made.blocked_by) or side.characters > most or len(made.text) > most)
            kept.append(KeptText(shown, side.characters, side.bytes, cut))
        return record._replace(prompt=kept[0], answer=kept[1], found=tuple(found))

    def _kept_of(self, key: Key) -> str:
        kept = key.content or self._settings.default
        # Without an end nothing is kept that anybody said, whatever the key says.
        return "metadata" if kept == "full" and not self._settings.retention_ms else kept


def _looked_at(body: bytes, dialect: Dialect, rules: _Rules) -> Looked:
    """What rules make of a request's body. Nothing of it is decoded but its texts, and no other byte changes."""
    if dialect.media == "none" or not body:
        return Looked(body)
    if dialect.media != "json":
        return _form_looked_at(body, dialect, rules)
    placed = list(strings.texts_in(body))
    # Nearly every request holds nothing, and one search of all its texts is cheaper than one of each.
    if matches_any(_GAP.join(each.text for each in placed), rules.others) or (
        rules.anchored and any(matches_any(each.text, rules.anchored) for each in placed)
    ):
        return _changed(body, placed, rules.every)
    return Looked(body)


def _changed(body: bytes, placed: Iterable[strings.Placed], rules: Sequence[Rule]) -> Looked:
    """A JSON body as rules leave it, by each of its texts for itself."""
    found: list[Found] = []
    changes = []
    for each in placed:
        made = redacted(each.text, rules)
        found += made.found
        if made.blocked_by:
            return Looked(body, added(found), made.blocked_by)
        if made.text != each.text:
            changes.append(each._replace(text=made.text))
    return Looked(strings.with_texts(body, changes) if changes else body, added(found))


def _form_looked_at(body: bytes, dialect: Dialect, rules: _Rules) -> Looked:
    """As above, for a form: nothing can be taken out of it, so what would be replaced is refused."""
    found = added(found for text in dialect.prompt_text(body) for found in redacted(text, rules.every).found)
    return Looked(body, found, next((each.name for each in found if each.action != "warn"), ""))


def _side(body: bytes, read: Callable[[bytes], str], rules: _Rules, size: int) -> _Side:
    """One side of a call by its body. What it says is read as one text, so its texts are searched where they stand."""
    text = read(body)
    if not rules.anchored:
        return _Side((text,), len(text), size)
    looked = _changed(body, strings.texts_in(body), rules.anchored)
    left = Redacted(read(looked.body), looked.found)
    if text == texts.raw_text(body):
        # Of no known shape, and maybe no JSON: all of it is one text, too.
        again = redacted(left.text, rules.anchored)
        left = Redacted(again.text, added((*left.found, *again.found)))
    return _Side((left.text,), len(text), size, left.found)


def _shown(side: _Side, rules: _Rules, characters_max: int) -> Redacted:
    """The texts of a side as one, as rules leave them: those by where a text begins or ends come first."""
    said, found = side.texts, side.found
    if found is None:
        apart = [redacted(text, rules.anchored) for text in said]
        said, found = [each.text for each in apart], added(each for made in apart for each in made.found)
    made = redacted(_GAP_SHOWN.join(said)[:characters_max], rules.others)
    return Redacted(made.text, added((*found, *made.found)))
