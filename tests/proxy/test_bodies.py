"""Bodies that come slowly, to nobody, or too many at once; answers that do not fit the usual form."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec import structs

from dialects.recordings import wav
from fakes import JournalAround
from faregate.control import Load
from faregate.core.ledger.events import Event, Intended, Lost, Settled
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.journal.answers import FileAnswerStore
from faregate.ports import StoredAnswer
from gates import RunningGate, allowances, deployment, key, money, provider, running_gate, scenario, secret

Writer = asyncio.StreamWriter
Provide = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def head(length: int, name: str = "caller", path: str = "/v1/chat/completions", version: str = "1.1") -> bytes:
    """The head of a call whose body has ``length`` bytes."""
    lines = [
        f"POST {path} HTTP/{version}",
        "host: gate",
        f"authorization: Bearer {secret(name)}",
        "content-type: application/json",
        f"content-length: {length}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def body(text: str = "Say hello.", **fields: Any) -> bytes:
    """The body of a call."""
    call = {"model": "sim-1", "messages": [{"role": "user", "content": text}], "max_tokens": 50}
    return json.dumps(call | fields).encode()


async def dial(running: RunningGate) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw connection to the gate."""
    return await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))


async def status(reader: asyncio.StreamReader) -> int:
    """The status of the answer that comes next."""
    line = await asyncio.wait_for(reader.readline(), 5)
    return int(line.split()[1])


def json_provider(answer: bytes, code: int = 200) -> Provide:
    """A provider that answers every call with the same bytes, in two pieces."""

    async def provide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n" % code)
        writer.write(b"content-length: %d\r\n\r\n" % len(answer) + answer[:1000])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(answer[1000:])
        writer.close()

    return provide


