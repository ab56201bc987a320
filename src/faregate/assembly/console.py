"""Builds and runs the console in this process: books, projector, link to the gate, jobs, and the API on two listeners.

The listener on the Unix socket in the data folder needs no credential, because only the installation's owner can open
it; the one on the network asks for one on every request.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import uvicorn

from faregate.assembly.clock import SystemClock
from faregate.assembly.compiler import CatalogueCompiler
from faregate.assembly.handover import ConsoleSettings, Listening, encode
from faregate.assembly.loops import loop_factory, stop_with_parent
from faregate.assembly.workshop import Workshop, console_secrets
from faregate.config.environment import process_environment
from faregate.config.folder import DataFolder
from faregate.config.schema import Config

logger = logging.getLogger("faregate.console")

#: Requests of people and scripts, not of traffic: more than these at once are an accident.
REQUESTS_AT_ONCE_MAX: Final = 256
#: How long a stop waits for requests that run, and for the last events to be booked.
GRACE_S: Final = 1
BACKLOG: Final = 128


#: A start with a hundred thousand keys makes a million objects that stay. By its own thresholds the collector walks the
#: young ones 28 times as often, which takes a third of that start.
_GC_THRESHOLDS = (20_000, 20, 20)

#: Below ordinary processes, above those that only use idle time.
_NICENESS = 10


def run_console(settings: ConsoleSettings, input_descriptor: int) -> int:
    """Serve until told to stop; returns the exit code."""
    # Where both planes share a core, a burst of projection must not make a call wait.
    os.nice(_NICENESS)
    gc.set_threshold(*_GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(settings, input_descriptor))


async def _serve(settings: ConsoleSettings, input_descriptor: int) -> int:
    config = Config.model_validate_json(bytes(settings.config))
    compiler = CatalogueCompiler(config, Path(settings.folder), process_environment())
    folder = DataFolder(Path(settings.data_dir))
    workshop = await asyncio.to_thread(
        Workshop, config, folder, compiler, console_secrets(settings.secrets), SystemClock()
    )
    try:
        return await _with_workshop(settings, input_descriptor, config, workshop)
    finally:
        await asyncio.to_thread(workshop.close)


async def _with_workshop(settings: ConsoleSettings, input_descriptor: int, config: Config, workshop: Workshop) -> int:
    from faregate.console.app import create_app
    from faregate.console.doors import trusted

    console, work = workshop.live(settings.gateway_url, tls=settings.tls is not None, randomly=random.random)
    app = create_app(console)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.attached:
        stop_with_parent(loop, input_descriptor, stop.set)
    network = _listen_on_network(settings)
    servers = [
        _Listener(_uvicorn(app, settings, behind_proxy=config.console.behind_proxy), network),
        _Listener(_uvicorn(trusted(app), None, behind_proxy=False), _listen_on_socket(workshop.folder.console_socket)),
    ]
    tasks = [asyncio.create_task(server.serve_its_socket()) for server in servers]
    tasks += [asyncio.create_task(each()) for each in work]
    try:
        await asyncio.gather(*(server.ready.wait() for server in servers))
        os.write(sys.stdout.fileno(), encode(Listening(network.getsockname()[1])) + b"\n")
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        failed = _first_failure(tasks)
    finally:
        for server in servers:
            server.should_exit = True
        for task in tasks[len(servers) :]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        workshop.folder.console_socket.unlink(missing_ok=True)
    if failed is not None:
        # The supervisor starts another one; the gate goes on without it meanwhile.
        logger.critical("console_part_failed", exc_info=failed)
        return 1
    return 0


def _first_failure(tasks: Sequence[asyncio.Task[None]]) -> BaseException | None:
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            return task.exception()
    return None


class _Listener(uvicorn.Server):
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


def _uvicorn(app: Any, network: ConsoleSettings | None, *, behind_proxy: bool) -> uvicorn.Config:
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


def _listen_on_network(settings: ConsoleSettings) -> socket.socket:
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


def _listen_on_socket(path: Path) -> socket.socket:
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
