"""Stores under test, and what is put into them."""

import asyncio
from collections.abc import Callable
from typing import Any

from faregate.core.caching.policy import CacheLabels
from faregate.ports import CachedAnswer, Later, ResponseStore

#: An instant, and stretches of time, in nanoseconds.
START = 1_790_000_000_000_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND

LABELS = CacheLabels("acme", "prod", "search", "key_1", "chat", "gpt-4o-2024")


def key(n: int) -> bytes:
    return n.to_bytes(32, "big")


def answer(
    body: bytes = b"{}", labels: CacheLabels = LABELS, expires_at: int = START + MINUTE, made_at: int = START
) -> CachedAnswer:
    return CachedAnswer(b"application/json", body, 1_500, made_at, expires_at, "req_1", labels.answered_by, labels)


async def found(store: ResponseStore, key: bytes, now: int = START) -> CachedAnswer | None:
    """What a store has, however it says so; it says it once."""
    told: list[CachedAnswer | None] = []
    said = store.find(key, now, told.append)
    if said is not Later.ASKED:
        assert told == []
        assert said is None or isinstance(said, CachedAnswer)
        return said
    await until(lambda: bool(told))
    await asyncio.sleep(0)
    assert len(told) == 1
    return told[0]


async def flushed(store: ResponseStore, **wanted: str) -> tuple[int, str]:
    """What a store says when it has forgotten."""
    told: list[tuple[int, str]] = []
    store.flush(CacheLabels(**wanted), lambda count, trouble: told.append((count, trouble)))
    await until(lambda: bool(told))
    return told[0]


async def until(holds: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until something holds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not holds():
        assert loop.time() < end, "it did not come to hold"
        await asyncio.sleep(0.002)


def sample(store: ResponseStore, name: str) -> int:
    return dict(store.samples())[f"faregate_cache_{name}"]
