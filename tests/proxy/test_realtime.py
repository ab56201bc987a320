"""Realtime sessions through the gate: the stock client over real sockets, every turn held, metered and settled."""

import asyncio
import contextlib
import hashlib
import ssl
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncAzureOpenAI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from faregate.config.settings import TlsSettings
from faregate.control import Limit, Load
from faregate.core.ledger.events import Intended, Lost, Refused, Settled
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import Measure, Usage
from gates import RunningGate, allowances, key, money, scenario, secret, steered, truth
from realtimes import (
    CARD,
    SILENCE,
    SPEECH,
    TEXT,
    client_of,
    hears,
    moved,
    raw,
    realtime_gate,
    says,
    talking,
    turn,
    until,
)

TARIFF = Tariff(CARD)


def settled(running: RunningGate, service: str = "realtime") -> list[Settled]:
    """The settlements of one kind of turn."""
    of = {event.id for event in running.of(Intended) if event.who.service == service}
    return [event for event in running.of(Settled) if event.id in of]


async def over(running: RunningGate) -> None:
    """Everything is settled and nothing is held."""
    await running.until(lambda: running.gate.allowances.open_count == 0)


def sound(*, transcriber: str = "", **detection: Any) -> dict[str, Any]:
    """A session of sound, with the detection that is the default unless it is said."""
    heard: dict[str, Any] = {}
    if transcriber:
        heard["transcription"] = {"model": transcriber}
    if detection:
        heard["turn_detection"] = None if detection.get("off") else {"type": "server_vad", **detection}
    return {"type": "realtime", "output_modalities": ["audio"], "audio": {"input": heard}}


# -- turns -------------------------------------------------------------------------------------------------------------


@scenario
async def test_each_response_is_one_record_of_what_the_provider_served(tmp_path: Path) -> None:
    """Three turns of the stock client are three intents and three settlements, at the cost of the provider's truth."""
    async with realtime_gate(tmp_path) as running:
        async with talking(running) as connection:
            for _ in range(3):
                assert (await turn(connection)).status == "completed"

        ended = settled(running)
        served = {row["request_id"]: row["usage"] for row in await truth(running)}
        assert len(ended) == 3
        assert [event.status for event in ended] == ["ok", "ok", "ok"]
        assert {event.id: event.usage.input_tokens for event in ended} == {
            id: usage["input_tokens"] for id, usage in served.items()
        }
        assert [event.cost for event in ended] == [TARIFF.cost(event.usage) for event in ended]
        assert all(event.cost > 0 for event in ended)
        await over(running)


@scenario
async def test_the_intent_is_journalled_first_and_the_settlement_before_the_end_is_told(tmp_path: Path) -> None:
    """When the client sees ``response.done`` the journal has the settlement; the intent was there when it began."""
    async with realtime_gate(tmp_path) as running, talking(running) as connection:
        running.simulator.hold_all()
        await says(connection, "Say hello.")
        await connection.response.create()
        await running.until(lambda: running.simulator.dispatched == 1)
        assert len(running.of(Intended)) == 1
        assert running.of(Settled) == []

        running.simulator.release()
        await until(connection, "response.done")
        assert len(running.of(Settled)) == 1


@scenario
async def test_kinds_of_tokens_are_priced_apart(tmp_path: Path) -> None:
    """Sound in and out, cached text and text are leaves of their own in the record."""
    async with realtime_gate(tmp_path) as running, talking(running, session=sound(off=True)) as connection:
        await says(connection, steered(prompt_audio_tokens=30, cached_tokens=2, output_tokens=20, audio_tokens=8))
        await connection.response.create()
        await until(connection, "response.done")

        (event,) = settled(running)
        assert event.usage.input_audio == 30
        assert event.usage.input_cached == 2
        assert (event.usage.output_text, event.usage.output_audio) == (12, 8)


@scenario
async def test_responses_beside_the_conversation_run_at_once_and_are_all_billed(tmp_path: Path) -> None:
    """Out-of-band responses have records of their own."""
    async with realtime_gate(tmp_path) as running, talking(running) as connection:
        await says(connection, steered(output_tokens=30, delay_ms=5))
        await connection.response.create()
        for _ in range(3):
            await connection.response.create(response={"conversation": "none", "input": []})
        for _ in range(4):
            await until(connection, "response.done")

        assert len(settled(running)) == 4
        assert {event.id for event in settled(running)} == {row["request_id"] for row in await truth(running)}


