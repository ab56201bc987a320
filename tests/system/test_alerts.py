"""People are told what limits do, from the outside: real calls, a real gate, and a receiver that checks signatures."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from installation import CONFIG, VISIBLE_SECONDS, Installation
from little_service import LittleService, Seen
from system.calls import ask, body, new_key, new_limit, until

SECRET = "a-webhook-secret-of-our-own-making"

#: A call of ten tokens costs a dime.
DIME = {"sim-1": ("0", "10000")}


class Receiver:
    """A receiver of alerts in a thread of its own."""

    def __init__(self) -> None:
        self.service = LittleService()
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> LittleService:
        self._thread.start()
        assert self._ready.wait(10)
        return self.service

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    async def _run(self) -> None:
        await self.service.start()
        self._ready.set()
        await asyncio.to_thread(self._stop.wait)
        await self.service.close()


@pytest.fixture(scope="module")
def receiver() -> Iterator[LittleService]:
    with Receiver() as service:
        yield service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, receiver: LittleService) -> Iterator[Installation]:
    """An installation that sends its alerts to the receiver, by its configuration."""
    channel = f"{{{{name: ops, url: '{receiver.url}/alerts', secret: {SECRET}}}}}"
    alerts = f"alerts:\n  allow_private: true\n  channels: [{channel}]\n"
    with Installation(tmp_path_factory.mktemp("alerts"), config=CONFIG + alerts, prices=DIME) as installation:
        yield installation


def told(receiver: LittleService, limit: str) -> list[dict[str, Any]]:
    """What the receiver was told of a limit, each signature checked."""
    events = [json.loads(seen.body) for seen in list(receiver.seen) if _signed(seen)]
    return [each for each in events if each["limit_id"] == limit]


def _signed(seen: Seen) -> bool:
    (timestamp,), (signature,) = seen.values("x-faregate-timestamp"), seen.values("x-faregate-signature")
    wanted = hmac.new(SECRET.encode(), f"{timestamp}.".encode() + seen.body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(signature, f"v1={wanted}")
    return True


def states(running: Installation, limit: str) -> list[str]:
    """The states of the alerts about a limit."""
    return [row["state"] for row in running.admin("GET", f"/api/v1/alerts?limit_id={limit}")["data"]]


def spend(running: Installation, key: dict[str, Any], calls: int) -> list[int]:
    """Statuses of so many calls for a dime each."""
    asked = (body(f"Call {n}.", max_tokens=10, output_tokens=10) for n in range(calls))
    return [ask(running, key["secret"], each).status for each in asked]


def test_a_budget_tells_each_threshold_once_over_a_restart(running: Installation, receiver: LittleService) -> None:
    """Half a dollar of one is told, then 80 percent and the end; a console that was killed meanwhile repeats none."""
    key = new_key(running, "budgeted", team="research")
    actions = [{"do": "notify", "at": at} for at in (50, 80, 100)]
    limit = new_limit(running, {"team": "research"}, "usd", "1", window="month", actions=actions)
    assert spend(running, key, 6) == [200] * 6
    first = until(lambda: told(receiver, limit["id"]), lambda events: len(events) == 1, VISIBLE_SECONDS)
    assert [each["details"]["percent"] for each in first] == [50]
    # What was taken and not noted yet would come again, under the same id.
    until(lambda: states(running, limit["id"]), lambda found: found == ["sent"], VISIBLE_SECONDS)
    running.kill_console()
    running.wait_ready()
    assert spend(running, key, 5) == [200] * 4 + [429]
    events = until(lambda: told(receiver, limit["id"]), lambda events: len(events) >= 3, VISIBLE_SECONDS)
    assert sorted(each["details"]["percent"] for each in events) == [50, 80, 100]
    assert {each["kind"] for each in events} == {"threshold", "limit_reached"}
    assert (
        until(lambda: states(running, limit["id"]), lambda found: "waiting" not in found, VISIBLE_SECONDS)
        == ["sent"] * 3
    )


def test_a_key_that_reached_its_lifetime_cost_is_revoked_until_an_admin_lifts_it(
    running: Installation, receiver: LittleService
) -> None:
    """The gate refuses it by then as a key that is revoked, and the reason is shown."""
    key = new_key(running, "agent")
    limit = new_limit(running, {"key": key["id"]}, "usd", "0.35", actions=[{"do": "revoke", "at": 100}])
    path = f"/api/v1/keys/{key['id']}"
    assert spend(running, key, 4) == [200] * 3 + [429]
    shown = until(lambda: running.admin("GET", path), lambda row: row["state"] == "revoked", VISIBLE_SECONDS)
    assert shown["revoked_reason"] == (
        "reached its lifetime cost of 0.35 dollars: 0.3 are spent, and what is left was too little for a call "
        f"(limit {limit['id']})"
    )
    refused = until(lambda: ask(running, key["secret"]), lambda answer: answer.status == 401, VISIBLE_SECONDS)
    assert refused.code == "key_revoked"
    running.admin("PATCH", path, {"state": "active"})
    again = until(lambda: ask(running, key["secret"]), lambda answer: answer.status != 401, VISIBLE_SECONDS)
    assert again.code == "budget_exhausted"
    kinds = until(lambda: told(receiver, limit["id"]), bool, VISIBLE_SECONDS)
    assert "limit_reached" in {each["kind"] for each in kinds}


def test_a_test_alert_arrives_and_says_so(running: Installation, receiver: LittleService) -> None:
    """The command waits for it."""
    row = running.cli("alert", "test", "--message", "Hello from here.")
    assert row["state"] == "sent"
    assert any(b"Hello from here." in seen.body for seen in receiver.seen)
