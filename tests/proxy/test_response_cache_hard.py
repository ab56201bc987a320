"""The response cache where things change while a call is looked up, and where providers and callers do odd things."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from fakes import HeldAnswers
from faregate.config.settings import CacheSettings, ContentSettings
from faregate.control import FlushCache, Load, Route
from faregate.core.ledger.events import Intended, Recalled
from faregate.core.pricing.charging import ChargeRule
from gates import allowances, books_agree, deployment, key, money, provider, scenario, secret, steered
from proxy.test_contents import MAIL, kept, rule, ruled
from proxy.test_response_cache import CALL, COST, FLIGHT, NO_BREAKER, USED, ask, caching_gate, served, told
from proxy.test_scripted_provider import scripted

CHUNK = {"id": "x", "object": "chat.completion.chunk", "model": "sim-1"}


def event(**choice: Any) -> bytes:
    """An event of a stream with one choice."""
    return b"data: " + json.dumps({**CHUNK, "choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


TEXT = event(delta={"content": "hello"})
END = event(delta={}, finish_reason="stop")
DONE = b"data: [DONE]\n\n"


def answered(body: bytes, content_type: bytes = b"text/event-stream") -> bytes:
    """A whole answer as a provider writes it."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (content_type, len(body))
    return head + body


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        (answered(TEXT + END + DONE), True),
        (answered(TEXT + END), False),
        (answered(TEXT + DONE), False),
        (answered(TEXT + END + b"data: " + b"[" * 20_000 + b"]" * 20_000 + b"\n\n" + DONE), False),
        (answered(TEXT + b"data: oops\n\n" + END + DONE), False),
        (answered(event(delta={}, error={"message": "no"}) + END + DONE), False),
        (answered(b'{"error": {"message": "overloaded"}}', b"application/json"), False),
        (answered(b'{"choices": []}', b"application/json"), False),
        (answered(b"<html></html>", b"text/html"), False),
        (answered(b": ping\n\n"), False),
    ],
)
@scenario
async def test_what_is_no_good_stream_is_not_kept(tmp_path: Path, answer: bytes, is_kept: bool) -> None:
    """Only a stream that came to its end is kept; whatever it was, its client has its answer and the gate can stop."""

    async def provide(number: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer)
        await writer.drain()
        return False

    store = HeldAnswers()
    async with (
        scripted(provide) as there,
        caching_gate(tmp_path, store=store, providers=(provider(there.url),), breaker=NO_BREAKER) as running,
    ):
        for _ in range(2):
            with contextlib.suppress(httpx2.HTTPError):
                await running.chat("hi", stream=True)
        await running.until(lambda: not running.gate.answers_open)
        assert bool(store.kept) is is_kept
        assert there.sent == (1 if is_kept else 2)
        assert all(each.exchange is None for each in running.gate._connections)


# -- what changes meanwhile --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["project", "off", "model"])
@scenario
async def test_a_follower_is_answered_by_what_holds_now(tmp_path: Path, change: str) -> None:
    """Moved to another project or model, or switched off, while it waits, a call is not given what was looked for."""
    places = (deployment("one", upstream_model="sim-a"), deployment("two", upstream_model="sim-b", model="sim-2"))
    keys = (key("ann"), key("bob"))
    async with caching_gate(
        tmp_path, FLIGHT, keys=keys, deployments=places, routes=(Route("sim-1", ("one",)),)
    ) as running:
        text = steered(**CALL, first_delay_ms=400)
        first = asyncio.create_task(running.chat(text, name="ann"))
        await running.until(lambda: running.of(Intended))
        second = asyncio.create_task(running.chat(text, name="bob"))
        await asyncio.sleep(0.1)
        if change == "model":
            catalogue = running.gate.snapshot.catalogue
            load = Load(2, catalogue=msgspec.structs.replace(catalogue, routes=(Route("sim-1", ("two",)),)))
        else:
            changed = {"project": "other"} if change == "project" else {"cache": "off"}
            load = Load(2, keys=(key("bob", **changed),))
        await running.ask(load)
        assert told(await first) == "miss"
        assert told(await second) == ("off" if change == "off" else "miss")
        assert await served(running) == 2
        assert running.of(Recalled) == []


@scenario
async def test_an_answer_is_kept_for_nobody_it_was_not_asked_for(tmp_path: Path) -> None:
    """A call that moved to another project while it was looked up leaves nothing in the one before."""
    store = HeldAnswers(late=True)
    async with caching_gate(tmp_path, store=store, keys=(key("ann"), key("bob"))) as running:
        call = asyncio.create_task(ask(running, name="ann"))
        await running.until(lambda: store.asked)
        await running.ask(Load(2, keys=(key("ann", project="other", cache="off"),)))
        store.tell()
        assert told(await call) == "off"
        assert store.kept == {}
        call = asyncio.create_task(ask(running, name="bob"))
        await running.until(lambda: store.asked)
        store.tell()
        assert told(await call) == "miss"