@scenario
async def test_a_response_that_the_provider_refuses_costs_nothing(tmp_path: Path) -> None:
    """A second response at once is an error under the client's own name for its event, and is not billed."""
    async with realtime_gate(tmp_path) as running, talking(running) as connection:
        await says(connection, steered(output_tokens=30, delay_ms=5))
        await connection.response.create(event_id="mine")
        await connection.response.create(event_id="again")
        complaint = (await until(connection, "error"))[-1].error
        await until(connection, "response.done")

        assert (complaint.event_id, complaint.code) == ("again", "conversation_already_has_active_response")
        assert sorted((event.status, event.cost > 0) for event in settled(running)) == [("failed", False), ("ok", True)]
        await over(running)


# -- voice activity detection ------------------------------------------------------------------------------------------


@scenario
async def test_what_is_heard_is_answered_under_a_hold_of_its_own(tmp_path: Path) -> None:
    """With voice activity detection the client sends sound and nothing else, and sees a session that answers itself."""
    async with realtime_gate(tmp_path) as running, talking(running, session=sound()) as connection:
        updated = (await until(connection, "session.updated"))[-1].session
        await hears(connection, SPEECH + SILENCE)
        events = [event.type for event in await until(connection, "response.done")]

        assert updated.audio.input.turn_detection.create_response is True
        assert "error" not in events
        assert events.index("input_audio_buffer.committed") < events.index("response.created")
        (event,) = settled(running)
        assert event.usage.input_audio == 15
        (row,) = await truth(running)
        assert row["request_id"] == event.id


@scenario
async def test_a_session_keeps_detecting_when_the_client_sets_it_anew(tmp_path: Path) -> None:
    """Other settings of the detection pass; answers by itself are still the gate's to begin."""
    session = sound(silence_duration_ms=200, create_response=True)
    async with realtime_gate(tmp_path) as running, talking(running, session=session) as connection:
        detection = (await until(connection, "session.updated"))[-1].session.audio.input.turn_detection
        await hears(connection, SPEECH + SILENCE)
        await until(connection, "response.done")

        assert (detection.silence_duration_ms, detection.create_response) == (200, True)
        assert [row["request_id"] for row in await truth(running)] == [event.id for event in settled(running)]


@scenario
async def test_detection_without_answers_begins_nothing(tmp_path: Path) -> None:
    """A client that wants to answer itself is left alone, and no hold is taken before it asks."""
    async with realtime_gate(tmp_path) as running, talking(running, session=sound(create_response=False)) as connection:
        await until(connection, "session.updated")
        await hears(connection, SPEECH + SILENCE)
        await until(connection, "input_audio_buffer.committed")
        assert running.of(Intended) == []

        await connection.response.create()
        await until(connection, "response.done")
        assert len(settled(running)) == 1


@scenario
async def test_many_utterances_in_one_event_never_pass_the_limit(tmp_path: Path) -> None:
    """Ten utterances sent at once against a budget for about three turns: the others are refused, none is unpaid."""
    limit = money(400_000_000)
    async with (
        realtime_gate(tmp_path, limits=[limit]) as running,
        talking(running, session={**sound(), "max_output_tokens": 1_000}) as connection,
    ):
        await until(connection, "session.updated")
        await hears(connection, (SPEECH + SILENCE) * 10)
        committed = 0
        codes: list[str] = []
        while committed < 10 or running.gate.allowances.held_total_usd:
            event = await connection.recv()
            committed += event.type == "input_audio_buffer.committed"
            if event.type == "error":
                codes.append(event.error.code or "")

        posted, held = (await allowances(running))["lim_money"]
        assert set(codes) <= {"budget_exhausted"}
        assert held == 0
        assert posted <= 400_000_000
        served = [row["request_id"] for row in await truth(running)]
        assert set(served) <= {event.id for event in running.of(Intended)}


