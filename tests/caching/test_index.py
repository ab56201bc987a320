"""Bounds and fairness of the index of kept answers, under any order of what happens to it."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from caching.stores import LABELS, SECOND, START, answer, key
from faregate.caching.index import ENTRY_BYTES, Index, Row, answer_size, row_size
from faregate.caching.shelf import Shelf
from faregate.core.caching.policy import CacheLabels
from soaking import examples

MEMORY, DISK = 40_000, 60_000

keys = st.integers(0, 60)
tenants = st.sampled_from(["a", "b", "c", "d"])
sizes = st.one_of(st.integers(0, 2_000), st.integers(0, 50_000))


def of(tenant: str) -> CacheLabels:
    return LABELS._replace(project=tenant)


class AnyOrder(RuleBasedStateMachine):
    """What a store does to its index, and what must hold whatever it does."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index(MEMORY, DISK)
        self.now = START
        self.row = 0
        #: What was kept last under each key, and the rows that the disk has.
        self.kept: dict[bytes, object] = {}
        self.rows: set[int] = set()

    def held(self) -> dict[str, tuple[int, int]]:
        index = self.index
        return {each: (index.memory.held_by(of(each)[:3]), index.disk.held_by(of(each)[:3])) for each in "abcd"}

    def fair(self, newcomer: str, before: dict[str, tuple[int, int]]) -> None:
        """Who lost something had more than the newcomer has now, in a place that was full."""
        after = self.held()
        for each, had in before.items():
            if each != newcomer and after[each] != had:
                assert had[0] > after[newcomer][0] or had[1] > after[newcomer][1]

    @rule(n=keys, tenant=tenants, size=sizes, seconds=st.integers(-1, 20), disk=st.booleans())
    def keep(self, n: int, tenant: str, size: int, seconds: int, disk: bool) -> None:
        kept = answer(b"x" * size, of(tenant), self.now + seconds * SECOND)
        row = 0
        # What expires or is replaced is not pushed out.
        self.index.forget_key(key(n))
        while self.index.expire(self.now):
            pass
        before = self.held()
        if disk:
            self.row = row = self.row + 1
            self.rows.add(row)
        self.index.keep(key(n), kept, self.now, row)
        self.kept[key(n)] = kept
        self.fair(tenant, before)

    @rule(n=keys, tenant=tenants, size=sizes, seconds=st.integers(-1, 20))
    def adopt(self, n: int, tenant: str, size: int, seconds: int) -> None:
        self.row += 1
        self.rows.add(self.row)
        kept = answer(b"x" * size, of(tenant), self.now + seconds * SECOND)
        known = self.index.entries.get(key(n))
        if known is not None and known.row:
            self.index.forget_key(key(n))
            known = None
        before = self.held()
        self.index.adopt(Row(self.row, key(n), kept.expires_at, row_size(kept), kept.labels), self.now)
        if known is None:
            self.kept[key(n)] = kept
            self.fair(tenant, before)

    @rule(n=keys)
    def use(self, n: int) -> None:
        entry = self.index.entries.get(key(n))
        if entry is None:
            return
        self.index.touch(entry)
        if entry.answer is None:
            self.index.remember(entry, self.kept[key(n)])  # type: ignore[arg-type]

    @rule(n=keys)
    def forget(self, n: int) -> None:
        self.index.forget_key(key(n))

    @rule(n=keys)
    def lose(self, n: int) -> None:
        entry = self.index.entries.get(key(n))
        if entry is not None:
            self.index.lose_row(entry)

    @precondition(lambda self: self.row > 3)
    @rule(back=st.integers(0, 3))
    def begin_anew(self, back: int) -> None:
        self.index.lose_rows(self.row - back)
        self.rows = {row for row in self.rows if row > self.row - back}

    @rule(used=st.integers(0, 2 * DISK))
    def shrink(self, used: int) -> None:
        self.index.shrink(used)
        assert self.index.disk.bytes + self.index.disk_excess <= DISK or not self.index.disk.bytes

    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule()
    def expire(self) -> None:
        while self.index.expire(self.now):
            pass
        assert all(entry.expires_at > self.now for entry in self.index.entries.values())

    @invariant()
    def within_bounds(self) -> None:
        assert self.index.memory_bytes <= MEMORY
        assert self.index.disk.bytes <= DISK
        assert len(self.index.entries) <= MEMORY // 2 // ENTRY_BYTES

    @invariant()
    def sums_are_right(self) -> None:
        entries = self.index.entries.values()
        in_memory = [answer_size(each.answer) for each in entries if each.answer is not None]
        assert self.index.memory.bytes == sum(in_memory)
        assert sum(map(sum, self.held().values())) == self.index.memory.bytes + self.index.disk.bytes
        assert all(each.answer is not None or each.row for each in entries)

    @invariant()
    def what_is_kept_is_the_newest(self) -> None:
        for each in self.index.entries.values():
            if each.answer is not None:
                assert each.answer is self.kept[each.key]

    @invariant()
    def rows_are_given_back_once(self) -> None:
        gone = self.index.take_rows_gone()
        assert len(gone) == len(set(gone))
        self.rows -= set(gone)
        assert {each.row for each in self.index.entries.values() if each.row} == self.rows


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=examples(60, 2_000), stateful_step_count=60, deadline=None)


def test_a_flood_of_one_tenant_pushes_out_his_own() -> None:
    """Others keep what they have, though nobody asked for it in a long time."""
    index = Index(100_000)
    for n in range(10):
        index.keep(key(n), answer(b"x" * 1_000, of("quiet")), START, 0)
    for n in range(100, 2_000):
        index.keep(key(n), answer(b"x" * 1_000, of("loud")), START, 0)

    assert all(key(n) in index.entries for n in range(10))
    assert 90_000 < index.memory_bytes <= 100_000


def test_of_one_tenant_what_was_used_longest_ago_goes_first() -> None:
    """An answer that is asked for stays."""
    index = Index(20_000)
    for n in range(60):
        index.keep(key(n), answer(b"x" * 1_000), START, 0)
        if key(0) in index.entries:
            index.touch(index.entries[key(0)])

    assert key(0) in index.entries
    assert key(59) in index.entries
    assert key(1) not in index.entries


def test_an_answer_that_fits_nowhere_pushes_nobody_out() -> None:
    """It is not kept at all, and what was kept for its key is not the answer any more."""
    index = Index(10_000)
    index.keep(key(1), answer(b"one"), START, 0)
    index.keep(key(2), answer(b"two"), START, 0)
    index.keep(key(1), answer(b"x" * 20_000), START, 0)

    assert list(index.entries) == [key(2)]
    assert index.evictions == 0


def test_the_line_of_those_that_expire_does_not_grow_with_replacements() -> None:
    """The same key kept again and again is one entry."""
    index = Index(100_000)
    for _ in range(5_000):
        index.keep(key(1), answer(), START, 0)

    assert len(index._expiring) < 100


def test_the_heap_of_tenants_does_not_grow_with_what_they_do() -> None:
    """Whoever comes and goes leaves nothing that stays."""
    shelf = Shelf()
    shelf.put(key(0), ("steady",), 10**9)
    for n in range(1, 5_000):
        shelf.put(key(n), (str(n % 7),), n)
        if n > 3:
            shelf.remove(key(n - 3), (str((n - 3) % 7),))

    assert len(shelf._heap) < 120
    assert shelf.victim(("nobody",)) == key(0)
