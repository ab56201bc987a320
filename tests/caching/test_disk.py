"""The file of kept answers: restarts, deaths, damage, a full disk; and that nobody waits for it."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caching.stores import LABELS, MINUTE, SECOND, START, answer, flushed, found, key, sample, until
from faregate.caching import embedded
from faregate.caching.disk import Disk
from faregate.caching.embedded import EmbeddedStore
from faregate.caching.file import AnswerFile
from faregate.ports import CachedAnswer
from soaking import examples

MEBI = 1024 * 1024

#: Bodies that tell whose they are.
BODIES = {n: b"%d:" % n + bytes([n]) * (n * 997) for n in range(40)}


@asynccontextmanager
async def opened(
    path: Path,
    disk_bytes_max: int = 64 * MEBI,
    memory: int = 64 * MEBI,
    now: int = START,
    file: AnswerFile | None = None,
) -> AsyncIterator[EmbeddedStore]:
    """A store on a file whose index is read."""
    disk = Disk(file or AnswerFile(path, disk_bytes_max))
    store = EmbeddedStore(memory, disk, asyncio.get_running_loop(), lambda: now)
    try:
        await until(lambda: not store._loading)
        yield store
    finally:
        store.close()


async def written(store: EmbeddedStore) -> None:
    """Wait until nothing waits to be written or deleted."""
    disk = store._disk
    assert disk is not None
    await until(lambda: not disk._pending and not disk._gone)


async def fill(store: EmbeddedStore) -> None:
    for n, body in BODIES.items():
        store.keep(key(n), answer(body), START)
    await written(store)


async def right(store: EmbeddedStore) -> int:
    """How many answers are found; each is the one that was kept."""
    count = 0
    for n, body in BODIES.items():
        told = await found(store, key(n))
        assert told in (None, answer(body))
        count += told is not None
    return count


def test_answers_outlive_a_restart(tmp_path: Path) -> None:
    """With their labels; what expired meanwhile, was flushed or replaced does not come back."""

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        async with opened(path) as store:
            await fill(store)
            store.keep(key(100), answer(b"short", expires_at=START + SECOND), START)
            store.keep(key(101), answer(b"flushed", LABELS._replace(project="other")), START)
            store.keep(key(102), answer(b"old"), START)
            store.keep(key(102), answer(b"new"), START)
            assert await flushed(store, project="other") == (1, "")
        async with opened(path, now=START + 2 * SECOND) as store:
            assert await right(store) == len(BODIES)
            assert await found(store, key(100)) is None
            assert await found(store, key(101)) is None
            assert await found(store, key(102)) == answer(b"new")
            assert await flushed(store, key="key_1") == (len(BODIES) + 1, "")
        async with opened(path) as store:
            assert sample(store, "entries") == 0

    asyncio.run(main())


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """From its first instant on, and one that others could read is not used."""

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        old = os.umask(0)
        try:
            async with opened(path) as store:
                await fill(store)
                assert {stat.S_IMODE(os.stat(tmp_path / each).st_mode) for each in os.listdir(tmp_path)} == {0o600}
            path.chmod(0o644)
            async with opened(path) as store:
                assert (sample(store, "entries"), stat.S_IMODE(path.stat().st_mode)) == (0, 0o600)
        finally:
            os.umask(old)

    asyncio.run(main())


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """It is removed, and what it points to stays as it is."""

    async def main() -> None:
        other, path = tmp_path / "other", tmp_path / "cache.sqlite3"
        other.write_bytes(b"mine")
        path.symlink_to(other)
        async with opened(path) as store:
            await fill(store)
        assert other.read_bytes() == b"mine"
        assert not path.is_symlink()

    asyncio.run(main())


def test_what_is_forgotten_is_not_in_the_file(tmp_path: Path) -> None:
    """Neither in it nor beside it."""

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        async with opened(path) as store:
            store.keep(key(1), answer(b"a secret of somebody" * 1_000), START)
            await written(store)
            assert b"a secret of somebody" in path.read_bytes()
            assert await flushed(store) == (1, "")
            assert not any(b"a secret of somebody" in (tmp_path / each).read_bytes() for each in os.listdir(tmp_path))

    asyncio.run(main())


@pytest.mark.parametrize("left", [b"", b"no database at all" * 500, b"SQLite format 3\0" + b"\xff" * 9_000])
def test_a_file_that_is_none_is_begun_anew(tmp_path: Path, left: bytes) -> None:
    """Whatever somebody left there."""

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        path.write_bytes(left)
        path.chmod(0o600)
        async with opened(path) as store:
            await fill(store)
        async with opened(path) as store:
            assert await right(store) == len(BODIES)

    asyncio.run(main())


def test_a_file_of_another_version_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Newer or older; the log says so."""

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        async with opened(path) as store:
            await fill(store)
        with sqlite3.connect(path) as driver:
            driver.execute("PRAGMA user_version=7")
        driver.close()
        async with opened(path) as store:
            assert sample(store, "entries") == 0
            await fill(store)
        async with opened(path) as store:
            assert await right(store) == len(BODIES)

    asyncio.run(main())
    assert [each.message for each in caplog.records] == ["cache_file_begun_anew"]