@scenario
async def test_a_limit_refuses_a_heard_turn_and_the_session_stays(tmp_path: Path) -> None:
    """An ``error`` event with our code comes instead of the response, and the next events pass."""
    async with (
        realtime_gate(tmp_path, limits=[money(1_000)]) as running,
        talking(running, session=sound()) as connection,
    ):
        await until(connection, "session.updated")
        await hears(connection, SPEECH + SILENCE)
        error = (await until(connection, "error"))[-1].error
        await says(connection, "Still there?")
        await until(connection, "conversation.item.done")

        assert (error.code, error.type) == ("budget_exhausted", "insufficient_quota")
        assert running.simulator.dispatched == 0
        await running.until(lambda: running.of(Refused))
        assert running.of(Refused)[0].limit == "lim_money"


@scenario
async def test_an_own_timer_of_the_provider_is_refused(tmp_path: Path) -> None:
    """Nothing may begin without a frame that passes the gate."""
    async with realtime_gate(tmp_path) as running, talking(running) as connection:
        await until(connection, "session.updated")
        await connection.session.update(session=sound(idle_timeout_ms=5_000))  # type: ignore[arg-type]
        assert (await until(connection, "error"))[-1].error.code == "feature_unbounded"


# -- transcripts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "used"),
    [
        ("whisper-1", Usage(other=(Measure("seconds", "", 2),))),
        ("hear", Usage(input_audio=15, output_text=3)),
    ],
)
@scenario
async def test_a_transcript_is_a_record_of_its_own(tmp_path: Path, model: str, used: Usage) -> None:
    """By the second or by the token, at the price of the model that makes it, under a hold taken before the sound."""
    async with realtime_gate(tmp_path) as running:
        async with talking(running, session=sound(transcriber=model)) as connection:
            await until(connection, "session.updated")
            await hears(connection, SPEECH + SILENCE)
            await until(connection, "conversation.item.input_audio_transcription.completed")
            await until(connection, "response.done", "session.updated")

        await over(running)
        ended = [event for event in settled(running, "realtime.transcription") if event.status == "ok"]
        assert [event.usage for event in ended] == [used]
        assert ended[0].cost > 0
        assert {event.id for event in running.of(Intended)} == {event.id for event in running.of(Settled)}


@scenario
async def test_a_transcriber_without_a_price_is_refused_by_name(tmp_path: Path) -> None:
    """The update is not passed on, and says which field is wrong."""
    async with realtime_gate(tmp_path) as running, talking(running) as connection:
        await until(connection, "session.updated")
        await connection.session.update(session=sound(transcriber="nobody-1"))  # type: ignore[arg-type]
        assert (await until(connection, "error"))[-1].error.code == "model_not_found"
        assert (await turn(connection)).status == "completed"


@pytest.mark.parametrize("before", ["whisper-1", ""])
@scenario
async def test_what_transcribes_may_not_change_while_sound_waits(tmp_path: Path, before: str) -> None:
    """Sound in the buffer is held for at the price of one model, or not at all; once it is cleared, another may."""
    async with realtime_gate(tmp_path) as running:
        async with talking(running, session=sound(transcriber=before, off=True)) as connection:
            await until(connection, "session.updated")
            await hears(connection, SPEECH)
            await connection.session.update(session=sound(transcriber="hear"))  # type: ignore[arg-type]
            assert (await until(connection, "error"))[-1].error.code == "field_conflict"
            await connection.input_audio_buffer.clear()
            await connection.session.update(session=sound(transcriber="hear"))  # type: ignore[arg-type]
            await until(connection, "session.updated")
            await hears(connection, SPEECH)
            await connection.input_audio_buffer.commit()
            await until(connection, "conversation.item.input_audio_transcription.completed")

        await over(running)
        ended = [event for event in settled(running, "realtime.transcription") if event.status == "ok"]
        assert [(event.usage, event.price_version) for event in ended] == [
            (Usage(input_audio=10, output_text=2), "sim/transcribe@test")
        ]
        assert ended[0].cost > 0


@scenario
async def test_a_key_that_is_revoked_is_not_transcribed_for(tmp_path: Path) -> None:
    """Sound whose transcript nobody may ask for any more does not pass, and the session ends."""
    async with realtime_gate(tmp_path) as running:
        async with talking(running, session=sound(transcriber="whisper-1", off=True)) as connection:
            await until(connection, "session.updated")
            await running.ask(Load(2, keys=(key(state="revoked"),)))
            await hears(connection, SPEECH)
            assert (await until(connection, "error"))[-1].error.code == "key_revoked"
            with pytest.raises(ConnectionClosed):
                await connection.recv()
        assert running.of(Intended) == []