@scenario
async def test_what_was_flushed_while_it_was_looked_up_is_not_given(tmp_path: Path) -> None:
    """Once a flush was told done no such answer is given, not even to who had asked before."""
    store = HeldAnswers(late=True)
    async with caching_gate(tmp_path, store=store) as running:
        for expected in ("miss", "miss"):
            call = asyncio.create_task(ask(running))
            await running.until(lambda: store.asked)
            if store.kept:
                await running.ask(FlushCache())
            store.tell()
            assert told(await call) == expected
        assert len(store.kept) == 1


@scenario
async def test_waiting_counts_in_a_callers_own_time(tmp_path: Path) -> None:
    """Whoever waited for the same call of another has no more time than it said, and nothing is sent in vain."""
    async with caching_gate(tmp_path, FLIGHT) as running:
        text = steered(**CALL, first_delay_ms=900)
        first = asyncio.create_task(running.chat(text))
        await running.until(lambda: running.of(Intended))
        loop = asyncio.get_running_loop()
        began = loop.time()
        second = await running.chat(text, headers={"x-faregate-timeout": "300ms"})
        assert (second.status_code, second.json()["error"]["code"]) == (504, "upstream_timeout")
        assert loop.time() - began < 0.6
        await first
        assert await served(running) == 1


# -- money -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "due"),
    [
        (ChargeRule((("provider", "sim"),), free=True), 0),
        (ChargeRule((("deployment", "sim/sim-1"),), markup_ppm=10**6), COST),
        (ChargeRule((("provider", "other"),), free=True), COST // 2),
    ],
)
@scenario
async def test_a_hit_is_charged_by_the_rules_of_its_call(tmp_path: Path, rule: ChargeRule, due: int) -> None:
    """The percentage is of what the call itself would have been charged at the place that it would go to."""
    cache = CacheSettings(default="on", charge_percent=50)
    async with caching_gate(tmp_path, cache, charges=(rule,)) as running:
        await ask(running)
        assert told(await ask(running)) == "hit"
        assert running.of(Recalled)[0].charge == due
        books_agree(running)


@scenario
async def test_a_limit_of_the_place_is_limit_enough(tmp_path: Path) -> None:
    """Where a money limit is required, hits need no other one than their calls do."""
    limit = money(10**10, selector={"provider": "sim"})
    async with caching_gate(tmp_path, limits=(limit,)) as running:
        catalogue = running.gate.snapshot.catalogue
        await running.ask(Load(2, catalogue=msgspec.structs.replace(catalogue, require_limit=True)))
        assert [told(await ask(running)) for _ in range(2)] == ["miss", "hit"]


@scenario
async def test_a_hit_is_on_the_disk_before_anybody_has_it(tmp_path: Path) -> None:
    """Where the disk is waited for, a repeat under the same name is not answered before the first one is safe."""
    async with caching_gate(tmp_path, durability="power") as running:
        await ask(running)
        headers = {"idempotency-key": "one"}
        first, second = await asyncio.gather(ask(running, headers=headers), ask(running, headers=headers))
        told_of = sorted((first, second), key=lambda each: each.status_code)
        assert told(told_of[0]) == "hit"
        if told_of[1].status_code != 200:
            assert told_of[1].json()["error"]["code"] == "idem_in_progress"
        assert len(running.of(Recalled)) == 1


# -- what is looked up -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kilobytes", "expected"), [(40, "hit"), (300, "hit"), (1_100, "off")])
@scenario
async def test_large_calls(tmp_path: Path, kilobytes: int, expected: str) -> None:
    """Large bodies are read off the loop, and what is larger than a mebibyte is never kept."""
    fields: dict[str, Any] = {"upload_bytes_max": 4 * 2**20, "body_bytes_max": 4 * 2**20}
    places = (deployment(context_tokens_max=10**7),)
    async with caching_gate(tmp_path, deployments=places, **fields) as running:
        text = steered("word " * (kilobytes * 205), prompt_tokens=10, output_tokens=20)
        answers = [await running.chat(text) for _ in range(2)]
        assert told(answers[1]) == expected
        assert told(answers[0]) == ("off" if expected == "off" else "miss")
        books_agree(running)


@scenario
async def test_a_client_that_leaves_a_large_call_is_not_looked_for(tmp_path: Path) -> None:
    """It ends while its body is read, and nothing is sent or held."""
    async with caching_gate(tmp_path, limits=(money(10**10),)) as running:
        text = steered("word " * 100_000, prompt_tokens=10, output_tokens=20)
        call = asyncio.create_task(running.chat(text))
        await asyncio.sleep(0.02)
        call.cancel()
        await asyncio.sleep(0.2)
        assert (await allowances(running))["lim_money"][1] == 0


