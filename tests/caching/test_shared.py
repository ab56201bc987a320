"""A cache server that dies, stalls, forgets, or holds what we did not write: nothing wrong, and nobody waits."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from caching.stores import LABELS, MINUTE, SECOND, START, answer, flushed, found, key, sample, until
from faregate.caching import shared
from faregate.caching.breaker import FAILURES_MAX, REST_S, Breaker
from faregate.caching.sealing import HEADER_BYTES, VALUE_BYTES_MAX, Seal, name_of
from faregate.caching.shared import SharedStore
from faregate.ports import CachedAnswer, Later
from redis_server import RedisServer, redis_server

#: Of look-ups here, and what a busy machine may add.
TIMEOUT_MS, SLACK_S = 100, 0.4
SECRET = b"a secret of this installation"
CERTIFICATES = Path(__file__).parent.parent / "config" / "certificates"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.wipe()
    return running


@asynccontextmanager
async def opened(
    server: RedisServer, secret: bytes = SECRET, timeout_ms: int = TIMEOUT_MS
) -> AsyncIterator[SharedStore]:
    store = SharedStore(server.url, secret, timeout_ms, asyncio.get_running_loop())
    await until(lambda: store._looks[0].load == 0)
    try:
        yield store
    finally:
        store.close()
        await asyncio.sleep(0.01)


async def keep(store: SharedStore, n: int, kept: CachedAnswer, now: int = START) -> None:
    store.keep(key(n), kept, now)
    await until(lambda: store._writes.load == 0)


async def timed(store: SharedStore, n: int) -> tuple[CachedAnswer | None, float]:
    """What is found, and after how many seconds."""
    before = time.monotonic()
    return await found(store, key(n)), time.monotonic() - before


def test_gateways_with_one_secret_share_what_they_keep(server: RedisServer) -> None:
    """And forget it together."""

    async def main() -> None:
        async with opened(server) as one, opened(server) as other:
            await keep(one, 1, answer(b"shared"))
            assert await found(other, key(1)) == answer(b"shared")
            assert await flushed(other, organization="acme") == (1, "")
            assert await found(one, key(1)) is None

    asyncio.run(main())


def test_the_server_forgets_by_itself_what_has_expired(server: RedisServer) -> None:
    """Each value has its time there, too."""

    async def main() -> None:
        async with opened(server) as store:
            await keep(store, 1, answer(expires_at=START + 30 * SECOND))
            assert 29_000 < server.client.pttl(name_of(key(1))) <= 30_000
            await keep(store, 2, answer(expires_at=START + SECOND // 50))
            await until(lambda: server.names() == [name_of(key(1))])

    asyncio.run(main())


def test_the_server_sees_nothing_of_what_was_said(server: RedisServer) -> None:
    """Neither the answer nor any label."""

    async def main() -> None:
        async with opened(server) as store:
            await keep(store, 1, answer(b"what somebody was told"))
            value = server.client.get(name_of(key(1)))
            words = [b"what somebody was told", b"json", b"req_1", *(each.encode() for each in LABELS)]
            assert [word for word in words if word in value] == []

    asyncio.run(main())


def test_what_was_not_written_for_a_key_is_not_given_for_it(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Every bit changed, cut, moved under another key, of another secret, or anybody's at all."""

    async def main() -> None:
        async with opened(server) as store, opened(server, b"another secret") as stranger:
            await keep(store, 1, answer(b"mine"))
            await keep(stranger, 3, answer(b"not mine"))
            value = server.client.get(name_of(key(1)))
            client = server.client
            for at in range(len(value)):
                client.set(name_of(key(2)), value[:at] + bytes([value[at] ^ 1 << at % 8]) + value[at + 1 :])
                client.rename(name_of(key(2)), name_of(key(1)))
                assert await found(store, key(1)) is None
            for wrong in (value[:-1], value + b"\0", value[:HEADER_BYTES], value[: HEADER_BYTES + 20], b"x"):
                client.set(name_of(key(1)), wrong)
                assert await found(store, key(1)) is None
            client.set(name_of(key(2)), value)
            assert await found(store, key(2)) is None
            assert await found(store, key(3)) is None
            client.delete(name_of(key(1)))
            client.lpush(name_of(key(1)), value)
            assert await found(store, key(1)) is None
            assert sample(store, "failures_total") == len(value) + 8
            client.delete(name_of(key(1)))
            client.set(name_of(key(1)), value)
            assert await found(store, key(1)) == answer(b"mine")

    asyncio.run(main())
    assert [each.message for each in caplog.records] == ["cache_value_foreign", "cache_server_refused"]


