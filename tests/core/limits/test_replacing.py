"""Limits that change one at a time: the gate goes on exactly as if it had looked at all of them again."""

from hypothesis import given
from hypothesis import strategies as st

from faregate.core.amounts import Amounts
from faregate.core.attribution import Attribution
from faregate.core.limits.admit import Allowances, LimitRefusal, Reservation, Standing
from faregate.core.limits.index import CompiledLimit, LimitIndex
from faregate.core.limits.windows import MINUTE, SECOND

NOON = 1_789_387_200 * SECOND
ANN = Attribution(organization="default", team="research", user="ann", key="key_1")
BOB = ANN._replace(user="bob", key="key_2")
CALL = Amounts(usd=10, requests=1)


def limit(id: str, amount: int | None, kind: int) -> CompiledLimit:
    """One of a few kinds of limits; another kind under the same id counts anew."""
    kinds: tuple[dict[str, object], ...] = (
        {"selector": {}, "window": "day"},
        {"selector": {"user": "ann"}, "window": "minute"},
        {"selector": {"team": "research"}, "each": ("user",), "window": "day"},
    )
    return CompiledLimit(id=id, unit="usd", amount=amount, **kinds[kind])  # type: ignore[arg-type]


class Both:
    """Two gates with the same limits: one is told what changed, the other gets all limits anew."""

    def __init__(self) -> None:
        self.now = NOON
        self.told, self.anew = Allowances(), Allowances()
        self.index = LimitIndex()
        self.running: list[tuple[Reservation, Reservation]] = []

    def change(self, put: list[CompiledLimit], removed: list[str]) -> None:
        self.index = self.index.changed(put, removed)
        waiting = self.told.replace_limits(self.index, self.now)
        assert sorted(waiting) == sorted(self.anew.replace_limits(LimitIndex(self.index.limits.values()), self.now))

    def open(self) -> None:
        for id in self.told.pending():
            for gate in (self.told, self.anew):
                assert gate.open_balance(id, [((), self.now, 5)] if not self.index.limits[id].each else [], self.now)

    def call(self, who: Attribution) -> None:
        one = self.told.reserve("req_1", Standing(who, self.index.matching(who)), CALL, self.now)
        two = self.anew.reserve("req_1", Standing(who, self.index.matching(who)), CALL, self.now)
        if isinstance(one, LimitRefusal) or isinstance(two, LimitRefusal):
            assert isinstance(one, LimitRefusal)
            assert isinstance(two, LimitRefusal)
            assert one.limit.id == two.limit.id
        else:
            self.running.append((one, two))

    def settle(self) -> None:
        if self.running:
            one, two = self.running.pop(0)
            assert self.told.settle(one, CALL)
            assert self.anew.settle(two, CALL)

    def compare(self) -> None:
        assert sorted(self.told.views(self.now)) == sorted(self.anew.views(self.now))
        assert sorted(self.told.pending()) == sorted(self.anew.pending())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3), st.integers(0, 2), st.sampled_from((None, 0, 30, 100))),
        st.tuples(st.just("remove"), st.integers(0, 3)),
        st.sampled_from((("open",), ("ann",), ("bob",), ("settle",), ("later",))),
    ),
    max_size=30,
)


@given(steps)
def test_one_change_is_as_good_as_all_limits_anew(does: list[tuple[object, ...]]) -> None:
    """Counters, balances that are waited for, and answers are the same after any changes, calls and time."""
    both = Both()
    for step in does:
        match step:
            case ("put", id, int(kind), amount):
                assert amount is None or isinstance(amount, int)
                both.change([limit(f"lim_{id}", amount, kind)], [])
            case ("remove", id):
                both.change([], [f"lim_{id}"])
            case ("open",):
                both.open()
            case ("settle",):
                both.settle()
            case ("later",):
                both.now += MINUTE
            case (name,):
                both.call(ANN if name == "ann" else BOB)
        both.compare()


def test_an_index_says_what_was_changed_in_it() -> None:
    """Whoever works by the index before has to look at these limits only, however many there are."""
    many = LimitIndex(limit(f"lim_{n}", 10, 0) for n in range(1_000))
    changed = many.changed([limit("lim_7", 20, 0)], ["lim_9"])
    assert (changed.changed_from is many.edition, sorted(changed.changed_ids)) == (True, ["lim_7", "lim_9"])
    assert LimitIndex(changed.limits.values()).changed_from is None


def test_an_index_that_is_not_the_next_one_is_looked_at_whole() -> None:
    """Two changes that arrive as one lose neither of them."""
    gate, first = Allowances(), LimitIndex([limit("lim_1", 100, 0)])
    gate.replace_limits(first, NOON)
    between = first.changed([limit("lim_2", 50, 0)])
    assert gate.replace_limits(between.changed([limit("lim_3", 10, 0)]), NOON) == ("lim_1", "lim_2", "lim_3")
