"""The simulator's realtime sessions, spoken to directly by the stock client."""

import asyncio
import base64
import json
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from simulated import KEY, Provider

SPEECH, SILENCE = b"\1" * 48_000, b"\0" * 48_000


async def until(connection: AsyncRealtimeConnection, *kinds: str) -> list[Any]:
    """Events up to the first of these kinds."""
    events: list[Any] = []
    while not events or events[-1].type not in kinds:
        events.append(await connection.recv())
    return events


def talk(provider: Provider, session: dict[str, Any], *steps: dict[str, Any], last: str) -> list[Any]:
    """Set a session up, send some events, and listen until the first event of kind ``last``."""

    async def run() -> list[Any]:
        async with (
            AsyncOpenAI(base_url=f"{provider.url}/v1", api_key=KEY, max_retries=0) as client,
            client.realtime.connect(model="sim-1") as connection,
        ):
            await connection.send_raw(json.dumps({"type": "session.update", "session": session}))
            await until(connection, "session.updated")
            for step in steps:
                await connection.send_raw(json.dumps(step))
            return await until(connection, last)

    return asyncio.run(run())


def sound(data: bytes) -> dict[str, Any]:
    """An event that appends sound."""
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()}


def user(text: str) -> dict[str, Any]:
    """An event with a user's text."""
    content = [{"type": "input_text", "text": text}]
    return {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}}


TEXT: dict[str, Any] = {"type": "realtime", "output_modalities": ["text"]}
CREATE = {"type": "response.create", "event_id": "asked"}


def test_a_response_has_events_in_order_and_true_usage(provider: Provider) -> None:
    """Created, text, done; the truth log has the same usage under the event's id before the end is told."""
    events = talk(provider, TEXT, user('sim: {"output_tokens": 5}'), CREATE, last="response.done")
    kinds = [event.type for event in events]
    truth = provider.record("asked")

    assert kinds[-1] == "response.done"
    assert kinds.count("response.output_text.delta") == 5
    assert events[-1].response.usage.output_tokens == truth["usage"]["output_tokens"] == 5
    assert truth["request_id"] == "asked"


def test_speech_and_silence_begin_a_response(provider: Provider) -> None:
    """Voice activity detection, on as it is by default, commits what is heard and answers."""
    events = talk(provider, {"type": "realtime"}, sound(SPEECH), sound(SILENCE), last="response.done")
    kinds = [event.type for event in events]

    assert kinds[:3] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
    ]
    assert events[-1].response.usage.input_token_details.audio_tokens == 15


def test_without_answers_speech_is_only_committed(provider: Provider) -> None:
    """``create_response: false`` leaves the answer to the client."""
    heard = {"turn_detection": {"type": "server_vad", "create_response": False}}
    session = {"type": "realtime", "audio": {"input": heard}}
    events = talk(provider, session, sound(SPEECH + SILENCE), {"type": "nonsense"}, last="error")

    assert "response.created" not in [event.type for event in events]


@pytest.mark.parametrize(("model", "kind"), [("whisper-1", "duration"), ("sim-transcribe", "tokens")])
def test_what_is_committed_is_transcribed(provider: Provider, model: str, kind: str) -> None:
    """With usage by the second or by the token, as the model's name says."""
    heard = {"turn_detection": None, "transcription": {"model": model}}
    session = {"type": "realtime", "audio": {"input": heard}}
    steps = (sound(SPEECH), {"type": "input_audio_buffer.commit"})
    event = talk(provider, session, *steps, last="conversation.item.input_audio_transcription.completed")[-1]

    assert event.usage.type == kind


def test_a_cancelled_response_bills_what_was_delivered(provider: Provider) -> None:
    """Its end says so."""
    steering = user('sim: {"output_tokens": 500, "delay_ms": 20}')
    response = talk(provider, TEXT, steering, CREATE, {"type": "response.cancel"}, last="response.done")[-1].response

    assert response.status == "cancelled"
    assert response.usage.output_tokens < 500


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.cancel"},
        {"type": "input_audio_buffer.commit"},
        {"type": "session.update", "session": {"type": "realtime", "model": "another"}},
        {"type": "response.create", "response": {"max_output_tokens": 0}},
        {"type": "conversation.item.create"},
        {"type": "input_audio_buffer.append", "audio": "%"},
    ],
)
def test_what_cannot_be_done_is_an_error_with_the_events_name(provider: Provider, event: dict[str, Any]) -> None:
    """And the session goes on."""
    complaint = talk(provider, TEXT, {**event, "event_id": "mine"}, last="error")[-1].error

    assert complaint.event_id == "mine"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/realtime?model=sim-1", {}, 401),
        ("/v1/realtime", {"authorization": "Bearer k"}, 404),
        ("/openai/realtime?deployment=sim-1", {"api-key": "k"}, 404),
    ],
)
def test_sessions_need_a_credential_and_a_model(
    provider: Provider, path: str, headers: dict[str, str], status: int
) -> None:
    """Azure's dated path needs its version, too."""

    async def run() -> int:
        with pytest.raises(InvalidStatus) as refused:
            await connect(provider.url.replace("http", "ws") + path, additional_headers=headers)
        return refused.value.response.status_code

    assert asyncio.run(run()) == status


def test_azure_speaks_the_beta(provider: Provider) -> None:
    """``session`` has its settings at the top."""

    async def run() -> dict[str, Any]:
        path = "/openai/realtime?deployment=sim-1&api-version=2025-04-01-preview"
        async with connect(provider.url.replace("http", "ws") + path, additional_headers={"api-key": "k"}) as socket:
            created: dict[str, Any] = json.loads(await socket.recv())
            return created

    session = asyncio.run(run())["session"]
    assert session["turn_detection"]["type"] == "server_vad"
    assert session["modalities"] == ["text", "audio"]