def test_a_value_longer_than_any_of_ours_is_not_fetched(server: RedisServer) -> None:
    """Somebody's 200 MB under our name cost us one of ours."""

    async def main() -> None:
        async with opened(server, timeout_ms=5_000) as store:
            server.client.setrange(name_of(key(1)), 200_000_000, b"x")
            before = server.client.info("stats")["total_net_output_bytes"]
            assert await found(store, key(1)) is None
            assert server.client.info("stats")["total_net_output_bytes"] - before < VALUE_BYTES_MAX + 10_000

    asyncio.run(main())


def test_a_flush_fetches_no_answers_and_leaves_what_others_keep(server: RedisServer) -> None:
    """Values of other programs, of other secrets, and of no text at all."""

    async def main() -> None:
        async with opened(server) as store, opened(server, b"another secret") as stranger:
            for n in range(30):
                await keep(store, n, answer(b"x" * 500_000))
            await keep(stranger, 100, answer())
            server.client.set("faregate:mine", "short")
            server.client.lpush("faregate:list", "no text")
            server.client.set("theirs", "x" * 100)
            before = server.client.info("stats")["total_net_output_bytes"]
            assert await flushed(store) == (30, "")
            assert server.client.info("stats")["total_net_output_bytes"] - before < 100_000
            assert server.names() == [name_of(key(100)), b"faregate:list", b"faregate:mine", b"theirs"]

    asyncio.run(main())


def test_a_flush_of_many_parts_takes_all(server: RedisServer) -> None:
    """More names than the server tells in one go."""

    async def main() -> None:
        async with opened(server, timeout_ms=5_000) as store:
            for n in range(1_300):
                store.keep(key(n), answer(labels=LABELS._replace(project=str(n % 3))), START)
                if n % 100 == 99:
                    await until(lambda: store._writes.load == 0)
            await until(lambda: store._writes.load == 0)
            assert await flushed(store, project="1") == (433, "")
            assert len(server.names()) == 1_300 - 433

    asyncio.run(main())


def test_a_server_that_lost_everything_has_nothing(server: RedisServer) -> None:
    """And takes what is kept afterwards."""

    async def main() -> None:
        async with opened(server) as store:
            await keep(store, 1, answer())
            server.wipe()
            assert await found(store, key(1)) is None
            await keep(store, 1, answer(b"again"))
            assert await found(store, key(1)) == answer(b"again")
            assert sample(store, "failures_total") == 0

    asyncio.run(main())


def test_a_server_that_was_started_again_is_used_at_once(server: RedisServer) -> None:
    """Connections that it closed meanwhile cost no look-up."""

    async def main() -> None:
        async with opened(server) as store:
            await keep(store, 1, answer())
            server.kill()
            assert server.start()
            assert await found(store, key(1)) is None
            await keep(store, 1, answer(b"again"))
            assert await found(store, key(1)) == answer(b"again")
            assert sample(store, "failures_total") == 0

    asyncio.run(main())


