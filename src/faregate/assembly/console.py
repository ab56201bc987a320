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
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from faregate.assembly.clock import SystemClock
from faregate.assembly.following import Following
from faregate.assembly.handover import ConsoleSettings, Listening, encode
from faregate.assembly.loops import loop_factory, stop_with_parent
from faregate.assembly.reloading import Adoption, MakeAdoption, Reloading, Works
from faregate.config.environment import process_environment
from faregate.config.folder import DataFolder
from faregate.storage.sqlite.books import SqliteBooks
from faregate.storage.sqlite.opening import open_books

if TYPE_CHECKING:
    from fastapi import FastAPI

    from faregate.assembly.acting import Acting
    from faregate.assembly.compiler import CatalogueCompiler
    from faregate.assembly.workshop import Work
    from faregate.config.schema import Config
    from faregate.console.state import CompileCatalogue, Console

logger = logging.getLogger("faregate.console")

#: A load with a hundred thousand keys makes a million objects that stay until it is sent. By its own thresholds the
#: collector walks the young ones 28 times as often, which takes a third of the time.
_GC_THRESHOLDS = (20_000, 20, 20)

#: The rest of the console waits so long for the gate to be told what it needs; it is away where that takes longer.
GATE_FIRST_SECONDS_MAX = 5.0

#: The link waits so long for the rest of the program to be there.
COMPILER_SECONDS_MAX = 60.0

#: A start looks through the books for damage for so long, in which all of a quarter million calls is read from memory;
#: the rest is looked through later.
LOOK_MS_MAX = 500

#: Below ordinary processes, above those that only use idle time.
_NICENESS = 10


def run_console(settings: ConsoleSettings, input_descriptor: int) -> int:
    """Serve until told to stop; returns the exit code."""
    # Where both planes share a core, a burst of projection must not make a call wait.
    os.nice(_NICENESS)
    # A start makes what stays, and the collector would find nothing in it; it takes a sixth of a small start.
    gc.disable()
    gc.set_threshold(*_GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(settings, input_descriptor))


async def _serve(settings: ConsoleSettings, input_descriptor: int) -> int:
    clock, folder = SystemClock(), DataFolder(Path(settings.data_dir))
    # To look through large books takes as long as to load what compiles prices, and nearly none of it in Python.
    loading = asyncio.create_task(asyncio.to_thread(_load))
    try:
        books = await asyncio.to_thread(lambda: open_books(folder.books, clock, look_ms=LOOK_MS_MAX))
    finally:
        await loading
    try:
        # The gate takes calls as soon as it has its keys, limits and prices, whatever else has to be put together here.
        compiler: Future[CompileCatalogue] = Future()
        following = Following(folder, books, clock, lambda *given: compiler.result(COMPILER_SECONDS_MAX)(*given))
        linking = asyncio.create_task(following.link.run())
        try:
            return await _with_link(
                settings, input_descriptor, _Started(clock, folder, books, following), compiler, linking
            )
        finally:
            compiler.cancel()
            linking.cancel()
            await asyncio.gather(linking, return_exceptions=True)
            await asyncio.to_thread(following.close)
    finally:
        await asyncio.to_thread(books.close)


class _Started(NamedTuple):
    """What a console begins with."""

    clock: SystemClock
    folder: DataFolder
    books: SqliteBooks
    following: Following


class _Built(NamedTuple):
    """What the rest of the program is."""

    app: "FastAPI"
    console: "Console"
    work: "Sequence[Work]"
    behind_proxy: bool


def _load() -> None:
    import faregate.assembly.compiler
    import faregate.assembly.made
    import faregate.config.schema  # noqa: F401


def _configured(settings: ConsoleSettings) -> "tuple[Config, CatalogueCompiler]":
    from faregate.config.schema import Config

    config = Config.model_validate_json(bytes(settings.config))
    return config, compiler_of(settings, config)