# -- limits ------------------------------------------------------------------------------------------------------------


@scenario
async def test_a_limit_of_five_turns_is_never_passed_by_ten_sessions(tmp_path: Path) -> None:
    """Ten sessions ask at once for four turns each; five are admitted, the others told so in the provider's shape."""
    limit = Limit("lim_turns", {"team": "research"}, (), "requests", 5, "day")
    async with realtime_gate(tmp_path, limits=[limit]) as running:
        done: list[str] = []

        async def talk() -> None:
            async with talking(running) as connection:
                await until(connection, "session.updated")
                for _ in range(4):
                    await connection.response.create()
                    event = (await until(connection, "response.done", "error"))[-1]
                    done.append(event.type)

        await asyncio.gather(*(talk() for _ in range(10)))
        assert done.count("response.done") == 5
        assert done.count("error") == 35
        assert running.simulator.dispatched == 5
        assert (await allowances(running))["lim_turns"] == (5, 0)


@scenario
async def test_where_money_is_tight_the_answer_is_capped(tmp_path: Path) -> None:
    """The largest cap that fits is put into the ``response.create``, and told in the record."""
    async with realtime_gate(tmp_path, limits=[money(100_000_000)]) as running, talking(running) as connection:
        response = await turn(connection, steered(output_tokens=4_000, chunk_tokens=500))
        (intent,) = running.of(Intended)

        assert 256 <= intent.clamped_to < 1_500
        assert response.usage.output_tokens == intent.clamped_to
        assert (await allowances(running))["lim_money"][0] <= 100_000_000


@scenario
async def test_a_cap_of_the_client_is_held_as_it_is(tmp_path: Path) -> None:
    """One for the response before one for the session; a text answer is held at the price of text."""
    async with realtime_gate(tmp_path) as running, talking(running, session={**TEXT, "max_output_tokens": 50}) as talk:
        await until(talk, "session.updated")
        await turn(talk)
        await turn(talk, max_output_tokens=7)
        await turn(talk, max_output_tokens="inf")
        # What the beta calls it means nothing to a session of today, so that it is no bound.
        await turn(talk, max_response_output_tokens=5)

        held = [event.held for event in running.of(Intended)]
        assert [amounts.output_tokens for amounts in held] == [50, 7, 4_096, 4_096]
        assert all(amounts.usd <= amounts.input_tokens * 32_000 + amounts.output_tokens * 16_000 for amounts in held)


@scenario
async def test_what_is_held_grows_with_the_conversation_up_to_the_window(tmp_path: Path) -> None:
    """The bound of a turn's input is what passed so far, and never more than the model's context window."""
    async with realtime_gate(tmp_path) as running, talking(running) as connection:
        await turn(connection)
        await turn(connection, "word " * 2_000)
        await turn(connection, "word " * 8_000)

        bounds = [event.input_tokens_bound for event in running.of(Intended)]
        used = [event.usage.input_tokens for event in settled(running)]
        assert bounds == sorted(bounds)
        assert bounds[-1] == 32_000
        assert all(most >= spent for most, spent in zip(bounds, used, strict=True))


@scenario
async def test_a_model_whose_window_is_not_known_is_refused(tmp_path: Path) -> None:
    """Before the upgrade, as an ordinary answer."""
    async with realtime_gate(tmp_path, place={"context_tokens_max": 0}) as running:
        with pytest.raises(InvalidStatus) as refused:
            await raw(running)
        assert refused.value.response.status_code == 400
        assert b"feature_unbounded" in refused.value.response.body


# -- who, and where ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "model", "code"),
    [
        ({"models": ("other",)}, "sim-1", "model_forbidden"),
        ({"operations": ("chat.completions",)}, "sim-1", "operation_forbidden"),
        ({"state": "revoked"}, "sim-1", "key_revoked"),
        ({}, "nobody-1", "model_not_found"),
        ({}, "hear", "model_not_found"),
    ],
)
@scenario
async def test_what_a_key_may_not_do_is_refused_before_the_upgrade(
    tmp_path: Path, fields: dict[str, Any], model: str, code: str
) -> None:
    """The refusals of any other call, as HTTP."""
    async with realtime_gate(tmp_path, keys=[key(**fields)]) as running:
        with pytest.raises(InvalidStatus) as refused:
            await raw(running, f"/v1/realtime?model={model}")
        assert code.encode() in refused.value.response.body
        assert running.simulator.connections == set()