def test_a_server_that_is_dead_costs_nothing(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """It is asked a few times, then left alone; a flush says that it did not reach it. Back, it is used again."""
    caplog.set_level("INFO", "faregate.cache")

    async def main() -> None:
        async with opened(server) as store:
            await keep(store, 1, answer())
            server.kill()
            for _ in range(FAILURES_MAX):
                told, seconds = await timed(store, 1)
                assert told is None
                assert seconds < TIMEOUT_MS / 1000 + SLACK_S
            assert store.find(key(1), START, print) is None
            store.keep(key(1), answer(), START)
            count, trouble = await flushed(store)
            assert (count, "did not answer" in trouble) == (0, True)
            assert server.start()
            rested_since = time.monotonic()
            await until(lambda: store.find(key(2), START, lambda told: None) is Later.ASKED, REST_S + 2)
            assert time.monotonic() - rested_since < REST_S + 1
            await until(lambda: not store._breaker.rests)
            await keep(store, 1, answer(b"again"))
            assert await found(store, key(1)) == answer(b"again")

    asyncio.run(main())
    assert [each.message for each in caplog.records] == ["cache_server_rests", "cache_server_back"]


def test_a_server_that_stalls_costs_a_deadline_and_then_nothing(server: RedisServer) -> None:
    """Look-ups that come at once wait no longer together than one; what is answered too late is nobody's answer."""

    async def main() -> None:
        async with opened(server) as store:
            for n in range(3):
                await keep(store, n, answer(b"%d" % n))
            server.stall()
            try:
                told = await asyncio.gather(*(timed(store, n % 3) for n in range(60)))
                assert {each for each, _ in told} == {None}
                assert max(seconds for _, seconds in told) < TIMEOUT_MS / 1000 + SLACK_S
                assert store.find(key(0), START, print) is None
                before = time.monotonic()
                for n in range(1_000):
                    store.keep(key(n), answer(b"x" * 10_000), START)
                assert time.monotonic() - before < 1
            finally:
                server.go_on()
            await until(lambda: store.find(key(3), START, lambda told: None) is Later.ASKED, REST_S + 2)
            await until(lambda: not store._breaker.rests, 2 * REST_S)
            for n in range(3):
                assert (await timed(store, n))[0] == answer(b"%d" % n)

    asyncio.run(main())


def test_a_short_stall_mixes_nobodys_answers_up(server: RedisServer) -> None:
    """Shorter than a connection is given: what comes late is dropped, and the next asks get their own."""

    async def main() -> None:
        async with opened(server) as store:
            for n in range(20):
                await keep(store, n, answer(b"%d" % n))
            for _ in range(3):
                server.stall()
                told = await asyncio.gather(*(found(store, key(n)) for n in range(FAILURES_MAX - 1)))
                server.go_on()
                assert told == [None] * (FAILURES_MAX - 1)
                await until(lambda: all(lane.load == 0 for lane in store._looks))
                told = await asyncio.gather(*(found(store, key(n)) for n in range(20)))
                assert told == [answer(b"%d" % n) for n in range(20)]

    asyncio.run(main())


def test_no_more_than_so_many_ask_at_once(server: RedisServer) -> None:
    """The others are told at once that there is nothing, and connections are few."""

    async def main() -> None:
        async with opened(server, timeout_ms=3_000) as store:
            await keep(store, 1, answer())
            told: list[CachedAnswer | None] = []
            said = [store.find(key(1), START, told.append) for _ in range(shared.LOOKS_MAX + 50)]
            assert said == [Later.ASKED] * shared.LOOKS_MAX + [None] * 50
            await until(lambda: len(told) == shared.LOOKS_MAX)
            assert set(told) == {answer()}
            assert server.client.info("clients")["connected_clients"] <= shared.LOOK_LANES + 3

    asyncio.run(main())


def test_what_waits_to_be_written_is_bounded(server: RedisServer) -> None:
    """By number and by bytes; the rest is dropped and counted."""

    async def main() -> None:
        async with opened(server) as store:
            for n in range(100):
                store.keep(key(n), answer(b"x" * 1_000_000), START)
            assert store._writes.bytes <= shared.WRITES_BYTES_MAX
            dropped = sample(store, "failures_total")
            assert dropped >= 60
            for n in range(1_000):
                store.keep(key(n), answer(), START)
            assert store._writes.load <= shared.WRITES_MAX

    asyncio.run(main())


def test_a_server_that_has_no_room_is_no_trouble(server: RedisServer) -> None:
    """It refuses to keep, and what it has it gives."""

    async def main() -> None:
        async with opened(server) as store:
            await keep(store, 1, answer())
            server.client.config_set("maxmemory", 1)
            server.client.config_set("maxmemory-policy", "noeviction")
            try:
                await keep(store, 2, answer())
                assert await found(store, key(1)) == answer()
                assert await found(store, key(2)) is None
                assert sample(store, "failures_total") == 1
            finally:
                server.client.config_set("maxmemory", 0)

    asyncio.run(main())


def test_a_server_that_drops_answers_for_want_of_room_is_no_trouble(server: RedisServer) -> None:
    """It keeps answers alone: one that it dropped is asked for again, and those that are left are right."""

    async def main() -> None:
        async with opened(server, timeout_ms=5_000) as store:
            used = server.client.info("memory")["used_memory"]
            server.client.config_set("maxmemory-policy", "allkeys-lru")
            server.client.config_set("maxmemory", used + 2_500_000)
            try:
                for n in range(6):
                    await keep(store, n, answer(b"x" * 1_000_000))
                kept = [await found(store, key(n)) for n in range(6)]
                assert set(kept) == {None, answer(b"x" * 1_000_000)}
                assert sample(store, "failures_total") == 0
            finally:
                server.client.config_set("maxmemory", 0)
                server.client.config_set("maxmemory-policy", "noeviction")

    asyncio.run(main())


def test_a_node_of_a_cluster_keeps_what_is_its_own(tmp_path: Path) -> None:
    """Of what belongs to other nodes nothing is found and nobody waits; a flush that is refused says so."""

    async def main(server: RedisServer) -> None:
        async with opened(server, timeout_ms=5_000) as store:
            for n in range(20):
                await keep(store, n, answer())
            kept = [await found(store, key(n)) for n in range(20)]
            assert set(kept) == {None, answer()}
            assert sample(store, "failures_total") > 0
            assert (await flushed(store))[1].startswith("The cache server refused: ")

    options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    with redis_server(tmp_path, *options) as server:
        server.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        asyncio.run(until(lambda: server.client.cluster("INFO")["cluster_state"] == "ok"))
        asyncio.run(main(server))


def test_a_server_that_wants_a_password_is_like_one_that_is_away(server: RedisServer) -> None:
    """Without it nothing is found, and a flush says so; with it all is well."""

    async def main() -> None:
        server.client.config_set("requirepass", "hunter2")
        try:
            async with opened(server) as store:
                assert await found(store, key(1)) is None
                assert (await flushed(store))[1] != ""
            url = server.url.replace("redis://", "redis://:hunter2@")
            store = SharedStore(url, SECRET, 5_000, asyncio.get_running_loop())
            await keep(store, 1, answer())
            assert await found(store, key(1)) == answer()
            assert "hunter2" not in repr(vars(store))
            store.close()
            await asyncio.sleep(0.01)
        finally:
            server.client.execute_command("AUTH", "hunter2")
            server.client.config_set("requirepass", "")

    asyncio.run(main())


def test_an_answer_that_expires_on_its_way_is_not_given(server: RedisServer) -> None:
    """Though the server still has it."""

    async def main() -> None:
        async with opened(server, timeout_ms=3_000) as store:
            await keep(store, 1, answer(expires_at=START + MINUTE))
            told: list[CachedAnswer | None] = []
            server.stall()
            store.find(key(1), START + MINUTE - SECOND // 10, told.append)
            await asyncio.sleep(0.2)
            server.go_on()
            await until(lambda: bool(told))
            assert told == [None]

    asyncio.run(main())


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "127.0.0.1:6379", "redis://127.0.0.1:many"])
def test_a_url_that_names_no_such_server_is_refused(url: str) -> None:
    """When the store is made, and not at the first call."""

    async def main() -> None:
        with pytest.raises(ValueError, match=r".+"):
            SharedStore(url, SECRET, 50, asyncio.get_running_loop())

    asyncio.run(main())