@scenario
async def test_customers_of_an_application_are_strangers(tmp_path: Path) -> None:
    """Whose calls come with another tenant gets no answer of the first, but where the organization shares."""
    for share, expected in (("project", "miss"), ("organization", "hit")):
        cache = CacheSettings(default="on", share=share)
        async with caching_gate(tmp_path / share, cache) as running:
            for tenant, said in (("acme", "miss"), ("umbra", expected), ("acme", "hit")):
                answer = await ask(running, headers={"x-apim-end-user-tenant-id": tenant})
                assert told(answer) == said


# -- contents ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_contents_of_a_hit_are_those_of_its_call(tmp_path: Path, stream: bool) -> None:
    """What is kept of a hit is the text that its call was answered, and rules have taken out the same."""
    content: ContentSettings = ruled(rule("email", "redact", "log"))
    async with caching_gate(tmp_path, USED, content=content) as running:
        text = steered("Who?", content=f"mail {MAIL} now", output_tokens=12)
        assert [told(await running.chat(text, stream=stream)) for _ in range(2)] == ["miss", "hit"]
        first, second = await kept(running, 2)
        assert first.answer.text == second.answer.text == "mail [email] now"
        assert MAIL not in str((first, second))
        assert first.answer.characters == second.answer.characters


# -- many at once ------------------------------------------------------------------------------------------------------


@scenario
async def test_a_large_answer_is_given_as_fast_as_it_is_read(tmp_path: Path) -> None:
    """Clients that read nothing of a large hit hold a part of it each; one that reads gets all of it, unharmed."""
    large = {"content": "word " * 180_000, "prompt_tokens": 10, "output_tokens": 50}
    async with caching_gate(tmp_path) as running:
        text = steered("Large.", **large)
        first = await running.chat(text, max_tokens=16_000)
        assert told(first) == "miss"
        body = json.dumps(
            {"model": "sim-1", "messages": [{"role": "user", "content": text}], "max_tokens": 16_000},
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()
        request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b" % (secret("caller").encode(), len(body), body)
        )
        host, _, port = running.url.removeprefix("http://").partition(":")
        idle = [await asyncio.open_connection(host, int(port), limit=1024) for _ in range(20)]
        for _, writer in idle:
            writer.write(request * 3)
        await running.until(lambda: len(running.of(Recalled)) >= 20)
        await asyncio.sleep(0.2)
        waits = [each.transport.get_write_buffer_size() for each in running.gate._connections]
        assert max(waits) <= 256 * 1024
        again = await running.chat(text, max_tokens=16_000)
        assert told(again) == "hit"
        assert again.content == first.content
        for _, writer in idle:
            writer.close()
        await running.until(lambda: len(running.gate._connections) <= 2)


@scenario
async def test_whoever_waits_has_a_slot(tmp_path: Path) -> None:
    """Followers are held to their limits of concurrency and requests at once, and give back what they held."""
    limits = (
        money(3, window="", id="lim_slots", unit="concurrency"),
        money(100, window="hour", id="lim_requests", unit="requests"),
    )
    async with caching_gate(tmp_path, FLIGHT, limits=limits) as running:
        text = steered(**CALL, first_delay_ms=300)
        answers = await asyncio.gather(*(running.chat(text) for _ in range(8)))
        assert sorted(each.status_code for each in answers) == [200] * 3 + [429] * 5
        assert {each.json()["error"]["code"] for each in answers if each.status_code == 429} == {"concurrency_limited"}
        assert await allowances(running) == {"lim_slots": (0, 0), "lim_requests": (3, 0)}
        books_agree(running)


@scenario
async def test_a_follower_that_leaves_gives_back_what_it_held(tmp_path: Path) -> None:
    """Its slot and its name are free at once, while the one that it followed is still under way."""
    limits = (money(2, window="", id="lim_slots", unit="concurrency"),)
    async with caching_gate(tmp_path, FLIGHT, limits=limits) as running:
        text = steered(**CALL, first_delay_ms=600)
        first = asyncio.create_task(running.chat(text))
        await running.until(lambda: running.of(Intended))
        second = asyncio.create_task(running.chat(text, headers={"idempotency-key": "mine"}))
        await asyncio.sleep(0.1)
        assert (await allowances(running))["lim_slots"] == (0, 2)
        second.cancel()
        await running.until(lambda: len(running.gate._connections) <= 1)
        assert (await allowances(running))["lim_slots"] == (0, 1)
        other = await running.chat(steered("Other.", **CALL), headers={"idempotency-key": "mine"})
        assert other.status_code == 200
        assert told(await first) == "miss"
