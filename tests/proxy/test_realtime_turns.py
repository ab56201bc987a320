"""The bookkeeping of a session's turns: each ends once, whatever comes in whatever order."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from faregate.core.usage import Usage
from faregate.dialects.realtime_usage import heard_tokens
from faregate.proxy.realtime_turns import Context, Turn, Turns

KEYS = st.sampled_from(["r1", "r2", "r3", "r4"])


class Session(RuleBasedStateMachine):
    """Clients ask and say, providers begin, end, complain and listen, all as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns()
        self.opened: list[Turn] = []
        self.closed: list[Turn] = []
        self.unasked = 0
        self.items: set[str] = set()

    def _new(self, transcript: bool = False) -> Turn:
        turn = Turn(f"t{len(self.opened)}", None, transcript=transcript)
        self.opened.append(turn)
        return turn

    @rule()
    def ask(self) -> None:
        """A response is asked for, as long as there is room."""
        if not self.turns.full:
            self.turns.ask(self._new())

    @rule(key=KEYS)
    def begin(self, key: str) -> None:
        """The provider begins one, or says so again."""
        if self.turns.began(key) is None:
            self.unasked += 1
            self.turns.adopt(self._new(), key)

    @rule(key=KEYS)
    def end(self, key: str) -> None:
        """The provider ends one."""
        turn = self.turns.done(key)
        if turn is not None:
            self.closed.append(turn)

    @rule(number=st.integers(0, 20))
    def complain(self, number: int) -> None:
        """The provider refuses some event."""
        turn = self.turns.refused(f"t{number}")
        if turn is not None:
            assert turn.id == f"t{number}"
            assert turn.key == ""
            self.closed.append(turn)

    @rule()
    def listen(self) -> None:
        """Sound is held for."""
        if self.turns.hearing is None and not self.turns.full:
            self.turns.hearing = self._new(transcript=True)

    @rule()
    def commit(self) -> None:
        """The client commits it."""
        self.turns.commit()

    @rule(key=KEYS)
    def speak(self, key: str) -> None:
        """Somebody is heard."""
        self.turns.spoken(key)

    @rule(key=KEYS)
    def committed(self, key: str) -> None:
        """The provider committed it; an item is committed once."""
        if key not in self.items:
            self.items.add(key)
            self.turns.committed(key)

    @rule(key=KEYS)
    def transcribed(self, key: str) -> None:
        """A transcript comes."""
        found = self.turns.transcribed(key)
        if found is not None:
            turn, last = found
            assert turn.transcript
            if last:
                self.closed.append(turn)

    @rule()
    def uncommit(self) -> None:
        """The provider refuses a commit."""
        turn = self.turns.uncommit()
        if turn is not None:
            self.closed.append(turn)

    @rule(key=KEYS)
    def keep(self, key: str) -> None:
        """Nothing is held for what follows an item."""
        turn = self.turns.keep(key)
        if turn is not None:
            self.closed.append(turn)

    @rule()
    def cleared(self) -> None:
        """The buffer is empty."""
        turn = self.turns.cleared()
        if turn is not None:
            self.closed.append(turn)

    @rule(key=KEYS, characters=st.integers(0, 9))
    def deliver(self, key: str, characters: int) -> None:
        """Some of a response comes."""
        self.turns.delivered(key, characters, 0)

    @invariant()
    def every_turn_is_open_or_closed_once(self) -> None:
        """None is lost, none ends twice."""
        open_now = self.turns.open()
        assert len({id(turn) for turn in (*open_now, *self.closed)}) == len(open_now) + len(self.closed)
        assert {turn.id for turn in (*open_now, *self.closed)} == {turn.id for turn in self.opened}

    @invariant()
    def what_is_asked_for_is_counted(self) -> None:
        """Responses are those open turns that are no transcripts."""
        assert self.turns.responses == sum(not turn.transcript for turn in self.turns.open())


TestSession = Session.TestCase


def test_the_oldest_request_begins_first() -> None:
    """Providers begin responses in the order of their events."""
    turns = Turns()
    first, second = Turn("a", 1), Turn("b", 2)
    turns.ask(first)
    turns.ask(second)

    assert turns.began("r1") is first
    assert turns.done("r2") is second
    assert turns.done("r1") is first
    assert turns.done("r1") is None


def test_a_turn_that_gives_way_to_another_kept_one_is_not_lost() -> None:
    """Its items are transcribed, so what it held comes back when the next is kept instead."""
    turns = Turns()
    turns.hearing = first = Turn("a", None, transcript=True)
    turns.committed("r1")
    turns.hearing = Turn("b", None, transcript=True)
    turns.committed("r2")
    turns.keep("r1")
    assert turns.transcribed("r1") == (first, False)

    assert turns.keep("r2") is first
    assert turns.keep("r2") is None


def test_a_refused_request_is_passed_over() -> None:
    """The provider complained about the first: what begins is the second."""
    turns = Turns()
    turns.ask(Turn("a", None))
    turns.ask(second := Turn("b", None))
    turns.refused("a")

    assert turns.began("r1") is second


def test_items_of_one_burst_share_the_hold_that_there_is() -> None:
    """Where nothing more can be held, the last hold stays until the buffer is empty and all its items are done."""
    turns = Turns()
    turns.hearing = turn = Turn("t", None, transcript=True)
    for item in ("i1", "i2"):
        turns.spoken(item)
        turns.committed(item)
        turns.keep(item)

    assert turns.transcribed("i1") == (turn, False)
    assert turns.transcribed("i2") == (turn, False)
    assert turns.open() == [turn]
    assert turns.cleared() is turn
    assert turns.open() == []


def test_what_detection_commits_is_told_from_what_the_client_commits() -> None:
    """By the item that speech was heard in."""
    turns = Turns()
    turns.spoken("i1")

    assert turns.committed("i1")
    assert not turns.committed("i2")
    assert not turns.committed("i1")


_SAID = st.lists(
    st.tuples(st.just("wrote"), st.integers(0, 5_000))
    | st.tuples(st.just("heard"), st.integers(0, 500_000))
    | st.tuples(st.just("answered"), st.integers(0, 4_096)),
    max_size=30,
)


@given(_SAID, st.integers(1, 300_000))
def test_the_bound_holds_for_every_conversation(said: list[tuple[str, int]], window: int) -> None:
    """It is at least what providers count, grows with every event, and never passes the window."""
    context, tokens, before = Context(), 0, 0
    for kind, amount in said:
        if kind == "wrote":
            context.wrote(amount)
            tokens += amount + 10
        elif kind == "heard":
            context.heard(amount, 48_000)
            tokens += heard_tokens(amount, 48_000)
        else:
            context.answered(Usage(output_text=amount // 2, output_audio=amount - amount // 2))
            tokens += amount + 10
        bound = context.bound(window)
        assert before <= bound <= window
        assert bound >= min(window, tokens)
        before = bound
    estimate = context.estimate(window)
    assert 0 <= estimate.input_tokens <= window


def test_with_a_picture_only_the_window_bounds() -> None:
    """A picture has more tokens than bytes of its address."""
    context = Context()
    context.whole = True

    assert context.bound(32_000) == 32_000