@pytest.fixture(scope="module")
def full_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a file with all answers in it."""
    path = tmp_path_factory.mktemp("full") / "cache.sqlite3"

    async def main() -> None:
        async with opened(path) as store:
            await fill(store)

    asyncio.run(main())
    return path.read_bytes()


@settings(max_examples=examples(40, 2_000), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=600)), max_size=5), cut=st.floats(0, 1)
)
def test_damage_never_gives_a_wrong_answer(
    tmp_path: Path, full_file: bytes, places: list[tuple[float, bytes]], cut: float
) -> None:
    """Anything written anywhere into the file, or its end gone: what is found is right, and it is written to again."""
    path = tmp_path / "cache.sqlite3"
    damaged = bytearray(full_file)
    for place, junk in places:
        at = int(place * (len(damaged) - 1))
        damaged[at : at + len(junk)] = junk
    if cut < 0.3:
        del damaged[int(cut / 0.3 * len(damaged)) :]
    for left in tmp_path.iterdir():
        left.unlink()
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(descriptor, damaged)
    os.close(descriptor)

    async def main() -> None:
        async with opened(path) as store:
            await right(store)
            await fill(store)
            assert await right(store) == len(BODIES)

    asyncio.run(main())


def test_a_process_that_is_killed_leaves_what_it_committed(tmp_path: Path) -> None:
    """At any instant of its writing: what is there afterwards is right, and there is something."""
    path = tmp_path / "cache.sqlite3"
    script = (
        "import asyncio, pathlib, sys\n"
        "from caching.test_disk import BODIES, START, answer, key, opened, written\n"
        "async def main():\n"
        "    async with opened(pathlib.Path(sys.argv[1])) as store:\n"
        "        for turn in range(10**9):\n"
        "            for n, body in BODIES.items(): store.keep(key(n), answer(body), START)\n"
        "            await written(store)\n"
        "            if not turn: print('written', flush=True)\n"
        "asyncio.run(main())\n"
    )
    paths = {"PYTHONPATH": os.pathsep.join(["src", "tests"])}
    for turn in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(path)],
            cwd=Path(__file__).parent.parent.parent,
            env=os.environ | paths,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        time.sleep(0.013 * turn)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()

        async def look() -> int:
            async with opened(path) as store:
                return await right(store)

        assert asyncio.run(look()) > 0


def test_a_full_disk_costs_nothing_but_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is there stays and can be forgotten; the rest is in memory; nothing raises, and the log says so once."""

    class LittleRoom(AnswerFile):
        def open(self) -> int:
            last = super().open()
            self._number("max_page_count=40")
            return last

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        async with opened(path, file=LittleRoom(path, 64 * MEBI)) as store:
            await fill(store)
            assert await right(store) == len(BODIES)
            await until(lambda: sample(store, "failures_total") > 0)
            assert path.stat().st_size <= 40 * 4096
            assert await flushed(store) == (len(BODIES), "")
            assert await right(store) == 0
        async with opened(path) as store:
            assert sample(store, "entries") == 0

    asyncio.run(main())
    assert [each.message for each in caplog.records] == ["cache_disk_full"]


