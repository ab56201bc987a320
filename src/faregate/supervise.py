"""Starts, watches and stops the processes of an installation. It does none of their work.

Each part is a process of its own that is restarted when it dies; the death of one never stops another. A stop is
passed on in order: first the gate, which lets running calls finish, then the console, which books what the gate wrote.
It serves as process 1 of a container as well as from a shell.
"""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from faregate.assembly.handover import (
    Adopt,
    Adopted,
    ConsoleSettings,
    Listening,
    NotReread,
    RereadWanted,
    Stillborn,
    as_error,
    decode_first_word,
    decode_word,
    encode,
)
from faregate.assembly.port_holder import port_holder
from faregate.errors import ConfigError, Failed, FaregateError, Unavailable, Unsafe, UsageError

logger = logging.getLogger("faregate.supervise")

#: Opening large books and checking them takes seconds, not minutes.
START_SECONDS_MAX: Final = 120.0

#: What processes of a killed supervisor may still hold is given back within this time.
ORPHANS_SECONDS_MAX: Final = 5.0

#: Restarts: at once, then slower, at most so slowly (calls wait for it, G7); one that lived this long starts at once.
BACKOFF_FIRST_S, BACKOFF_MAX_S, HEALTHY_S = 0.05, 1.0, 10.0

#: A part that cannot even start so often in a row ends the start of the installation.
FIRST_STARTS_MAX: Final = 3

#: Beyond the drain: the gate cuts what is left, then the console books it.
GATE_GRACE_S, CONSOLE_GRACE_S, AT_ONCE_S = 6.0, 2.0, 6.0
#: Whoever comes last still gets this long, whatever those before took.
LAST_GRACE_S: Final = 0.5

#: Windows, prices and certificates mean nothing on a clock that stands before this program was made.
MADE_AT_SECONDS: Final = 1_790_812_800  # 2026-10-01T00:00:00Z

FILES_MIN: Final = 1_024

#: Asked to stop twice: the exit code of a shell command that Ctrl-C ended.
EXIT_AT_ONCE: Final = 130

#: A configuration that was read again is in force, or is not, within this time.
RELOAD_SECONDS_MAX: Final = 100.0

#: A log line names so many problems of a configuration; `faregate check` tells all.
PROBLEMS_LOGGED_MAX: Final = 20

#: So many are told to whoever asked for it.
PROBLEMS_TOLD_MAX: Final = 50

#: The ports of the parts that listen, by name.
Ports = Mapping[str, int]


class Part(NamedTuple):
    """One process: its role, and its settings, made anew at each start from the ports that are known by then."""

    role: str
    settings: Callable[[Ports], bytes]
    #: When it must have ended, in seconds after the stop was asked for: what one leaves of its time the next may use.
    stop_seconds: float
    #: Roles whose ports its settings need; it starts once these listen, and beside all others.
    needs: tuple[str, ...] = ()


class Reread(NamedTuple):
    """A configuration that was read again: the parts as they are started from now on, and what the console is told."""

    parts: Sequence[Part]
    #: By the ports that are known by then.
    console: Callable[[Ports], ConsoleSettings]
    #: Keys that changed and wait for a restart, and what is worth saying, a line each.
    restart: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Address(NamedTuple):
    """Where a part is to listen."""

    role: str
    host: str
    port: int