@scenario
async def test_a_key_that_is_revoked_begins_no_further_turn(tmp_path: Path) -> None:
    """The session ends with 1008 at its next turn."""
    async with realtime_gate(tmp_path) as running, talking(running) as connection:
        await turn(connection)
        await running.ask(Load(2, keys=(key(state="revoked"),)))
        await connection.response.create()
        assert (await until(connection, "error"))[-1].error.code == "key_revoked"
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "key_revoked")
        assert len(running.of(Intended)) == 1


@scenario
async def test_browsers_bring_the_key_as_a_subprotocol(tmp_path: Path) -> None:
    """It opens like any other, and is never echoed or passed on."""
    protocols = ["realtime", f"openai-insecure-api-key.{secret('caller')}", "openai-beta.realtime-v1"]
    async with (
        realtime_gate(tmp_path) as running,
        raw(running, headers={}, subprotocols=protocols) as socket,
    ):
        created = str(await socket.recv())
        assert socket.subprotocol == "realtime"
        assert '"modalities"' in created, "the beta of the interface was asked for"
        await socket.send('{"type": "response.create"}')
        while "response.done" not in str(await socket.recv()):
            pass
        (row,) = await truth(running)
        headers = dict(row["headers"])
        assert "sec-websocket-protocol" not in headers
        assert row["credential"]["sha256"] == hashlib.sha256(b"sk-provider").hexdigest()
        assert secret("caller") not in str(row)


@scenario
async def test_two_different_keys_are_refused(tmp_path: Path) -> None:
    """One as a subprotocol and another in a header."""
    protocols = [f"openai-insecure-api-key.{secret('other')}"]
    async with realtime_gate(tmp_path) as running:
        with pytest.raises(InvalidStatus) as refused:
            await raw(running, subprotocols=protocols)
        assert b"auth_conflict" in refused.value.response.body


@pytest.mark.parametrize("kind", ["openai", "azure_openai"])
@scenario
async def test_azures_client_works_at_either_kind_of_provider(tmp_path: Path, kind: str) -> None:
    """``/openai/realtime?deployment=…&api-version=…``, which speaks the beta of the interface."""
    fields: dict[str, Any] = {"kind": kind, "api_version": "2025-04-01-preview"}
    if kind == "azure_openai":
        fields["credential"] = {"api-key": "sk-provider"}
    async with realtime_gate(tmp_path, provider_fields=fields) as running:
        if kind == "azure_openai":
            await moved(running, running.simulator.url)
        async with (
            AsyncAzureOpenAI(
                azure_endpoint=running.url,
                websocket_base_url=running.url.replace("http", "ws") + "/openai",
                api_key=secret("caller"),
                api_version="2025-04-01-preview",
            ) as client,
            client.realtime.connect(model="sim-1") as connection,
        ):
            await connection.send_raw('{"type": "session.update", "session": {"modalities": ["text"]}}')
            await until(connection, "session.updated")
            await turn(connection)

        (row,) = await truth(running)
        assert row["path"] == ("/openai/realtime" if kind == "azure_openai" else "/v1/realtime")
        assert [event.id for event in settled(running)] == [row["request_id"]]
        assert running.of(Intended)[0].held.output_tokens == 4_096


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/realtime", "field_missing"),
        ("/v1/realtime?model=a&deployment=b", "field_conflict"),
        ("/v1/realtime?call_id=rtc_1", "operation_unmetered"),
        ("/v1/realtime?model=sim-1&intent=transcription", "operation_unmetered"),
        ("/v1/realtime/calls?model=sim-1", "operation_unmetered"),
        ("/v1/chat/completions", "method_not_allowed"),
        ("/v1/models", "bad_framing"),
        ("/v1/nothing", "not_found"),
    ],
)
@scenario
async def test_what_cannot_be_metered_is_refused_by_name(tmp_path: Path, path: str, code: str) -> None:
    """WebRTC, transcription sessions, and upgrades of what is no WebSocket."""
    async with realtime_gate(tmp_path) as running:
        with pytest.raises(InvalidStatus) as refused:
            await raw(running, path)
        assert code.encode() in refused.value.response.body


