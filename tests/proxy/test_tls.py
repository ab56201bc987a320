"""TLS on both sides, and providers behind an HTTP proxy."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from faregate.config.settings import TlsSettings
from faregate.control import Load, Provider
from faregate.core.ledger.events import Settled
from gates import RunningGate, provider, running_gate, scenario, secret

CERTIFICATES = Path(__file__).parent.parent / "config" / "certificates"
CERTIFICATE, KEY = str(CERTIFICATES / "good.pem"), str(CERTIFICATES / "good.key")
ANSWER = b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}'


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request of a connection alike."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
            writer.write(head + ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def tls_provider() -> asyncio.Server:
    """A provider that speaks TLS with a certificate of its own making."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return await asyncio.start_server(answer_once, "127.0.0.1", 0, ssl=context)


def port_of(server: asyncio.Server) -> int:
    """The port a server listens on."""
    port: int = server.sockets[0].getsockname()[1]
    return port


async def use(running: RunningGate, place: Provider) -> None:
    """Send calls to another provider from now on."""
    catalogue = msgspec.structs.replace(running.gate.snapshot.catalogue, providers=(place,))
    await running.ask(Load(running.gate.snapshot.sequence + 1, catalogue=catalogue))


@scenario
async def test_a_provider_over_tls_with_its_own_authority(tmp_path: Path) -> None:
    """A configured CA file makes the provider trusted; connections are kept."""
    server = await tls_provider()
    async with server, running_gate(tmp_path) as running:
        await use(running, provider(f"https://localhost:{port_of(server)}/v1", ca_file=CERTIFICATE))
        answers = [await running.chat() for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert running.gate._pools["sim"].open_connections == 1
        assert [settled.cost for settled in running.of(Settled)] == [11_000] * 3


@scenario
async def test_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    """Without the CA file nothing is sent: the credential stays here."""
    server = await tls_provider()
    async with server, running_gate(tmp_path) as running:
        await use(running, provider(f"https://localhost:{port_of(server)}/v1"))
        answer = await running.chat()

        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_connect")
        assert "certificate" in answer.json()["error"]["message"]


@scenario
async def test_a_provider_behind_an_http_proxy(tmp_path: Path) -> None:
    """The proxy sees ``CONNECT`` and its own credential, and never what is inside."""
    seen: list[bytes] = []
    server = await tls_provider()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        seen.append(request)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pipe(reader, there_writer), pipe(there_reader, writer))

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                seen.append(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    async with server, proxy, running_gate(tmp_path) as running:
        url = f"http://user:pass@127.0.0.1:{port_of(proxy)}"
        fields: dict[str, Any] = {"ca_file": CERTIFICATE, "proxy": url}
        await use(running, provider(f"https://localhost:{port_of(server)}/v1", **fields))
        answers = [await running.chat(), await running.chat()]
        running.gate._pools["sim"].close()

        assert [answer.status_code for answer in answers] == [200, 200]
        assert seen[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % port_of(server))
        assert b"proxy-authorization: Basic dXNlcjpwYXNz\r\n" in seen[0]
        assert b"sk-provider" not in b"".join(seen)


@scenario
async def test_a_proxy_that_refuses(tmp_path: Path) -> None:
    """A refused tunnel is a provider that cannot be reached."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with proxy, running_gate(tmp_path) as running:
        await use(running, provider("https://localhost:1/v1", proxy=f"http://127.0.0.1:{port_of(proxy)}"))
        answer = await running.chat()

        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_connect")


@scenario
async def test_the_gateway_itself_speaks_tls(tmp_path: Path) -> None:
    """With a certificate configured, clients connect over TLS and plain HTTP is not understood."""
    async with running_gate(tmp_path, tls=TlsSettings(CERTIFICATE, KEY)) as running:
        port = running.url.rpartition(":")[2]
        context = ssl.create_default_context(cafile=CERTIFICATE)
        async with httpx2.AsyncClient(base_url=f"https://localhost:{port}", verify=context) as client:
            answer = await client.post(
                "/v1/chat/completions",
                json={"model": "sim-1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
                headers={"authorization": f"Bearer {secret('caller')}"},
            )

        assert answer.status_code == 200
