"""Realtime sessions through a whole installation: booked as served, and unknown until asked where they are killed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI
from websockets.exceptions import ConnectionClosed, InvalidStatus

from installation import CONFIG, Installation, Refused, nanos
from system.calls import cost_nanos, new_key, new_limit, record_count, records, until

TURNS = 3
READY_SECONDS = 15.0

_CONFIG = CONFIG.replace(
    "{{name: sim-1, to: [sim/sim-1], max_output_tokens: 4096}}",
    "{{name: sim-1, to: [sim/sim-1], max_output_tokens: 4096, max_context_tokens: 32000}}",
).replace(
    '    lookup: {{path: "{lookup}"}}\n',
    '    lookup: {{path: "{lookup}"}}\n    timeouts: {{connect: 1s, first_byte: 10s, idle: 10s, total: 12s}}\n',
)


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose model has a known context window, and whose gate may be killed."""
    with Installation(tmp_path_factory.mktemp("realtime"), config=_CONFIG) as installation:
        yield installation


async def _talk(running: Installation, secret: str, steering: str, turns: int) -> list[Any]:
    """Some turns of text; the responses that came to their end."""
    ended: list[Any] = []
    async with (
        AsyncOpenAI(base_url=f"{running.gateway_url}/v1", api_key=secret, max_retries=0) as client,
        client.realtime.connect(model="sim-1") as connection,
    ):
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        for _ in range(turns):
            content: Any = [{"type": "input_text", "text": f"Say hello.\nsim: {steering}"}]
            await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
            await connection.response.create()
            async for event in connection:
                if event.type == "response.done":
                    ended.append(event.response)
                    break
    return ended


def _served(running: Installation, id: str) -> dict[str, Any]:
    (row,) = running.simulator("GET", f"truth?request_id={id}")["data"]
    usage: dict[str, Any] = row["usage"]
    return usage


def gate_pid(running: Installation) -> int:
    """The gate's process, 0 while there is none."""
    try:
        return running.gate_pid()
    except Refused:
        return 0


def test_a_session_is_booked_turn_by_turn(talker: Installation) -> None:
    """Each response is one record with the provider's tokens and cost, and the books verify."""
    key = new_key(talker, "talks")
    responses = asyncio.run(_talk(talker, key["secret"], "{}", TURNS))
    rows = record_count(talker, TURNS, key=key["id"])

    assert len(responses) == len(rows) == TURNS
    for row in rows:
        usage = _served(talker, row["id"])
        assert (row["operation"], row["status"], row["stream"]) == ("realtime", "ok", True)
        assert (row["input_tokens"], row["output_tokens"]) == (usage["input_tokens"], usage["output_tokens"])
        assert nanos(row["cost"]) == cost_nanos(usage["input_tokens"], usage["output_tokens"])
    assert talker.settled()["ok"] is True


def test_a_turn_cut_by_a_kill_is_unknown_then_booked_as_the_provider_says(talker: Installation) -> None:
    """After kill -9 in the middle of a response it is visible, held, and then settled by what was served."""
    key = new_key(talker, "killed")
    limit = new_limit(talker, {"key": key["id"]}, "usd", "1")

    async def cut() -> None:
        with pytest.raises(ConnectionClosed):
            await _talk(talker, key["secret"], '{"output_tokens": 200, "delay_ms": 50}', 1)

    thread = threading.Thread(target=lambda: asyncio.run(cut()))
    thread.start()
    until(lambda: talker.simulator("GET", "state")["in_flight"], bool, 10)
    # Some of it is delivered before the end.
    time.sleep(0.5)
    with talker.simulator_silent():
        dead = talker.kill_gate()
        until(lambda: gate_pid(talker), lambda now: now not in (0, dead), READY_SECONDS)
        talker.wait_ready(READY_SECONDS)
        (unknown,) = record_count(talker, 1, key=key["id"], status="unknown")
        held = nanos(talker.admin("GET", f"/api/v1/limits/{limit['id']}")["held"])
    thread.join(10)
    assert held == nanos(unknown["held"]) > 0

    verified = talker.settled()
    (row,) = [row for row in records(talker, key=key["id"]) if row["status"] != "refused"]
    usage = _served(talker, row["id"])
    assert (verified["ok"], verified["held"], verified["unknown"]) == (True, "0", "0")
    assert row["resolution"] == "provider_said"
    assert 0 < usage["output_tokens"] < 200
    assert nanos(row["charge"]) == cost_nanos(usage["input_tokens"], usage["output_tokens"])
    assert nanos(talker.admin("GET", f"/api/v1/limits/{limit['id']}")["held"]) == 0


def test_a_key_for_chats_alone_opens_no_session(talker: Installation) -> None:
    """It is refused before the upgrade."""
    key = new_key(talker, "chats", operations=["chat.completions"])

    with pytest.raises(InvalidStatus) as refused:
        asyncio.run(_talk(talker, key["secret"], "{}", 1))
    assert refused.value.response.status_code == 403
