"""A gate before a provider that speaks realtime, and clients that talk to it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.asyncio.client import ClientConnection, connect

from faregate.control import Deployment, Load
from faregate.core.pricing.card import Rate, RateCard, Tier
from gates import OPERATIONS, RunningGate, deployment, running_gate, secret

PER = 1_000_000


def _rate(unit: str, dollars: int) -> Rate:
    return Rate(unit, dollars * 1_000_000_000_000, PER)


#: The prices of gpt-realtime, in dollars per million, cached sound dearer so that it is told apart.
CARD = RateCard(
    "sim",
    "sim-1",
    "sim/realtime@test",
    (
        Tier(
            0,
            (
                _rate("input_tokens", 4),
                _rate("cached_input_tokens", 1),
                _rate("input_audio_tokens", 32),
                _rate("cached_input_audio_tokens", 2),
                _rate("output_tokens", 16),
                _rate("output_audio_tokens", 64),
            ),
        ),
    ),
)
#: A hundred-thousandth of a dollar for a second.
WHISPER = RateCard("sim", "whisper-1", "sim/whisper@test", (Tier(0, (Rate("seconds", 10_000_000, 1),)),))
TRANSCRIBE = RateCard(
    "sim",
    "sim-transcribe",
    "sim/transcribe@test",
    (Tier(0, (_rate("input_tokens", 2), _rate("input_audio_tokens", 6), _rate("output_tokens", 10))),),
)

#: One second of speech, and of silence, at 24 kHz in 16 bits.
SPEECH = b"\1" * 48_000
SILENCE = b"\0" * 48_000

TEXT: dict[str, Any] = {"type": "realtime", "output_modalities": ["text"]}


def places(**fields: Any) -> tuple[Deployment, ...]:
    """The model that converses, and two that transcribe."""
    defaults: dict[str, Any] = {
        "cards": (CARD,),
        "output_tokens_max": 4_096,
        "context_tokens_max": 32_000,
        "operations": (*OPERATIONS, "realtime"),
    }
    return (
        deployment(**(defaults | fields)),
        deployment("sim/whisper-1", upstream_model="whisper-1", model="whisper-1", cards=(WHISPER,), operations=()),
        deployment("sim/transcribe", upstream_model="sim-transcribe", model="hear", cards=(TRANSCRIBE,), operations=()),
    )


@contextlib.asynccontextmanager
async def realtime_gate(
    folder: Path, *, place: dict[str, Any] | None = None, **fields: Any
) -> AsyncIterator[RunningGate]:
    """A running gate whose provider speaks realtime."""
    async with running_gate(folder, deployments=places(**(place or {})), **fields) as running:
        yield running


async def moved(running: RunningGate, url: str) -> None:
    """The provider is somewhere else from now on."""
    catalogue = running.gate.snapshot.catalogue
    provider = msgspec.structs.replace(catalogue.providers[0], base_url=url)
    await running.ask(Load(2, catalogue=msgspec.structs.replace(catalogue, providers=(provider,))))


def client_of(running: RunningGate, name: str = "caller") -> AsyncOpenAI:
    """The stock client, with URL and key changed and nothing else."""
    return AsyncOpenAI(base_url=f"{running.url}/v1", api_key=secret(name), max_retries=0)


@contextlib.asynccontextmanager
async def talking(
    running: RunningGate, *, name: str = "caller", session: dict[str, Any] | None = None
) -> AsyncIterator[AsyncRealtimeConnection]:
    """A session of the stock client, set up as ``session`` says (text by default)."""
    async with client_of(running, name) as client, client.realtime.connect(model="sim-1") as connection:
        await connection.session.update(session=session or TEXT)  # type: ignore[arg-type]
        yield connection


def raw(running: RunningGate, path: str = "/v1/realtime?model=sim-1", **options: Any) -> connect:
    """A WebSocket without a client library of the provider's."""
    headers = options.pop("headers", {"authorization": f"Bearer {secret('caller')}"})
    url = running.url.replace("http://", "ws://") + path
    return connect(url, additional_headers=headers, compression=None, **options)


async def says(connection: AsyncRealtimeConnection, text: str) -> None:
    """The user writes something."""
    await connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    )


async def until(connection: AsyncRealtimeConnection | ClientConnection, *kinds: str) -> list[Any]:
    """Events up to the first of some kinds, that one included; an error that was not waited for fails the test."""
    events: list[Any] = []
    while not events or events[-1].type not in kinds:
        event = await connection.recv()
        assert not isinstance(event, str | bytes)
        events.append(event)
        assert event.type != "error" or "error" in kinds, event.error
    return events


async def turn(connection: AsyncRealtimeConnection, text: str = "Say hello.", **response: Any) -> Any:
    """One whole turn of text; the response at its end."""
    await says(connection, text)
    await connection.response.create(**({"response": response} if response else {}))  # type: ignore[arg-type]
    return (await until(connection, "response.done"))[-1].response


async def hears(connection: AsyncRealtimeConnection, sound: bytes) -> None:
    """The user says something."""
    await connection.input_audio_buffer.append(audio=base64.b64encode(sound).decode())
