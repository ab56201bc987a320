"""Redis is expendable (G8): whatever becomes of it, no limit is passed, no record lost, and no call waits for it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from installation import VISIBLE_SECONDS, Installation, nanos
from redis_server import RedisServer, redis_server
from system.calls import Answer, ask, ask_all, body, new_key, until, until_async

#: The list of guarantees asks for twenty rounds of each; the suite runs one.
ROUNDS: Final = 20 if os.environ.get("FAREGATE_SOAK") else 1

#: Of calls in one round: every other one is one of ten that are the same.
CALLS: Final = 120

#: What one call costs and what it may cost: 10 and 20 tokens, of a bound of a few more.
CALL: Final[dict[str, Any]] = {"prompt_tokens": 10, "output_tokens": 20}
COST: Final = 50_000

#: What a call may take on a busy machine whose cache server does not answer within its 50 ms.
DEADLINE_SLACK_S: Final = 2.0

CONFIG: Final = """\
providers:
  - {{name: sim, kind: openai, base_url: "http://127.0.0.1:{simulator_port}/v1", api_key: sim-key}}
models:
  - {{name: sim-1, to: [sim/sim-1], max_output_tokens: 4096}}
cache: {{default: "on", store: redis, url: "redis://127.0.0.1:REDIS/0", timeout: 50ms}}
pricing:
  overrides:
    - {{provider: sim, model: sim-1, unit: input_tokens, per: 1000000, price: "1"}}
    - {{provider: sim, model: sim-1, unit: output_tokens, per: 1000000, price: "2"}}
"""


class Shared(NamedTuple):
    """An installation whose answers are on a Redis server."""

    running: Installation
    redis: RedisServer


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        config = CONFIG.replace("REDIS", str(redis.port))
        with Installation(tmp_path_factory.mktemp("shared"), config=config) as running:
            yield Shared(running, redis)


def _killed(redis: RedisServer) -> None:
    redis.kill()


def _stalled(redis: RedisServer) -> None:
    redis.stall()


def _wiped(redis: RedisServer) -> None:
    redis.wipe()


def _older(redis: RedisServer) -> None:
    """Every value is that of another key, as after a fail-over to somebody else's data."""
    names = redis.names()
    values = [redis.client.get(name) for name in names]
    for name, value in zip(names, values[1:] + values[:1], strict=True):
        redis.client.set(name, value)


def _garbage(redis: RedisServer) -> None:
    for name in redis.names():
        redis.client.set(name, b"\x00" * 100)


def _well(redis: RedisServer) -> None:
    """Bring it back, as it was or empty."""
    try:
        redis.go_on()
    except AssertionError:
        assert redis.start()


async def under_load(shared: Shared, secret: str, bodies: list[Any], happens: Callable[[RedisServer], None]) -> Any:
    """All calls at once; in the midst of them something happens to the server."""
    answered: list[Answer] = []
    load = asyncio.create_task(ask_all(shared.running, secret, bodies, answered))
    await until_async(lambda: len(answered), lambda count: count >= CALLS // 8 or load.done(), 20)
    await asyncio.to_thread(happens, shared.redis)
    await load
    return answered


def one_round(shared: Shared, name: str, happens: Callable[[RedisServer], None]) -> None:
    """A budget for half of the calls, and what is posted to it is what was answered."""
    running, redis = shared
    made = new_key(running, name, team="research", project=name)
    limit_id = running.limit(select=f"project={name}", unit="usd", amount="0.003", window="lifetime")["id"]
    same = [body(f"Same {turn % 10} {name}.", **CALL) for turn in range(CALLS // 2)]
    other = [body(f"Other {turn} {name}.", **CALL) for turn in range(CALLS // 2)]
    bodies = [each for pair in zip(same, other, strict=True) for each in pair]
    began = time.monotonic()
    try:
        answers = asyncio.run(under_load(shared, made["secret"], bodies, happens))
    finally:
        _well(redis)
    assert time.monotonic() - began < 30
    assert {answer.status for answer in answers} <= {200, 429}
    assert {answer.code for answer in answers if answer.status == 429} <= {"budget_exhausted"}

    def limit() -> dict[str, Any]:
        return next(dict(each) for each in running.cli("limit", "list") if each["id"] == limit_id)

    found = until(limit, lambda found: nanos(found["held"]) == 0, VISIBLE_SECONDS)
    paid = sum(answer.status == 200 and answer.headers["x-faregate-cache"] != "hit" for answer in answers)
    assert nanos(found["held"]) == 0
    assert nanos(found["posted"]) == paid * COST <= 3_000_000
    assert running.cli("verify")["ok"] is True
    # It is used again once it is well.
    again = body(f"Again {name}.", **CALL)
    free = new_key(running, f"{name}-free", team="research", project=f"{name}-free")["secret"]
    seen = until(lambda: ask(running, free, again).headers["x-faregate-cache"], lambda found: found == "hit", 20)
    assert seen == "hit"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("happens", [_killed, _stalled, _wiped, _older, _garbage])
def test_no_limit_depends_on_it(shared: Shared, happens: Callable[[RedisServer], None]) -> None:
    """A budget for half of the calls is never passed; what is refused is refused for want of budget alone."""
    for number in range(ROUNDS):
        one_round(shared, f"{happens.__name__}-{number}", happens)


@pytest.mark.timeout(300)
def test_nobody_waits_for_a_server_that_stalls(shared: Shared) -> None:
    """Calls are answered as without a cache while it stalls: each waits for it 50 ms at most, told here with slack."""
    running, redis = shared
    secret = new_key(running, "patient", team="research", project="patient")["secret"]
    redis.stall()
    try:
        for number in range(30):
            began = time.monotonic()
            assert ask(running, secret, body(f"Question {number}.", **CALL)).status == 200
            assert time.monotonic() - began < DEADLINE_SLACK_S
    finally:
        redis.go_on()


def test_what_lies_there_can_be_read_by_nobody(shared: Shared, tmp_path: Path) -> None:
    """No prompt and no answer stands in what the server holds."""
    running, redis = shared
    secret = new_key(running, "secretive", team="research", project="secretive")["secret"]
    answer = ask(running, secret, body("A very particular question.", content="A very particular answer.", **CALL))
    assert answer.status == 200
    until(lambda: redis.names(), bool, VISIBLE_SECONDS)
    held = b"".join(redis.client.get(name) or b"" for name in redis.names())
    assert held
    for text in (b"particular", b"secretive", b"sim-1", secret.encode()):
        assert text not in held
        assert all(text not in name for name in redis.names())
