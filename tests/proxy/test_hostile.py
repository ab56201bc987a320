"""Attacks on the data plane that once worked: each must end in bounded time and memory, with nothing left held."""

import asyncio
import contextlib
import json
import os
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import JournalAround
from faregate.core.ledger.events import Settled
from faregate.journal.answers import FILE_NANOS, FileAnswerStore
from faregate.ports import StoredAnswer
from faregate.proxy.http1 import PIECES_MAX, Bounds, RequestParser
from gates import RunningGate, allowances, money, provider, running_gate, scenario, secret, steered, truth

BOUNDS = Bounds(head=8192, fields=50, uri=1024, body=1024 * 1024)
CHUNKED = b"POST /v1/completions HTTP/1.1\r\nhost: gate\r\ntransfer-encoding: chunked\r\n\r\n"
HEALTH = b"GET /health/live HTTP/1.1\r\nhost: gate\r\n\r\n"


def chat_bytes(text: str, *extra: str, stream: bool = False) -> bytes:
    """One chat call as it stands on the wire."""
    fields = {"model": "sim-1", "messages": [{"role": "user", "content": text}], "max_tokens": 500, "stream": stream}
    body = json.dumps(fields).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: gate",
        f"authorization: Bearer {secret('caller')}",
        "content-type: application/json",
        *extra,
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def dial(running: RunningGate) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw connection to the gate, for which the system keeps little that is not read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", int(running.url.rpartition(":")[2])))
    return await asyncio.open_connection(sock=client, limit=8192)


# -- framing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"0\r\nx: ", b"1\r\na\r\n0\r\nx: ", b"5;x="])
def test_a_trailer_or_chunk_extension_without_end_is_refused(start: bytes) -> None:
    """What stands around the bytes of a body is bounded like a head: the parser must not collect it for ever."""
    parser = RequestParser(BOUNDS)
    parser.feed(CHUNKED + start)
    for _ in range(4):
        parser.feed(b"a" * 4096)

    assert parser.problem is not None
    assert parser.problem.code == "header_too_large"


def test_nothing_is_collected_after_a_problem() -> None:
    """A head that is too large stays refused however much follows, without a byte of it being kept."""
    parser = RequestParser(BOUNDS)
    parser.feed(b"GET / HTTP/1.1\r\nx: " + b"a" * 9000)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(64):
        parser.feed(b"a" * 65536)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert parser.problem is not None
    assert peak - before < 1024 * 1024


@pytest.mark.parametrize("count", [1, PIECES_MAX - 1, PIECES_MAX, PIECES_MAX + 1, 3 * PIECES_MAX])
def test_a_body_of_very_many_chunks_is_the_same_body(count: int) -> None:
    """However many pieces a body comes in, its bytes are those that were sent."""
    parser = RequestParser(BOUNDS)
    pieces = [b"%02d" % (n % 100) for n in range(count)]
    parser.feed(CHUNKED + b"".join(b"2\r\n%b\r\n" % piece for piece in pieces) + b"0\r\n\r\n")

    assert parser.ready[0].body == b"".join(pieces)


def test_an_upgrade_is_one_refused_request() -> None:
    """A request that asks for another protocol is refused itself, never served without its body."""
    parser = RequestParser(BOUNDS)
    head = b"POST /v1/completions HTTP/1.1\r\nhost: gate\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
    parser.feed(head + b"content-length: 2\r\n\r\n{}")
    codes = [request.problem.code for request in parser.ready if request.problem is not None]

    assert (len(parser.ready), codes) == (1, ["bad_framing"])