@pytest.mark.parametrize("size", [10, 900, 3_000, 5_000, 60_000])
def test_the_file_stays_near_its_bound(tmp_path: Path, size: int) -> None:
    """Whatever the size of answers, and however many are pushed out in no order."""

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        async with opened(path, 2 * MEBI, memory=16 * MEBI) as store:
            for n in range(min(6_000, 12 * MEBI // (size + 512))):
                store.keep(key(n), answer(b"%06d" % n + b"x" * size), START)
                await found(store, key(n * 7919 % (n + 1)))
                if n % 100 == 0:
                    await written(store)
            await written(store)
            assert sample(store, "disk_bytes") <= 2 * MEBI
            assert path.stat().st_size <= 2 * MEBI * 5 // 4 + MEBI
            assert sample(store, "failures_total") == 0

    asyncio.run(main())


def test_a_file_that_another_process_has_is_left_to_it(tmp_path: Path) -> None:
    """This one goes on in memory, and says that it could not forget what is in the file."""

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        async with opened(path) as store:
            await fill(store)
            async with opened(path) as second:
                await fill(second)
                assert await right(second) == len(BODIES)
                assert sample(second, "disk_bytes") == 0
                count, trouble = await flushed(second)
                assert (count, "may come back" in trouble) == (len(BODIES), True)
            assert await right(store) == len(BODIES)
        async with opened(path) as store:
            assert await right(store) == len(BODIES)

    asyncio.run(main())


def test_a_folder_that_takes_no_file_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder of that name: the store goes on in memory."""

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        (path / "inside").mkdir(parents=True)
        async with opened(path) as store:
            await fill(store)
            assert await right(store) == len(BODIES)
            assert (await flushed(store))[0] == len(BODIES)

    asyncio.run(main())
    assert [each.message for each in caplog.records] == ["cache_file_given_up"]


def test_a_file_that_breaks_while_it_is_used_is_begun_anew(tmp_path: Path) -> None:
    """What was in memory is found; what is written afterwards outlives a restart."""

    class Breaks(AnswerFile):
        broken = False

        def write(self, new: object, gone: object) -> None:
            if self.broken:
                self.broken = False
                raise sqlite3.DatabaseError("database disk image is malformed")
            super().write(new, gone)  # type: ignore[arg-type]

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        file = Breaks(path, 64 * MEBI)
        async with opened(path, file=file) as store:
            await fill(store)
            file.broken = True
            store.keep(key(1_000), answer(b"one more"), START)
            await until(lambda: sample(store, "disk_bytes") == 0)
            assert await right(store) == len(BODIES)
            await fill(store)
        async with opened(path) as store:
            assert await right(store) == len(BODIES)

    asyncio.run(main())


def test_nobody_waits_for_a_slow_disk(tmp_path: Path) -> None:
    """Beyond the deadline there is nothing, and beyond so many at once nobody is even asked to wait."""

    class Slow(AnswerFile):
        seconds = 0.0

        def read(self, row: int, key: bytes) -> CachedAnswer | None:
            time.sleep(self.seconds)
            return super().read(row, key)

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        async with opened(path) as store:
            for n in range(100):
                store.keep(key(n), answer(b"%d" % n), START)
        file = Slow(path, 64 * MEBI)
        async with opened(path, file=file) as store:
            file.seconds = embedded.READ_S + 0.5
            loop = asyncio.get_running_loop()
            before = loop.time()
            told = await asyncio.gather(*(found(store, key(n)) for n in range(100)))
            assert told == [None] * 100
            assert embedded.READ_S <= loop.time() - before < embedded.READ_S + 0.4
            assert sample(store, "failures_total") == 100
            file.seconds = 0.0
            await until(lambda: not store._questions)
            # The one that was read too late is in memory now.
            assert await found(store, key(0)) == answer(b"0")

    asyncio.run(main())


def test_an_answer_that_expires_while_it_is_read_is_not_given(tmp_path: Path) -> None:
    """What counts is when it is told."""

    class Slow(AnswerFile):
        def read(self, row: int, key: bytes) -> CachedAnswer | None:
            time.sleep(0.2)
            return super().read(row, key)

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        async with opened(path) as store:
            store.keep(key(1), answer(), START)
        async with opened(path, file=Slow(path, 64 * MEBI)) as store:
            assert await found(store, key(1), START + MINUTE - SECOND // 10) is None
            assert await found(store, key(1), START + MINUTE - SECOND) == answer()

    asyncio.run(main())


def test_a_flush_while_the_index_is_read_takes_all_of_it(tmp_path: Path) -> None:
    """It is told when the rest was looked at, too, and what is kept meanwhile stays."""

    async def main() -> None:
        path = tmp_path / "cache.sqlite3"
        async with opened(path) as store:
            for n in range(2_000):
                store.keep(key(n), answer(b"%d" % n, LABELS._replace(project=str(n % 2))), START)
                if n % 500 == 499:
                    await written(store)
        disk = Disk(AnswerFile(path, 64 * MEBI))
        store = EmbeddedStore(64 * MEBI, disk, asyncio.get_running_loop(), lambda: START)
        told: list[tuple[int, str]] = []
        store.flush(LABELS._replace(model="", project="1"), lambda *said: told.append(said))
        store.keep(key(1), answer(b"since", LABELS._replace(project="1")), START)
        assert store._loading
        await until(lambda: bool(told))
        assert told == [(1_000, "")]
        assert sample(store, "entries") == 1_001
        assert (await found(store, key(1))).body == b"since"  # type: ignore[union-attr]
        store.close()
        async with opened(path) as store:
            assert sample(store, "entries") == 1_001

    asyncio.run(main())


def test_what_does_not_fit_into_memory_is_read_from_the_disk(tmp_path: Path) -> None:
    """Two tenants: the one with few answers has them in memory, whatever the other does."""

    async def main() -> None:
        async with opened(tmp_path / "cache.sqlite3", memory=2 * MEBI) as store:
            for n in range(10):
                store.keep(key(n), answer(b"quiet %d" % n, LABELS._replace(project="quiet")), START)
            for n in range(100, 400):
                store.keep(key(n), answer(b"loud" * 5_000, LABELS._replace(project="loud")), START)
                if n % 20 == 0:
                    await written(store)
            assert sample(store, "bytes") <= 2 * MEBI
            assert sample(store, "entries") == 310
            assert all(store.find(key(n), START, print) is not None for n in range(10))
            for n in range(100, 400):
                assert await found(store, key(n)) is not None
            assert all(isinstance(store.find(key(n), START, print), CachedAnswer) for n in range(10))
            assert sample(store, "bytes") <= 2 * MEBI

    asyncio.run(main())


def test_what_has_expired_is_forgotten_though_nobody_asks(tmp_path: Path) -> None:
    """A few seconds later, in memory and on disk."""

    async def main() -> None:
        clock = [START]
        disk = Disk(AnswerFile(tmp_path / "cache.sqlite3", MEBI))
        store = EmbeddedStore(MEBI, disk, asyncio.get_running_loop(), lambda: clock[0])
        store.keep(key(1), answer(), START)
        clock[0] += MINUTE
        await until(lambda: sample(store, "entries") == 0, embedded.EXPIRE_S + 2)
        assert sample(store, "disk_bytes") == 0
        store.close()

    asyncio.run(main())