@scenario
async def test_a_plain_request_is_told_to_upgrade(tmp_path: Path) -> None:
    """426 with our code."""
    async with realtime_gate(tmp_path) as running:
        answer = await running.client.get(
            "/v1/realtime?model=sim-1", headers={"authorization": f"Bearer {secret('caller')}"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (426, "header_invalid")


@scenario
async def test_a_provider_that_refuses_is_told_with_its_status(tmp_path: Path) -> None:
    """The body passes, without our credential in it."""
    async with realtime_gate(tmp_path, place={"upstream_model": "sim-missing"}) as running:
        with pytest.raises(InvalidStatus) as refused:
            await raw(running)
        assert refused.value.response.status_code == 404
        assert b"does not exist" in refused.value.response.body
        assert running.of(Intended) == []


# -- endings -----------------------------------------------------------------------------------------------------------


@scenario
async def test_a_client_that_leaves_pays_what_was_served_until_then(tmp_path: Path) -> None:
    """The response is cancelled, and its true usage is what is settled."""
    async with realtime_gate(tmp_path) as running:
        async with talking(running) as connection:
            await says(connection, steered(output_tokens=2_000, delay_ms=5))
            await connection.response.create()
            await until(connection, "response.output_text.delta")
        await over(running)

        (event,) = settled(running)
        (row,) = await truth(running)
        assert (event.status, event.code, event.usage_source) == ("aborted", "client_gone", "provider")
        assert event.usage.output_tokens == row["usage"]["output_tokens"] < 2_000


@scenario
async def test_a_session_that_breaks_off_settles_what_was_delivered(tmp_path: Path) -> None:
    """Never free, never above the hold; the client is told, and its connection closes."""
    async with realtime_gate(tmp_path) as running, talking(running) as connection:
        await says(connection, steered(output_tokens=100, fault="reset_mid_stream"))
        await connection.response.create()
        error = (await until(connection, "error"))[-1].error
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        await over(running)

        (event,) = settled(running)
        (intent,) = running.of(Intended)
        assert error.code == "upstream_truncated"
        assert (event.status, event.usage_source) == ("cut", "estimate")
        assert 40 <= event.usage.output_tokens <= 110
        assert 0 < event.cost <= intent.held.usd


@scenario
async def test_a_turn_of_a_provider_that_can_be_asked_is_kept_until_it_is(tmp_path: Path) -> None:
    """The connection broke in the middle: its money stays held under the id that the provider knows it by."""
    fields = {"lookup": "/simulator/truth/{id}"}
    async with realtime_gate(tmp_path, provider_fields=fields) as running, talking(running) as connection:
        await says(connection, steered(output_tokens=100, fault="reset_mid_stream"))
        await connection.response.create()
        with contextlib.suppress(ConnectionClosed):
            await until(connection, "error")
        await running.until(lambda: running.of(Lost))

        (lost,) = running.of(Lost)
        assert list(running.gate.unknowns) == [lost.id]
        await running.until(lambda: running.simulator.open_calls == {})
        answer = await running.client.get(f"{running.simulator.url}/simulator/truth/{lost.id}")
        assert answer.json()["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(
    ("fault", "source"),
    [("usage_missing", "counted"), ("usage_negative", "provider_invalid"), ("usage_text", "provider_invalid")],
)
@scenario
async def test_a_response_without_true_usage_is_counted_by_us(tmp_path: Path, fault: str, source: str) -> None:
    """What was delivered and what was read, within the hold."""
    async with realtime_gate(tmp_path) as running, talking(running) as connection:
        await turn(connection, steered(output_tokens=50, fault=fault))
        (event,) = settled(running)
        assert (event.status, event.usage_source) == ("ok", source)
        assert 40 <= event.usage.output_text <= 80
        assert event.usage.input_text > 0


@scenario
async def test_a_provider_that_stalls_is_cut(tmp_path: Path) -> None:
    """A response that says nothing for longer than the provider may pause ends the session."""
    fields = {"idle_timeout_ms": 500}
    async with realtime_gate(tmp_path, provider_fields=fields) as running, talking(running) as connection:
        await says(connection, steered(output_tokens=20, fault="stall"))
        await connection.response.create()
        assert (await until(connection, "error"))[-1].error.code == "upstream_timeout"
        await over(running)
        assert [event.status for event in settled(running)] == ["cut"]


@scenario
async def test_a_stop_lets_a_response_end_and_closes_politely(tmp_path: Path) -> None:
    """1001 after the last event; what is asked for meanwhile is refused."""
    async with realtime_gate(tmp_path) as running, talking(running) as connection:
        await says(connection, steered(output_tokens=20, delay_ms=20))
        await connection.response.create()
        await until(connection, "response.created")
        running.gate.drain()
        await connection.response.create()
        assert (await until(connection, "error"))[-1].error.code == "draining"
        await until(connection, "response.done")
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


@scenario
async def test_a_stop_cuts_what_takes_longer_than_it_may(tmp_path: Path) -> None:
    """The client is told, and what was delivered is settled before the gate is gone."""
    async with realtime_gate(tmp_path, drain_ms=300) as running, talking(running) as connection:
        await says(connection, steered(output_tokens=4_000, delay_ms=20))
        await connection.response.create()
        await until(connection, "response.output_text.delta")
        running.gate.drain()
        assert (await until(connection, "error"))[-1].error.code == "draining"
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        (event,) = settled(running)
        assert (event.status, event.code) == ("cut", "draining")
        assert event.cost > 0


@scenario
async def test_a_session_behind_another_request_on_its_connection(tmp_path: Path) -> None:
    """An upgrade that was sent before the answer to the request before it came is begun after that."""
    async with realtime_gate(tmp_path) as running:
        port = int(running.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        start = f"Host: gate\r\nAuthorization: Bearer {secret('caller')}\r\n"
        writer.write(f"GET /v1/models HTTP/1.1\r\n{start}\r\n".encode())
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        writer.write(f"GET /v1/realtime?model=sim-1 HTTP/1.1\r\n{start}{upgrade}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 101" in await reader.readuntil(b"\r\n\r\n")
        assert b"session.created" in await reader.readuntil(b"session.created")
        writer.close()
        await writer.wait_closed()


@scenario
async def test_a_session_lasts_as_long_as_it_may(tmp_path: Path) -> None:
    """Then it is closed with 1001."""
    async with realtime_gate(tmp_path, realtime_session_ms=300) as running, talking(running) as connection:
        await until(connection, "session.updated")
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


@scenario
async def test_with_power_durability_the_disk_is_waited_for(tmp_path: Path) -> None:
    """Turns and transcripts work the same when each intent and settlement must reach the disk first."""
    async with realtime_gate(tmp_path, durability="power") as running:
        async with talking(running, session=sound(transcriber="hear")) as connection:
            await until(connection, "session.updated")
            await hears(connection, SPEECH + SILENCE)
            await until(connection, "response.done")
            await connection.response.create()
            await until(connection, "response.done")
        await over(running)
        assert [event.status for event in settled(running)] == ["ok", "ok"]


@scenario
async def test_a_session_over_tls(tmp_path: Path) -> None:
    """``wss://``, as it should be anywhere but on one machine."""
    folder = Path(__file__).parent.parent / "config" / "certificates"
    trusted = ssl.create_default_context(cafile=str(folder / "good.pem"))
    files = TlsSettings(str(folder / "good.pem"), str(folder / "good.key"))
    async with realtime_gate(tmp_path, tls=files) as running:
        url = f"wss://localhost:{running.url.rpartition(':')[2]}/v1/realtime?model=sim-1"
        key_header = {"authorization": f"Bearer {secret('caller')}"}
        async with connect(url, additional_headers=key_header, ssl=trusted, max_size=None) as socket:
            await socket.send('{"type": "response.create"}')
            while "response.done" not in str(await socket.recv()):
                pass
        await over(running)
        assert [event.status for event in settled(running)] == ["ok"]


@scenario
async def test_an_ordinary_call_passes_beside_sessions(tmp_path: Path) -> None:
    """Sessions and calls share limits and nothing else."""
    async with realtime_gate(tmp_path, limits=[money(10_000_000_000)]) as running, talking(running) as connection:
        await turn(connection)
        answer = await running.chat()
        assert answer.status_code == 200
        async with client_of(running) as client:
            assert [model.id async for model in client.models.list()] == ["sim-1"]
        posted, held = (await allowances(running))["lim_money"]
        assert (posted, held) == (sum(event.charge for event in running.of(Settled)), 0)