@scenario
async def test_a_head_without_end_behind_a_running_call(tmp_path: Path) -> None:
    """While a call runs its connection is read no further than one refused head; the call ends, then the connection."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        writer.write(chat_bytes(steered(first_delay_ms=700)) + b"GET / HTTP/1.1\r\nx: ")
        sent = 0
        try:
            async with asyncio.timeout(0.5):
                while True:
                    writer.write(b"a" * 65536)
                    await writer.drain()
                    sent += 65536
                    await asyncio.sleep(0)
        except TimeoutError:
            pass
        answer = await reader.read(64 * 1024)
        writer.close()

        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        # What the kernel buffers is not the gate's; without back-pressure this would be gigabytes.
        assert sent < 64 * 1024 * 1024
        assert len(running.of(Settled)) == 1


# -- answers ----------------------------------------------------------------------------------------------------------


@scenario
async def test_a_pipeline_whose_answers_nobody_reads(tmp_path: Path) -> None:
    """A client that asks without reading is not asked for more: its answers fill one buffer, not the memory."""
    async with running_gate(tmp_path, slow_reader_ms=1_500) as running:
        _, writer = await dial(running)
        sending = asyncio.create_task(_send(writer, HEALTH * 100_000))
        await running.until(lambda: any(client.paused_since for client in running.gate._connections))
        await asyncio.sleep(0.3)
        waiting = max(client.transport.get_write_buffer_size() for client in running.gate._connections)

        assert 64 * 1024 < waiting < 128 * 1024
        assert (await running.client.get("/health/live")).status_code == 200
        # It is cut in the end, and leaves nothing behind.
        await running.until(lambda: running.gate.connections <= 1)
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await sending


@scenario
async def test_a_pipeline_is_answered_whole_once_it_is_read(tmp_path: Path) -> None:
    """Pausing in the middle of a pipeline loses no request and answers none twice."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        count = 20_000
        sending = asyncio.create_task(_send(writer, HEALTH * count))
        await running.until(lambda: any(client.paused_since for client in running.gate._connections))
        answers = 0
        while answers < count:
            await reader.readuntil(b'{"status":"ok"}')
            answers += 1
        await sending
        writer.write(HEALTH.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        rest = await reader.read()
        writer.close()

        assert rest.count(b"HTTP/1.1 200 OK") == 1


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


@scenario
async def test_leave_to_send_a_body_waits_for_the_answer_before(tmp_path: Path) -> None:
    """``100 Continue`` for a second request never stands in the middle of the first one's stream."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        writer.write(chat_bytes(steered(output_tokens=20, delay_ms=20), stream=True))
        first = await reader.readuntil(b"data: ")
        head, _, body = chat_bytes("Again.", "expect: 100-continue", "connection: close").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        first += await reader.readuntil(b"0\r\n\r\n")
        leave = await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        second = await reader.read()
        writer.close()

        assert b"100 Continue" not in first
        assert leave == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert second.startswith(b"HTTP/1.1 200 OK\r\n")


@scenario
async def test_an_answer_to_head_has_no_body(tmp_path: Path) -> None:
    """A refused HEAD leaves no bytes that would be read as the next answer on the connection."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        writer.write(HEALTH.replace(b"GET", b"HEAD") + HEALTH)
        first = await reader.readuntil(b"\r\n\r\n")
        second = await reader.readuntil(b"\r\n\r\n")
        writer.close()

        assert first.startswith(b"HTTP/1.1 405 ")
        assert second.startswith(b"HTTP/1.1 200 OK\r\n")


@scenario
async def test_a_last_answer_that_nobody_reads_does_not_keep_its_connection(tmp_path: Path) -> None:
    """Closing waits for a reader only as long as a slow one is borne, however little is left to read."""
    async with running_gate(tmp_path, slow_reader_ms=500) as running:
        _, writer = await dial(running)
        await running.until(lambda: running.gate.connections == 1)
        client = next(iter(running.gate._connections))
        # Fill what the kernel takes, then leave a little in the gate's own buffer, below the mark of a slow reader.
        while not client.transport.get_write_buffer_size():
            client.write(b"x" * 16_384)
        writer.write(b"nonsense\r\n\r\n")

        await running.until(lambda: running.gate.connections == 0)
        writer.transport.abort()


# -- replays ----------------------------------------------------------------------------------------------------------


@scenario
async def test_a_stream_that_its_client_left_is_not_replayed_as_whole(tmp_path: Path) -> None:
    """Half an answer is never kept under an ``Idempotency-Key``; the call is told to be over."""
    headers = {"idempotency-key": "order-1"}
    async with running_gate(tmp_path, limits=(money(10**10),)) as running:
        text = steered(output_tokens=200, delay_ms=10)
        reader, writer = await dial(running)
        call = chat_bytes(text, "idempotency-key: order-1", stream=True)
        writer.write(call)
        await reader.readuntil(b"data: ")
        await reader.readuntil(b"data: ")
        writer.transport.abort()
        await running.until(lambda: len(running.of(Settled)) == 1)
        await asyncio.sleep(0.05)
        again = await running.client.post(
            "/v1/chat/completions",
            content=call.partition(b"\r\n\r\n")[2],
            headers={"authorization": f"Bearer {secret('caller')}", "content-type": "application/json"} | headers,
        )

        assert (again.status_code, again.json()["error"]["code"]) == (409, "idem_completed")
        assert len(await truth(running)) == 1
        assert (await allowances(running))["lim_money"][1] == 0


async def _large_provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers in two pieces with a pause between."""
    await reader.readuntil(b"\r\n\r\n")
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    body = json.dumps({"choices": [{"message": {"content": "x" * 2000}}], "usage": usage}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
    writer.write(body[:1000])
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.write(body[1000:])
    writer.close()


@scenario
async def test_an_answer_too_large_to_hold_is_not_replayed_as_empty(tmp_path: Path) -> None:
    """What passed without being held cannot be told again, and says so."""
    headers = {"idempotency-key": "order-2"}
    server = await asyncio.start_server(_large_provider, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with running_gate(tmp_path, held_body_bytes_max=100, providers=(provider(url),)) as running:
        first = await running.chat(headers=headers)
        again = await running.chat(headers=headers)

        assert len(first.json()["choices"][0]["message"]["content"]) == 2000
        assert (again.status_code, again.json().get("error", {}).get("code")) == (409, "idem_completed")
    server.close()


def test_a_store_of_answers_that_cannot_open_its_next_file_writes_nowhere(tmp_path: Path) -> None:
    """Its old descriptor's number may be a client's socket by then: it must not be written to, nor must a call fail."""
    folder = tmp_path / "answers"
    store = FileAnswerStore(folder, 0)
    store.begin("key_a", "one", b"", "req_1")
    store.dispatched("key_a", "one", 1)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    store.begin("key_a", "two", b"", "req_2")
    store.dispatched("key_a", "two", FILE_NANOS + 2)
    # The number that the closed file had is the next one given out.
    reader, other = os.pipe()
    os.set_blocking(reader, False)
    store.finish("key_a", "two", FILE_NANOS + 3, StoredAnswer(200, b"", b"secret"))
    with pytest.raises(BlockingIOError):
        os.read(reader, 100)
    os.close(reader)
    os.close(other)

    known = store.find("key_a", "two")
    assert known is not None
    assert known.state == "completed"


# -- races with the disk and the provider -----------------------------------------------------------------------------


class Slow(JournalAround):
    """A real journal whose disk answers when the test says so."""

    waiting: list[Callable[[], None]]
    slow = False

    def when_durable(self, position: int, callback: Callable[[], None]) -> None:
        """As the real one, or kept until ``go_on``."""
        if self.slow:
            self.waiting.append(callback)
        else:
            super().when_durable(position, callback)

    def go_on(self) -> None:
        """The disk has everything now."""
        self.slow = False
        for callback in self.waiting:
            callback()
        self.waiting = []


def slowed(running: RunningGate) -> Slow:
    """The journal of a gate, its disk standing still."""
    journal = running.gate.journal
    assert isinstance(journal, Slow)
    journal.waiting = []
    journal.slow = True
    return journal


@pytest.mark.parametrize("policy", ["", "estimate", "no_bill"])
@scenario
async def test_a_client_that_leaves_while_its_intent_goes_to_disk(tmp_path: Path, policy: str) -> None:
    """Nothing is sent for it, nothing is charged, nothing stays held, and the provider's connection lives on."""
    async with running_gate(
        tmp_path,
        limits=(money(10**10),),
        durability="power",
        journal_kind=Slow,
        provider_fields={"client_gone": policy},
    ) as running:
        journal = slowed(running)
        _, writer = await dial(running)
        writer.write(chat_bytes("Say hello."))
        await running.until(lambda: len(journal.waiting) == 1)
        writer.transport.abort()
        await running.until(lambda: running.gate.connections == 0)
        journal.go_on()
        await running.until(lambda: len(running.of(Settled)) == 1)
        served = await truth(running)
        settled = running.of(Settled)[0]

        assert served == []
        assert (settled.status, settled.cost) == ("aborted", 0)
        assert (await allowances(running))["lim_money"] == (0, 0)
        # Its end waits for the disk, too.
        await running.until(lambda: running.gate.open_answers == 0)
        assert (await running.chat()).status_code == 200


async def _cutting_provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ends its stream with ``[DONE]`` and its connection without a last chunk."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    usage = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}'
    for data in (b'{"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}', usage, b"[DONE]"):
        event = b"data: " + data + b"\n\n"
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
    await writer.drain()
    await asyncio.sleep(0.3)
    writer.close()


@scenario
async def test_the_last_bytes_wait_for_the_disk_though_the_provider_breaks_off(tmp_path: Path) -> None:
    """With ``durability: power`` no end of the provider's connection lets ``[DONE]`` go before it is settled safely."""
    server = await asyncio.start_server(_cutting_provider, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with running_gate(
        tmp_path,
        limits=(money(10**10),),
        durability="power",
        journal_kind=Slow,
        providers=(provider(url),),
    ) as running:
        journal = slowed(running)
        reader, writer = await dial(running)
        writer.write(chat_bytes("Say hello.", "connection: close", stream=True))
        await running.until(lambda: len(journal.waiting) == 1)
        intent, journal.waiting = journal.waiting[0], []
        intent()
        await running.until(lambda: len(running.of(Settled)) == 1)
        # Longer than the provider's connection lives, and than the sweep waits for the end of a body.
        early = b""
        try:
            async with asyncio.timeout(1.6):
                while True:
                    early += await reader.readexactly(1)
        except TimeoutError:
            pass
        journal.go_on()
        rest = await reader.read()
        writer.close()

        assert b"[DONE]" not in early
        assert rest.endswith(b"[DONE]\n\n\r\n0\r\n\r\n")
        assert rest.count(b"0\r\n\r\n") == 1
    server.close()