def test_a_name_that_resolves_to_nothing_costs_no_call(tmp_path: Path) -> None:
    """Nor does a socket that is not there."""

    async def main() -> None:
        for url in (f"unix://{tmp_path}/none.sock", "redis://127.0.0.1:1"):
            store = SharedStore(url, SECRET, 50, asyncio.get_running_loop())
            for n in range(20):
                assert (await timed(store, n))[1] < 0.05 + SLACK_S
            assert store._breaker.rests
            store.close()
            await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_breaker_lets_one_try_after_each_rest() -> None:
    """Failures in a row alone make it rest, and one success ends that."""
    breaker = Breaker()
    for _ in range(3):
        assert [breaker.failed(0.0) for _ in range(FAILURES_MAX - 1)] == [False] * (FAILURES_MAX - 1)
        assert not breaker.answered()
    assert [breaker.failed(10.0) for _ in range(FAILURES_MAX)][-1]

    assert not breaker.may_ask(10.0 + REST_S - 0.01)
    assert [breaker.may_ask(10.0 + REST_S) for _ in range(3)] == [True, False, False]
    assert not breaker.failed(10.5 + REST_S)
    assert not breaker.may_ask(10.0 + 2 * REST_S)
    assert breaker.may_ask(10.5 + 2 * REST_S)
    assert breaker.answered()
    assert breaker.may_ask(11.0 + 2 * REST_S)


