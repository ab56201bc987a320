"""Providers that say half of something: what is sent again, what is charged, and what the client is told."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from faregate.control import Load
from faregate.core.ledger.events import Intended, Lost, Settled
from faregate.core.pricing.card import RateCard, Tier
from faregate.proxy.http1 import Bounds, RequestParser
from gates import RunningGate, allowances, deployment, key, money, provider, running_gate, scenario, secret

#: What a provider does with its n-th request; true where it closes the connection afterwards.
Script = Callable[[int, asyncio.StreamWriter], Awaitable[bool]]

CALL = {"model": "sim-1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
FREE = RateCard("sim", "", "free@1", (Tier(0, ()),))
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
ANSWER = {
    "id": "x",
    "model": "sim-1",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
    "usage": USAGE,
}


def whole(body: bytes) -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


OK = whole(json.dumps(ANSWER).encode())


class Scripted:
    """A provider that follows a script and counts what it was sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent = 0


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[Scripted]:
    """Run a provider for the block."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
                told.sent += 1
                if await script(told.sent, writer):
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    told = Scripted(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    try:
        yield told
    finally:
        server.close()


async def dial(running: RunningGate) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw connection to the gate."""
    return await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))


def request(version: str = "1.1", extra: str = "") -> bytes:
    """A call as it stands on the wire."""
    body = json.dumps(CALL).encode()
    head = (
        f"POST /v1/chat/completions HTTP/{version}\r\nhost: gate\r\nauthorization: Bearer {secret('caller')}\r\n"
        f"content-type: application/json\r\n{extra}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@scenario
async def test_a_call_cut_by_a_stop_is_not_free(tmp_path: Path) -> None:
    """A call that the provider works on when the gate is told to stop at once is charged by our own count."""
    go_on = asyncio.Event()

    async def script(n: int, writer: asyncio.StreamWriter) -> bool:
        await go_on.wait()
        return True

    async with (
        scripted(script) as told,
        running_gate(tmp_path, providers=(provider(told.url),), limits=(money(10**10),)) as running,
    ):
        waiting = asyncio.create_task(running.chat())
        await running.until(lambda: told.sent == 1)
        running.gate.drain()
        running.gate.drain()
        answer = await waiting
        go_on.set()

        assert answer.json()["error"]["code"] == "draining"
        (settled,) = running.of(Settled)
        assert (settled.usage_source, settled.cost > 0) == ("estimate", True)


@scenario
async def test_half_a_head_is_not_sent_again(tmp_path: Path) -> None:
    """A kept connection that brought the beginning of an answer and closed has served: one call is one call there."""

    async def script(n: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(OK if n != 2 else b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-le")
        await writer.drain()
        return n == 2

    async with scripted(script) as told, running_gate(tmp_path, providers=(provider(told.url),)) as running:
        statuses = [(await running.chat()).status_code for _ in range(2)]

        assert statuses == [200, 502]
        assert told.sent == 2
        await running.until(lambda: len(running.of(Settled)) == 2)
        assert [event.cost > 0 for event in running.of(Settled)] == [True, True]


@scenario
async def test_names_that_cannot_be_written_down(tmp_path: Path) -> None:
    """Half a surrogate pair in the model or id of an answer is replaced, and the answer is charged as any other."""
    body = json.dumps(ANSWER | {"model": "\ud800", "id": "a\udfffb"}).encode()

    async def script(n: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(whole(body))
        return False

    async with (
        scripted(script) as told,
        running_gate(tmp_path, providers=(provider(told.url),), limits=(money(10**10),)) as running,
    ):
        answer = await running.chat()

        assert (answer.status_code, answer.content) == (200, body)
        (settled,) = running.of(Settled)
        assert (settled.answered_model, settled.provider_request_id, settled.cost) == ("?", "a?b", 9_000)
        assert (await allowances(running))["lim_money"] == (9_000, 0)


@scenario
async def test_a_broken_stream_of_anthropics_ends_in_an_event_that_its_clients_know(tmp_path: Path) -> None:
    """They go by the name of an event, so that an error without one would be passed over, and half an answer taken."""
    started = {"type": "message_start", "message": {"id": "msg_1", "model": "sim-1", "usage": {"input_tokens": 5}}}

    async def script(n: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 10000\r\n\r\n")
        writer.write(b"event: message_start\ndata: " + json.dumps(started).encode() + b"\n\n")
        await writer.drain()
        return True

    place = deployment(operations=("messages",))
    async with (
        scripted(script) as told,
        running_gate(tmp_path, providers=(provider(told.url, kind="anthropic"),), deployments=(place,)) as running,
    ):
        headers = {"x-api-key": secret("caller"), "anthropic-version": "2023-06-01"}
        answer = await running.client.post("/v1/messages", json=CALL | {"stream": True}, headers=headers)

        name, data = answer.content.rstrip(b"\n").rpartition(b"\n\n")[2].split(b"\n")
        assert name == b"event: error"
        assert json.loads(data.removeprefix(b"data: "))["error"]["code"] == "upstream_truncated"


@pytest.mark.parametrize("breaks", [False, True])
@scenario
async def test_accepted_work_is_awaited_though_its_answer_is_too_large_to_hold(tmp_path: Path, breaks: bool) -> None:
    """A background response that passes in parts, whole or cut, is settled by its object, not by its own bytes."""
    accepted = {"id": "resp_1", "object": "response", "status": "queued", "store": True}
    body = json.dumps(accepted | {"instructions": "x" * 100_000, "usage": None}).encode()

    async def script(n: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(whole(body)[: -9 if breaks else None])
        await writer.drain()
        return breaks

    place = deployment(operations=("responses",), context_tokens_max=8_192)
    async with (
        scripted(script) as told,
        running_gate(
            tmp_path, providers=(provider(told.url),), deployments=(place,), held_body_bytes_max=10_000
        ) as running,
    ):
        asked = {"model": "sim-1", "input": "hi", "max_output_tokens": 50, "background": True}
        headers = {"authorization": f"Bearer {secret('caller')}"}
        with contextlib.suppress(httpx2.RemoteProtocolError):
            answer = await running.client.post("/v1/responses", json=asked, headers=headers)
            assert (answer.status_code, answer.content) == (200, body)
        await running.until(lambda: running.gate.unknowns)

        (lost,) = running.of(Lost)
        assert (lost.status, lost.awaited.object_id) == ("pending", "resp_1")
        assert not running.of(Settled)
        assert running.gate.held_bytes == 0


@scenario
async def test_who_leaves_before_work_has_a_name_leaves_it_awaited(tmp_path: Path) -> None:
    """A background stream is read on until its first event says where its end is told: leaving early is not free."""
    event = {"type": "response.created", "response": {"id": "resp_1", "status": "queued"}}
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    go_on = asyncio.Event()

    async def script(n: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await go_on.wait()
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await writer.drain()
        return True

    async with _background(tmp_path, script) as running:
        asked = {**BACKGROUND, "stream": True}
        headers = {"authorization": f"Bearer {secret('caller')}"}
        async with running.client.stream("POST", "/v1/responses", json=asked, headers=headers) as answer:
            assert answer.status_code == 200
        await running.until(lambda: running.gate.drains)
        go_on.set()
        await running.until(lambda: running.gate.unknowns)

        assert {lost.awaited.object_id for lost in running.of(Lost)} == {"resp_1"}
        assert not running.of(Settled)


@scenario
async def test_impatience_does_not_make_accepted_work_free(tmp_path: Path) -> None:
    """The provider's own deadlines alone end the wait for the name of work that goes on after its answer."""
    go_on = asyncio.Event()

    async def script(n: int, writer: asyncio.StreamWriter) -> bool:
        await go_on.wait()
        writer.write(whole(b'{"id":"resp_1","status":"queued"}'))
        return False

    async with _background(tmp_path, script) as running:
        headers = {"authorization": f"Bearer {secret('caller')}", "x-faregate-timeout": "1ms"}
        waiting = asyncio.create_task(running.client.post("/v1/responses", json=BACKGROUND, headers=headers))
        await running.until(lambda: running.gate.answers_open)
        (coming,) = running.gate.answers_open
        coming.sweep(running.gate.now + 1)
        go_on.set()

        assert (await waiting).status_code == 200
        assert [lost.awaited.object_id for lost in running.of(Lost)] == ["resp_1"]


BACKGROUND = {"model": "sim-1", "input": "hi", "max_output_tokens": 50, "background": True}


@contextlib.asynccontextmanager
async def _background(folder: Path, script: Script) -> AsyncIterator[RunningGate]:
    """A gate whose provider follows a script and takes background responses."""
    place = deployment(operations=("responses",), context_tokens_max=8_192)
    async with (
        scripted(script) as told,
        running_gate(folder, providers=(provider(told.url),), deployments=(place,)) as running,
    ):
        yield running


@scenario
async def test_an_old_id_for_a_new_file_brings_no_old_bound(tmp_path: Path) -> None:
    """Where a provider names two files alike, a batch holds what the lines of the later one may cost."""

    async def script(n: int, writer: asyncio.StreamWriter) -> bool:
        file = b'{"id":"file-1","object":"file","purpose":"batch"}'
        writer.write(whole(file if n < 3 else b'{"id":"batch_1","object":"batch","status":"validating"}'))
        return False

    batches = deployment("files", upstream_model="", model="", cards=(FREE,), operations=("files", "batches"))
    async with (
        scripted(script) as told,
        running_gate(tmp_path, providers=(provider(told.url),), deployments=(deployment(), batches)) as running,
    ):
        headers = {"authorization": f"Bearer {secret('caller')}"}
        for count in (1, 20):
            lines = [
                {"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": CALL}
                for n in range(count)
            ]
            content = b"\n".join(json.dumps(line).encode() for line in lines)
            files = {"file": ("calls.jsonl", content)}
            made = await running.client.post("/v1/files", data={"purpose": "batch"}, files=files, headers=headers)
            assert made.status_code == 200
        asked = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        assert (await running.client.post("/v1/batches", json=asked, headers=headers)).status_code == 200

        assert running.of(Intended)[-1].held.output_tokens == 20 * 50


@scenario
async def test_a_small_answer_is_told_whole_however_much_is_held(tmp_path: Path) -> None:
    """What a short answer names and costs is always read, also where the bound for all that is held is reached."""

    async def script(n: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(OK[:-5])
        await writer.drain()
        await running.until(lambda: running.gate.held_bytes > 1)
        writer.write(OK[-5:])
        return False

    async with (
        scripted(script) as told,
        running_gate(tmp_path, providers=(provider(told.url),), held_bodies_bytes_max=1) as running,
    ):
        answer = await running.chat()

        assert answer.headers["x-faregate-cost"] == "0.000009"
        (settled,) = running.of(Settled)
        assert settled.usage_source == "provider"


@pytest.mark.parametrize("policy", ["estimate", "no_bill", "drain"])
@scenario
async def test_a_client_that_leaves_before_the_answer(
    tmp_path: Path, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the policy, the call ends once, nothing stays open, and nothing is logged as a mistake."""

    async def script(n: int, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.3)
        writer.write(OK)
        return False

    fields = {"client_gone": policy}
    async with (
        scripted(script) as told,
        running_gate(tmp_path, providers=(provider(told.url, **fields),), limits=(money(10**10),)) as running,
    ):
        _, writer = await dial(running)
        writer.write(request())
        await running.until(lambda: told.sent == 1)
        writer.transport.abort()
        await running.until(lambda: len(running.of(Settled)) == 1 and running.gate.open_answers == 0)

        assert (await allowances(running))["lim_money"][1] == 0
        assert not running.of(Lost)
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@scenario
async def test_a_proxy_that_cannot_be_addressed(tmp_path: Path) -> None:
    """A proxy whose name cannot even be asked for ends the call at once; nothing stays held."""
    odd = provider("http://127.0.0.1:9/v1", proxy="http://a..b:3128")
    async with running_gate(tmp_path, providers=(odd,), limits=(money(10**10),)) as running:
        answer = await running.chat()

        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_connect")
        assert (await allowances(running))["lim_money"] == (0, 0)


@scenario
async def test_nothing_follows_an_answer_that_has_ended(tmp_path: Path) -> None:
    """A provider's error that is too large and then breaks its framing is one answer of exactly its length."""

    async def script(n: int, writer: asyncio.StreamWriter) -> bool:
        part = b"x" * 200_000
        writer.write(b"HTTP/1.1 500 E\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(5):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        await asyncio.sleep(0.2)
        writer.write(b"%x\r\n%b\r\nZZ\r\n" % (60_000, b"y" * 60_000))
        await writer.drain()
        await asyncio.sleep(0.5)
        return True

    async with (
        scripted(script) as told,
        running_gate(tmp_path, providers=(provider(told.url, lookup="/x/{id}"),)) as running,
    ):
        reader, writer = await dial(running)
        writer.write(request())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        with contextlib.suppress(TimeoutError):
            assert await asyncio.wait_for(reader.read(100), 0.7) == b""
        writer.close()


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"state": "revoked"}, 401, "key_revoked"),
        ({"models": ("other",)}, 403, "model_forbidden"),
        ({"operations": ("embeddings",)}, 403, "operation_forbidden"),
    ],
)
@scenario
async def test_a_key_changed_while_its_connection_is_opened(
    tmp_path: Path, change: dict[str, Any], status: int, code: str
) -> None:
    """Opening a connection takes time; a key that may no longer make the call is refused, and nothing is sent."""
    opened = asyncio.Event()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await opened.wait()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(1)
        writer.close()

    proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    place = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    through = provider("http://127.0.0.1:9/v1", proxy=place)
    async with running_gate(tmp_path, providers=(through,), limits=(money(10**10),)) as running:
        waiting = asyncio.create_task(running.chat())
        await running.until(lambda: running.gate.allowances.open_count == 1)
        await running.ask(Load(2, False, (key(**change),), (), (), ()))
        opened.set()
        answer = await waiting

        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert (await allowances(running))["lim_money"] == (0, 0)
    proxy.close()


@scenario
async def test_http_1_0_is_not_told_to_continue(tmp_path: Path) -> None:
    """``Expect`` means nothing in HTTP/1.0 (RFC 9110 section 10.1.1): such a client first reads its answer."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        head, _, body = request("1.0", "expect: 100-continue\r\n").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n" + body[:5])
        await asyncio.sleep(0.1)
        writer.write(body[5:])

        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")
        writer.close()


@scenario
async def test_a_head_too_large_is_answered_though_its_client_still_sends(tmp_path: Path) -> None:
    """A client that is still sending its endless head reads the refusal, not a broken connection."""
    async with running_gate(tmp_path) as running:
        reader, writer = await dial(running)
        writer.write(b"GET / HTTP/1.1\r\nhost: gate\r\nx: " + b"a" * 200_000)

        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 431")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def test_a_head_is_learnt_only_where_it_ends() -> None:
    """A body that begins with an empty line, and one more line end behind it, do not make the head look longer."""
    parser = RequestParser(Bounds(65_536, 100, 8_192, 1 << 20))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n"
    parser.feed(head + b"\r\n{}x" + b"\r\n")
    first: Any = parser.ready.pop(0)

    assert first.body == b"\r\n{}x"
    assert parser.again(head + b"\r\n{}x" + b"GE") is None
