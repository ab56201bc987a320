"""What a running stream holds: it grows while the answer comes, and where no more can be held the answer ends.

Two things are kept here (docs/decisions/016). A stream may hold in *steps* instead of all that it may ever cost, where
the configuration says so: more is held before the text comes near to what is held, less a margin for what the provider
makes and nobody has seen when its call is cancelled. And a stream that holds its *whole* cap is looked after, too: a
provider that does not keep to the cap is stopped, once it is certain that it did not.

No event is looked at for this. The meter tells when so many bytes of text have come that they may be more tokens than
may come (a token has at least one byte); only then the text is counted by the model's tokenizer, off the loop, and the
next look is due after as many more bytes as tokens are left.
"""

from typing import TYPE_CHECKING, Final

from faregate.core.amounts import Amounts
from faregate.core.ledger.events import Progressed
from faregate.core.limits import closer
from faregate.core.limits.admit import LimitRefusal, Reservation
from faregate.core.metering.meter import NEVER, StreamMeter
from faregate.errors import FaregateError
from faregate.proxy.bound import cap_within, upper_bound
from faregate.proxy.guard import guarded
from faregate.proxy.snapshot import Match, Target

if TYPE_CHECKING:
    from faregate.proxy.answer import Answer
    from faregate.proxy.exchange import Exchange

#: The smallest step: near the end of a budget many streams share what is left of it.
STEP_TOKENS_MIN: Final = 16

#: The next look is not due before so many more bytes of text: fewer tokens than the margin has room for.
LOOK_BYTES_MIN: Final = 64

#: So much of the text is counted at once at the latest; what the meter keeps of it is a little more.
LOOK_BYTES_MAX: Final = 12 * 1024

#: Fewer bytes than a token has on average in any text of some length: where a cap is held whole and only its breach
#: matters, most streams end before this many bytes, so that their tokens need not be counted.
BYTES_PER_TOKEN_MIN: Final = 2

#: More characters than a token of any tokenizer has on average in any text that is worth reading.
CHARACTERS_PER_TOKEN_MAX: Final = 8

_BYTES_PER_CHARACTER: Final = 4

#: A cap counts as passed beyond this share of it, and at least so many tokens: text that is counted in pieces has a
#: few tokens more than as a whole.
_SLACK_SHARE: Final = 32
_SLACK_TOKENS_MIN: Final = 16

#: Members that ask for output that is not delivered, or for the prompt among the answer.
_UNSEEN: Final = frozenset(("reasoning", "reasoning_effort", "thinking", "audio", "prediction", "echo"))


def cap_of(exchange: "Exchange") -> int:
    """Output tokens that the provider was told, or lets itself be told, not to exceed, in all choices."""
    call, target = exchange.call, exchange.target
    assert target is not None
    cap = exchange.cap or (call.output_cap if call.output_cap is not None else target.output_tokens_max)
    return cap * call.choices + call.extra_output_tokens


def may_step(exchange: "Exchange", target: Target) -> bool:
    """Whether all that the call is billed as output can be seen and counted while it comes."""
    call = exchange.call
    return (
        call.stream
        and call.has_output
        and call.choices == 1
        and not (call.extra_output_tokens or call.sealed or call.job or call.media or call.at_most or call.declared)
        and exchange.dialect.end is not None
        and bool(target.encoding)
        and not target.reasons
        and _UNSEEN.isdisjoint(call.members)
    )


