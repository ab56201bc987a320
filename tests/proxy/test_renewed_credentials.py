"""Providers whose credential is renewed while calls run: over real sockets, client → gate → simulator."""

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import msgspec

from faregate.control import Catalogue, Credential, Credentials, Load, Loaded, Provider, Route
from faregate.core.ledger.events import Intended
from faregate.simulator import serve as simulate
from gates import RunningGate, deployment, provider, running_gate, scenario, truth

HOUR = 3_600 * 10**9


def renewed(url: str, name: str = "sim") -> Provider:
    """A provider that comes without a credential."""
    return provider(url, name=name, credential={}, renewed=True)


def token(running: RunningGate, text: str, expires_at: int = 0, base_url: str = "") -> Credentials:
    """A bearer token for the simulator."""
    url = base_url or running.simulator.url + "/v1"
    return Credentials((Credential("sim", url, {"authorization": f"Bearer {text}"}, (text,), expires_at),))


def seen(records: list[dict[str, Any]]) -> list[str]:
    """Digests of the credentials that the simulator was shown."""
    return [record["credential"]["sha256"] for record in records]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@scenario
async def test_without_its_first_credential_a_provider_is_not_called(tmp_path: Path) -> None:
    """The caller is told to come back; nothing is sent, held or charged."""
    async with running_gate(tmp_path, provider_fields={"credential": {}, "renewed": True}) as running:
        answer = await running.chat()

        told = answer.json()["error"]
        assert (answer.status_code, told["code"], answer.headers["retry-after"]) == (503, "credential_unavailable", "5")
        assert "was not fetched yet" in told["message"]
        assert await truth(running) == []
        assert running.of(Intended) == []


@scenario
async def test_the_next_call_uses_a_new_credential_on_the_connection_that_was_open(tmp_path: Path) -> None:
    """A renewal neither makes another snapshot nor closes what is open."""
    async with running_gate(tmp_path, provider_fields={"credential": {}, "renewed": True}) as running:
        await running.ask(token(running, "token-one"))
        assert (await running.chat()).status_code == 200
        snapshot, pool = running.gate.snapshot, running.gate.snapshot.targets["sim/sim-1"].pool
        connections = list(pool._open)

        await running.ask(token(running, "token-two"))
        assert (await running.chat()).status_code == 200

        assert seen(await truth(running)) == [digest("token-one"), digest("token-two")]
        assert running.gate.snapshot is snapshot
        assert list(pool._open) == connections


@scenario
async def test_a_credential_may_come_before_the_load_that_names_its_provider(tmp_path: Path) -> None:
    """So that no call finds its provider without one; and another load keeps it."""
    fields = {"credential": {}, "renewed": True}
    async with running_gate(tmp_path, provider_fields=fields, opened=False) as running:
        await running.ask(token(running, "token-one"))
        catalogue = running.gate.snapshot.catalogue
        for sequence in (2, 3):
            provider_now = renewed(running.simulator.url + "/v1")
            load = Load(sequence, catalogue=_with_provider(catalogue, provider_now, sequence))
            assert isinstance(await running.ask(load), Loaded)

        assert running.gate.snapshot.targets["sim/sim-1"].pool.credential == {"authorization": "Bearer token-one"}


def _with_provider(catalogue: Catalogue, made: Provider, connections_max: int) -> Catalogue:
    made = msgspec.structs.replace(made, connections_max=connections_max)
    return msgspec.structs.replace(catalogue, providers=(made,))


@scenario
async def test_a_credential_that_has_ended_is_not_used(tmp_path: Path) -> None:
    """Until another one comes calls are refused, and then they go on."""
    async with running_gate(tmp_path, provider_fields={"credential": {}, "renewed": True}) as running:
        await running.ask(token(running, "token-one", time.time_ns() - 1))
        answer = await running.chat()
        assert answer.json()["error"]["code"] == "credential_unavailable"
        assert "has expired" in answer.json()["error"]["message"]

        await running.ask(token(running, "token-two", time.time_ns() + HOUR))
        assert (await running.chat()).status_code == 200

        assert seen(await truth(running)) == [digest("token-two")]


