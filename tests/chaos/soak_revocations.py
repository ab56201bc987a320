"""`make soak`: a thousand revocations under load, none of which lets a call through once the API has answered.

python tests/chaos/soak_revocations.py [--revocations 1000] [--clients 8] [--seed N]

Every key that is to go is called with without a pause from before its revocation until after it. What counts is when
a call was begun: none that was begun after the answer to the revocation may be served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chaos.connections import Line
from installation import CONFIG, Installation
from wire import request

#: What is promised; it is measured, and expected is that not one call comes through.
FORCE_SECONDS = 5.0
#: A load without end on keys without a past is what the anomaly brake is for, so that its floor is far above it.
BUSY_CONFIG = 'limits: {{brake: {{floor: "10000"}}}}\n' + CONFIG
#: Revocations under way at a time, and callers of each key.
AT_ONCE = 6
CALLERS = 2
#: Refused calls that each caller of a key is to see after its revocation.
REFUSED = 2
BULK = 500
CALL = b'{"model": "sim-1", "max_tokens": 8, "messages": [{"role": "user", "content": "Say hello."}]}'


#: What keys open: the gate; the admin API, with the key itself; or the admin API, with a session that it began.
GATE, CONSOLE, SESSION = "gate", "console", "session"


class Kind(NamedTuple):
    """One way to end what a key may do: the order, and how its calls are refused from then on."""

    name: str
    method: str
    path: str
    body: dict[str, Any] | None
    status: int
    code: str
    opens: str = GATE


KINDS = (
    Kind("key revoked", "POST", "/api/v1/keys/{key}/revoke", {}, 401, "key_revoked"),
    Kind("key disabled", "PATCH", "/api/v1/keys/{key}", {"state": "disabled"}, 403, "key_disabled"),
    Kind("key deleted", "DELETE", "/api/v1/keys/{key}", None, 401, "key_revoked"),
    Kind("models narrowed", "PATCH", "/api/v1/keys/{key}", {"models": ["sim-fast"]}, 403, "model_forbidden"),
    Kind("team disabled", "PATCH", "/api/v1/teams/{team}", {"state": "disabled"}, 403, "key_disabled"),
    Kind("user disabled", "PATCH", "/api/v1/users/{user}", {"state": "disabled"}, 403, "key_disabled"),
    Kind("limit lowered", "PATCH", "/api/v1/limits/{limit}", {"amount": "0.000000001"}, 429, "budget_exhausted"),
    Kind("auditor revoked", "POST", "/api/v1/keys/{key}/revoke", {}, 401, "key_revoked", CONSOLE),
    Kind("role taken away", "PATCH", "/api/v1/keys/{key}", {"role": "caller"}, 403, "role_forbidden", CONSOLE),
    Kind("session's key revoked", "POST", "/api/v1/keys/{key}/revoke", {}, 401, "auth_missing", SESSION),
    Kind("session's role taken", "PATCH", "/api/v1/keys/{key}", {"role": "caller"}, 401, "auth_missing", SESSION),
)


class Victim(NamedTuple):
    """A key that is to go, how, and the ids that its order may name."""

    secret: str
    kind: Kind
    ids: dict[str, str]


class Seen(NamedTuple):
    """One call: when it was begun, and what it was answered."""

    begun: float
    status: int
    code: str


class Revoked(NamedTuple):
    """One revocation: how long its order took, and how long after the answer a call was begun that was served."""

    kind: Kind
    order_s: float
    late_s: float
    applied: bool
    #: Answers after it that are neither a service nor the refusal that it must be.
    strange: tuple[str, ...]


def victims(running: Installation, count: int) -> list[Victim]:
    """Keys with a team, a user and a limit of their own, and the ways to end them in turn."""
    made: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    for start in range(0, count, BULK):
        names = range(start, min(start + BULK, count))
        keys = [{"name": f"k{n}", "team": f"t{n}", "user": f"u{n}", "role": role_of(n)} for n in names]
        made += running.admin("POST", "/api/v1/keys/bulk", {"items": keys})["data"]
        terms = {"unit": "usd", "amount": "100", "window": "lifetime"}
        wanted = [{"select": {"key": key["id"]}, **terms} for key in made[start:]]
        limits += running.admin("POST", "/api/v1/limits/bulk", {"items": wanted})["data"]
    teams, users = (ids_by_name(running, kind) for kind in ("teams", "users"))
    return [
        Victim(
            key["secret"],
            KINDS[n % len(KINDS)],
            {"key": key["id"], "team": teams[f"t{n}"], "user": users[f"u{n}"], "limit": limits[n]["id"]},
        )
        for n, key in enumerate(made)
    ]


def role_of(n: int) -> str:
    """What the n-th key may do."""
    return "caller" if KINDS[n % len(KINDS)].opens == GATE else "auditor"


def ids_by_name(running: Installation, kind: str) -> dict[str, str]:
    """All payers of a kind."""
    found: dict[str, str] = {}
    cursor = ""
    while True:
        page = running.admin("GET", f"/api/v1/{kind}?limit=1000{cursor}")
        found |= {row["name"]: row["id"] for row in page["data"]}
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


class Caller:
    """Calls with one key, again and again, until it is told to stop; ``seen`` grows."""

    def __init__(self, port: int, asked: bytes) -> None:
        self._line = Line(port)
        self._bytes = asked
        self._stopping = False
        self.seen: list[Seen] = []
        self.news = asyncio.Event()

    async def run(self) -> None:
        """Call until ``stop``."""
        async with self._line as line:
            while not self._stopping:
                begun = time.monotonic()
                answer = await line.ask(self._bytes)
                told = answer.json() if answer.status != 200 else {}
                code = told.get("code") or told.get("error", {}).get("code", "")
                self.seen.append(Seen(begun, answer.status, code))
                self.news.set()

    def stop(self) -> None:
        """No new call from now on."""
        self._stopping = True

    async def served(self) -> None:
        """Wait for the first call that was served."""
        while not any(each.status == 200 for each in self.seen):
            self.news.clear()
            await self.news.wait()

    async def refused(self, since: float) -> None:
        """Wait until some calls that were begun since then were refused."""
        while sum(each.begun >= since and each.status != 200 for each in self.seen) < REFUSED:
            self.news.clear()
            await self.news.wait()


async def callers_of(running: Installation, line: Line, victim: Victim) -> list[Caller]:
    """Who use what is to end: calls at the gate, or lists of the admin API."""
    if victim.kind.opens == GATE:
        port, asked = running.gateway_port, request(CALL, secret=victim.secret)
    else:
        port = running.console_port
        proof: dict[str, Any] = {"secret": victim.secret}
        if victim.kind.opens == SESSION:
            form = request(
                f"key={victim.secret}".encode(), path="/login", content_type="application/x-www-form-urlencoded"
            )
            cookie = (await line.ask(form)).headers["set-cookie"].partition(";")[0]
            proof = {"headers": [("cookie", cookie)]}
        asked = request(path="/api/v1/keys?limit=1", method="GET", content_type=None, **proof)
    return [Caller(port, asked) for _ in range(CALLERS)]


async def revoked(running: Installation, line: Line, admin: str, victim: Victim, chance: random.Random) -> Revoked:
    """End one key while it is called with, and look at what came through."""
    kind = victim.kind
    callers = await callers_of(running, line, victim)
    body = b"" if kind.body is None else json.dumps(kind.body).encode()
    order = request(body, path=kind.path.format(**victim.ids), method=kind.method, secret=admin)
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.run())
        try:
            async with asyncio.timeout(60):
                await asyncio.gather(*(caller.served() for caller in callers))
                await asyncio.sleep(chance.uniform(0, 0.03))
                sent = time.monotonic()
                answer = await line.ask(order)
                answered = time.monotonic()
                await asyncio.gather(*(caller.refused(answered) for caller in callers))
        finally:
            for caller in callers:
                caller.stop()
    assert answer.status == 200, answer
    after = [each for caller in callers for each in caller.seen if each.begun >= answered]
    late = max((each.begun - answered for each in after if each.status == 200), default=0.0)
    strange = {f"{each.status} {each.code}" for each in after if each.status != 200}
    told = answer.json().get("applied", False)
    return Revoked(kind, answered - sent, late, told, tuple(strange - {f"{kind.status} {kind.code}"}))


async def soak(running: Installation, count: int, clients: int, seed: int) -> tuple[list[Revoked], float]:
    """All revocations under the load of callers that nobody ends; and how many calls a second those made."""
    to_end = await asyncio.to_thread(victims, running, count)
    admin = running.admin("POST", "/api/v1/keys", {"name": "desk", "role": "admin"})["secret"]
    standing = [running.admin("POST", "/api/v1/keys", {"name": f"standing-{n}"})["secret"] for n in range(clients)]
    load = [Caller(running.gateway_port, request(CALL, secret=secret)) for secret in standing]
    found: list[Revoked] = []

    async def desk(n: int) -> None:
        chance = random.Random(f"{seed}/{n}")
        async with Line(running.console_port) as line:
            while to_end:
                found.append(await revoked(running, line, admin, to_end.pop(), chance))

    started = time.monotonic()
    calling = [asyncio.create_task(caller.run()) for caller in load]
    try:
        async with asyncio.TaskGroup() as group:
            for n in range(AT_ONCE):
                group.create_task(desk(n))
    finally:
        for caller in load:
            caller.stop()
        await asyncio.gather(*calling)
    strangers = Counter(each.status for caller in load for each in caller.seen if each.status != 200)
    assert not strangers, f"callers that nobody ended were refused: {strangers}"
    return found, sum(len(caller.seen) for caller in load) / (time.monotonic() - started)


def faults(found: Sequence[Revoked]) -> list[str]:
    """What is not as it must be, as sentences."""
    told = [f"{each.kind.name}: a call begun {each.late_s:.3f} s after the answer was served"
            for each in found if each.late_s > (0.0 if each.applied else FORCE_SECONDS)]  # fmt: skip
    return told + [f"{each.kind.name}: refused with {', '.join(each.strange)}" for each in found if each.strange]


def main() -> int:
    """Run it; 1 when a call came through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--revocations", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    chosen = parser.parse_args()
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="faregate-revocations-") as folder,
        Installation(Path(folder), config=BUSY_CONFIG) as running,
    ):
        found, rate = asyncio.run(soak(running, chosen.revocations, chosen.clients, chosen.seed))
    told = faults(found)
    kinds = Counter(each.kind.name for each in found)
    orders = sorted(each.order_s for each in found)
    print("\n".join(told[:20]) or "  " + ", ".join(f"{name} {count}" for name, count in kinds.items()))
    print(
        f"G22 {'BROKEN' if told else 'held'}: {len(found)} revocations beside {rate:.0f} calls/s, "
        f"{sum(each.applied for each in found)} answered as applied, last served call begun "
        f"{max(each.late_s for each in found) * 1000:.0f} ms after an answer at most, orders took "
        f"{orders[len(orders) // 2] * 1000:.0f} ms (median) to {orders[-1] * 1000:.0f} ms, seed {chosen.seed}, "
        f"{time.monotonic() - started:.0f} s"
    )
    return 1 if told else 0


if __name__ == "__main__":
    raise SystemExit(main())
