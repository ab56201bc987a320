"""Clients and providers of realtime sessions that break the rules: refused by the right code, and nothing is lost."""

import asyncio
import base64
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request as Upgrade
from websockets.http11 import Response as Handshake
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from faregate.core.ledger.events import Intended, Refused, Settled
from faregate.proxy.realtime_sockets import Socket
from gates import RunningGate, allowances, money, scenario, secret
from realtimes import CARD, moved, raw, realtime_gate

HANDSHAKE = (
    "GET /v1/realtime?model=sim-1 HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {key}\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0


def frame(data: bytes, opcode: int = TEXT, *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    """One frame of a client, as it should be unless it is asked otherwise (RFC 6455 section 5.2)."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes([bit | len(data)])
    elif len(data) < 1 << 16:
        head += bytes([bit | 126]) + struct.pack("!H", len(data))
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", len(data))
    if not masked:
        return head + data
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(data))


class Wire:
    """A WebSocket by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the gate: its opcode and its payload."""
        head = await self.reader.readexactly(2)
        length = head[1] & 127
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return head[0] & 15, await self.reader.readexactly(length)

    async def event(self) -> dict[str, Any]:
        """The next event."""
        while True:
            opcode, data = await self.frame()
            if opcode == TEXT:
                return dict(json.loads(data))

    async def closed(self) -> int:
        """The code of the close that comes, whatever comes before it."""
        while True:
            opcode, data = await self.frame()
            if opcode == CLOSE:
                return int(struct.unpack("!H", data[:2])[0])


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until it is."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def wire(running: RunningGate, *, early: bytes = b"", extra: str = "") -> AsyncIterator[Wire]:
    """A session opened by hand; ``early`` is sent behind the handshake at once."""
    port = int(running.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write((HANDSHAKE.format(key=secret("caller")) + extra + "\r\n").encode() + early)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    # RFC 6455 section 1.3 computes this one for us.
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    assert b"sec-websocket-extensions" not in head.lower()
    try:
        yield Wire(reader, writer)
    finally:
        await closed(writer)


APPEND = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(b"\0" * 300).decode()}).encode()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b'{"type":"response.create"}', masked=False), 1002),
        (frame(b'{"type":"response.create"}', rsv=4), 1002),
        (frame(b"{}", opcode=3), 1002),
        (frame(b"{}", opcode=CONTINUATION), 1002),
        (frame(b'{"a', fin=False) + frame(b'{"b"'), 1002),
        (frame(b"x" * 126, opcode=PING), 1002),
        (frame(b"x", opcode=PING, fin=False), 1002),
        (frame(b"\x03", opcode=CLOSE), 1002),
        (frame(struct.pack("!H", 1005), opcode=CLOSE), 1002),
        (frame(b'{"type":"\xff\xfe"}'), 1007),
        (frame(b'{"type":"\xe4\xb8', fin=False) + frame(b'"}', opcode=CONTINUATION), 1007),
        (frame(b"sound", opcode=BINARY), 1003),
        (frame(b"", fin=False) + frame(b"", opcode=CONTINUATION, fin=False) * 2_000, 1008),
        (frame(b"", opcode=PING) * 100, 1008),
        (frame(b"", opcode=PONG) * 100, 1008),
        (bytes([0x81, 0xFF]) + struct.pack("!Q", 1 << 62) + b"mask", 1009),
        (bytes([0x81, 0xFF]) + struct.pack("!Q", 16 * 1024 * 1024 + 1) + b"mask", 1009),
    ],
    ids=[
        "unmasked",
        "reserved bit",
        "reserved opcode",
        "continuation of nothing",
        "interleaved messages",
        "long ping",
        "fragmented ping",
        "short close",
        "close code for nobody",
        "not UTF-8",
        "half a character",
        "binary",
        "endless fragments",
        "flood of pings",
        "flood of pongs",
        "length of exabytes",
        "just too long",
    ],
)
@scenario
async def test_frames_against_the_rules_end_the_session(tmp_path: Path, data: bytes, code: int) -> None:
    """By the code that says which rule, without a turn or a hold."""
    async with realtime_gate(tmp_path) as running:
        async with wire(running) as socket:
            await socket.event()
            socket.writer.write(data)
            assert await socket.closed() == code
        await running.until(lambda: running.gate.connections == 0)
        assert running.of(Intended) == []
        await running.until(lambda: not running.simulator.connections)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (b"", "body_empty"),
        (b"[]", "field_type"),
        (b"not json", "json_invalid"),
        (b'{"type": 5}', "field_missing"),
        (b'{"type": "session.delete"}', "field_enum"),
        (b'{"type": "transcription_session.update", "session": {}}', "field_enum"),
        (b'{"type":"input_audio_buffer.append","type":"response.create"}', "json_dup_key"),
        (b'{"type":"input_audio_buffer.append","t\\u0079pe":"response.create"}', "json_dup_key"),
        (b'{"type":"response.create","response":{"max_output_tokens":9,"max_output_tokens":"inf"}}', "json_dup_key"),
        (b'{"type":"response.create","response":{"max_output_tokens":100000000}}', "field_range"),
        (
            b'{"type":"response.create","response":{"max_output_tokens":9,"max_response_output_tokens":8}}',
            "field_conflict",
        ),
        (
            b'{"type":"response.create","response":{"tools":[{"type":"mcp","server_url":"http://x"}]}}',
            "feature_unbounded",
        ),
        (b'{"type":"response.create","response":{"prompt":{"id":"pmpt_1"}}}', "feature_unbounded"),
        (b'{"type":"input_audio_buffer.clear","event_id":"req_01M7ZK0RZQD93GV9GMSP1RXS4Q"}', "field_range"),
        (b'{"type":"conversation.item.create","item":{"a":[' + b"{}," * 100_000 + b"{}]}}", "field_range"),
        (b'{"type":"session.update","session":{"type":"transcription"}}', "operation_unmetered"),
        (b'{"type":"session.update","session":{"model":"gpt-4o"}}', "field_conflict"),
        (
            b'{"type":"session.update","session":{"turn_detection":null,"audio":{"input":{"turn_detection":{}}}}}',
            "field_conflict",
        ),
        (
            b'{"type":"session.update","session":{"audio":{"input":{"turn_detection":{"idle_timeout_ms":1}}}}}',
            "feature_unbounded",
        ),
        (b'{"type":"session.update","session":' + b'{"a":' * 2_000 + b"1" + b"}" * 2_001, "json"),
        (
            b'{"type":"conversation.item.create","item":{"content":[{"type":"input_image","image_url":'
            b'"https://169.254.169.254/"}]}}',
            "url_forbidden",
        ),
    ],
)
@scenario
async def test_events_against_the_rules_are_refused_and_the_session_stays(
    tmp_path: Path, event: bytes, code: str
) -> None:
    """An error in the provider's shape; nothing of it reaches the provider."""
    async with realtime_gate(tmp_path) as running, wire(running) as socket:
        assert (await socket.event())["type"] == "session.created"
        socket.writer.write(frame(event))
        told = await socket.event()
        socket.writer.write(frame(b'{"type":"input_audio_buffer.clear"}'))
        after = await socket.event()

        assert told["type"] == "error"
        assert str(told["error"]["code"]).startswith(code)
        assert after["type"] == "input_audio_buffer.cleared"
        assert running.of(Intended) == []
        await running.until(lambda: running.of(Refused))


@scenario
async def test_frames_that_come_with_the_handshake_are_not_lost(tmp_path: Path) -> None:
    """Also where they come byte by byte, and in fragments."""
    early = frame(b'{"type":"conversation.', fin=False) + frame(b'item.delete","item_id":"i"}', opcode=CONTINUATION)
    async with realtime_gate(tmp_path) as running, wire(running, early=early) as socket:
        assert (await socket.event())["type"] == "session.created"
        assert (await socket.event())["type"] == "conversation.item.deleted"
        for byte in frame(b'{"type":"response.create"}'):
            socket.writer.write(bytes([byte]))
            await socket.writer.drain()
        while (await socket.event())["type"] != "response.done":
            pass
        assert len(running.of(Settled)) == 1


@pytest.mark.parametrize(
    "lines",
    [
        "Sec-WebSocket-Key: x\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Upgrade: h2c\r\n",
        "Expect: 100-continue\r\n",
    ],
)
@scenario
async def test_handshakes_that_are_ambiguous_are_refused(tmp_path: Path, lines: str) -> None:
    """A second key, a body, another protocol: 400, and the connection closes."""
    async with realtime_gate(tmp_path) as running:
        port = int(running.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((HANDSHAKE.format(key=secret("caller")) + lines + "\r\n").encode())
        answer = await reader.read()
        await closed(writer)

        assert answer.startswith(b"HTTP/1.1 400")
        assert running.simulator.connections == set()


@scenario
async def test_compression_that_is_offered_is_not_accepted(tmp_path: Path) -> None:
    """So that a message is never larger than it looks."""
    offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    async with realtime_gate(tmp_path) as running, wire(running, extra=offer) as socket:
        assert (await socket.event())["type"] == "session.created"


@scenario
async def test_a_client_that_does_not_read_slows_its_provider_down(tmp_path: Path) -> None:
    """What waits for it stays within the write buffers; the answer comes whole when it reads again."""
    async with realtime_gate(tmp_path) as running, wire(running) as socket:
        await socket.event()
        steering = 'sim: {"output_tokens": 4000, "audio_tokens": 3900, "chunk_tokens": 100}'
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": steering}]}
        socket.writer.write(frame(json.dumps({"type": "conversation.item.create", "item": item}).encode()))
        socket.writer.write(frame(b'{"type":"response.create"}'))
        await asyncio.sleep(1.0)
        (session,) = running.gate._connections
        assert session.transport.get_write_buffer_size() < 2 * 1024 * 1024

        size = 0
        while True:
            opcode, data = await socket.frame()
            size += len(data)
            if opcode == TEXT and b'"response.done"' in data:
                break
        assert size > 10_000_000
        assert len(running.of(Settled)) == 1


@scenario
async def test_messages_that_never_end_have_a_share_of_the_memory(tmp_path: Path) -> None:
    """Half messages of one key count among its large bodies; beyond its share they are cut, and the count returns."""
    async with realtime_gate(tmp_path, key_bodies_bytes_max=3_000_000) as running:
        codes: list[int] = []

        async def half() -> None:
            async with wire(running) as socket:
                await socket.event()
                socket.writer.write(frame(b"x" * 2_000_000)[:-1])
                codes.append(await socket.closed())

        tasks = [asyncio.create_task(half()) for _ in range(4)]
        await running.until(lambda: len(codes) >= 3)
        assert set(codes) == {1013}
        assert running.gate.held_bytes <= 3_000_000
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await running.until(lambda: running.gate.held_bytes == 0 and not running.gate.coming)


@scenario
async def test_sessions_that_vanish_leave_nothing_open(tmp_path: Path) -> None:
    """Twenty clients that abort in the middle of a response are settled, with no socket, task or hold left."""
    async with realtime_gate(tmp_path, limits=[money(10_000_000_000)]) as running:

        async def vanish() -> None:
            async with wire(running) as socket:
                await socket.event()
                steering = 'sim: {"output_tokens": 400, "delay_ms": 10}'
                item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": steering}]}
                socket.writer.write(frame(json.dumps({"type": "conversation.item.create", "item": item}).encode()))
                socket.writer.write(frame(b'{"type":"response.create"}'))
                while "delta" not in (await socket.event())["type"]:
                    pass
                socket.writer.transport.abort()

        await asyncio.gather(*(vanish() for _ in range(20)))
        await running.until(lambda: running.gate.connections == 0, 10)
        await running.until(lambda: not running.simulator.connections)
        ended = running.of(Settled)
        assert len(ended) == 20
        assert all(event.cost > 0 for event in ended)
        assert (await allowances(running))["lim_money"] == (sum(event.charge for event in ended), 0)
        pool = running.gate.snapshot.routes["sim-1"][0].pool
        assert pool.open_connections == 0


class _Transport(asyncio.Transport):
    """Takes what is written."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass


class _Listener:
    """Remembers how the other side ended."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    def shaken(self, socket: Socket, answer: Handshake, accepted: bool) -> None:
        pass

    def message(self, socket: Socket, data: bytes) -> None:
        pass

    def full(self, socket: Socket, is_full: bool) -> None:
        pass

    def ended(self, socket: Socket, code: int, reason: str) -> None:
        self.codes.append(code)

    def mistaken(self, error: BaseException) -> None:
        raise error


def test_pings_are_counted_by_the_second_and_not_by_the_session() -> None:
    """A client that pings now and then may do so for hours; one that does it all at once is a flood."""
    listener = _Listener()
    socket = Socket(listener, ServerProtocol(state=OPEN), _Transport(), 0.0)
    for quarter in range(400):
        socket.sweep(quarter / 4, 30.0)
        socket.data_received(frame(b"", opcode=PING))
    assert listener.codes == []
    socket.data_received(frame(b"", opcode=PING) * 40)
    assert listener.codes == [1008]


@scenario
async def test_a_complaint_about_a_clients_event_is_not_taken_for_one_about_ours(tmp_path: Path) -> None:
    """Whatever name a client gives its event, what is held for an event of the gate's stays."""
    async with realtime_gate(tmp_path) as running, wire(running) as socket:
        await socket.event()
        socket.writer.write(frame(b'{"type":"conversation.item.retrieve","event_id":"faregate_1"}'))
        socket.writer.write(frame(b'{"type":"session.update","event_id":"mine","session":{"type":"realtime"}}'))
        told = await socket.event()
        assert (told["type"], told["error"]["event_id"]) == ("error", "faregate_1")
        assert (await socket.event())["type"] == "session.updated"


@scenario
async def test_an_end_that_is_told_twice_is_paid_once(tmp_path: Path) -> None:
    """A provider that repeats ``response.done`` is not paid again, and the session goes on."""
    usage = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
    quiet = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    begun = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}
    done = {"type": "response.done", "response": {"id": "resp_1", "status": "completed", "usage": usage}}

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = Headers((name, value) for name, _, value in (line.partition(": ") for line in filter(None, head[1:])))
        writer.write(ServerProtocol().accept(Upgrade("/", headers)).serialize())
        framing = ServerProtocol(state=OPEN)
        framing.send_text(json.dumps({"type": "session.created", "session": quiet}).encode())
        writer.write(b"".join(framing.data_to_send()))
        with suppress(OSError):
            await reader.read(65_536)
            for event in (begun, done, done, begun, done):
                framing.send_text(json.dumps(event).encode())
            writer.write(b"".join(framing.data_to_send()))
            await reader.read()
        await closed(writer)

    server = await asyncio.start_server(provider, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with realtime_gate(tmp_path) as running:
        await moved(running, url)
        async with raw(running) as socket:
            await socket.recv()
            await socket.send('{"type":"response.create"}')
            told = [json.loads(await socket.recv())["type"] for _ in range(5)]

        assert told == ["response.created", "response.done", "response.done", "response.created", "response.done"]
        assert [event.cost for event in running.of(Settled)] == [100 * 4_000 + 50 * 16_000]
        assert len(running.of(Intended)) == 1
    server.close()
    await server.wait_closed()


@scenario
async def test_a_provider_that_begins_unasked_is_paid_and_left(tmp_path: Path) -> None:
    """Its response is on record with its cost, and the session ends: nothing more can begin there."""

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = Headers()
        for line in filter(None, head[1:]):
            name, _, value = line.partition(": ")
            headers[name] = value
        writer.write(ServerProtocol().accept(Upgrade("/", headers)).serialize())
        framing = ServerProtocol(state=OPEN)
        usage = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
        for event in (
            {"type": "session.created", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}},
            {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
            {"type": "response.done", "response": {"id": "resp_1", "status": "completed", "usage": usage}},
        ):
            framing.send_text(json.dumps(event).encode())
        writer.write(b"".join(framing.data_to_send()))
        with suppress(OSError):
            await reader.read()
        await closed(writer)

    server = await asyncio.start_server(provider, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with realtime_gate(tmp_path) as running:
        await moved(running, url)
        async with raw(running) as socket:
            told = [json.loads(await socket.recv()) for _ in range(4)]
            await socket.wait_closed()

        (event,) = running.of(Settled)
        assert "upstream_protocol" in [each.get("error", {}).get("code") for each in told]
        assert socket.close_code == 1008
        assert event.cost == event.overrun == 100 * 4_000 + 50 * 16_000
        assert CARD.version == event.price_version
    server.close()
    await server.wait_closed()