class _Running:
    """A part's process at this moment, as far as there is one."""

    def __init__(self, part: Part, listening: asyncio.Future[int]) -> None:
        self.part = part
        self.listening = listening
        #: The process that lives now listens, and takes orders.
        self.listens = False
        self.process: asyncio.subprocess.Process | None = None
        self.ended = asyncio.Event()

    def send(self, number: int) -> None:
        """Send a signal to it, if it lives."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


class Supervisor:
    """Runs parts, in their order, until told to stop."""

    def __init__(
        self, parts: Sequence[Part], *, orphans: bool = False, reread: Callable[[], Reread] | None = None
    ) -> None:
        """``reread`` reads the configuration again; it raises ``FaregateError`` where that cannot be used."""
        self._parts = tuple(parts)
        self._reread = reread
        self._reloading: asyncio.Task[None] | None = None
        self._adopted: asyncio.Future[Adopted] | None = None
        self._orders = 0
        #: The newest question of the console's, and whether the file is to be read once more.
        self._wanted = 0
        self._again = False
        #: Processes of a killed supervisor may still be about to end.
        self._orphans = orphans
        self._ports: dict[str, int] = {}
        self._running: list[_Running] = []
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._signals = 0

    async def run(self, when_ready: Callable[[Ports], Awaitable[None]]) -> int:
        """Start everything, call ``when_ready``, stay until a signal; returns the exit code.

        Raises:
            FaregateError: a part cannot start, for the reason that it gave.
        """
        loop = asyncio.get_running_loop()
        handled = {signal.SIGTERM: self.stop, signal.SIGINT: self.stop, signal.SIGHUP: self.reload}
        for number, handler in handled.items():
            loop.add_signal_handler(number, handler)
        keepers: list[asyncio.Task[None]] = []
        try:
            for part in self._parts:
                needed = [running for running in self._running if running.part.role in part.needs]
                if not all([await self._wait_listening(running) for running in needed]):
                    break
                running = _Running(part, loop.create_future())
                self._running.append(running)
                keepers.append(asyncio.create_task(self._keep(running), name=part.role))
            if all([await self._wait_listening(running) for running in self._running]) and not self._stop.is_set():
                await self._until_stopped(when_ready)
        finally:
            if self._reloading is not None:
                self._reloading.cancel()
            clean = await self._stop_all()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            for number in handled:
                loop.remove_signal_handler(number)
        if self._at_once.is_set():
            return EXIT_AT_ONCE
        return 0 if clean else Failed.exit_code

    def stop(self) -> None:
        """Let what runs finish and end; called again: end now."""
        self._signals += 1
        if self._signals == 1:
            logger.info("stopping", extra={"advice": "running calls may finish; a second signal ends them"})
            self._stop.set()
        else:
            self._at_once.set()

    # -- another configuration -----------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again, and let both planes work by it, or neither; one at a time.

        While it is being read, once more afterwards: it may have been written in between.
        """
        self._again = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload_each(), name="reload")

    async def _reload_each(self) -> None:
        while self._again:
            self._again = False
            await self._reload()

    async def _reload(self) -> None:
        answers = self._wanted
        try:
            if self._reread is None:
                raise Unsafe("there is no configuration file to read again", hint="start with --config FILE")
            found = await asyncio.to_thread(self._reread)
        except FaregateError as error:
            await self._tell_not_reread(error, answers)
            return
        try:
            answer = await self._adopt(found, answers)
        except (OSError, TimeoutError, FaregateError) as error:
            logger.error(
                "config_reload_failed", extra={"why": str(error) or "no answer in time", "kept": "the old one"}
            )
            return
        if answer.trouble:
            logger.error("config_reload_failed", extra={"why": answer.trouble, "kept": "the old one"})
            return
        by_role = {part.role: part for part in found.parts}
        for running in self._running:
            running.part = by_role.get(running.part.role, running.part)
        for warning in found.warnings:
            logger.warning("config_warning", extra={"why": warning})
        logger.info("config_reloaded", extra={"wait_for_restart": list(found.restart)})

    async def _adopt(self, found: Reread, answers: int) -> Adopted:
        """Let the console, and through it the gate, work by other settings; what it says of it.

        Raises:
            Unavailable, OSError, TimeoutError: there is no console, or no word of it.
        """
        self._orders += 1
        self._adopted = asyncio.get_running_loop().create_future()
        order = Adopt(self._orders, found.console(self._ports), found.restart, found.warnings, answers)
        await self._order(encode(order))
        async with asyncio.timeout(RELOAD_SECONDS_MAX):
            return await self._adopted

    async def _order(self, line: bytes) -> None:
        console = next((each for each in self._running if each.part.role == "console"), None)
        if console is None or not console.listens or console.process is None or console.process.stdin is None:
            raise Unavailable("the console is starting; try again when it is there")
        console.process.stdin.write(line + b"\n")
        await console.process.stdin.drain()

    async def _tell_not_reread(self, error: FaregateError, answers: int) -> None:
        """Say once in the log why, and tell the console, which counts it and answers whoever asked."""
        findings = getattr(error, "findings", ())
        lines = [finding.line() for finding in findings] or [error.message]
        more = len(lines) - PROBLEMS_LOGGED_MAX
        shown = [*lines[:PROBLEMS_LOGGED_MAX], *([f"… and {more} more, see `faregate check`"] if more > 0 else [])]
        logger.error("config_reload_failed", extra={"problems": len(lines), "why": shown, "kept": "the old one"})
        problems = tuple(findings[:PROBLEMS_TOLD_MAX])
        message = lines[0] if len(lines) == 1 else f"{len(lines)} problems; the first: {lines[0]}"
        code = "config_invalid" if isinstance(error, ConfigError) else error.code
        # A console that is away counts nothing; it starts by the old configuration, too.
        with contextlib.suppress(OSError, Unavailable):
            told = NotReread(code, f"{message}; the old configuration stays in force", problems, answers)
            await self._order(encode(told))

    def _heard(self, line: bytes) -> None:
        """A later word of a part's."""
        try:
            word = decode_word.decode(line)
        except msgspec.DecodeError:
            return
        if isinstance(word, RereadWanted):
            self._wanted = word.number
            self.reload()
        elif self._adopted is not None and not self._adopted.done() and word.number == self._orders:
            self._adopted.set_result(word)

    async def _wait_listening(self, running: _Running) -> bool:
        """Whether the part listens; false when a stop came first."""
        stopping = asyncio.create_task(self._stop.wait())
        try:
            waiting: set[asyncio.Future[Any]] = {running.listening, stopping}
            await asyncio.wait(waiting, timeout=START_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if running.listening.done():
            # Raises why it cannot start.
            running.listening.result()
            return True
        if self._stop.is_set():
            return False
        raise Unavailable(
            f"the {running.part.role} does not start within {START_SECONDS_MAX:.0f} s", hint="see the log"
        )

    async def _until_stopped(self, when_ready: Callable[[Ports], Awaitable[None]]) -> None:
        """Stay, while ``when_ready`` does its work beside it; its failure stops everything."""
        greeting = asyncio.ensure_future(when_ready(dict(self._ports)))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            waiting: set[asyncio.Future[Any]] = {greeting, stopping}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if greeting.done():
                greeting.result()
                await stopping
        finally:
            stopping.cancel()
            greeting.cancel()
            await asyncio.gather(greeting, stopping, return_exceptions=True)

    # -- one part ------------------------------------------------------------------------------------------------------

    async def _keep(self, running: _Running) -> None:
        """Start a part again and again, until everything stops."""
        part, failures = running.part, 0
        try:
            first_try_at = time.monotonic()
            while not self._stop.is_set():
                born_at = time.monotonic()
                word = await self._live_once(running)
                lived = time.monotonic() - born_at
                if self._stop.is_set():
                    return
                failures = 1 if lived >= HEALTHY_S else failures + 1
                if not running.listening.done() and self._hopeless(word, failures, time.monotonic() - first_try_at):
                    running.listening.set_exception(_why(part.role, word))
                    return
                delay = min(BACKOFF_FIRST_S * 4 ** (failures - 1), BACKOFF_MAX_S)
                code = running.process.returncode if running.process is not None else None
                facts = {"role": part.role, "exit": code, "restart_in_s": round(delay, 2)}
                if isinstance(word, Stillborn):
                    facts |= {"code": word.code, "why": word.message}
                logger.error("process_ended", extra=facts)
                # A stop ends the waiting; nothing is cancelled by the timeout but the waiting itself.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), delay)
        finally:
            running.ended.set()

    async def _live_once(self, running: _Running) -> Listening | Stillborn | None:
        """Start the process and wait for its end; its first word."""
        role = running.part.role
        process = running.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "faregate.assembly",
            role,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A process group of its own: Ctrl-C on a terminal reaches only us, and we pass it on in order.
            process_group=0,
        )
        if self._stop.is_set():
            # The order to stop came while it was born and could not reach it.
            process.terminate()
        assert process.stdin is not None
        assert process.stdout is not None
        running.listens = False
        word: Listening | Stillborn | None = None
        try:
            process.stdin.write(running.part.settings(self._ports) + b"\n")
            await process.stdin.drain()
            word = _first_word(await process.stdout.readline())
            if isinstance(word, Listening):
                self._ports[role] = word.port
                logger.info("process_listens", extra={"role": role, "pid": process.pid, "port": word.port})
                running.listens = True
                if not running.listening.done():
                    running.listening.set_result(word.port)
            while line := await process.stdout.readline():
                self._heard(line)
        except (BrokenPipeError, ConnectionResetError):
            # It died while its settings were written: the exit code says why.
            pass
        except ValueError:
            # A word that is too long for one of ours; reading on keeps it from blocking the process.
            while await process.stdout.read(65_536):
                pass
        await process.wait()
        running.listens = False
        if role == "console" and self._adopted is not None and not self._adopted.done():
            self._adopted.set_exception(Unavailable("the console ended meanwhile; the old configuration stays"))
        return word

    def _hopeless(self, word: Listening | Stillborn | None, failures: int, seconds: float) -> bool:
        """Whether a part that never listened is given up."""
        if isinstance(word, Stillborn):
            transient = word.code in ("conflict", "address_in_use")
            return not (self._orphans and transient and seconds < ORPHANS_SECONDS_MAX)
        return failures >= FIRST_STARTS_MAX

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _stop_all(self) -> bool:
        """Stop the parts in their order; whether all ended by themselves."""
        self._stop.set()
        clean = True
        asked_at = time.monotonic()
        for running in sorted(self._running, key=lambda running: _STOP_ORDER.index(running.part.role)):
            running.send(signal.SIGTERM)
            left = asked_at + running.part.stop_seconds - time.monotonic()
            clean &= await self._wait_ended(running, max(left, LAST_GRACE_S))
        return clean

    async def _wait_ended(self, running: _Running, seconds: float) -> bool:
        ended = asyncio.create_task(running.ended.wait())
        hurry = asyncio.create_task(self._at_once.wait())
        try:
            await asyncio.wait({ended, hurry}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if self._at_once.is_set() and not ended.done():
                # The gate takes a second signal as the order to cut what runs; every cut is journalled.
                running.send(signal.SIGTERM)
                await asyncio.wait({ended}, timeout=AT_ONCE_S)
            if ended.done():
                return running.process is None or running.process.returncode in (0, None)
            logger.error("process_killed", extra={"role": running.part.role})
            running.send(signal.SIGKILL)
            await ended
            return False
        finally:
            ended.cancel()
            hurry.cancel()


#: The gate first, so that the console can book what it wrote last; its provider outlives it.
_STOP_ORDER = ("gate", "console", "simulator")


def _first_word(line: bytes) -> Listening | Stillborn | None:
    try:
        return decode_first_word.decode(line)
    except msgspec.DecodeError:
        return None


def _why(role: str, word: Listening | Stillborn | None) -> FaregateError:
    if isinstance(word, Stillborn):
        return as_error(word)
    return Failed(f"the {role} ends as soon as it is started", hint="the log above says why")


def check_start(addresses: Sequence[Address], *, files_wanted: int, orphans: bool) -> None:
    """Look at the machine before anything is started: its clock, its ports, its limit of open files.

    Raises:
        Unsafe: the clock stands before this program was made, or a port is privileged and not granted.
        Unavailable: a port is in use.
        UsageError: a host is not of this machine.
    """
    check_clock(time.time())
    for address in addresses:
        check_address(address, ORPHANS_SECONDS_MAX if orphans else 0.0)
    allowed = raise_file_limit(files_wanted)
    if allowed < FILES_MIN:
        logger.warning("few_open_files", extra={"allowed": allowed, "advised": files_wanted})


def check_clock(now_seconds: float) -> None:
    """Whether the machine's clock can be right.

    Raises:
        Unsafe: it stands before this program was made.
    """
    if now_seconds < MADE_AT_SECONDS:
        raise Unsafe("the clock stands before the day this version was made", hint="set the machine's clock")


def check_address(address: Address, patience_s: float = 0.0) -> None:
    """Try whether something can listen at an address, and give it back.

    Raises:
        Unavailable, Unsafe, UsageError: as ``check_start``.
    """
    role, host, port = address
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UsageError(f"{role}: {host} is not a host of this machine: {error}", code="address") from None
    give_up_at = time.monotonic() + patience_s
    while True:
        try:
            with socket.socket(found[0][0], socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(found[0][4])
            return
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < give_up_at:
                time.sleep(0.1)
                continue
            raise _cannot_listen(role, host, found[0][4], error) from None


def _cannot_listen(role: str, host: str, at: Sequence[Any], error: OSError) -> FaregateError:
    """Why nothing can listen at ``at``, which ``host`` is the name of."""
    where = f"port {at[1]} ({role})"
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(at[0], at[1])
        by = f" by process {holder}" if holder is not None else ""
        hint = f"stop who uses it, or set --{role} HOST:PORT"
        return Unavailable(f"{where} is in use{by}", code="address_in_use", hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "use a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
        return Unsafe(f"{where} is privileged and this process may not use it", hint=hint)
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(f"{role}: {host} is not an address of this machine", code="address")
    return Unavailable(f"{where}: {os.strerror(error.errno or 0).lower()}", code="address_in_use")


def raise_file_limit(wanted: int) -> int:
    """Allow this process and its children ``wanted`` open files, as far as the system lets; what is allowed then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            soft = target
        except (OSError, ValueError):
            logger.debug("open_files_not_raised")
    return wanted if soft == resource.RLIM_INFINITY else soft
