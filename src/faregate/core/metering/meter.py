"""The meter: watches the bytes of an answer on their way to the caller and knows afterwards what it used.

Owns what was told (usage, model, end, errors), what was delivered (text, bounded) and the hiding of the usage event
that only the gate asked for. What an event means is a dialect's to say; what it costs is pricing's. Bytes are forwarded
first and understood later: while a stream runs, whole events are only collected, and decoded in batches, because an
answer that ends as it should needs its last event alone. Nothing a provider sends makes the meter raise or withhold
bytes for good.
"""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple, Protocol

from faregate.core.metering import sse
from faregate.core.metering.tail import TAIL_BYTES, usage_at_end
from faregate.core.usage import Contradiction, Usage

#: How an exchange's answer ended, as far as bytes tell.
Outcome = Literal["complete", "cut", "error", "aborted"]

#: Collected events are decoded when they reach this many bytes: memory per stream against work per batch.
BATCH_BYTES: Final = 1024
#: Delivered text kept for counting; what comes after it is counted in proportion.
TEXT_CHARACTERS_MAX: Final = 16 * 1024
#: An incomplete event is held back no further than this (RULINGS 14); a larger one is never hidden.
HELD_BYTES_MAX: Final = 256 * 1024

#: More bytes of text than any stream has.
NEVER: Final = 1 << 60

#: Every usage report names some kind of tokens; its key ends like this. Escaped quotes in text do not.
_USAGE_MARK: Final = b'_tokens"'

# Where this is done for each event, bytes are looked for by ``find``, and single ones by their number: ``in`` tries
# bytes as a number first, and the exception that says that they are none costs more than the search.
_LF: Final = 10
_CR: Final = 13


class Report(NamedTuple):
    """What a provider said about one answer.

    ``usage`` is the last that can be true. ``invalid`` is the rule that a report broke, empty where none did.
    """

    usage: Usage | None = None
    invalid: str = ""
    model: str = ""
    id: str = ""
    #: The service tier that answered, as the provider calls it; empty where it does not say.
    service_tier: str = ""
    #: Members of the usage report that nobody here knows: they may be billed, so an alarm counts them.
    unknown: int = 0
    #: The work was accepted and is not done: its cost is learnt later.
    pending: bool = False


class Event(NamedTuple):
    """What one event of a stream says."""

    #: Text that is billed as output: content, refusals, reasoning, tool calls, of all choices.
    text: str = ""
    #: How many choices this event ends.
    finished: int = 0
    usage: Usage | Contradiction | None = None
    #: It holds no choice, so that it can only be about the whole answer.
    bare: bool = False
    error: bool = False
    model: str = ""
    id: str = ""
    malformed: bool = False
    service_tier: str = ""
    unknown: int = 0
    #: A client may stop reading after it; ``[DONE]`` needs no telling.
    last: bool = False


class EventDecoder(Protocol):
    """A dialect's understanding of the events of a stream. Neither method ever raises."""

    def __call__(self, payload: bytes) -> Event | str:
        """What the data of one event says; a plain string where it says nothing but text."""
        ...

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """The text of many events at once, where each says nothing but text; else ``None``.

        No payload has a line end in it. It must be the same text as one by one.
        """
        ...


class Metered(NamedTuple):
    """What is known of an answer when it has ended.

    ``text`` is the beginning of the ``characters`` delivered, or of those that were not counted while they came;
    ``unreported`` of them came after the last usage report.
    """

    report: Report
    outcome: Outcome
    text: str = ""
    characters: int = 0
    unreported: int = 0
    #: Something could not be read, so that ``text`` may lack a part.
    malformed: bool = False
    #: The provider reported an error inside the stream.
    error: bool = False
    #: How many of the characters were counted while they came, and how many tokens they are.
    counted_characters: int = 0
    counted_tokens: int = 0

    @property
    def told(self) -> Usage | None:
        """The provider's usage where it can be believed to the end."""
        return None if self.report.invalid or self.unreported else self.report.usage


def metered_answer(report: Report, text: str, outcome: Outcome = "complete") -> Metered:
    """An answer that came in one piece; ``text`` is needed only where ``report`` tells no usage."""
    return Metered(report, outcome, text[:TEXT_CHARACTERS_MAX], len(text))


def _only_tells_usage(event: Event) -> bool:
    return event.bare and event.usage is not None and not event.error and not event.text


