"""Trying providers, and how far the console's connections to them lead: over real sockets."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from faregate.control import Provider
from faregate.jobs.connections import ProviderConnections, no_headers
from faregate.jobs.try_provider import ANSWER_BYTES_MAX, ProviderTrial
from faregate.ports import Tried

MODELS = json.dumps({"object": "list", "data": [{"id": "one"}, {"id": "two"}]}).encode()


class Door:
    """A provider that answers one thing, and remembers what it was asked."""

    def __init__(self, status: int = 200, body: bytes = MODELS) -> None:
        self.status, self.body = status, body
        self.heads: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        extra = "location: http://127.0.0.1:9/\r\n" if 300 <= self.status < 400 else ""
        head = f"HTTP/1.1 {self.status} x\r\n{extra}content-length: {len(self.body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + self.body)
        writer.close()


def during(door: Door, work: Callable[[str], Coroutine[Any, Any, Any]]) -> Any:
    """Do some work while a provider listens; ``work`` is told its address."""

    async def all_of_it() -> Any:
        server = await asyncio.start_server(door.serve, "127.0.0.1", 0)
        door.port = server.sockets[0].getsockname()[1]
        try:
            return await work(f"http://127.0.0.1:{door.port}/v1")
        finally:
            server.close()

    return asyncio.run(all_of_it())


def tried(door: Door, headers: Callable[[str], Any] = no_headers, **fields: Any) -> Tried:
    """How the trial of a provider behind ``door`` went."""

    async def work(url: str) -> Tried:
        provider = Provider("p", "openai", url, {"authorization": "Bearer sk-up"}, reach="loopback")
        trial = ProviderTrial(lambda: {"p": msgspec.structs.replace(provider, **fields)}, headers)
        try:
            return await trial("p")
        finally:
            await trial.close()

    told: Tried = during(door, work)
    return told


@pytest.mark.parametrize(
    ("kind", "line", "header"),
    [
        ("openai", "GET /v1/models HTTP/1.1", "authorization: Bearer sk-up"),
        ("azure_openai", "GET /v1/openai/models?api-version=2024-10-21 HTTP/1.1", "authorization: Bearer sk-up"),
        ("anthropic", "GET /v1/models HTTP/1.1", "anthropic-version: 2023-06-01"),
        ("gemini", "GET /v1/models HTTP/1.1", "authorization: Bearer sk-up"),
    ],
)
def test_each_kind_is_asked_for_its_models(kind: str, line: str, header: str) -> None:
    """One harmless question, with the provider's own credential."""
    door = Door()
    told = tried(door, kind=kind, api_version="2024-10-21")

    assert told[:4] == (True, "it answered with 2 models", 200, 2)
    assert door.heads[0].startswith(line)
    assert header in door.heads[0]


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (401, b"who is sk-up?", "does not take the credential"),
        (403, b"", "does not take the credential"),
        (302, b"", "redirects are not followed"),
        (404, b"", "answered 404"),
        (500, b"secret things", "answered 500"),
        (200, b"<html>", "no list of models"),
        (200, b"{}", "no list of models"),
        (200, b"x" * (ANSWER_BYTES_MAX + 1), "far more than a list"),
    ],
)
def test_what_went_wrong_is_told_without_what_was_answered(status: int, body: bytes, detail: str) -> None:
    """A provider's answer may hold anything; only its status is passed on."""
    door = Door(status, body)
    told = tried(door)

    assert (told.ok, told.status) == (False, status)
    assert detail in told.detail
    assert "sk-up" not in told.detail
    assert len(door.heads) == 1


def test_a_renewed_credential_is_that_of_the_moment() -> None:
    """And without one nothing is asked."""
    door = Door()
    assert tried(door, lambda name: {"authorization": "Bearer of-now"}, credential={}, renewed=True).ok
    assert "authorization: Bearer of-now" in door.heads[0]

    without = Door()
    assert "credential is not there" in tried(without, credential={}, renewed=True).detail
    assert without.heads == []


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]"])
def test_the_consoles_connections_keep_within_reach(host: str) -> None:
    """G24: what is looked up is judged, in every spelling; the canary is not connected to."""
    canary = Door()

    async def work(url: str) -> Tried:
        provider = Provider(
            "p", "openai", url.replace("127.0.0.1", host), {"authorization": "Bearer s"}, reach="public"
        )
        trial = ProviderTrial(lambda: {"p": provider}, no_headers)
        try:
            return await trial("p")
        finally:
            await trial.close()

    told = during(canary, work)

    assert told.detail == "its name leads to an address that it may not have"
    assert canary.heads == []


def test_a_provider_that_moved_gets_a_client_of_its_own() -> None:
    """What was made for the old address and secret is not used for the new ones."""

    async def all_of_it() -> None:
        before = Provider("p", "openai", "http://127.0.0.1:1/v1", {"authorization": "Bearer old"})
        after = msgspec.structs.replace(
            before, base_url="http://127.0.0.1:2/v1", credential={"authorization": "Bearer new"}
        )
        now = [before]
        connections = ProviderConnections(lambda: {"p": now[0]})
        try:
            old = connections.client(before)
            assert connections.client(before) is old
            assert connections.client(after) is not old
        finally:
            await connections.close()

    asyncio.run(all_of_it())


def test_a_credential_that_was_not_fetched_is_told_with_the_reason() -> None:
    """The same words that `doctor` has for it."""
    provider = Provider("p", "openai", "http://127.0.0.1:9/v1", {}, reach="loopback", renewed=True)
    why = "the server refused: invalid_client"

    async def work() -> Tried:
        trial = ProviderTrial(lambda: {"p": provider}, no_headers, trouble=lambda name: why)
        try:
            return await trial("p")
        finally:
            await trial.close()

    assert asyncio.run(work()) == Tried(False, why)


def test_a_provider_that_is_not_in_use_is_not_asked() -> None:
    """A disabled one is in no catalogue."""
    trial = ProviderTrial(dict, no_headers)

    assert asyncio.run(trial("gone")).detail.startswith("it is not in use")
