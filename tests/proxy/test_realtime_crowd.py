"""A crowd of realtime clients that do whatever they like: the provider's truth, the books and the limits agree."""

import asyncio
import base64
import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from faregate.core.ledger.events import Intended, Settled
from gates import RunningGate, allowances, money, scenario, truth
from realtimes import SILENCE, SPEECH, raw, realtime_gate

CLIENTS = 12
LIMIT = 1_500_000_000


def _step(chance: random.Random) -> dict[str, Any]:
    """Something that a client may say."""
    kind = chance.choices(["sound", "ask", "write", "cancel", "commit", "clear"], [6, 6, 4, 1, 2, 1])[0]
    if kind == "sound":
        data = (SPEECH + SILENCE) * chance.randint(1, 4)
        return {"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()}
    if kind == "ask":
        return {"type": "response.create", "response": {"conversation": chance.choice(["auto", "none"])}}
    if kind == "write":
        steering = {
            "output_tokens": chance.randint(1, 300),
            "delay_ms": chance.choice([0, 1, 5]),
            "chunk_tokens": chance.choice([1, 10]),
        }
        content = [{"type": "input_text", "text": f"sim: {json.dumps(steering)}"}]
        return {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}}
    ends = {"cancel": "response.cancel", "commit": "input_audio_buffer.commit", "clear": "input_audio_buffer.clear"}
    return {"type": ends[kind]}


async def _listen(socket: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for _ in socket:
            pass


async def _client(running: RunningGate, chance: random.Random) -> None:
    """A session of random events, left politely or not."""
    session: dict[str, Any] = {"type": "realtime", "output_modalities": [chance.choice(["text", "audio"])]}
    if chance.random() < 0.5:
        session["audio"] = {"input": {"transcription": {"model": chance.choice(["whisper-1", "hear"])}}}
    async with raw(running, max_size=None) as socket:
        listening = asyncio.create_task(_listen(socket))
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        for _ in range(chance.randint(1, 10)):
            await socket.send(json.dumps(_step(chance)))
            await asyncio.sleep(chance.choice([0, 0, 0.1]))
        await asyncio.sleep(chance.random() / 2)
        if chance.random() < 0.3:
            socket.transport.abort()
    await listening


@pytest.mark.parametrize("seed", [1, 2])
@scenario
async def test_whatever_a_crowd_does_nothing_is_unpaid_and_no_limit_is_passed(tmp_path: Path, seed: int) -> None:
    """Each response that the provider served has an intent, ended once within its hold; in the end nothing is open."""
    async with realtime_gate(tmp_path, limits=[money(LIMIT)]) as running:
        await asyncio.gather(*(_client(running, random.Random(seed * 100 + n)) for n in range(CLIENTS)))
        await running.until(lambda: running.gate.allowances.open_count == 0, 20)
        await running.until(lambda: not running.simulator.connections, 20)

        ended = running.of(Settled)
        intents = {event.id: event for event in running.of(Intended)}
        served = {row["request_id"]: row["usage"] for row in await truth(running)}
        responses = {id for id in served if not id.startswith("transcript_")}
        assert sorted(event.id for event in ended) == sorted(intents)
        assert responses <= set(intents)
        assert [event for event in ended if event.overrun] == []
        assert [event.id for event in ended if event.id in responses and event.cost == 0] == []
        told = [event for event in ended if event.usage_source == "provider" and event.id in responses]
        assert [event.id for event in told if event.usage.output_tokens != served[event.id]["output_tokens"]] == []
        posted, held = (await allowances(running))["lim_money"]
        assert (posted, held) == (sum(event.charge for event in ended), 0)
        assert posted <= LIMIT
        assert (running.gate.held_bytes, running.gate.coming, running.gate.connections) == (0, {}, 0)
        assert running.gate.snapshot.routes["sim-1"][0].pool.open_connections == 0
