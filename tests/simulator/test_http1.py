"""Requests are read strictly and within bounds; credentials are checked."""

import asyncio
import json

import pytest

from faregate.simulator import serve
from simulated import CHAT, Provider, chat, hear, post

AZURE = "/openai/deployments/my-gpt/chat/completions"

REFUSED = [
    (b"GARBAGE\r\n\r\n", 400),
    (b"POST /v1/x HTTP/1.1\r\n\r\n", 400),
    (b"POST /v1/x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
    (b"POST /v1/x HTTP/1.0\r\nhost: a\r\n\r\n", 400),
    (b"POST http://a/v1/x HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (b"POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /v1/x HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431),
    (b"POST /v1/x HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 300 + b"\r\n", 431),
    (b"POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", 404),
    (b"GET /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 405),
]


@pytest.mark.parametrize(("data", "status"), REFUSED)
def test_refused(provider: Provider, data: bytes, status: int) -> None:
    """What cannot be read, or leads nowhere, gets a status and the end of the connection."""
    heard = provider.talk(data)

    assert heard.status == status


def test_body_has_a_bound(provider: Provider) -> None:
    """A body above 32 MiB is refused."""
    body = b" " * (32 * 1024 * 1024 + 1)
    with provider.connect() as connection:
        connection.sendall(post(body))

        assert hear(connection, 20).status == 413


def test_requests_sent_ahead_are_answered_in_order(provider: Provider) -> None:
    """Two requests in one packet get two answers, the slow one first."""
    slow = post(chat({"first_delay_ms": 50, "output_tokens": 1}), close=False)
    heard = provider.talk(slow + post(chat({"output_tokens": 2})))

    tokens = [json.loads(part)["usage"]["completion_tokens"] for part in bodies(heard.data)]
    assert tokens == [1, 2]


def bodies(data: bytes) -> list[bytes]:
    """The JSON bodies of several plain answers."""
    return [part.partition(b"\r\n\r\n")[2] for part in data.split(b"HTTP/1.1 200 OK\r\n")[1:]]


def test_connection_is_kept(provider: Provider) -> None:
    """Many calls go over one connection, streams and refusals among them."""
    with provider.connect() as connection:
        for body in (chat(), chat({}, stream=True), chat({"status": 503}), {"model": "m"}, chat()):
            connection.sendall(post(body, close=False))
            assert connection.recv(9) == b"HTTP/1.1 "
            rest = hear(connection, 0.2)
            assert rest.end == "silent"


@pytest.mark.parametrize("path", [CHAT, "/openai/v1/chat/completions", AZURE + "?api-version=1"])
def test_a_credential_must_be_shown(provider: Provider, path: str) -> None:
    """Without a credential nobody is answered, and the refusal stands in the truth log as not served."""
    request_id = f"req_nobody_{path}"

    heard = provider.talk(post(chat(), path=path, key=None, request_id=request_id))

    assert heard.status == 401
    assert b'"error"' in heard.body
    record = next(
        one for one in provider.door("GET", "truth?limit=10000")[1]["data"] if one["request_id"] == request_id
    )
    assert (record["served"], record["credential"], record["status"]) == (False, None, 401)


def test_azure_wants_a_version(provider: Provider) -> None:
    """Azure's paths do not exist without an API version."""
    assert provider.ask(chat(), path=AZURE).status == 404
    assert provider.ask(chat(), path=AZURE + "?api-version=2024-10-21").status == 200


def test_only_the_expected_key_is_let_in() -> None:
    """With keys configured, others are refused as the provider does."""

    async def statuses() -> list[int]:
        async with await serve(keys=["right"]) as simulator:
            found = []
            for key in ("right", "wrong"):
                reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
                writer.write(post(chat(), key=key))
                found.append(int((await reader.read()).split(b" ")[1]))
                writer.close()
                await writer.wait_closed()
            return found

    assert asyncio.run(statuses()) == [200, 401]
