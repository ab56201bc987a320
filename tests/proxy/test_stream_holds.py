"""A running stream holds no less than it may come to cost, and ends as at its cap where no more can be held."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from google import genai
from google.genai import types
from openai import AsyncOpenAI

from fakes import JournalAround
from faregate.control import Limit, Load
from faregate.core.amounts import NOTHING
from faregate.core.ledger.events import Event, Intended, Progressed, Settled
from faregate.core.ledger.oracle import Oracle
from faregate.errors import StorageFull
from faregate.journal.append import FileJournal
from faregate.simulator import serve as simulate
from gates import (
    RunningGate,
    allowances,
    deployment,
    key,
    money,
    provider,
    running_gate,
    scenario,
    secret,
    steered,
    truth,
)

#: Steps of 64 tokens with a margin of 32, so that a test sees many of them.
STEPS: dict[str, Any] = {"stream_hold": "steps", "default_output_tokens": 64, "min_answer_tokens": 32}

#: Room for just the cap of the calls below, so that nothing more can be held.
CAP = 40
TIGHT = money(CAP, unit="output_tokens", id="lim_tight")


async def stream(running: RunningGate, text: str, *, name: str = "caller", **fields: Any) -> list[Any]:
    """The events of a streamed chat, ``[DONE]`` as text."""
    answer = await running.chat(text, name=name, stream=True, **fields)
    assert answer.status_code == 200, answer.text
    return events_of(answer.content)


def events_of(content: bytes) -> list[Any]:
    """What the data of each event says; fails on bytes that are no whole event."""
    events = content.decode().split("\n\n")
    assert events.pop() == ""
    lines = [line.removeprefix("data: ") for event in events for line in event.split("\n") if line.startswith("data: ")]
    return [json.loads(line) if line.startswith("{") else line for line in lines]


def held_of(running: RunningGate) -> list[int]:
    """Output tokens that the only call held, first and after each step."""
    (intended,) = running.of(Intended)
    grown = [event.held.output_tokens for event in running.of(Progressed) if event.held != NOTHING]
    return [intended.held.output_tokens, *grown]


# -- steps -------------------------------------------------------------------------------------------------------------


@scenario
async def test_a_stream_in_steps_ends_at_the_last_cent(tmp_path: Path) -> None:
    """It runs on as long as the limit has room, then ends with "length", and is charged within what it held."""
    limit = money(2_000 * 500)
    async with running_gate(tmp_path, limits=(limit,), **STEPS) as running:
        events = await stream(running, steered(output_tokens=4_000, delay_ms=1), max_tokens=None)

        assert events[-1] == "[DONE]"
        assert events[-2]["choices"][0]["finish_reason"] == "length"
        assert "usage" not in events[-2]
        (settled,) = running.of(Settled)
        assert (settled.status, settled.http_status, settled.code) == ("cut", 200, "budget_exhausted")
        assert settled.limit == limit.id
        held = held_of(running)
        assert held[0] == 96
        assert held == sorted(held)
        assert len(held) > 3
        # All but the margin and the smallest step was used.
        assert held[-1] - 32 - 16 <= settled.usage.output_tokens <= held[-1]
        assert await allowances(running) == {limit.id: (settled.charge, 0)}
        assert settled.charge <= 2_000 * 500 == limit.amount


@scenario
async def test_what_a_stream_sent_upstream_is_not_changed_by_steps(tmp_path: Path) -> None:
    """The caller's own cap goes to the provider, and a stream that fits is billed what the provider says."""
    async with running_gate(tmp_path, limits=(money(10**9),), **STEPS) as running:
        events = await stream(running, steered(output_tokens=300, delay_ms=1), max_tokens=1_000)

        assert events[-2]["choices"][0]["finish_reason"] == "stop"
        (settled,) = running.of(Settled)
        assert (settled.status, settled.usage_source, settled.usage.output_tokens) == ("ok", "provider", 300)
        assert settled.overrun == 0
        held = held_of(running)
        assert held[0] == 96
        assert 300 <= held[-1] < 1_000