class StreamMeter:
    """Meters one stream. ``feed`` every piece, forward what it returns, then forward ``tail`` and call ``finish``.

    ``decode_event`` says what an event's data means.
    ``hide_usage`` takes the event that only reports usage out of what is forwarded. ``choices`` is how many answers the
    call has, ``last_mark`` the bytes that every event has after which a client may stop reading (beside ``[DONE]``).
    """

    __slots__ = (
        "_characters",
        "_choices",
        "_closed",
        "_counted_characters",
        "_counted_tokens",
        "_decode",
        "_error",
        "_finished",
        "_hidden_end",
        "_hide",
        "_id",
        "_invalid",
        "_kept",
        "_last_mark",
        "_malformed",
        "_model",
        "_plain",
        "_ready",
        "_ready_bytes",
        "_rest",
        "_sent",
        "_service_tier",
        "_skipping",
        "_swallow",
        "_text",
        "_unknown",
        "_unread",
        "_usage",
        "_usage_at",
        "_watched_at",
        "_watcher",
        "_wide",
        "done",
        "first_token",
    )

    def __init__(self, decode_event: EventDecoder, hide_usage: bool, choices: int = 1, last_mark: bytes = b"") -> None:
        self._decode = decode_event
        self._last_mark = last_mark
        self._hide = hide_usage
        self._choices = choices
        #: ``[DONE]`` lies in what ``feed`` returned last, or did before.
        self.done = False
        #: Some billed text was delivered.
        self.first_token = False
        # Pieces of whole events that wait to be decoded, and the incomplete event at the end of the stream so far.
        self._ready: list[bytes] = []
        self._ready_bytes = 0
        self._rest = bytearray()
        # How much of the rest was forwarded already; nothing or all of it while usage is to be hidden.
        self._sent = 0
        # The rest outgrew all bounds: its bytes are dropped until the event ends.
        self._skipping = False
        # A hidden event ended in CR; an LF that follows belongs to it.
        self._swallow = False
        # Neither of the above, and past the first token: whole events can be forwarded without a look inside.
        self._plain = False
        # The incomplete event at the end was understood, and is to be hidden.
        self._closed = False
        self._hidden_end = False
        self._text = ""
        self._kept = 0
        self._characters = 0
        # Bytes that its characters have beyond one, in UTF-8.
        self._wide = 0
        # So many characters call the watcher.
        self._watched_at = NEVER
        self._watcher: Callable[[], None] | None = None
        # Characters that may be text and were too many to be looked at.
        self._unread = 0
        self._counted_characters = 0
        self._counted_tokens = 0
        self._usage: Usage | None = None
        self._usage_at = 0
        self._invalid = ""
        self._model = ""
        self._id = ""
        self._service_tier = ""
        self._unknown = 0
        self._finished = 0
        self._malformed = False
        self._error = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the provider and return what may be forwarded now.

        The very same object is returned when nothing of it, or of earlier bytes, is hidden or held back.
        """
        # JSON ends in a brace and ``[DONE]`` does not; the usage report is looked for only where it is to be hidden.
        if self._plain and data[-3:] == b"}\n\n" and not (self._hide and data.find(_USAGE_MARK) >= 0):
            self._ready.append(data)
            self._ready_bytes += len(data)
            if self._ready_bytes >= BATCH_BYTES or (self._last_mark and data.find(self._last_mark) >= 0):
                self._drain()
            return data
        return self._feed_closely(data)

    def _feed_closely(self, data: bytes) -> bytes:
        """Frame ``data`` together with the incomplete event before it."""
        arrived = data
        self._closed = self._hidden_end = False
        if self._swallow and data:
            self._swallow = False
            if data[:1] == b"\n":
                data = data[1:]
        rest, old = self._rest, len(self._rest)
        buffer: bytes | bytearray = data
        if old:
            rest += data
            buffer = rest
        end = sse.whole_bytes(buffer, max(0, old - 3))
        if not end:
            if not old:
                rest += data
            forwarded = self._hold(data, old)
            if forwarded and not self.done:
                self.done = sse.has_done(self._rest, old)
        else:
            whole = bytes(buffer[:end]) if end < len(buffer) or old else data
            if not self.done:
                # An incomplete event that is held back is not delivered yet.
                self.done = sse.has_done(whole if self._hide else buffer, old)
            self._rest = bytearray(buffer[end:])
            forwarded = self._pass_whole(whole)
            if self._last_mark and self._last_mark in whole:
                self._drain()
            self._sent = 0 if self._hide else len(self._rest)
            # An incomplete event that is too large to hide goes on at once.
            if self._hide and len(self._rest) > HELD_BYTES_MAX:
                forwarded += self._rest
                self._sent = len(self._rest)
        if len(self._rest) > (2 * TAIL_BYTES if self._skipping else sse.EVENT_BYTES_MAX):
            self._drop_rest()
        self._plain = self.first_token and not self._rest and not self._swallow
        if not self._hide or forwarded == arrived:
            return arrived
        return forwarded

    def _hold(self, data: bytes, old: int) -> bytes:
        """What to forward when no event ended: everything, or nothing while the event may have to be hidden."""
        if not self._hide or self._sent or self._skipping:
            self._sent = old + len(data)
            return data
        if old + len(data) <= HELD_BYTES_MAX:
            return b""
        self._sent = old + len(data)
        return bytes(self._rest)

    def _drop_rest(self) -> None:
        """Forget the beginning of an event beyond all bounds, but for the bytes in which it may tell its usage."""
        if not self._skipping:
            self._drain()
            self._skipping = True
            self._malformed = True
        dropped = len(self._rest) - TAIL_BYTES
        self._add_unread(dropped)
        del self._rest[:dropped]
        self._sent = len(self._rest)

    def _pass_whole(self, whole: bytes) -> bytes:
        """Take whole events, and return those of their bytes that are still to be forwarded."""
        sent = self._sent
        if self._skipping:
            # The first event is the end of one that was given up.
            self._skipping = False
            self._sent = 0
            first = next(sse.spans(whole), (0, len(whole)))[1]
            self._add_unread(len(whole[:first].rstrip(b"\r\n")))
            self._note_end(whole[:first])
            return whole[sent:first] + self._pass_whole(whole[first:])
        if self._hide and _USAGE_MARK in whole:
            return self._without_usage(whole)[sent:]
        self._ready.append(whole)
        self._ready_bytes += len(whole)
        if self._ready_bytes >= BATCH_BYTES or not self.first_token:
            self._drain()
        return whole[sent:]

    def _without_usage(self, whole: bytes) -> bytes:
        self._drain()
        kept: list[bytes] = []
        position = 0
        for start, end in sse.spans(whole):
            if self._take(whole[start:end], may_hide=end - start <= HELD_BYTES_MAX):
                kept.append(whole[position:start])
                position = end
                self._swallow = end == len(whole) and whole.endswith(b"\r")
        if not position:
            return whole
        kept.append(whole[position:])
        return b"".join(kept)

    def _drain(self) -> None:
        """Decode the events that were collected."""
        ready = self._ready
        if not ready:
            return
        whole = b"".join(ready)
        self._ready = []
        self._ready_bytes = 0
        if whole.startswith(b"data: ") and whole.endswith(b"\n\n") and _CR not in whole:
            # Nearly always there are only events of one line of data that say nothing but text.
            payloads = whole[6:-2].split(b"\n\ndata: ")
            text = None if _LF in b"".join(payloads) else self._decode.plain_text(payloads)
            if text is not None and len(whole) <= sse.LINE_BYTES_MAX:
                self._add(text)
                return
        for event in sse.events(whole):
            self._take(event)

    def _take(self, event: bytes, may_hide: bool = False) -> bool:
        """Understand one event; true when it is to be hidden."""
        if sse.is_oversized(event):
            self._malformed = True
            # Every character is at least a byte, so this is the most that was delivered.
            self._add_unread(len(event.rstrip(b"\r\n")))
            self._note_end(event)
            return False
        data = sse.payload(event)
        if data is None:
            return False
        if data == b"[DONE]":
            self.done = True
            return False
        told = self._decode(data)
        if isinstance(told, str):
            self._add(told)
            return False
        self._note(told)
        return may_hide and _only_tells_usage(told)

    def _note_end(self, event: bytes) -> None:
        """What an event that is too large to be decoded tells at its end: its usage, or nothing."""
        report = usage_at_end(event)
        told = self._decode(report) if report else ""
        if isinstance(told, Event) and told.usage is not None:
            self._note(told)

    def _add(self, text: str) -> None:
        if text:
            self.first_token = True
            self._characters += len(text)
            room = TEXT_CHARACTERS_MAX - self._kept
            if room > 0:
                self._text += text[:room]
                self._kept = len(self._text)
            if not text.isascii():
                self._widen(len(text.encode("utf-8", "surrogatepass")) - len(text))
            if self._characters >= self._watched_at:
                self._tell_watcher()

    def _widen(self, more_bytes: int) -> None:
        """Count bytes that characters have beyond one: that many characters earlier the watcher is called."""
        self._wide += more_bytes
        self._watched_at -= more_bytes

    def _add_unread(self, characters: int) -> None:
        """Count what may be text, and is too large to be looked at."""
        self._characters += characters
        self._unread += characters
        if self._characters >= self._watched_at:
            self._tell_watcher()

    def _tell_watcher(self) -> None:
        self._watched_at = NEVER
        if self._watcher is not None:
            self._watcher()

    def _note(self, event: Event) -> None:
        self._add(event.text)
        self._finished += event.finished
        self._model = event.model or self._model
        self._id = event.id or self._id
        self._service_tier = event.service_tier or self._service_tier
        self._unknown = max(self._unknown, event.unknown)
        self._malformed |= event.malformed
        self._error |= event.error
        if event.last:
            self.done = True
        usage = event.usage
        if usage is None:
            return
        self._usage_at = self._characters
        if isinstance(usage, Contradiction):
            self._invalid = usage.rule
            return
        self._usage = usage
        self._invalid = ""

    @property
    def finish_seen(self) -> bool:
        """Every choice of the answer has told why it ended."""
        self._drain()
        return self._finished >= self._choices

    @property
    def report(self) -> Report:
        """What the provider has told so far."""
        self._drain()
        return Report(self._usage, self._invalid, self._model, self._id, self._service_tier, self._unknown)

    @property
    def delivered_characters(self) -> int:
        """Characters of billed text so far."""
        self._drain()
        return self._characters

    @property
    def malformed(self) -> bool:
        """Something could not be read so far."""
        self._drain()
        return self._malformed

    @property
    def error_event(self) -> bool:
        """The provider reported an error inside the stream."""
        self._drain()
        return self._error

    # -- the text while it comes ---------------------------------------------------------------------------------------

    def watch(self, at_bytes: int, watcher: Callable[[], None] | None) -> None:
        """Call ``watcher`` once, with the first text that makes ``text_bytes`` reach ``at_bytes``.

        It is called while the text is taken in, so it must not feed or finish this meter.
        """
        self._watched_at = at_bytes - self._wide
        self._watcher = watcher

    @property
    def text_bytes(self) -> int:
        """Bytes of the text so far in UTF-8, and of what could not be read: no fewer than its tokens."""
        return self._characters + self._wide

    def uncounted(self) -> tuple[str, int]:
        """Text that came since the last ``count``, as far as it is kept, and how many characters it stands for."""
        return self._text, self._characters - self._unread - self._counted_characters

    def count(self, kept: int, characters: int, tokens: int) -> None:
        """Say that what ``uncounted`` told, ``kept`` and ``characters`` long, is so many tokens; it is forgotten."""
        self._text = self._text[kept:]
        self._kept = len(self._text)
        self._counted_characters += characters
        self._counted_tokens += tokens

    @property
    def counted_tokens(self) -> int:
        """Tokens of the text that was counted so far."""
        return self._counted_tokens

    @property
    def unread(self) -> int:
        """Characters that may be text and were too many to be looked at."""
        return self._unread

    @property
    def told_output_tokens(self) -> int:
        """Output tokens of the last usage report so far; 0 before one came."""
        return self._usage.output_tokens if self._usage is not None else 0

    @property
    def unfinished_bytes(self) -> int:
        """How many of the last bytes that ``feed`` returned belong to an event that has not ended."""
        return self._sent

    @property
    def decoder(self) -> EventDecoder:
        """What understands this stream's events."""
        self._drain()
        return self._decode

    # -- the end -------------------------------------------------------------------------------------------------------

    def tail(self) -> bytes:
        """What was held back when the provider's bytes ended; nothing the second time."""
        hidden = self._close()
        held = b"" if hidden else bytes(self._rest[self._sent :])
        self._rest = bytearray()
        self._sent = 0
        self._skipping = self._closed = self._plain = False
        return held

    def _close(self) -> bool:
        """Understand the event that the stream ended in, once; true when it is to be hidden."""
        self._drain()
        if self._closed or not self._rest:
            return self._hidden_end
        self._closed = True
        if self._skipping:
            self._add_unread(len(self._rest))
            return False
        event = bytes(self._rest)
        data = None if sse.is_oversized(event) else sse.payload(event)
        if data is None:
            return False
        if data == b"[DONE]":
            self.done = True
            return False
        told = self._decode(data)
        if isinstance(told, str):
            self._add(told)
        elif not told.malformed:
            # Where it is malformed the stream was cut inside this event, and the cut says more than half an event.
            self._note(told)
            self._hidden_end = self._hide and not self._sent and _only_tells_usage(told)
        return self._hidden_end

    def finish(self, outcome: Outcome) -> Metered:
        """What is known of the answer; bytes may still follow it, but nothing they say is told. Never raises."""
        self.watch(NEVER, None)
        self._close()
        unreported = self._characters - self._usage_at if self._usage is not None or self._invalid else 0
        return Metered(
            self.report,
            outcome,
            self._text,
            self._characters,
            unreported,
            self._malformed,
            self._error,
            self._counted_characters,
            self._counted_tokens,
        )
