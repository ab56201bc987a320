"""The console's two listeners: one on the network, and the owner's own one on a Unix socket in the data folder."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn

from faregate.assembly.handover import ConsoleSettings

#: Requests of people and scripts, not of traffic: more than these at once are an accident.
REQUESTS_AT_ONCE_MAX: Final = 256
#: How long a stop waits for requests that run, and for the last events to be booked.
GRACE_S: Final = 1
BACKLOG: Final = 128


class Listener(uvicorn.Server):
    """One listener of several in a process: signals are ours, and its readiness can be waited for."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._listening = listening

    async def serve_its_socket(self) -> None:
        """Serve until ``should_exit``."""
        await self.serve(sockets=[self._listening])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As the parent's, and tell that it is done."""
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: two servers in one process would take them from each other."""
        yield


def served(app: Any, network: ConsoleSettings | None, *, behind_proxy: bool) -> uvicorn.Config:
    """How an application is served; ``network`` are the settings of the listener that others reach."""
    tls = network.tls if network is not None else None
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        http="httptools",
        server_header=False,
        # Only a proxy on this machine is believed about who asks, and whether by https.
        proxy_headers=behind_proxy,
        forwarded_allow_ips="127.0.0.1,::1",
        limit_concurrency=REQUESTS_AT_ONCE_MAX,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=tls.certificate_file if tls is not None else None,
        ssl_keyfile=tls.key_file if tls is not None else None,
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )


def listen_on_network(settings: ConsoleSettings) -> socket.socket:
    """A socket that listens where the settings say."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except BaseException:  # Nobody gets this socket, whatever went wrong.
        listening.close()
        raise
    return listening


def listen_on_socket(path: Path) -> socket.socket:
    """The owner's own way in. Its mode is set before anybody can connect, which is only possible once it listens."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(BACKLOG)
    except BaseException:  # Nobody gets this socket, whatever went wrong.
        listening.close()
        raise
    return listening