def test_the_same_answer_is_sealed_differently_each_time() -> None:
    """So nobody sees on the server that an answer came again."""
    seal = Seal(SECRET)
    one, other = seal.sealed(key(1), answer()), seal.sealed(key(1), answer())

    assert one[HEADER_BYTES:] != other[HEADER_BYTES:]
    assert seal.opened(key(1), one) == seal.opened(key(1), other) == answer()
    assert "secret" not in repr(seal)


# -- TLS ---------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def behind_tls(server: RedisServer) -> AsyncIterator[int]:
    """The server's port behind an end of TLS, whose certificate is of an authority of its own."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pass_on(reader, outer), pass_on(inner, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "good.pem", CERTIFICATES / "good.key")
    listening = await asyncio.start_server(tunnel, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


def test_a_server_behind_tls_whose_authority_the_url_names(server: RedisServer) -> None:
    """With ``rediss`` everything is the same, over a connection whose certificate was checked."""

    async def scene() -> None:
        async with behind_tls(server) as port:
            url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={CERTIFICATES / 'good.pem'}"
            store = SharedStore(url, SECRET, 1_000, asyncio.get_running_loop())
            await keep(store, 1, answer(b"over TLS"))
            kept = await found(store, key(1))
            assert kept is not None
            assert kept.body == b"over TLS"
            store.close()
            await asyncio.sleep(0.01)

    asyncio.run(scene())


def test_a_server_whose_certificate_nobody_vouches_for_is_not_asked(server: RedisServer) -> None:
    """Whoever stands between would see what is asked for: it is a server that does not answer."""

    async def scene() -> None:
        async with behind_tls(server) as port:
            store = SharedStore(f"rediss://127.0.0.1:{port}/0", SECRET, 1_000, asyncio.get_running_loop())
            await keep(store, 1, answer(b"never sent"))
            assert await found(store, key(1)) is None
            assert server.names() == []
            store.close()
            await asyncio.sleep(0.01)

    asyncio.run(scene())
