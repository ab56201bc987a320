"""What transcribes the sound of a realtime session: a hold before any of it passes, a record for each item.

The provider may make an item of what is in its buffer at any moment, and bills the transcript of it; so as long as
something transcribes there is always one hold more than there are items. Knows no socket.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from faregate.core.metering.meter import Report
from faregate.core.usage import NO_USAGE
from faregate.dialects import openai_realtime as events
from faregate.dialects.openai_realtime import Setup, Told
from faregate.errors import Problem
from faregate.proxy.realtime_counts import heard
from faregate.proxy.realtime_holds import ITEM_SECONDS_MAX, Account, TurnHold
from faregate.proxy.realtime_turns import Turn, Turns
from faregate.proxy.snapshot import Target

if TYPE_CHECKING:
    from faregate.proxy.gate import Gate

#: Sound that may pass under one hold. It may become many items, of each of which started seconds count whole.
SOUND_SECONDS_MAX: Final = ITEM_SECONDS_MAX * 4 // 5

#: So much before the beginning of speech is part of an item at most (OpenAI, ``prefix_padding_ms``).
PADDING_S: Final = 5.0

TOO_MANY: Final = Problem("overloaded", "Too many turns of this session are open; wait for one to end.")
_TOO_LONG: Final = Problem(
    "field_range",
    f"audio: an item that is transcribed has at most {SOUND_SECONDS_MAX} s; commit or clear the buffer.",
    "audio",
)
_IN_BUFFER: Final = Problem(
    "field_conflict",
    "transcription.model: sound is in the buffer that another model would transcribe; commit or clear it first.",
    "transcription.model",
)


class Hearing:
    """The transcripts of one session."""

    __slots__ = (
        "_account",
        "_base",
        "_clears",
        "_gate",
        "_problem",
        "_session",
        "_since",
        "_total",
        "_turns",
        "_when_on_disk",
        "barred",
        "named",
        "transcriber",
    )

    def __init__(
        self,
        gate: "Gate",
        account: Account,
        turns: Turns,
        when_on_disk: Callable[[int, Callable[[], None]], None],
    ) -> None:
        self._gate = gate
        self._account = account
        self._turns = turns
        self._when_on_disk = when_on_disk
        #: The model that transcribes now; ``None`` for none.
        self.transcriber: Target | None = None
        #: The name by which it was asked for: what its caller may use is asked by that.
        self.named = ""
        #: Where the session is, once that is told.
        self._session: Target | None = None
        #: The caller may begin nothing any more.
        self.barred = False
        #: Why what transcribes cannot be held for.
        self._problem: Problem | None = None
        #: Seconds of sound that have passed, and where among them the next item begins at the earliest, and since when.
        self._total = self._base = 0.0
        self._since = gate.now
        #: Clears that are not answered: whether it is ours, and how much sound had passed before it.
        self._clears: deque[tuple[bool, float]] = deque()

    def set_up(self, model: str, target: Target) -> None:
        """The provider told which model transcribes, by its own name for it."""
        self._problem, self._session = None, target
        if not model:
            self.transcriber = None
        elif self.transcriber is None or self.transcriber.upstream_model != model:
            found = self._account.transcriber(model, target)
            if isinstance(found, Problem):
                self.transcriber, self._problem = None, found
            else:
                self.transcriber, self.named = found, model

    def begin(self) -> None:
        """The next item begins with what passes from now on."""
        self._base, self._since = self._total, self._gate.now

    def spoken(self, at_ms: int) -> None:
        """Somebody began to speak there, so that the next item does not begin much before."""
        at = min(at_ms / 1000 - PADDING_S, self._total)
        if at > self._base:
            self._base, self._since = at, self._gate.now

    def ceased(self, at_ms: int) -> None:
        """Somebody ceased to speak there, and an item is made of it; what passed behind that is still to come."""
        at = min(at_ms / 1000, self._total) if at_ms else self._total
        if at > self._base:
            self._base, self._since = at, self._gate.now

    def change(self, before: Target | None, now: Target) -> Problem | None:
        """Why something else may not transcribe from now on; ``before`` is what does until then.

        Sound that passed is held for at the price of what transcribed when it did, or not at all.
        """
        if before is not None and before.upstream_model == now.upstream_model:
            return None
        begins = max(self._base, self._clears[-1][1] if self._clears else 0.0)
        return _IN_BUFFER if self._total > begins else None

    def clear(self, ours: bool) -> None:
        """The provider's buffer is about to be emptied."""
        self._clears.append((ours, self._total))

    def listen(self, audio_bytes: int, bytes_per_second: int, detecting: bool) -> tuple[Problem, str] | None:
        """Make sure that the transcript of what passes next is held for; why not, and which limit refused."""
        target = self.transcriber
        if self._problem is not None:
            return self._problem, ""
        seconds = audio_bytes / bytes_per_second
        if target is None:
            self._total += seconds
            return None
        passed = self._total - self._base
        if passed + seconds > SOUND_SECONDS_MAX:
            # Where nobody has spoken for so long, and no faster than in life, an item would begin only now.
            silent = detecting and self._gate.now - self._since >= passed * 0.9
            if not silent or seconds > SOUND_SECONDS_MAX:
                return _TOO_LONG, ""
            self.begin()
        hearing = self._turns.hearing
        if hearing is not None and hearing.hold.target.upstream_model != target.upstream_model:
            # It was for what transcribed before, and nothing of the buffer is left of that time.
            self._turns.hearing = None
            self._account.settle(hearing.hold, "aborted", 200, "", NO_USAGE, "none")
        if self._turns.hearing is None:
            refused = self._hold(target)
            if refused is not None:
                return refused
        self._total += seconds
        return None

    def _hold(self, target: Target) -> tuple[Problem, str] | None:
        if self._turns.full:
            return TOO_MANY, ""
        found = self._again(target)
        if isinstance(found, Problem):
            return found, ""
        id = self._gate.new_id()
        held = self._account.hold_transcript(id, found)
        if not isinstance(held, TurnHold):
            return held
        position = self._account.begin(held)
        if isinstance(position, Problem):
            return position, ""
        self._turns.hearing = Turn(id, held, transcript=True)
        if self._gate.waits_for_disk:
            self._when_on_disk(position, lambda: None)
        return None

    def _again(self, target: Target) -> Target | Problem:
        """What transcribes, as it stands now, where its caller may still use it."""
        assert self._session is not None
        place = self._account.again(self._session)
        if isinstance(place, Problem):
            self.barred = place is not self._gate.closed_for
            return place
        found = self._account.transcriber(self.named or target.model, place)
        if isinstance(found, Target) and found.upstream_model != target.upstream_model:
            text = f"Model {target.model[:64]!r} no longer goes where it did; set transcription anew."
            return Problem("model_not_found", text, "transcription.model")
        return found

    def passed(self, audio_bytes: int) -> None:
        """Sound passes that may be transcribed."""
        if self._turns.hearing is not None:
            self._turns.hearing.audio_bytes += audio_bytes

    def transcribed(self, told: Told, setup: Setup) -> int | None:
        """Settle what a transcript cost; the position to wait for."""
        if self._turns.ended(told.id):
            return None
        found = self._turns.transcribed(told.id)
        if found is None:
            if self.transcriber is None or told.type != events.TRANSCRIBED:
                return None
            held = self._account.force(self._gate.new_id(), self.transcriber, events.TRANSCRIPTION)
            self._account.begin(held)
            found = Turn(held.reservation.id, held, transcript=True), True
        turn, last = found
        report = told.report or Report()
        if told.type == events.TRANSCRIBED:
            turn.characters = told.characters
            used, source = report.usage, "provider"
            if used is None:
                used, source = heard(turn, setup), "provider_invalid" if report.invalid else "counted"
            turn.add(used, source)
        return self._settle(turn, report) if last else None

    def cleared(self) -> None:
        """The provider's buffer is empty, but for what passed since it was told to be."""
        ours, passed = self._clears.popleft() if self._clears else (False, self._total)
        self._base = max(self._base, passed)
        if ours and not any(clear[0] for clear in self._clears):
            turn = self._turns.cleared()
            if turn is not None:
                self._settle(turn, None)

    def keep(self, item: str) -> None:
        """Nothing is held for what follows an item."""
        turn = self._turns.keep(item)
        if turn is not None:
            self._settle(turn, None)

    def uncommit(self) -> None:
        """The provider refused a commit."""
        turn = self._turns.uncommit()
        if turn is not None:
            self._account.settle(turn.hold, "aborted", 200, "upstream_error", NO_USAGE, "none")

    def end(self, turn: Turn, status: str, http_status: int, code: str, setup: Setup) -> None:
        """The session ends: what was committed is billed by what was heard of it, what was not is not transcribed."""
        if turn.items or (not turn.key and turn is not self._turns.hearing):
            turn.used, turn.source = heard(turn, setup), "estimate"
        if turn.used == NO_USAGE:
            self._account.settle(turn.hold, "aborted", http_status, code, NO_USAGE, "none")
        else:
            self._account.settle(turn.hold, status, http_status, code, turn.used, turn.source)

    def _settle(self, turn: Turn, report: Report | None) -> int | None:
        if turn.used == NO_USAGE:
            return self._account.settle(turn.hold, "failed", 200, "upstream_error", NO_USAGE, "none")
        return self._account.settle(turn.hold, "ok", 200, "", turn.used, turn.source, report)
