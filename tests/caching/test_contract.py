"""What every store of kept answers promises, run against each of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from caching.stores import LABELS, SECOND, START, answer, flushed, found, key
from faregate.caching.disk import Disk
from faregate.caching.embedded import EmbeddedStore
from faregate.caching.file import AnswerFile
from faregate.caching.shared import SharedStore
from faregate.core.caching.policy import CacheLabels
from faregate.ports import CachedAnswer, Later, ResponseStore, TellFound
from redis_server import RedisServer, redis_server

MEBI = 1024 * 1024

Test = Callable[[ResponseStore], Awaitable[None]]


class FromDisk(EmbeddedStore):
    """Has nothing in memory when somebody asks."""

    def find(self, key: bytes, now: int, then: TellFound) -> CachedAnswer | Later | None:
        entry = self._entries.get(key)
        if entry is not None and entry.row:
            self._index._leave_memory(entry)
        return super().find(key, now, then)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["memory", "disk", "disk alone", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(kind: str, tmp_path: Path, server: RedisServer) -> Callable[[Test], None]:
    """Runs a test with a store of a kind, on a loop of its own."""
    server.wipe()

    @asynccontextmanager
    async def opened() -> AsyncIterator[ResponseStore]:
        loop = asyncio.get_running_loop()
        store: ResponseStore
        if kind == "redis":
            # Deadlines are tested apart; a busy machine must not fail these.
            store = SharedStore(server.url, b"secret", 5_000, loop)
        else:
            disk = None if kind == "memory" else Disk(AnswerFile(tmp_path / "cache.sqlite3", 64 * MEBI))
            made = FromDisk if kind == "disk alone" else EmbeddedStore
            store = made(64 * MEBI, disk, loop, lambda: START)
        try:
            yield store
        finally:
            store.close()
            await asyncio.sleep(0.01)

    async def main(test: Test) -> None:
        async with opened() as store:
            await test(store)

    return lambda test: asyncio.run(main(test))


async def keep(store: ResponseStore, n: int, *args: object, now: int = START, **options: object) -> None:
    """Keep an answer and wait until it is there."""
    kept = answer(*args, **options)  # type: ignore[arg-type]
    store.keep(key(n), kept, now)
    for _ in range(2_000):
        if await found(store, key(n), now) == kept:
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it is not kept")


def test_what_was_kept_is_found_with_all_it_says(run: Callable[[Test], None]) -> None:
    """Byte for byte, as often as somebody asks; under another key there is nothing."""

    async def test(store: ResponseStore) -> None:
        kept = answer(b'{"id": "chatcmpl-1", "text": "\xc3\xa4\x00"}')
        assert await found(store, key(1)) is None
        await keep(store, 1, kept.body)

        assert [await found(store, key(1)) for _ in range(3)] == [kept] * 3
        assert await found(store, key(2)) is None

    run(test)


def test_what_has_expired_is_not_found(run: Callable[[Test], None]) -> None:
    """From its very instant on, and what expired before it was kept never."""

    async def test(store: ResponseStore) -> None:
        await keep(store, 1, expires_at=START + 10 * SECOND)
        store.keep(key(2), answer(expires_at=START), START)

        assert await found(store, key(1), START + 9 * SECOND) is not None
        assert await found(store, key(2)) is None
        assert await found(store, key(1), START + 10 * SECOND) is None

    run(test)


def test_the_newer_answer_of_a_key_is_found(run: Callable[[Test], None]) -> None:
    """What was kept before it is forgotten, by its labels, too."""

    async def test(store: ResponseStore) -> None:
        await keep(store, 1, b"old", LABELS._replace(project="old"))
        await keep(store, 1, b"new", LABELS._replace(project="new"))

        assert await flushed(store, project="old") == (0, "")
        assert (await found(store, key(1))).body == b"new"  # type: ignore[union-attr]
        store.keep(key(1), answer(b"newest, but over", expires_at=START), START)
        await asyncio.sleep(0.02)
        assert await flushed(store, project="new") == (0, "")
        assert await found(store, key(1)) is None

    run(test)


@pytest.mark.parametrize("field", CacheLabels._fields)
def test_what_has_a_label_is_forgotten_and_nothing_else(run: Callable[[Test], None], field: str) -> None:
    """By each label alone; a model is found by the name that was asked for and by the one that answered."""

    async def test(store: ResponseStore) -> None:
        await keep(store, 1, b"one", LABELS._replace(**{field: "one"}))
        await keep(store, 2, b"two", LABELS._replace(**{field: "two"}))
        wanted = "model" if field == "answered_by" else field

        assert await flushed(store, **{wanted: "none"}) == (0, "")
        assert await flushed(store, **{wanted: "one"}) == (1, "")
        assert await found(store, key(1)) is None
        assert (await found(store, key(2))).body == b"two"  # type: ignore[union-attr]

    run(test)


def test_labels_that_are_asked_for_together_must_all_fit(run: Callable[[Test], None]) -> None:
    """One project of one organization is not the project of another."""

    async def test(store: ResponseStore) -> None:
        for n, (organization, project) in enumerate([("a", "x"), ("a", "y"), ("b", "x")]):
            await keep(store, n, str(n).encode(), LABELS._replace(organization=organization, project=project))

        assert await flushed(store, organization="a", project="x") == (1, "")
        assert [await found(store, key(n)) is None for n in range(3)] == [True, False, False]

    run(test)


def test_everything_is_forgotten_where_nothing_is_said(run: Callable[[Test], None]) -> None:
    """All of many, and what is kept afterwards stays."""

    async def test(store: ResponseStore) -> None:
        for n in range(1, 40):
            store.keep(key(n), answer(b"%d" % n), START)
        await keep(store, 40, b"40")

        assert await flushed(store) == (40, "")
        assert [await found(store, key(n)) for n in range(1, 41)] == [None] * 40
        assert await flushed(store) == (0, "")
        await keep(store, 1, b"again")

    run(test)


def test_a_flush_takes_what_was_kept_just_before_it(run: Callable[[Test], None]) -> None:
    """Also where that is written only later."""

    async def test(store: ResponseStore) -> None:
        for n in range(100):
            store.keep(key(n), answer(b"x" * 10_000), START)

        assert await flushed(store) == (100, "")
        await asyncio.sleep(0.05)
        assert [await found(store, key(n)) for n in range(100)] == [None] * 100

    run(test)


def test_large_answers_are_kept_whole(run: Callable[[Test], None], kind: str) -> None:
    """Up to the most that a configuration may say."""

    async def test(store: ResponseStore) -> None:
        for n, size in enumerate([1, 4_000, 4_096, 70_000, MEBI - 1, MEBI]):
            body = bytes([n]) * size
            await keep(store, n, body)
            assert await found(store, key(n)) == answer(body)

    run(test)


def test_many_who_ask_at_once_are_all_told(run: Callable[[Test], None]) -> None:
    """Each the answer of his own key, and whoever asks for the same is told the same."""

    async def test(store: ResponseStore) -> None:
        for n in range(20):
            await keep(store, n, b"%d" % n)
        wanted = [n % 25 for n in range(50)]
        said = await asyncio.gather(*(found(store, key(n)) for n in wanted))

        assert [each and each.body for each in said] == [b"%d" % n if n < 20 else None for n in wanted]

    run(test)


def test_a_name_that_has_no_bytes_is_no_trouble(run: Callable[[Test], None]) -> None:
    """Half of a character in a label: the answer may be lost, the others are not."""

    async def test(store: ResponseStore) -> None:
        odd = answer(b"odd", LABELS._replace(model="\ud800"))
        store.keep(key(1), odd, START)
        await keep(store, 2, b"well")

        assert await found(store, key(1)) in (None, odd)
        assert (await flushed(store, model="\ud800"))[1] == ""
        assert await found(store, key(2)) == answer(b"well")

    run(test)


def test_a_closed_store_knows_nothing_and_raises_nothing(run: Callable[[Test], None]) -> None:
    """Closed twice, it is closed; what was asked before is not told, and a flush says why it does nothing."""

    async def test(store: ResponseStore) -> None:
        await keep(store, 1)
        told: list[object] = []
        store.find(key(1), START, told.append)
        store.close()
        store.close()
        store.keep(key(2), answer(), START)
        assert store.find(key(1), START, told.append) is None
        assert await flushed(store) == (0, "The cache is closed.")
        await asyncio.sleep(0.02)

        assert told == []
        assert all(isinstance(figure, int) for _, figure in store.samples())

    run(test)


def test_figures_have_the_names_of_the_reference(run: Callable[[Test], None]) -> None:
    """Each store says of them what it knows."""
    names = {"entries", "bytes", "disk_bytes", "evictions_total", "failures_total"}

    async def test(store: ResponseStore) -> None:
        await keep(store, 1)
        told = dict(store.samples())

        assert {name.removeprefix("faregate_cache_") for name in told} <= names
        assert told["faregate_cache_failures_total"] == 0

    run(test)
