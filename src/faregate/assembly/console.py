"""Builds and runs the console in this process: books, projector, link to the gate, jobs, and the API on two listeners.

The listener on the Unix socket in the data folder needs no credential, because only the installation's owner can open
it; the one on the network asks for one on every request.
"""

import asyncio
import gc
import logging
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from faregate.assembly.clock import SystemClock
from faregate.assembly.handover import ConsoleSettings, Listening, encode
from faregate.assembly.loops import loop_factory, stop_with_parent
from faregate.config.environment import process_environment
from faregate.config.folder import DataFolder
from faregate.storage.sqlite.opening import open_books

if TYPE_CHECKING:
    from faregate.assembly.workshop import Workshop

logger = logging.getLogger("faregate.console")

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
    clock, folder = SystemClock(), DataFolder(Path(settings.data_dir))
    # To look through large books takes as long as to load the rest of the program, and nearly none of it in Python:
    # both are done at once.
    opening = asyncio.get_running_loop().run_in_executor(None, open_books, folder.books, clock)
    from faregate.assembly.compiler import CatalogueCompiler
    from faregate.assembly.workshop import Workshop, console_secrets
    from faregate.config.schema import Config

    config = Config.model_validate_json(bytes(settings.config))
    compiler = CatalogueCompiler(config, Path(settings.folder), process_environment())
    books = await opening
    workshop = await asyncio.to_thread(
        Workshop, config, folder, compiler, console_secrets(settings.secrets), clock, books
    )
    try:
        return await _with_workshop(settings, input_descriptor, workshop, behind_proxy=config.console.behind_proxy)
    finally:
        await asyncio.to_thread(workshop.close)


async def _with_workshop(
    settings: ConsoleSettings, input_descriptor: int, workshop: "Workshop", *, behind_proxy: bool
) -> int:
    from faregate.assembly.listeners import Listener, listen_on_network, listen_on_socket, served
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
    network = listen_on_network(settings)
    servers = [
        Listener(served(app, settings, behind_proxy=behind_proxy), network),
        Listener(served(trusted(app), None, behind_proxy=False), listen_on_socket(workshop.folder.console_socket)),
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