@scenario
async def test_a_stream_whose_cap_is_reached_holds_no_more_than_its_cap(tmp_path: Path) -> None:
    """Steps end at the caller's cap: from there on the provider's own bound stands, without a margin."""
    async with running_gate(tmp_path, limits=(money(10**9),), **STEPS) as running:
        events = await stream(running, steered(output_tokens=1_000, delay_ms=1), max_tokens=150)

        assert events[-2]["choices"][0]["finish_reason"] == "length"
        (settled,) = running.of(Settled)
        assert (settled.status, settled.usage.output_tokens, settled.overrun) == ("ok", 150, 0)
        assert held_of(running)[-1] == 150


@scenario
async def test_many_streams_share_a_small_budget(tmp_path: Path) -> None:
    """Streams whose maximum would not fit run side by side, and what is posted and held never passes the limit."""
    limit = money(2_000 * 3_000)
    seen: list[int] = []

    async def watch(running: RunningGate) -> None:
        while True:
            (view,) = running.gate.allowances.views(running.gate.wall_nanos())
            seen.append(view.posted + view.held)
            await asyncio.sleep(0)

    async with running_gate(tmp_path, limits=(limit,), **STEPS) as running:
        watching = asyncio.create_task(watch(running))
        lengths = [50, 200, 500, 900] * 5
        text = [steered(output_tokens=length, delay_ms=2) for length in lengths]
        answers = await asyncio.gather(*[stream(running, each, max_tokens=None) for each in text])
        watching.cancel()

        ends = [events[-2]["choices"][0]["finish_reason"] for events in answers]
        assert {*ends} == {"stop", "length"}
        assert all(events[-1] == "[DONE]" for events in answers)
        assert max(seen) <= 2_000 * 3_000 == limit.amount
        ((posted, held),) = (await allowances(running)).values()
        assert held == 0
        assert posted == sum(event.charge for event in running.of(Settled))
        assert all(event.overrun == 0 for event in running.of(Settled))
        usages = [each["usage"] for each in await truth(running)]
        cost = sum(1_000 * usage["prompt_tokens"] + 2_000 * usage["completion_tokens"] for usage in usages)
        assert cost <= 2_000 * 3_000


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"n": 2}, id="choices"),
        pytest.param({"reasoning_effort": "low"}, id="hidden reasoning"),
        pytest.param({"max_tokens": 96}, id="small cap"),
        pytest.param({"prediction": {"type": "content", "content": "the of and"}}, id="prediction"),
    ],
)
@scenario
async def test_what_cannot_be_seen_is_held_whole(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Where not all output is text of one answer that can be counted, all of it is held before it is sent."""
    async with running_gate(tmp_path, limits=(money(10**9),), **STEPS) as running:
        await stream(running, steered(output_tokens=20), **({"max_tokens": 400} | fields))

        (intended,) = running.of(Intended)
        assert intended.held.output_tokens >= fields.get("max_tokens", 400) * fields.get("n", 1)


@pytest.mark.parametrize("unfit", [{"encoding": ""}, {"reasons": True}], ids=["no tokenizer", "reasons"])
@scenario
async def test_a_model_whose_output_cannot_be_counted_is_held_whole(tmp_path: Path, unfit: dict[str, Any]) -> None:
    """Without its tokenizer, and where it thinks unseen, only the cap bounds an answer."""
    async with running_gate(tmp_path, deployments=(deployment(**unfit),), limits=(money(10**9),), **STEPS) as running:
        await stream(running, steered(output_tokens=20), max_tokens=400)

        assert held_of(running) == [400]


@scenario
async def test_a_call_that_is_no_stream_is_held_whole(tmp_path: Path) -> None:
    """Nobody can stop an answer that comes in one piece, so that steps are not for it."""
    async with running_gate(tmp_path, limits=(money(10**9),), **STEPS) as running:
        await running.chat(steered(output_tokens=20), max_tokens=400)

        assert held_of(running) == [400]


@scenario
async def test_the_first_step_shrinks_to_what_fits(tmp_path: Path) -> None:
    """Where a whole step finds no room a smaller one is held, and below the smallest answer the call is refused."""
    limit = money(70, unit="output_tokens")
    async with running_gate(tmp_path, limits=(limit,), keys=(key(), key("second")), **STEPS) as running:
        first = asyncio.create_task(stream(running, steered(output_tokens=5, hold_after=2), max_tokens=None))
        await running.until(lambda: running.of(Intended))
        second = await running.chat(max_tokens=400, stream=True)
        await running.client.post(running.simulator.url + "/simulator/release")
        events = await first

        assert events[-2]["choices"][0]["finish_reason"] == "stop"
        assert held_of(running) == [64]
        assert (second.status_code, second.json()["error"]["code"]) == (429, "budget_exhausted")


@scenario
async def test_a_raised_limit_lets_a_running_stream_go_on(tmp_path: Path) -> None:
    """What finds no room now is asked for again: more money while the stream runs is used at once."""
    async with running_gate(tmp_path, limits=(money(2_000 * 400),), **STEPS) as running:
        running_on = asyncio.create_task(stream(running, steered(output_tokens=700, delay_ms=2), max_tokens=None))
        await running.until(lambda: len(running.of(Progressed)) > 1)
        await running.ask(Load(2, False, (), (), (money(10**9),), ()))
        events = await running_on

        assert events[-2]["choices"][0]["finish_reason"] == "stop"
        (settled,) = running.of(Settled)
        assert (settled.status, settled.usage.output_tokens) == ("ok", 700)


@scenario
async def test_a_lowered_limit_that_counts_something_else_does_not_end_a_stream(tmp_path: Path) -> None:
    """Lowering cancels no hold: with fewer slots than are taken a stream may still hold more tokens."""
    slots = money(2, "", unit="concurrency", id="lim_slots")
    async with running_gate(tmp_path, limits=(slots,), **STEPS) as running:
        running_on = asyncio.create_task(stream(running, steered(output_tokens=400, delay_ms=2), max_tokens=None))
        await running.until(lambda: running.of(Progressed))
        await running.ask(Load(2, False, (), (), (money(0, "", unit="concurrency", id="lim_slots"),), ()))
        events = await running_on

        assert events[-2]["choices"][0]["finish_reason"] == "stop"


# -- what a crash or a full disk leaves --------------------------------------------------------------------------------


@scenario
async def test_a_crash_leaves_all_steps_held(tmp_path: Path) -> None:
    """Wherever the journal ends, what the call holds from then on covers all that was delivered before."""
    async with running_gate(tmp_path, limits=(money(2_000 * 300),), **STEPS) as running:
        await stream(running, steered(output_tokens=4_000, delay_ms=1), max_tokens=None)
        journal = running.events()

    (settled,) = [event for event in journal if isinstance(event, Settled)]
    before = journal[: journal.index(settled)]
    oracle = Oracle(before)
    (exchange,) = oracle.open().values()
    assert exchange.intended is not None
    assert exchange.intended.held.usd == oracle.totals().held >= settled.charge
    assert exchange.intended.held.output_tokens >= settled.usage.output_tokens


class FullAfterTheIntent(JournalAround):
    """A disk that takes no mark of progress."""

    def append(self, event: Event) -> int:
        """As the real one, but for those."""
        if isinstance(event, Progressed):
            raise StorageFull("the disk is full")
        return super().append(event)


@scenario
async def test_a_step_that_cannot_be_journalled_is_not_used(tmp_path: Path) -> None:
    """A stream ends within the hold that is on record, however much room its limits have."""

    def full(journal: FileJournal) -> JournalAround:
        return FullAfterTheIntent(journal)

    async with running_gate(tmp_path, limits=(money(10**9),), journal_kind=full, **STEPS) as running:
        events = await stream(running, steered(output_tokens=1_000, delay_ms=1), max_tokens=None)

        assert events[-2]["choices"][0]["finish_reason"] == "length"
        (settled,) = running.of(Settled)
        assert (settled.status, settled.code, settled.limit) == ("cut", "storage_full", "")
        assert settled.usage.output_tokens <= 96


@scenario
async def test_steps_wait_for_the_disk_where_everything_does(tmp_path: Path) -> None:
    """With durability against power failures a stream in steps runs and ends as without."""
    async with running_gate(tmp_path, limits=(money(2_000 * 300),), durability="power", **STEPS) as running:
        events = await stream(running, steered(output_tokens=4_000, delay_ms=1), max_tokens=None)

        assert events[-2]["choices"][0]["finish_reason"] == "length"
        (settled,) = running.of(Settled)
        assert settled.usage.output_tokens <= held_of(running)[-1]


# -- a provider that does not keep to the cap, in every format ---------------------------------------------------------


def over_cap(**steering: Any) -> str:
    """A prompt to which the provider answers with twice what it may, and more."""
    return steered(fault="over_cap", delay_ms=2, **steering)


USER = {"role": "user"}
#: Format → the kind of provider, the operation, its path and what a call says.
FORMATS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "chat": ("openai", "chat.completions", "/v1/chat/completions", {"messages": [{**USER, "content": over_cap()}]}),
    "completions": ("openai", "completions", "/v1/completions", {"prompt": over_cap()}),
    "responses": ("openai", "responses", "/v1/responses", {"input": over_cap()}),
    "messages": ("anthropic", "messages", "/v1/messages", {"messages": [{**USER, "content": over_cap()}]}),
    "gemini": (
        "gemini",
        "gemini.stream",
        "/v1beta/models/sim-1:streamGenerateContent?alt=sse",
        {
            "contents": [{**USER, "parts": [{"text": over_cap()}]}],
            "generationConfig": {"maxOutputTokens": CAP},
        },
    ),
}


@contextlib.asynccontextmanager
async def speaking(folder: Path, format: str, limits: tuple[Limit, ...]) -> AsyncIterator[RunningGate]:
    """A gate whose provider speaks one format."""
    kind, operation, _, _ = FORMATS[format]
    simulator = await simulate()
    credential = {"x-goog-api-key" if kind == "gemini" else "authorization": "Bearer sk-provider"}
    at = provider(simulator.url + ("/v1beta" if kind == "gemini" else "/v1"), kind=kind, credential=credential)
    place = deployment(operations=(operation,))
    async with running_gate(folder, providers=(at,), deployments=(place,), limits=limits) as running:
        yield running._replace(simulator=simulator)
    await simulator.close()


async def ask(running: RunningGate, format: str, **fields: Any) -> list[Any]:
    """The events of one stream in a format."""
    _, _, path, body = FORMATS[format]
    if format != "gemini":
        cap = "max_output_tokens" if format == "responses" else "max_tokens"
        body = {"model": "sim-1", "stream": True, cap: CAP} | body
    headers = {"authorization": f"Bearer {secret('caller')}", "anthropic-version": "2023-06-01"}
    answer = await running.client.post(path, json=body | fields, headers=headers)
    assert answer.status_code == 200, answer.text
    return events_of(answer.content)


@pytest.mark.parametrize("format", FORMATS)
@scenario
async def test_a_stream_that_passes_its_cap_is_ended(tmp_path: Path, format: str) -> None:
    """Where nothing more can be held it ends as its format says "length", cancelled and charged its cap at most."""
    async with speaking(tmp_path, format, (TIGHT,)) as running:
        events = await ask(running, format)

        assert_ended[format](events)
        (settled,) = running.of(Settled)
        assert (settled.status, settled.http_status, settled.limit) == ("cut", 200, TIGHT.id)
        assert settled.usage.output_tokens == CAP
        assert settled.overrun == 0
        assert await allowances(running) == {TIGHT.id: (CAP, 0)}
        await running.until(lambda: running.simulator.in_flight == 0)
        (served,) = await truth(running)
        assert not served["complete"]


def ended_chat(events: list[Any]) -> None:
    """The choice ends, then ``[DONE]``; the usage that nobody asked for is not told."""
    assert events[-1] == "[DONE]"
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert {event["id"] for event in events[:-1]} == {events[0]["id"]}
    assert events[-2]["created"] == events[0]["created"]


def ended_response(events: list[Any]) -> None:
    """``response.incomplete`` with the response that began."""
    last = events[-1]
    assert last["type"] == "response.incomplete"
    assert last["sequence_number"] == events[-2]["sequence_number"] + 1
    assert last["response"]["id"] == events[0]["response"]["id"]
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["usage"]["output_tokens"] == CAP


def ended_message(events: list[Any]) -> None:
    """The open block ends, then the message."""
    assert [event["type"] for event in events[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"
    assert events[-2]["usage"]["output_tokens"] == CAP


def ended_generation(events: list[Any]) -> None:
    """The last answer says why, and what was used."""
    assert events[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert events[-1]["usageMetadata"]["candidatesTokenCount"] == CAP


assert_ended = {
    "chat": ended_chat,
    "completions": ended_chat,
    "responses": ended_response,
    "messages": ended_message,
    "gemini": ended_generation,
}


@pytest.mark.parametrize("format", FORMATS)
@scenario
async def test_a_stream_that_passes_its_cap_goes_on_where_more_can_be_held(tmp_path: Path, format: str) -> None:
    """The caller has room: it gets, and pays, what the provider gave."""
    roomy = money(10_000, unit="output_tokens")
    async with speaking(tmp_path, format, (roomy,)) as running:
        await ask(running, format)

        (settled,) = running.of(Settled)
        assert (settled.status, settled.usage.output_tokens) == ("ok", 2 * CAP + 10)
        assert held_of(running)[-1] >= 2 * CAP + 10


@scenario
async def test_usage_is_told_where_it_was_asked_for(tmp_path: Path) -> None:
    """The chunk with the usage of a stream says what was charged."""
    async with speaking(tmp_path, "chat", (TIGHT,)) as running:
        *_, finish, told, done = await ask(running, "chat", stream_options={"include_usage": True})

        assert done == "[DONE]"
        assert (finish["choices"][0]["finish_reason"], finish["usage"]) == ("length", None)
        (settled,) = running.of(Settled)
        assert told["choices"] == []
        assert told["usage"]["completion_tokens"] == settled.usage.output_tokens == CAP
        assert told["usage"]["prompt_tokens"] == settled.usage.input_tokens


@pytest.mark.parametrize("usage_wanted", [False, True])
@pytest.mark.parametrize("size", [7, 150, 333])
@scenario
async def test_a_stream_is_ended_between_two_events(tmp_path: Path, size: int, usage_wanted: bool) -> None:
    """However the provider's bytes are cut, every event that the client gets is whole."""
    async with running_gate(tmp_path, limits=(TIGHT,)) as running:
        text = steered(fault="over_cap", delay_ms=1, split_bytes=size)
        options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage_wanted else {}
        events = await stream(running, text, max_tokens=CAP, **options)

        assert events[-1] == "[DONE]"
        assert "length" in [event["choices"][0]["finish_reason"] for event in events[-3:-1] if event["choices"]]
        (settled,) = running.of(Settled)
        assert settled.status == "cut"


@scenario
async def test_a_provider_that_falls_silent_does_not_keep_the_end_back(tmp_path: Path) -> None:
    """A stream that is to go no further ends a moment later though no event comes any more."""
    async with running_gate(tmp_path, limits=(TIGHT,)) as running:
        events = await stream(running, steered(fault="over_cap", delay_ms=1, hold_after=75), max_tokens=CAP)

        assert events[-2]["choices"][0]["finish_reason"] == "length"
        (settled,) = running.of(Settled)
        assert (settled.status, settled.usage.output_tokens) == ("cut", CAP)


@scenario
async def test_a_cut_answer_is_not_replayed(tmp_path: Path) -> None:
    """An idempotent repeat is told that the call has ended, as half an answer is no whole one."""
    async with running_gate(tmp_path, limits=(TIGHT,)) as running:
        headers = {"idempotency-key": "once"}
        await stream(running, over_cap(), max_tokens=CAP, headers=headers)
        again = await running.chat(over_cap(), stream=True, max_tokens=CAP, headers=headers)

        assert (again.status_code, again.json()["error"]["code"]) == (409, "idem_completed")


# -- ordinary streams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [{}, {"encoding": ""}], ids=["counted", "not counted"])
@scenario
async def test_an_honest_stream_is_left_alone(tmp_path: Path, place: dict[str, Any]) -> None:
    """An answer up to its cap, with more bytes than tokens, passes byte for byte and holds what it held at first."""
    limit = money(400, unit="output_tokens")
    async with running_gate(tmp_path, limits=(limit,), deployments=(deployment(**place),)) as running:
        text = "世界 " * 133
        events = await stream(running, steered(content=text, output_tokens=400, delay_ms=1), max_tokens=400)

        assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events[:-1]).strip()
        (settled,) = running.of(Settled)
        assert (settled.status, settled.usage_source) == ("ok", "provider")
        assert held_of(running) == [400]


