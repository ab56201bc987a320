"""Whatever is steered and whenever the caller leaves: one call, one record, nothing left in flight."""

import asyncio
import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faregate.simulator import Simulator, serve
from faregate.simulator.faults import FAULTS
from simulated import chat, post

CALLS = 300
TOGETHER = 50


def steering(choose: random.Random) -> dict[str, Any]:
    """Some steering, at random."""
    fields: dict[str, Any] = {
        "output_tokens": choose.randrange(50),
        "chunk_tokens": choose.randrange(1, 9),
        "fault": choose.choice([*FAULTS, *[""] * 30]),
        "pings": choose.randrange(3),
        "delay_ms": choose.choice([0, 1]),
        "first_delay_ms": choose.choice([0, 1]),
        "usage": choose.choice([True, False]),
        "tool_calls": choose.choice([0, 2]),
        "split_bytes": choose.choice([1, 7]),
        "content": choose.choice(["", "é世 x y"]),
        "status": choose.choice([200, 500]),
    }
    return {name: value for name, value in fields.items() if choose.random() < 0.4}


async def call(simulator: Simulator, choose: random.Random, request_id: str) -> None:
    """One call whose caller leaves when it has heard all, or has had enough."""
    body = chat(steering(choose), stream=choose.random() < 0.6, n=choose.choice([1, 2]))
    reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
    writer.write(post(body, request_id=request_id))
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(choose.choice([0.001, 0.01, 0.2])):
            while await reader.read(1 << 16):
                pass
    writer.transport.abort()


async def many_calls(seed: int, truth_file: Path) -> int:
    """Many calls at once, to a simulator that is closed after them; returns how many it heard of."""
    choose = random.Random(seed)
    together = asyncio.Semaphore(TOGETHER)
    async with await serve(truth_file=truth_file) as simulator:

        async def one(number: int) -> None:
            async with together:
                await call(simulator, choose, f"req_{number}")

        await asyncio.gather(*map(one, range(CALLS)))
    assert (simulator.open_calls, simulator.in_flight) == ({}, 0)
    return simulator.dispatched


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("seed", [1, 2])
def test_one_call_one_record(tmp_path: Path, runner: Any, seed: int) -> None:
    """Every call that was heard of has one record, and what is billed has a usage that adds up."""
    path = tmp_path / "truth.jsonl"
    dispatched = runner(many_calls(seed, path))

    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    ids = [record["request_id"] for record in found]
    assert len(ids) == len(set(ids)) == dispatched
    for record in found:
        assert (record["usage"] is not None) == record["served"]
        if record["served"]:
            usage = record["usage"]
            assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
            assert not record["stream"] or record["delivered_tokens"] == usage["completion_tokens"]