def _built(
    settings: ConsoleSettings, started: _Started, config: "Config", compile_catalogue: "CatalogueCompiler"
) -> _Built:
    """Load the rest of the program and put it together.

    Raises:
        ConfigError: CFG-SECRET: the secrets are not those of the books.
        Unavailable: these cannot be reached.
    """
    from faregate.assembly.workshop import Workshop, console_secrets
    from faregate.console.app import create_app

    secrets = console_secrets(settings.secrets)
    workshop = Workshop(config, started.folder, compile_catalogue, secrets, started.clock, started.books)
    console, work = workshop.live(
        started.following, settings.gateway_url, tls=settings.tls is not None, randomly=random.random
    )
    return _Built(create_app(console), console, work, config.console.behind_proxy)


def _acting(settings: ConsoleSettings, started: _Started, config: "Config") -> "Acting":
    """What is to act, or does, as the trail of changes tells it."""
    from faregate.assembly.acting import Acting

    return Acting(started.folder, config, settings.references, settings.secrets.session)


def compiler_of(settings: ConsoleSettings, config: "Config") -> "CatalogueCompiler":
    """What compiles the catalogue of a configuration."""
    from faregate.assembly.compiler import CatalogueCompiler
    from faregate.assembly.made import secret_box

    box = secret_box(settings.secrets)
    open_secret = box.open if box is not None else None
    return CatalogueCompiler(config, Path(settings.folder), process_environment(), open_secret)


async def _with_link(
    settings: ConsoleSettings,
    input_descriptor: int,
    started: _Started,
    compiler: "Future[CompileCatalogue]",
    linking: asyncio.Task[None],
) -> int:
    config, compile_catalogue = await asyncio.to_thread(_configured, settings)
    if any(provider.credential is not None for provider in config.providers):
        # A new gate takes no calls before it was tried to fetch them.
        started.following.link.expect_credentials()
    compiler.set_result(compile_catalogue)
    # The rest of the program is loaded when nothing of it can hold up what the gate waits for.
    await started.following.link.read(GATE_FIRST_SECONDS_MAX)
    built = await asyncio.to_thread(_built, settings, started, config, compile_catalogue)
    await asyncio.to_thread(lambda: _acting(settings, started, config).tell_start(built.console))
    gc.freeze()
    gc.enable()
    from faregate.assembly.listeners import Listener, listen_on_network, listen_on_socket, served
    from faregate.console.doors import trusted

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    started.following.link.gate_settings = bytes(settings.gate)
    works = Works(built.work)
    if settings.attached:
        reloading = Reloading(built.console, works, _adopting(started, built.console), _say)
        stop_with_parent(loop, input_descriptor, stop.set, reloading.told)
    network = listen_on_network(settings)
    local = listen_on_socket(started.folder.console_socket)
    servers = [
        Listener(served(built.app, settings, behind_proxy=built.behind_proxy), network),
        Listener(served(trusted(built.app), None, behind_proxy=False), local),
    ]
    tasks = [asyncio.create_task(server.serve_its_socket()) for server in servers]
    tasks += [linking, asyncio.create_task(works.run())]
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
        started.folder.console_socket.unlink(missing_ok=True)
    if failed is not None:
        # The supervisor starts another one; the gate goes on without it meanwhile.
        logger.critical("console_part_failed", exc_info=failed)
        return 1
    return 0


def _say(word: bytes) -> None:
    os.write(sys.stdout.fileno(), word + b"\n")


def _adopting(started: _Started, serving: "Console") -> MakeAdoption:
    """What prepares a console by other settings; nothing is changed by that."""

    def prepared(settings: ConsoleSettings) -> Adoption:
        from faregate.assembly.workshop import Workshop, console_secrets
        from faregate.config.schema import Config

        config = Config.model_validate_json(bytes(settings.config))
        compiler = compiler_of(settings, config)
        secrets = console_secrets(settings.secrets)
        workshop = Workshop(config, started.folder, compiler, secrets, started.clock, started.books)
        console, work = workshop.live(
            started.following,
            settings.gateway_url,
            tls=settings.tls is not None,
            randomly=random.random,
            serving=serving,
        )
        acting = _acting(settings, started, config)
        return Adoption(
            console, work, lambda: started.following.link.reconfigure(bytes(settings.gate), compiler), acting
        )

    return prepared


def _first_failure(tasks: Sequence[asyncio.Task[None]]) -> BaseException | None:
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            return task.exception()
    return None
