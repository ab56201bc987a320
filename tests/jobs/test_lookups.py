"""Asking a provider what became of a call, over real sockets."""

import asyncio
import json
import logging
from typing import Any

import msgspec
import pytest

from console_parts import NOON, WHO
from faregate.control import Provider, Unknown
from faregate.core.amounts import held_amounts
from faregate.core.usage import Usage
from faregate.jobs.lookups import ANSWER_BYTES_MAX, ProviderLookups, word_of
from faregate.jobs.resolve_unknowns import NeverSeen, NotServed, NoWord, Served

UNKNOWN = Unknown("req_1", WHO, held_amounts(1, 1, 1), NOON, NOON, "v1")
SERVED = b'{"served":true,"complete":true,"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        (200, SERVED, Served(Usage(input_text=3, output_text=2))),
        (
            200,
            SERVED.replace(b'"complete":true', b'"complete":false,"ended":true'),
            Served(Usage(input_text=3, output_text=2), complete=False),
        ),
        (
            200,
            SERVED.replace(b'"complete":true', b'"complete":false'),
            Served(Usage(input_text=3, output_text=2), complete=False, final=False),
        ),
        (200, b'{"served":false,"ended":true,"usage":null}', NotServed()),
        (200, b'{"served":false,"usage":null}', NotServed(final=False)),
        (404, b"", NeverSeen()),
        (503, b"", NoWord()),
        (302, b"", NoWord()),
        (200, b"", NoWord()),
        (200, b"<html>", NoWord()),
        (200, b"[]", NoWord()),
        (200, b'{"served":"yes"}', NoWord()),
        (200, b'{"served":true}', NoWord()),
        (200, b'{"served":true,"usage":{"prompt_tokens":-3,"completion_tokens":2}}', NoWord()),
        (200, b'{"served":true,"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":9}}', NoWord()),
    ],
)
def test_an_answer_is_believed_only_when_it_can_be_true(status: int, body: bytes, word: object) -> None:
    """Anything odd is no word, which keeps the money held."""
    assert word_of(status, body, "chat.completions") == word


@pytest.mark.parametrize(
    ("operation", "usage", "expected"),
    [
        ("embeddings", {"prompt_tokens": 3, "total_tokens": 3}, Usage(input_text=3)),
        ("responses", {"input_tokens": 3, "output_tokens": 2}, Usage(input_text=3, output_text=2)),
        ("responses", {"prompt_tokens": 3, "completion_tokens": 2}, None),
        ("of_another_time", {"prompt_tokens": 3, "completion_tokens": 2}, None),
    ],
)
def test_usage_is_read_as_the_operation_tells_it(operation: str, usage: dict[str, int], expected: Usage | None) -> None:
    """Each operation's usage has its own shape, in a lookup as in its answers."""
    body = json.dumps({"served": True, "complete": True, "usage": usage}).encode()
    assert word_of(200, body, operation) == (NoWord() if expected is None else Served(expected))


class Door:
    """A listener that answers every request with fixed bytes and remembers what was asked."""

    def __init__(self, answer: bytes, *, hang: bool = False) -> None:
        self.answer = answer
        self.hang = hang
        self.heard: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heard.append(await reader.readuntil(b"\r\n\r\n"))
            if self.hang:
                await reader.read()
            writer.write(self.answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def reply(status: str, body: bytes, extra: bytes = b"") -> bytes:
    """A whole HTTP answer."""
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        status.encode(), extra, len(body), body,
    )  # fmt: skip


def ask(door: Door, **more: Any) -> Any:
    """The word of a provider behind ``door``."""

    async def all_of_it() -> Any:
        server = await asyncio.start_server(door.serve, "127.0.0.1", 0)
        door.port = server.sockets[0].getsockname()[1]
        provider = Provider(
            "openai", "openai", f"http://127.0.0.1:{door.port}/v1", {"authorization": "Bearer up"}, lookup="/truth/{id}"
        )
        lookups = ProviderLookups(lambda: {"openai": msgspec.structs.replace(provider, **more)})
        try:
            return await lookups.ask(UNKNOWN)
        finally:
            await lookups.close()
            server.close()

    return asyncio.run(all_of_it())


def test_the_provider_is_asked_by_our_request_id_with_its_own_credential() -> None:
    """The path starts at the provider's host, not below its API."""
    door = Door(reply("200 OK", SERVED))
    assert ask(door) == Served(Usage(input_text=3, output_text=2))
    head = door.heard[0]
    assert head.startswith(b"GET /truth/req_1 HTTP/1.1\r\n")
    assert b"authorization: Bearer up\r\n" in head.lower().replace(b"bearer", b"Bearer")


def test_a_redirect_is_not_followed() -> None:
    """A secret goes only to the host it was stored for."""
    other = Door(reply("302 Found", b"", b"location: http://127.0.0.1:1/elsewhere\r\n"))
    assert ask(other) == NoWord()
    assert len(other.heard) == 1


def test_an_endless_answer_is_given_up() -> None:
    """More than the bound is no word."""
    assert ask(Door(reply("200 OK", b" " * (ANSWER_BYTES_MAX + 1)))) == NoWord()


def test_a_provider_that_is_not_there_gives_no_word() -> None:
    """A refused connection is not an error of the job."""
    assert ask(Door(b""), base_url="http://127.0.0.1:9") == NoWord()
    assert ask(Door(b"")) == NoWord()


def test_a_provider_without_a_lookup_is_not_asked() -> None:
    """Most cannot be."""
    door = Door(reply("200 OK", SERVED))
    assert ask(door, lookup="") == NoWord()
    assert door.heard == []


def test_a_provider_that_never_answers_is_given_up_in_time() -> None:
    """Five seconds are the deadline."""
    door = Door(b"", hang=True)

    assert ask(door) == NoWord()


def test_a_provider_whose_client_cannot_be_made_gives_no_word(caplog: pytest.LogCaptureFixture) -> None:
    """A certificate's file that is gone is told once, not once for each of its calls, and without what it was given."""
    door = Door(reply("200 OK", SERVED))
    broken = Provider("broken", "openai", "http://127.0.0.1:9/v1", {}, lookup="/t/{id}", ca_file="/nowhere/ca.pem")
    proxied = Provider("proxied", "openai", "http://127.0.0.1:9/v1", {}, lookup="/t/{id}", proxy="ftp://u:canary@h:1")

    async def work() -> list[object]:
        server = await asyncio.start_server(door.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        good = Provider("openai", "openai", f"http://127.0.0.1:{port}/v1", {}, lookup="/truth/{id}")
        lookups = ProviderLookups(lambda: {each.name: each for each in (broken, proxied, good)})
        try:
            others = (WHO._replace(provider=name) for name in ("broken", "broken", "proxied"))
            asked = [msgspec.structs.replace(UNKNOWN, who=who) for who in others]
            return [await lookups.ask(each) for each in (*asked, UNKNOWN)]
        finally:
            await lookups.close()
            server.close()

    with caplog.at_level(logging.WARNING):
        words = asyncio.run(work())
    assert words == [NoWord(), NoWord(), NoWord(), Served(Usage(input_text=3, output_text=2))]
    told = [(record.getMessage(), record.__dict__["provider"]) for record in caplog.records]
    assert told == [("provider_cannot_be_asked", "broken"), ("provider_cannot_be_asked", "proxied")]
    assert "canary" not in str([record.__dict__ for record in caplog.records])