@scenario
async def test_a_prompt_that_is_echoed_is_no_output(tmp_path: Path) -> None:
    """Text that the provider only repeats does not end a stream."""
    async with running_gate(tmp_path, limits=(money(20, unit="output_tokens"),)) as running:
        prompt = steered(content="the of and " * 50, output_tokens=150, fault="over_cap", delay_ms=1)
        body = {"model": "sim-1", "prompt": prompt, "stream": True, "max_tokens": 20, "echo": True}
        headers = {"authorization": f"Bearer {secret('caller')}"}
        answer = await running.client.post("/v1/completions", json=body, headers=headers)

        assert answer.status_code == 200
        (settled,) = running.of(Settled)
        assert settled.status == "ok"


# -- stock clients -----------------------------------------------------------------------------------------------------


@scenario
async def test_openais_client_reads_a_cut_stream_to_its_end(tmp_path: Path) -> None:
    """It sees the finish reason and the usage, and no error."""
    async with speaking(tmp_path, "chat", (TIGHT,)) as running:
        client = AsyncOpenAI(base_url=running.url + "/v1", api_key=secret("caller"), max_retries=0)
        answer = await client.chat.completions.create(
            model="sim-1",
            messages=[{"role": "user", "content": over_cap()}],
            max_tokens=CAP,
            stream=True,
            stream_options={"include_usage": True},
        )
        *_, finish, told = [chunk async for chunk in answer]
        await client.close()

        assert finish.choices[0].finish_reason == "length"
        assert told.usage is not None
        assert told.usage.completion_tokens == CAP


