"""Which turns of a realtime session are open, and what the model reads in the next one. Pure.

A turn is opened before its ``response.create`` passes, and is found again when the provider tells of it: by the id of a
response once that is known, by ours in a complaint. Whatever comes, in whatever order, each turn that is opened is
closed once, and what a provider began unasked is told apart. Knows no money, no socket and no clock.
"""

from collections import deque
from typing import Any, Final

from faregate.core.usage import NO_USAGE, Usage, added
from faregate.dialects.openai_realtime import ITEM_TOKENS
from faregate.dialects.realtime_usage import heard_tokens, tokens_of_text

#: A turn that was neither begun nor refused by the provider is one of so many at most.
OPEN_MAX: Final = 32

#: What is heard may have more tokens than documented, by the markers around it.
_HEARD_SLACK: Final = 2


class Turn:
    """One response, or one transcript, from the hold for it to its settlement."""

    __slots__ = (
        "audio_bytes",
        "beside",
        "characters",
        "hold",
        "id",
        "items",
        "key",
        "name",
        "own",
        "source",
        "transcript",
        "used",
    )

    def __init__(self, id: str, hold: Any, name: str | None = None, *, transcript: bool = False) -> None:
        #: Ours: the id of its record, and the ``event_id`` that the provider sees.
        self.id = id
        #: What the owner keeps with it.
        self.hold = hold
        #: The ``event_id`` of the client; ``None`` where it gave none.
        self.name = name
        self.transcript = transcript
        #: The response or item, once the provider has named it.
        self.key = ""
        #: Neither reads nor writes the conversation.
        self.beside = False
        #: The gate asked for it, where voice activity detection heard something.
        self.own = False
        #: Of text and sound that was delivered; of a transcript, bytes of the sound that it is about.
        self.characters = 0
        self.audio_bytes = 0
        #: Of a transcript: items that are still transcribed under its hold, and what those before them used.
        self.items = 0
        self.used = NO_USAGE
        self.source = "provider"

    def add(self, used: Usage, source: str) -> None:
        """One of its items is transcribed."""
        self.used = added(self.used, used)
        if source != "provider":
            self.source = source