def reserve_stream(
    exchange: "Exchange", target: Target, match: Match, whole: Amounts, now: int
) -> Reservation | LimitRefusal:
    """Hold the first step of a stream, or ``whole`` where that is no more or nobody could see when more is needed.

    The step shrinks, down to the smallest useful answer, where no larger one fits.
    """
    gate = exchange.gate
    settings = gate.settings
    step, margin = settings.default_output_tokens, settings.min_answer_tokens
    smallest = min(settings.min_answer_tokens, step)
    if whole.output_tokens <= step + margin or not may_step(exchange, target):
        step = 0
    while step:
        amounts = upper_bound(
            exchange.call,
            exchange.tariff,
            exchange.input_tokens,
            step + margin,
            exchange.tier_tariff,
            match.charging,
        )
        reserved = gate.allowances.reserve(exchange.id, match.standing, amounts, now)
        if isinstance(reserved, Reservation):
            return reserved
        step = max(step // 2, smallest) if step > smallest else 0
    return gate.allowances.reserve(exchange.id, match.standing, whole, now)


def is_held_whole(exchange: "Exchange") -> bool:
    """Whether a stream's hold reaches to the cap of its answer: then nobody has to look at it on the way."""
    reservation = exchange.reservation
    assert reservation is not None
    return reservation.amounts.output_tokens >= cap_of(exchange)


def first_look(exchange: "Exchange") -> int:
    """After how many bytes of text what is held for a stream is first looked at."""
    reservation = exchange.reservation
    assert reservation is not None
    held = reservation.amounts.output_tokens
    gate = exchange.gate
    if gate.steps and not is_held_whole(exchange):
        assert exchange.target is not None
        gate.load_tokenizer(exchange.target.encoding)
        return min(max(held - gate.settings.min_answer_tokens, 1), LOOK_BYTES_MAX)
    return BYTES_PER_TOKEN_MIN * held


class StreamHold:
    """Looks after the hold of one stream, from the first time that its text may have used it up."""

    __slots__ = (
        "_answer",
        "_cap",
        "_counted_tokens",
        "_counts",
        "_exchange",
        "_held",
        "_looking",
        "_margin",
        "_meter",
        "_stepped",
        "code",
        "ending",
        "limit",
    )

    def __init__(self, answer: "Answer", meter: StreamMeter) -> None:
        exchange = self._exchange = answer.exchange
        target, reservation = exchange.target, exchange.reservation
        assert target is not None
        assert reservation is not None
        self._answer = answer
        self._meter = meter
        self._cap = cap_of(exchange)
        #: Output tokens that are held and on record.
        self._held = reservation.amounts.output_tokens
        #: It holds less than its cap, so that what is held must stay ahead of the text.
        self._stepped = exchange.gate.steps and self._held < self._cap
        self._margin = exchange.gate.settings.min_answer_tokens if self._stepped else 0
        #: Its tokens can be counted.
        self._counts = bool(target.encoding)
        #: Of the text that was counted: no fewer than there are in steps, no more otherwise.
        self._counted_tokens = 0
        self._looking = False
        #: It ends where the next event does.
        self.ending = False
        #: Why no more could be held: an error code, and the limit where it was one.
        self.code = ""
        self.limit = ""

    @property
    def concerns(self) -> bool:
        """Whether this stream can be ended by us, and its text is all output of the model's."""
        exchange = self._exchange
        call = exchange.call
        return not (
            exchange.dialect.end is None or exchange.free or call.job or call.declared or "echo" in call.members
        )

    def look(self) -> None:
        """The text may have used up what is held: count it. Called while the meter takes text in."""
        if self._looking or self.ending:
            return
        self._looking = True
        exchange, meter = self._exchange, self._meter
        target = exchange.target
        assert target is not None
        text, characters = meter.uncounted()
        if not self._counts:
            exchange.gate.loop.call_soon(guarded(self._judge_uncounted, exchange.mistaken))
            return
        if self._stepped:
            # What comes meanwhile comes out of the margin, which must not be used up by a slow count.
            self._answer.halt()
        kept = len(text)

        def counted(tokens: int) -> None:
            self._counted(kept, characters, tokens)

        exchange.gate.count_tokens((text,), target.encoding, guarded(counted, exchange.mistaken))

    def _counted(self, kept: int, characters: int, tokens: int) -> None:
        if self._answer.concluding:
            self._answer.read_on()
            return
        lost = characters - kept
        if tokens > _BYTES_PER_CHARACTER * characters:
            # It could not be counted.
            lost, tokens = characters, 0
            kept_as = -(-characters * 2 // 7)
        else:
            kept_as = -(-tokens * characters // kept) if kept else characters
        # What nobody counted is the most or the least that it can be, by which of them must be certain.
        self._counted_tokens += tokens
        self._counted_tokens += _BYTES_PER_CHARACTER * lost if self._stepped else lost // CHARACTERS_PER_TOKEN_MAX
        self._meter.count(kept, characters, kept_as)
        self._judge()

    def _judge_uncounted(self) -> None:
        if not self._answer.concluding:
            self._judge()

    def _seen(self) -> int:
        """Output tokens so far: no fewer than there are for a stream in steps, no more for any other."""
        meter = self._meter
        seen = self._counted_tokens
        if self._stepped:
            seen += meter.unread
        elif not self._counts:
            seen += meter.uncounted()[1] // CHARACTERS_PER_TOKEN_MAX
        # Some providers tell it in every event.
        return max(seen, meter.told_output_tokens)

    def _judge(self) -> None:
        """Hold more, go on as it is, or end."""
        reservation = self._exchange.reservation
        assert reservation is not None
        seen = self._seen()
        on_record: int | None = None
        while self._wants_more(seen):
            position = self._hold_more(reservation)
            if position is None:
                break
            on_record = position
        left = self._left(seen)
        self._looking = False
        if left <= 0 and self.code:
            self.ending = True
            self._meter.watch(NEVER, None)
            self._answer.look_closely()
        else:
            self.code = self.limit = ""
            step = min(max(left, LOOK_BYTES_MIN), LOOK_BYTES_MAX if self._stepped else NEVER)
            self._meter.watch(self._meter.text_bytes + step, self.look)
        gate = self._exchange.gate
        if on_record is not None and gate.waits_for_disk:
            # What goes beyond the hold that a power failure leaves on record waits for the larger one.
            self._answer.halt()
            gate.journal.when_durable(on_record, guarded(self._answer.read_on, self._exchange.mistaken))
        else:
            self._answer.read_on()

    def _left(self, seen: int) -> int:
        """Tokens that may still come with what is held; none where the stream must not go on with it."""
        if self._stepped:
            return self._held - self._margin - seen
        return self._held + max(_SLACK_TOKENS_MIN, self._held // _SLACK_SHARE) - seen

    def _wants_more(self, seen: int) -> bool:
        left = self._left(seen)
        if not self._stepped:
            return left <= 0
        # Early enough that it is on record before it is needed.
        return left <= max(STEP_TOKENS_MIN, self._exchange.gate.settings.default_output_tokens // 8)

    def _hold_more(self, reservation: Reservation) -> int | None:
        """Hold one more step, or as much of it as fits; the journal's position after it, ``None`` where none fits."""
        exchange = self._exchange
        gate = exchange.gate
        now = gate.wall_nanos()
        # What was held and could not be written down is tried again.
        if reservation.amounts.output_tokens <= self._held and not self._extend(reservation, now):
            return None
        grown = Progressed(exchange.id, now, self._seen(), reservation.amounts)
        try:
            position = gate.journal.append(grown)
        except FaregateError:
            # What is not on record may not be used: a crash would leave less held than is owed.
            gate.disk_failed()
            self.code, self.limit = "storage_full", ""
            return None
        self._held = reservation.amounts.output_tokens
        if self._stepped and self._held >= self._cap:
            # All that it may ever use is held: from here on the provider's cap is the bound.
            self._stepped = False
            self._margin = 0
        return position

    def _extend(self, reservation: Reservation, now: int) -> bool:
        """Hold more in memory; where nothing fits, ``code`` and ``limit`` say why."""
        gate = self._exchange.gate
        step = gate.settings.default_output_tokens
        while True:
            output = min(self._held + step, self._cap) if self._stepped else self._held + step
            more = self._more(reservation, output)
            if gate.allowances.extend(reservation, more, now):
                return True
            if step <= STEP_TOKENS_MIN:
                self._stopped_by(reservation, more, now)
                return False
            step = max(step // 2, STEP_TOKENS_MIN)

    def _more(self, reservation: Reservation, output: int) -> Amounts:
        """What is to be held beside what is held, for so many output tokens in all."""
        exchange, held = self._exchange, reservation.amounts
        match = exchange.match
        assert match is not None
        cap = cap_within(exchange.call, output)
        tariff, tier = exchange.tariff, exchange.tier_tariff
        wanted = upper_bound(exchange.call, tariff, exchange.input_tokens, cap, tier, match.charging)
        return Amounts(*[max(0, new - old) for new, old in zip(wanted, held, strict=True)])

    def _stopped_by(self, reservation: Reservation, more: Amounts, now: int) -> None:
        """Find the limit that has no room for ``more``."""
        counters = [*reservation.holds, *[hold.counter for hold in reservation.moving]]
        self.code = "budget_exhausted"
        for counter in counters:
            if more[counter.unit] and not closer.may_hold_more(counter, more[counter.unit], now):
                limit = counter.meter.limit
                self.code, self.limit = limit.code, limit.id
                return
