"""Changes take turns, and nobody who reads, signs in or looks whether all is well waits for those that wait."""

import asyncio
import threading
from functools import partial

import httpx2
import pytest

from console_parts import Api, Parts
from faregate.console.turns import TooManyWait, Turns
from faregate.core.access import LOCAL


def test_keys_take_turns_and_each_ones_changes_keep_their_order() -> None:
    """Whoever asks once waits for the change that runs and not for the many of another key."""
    turns, let, begun, made = Turns(), threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        begun.set()
        let.wait(10)

    running = turns.submit("key_a", first)
    begun.wait(10)
    waiting = [turns.submit(f"key_{name[0]}", partial(made.append, name)) for name in ("a0", "a1", "a2", "b0", "b1")]
    let.set()
    for each in (running, *waiting):
        each.result(10)

    assert made == ["a0", "b0", "a1", "b1", "a2"]


def test_a_fault_is_told_to_whoever_asked_and_the_next_gets_its_turn() -> None:
    """Nothing that a change raises ends the turns."""
    turns, rows = Turns(), dict[str, str]()

    with pytest.raises(LookupError, match="no such row"):
        turns.submit("key_a", lambda: rows["no such row"]).result(10)
    assert turns.submit("key_a", lambda: "made").result(10) == "made"


def test_changes_of_one_key_that_wait_are_bounded() -> None:
    """More are refused; another key's are taken, and the product's own always."""
    turns, let, begun = Turns(waiting_max=2), threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        let.wait(10)

    taken = [turns.submit("key_a", first)]
    begun.wait(10)
    taken += [turns.submit("key_a", first) for _ in range(2)]
    with pytest.raises(TooManyWait):
        turns.submit("key_a", first)
    taken += [turns.submit("key_b", first), *(turns.submit(LOCAL.id, first) for _ in range(5))]
    let.set()

    assert [each.result(10) for each in taken] == [None] * 9


def test_changes_that_wait_hold_up_nobody_who_reads(made: Parts, api: Api) -> None:
    """Sixty changes of one key: beyond the bound they are told to come again, and others read and ask for health."""
    body = {"name": "busy", "role": "user", "organization": "acme", "user": "carol"}
    busy = {"authorization": f"Bearer {api.post('/api/v1/keys', body)['secret']}"}
    admin = {"authorization": f"Bearer {made.admin_key('other')}"}

    async def ask() -> tuple[list[httpx2.Response], list[httpx2.Response]]:
        transport = httpx2.ASGITransport(made.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://console.test") as client:
            with made.console.changing:
                asked = [
                    asyncio.create_task(client.post("/api/v1/keys", headers=busy, json={"name": f"key-{n}"}))
                    for n in range(60)
                ]
                # So many are refused, at least; all others wait.
                for _, each in zip(range(27), asyncio.as_completed(asked, timeout=30), strict=False):
                    await each
                others = [await client.get(path, headers=admin) for path in ("/api/v1/keys", "/health/ready")]
            return await asyncio.gather(*asked), others

    changes, others = asyncio.run(ask())

    assert [each.status_code for each in others] == [200, 200]
    refused = [each for each in changes if each.status_code != 201]
    assert len(refused) in (27, 28)
    assert {(each.status_code, each.json()["code"], each.headers["retry-after"]) for each in refused} == {
        (429, "concurrency_limited", "1")
    }