@scenario
async def test_a_credential_ends_while_nobody_renews_it(tmp_path: Path) -> None:
    """The gate looks at the clock by itself."""
    async with running_gate(tmp_path, provider_fields={"credential": {}, "renewed": True}) as running:
        await running.ask(token(running, "token-one", time.time_ns() + 10**9))
        pool = running.gate.snapshot.targets["sim/sim-1"].pool
        assert (await running.chat()).status_code == 200

        await running.until(lambda: pool.lacks)

        assert (await running.chat()).status_code == 503


@scenario
async def test_a_credential_for_another_address_is_not_taken(tmp_path: Path) -> None:
    """What was fetched for a host never goes to another one."""
    async with running_gate(tmp_path, provider_fields={"credential": {}, "renewed": True}) as running:
        await running.ask(token(running, "token-one", base_url="https://elsewhere.example/v1"))

        assert (await running.chat()).json()["error"]["code"] == "credential_unavailable"
        assert await truth(running) == []


@scenario
async def test_the_next_place_is_tried_where_a_credential_is_missing(tmp_path: Path) -> None:
    """As where a provider does not take connections."""
    other = await simulate()
    try:
        providers = [renewed(other.url + "/v1", "without"), provider(other.url + "/v1", name="sim")]
        places = [deployment("without/sim-1", provider="without"), deployment()]
        async with running_gate(
            tmp_path,
            providers=providers,
            deployments=places,
            routes=[Route("sim-1", ("without/sim-1", "sim/sim-1"))],
        ) as running:
            answer = await running.chat()

            assert (answer.status_code, answer.headers["x-faregate-deployment"]) == (200, "sim/sim-1")
    finally:
        await other.close()


@scenario
async def test_an_error_that_shows_a_renewed_credential_is_masked(tmp_path: Path) -> None:
    """The one before, too: an answer may be on its way while it is renewed."""
    async with running_gate(tmp_path, provider_fields={"credential": {}, "renewed": True}) as running:
        for text in ("token-number-one", "token-number-two"):
            await running.ask(token(running, text))
        pool = running.gate.snapshot.targets["sim/sim-1"].pool

        assert pool.masked == ("token-number-two", "token-number-one")


# -- where a connection may lead ---------------------------------------------------------------------------------------


class Canary:
    """A listener that nobody may reach."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> "Canary":
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()


NAMES = (
    "localhost",
    "127.0.0.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "[::ffff:127.0.0.1]",
    "localhost.",
)


@scenario
async def test_a_public_provider_never_connects_to_this_machine_however_it_is_written(tmp_path: Path) -> None:
    """G24: names that lead inward when the connection is made, in every spelling that resolvers take."""
    async with Canary() as canary:
        for name in NAMES:
            url = f"http://{name}:{canary.port}/v1"
            async with running_gate(tmp_path / name, providers=[provider(url, reach="public")]) as running:
                answer = await running.chat()

                assert answer.status_code == 502, (name, answer.text)
                assert answer.json()["error"]["code"] == "upstream_connect"

        assert canary.connections == 0


@scenario
async def test_a_name_that_leads_elsewhere_later_is_judged_again(tmp_path: Path) -> None:
    """G24, rebinding: what a name says when it is connected to decides, and the connection goes to what was judged."""
    async with (
        Canary() as canary,
        running_gate(
            tmp_path, providers=[provider(f"http://rebinding.example:{canary.port}/v1", reach="public")]
        ) as running,
    ):
        asked: list[str] = []
        answers = [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["169.254.169.254"], ["::ffff:10.0.0.1"]]

        async def resolver(host: str, port: int, **named: object) -> list[tuple[object, ...]]:
            asked.append(host)
            return [(2, 1, 6, "", (address, port)) for address in answers[len(asked) - 1]]

        running.gate.loop.getaddrinfo = resolver  # type: ignore[method-assign, assignment]
        for _ in answers:
            assert (await running.chat()).status_code == 502

        assert asked == ["rebinding.example"] * len(answers)
        assert canary.connections == 0


@scenario
async def test_a_provider_on_this_machine_is_reached_where_that_is_allowed(tmp_path: Path) -> None:
    """``loopback`` is for tests and for models that run here."""
    async with running_gate(tmp_path, provider_fields={"reach": "loopback"}) as running:
        assert (await running.chat()).status_code == 200
