"""`make soak`: a foreign id takes as long as an absent one, at every admin route that reads by id and at the gate.

python tests/chaos/soak_timing.py [--samples 20000] [--seed N] [--only TEXT]

The console's app is called in this process, because a socket would only add its own noise to what the app does. The
gate is a process of its own and is asked over one connection that stays open, as a caller would ask it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import string
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chaos.connections import Connection
from chaos.interleaved import Comparison, measured
from console.test_roles import expected, filled, kind_of, rest_of, routes_of, things_of
from console_parts import Api, Parts, opened, parts
from faregate.console.keys import NewKey, create
from faregate.core.access import Scope, permissions
from installation import OPENAI_AND_AZURE, Installation
from wire import request

#: So many organizations beside one's own, and as many ids that nothing has: no single row is told from its neighbours.
OTHERS = 16

#: The end of an id, which makes it another one.
END = 5

CONFIG = (
    OPENAI_AND_AZURE
    + """\
models:
  - {{name: sim-1, to: [sim/sim-1], max_output_tokens: 4096, max_context_tokens: 8192}}
pricing:
  overrides:
{prices}"""
)


class Ids(NamedTuple):
    """What is asked for: ids of others, and ids of nobody."""

    foreign: tuple[str, ...]
    absent: tuple[str, ...]


def ids_of(foreign: Sequence[str], chance: random.Random) -> Ids:
    """Beside ids of others as many of the same form, which differ from them in their ends."""
    letters = string.digits + "ABCDEFGHJKMNPQRSTVWXYZ"
    absent = [one[:-END] + "".join(chance.choices(letters, k=END)) for one in foreign]
    assert not set(absent) & set(foreign)
    return Ids(tuple(foreign), tuple(absent))


# -- the console -------------------------------------------------------------------------------------------------------


def console_world(made: Parts, chance: random.Random) -> tuple[str, dict[str, Ids]]:
    """The secret of an admin of one organization, and by kind what belongs to all the others."""
    api = Api(made.app, create(made.console, NewKey(name="root", role="root"))[1])
    made.journal.add(opened())
    things_of(api, made, "acme", "red")
    rest_of(api, "acme")
    found: dict[str, list[str]] = {}
    for n in range(OTHERS):
        name = f"umbra{n:02d}"
        for kind, id in {**things_of(api, made, name, "red").ids, **rest_of(api, name).ids}.items():
            found.setdefault(kind, []).append(id)
    made.project()
    admin = api.post("/api/v1/keys", {"name": "admin", "role": "admin", "organization": "acme"})["secret"]
    return admin, {kind: ids_of(ids, chance) for kind, ids in found.items()}


def read_routes(made: Parts) -> Iterator[tuple[str, str]]:
    """The routes that read by an id which is of an organization."""
    allowed = permissions("admin", Scope("acme"))
    for route, _ in routes_of(made):
        if route[0] == "GET" and kind_of(route) and expected(route) in allowed:
            yield route


async def console_times(made: Parts, chance: random.Random, samples: int, only: str) -> list[tuple[str, Comparison]]:
    """Every route in turn."""
    secret, ids = await asyncio.to_thread(console_world, made, chance)
    found = []
    for route in read_routes(made):
        if only not in route[1]:
            continue
        caller = AsgiCaller(made.app, secret)
        kinds = ids[kind_of(route)]
        paths = [[filled(route, id) for id in some] for some in kinds]
        found.append((f"GET {route[1]}", await measured(caller.ask, (paths[0], paths[1]), samples, chance)))
        assert caller.statuses == {404}, (route, caller.statuses)
        tell(*found[-1])
    return found


class AsgiCaller:
    """Asks an app for paths, without a client in between whose time would be measured with it."""

    def __init__(self, app: object, secret: str) -> None:
        self._app = app
        self._headers = [(b"host", b"console.test"), (b"authorization", f"Bearer {secret}".encode())]
        self.statuses: set[int] = set()

    async def ask(self, path: str) -> None:
        """One request, read to the end of its answer."""
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": self._headers,
            "client": ("192.0.2.1", 999), "server": ("console.test", 80),
        }  # fmt: skip
        await self._app(scope, _receive, self._send)  # type: ignore[operator]

    async def _send(self, message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            self.statuses.add(int(str(message["status"])))


async def _receive() -> dict[str, object]:
    return {"type": "http.request", "body": b"", "more_body": False}


# -- the gate ----------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """One kind of call about what a provider keeps: its name, and its bytes with an id in them."""

    name: str
    kind: str
    method: str
    path: str
    body: str = ""


ASKED = (
    Asked("responses.get", "response", "GET", "/v1/responses/ID"),
    Asked("responses.items", "response", "GET", "/v1/responses/ID/input_items"),
    Asked("responses.cancel", "response", "POST", "/v1/responses/ID/cancel"),
    Asked("responses.delete", "response", "DELETE", "/v1/responses/ID"),
    Asked("responses, previous_response_id", "response", "POST", "/v1/responses",
          '{"model": "sim-1", "input": "Go on.", "previous_response_id": "ID", "max_output_tokens": 16}'),
    Asked("files.get", "file", "GET", "/v1/files/ID"),
    Asked("files.content", "file", "GET", "/v1/files/ID/content"),
    Asked("files.delete", "file", "DELETE", "/v1/files/ID"),
)  # fmt: skip


def gate_world(running: Installation) -> tuple[str, dict[str, list[str]]]:
    """The secret of a stranger, and what others made; each of them has something of his own."""
    secrets = {}
    for team in ("red", "blue"):
        made = running.admin("POST", "/api/v1/keys", {"name": team, "organization": "acme", "team": team})
        secrets[team] = made["secret"]
    line = Connection(running.gateway_port)
    found: dict[str, list[str]] = {"response": [], "file": []}
    for n in range(2 * OTHERS):
        for team, secret in secrets.items():
            made_response = line.ask(response_call(secret, n))
            made_file = line.ask(file_call(secret, n))
            assert (made_response.status, made_file.status) == (200, 200), made_file.body
            if team == "red":
                found["response"].append(made_response.json()["id"])
                found["file"].append(made_file.json()["id"])
    line.close()
    return secrets["blue"], found


def response_call(secret: str, n: int) -> bytes:
    """A call that makes a response."""
    return request(
        b'{"model": "sim-1", "input": "Say %d.", "max_output_tokens": 16}' % n, path="/v1/responses", secret=secret
    )


def file_call(secret: str, n: int) -> bytes:
    """A call that uploads a file."""
    form = (
        '--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n--b\r\n'
        f'Content-Disposition: form-data; name="file"; filename="{n}.txt"\r\n\r\nNumber {n}.\r\n--b--\r\n'
    )
    kind = "multipart/form-data; boundary=b"
    return request(form.encode(), path="/v1/files", secret=secret, content_type=kind)


async def gate_times(
    running: Installation, chance: random.Random, samples: int, only: str
) -> list[tuple[str, Comparison]]:
    """Every kind of call in turn."""
    secret, made = await asyncio.to_thread(gate_world, running)
    ids = {kind: ids_of(some, chance) for kind, some in made.items()}
    found = []
    for asked in ASKED:
        if only not in asked.name:
            continue
        caller = GateCaller(running.gateway_port, secret, asked, ids[asked.kind])
        found.append((asked.name, await measured(caller.ask, ids[asked.kind], samples, chance)))
        assert caller.statuses == {404}, (asked, caller.statuses)
        caller.close()
        tell(*found[-1])
    return found


class GateCaller:
    """Asks the gate over one connection, with bytes that were made before."""

    def __init__(self, port: int, secret: str, asked: Asked, ids: Ids) -> None:
        self._line = Connection(port)
        self.statuses: set[int] = set()
        self._bytes = {
            id: request(
                asked.body.replace("ID", id).encode(), path=asked.path.replace("ID", id), method=asked.method,
                secret=secret, content_type="application/json" if asked.body else None,
            )
            for id in (*ids.foreign, *ids.absent)
        }  # fmt: skip

    async def ask(self, id: str) -> None:
        """One call, read to the end of its answer; nothing else has anything to do meanwhile, so it may block."""
        answer = self._line.ask(self._bytes[id])
        self.statuses.add(answer.status)

    def close(self) -> None:
        self._line.close()


# -- all of it ---------------------------------------------------------------------------------------------------------


def tell(name: str, found: Comparison) -> None:
    """One line per route."""
    means = f"foreign {found.first_us:7.1f} us  absent {found.second_us:7.1f} us"
    verdict = "alike" if found.alike else "TOLD APART"
    sys.stdout.write(f"  {name:50} t {found.t:+6.2f}  {means}  {verdict}\n")
    sys.stdout.flush()


def main() -> int:
    """Compare all of them; 1 where one tells a foreign id from an absent one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--only", default="", help="routes and calls with this text alone")
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faregate-timing-") as folder:
        with parts(Path(folder)) as made:
            found = asyncio.run(console_times(made, chance, chosen.samples, chosen.only))
        with Installation(Path(folder) / "gate", config=CONFIG) as running:
            found += asyncio.run(gate_times(running, chance, chosen.samples, chosen.only))
    worst = max((abs(each.t) for _, each in found), default=0.0)
    held = all(each.alike for _, each in found)
    print(
        f"G19 timing {'held' if held else 'BROKEN'}: {len(found)} routes, {chosen.samples} samples each, worst |t| "
        f"{worst:.2f}, seed {chosen.seed}, {time.monotonic() - started:.0f} s"
    )
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