async def url_of(provide: Provide) -> tuple[asyncio.Server, str]:
    """Start a provider, and say where it is."""
    server = await asyncio.start_server(provide, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


# -- bodies of callers ------------------------------------------------------------------------------------------------


@scenario
async def test_a_stranger_is_refused_before_its_body_is_received(tmp_path: Path) -> None:
    """An unknown key is answered when its head and a little of its body have come, and nothing stays in memory."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        writer.write(head(5_000_000, "stranger") + b"x" * 1000)

        assert await status(reader) == 401
        writer.close()
        await running.until(lambda: running.gate.connections == 0)
        assert running.gate.held_bytes == 0


@scenario
async def test_a_stranger_reads_its_refusal_though_it_sends_everything(tmp_path: Path) -> None:
    """A client that only reads after it has sent all of a large body finds the answer, not a broken connection."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        writer.write(head(5_000_000, "stranger"))
        for _ in range(50):
            writer.write(b"x" * 100_000)
            await writer.drain()

        assert await status(reader) == 401
        writer.close()


@scenario
async def test_a_stranger_that_never_stops_is_cut_off(tmp_path: Path) -> None:
    """A refused client gets a moment to read its answer, and then its connection is closed whatever it sends."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        writer.write(head(5_000_000, "stranger") + b"x")

        assert await status(reader) == 401
        await running.until(lambda: running.gate.connections == 0, 8)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@scenario
async def test_an_early_refusal_has_the_shape_of_its_path(tmp_path: Path) -> None:
    """A stranger on an Azure path is told so as Azure tells it."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        path = "/openai/deployments/sim-1/chat/completions?api-version=2024-10-21"
        writer.write(head(5_000_000, "stranger", path) + b"x")

        assert await status(reader) == 401
        rest = await asyncio.wait_for(reader.read(8192), 5)
        assert b'"innererror":{"code":"auth_invalid"}' in rest
        writer.close()


@scenario
async def test_all_bodies_together_have_a_bound(tmp_path: Path) -> None:
    """When more bodies are coming in than the memory set aside for them, the next one is refused; all others go on."""
    async with running_gate(tmp_path, held_bodies_bytes_max=100_000, held_body_bytes_max=50_000) as running:
        whole = body("x" * 60_000)
        one_reader, one = await dial(running)
        one.write(head(len(whole)) + whole[:55_000])
        await running.until(lambda: running.gate.held_bytes == 55_000)
        other_reader, other = await dial(running)
        other.write(head(len(whole)) + whole[:55_000])

        assert await status(other_reader) == 503
        one.write(whole[55_000:])
        assert await status(one_reader) == 200
        for writer in (one, other):
            writer.close()
        await running.until(lambda: running.gate.connections == 0)
        assert running.gate.held_bytes == 0


async def sending(running: RunningGate, name: str, size: int = 40_000) -> tuple[asyncio.StreamReader, Writer]:
    """A client that has sent ``size`` bytes of a body of 60,000 and stops there."""
    reader, writer = await dial(running)
    before = running.gate.held_bytes
    writer.write(head(60_000, name) + body("x" * 50_000)[:size])
    await running.until(lambda: running.gate.held_bytes == before + size)
    return reader, writer


@scenario
async def test_one_key_cannot_take_the_memory_of_all_bodies(tmp_path: Path) -> None:
    """Its slow bodies are refused beyond its share; its others go on, and other keys find room."""
    callers = (key(), key("other"))
    async with running_gate(
        tmp_path, keys=callers, held_bodies_bytes_max=160_000, held_body_bytes_max=50_000, key_bodies_bytes_max=100_000
    ) as running:
        slow = [await sending(running, "caller") for _ in range(2)]
        reader, writer = await dial(running)
        writer.write(head(60_000) + b"x" * 40_000)
        refusal = await asyncio.wait_for(reader.read(8192), 5)
        _, other = await sending(running, "other")

        assert refusal.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 1\r\n" in refusal
        assert b'"code":"concurrency_limited"' in refusal
        assert b"raise gateway.key_bodies_bytes_max" in refusal
        assert running.gate.coming == {"key_caller": 80_000, "key_other": 40_000}
        for each in (writer, other, *(writer for _, writer in slow)):
            each.close()
        await running.until(lambda: running.gate.connections == 0)
        assert (running.gate.coming, running.gate.held_bytes) == ({}, 0)


@scenario
async def test_a_body_leaves_its_keys_share_when_it_is_whole(tmp_path: Path) -> None:
    """What is at a provider is bounded by limits: only what still comes in is in the share, and small bodies never."""
    release = asyncio.Event()

    async def provide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        writer.write(b"HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server, url = await url_of(provide)
    async with running_gate(tmp_path, providers=(provider(url),), key_bodies_bytes_max=60_000) as running:
        whole = body("x" * 50_000)
        clients = []
        for _ in range(3):
            reader, writer = await dial(running)
            writer.write(head(len(whole)) + whole[:40_000])
            await running.until(lambda: running.gate.coming == {"key_caller": 40_000})
            writer.write(whole[40_000:])
            await running.until(lambda: running.gate.coming == {})
            clients.append((reader, writer))
        _, small = await dial(running)
        small.write(head(60_000) + b"x" * 10_000)
        await running.until(lambda: any(client._parser.body_bytes == 10_000 for client in running.gate._connections))

        assert running.gate.coming == {}
        assert running.gate.held_bytes == 3 * len(whole)
        release.set()
        assert [await status(reader) for reader, _ in clients] == [500, 500, 500]
        assert (running.gate.coming, running.gate.held_bytes) == ({}, 0)
        for each in (small, *(writer for _, writer in clients)):
            each.close()
    server.close()


@scenario
async def test_every_end_of_a_body_gives_its_share_back(tmp_path: Path) -> None:
    """Whether its client leaves, breaks the framing, is too slow or too long, or the gate drains: nothing is left."""
    async with running_gate(tmp_path, body_bytes_max=70_000, body_grace_ms=1_500) as running:

        async def given_back(reader: asyncio.StreamReader | None = None, expected: int = 0) -> None:
            if reader is not None:
                assert await status(reader) == expected
            await running.until(lambda: running.gate.coming == {} and running.gate.held_bytes == 0)

        _, leaving = await sending(running, "caller")
        assert running.gate.coming == {"key_caller": 40_000}
        leaving.close()
        await given_back()
        chunked = head(0).replace(b"content-length: 0", b"transfer-encoding: chunked")
        for more, expected in ((b"odd\r\n", 400), (b"%x\r\n" % 40_000 + b"x" * 40_000, 413), (b"", 408)):
            reader, writer = await dial(running)
            writer.write(chunked + b"%x\r\n" % 40_000 + b"x" * 40_000 + b"\r\n")
            await running.until(lambda: running.gate.coming == {"key_caller": 40_000})
            writer.write(more)
            await given_back(reader, expected)
            writer.close()
        _, waiting = await sending(running, "caller")
        assert running.gate.coming == {"key_caller": 40_000}
        running.gate.drain()
        await given_back()
        waiting.close()


@scenario
async def test_each_body_of_a_connection_is_in_the_share_of_its_own_key(tmp_path: Path) -> None:
    """A connection that several keys use, one after the other, moves nothing into another's share."""
    async with running_gate(tmp_path, keys=(key(), key("other")), body_grace_ms=60_000) as running:
        reader, writer = await dial(running)
        whole = body("x" * 2_000)
        writer.write(head(len(whole)))
        await asyncio.sleep(0.05)
        writer.write(whole)
        assert await status(reader) == 200
        lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).lower()
        await reader.readexactly(int(lines.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.write(head(60_000, "other") + b"x" * 40_000)
        await running.until(lambda: running.gate.held_bytes == 40_000)

        assert running.gate.coming == {"key_other": 40_000}
        writer.close()
        await running.until(lambda: running.gate.connections == 0)
        assert (running.gate.coming, running.gate.held_bytes) == ({}, 0)


@scenario
async def test_a_fast_beginning_buys_no_silence(tmp_path: Path) -> None:
    """A body that comes fast and then stalls is ended when it has stalled, and takes no memory any more."""
    async with running_gate(tmp_path, body_grace_ms=300) as running:
        reader, writer = await dial(running)
        writer.write(head(500_000) + b"x" * 400_000)

        assert await status(reader) == 408
        writer.close()
        await running.until(lambda: running.gate.connections == 0)
        assert running.gate.held_bytes == 0


@scenario
async def test_small_bodies_pass_while_large_ones_fill_the_bound(tmp_path: Path) -> None:
    """A short call in two packets needs none of the memory that large bodies share."""
    async with running_gate(tmp_path, held_bodies_bytes_max=50_000, held_body_bytes_max=50_000) as running:
        _, large = await dial(running)
        large.write(head(100_000) + b"x" * 49_000)
        await running.until(lambda: running.gate.held_bytes == 49_000)
        reader, writer = await dial(running)
        whole = body("x" * 2_000)
        writer.write(head(len(whole)) + whole[:1_500])
        await asyncio.sleep(0.05)
        writer.write(whole[1_500:])

        assert await status(reader) == 200
        large.close()
        writer.close()


@scenario
async def test_a_slow_body_is_the_same_call(tmp_path: Path) -> None:
    """A body in many pieces behind its head is one call, and the next on the same connection another."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        for _ in range(2):
            whole = body("x" * 3000)
            writer.write(head(len(whole)))
            for at in range(0, len(whole), 500):
                writer.write(whole[at : at + 500])
                await writer.drain()
                await asyncio.sleep(0.01)
            assert await status(reader) == 200
            lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).lower()
            length = int(lines.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await asyncio.wait_for(reader.readexactly(length), 5)

        assert [event.status for event in running.of(Settled)] == ["ok", "ok"]
        assert running.gate.held_bytes == 0
        writer.close()


# -- answers ----------------------------------------------------------------------------------------------------------


@scenario
async def test_a_client_of_http_1_0_gets_its_stream_without_chunks(tmp_path: Path) -> None:
    """It does not know chunks, so its answer ends with its connection (RFC 9112 section 6.3)."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        whole = body(stream=True)
        writer.write(head(len(whole), version="1.0") + whole)
        answer = await asyncio.wait_for(reader.read(-1), 5)

        lines, _, events = answer.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in lines.lower()
        assert events.startswith(b"data: {")
        assert events.endswith(b"data: [DONE]\n\n")
        writer.close()


@scenario
async def test_a_huge_error_is_not_passed_on(tmp_path: Path) -> None:
    """An error is searched for our credential before it passes; one too large for that ends as 502."""
    server, url = await url_of(json_provider(b'{"error": "sk-provider' + b"x" * 2_000_000 + b'"}', 400))
    async with running_gate(tmp_path, providers=(provider(url),), limits=(money(10**10),)) as running:
        answer = await running.chat()

        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_protocol")
        assert b"sk-provider" not in answer.content
        await running.until(lambda: len(running.of(Settled)) == 1)
        assert (await allowances(running))["lim_money"][1] == 0
    server.close()


@scenario
async def test_a_large_answer_that_tells_no_usage_is_not_free(tmp_path: Path) -> None:
    """What passed without being held and without a report is charged up to the call's cap."""
    server, url = await url_of(json_provider(b'{"choices": [{"message": {"content": "' + b"x" * 4000 + b'"}}]}'))
    async with running_gate(tmp_path, providers=(provider(url),), held_body_bytes_max=100) as running:
        answer = await running.chat()

        assert answer.status_code == 200
        await running.until(lambda: len(running.of(Settled)) == 1)
        assert running.of(Settled)[0].usage.output_tokens == 50
    server.close()


@scenario
async def test_only_limits_that_all_clamp_shorten_an_answer(tmp_path: Path) -> None:
    """Of two limits that a call does not fit one lets it be clamped and the other does not: it is refused."""
    soft, hard = money(1_000_000, id="lim_soft", clamp=True), money(1_000_000, id="lim_hard")
    async with running_gate(tmp_path / "one", limits=(soft,)) as running:
        answer = await running.chat(max_tokens=5_000)
        assert (answer.status_code, "x-faregate-clamped" in answer.headers) == (200, True)
    async with running_gate(tmp_path / "two", limits=(soft, hard)) as running:
        answer = await running.chat(max_tokens=5_000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "budget_exhausted")


class Faulty(JournalAround):
    """A journal that fails to take a settlement in a way that nobody foresaw."""

    def append(self, event: Event) -> int:
        """Fail at the end of a call."""
        if isinstance(event, Settled):
            raise ZeroDivisionError
        return super().append(event)


@scenario
async def test_a_mistake_while_the_answer_comes_ends_the_call(tmp_path: Path) -> None:
    """A fault of the gate's own in the middle of an answer is told as one, and what the call costs stays held."""
    async with running_gate(tmp_path, limits=(money(10**10),), journal_kind=Faulty) as running:
        answer = await running.chat()

        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
        await running.until(lambda: len(running.of(Lost)) == 1)
        assert running.gate.open_answers == 0
        posted, held = (await allowances(running))["lim_money"]
        assert (posted, held > 0) == (0, True)


@scenario
async def test_a_key_revoked_while_tokens_are_counted(tmp_path: Path) -> None:
    """A call that waits for its tokens to be counted is decided by the key as it is then."""
    async with running_gate(tmp_path, limits=(money(300_000),)) as running:
        go_on = threading.Event()
        counting = running.gate._counting.submit(go_on.wait)
        waiting = asyncio.create_task(running.chat("word " * 400))
        await running.until(lambda: running.gate._counting._work_queue.qsize() == 1)
        await running.ask(Load(2, False, (key(state="revoked"),), (), (), ()))
        go_on.set()
        answer = await waiting

        assert counting.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "key_revoked")
        assert (await allowances(running))["lim_money"] == (0, 0)


@scenario
async def test_a_deployment_changed_while_tokens_are_counted(tmp_path: Path) -> None:
    """What was counted for one deployment says nothing about another: the new one's own bound is held."""
    async with running_gate(tmp_path, limits=(money(10**9),)) as running:
        go_on = threading.Event()
        running.gate._counting.submit(go_on.wait)
        waiting = asyncio.create_task(running.chat("word " * 50))
        await running.until(lambda: running.gate._counting._work_queue.qsize() == 1)
        catalogue = running.gate.snapshot.catalogue
        other = structs.replace(catalogue.deployments[0], encoding="")
        await running.ask(Load(2, False, (), (), (), (), structs.replace(catalogue, deployments=(other,))))
        go_on.set()
        answer = await waiting

        assert answer.status_code == 200
        (intended,) = running.of(Intended)
        assert intended.held.input_tokens > 250


@scenario
async def test_what_cannot_fit_is_refused_without_a_count(tmp_path: Path) -> None:
    """Where not even the answer fits, a large prompt is refused at once: counting it would keep others waiting."""
    async with running_gate(tmp_path, limits=(money(0),)) as running:
        go_on = threading.Event()
        running.gate._counting.submit(go_on.wait)
        answer = await asyncio.wait_for(running.chat("word " * 5_000), 5)
        go_on.set()

        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "budget_exhausted")


def test_a_key_with_very_many_names_pushes_out_its_own(tmp_path: Path) -> None:
    """One key's idempotent calls never make another's forgotten, neither by its own bound nor by that of all."""
    store = FileAnswerStore(tmp_path, 0, calls_per_key_max=3, calls_max=5)
    store.begin("key_a", "mine", b"", "req_0")
    for n in range(10):
        store.begin("key_b", f"name-{n}", b"", f"req_{n}")
    for n in range(4):
        store.begin("key_c", f"name-{n}", b"", f"req_{n}")

    assert store.find("key_a", "mine") is not None
    assert [n for n in range(10) if store.find("key_b", f"name-{n}")] == [9]
    assert [n for n in range(4) if store.find("key_c", f"name-{n}")] == [1, 2, 3]


def test_kept_answers_have_a_bound_on_disk(tmp_path: Path) -> None:
    """Beyond it the call is remembered and its answer is not: a repeat is told that it was completed."""
    store = FileAnswerStore(tmp_path, 0, kept_bytes_max=1000)
    states = []
    for n in range(3):
        store.begin("key_a", str(n), b"", f"req_{n}")
        store.dispatched("key_a", str(n), 1)
        store.finish("key_a", str(n), 2, StoredAnswer(200, b"", b"x" * 600))
        known = store.find("key_a", str(n))
        assert known is not None
        states.append(known.state)

    assert states == ["kept", "kept", "completed"]


@scenario
async def test_a_long_recording_is_read_aside_and_held_as_a_short_one_is(tmp_path: Path) -> None:
    """Its frames are counted on a thread of its own, and what it may cost is held before it is sent all the same."""
    rates = (Rate("seconds", 10**9, 1), *(Rate(unit, 10**6, 1) for unit in ("input_tokens", "output_tokens")))
    card = RateCard("sim", "sim-1", "sim/heard@1", (Tier(0, rates),))
    place = deployment(cards=(card,), operations=("audio.transcriptions",))
    async with running_gate(tmp_path, deployments=(place,)) as running:
        for seconds in (1, 8):
            answer = await running.client.post(
                "/v1/audio/transcriptions",
                data={"model": "sim-1"},
                files={"file": ("heard.wav", wav(16_000 * seconds)[0])},
                headers={"authorization": f"Bearer {secret('caller')}"},
            )
            assert answer.status_code == 200, answer.text

        short, long = (event.held for event in running.of(Intended))
        assert any(thread.name.startswith("read-files") for thread in threading.enumerate())
        assert (short.seconds, long.seconds) == (1, 8)
        assert 0 < short.input_tokens < long.input_tokens
