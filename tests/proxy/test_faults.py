"""Everything a provider can do wrong: the client gets a named end in bounded time, and the hold always ends."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from faregate.control import AskFigures, Figures, Load, Resolve
from faregate.core.ledger.events import Intended, Lost, Settled
from faregate.core.usage import Usage
from faregate.simulator import BlackHole
from gates import RunningGate, allowances, key, money, provider, running_gate, scenario, secret, steered, truth

URL = "/v1/chat/completions"
QUICK = {"connect_timeout_ms": 400, "first_byte_timeout_ms": 500, "idle_timeout_ms": 500, "total_timeout_ms": 5_000}

#: fault → (status, code in the body or "" for an answer that passes, usage sources that are right).
PLAIN: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "reset_after_head": (502, "upstream_truncated", ("none",)),
    "reset_mid_upload": (502, "upstream_truncated", ("none",)),
    "never_answer": (504, "upstream_timeout", ("estimate",)),
    "status_line_only": (504, "upstream_timeout", ("estimate",)),
    "dribble_headers": (504, "upstream_timeout", ("estimate",)),
    "empty_body": (502, "upstream_protocol", ("estimate",)),
    "long_length": (502, "upstream_truncated", ("estimate",)),
    "cl_and_te": (502, "upstream_protocol", ("estimate",)),
    "bad_chunk": (502, "upstream_protocol", ("estimate",)),
    "missing_last_chunk": (502, "upstream_truncated", ("estimate",)),
    "bytes_after_end": (200, "", ("provider",)),
    "continue_storm": (502, "upstream_protocol", ("estimate",)),
    "early_answer": (200, "", ("provider",)),
    "usage_negative": (200, "", ("provider_invalid",)),
    "usage_float": (200, "", ("provider_invalid",)),
    "usage_nan": (200, "", ("provider_invalid",)),
    "usage_text": (200, "", ("provider_invalid",)),
    "usage_huge": (200, "", ("provider_invalid",)),
    "usage_missing": (200, "", ("counted",)),
    "usage_bad_total": (200, "", ("provider_invalid",)),
    "over_cap": (200, "", ("provider",)),
    "html": (502, "upstream_protocol", ("estimate",)),
    "redirect": (502, "upstream_protocol", ("estimate",)),
    "bad_header": (502, "upstream_protocol", ("estimate",)),
    "header_cr": (502, "upstream_protocol", ("estimate",)),
    "header_lf": (502, "upstream_protocol", ("estimate",)),
    "huge_header": (502, "upstream_protocol", ("estimate",)),
    "tracking_headers": (200, "", ("provider",)),
    "gzip_bomb": (502, "upstream_protocol", ("estimate",)),
    "rate_limited_negative": (429, "", ("none",)),
}

#: fault → (status of the record, what the end of the stream holds, usage sources that are right).
STREAMED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "usage_twice": ("ok", "[DONE]", ("provider",)),
    "usage_early": ("ok", "[DONE]", ("counted", "estimate")),
    "no_done": ("ok", "finish_reason", ("provider",)),
    "cut_utf8": ("cut", "upstream_truncated", ("estimate",)),
    "huge_line": ("ok", "[DONE]", ("provider",)),
    "pings_only": ("cut", "upstream_timeout", ("estimate",)),
    "not_json": ("ok", "[DONE]", ("provider",)),
    "error_event": ("failed", "error", ("estimate", "counted")),
    "stall": ("cut", "upstream_timeout", ("estimate",)),
    "reset_mid_stream": ("cut", "upstream_truncated", ("estimate",)),
    "missing_last_chunk": ("ok", "[DONE]", ("provider",)),
    "bad_chunk": ("cut", "upstream_protocol", ("estimate",)),
}


@pytest.mark.parametrize("fault", PLAIN)
@scenario
async def test_a_fault_in_a_plain_answer(tmp_path: Path, fault: str) -> None:
    """The named status and code, one settlement, nothing held, and the next call works."""
    status, code, sources = PLAIN[fault]
    async with running_gate(tmp_path, limits=(money(10**10),), provider_fields=QUICK) as running:
        answer = await running.chat(steered(fault=fault, output_tokens=10, delay_ms=200))
        await running.until(lambda: len(running.of(Settled)) == 1)
        settled = running.of(Settled)[0]
        held = (await allowances(running))["lim_money"][1]
        healthy = await running.chat()

        assert answer.status_code == status
        if code:
            assert answer.json()["error"]["code"] == code
        assert settled.usage_source in sources
        assert settled.cost >= 0
        assert (settled.cost == 0) == (settled.usage_source == "none")
        assert held == 0
        assert healthy.status_code == 200


@pytest.mark.parametrize("fault", STREAMED)
@scenario
async def test_a_fault_in_a_stream(tmp_path: Path, fault: str) -> None:
    """A stream that breaks ends with one error event, and what was delivered is charged."""
    status, last, sources = STREAMED[fault]
    quick: dict[str, Any] = QUICK | ({"total_timeout_ms": 900} if fault == "pings_only" else {})
    async with running_gate(tmp_path, limits=(money(10**10),), provider_fields=quick) as running:
        answer = await running.chat(steered(fault=fault, output_tokens=20, delay_ms=20), stream=True)
        await running.until(lambda: len(running.of(Settled)) == 1)
        settled = running.of(Settled)[0]

        assert answer.status_code == 200
        assert settled.status == status
        assert last in answer.text[-800:]
        assert settled.usage_source in sources
        assert settled.cost > 0
        assert (await allowances(running))["lim_money"] == (settled.cost, 0)


@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_no_deadline_is_met_early(tmp_path: Path, stream: bool) -> None:
    """Answers that come within a deadline are never ended by it, whenever the gate last looked at its clock."""
    quick = {"first_byte_timeout_ms": 600, "idle_timeout_ms": 600}
    async with running_gate(tmp_path, provider_fields=quick) as running:
        slow = steered(first_delay_ms=450, delay_ms=450 if stream else 0, output_tokens=2, chunk_tokens=1)
        headers = {} if stream else {"x-faregate-timeout": "700ms"}
        calls = []
        for _ in range(12):
            calls.append(asyncio.create_task(running.chat(slow, stream=stream, headers=headers)))
            await asyncio.sleep(0.03)
        answers = await asyncio.gather(*calls)
        assert {answer.status_code for answer in answers} == {200}
        assert {settled.status for settled in running.of(Settled)} == {"ok"}


@scenario
async def test_more_than_the_cap_is_an_overrun(tmp_path: Path) -> None:
    """A provider that ignores the cap is believed, the excess is named, and the limit is over."""
    async with running_gate(tmp_path, limits=(money(500_000),), provider_fields=QUICK) as running:
        await running.chat(steered(fault="over_cap", prompt_tokens=90), max_tokens=100)
        settled = running.of(Settled)[0]
        after = await running.chat(max_tokens=1)

        assert settled.overrun == settled.cost - running.of(Intended)[0].held.usd > 0
        assert after.status_code == 429


@pytest.mark.parametrize("stream", [True, False])
@scenario
async def test_a_standstill_of_the_gate_is_no_silence_of_the_provider(tmp_path: Path, stream: bool) -> None:
    """A gate that gets no time for longer than a provider may be silent still delivers the whole answer."""
    async with running_gate(tmp_path, provider_fields=QUICK) as running:
        asked = steered(output_tokens=20, delay_ms=20 if stream else 0, first_delay_ms=300)
        calling = asyncio.create_task(running.chat(asked, stream=stream))
        await running.until(lambda: len(running.of(Intended)) == 1)
        # The provider is of the same process: it stands still, too, and nothing more has come when the gate goes on.
        asyncio.get_running_loop().call_later(0.1, time.sleep, 1.2)
        answer = await calling
        await running.until(lambda: len(running.of(Settled)) == 1)

        assert answer.status_code == 200
        assert running.of(Settled)[0].status == "ok"


@scenario
async def test_a_standstill_is_no_refusal_of_a_connection(tmp_path: Path) -> None:
    """What became a connection while the gate stood still is one, although that took longer than it may."""
    loop = asyncio.get_running_loop()
    async with running_gate(tmp_path, provider_fields={"connect_timeout_ms": 20}) as running:
        calling = asyncio.create_task(running.chat(steered(output_tokens=2)))

        def stand_still() -> None:
            time.sleep(0.08)
            if not calling.done():
                loop.call_soon(stand_still)

        stand_still()
        answer = await calling

        assert answer.status_code == 200


@scenario
async def test_a_standstill_puts_no_deadline_off_for_long(tmp_path: Path) -> None:
    """A call that comes during one ends in time, and so do calls while the gate stands still again and again."""
    loop = asyncio.get_running_loop()
    async with running_gate(tmp_path, provider_fields=QUICK) as running:
        calling = asyncio.create_task(running.chat(steered(fault="never_answer")))
        loop.call_soon(time.sleep, 4)
        await asyncio.sleep(0)
        began = loop.time()
        alone = await calling
        took = loop.time() - began

        until = loop.time() + 6

        def stand_still() -> None:
            time.sleep(0.6)
            if loop.time() < until:
                loop.call_later(0.01, stand_still)

        stand_still()
        beside = await running.chat(steered(fault="never_answer"))

        assert (alone.status_code, beside.status_code) == (504, 504)
        assert took - 4 < 3
        assert loop.time() < until


@scenario
async def test_a_provider_whose_name_nobody_knows_is_told_as_that(tmp_path: Path) -> None:
    """A wrong name is found sooner than one more provider that would not accept connections."""
    async with running_gate(tmp_path, providers=()) as running:
        lost = provider("http://nowhere.invalid/v1", **QUICK)
        catalogue = msgspec.structs.replace(running.gate.snapshot.catalogue, providers=(lost,))
        await running.ask(Load(2, catalogue=catalogue))
        answer = await running.chat()

        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_connect")
        assert "its name could not be resolved" in answer.json()["error"]["message"]


@scenario
async def test_a_provider_that_does_not_accept_connections_in_time(tmp_path: Path) -> None:
    """The connect deadline ends it; nothing was sent, so nothing is charged."""
    with BlackHole() as hole:
        async with running_gate(tmp_path, limits=(money(10**10),), providers=()) as running:
            catalogue = running.gate.snapshot.catalogue
            dead = provider(f"http://127.0.0.1:{hole.port}/v1", **QUICK)
            await running.ask(Load(2, catalogue=msgspec.structs.replace(catalogue, providers=(dead,))))
            answer = await running.chat()

            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_connect")
            assert running.of(Intended) == []
            assert await allowances(running) == {"lim_money": (0, 0)}


@scenario
async def test_the_callers_deadline_counts_while_a_connection_is_opened(tmp_path: Path) -> None:
    """A place that does not answer is waited for as long as the caller said, and is not blamed for it."""
    loop = asyncio.get_running_loop()
    with BlackHole() as hole:
        async with running_gate(tmp_path, limits=(money(10**10),), providers=()) as running:
            catalogue = running.gate.snapshot.catalogue
            dead = provider(f"http://127.0.0.1:{hole.port}/v1", connect_timeout_ms=30_000)
            await running.ask(Load(2, catalogue=msgspec.structs.replace(catalogue, providers=(dead,))))
            began = loop.time()
            answer = await running.chat(headers={"x-faregate-timeout": "300ms"})
            took = loop.time() - began

            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
            assert 0.3 <= took < 3
            assert running.of(Intended) == []
            assert await allowances(running) == {"lim_money": (0, 0)}
            assert {target.health.closed for target in running.gate.snapshot.targets.values()} == {True}


@scenario
async def test_a_stale_connection_is_replaced_once(tmp_path: Path) -> None:
    """A keep-alive connection that closes as it is written to costs the client nothing."""
    requests: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the first request of each connection and hangs up on the second."""
        for turn in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            requests.append(turn)
            if turn == 0:
                body = b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}'
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                writer.write(head % len(body) + body)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, running_gate(tmp_path) as running:
        place = provider(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        catalogue = msgspec.structs.replace(running.gate.snapshot.catalogue, providers=(place,))
        await running.ask(Load(2, catalogue=catalogue))
        answers = [await running.chat(), await running.chat()]

        assert [answer.status_code for answer in answers] == [200, 200]
        assert requests == [0, 1, 0]
        assert [settled.cost for settled in running.of(Settled)] == [11_000, 11_000]


# -- outcomes that were not learnt -------------------------------------------------------------------------------------


@scenario
async def test_with_a_lookup_the_outcome_waits_for_the_providers_word(tmp_path: Path) -> None:
    """The money stays held, the slot is free, and the resolution posts the true cost once."""
    fields = QUICK | {"lookup": "/simulator/truth"}
    async with running_gate(tmp_path, limits=(money(10**10),), provider_fields=fields) as running:
        answer = await running.chat(steered(fault="stall", output_tokens=20, prompt_tokens=10), stream=True)
        await running.until(lambda: len(running.of(Lost)) == 1)
        held = running.of(Intended)[0].held.usd
        before = await running.ask(AskFigures())
        assert isinstance(before, Figures)
        waiting = await allowances(running)
        request_id = answer.headers["x-faregate-request-id"]
        order = Resolve(request_id, "cut", "provider_said", Usage(10, output_text=20), "provider", 50_000, 50_000)
        first = await running.ask(order)
        second = await running.ask(order)

        assert "pending" in answer.text
        assert (before.unknown_count, before.unknown_nanos, before.open_exchanges) == (1, held, 0)
        assert waiting == {"lim_money": (0, held)}
        assert await allowances(running) == {"lim_money": (50_000, 0)}
        assert (getattr(first, "changed", None), getattr(second, "changed", None)) == (True, False)
        assert [settled.resolution for settled in running.of(Settled)] == ["provider_said"]


@scenario
async def test_an_empty_stream_is_a_failure_that_can_be_told(tmp_path: Path) -> None:
    """Nothing was sent to the client yet, so it gets a whole error; the provider is asked what it cost."""
    fields = QUICK | {"lookup": "/simulator/truth/{id}"}
    async with running_gate(tmp_path, limits=(money(10**10),), provider_fields=fields) as running:
        answer = await running.chat(steered(fault="empty_body"), stream=True)

        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_truncated")
        assert len(running.of(Lost)) == 1
        assert running.of(Settled) == []


# -- clients that go away ----------------------------------------------------------------------------------------------


async def leave(running: RunningGate, text: str, *, stream: bool, after: int) -> None:
    """Send a call over a plain socket, read ``after`` bytes of the answer, and close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
    messages = [{"role": "user", "content": text}]
    body = json.dumps({"model": "sim-1", "messages": messages, "max_tokens": 50, "stream": stream}).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer %b\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (secret("caller").encode(), len(body), body)
    )
    if after:
        await reader.readexactly(after)
    else:
        await running.until(lambda: running.gate.open_answers == 1)
    writer.transport.abort()


@scenario
async def test_a_client_that_leaves_a_plain_call_is_charged_exactly(tmp_path: Path) -> None:
    """The answer is read to its end for the books alone."""
    async with running_gate(tmp_path, limits=(money(10**10),)) as running:
        await leave(running, steered(first_delay_ms=200, output_tokens=20, prompt_tokens=5), stream=False, after=0)
        await running.until(lambda: len(running.of(Settled)) == 1)
        settled = running.of(Settled)[0]

        assert (settled.usage.input_tokens, settled.usage.output_tokens) == (5, 20)
        assert await allowances(running) == {"lim_money": (settled.cost, 0)}


@pytest.mark.parametrize(
    ("policy", "source"), [("", "estimate"), ("estimate", "estimate"), ("drain", "provider"), ("no_bill", "none")]
)
@scenario
async def test_a_client_that_leaves_a_stream(tmp_path: Path, policy: str, source: str) -> None:
    """One record, by the provider's policy: the delivered part, the drained rest, or nothing."""
    async with running_gate(tmp_path, limits=(money(10**10),), provider_fields={"client_gone": policy}) as running:
        await leave(running, steered(output_tokens=40, delay_ms=15), stream=True, after=2_500)
        await running.until(lambda: len(running.of(Settled)) == 1)
        settled = running.of(Settled)[0]

        assert settled.usage_source == source
        assert (settled.cost == 0) == (source == "none")
        if source == "estimate":
            assert settled.status == "aborted"
            assert 1 <= settled.usage.output_tokens < 40
        if source == "provider":
            assert settled.usage.output_tokens == 40
        assert await allowances(running) == {"lim_money": (settled.cost, 0)}
        assert running.gate.open_answers == 0


@scenario
async def test_many_clients_that_leave_at_any_byte(tmp_path: Path) -> None:
    """Records equal dispatches, nothing stays held, nothing leaks."""
    async with running_gate(tmp_path, limits=(money(10**12),)) as running:
        text = steered(output_tokens=30, delay_ms=3)
        await asyncio.gather(*(leave(running, text, stream=n % 2 == 0, after=(n * 37) % 900) for n in range(60)))
        await running.until(lambda: running.gate.open_answers == 0, 15)
        await running.until(lambda: len(running.of(Settled)) == len(running.of(Intended)), 15)
        cost = sum(settled.cost for settled in running.of(Settled))

        assert (await allowances(running))["lim_money"] == (cost, 0)


# -- the gate stops ----------------------------------------------------------------------------------------------------


@scenario
async def test_draining_finishes_what_runs_and_takes_nothing_new(tmp_path: Path) -> None:
    """A running stream reaches its end; a new call on an open connection is told to go elsewhere."""
    async with running_gate(tmp_path) as running:
        await running.chat()
        stream = asyncio.create_task(running.chat(steered(output_tokens=20, delay_ms=20), stream=True))
        await running.until(lambda: running.gate.open_answers == 1)
        running.gate.drain()
        answer = await stream

        assert answer.text.endswith("data: [DONE]\n\n")
        assert running.of(Settled)[-1].status == "ok"


@scenario
async def test_a_second_order_to_stop_cuts_what_runs(tmp_path: Path) -> None:
    """The stream ends with an error event and is settled by what was delivered."""
    async with running_gate(tmp_path) as running:
        stream = asyncio.create_task(running.chat(steered(output_tokens=50, delay_ms=100), stream=True))
        await running.until(lambda: running.gate.open_answers == 1)
        await asyncio.sleep(0.3)
        running.gate.drain()
        running.gate.drain()
        answer = await stream

        assert '"code":"draining"' in answer.text
        assert running.of(Settled)[-1].status == "cut"


@scenario
async def test_tracking_headers_stay_here(tmp_path: Path) -> None:
    """What identifies the provider's account or the server never reaches a client."""
    async with running_gate(tmp_path, keys=(key(),)) as running:
        answer = await running.chat(steered(fault="tracking_headers"))

        assert {"set-cookie", "server", "openai-organization", "x-powered-by"} & set(answer.headers) == set()
        assert len(await truth(running)) == 1