class Turns:
    """All open turns of a session."""

    __slots__ = ("_asked", "_committing", "_ended", "_heard", "_kept", "_running", "_spoken", "hearing")

    def __init__(self) -> None:
        #: Asked for, and not begun as far as we were told; the oldest begins first.
        self._asked: deque[Turn] = deque()
        self._running: dict[str, Turn] = {}
        #: Transcripts: of the sound in the provider's buffer, of what the client has committed, and of items.
        self.hearing: Turn | None = None
        self._committing: deque[Turn] = deque()
        self._heard: dict[str, Turn] = {}
        #: The hold of the last item where there is none for the next: it is for all sound that has passed.
        self._kept: Turn | None = None
        #: Items that voice activity detection made.
        self._spoken: deque[str] = deque(maxlen=OPEN_MAX)
        #: The last responses and items that came to their end.
        self._ended: deque[str] = deque(maxlen=2 * OPEN_MAX)

    @property
    def responses(self) -> int:
        """How many responses are asked for or running."""
        return len(self._asked) + len(self._running)

    @property
    def full(self) -> bool:
        """So much is open that nothing more may be begun."""
        return self.responses >= OPEN_MAX or len(self._heard) + len(self._committing) >= OPEN_MAX

    def open(self) -> list[Turn]:
        """All that is not closed yet."""
        more = (self.hearing, *self._committing, *self._heard.values(), self._kept)
        heard = dict.fromkeys(turn for turn in more if turn is not None)
        return [*self._asked, *self._running.values(), *heard]

    def ended(self, key: str) -> bool:
        """A response or transcript has ended before: a provider that says so again is not paid again."""
        return key in self._ended

    # -- responses -----------------------------------------------------------------------------------------------------

    def ask(self, turn: Turn) -> None:
        """Its ``response.create`` is about to pass."""
        self._asked.append(turn)

    def began(self, response: str) -> Turn | None:
        """The provider began a response; ``None`` where nobody asked for one."""
        if response in self._running:
            return self._running[response]
        if not self._asked:
            return None
        turn = self._asked.popleft()
        turn.key = response
        self._running[response] = turn
        return turn

    def adopt(self, turn: Turn, response: str) -> None:
        """A response that the provider began unasked is accounted for by ``turn``."""
        turn.key = response
        self._running[response] = turn

    def delivered(self, response: str, characters: int, audio_bytes: int) -> None:
        """Some of a response came."""
        turn = self._running.get(response)
        if turn is not None:
            turn.characters += characters
            turn.audio_bytes += audio_bytes

    def hold_of(self, response: str) -> Any:
        """What the owner keeps with a running response; ``None`` for any other."""
        turn = self._running.get(response)
        return turn.hold if turn is not None else None

    def done(self, response: str) -> Turn | None:
        """A response ended; ``None`` where nobody asked for one. A response whose begin was not told has begun now."""
        turn = self.began(response)
        self._running.pop(response, None)
        if response:
            self._ended.append(response)
        return turn

    def refused(self, id: str) -> Turn | None:
        """The provider complained about the event of a turn; ``None`` where it is not one that waits."""
        for turn in self._asked:
            if turn.id == id:
                self._asked.remove(turn)
                return turn
        return None

    # -- what is heard -------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """The client commits what is in the buffer; sound that follows belongs to another item."""
        if self.hearing is not None:
            self._committing.append(self.hearing)
            self.hearing = None

    def uncommit(self) -> Turn | None:
        """The provider refused the oldest commit: its sound is still in the buffer; a turn that nothing needs then."""
        turn = self._committing.popleft() if self._committing else None
        if turn is None or self.hearing is not None:
            return turn
        self.hearing = turn
        return None

    def spoken(self, item: str) -> None:
        """Voice activity detection found the end of what somebody said, and makes an item of it."""
        if item not in self._spoken:
            self._spoken.append(item)

    def committed(self, item: str) -> bool:
        """The provider committed sound as an item; whether it did so by itself."""
        by_itself = item in self._spoken
        turn: Turn | None
        if by_itself:
            self._spoken.remove(item)
            if self.hearing is not None:
                turn, self.hearing = self.hearing, None
            else:
                turn = self._committing.popleft() if self._committing else self._kept
        elif self._committing:
            turn = self._committing.popleft()
        else:
            turn = self.hearing or self._kept
            self.hearing = None
        if turn is not None:
            turn.key = item
            turn.items += 1
            self._heard[item] = turn
        return by_itself

    def keep(self, item: str) -> Turn | None:
        """Nothing is held for the next item: until the buffer is cleared it may come of what has passed already.

        Returns the turn that was kept for that before, if nothing else is waited for of it.
        """
        before, self._kept = self._kept, self._heard.get(item, self._kept)
        return before if before is not None and before is not self._kept and not before.items else None

    def cleared(self) -> Turn | None:
        """The buffer is empty: a turn that was kept for it, if nothing else is waited for."""
        kept, self._kept = self._kept, None
        return kept if kept is not None and not kept.items else None

    def transcribed(self, item: str) -> tuple[Turn, bool] | None:
        """A transcript came, or failed, and whether it is the last of its turn; ``None`` where none was expected."""
        turn = self._heard.pop(item, None)
        if item:
            self._ended.append(item)
        if turn is None:
            return None
        turn.items -= 1
        return turn, not turn.items and turn is not self._kept


class Context:
    """What the model reads at most in the next turn, and what it probably reads; tokens.

    A token of text is at least a byte of some event. Once there is a picture, or sound of unknown length, nothing but
    the context window bounds it.
    """

    __slots__ = ("_bound", "audio", "text", "whole")

    def __init__(self) -> None:
        self._bound = 0
        self.text = 0
        self.audio = 0
        #: Only the window bounds it.
        self.whole = False

    def wrote(self, length: int) -> None:
        """Text of so many bytes is among what is read from now on."""
        self._bound += length + ITEM_TOKENS
        self.text += tokens_of_text(length)

    def heard(self, audio_bytes: int, bytes_per_second: int) -> None:
        """Sound is among what is read from now on."""
        tokens = heard_tokens(audio_bytes, bytes_per_second)
        self._bound += tokens * _HEARD_SLACK
        self.audio += tokens

    def answered(self, usage: Usage) -> None:
        """What was answered is read again from now on."""
        self._bound += usage.output_tokens + ITEM_TOKENS
        self.text += usage.output_text + usage.output_reasoning
        self.audio += usage.output_audio

    def bound(self, window: int) -> int:
        """The most that the next turn reads of a window."""
        return window if self.whole else min(window, self._bound)

    def estimate(self, window: int) -> Usage:
        """What the next turn probably reads, as its usage."""
        text = min(self.text, window)
        return Usage(input_text=text, input_audio=min(self.audio, window - text))