@scenario
async def test_openais_client_reads_a_cut_response_to_its_end(tmp_path: Path) -> None:
    """It sees an incomplete response, and why."""
    async with speaking(tmp_path, "responses", (TIGHT,)) as running:
        client = AsyncOpenAI(base_url=running.url + "/v1", api_key=secret("caller"), max_retries=0)
        answer = await client.responses.create(model="sim-1", input=over_cap(), max_output_tokens=CAP, stream=True)
        events = [event async for event in answer]
        await client.close()

        last = events[-1]
        assert last.type == "response.incomplete"
        assert last.response.incomplete_details is not None
        assert last.response.incomplete_details.reason == "max_output_tokens"


@scenario
async def test_anthropics_client_reads_a_cut_message_to_its_end(tmp_path: Path) -> None:
    """It sees the stop reason and the usage."""
    async with speaking(tmp_path, "messages", (TIGHT,)) as running:
        client = AsyncAnthropic(base_url=running.url, api_key=secret("caller"), max_retries=0)
        async with client.messages.stream(
            model="sim-1", max_tokens=CAP, messages=[{"role": "user", "content": over_cap()}]
        ) as answer:
            message = await answer.get_final_message()
        await client.close()

        assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", CAP)


@scenario
async def test_googles_client_reads_a_cut_generation_to_its_end(tmp_path: Path) -> None:
    """It sees why the candidate ended."""
    async with speaking(tmp_path, "gemini", (TIGHT,)) as running:
        options = types.HttpOptions(base_url=running.url)
        client = genai.Client(api_key=secret("caller"), http_options=options)
        chunks = await client.aio.models.generate_content_stream(
            model="sim-1", contents=over_cap(), config=types.GenerateContentConfig(max_output_tokens=CAP)
        )
        last = [chunk async for chunk in chunks][-1]

        assert last.candidates is not None
        assert last.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
