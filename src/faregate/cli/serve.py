"""``faregate serve``: checks everything, then starts the gateway and the console and stays with them."""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from faregate import logs, supervise
from faregate.assembly.parts import Wanted, console_settings, parts_of
from faregate.cli import built_in
from faregate.cli.addresses import HostPort, read_address, url_of
from faregate.cli.listening import Listener, forget_listeners, keep_listeners
from faregate.cli.output import DATA_DEFAULT, Data, Json, emit, emit_json, flush, say
from faregate.config.environment import process_environment
from faregate.config.folder import DataFolder, prepare, take_lock
from faregate.config.load import Given, Loaded, load, load_text
from faregate.config.reloading import effective, still_referred
from faregate.config.secrets import Kept, secrets_of
from faregate.config.tree import Environment
from faregate.config.values import is_loopback
from faregate.errors import Unsafe, UsageError
from faregate.supervise import Address, Ports, Reread, Supervisor, logger

CONFIG_DEFAULT = Path("faregate.yaml")

#: Said at a reload of an installation that was started without a file.
NO_FILE = "no configuration file was there at the start: the built-in configuration stays, the secrets were read again"

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", envvar="FAREGATE_CONFIG", help="Configuration [default: faregate.yaml]."),
]
Gateway = Annotated[str | None, typer.Option("--gateway", metavar="HOST:PORT", help="Where callers connect.")]
Console = Annotated[str | None, typer.Option("--console", metavar="HOST:PORT", help="Where admins connect.")]
Demo = Annotated[bool, typer.Option("--demo", help="Simulator, sample organization, a little history.")]
FirstRun = Annotated[
    bool, typer.Option("--first-run", help="As `make run`: works without a file, prints keys and a curl line.")
]


def command(
    config: Config = None,
    data: Data = DATA_DEFAULT,
    gateway: Gateway = None,
    console: Console = None,
    demo: Demo = False,
    first_run: FirstRun = False,
    json: Json = False,
) -> int:
    """Start Faregate: the gateway for callers and the console for admins."""
    if demo and config is not None:
        raise UsageError("--demo and --config exclude each other: the demo brings its own configuration")
    gateway_at = read_address("--gateway", gateway) if gateway is not None else None
    console_at = read_address("--console", console) if console is not None else None
    environment = process_environment()
    given = [*_given("gateway", gateway_at), *_given("console", console_at)]
    source = _source(config, environment, demo=demo, first_run=first_run)

    def read() -> Loaded:
        if source is None:
            return load(config or CONFIG_DEFAULT, process_environment(), given)
        return load_text(source.text.encode(), source.source, environment, Path.cwd(), given)

    loaded = read()
    if (demo or first_run) and not _on_loopback(loaded):
        raise Unsafe(
            "keys are printed only where nobody but this machine can connect",
            hint="listen on 127.0.0.1, or use `faregate init` and `faregate serve`",
        )
    start = _Start(loaded, source, gateway_at, console_at, demo, first_run, json, read)
    return start.run(data)


def _given(section: str, at: HostPort | None) -> list[Given]:
    if at is None:
        return []
    given = [Given(f"--{section}", (section, "host"), at.host)]
    # A free port has no number yet that could be checked.
    return [*given, Given(f"--{section}", (section, "port"), at.port)] if at.port else given


def _source(config: Path | None, environment: Environment, *, demo: bool, first_run: bool) -> built_in.BuiltIn | None:
    """The built-in configuration to use; ``None`` where a file is to be read."""
    if demo:
        return built_in.simulated(_free_port())
    if first_run and config is None and not CONFIG_DEFAULT.exists():
        return built_in.from_environment(environment) or built_in.simulated(_free_port())
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _on_loopback(loaded: Loaded) -> bool:
    return is_loopback(loaded.config.gateway.host) and is_loopback(loaded.config.console.host)


class _Start:
    """One start, from the checked configuration on."""

    def __init__(
        self,
        loaded: Loaded,
        source: built_in.BuiltIn | None,
        gateway_at: HostPort | None,
        console_at: HostPort | None,
        demo: bool,
        first_run: bool,
        as_json: bool,
        read_again: Callable[[], Loaded],
    ) -> None:
        """``read_again`` is how the configuration was read."""
        config = loaded.config
        self._read_again = read_again
        self._loaded = loaded
        self._source = source
        self._gateway_port = gateway_at.port if gateway_at is not None else config.gateway.port
        self._console_port = console_at.port if console_at is not None else config.console.port
        self._demo = demo
        self._first_run = first_run
        self._as_json = as_json

    def run(self, data: Path) -> int:
        """Take the data folder, look at the machine, start, stay; the exit code."""
        config = self._loaded.config
        logs.configure("supervisor", config.logging.level, config.logging.format)
        for warning in self._loaded.warnings:
            say(f"warning: {warning.line()}")
        folder = prepare(data)
        lock = take_lock(folder)
        if lock.recovered_pid is not None:
            say(f"recovered lock of dead pid {lock.recovered_pid}")
        try:
            forget_listeners(folder)
            orphans = lock.recovered_pid is not None
            addresses = [
                Address("gateway", config.gateway.host, self._gateway_port),
                Address("console", config.console.host, self._console_port),
            ]
            # Each call holds two connections, and books, journal and logs want theirs.
            supervise.check_start(addresses, files_wanted=2 * config.gateway.connections_max + 1_000, orphans=orphans)
            kept = self._secrets(folder)
            style = config.logging.format
            if style == "auto":
                style = "console" if os.isatty(2) else "json"
            wanted = Wanted(
                self._loaded,
                folder,
                kept.secrets,
                self._gateway_port,
                self._console_port,
                self._source.simulator_port if self._source is not None else None,
                style,
            )
            reread = _Rereading(self._read_again, wanted, built_in=self._source is not None)
            supervisor = Supervisor(parts_of(wanted, _url), orphans=orphans, reread=reread)
            return asyncio.run(supervisor.run(lambda ports: self._greet(folder, ports)))
        finally:
            forget_listeners(folder)
            lock.release()

    def _secrets(self, folder: DataFolder) -> Kept:
        """The installation's secrets; a console that others reach needs them made on purpose, by ``init``."""
        host = self._loaded.config.console.host
        if not is_loopback(host) and not folder.secrets.exists():
            raise Unsafe(
                f"the console would listen on {host} before this installation has secrets of its own",
                hint=f"run `faregate init --data {folder.root}` first",
            )
        kept = secrets_of(folder, os.urandom)
        if not is_loopback(host):
            from faregate.assembly.offline import has_admin_key

            if not has_admin_key(folder):
                raise Unsafe(
                    f"the console would listen on {host}, and no key opens it",
                    hint=f"make one first: `faregate key create --name admin --role admin --data {folder.root}`",
                )
        if kept.made:
            facts = {
                "file": str(folder.secrets),
                "holds": "pepper and session secret",
                "advice": "keep a copy with your backups",
            }
            logger.info("secrets_made", extra=facts)
        return kept

    async def _greet(self, folder: DataFolder, ports: Ports) -> None:
        """Say where everything is, and on a first run the keys to it."""
        config = self._loaded.config
        gateway = Listener("gateway", config.gateway.host, ports["gate"], config.gateway.tls is not None)
        console = Listener("console", config.console.host, ports["console"], config.console.tls is not None)
        keep_listeners(folder, os.getpid(), [gateway, console])
        gateway_url = _url(gateway.host, gateway.port, gateway.tls)
        console_url = _url(console.host, console.port, console.tls)
        if not (self._demo or self._first_run):
            if self._as_json:
                emit_json({"gateway": gateway_url, "console": console_url, "data": str(folder.root)})
            else:
                emit(f"gateway  {gateway_url}\nconsole  {console_url}")
            flush()
            return
        # Loaded only here: a start without keys to print needs no HTTP client.
        from faregate.cli.demo import make_sample
        from faregate.cli.first_run import AdminApi, curl_line, first_keys, wait_ready

        api = AdminApi(folder)
        await wait_ready(gateway_url)
        keys = await first_keys(folder, api)
        model = self._source.model if self._source is not None else built_in.FIRST_MODEL
        urls = {"gateway": gateway_url, "console": console_url}
        if self._source is not None and self._source.simulator_port is not None:
            urls["simulator"] = _url("127.0.0.1", self._source.simulator_port, False)
        if self._as_json:
            emit_json({**urls, "admin": keys.admin, "caller": keys.caller})
        else:
            emit("\n".join(f"{name:<10} {url}" for name, url in urls.items()))
            if self._source is not None:
                emit(self._source.about)
            emit(f"admin key  {keys.admin}\ncaller key {keys.caller}\n")
            emit(curl_line(gateway_url, keys.caller, model))
        flush()
        if self._demo and not keys.demo:
            await make_sample(folder, api, gateway_url, keys)


class _Rereading:
    """Reads the configuration again, as often as it is asked, and the secrets with it."""

    def __init__(self, read_again: Callable[[], Loaded], running: Wanted, *, built_in: bool) -> None:
        self._read_again = read_again
        self._built_in = built_in
        #: What was read first: what needs a restart stays as it was then.
        self._running = running

    def __call__(self) -> Reread:
        """The parts by the configuration as it is now.

        Raises:
            FaregateError: it cannot be used.
        """
        loaded = self._read_again()
        config, restart = effective(self._running.loaded.config, loaded.config)
        secrets = secrets_of(self._running.folder, os.urandom).secrets
        references = still_referred(self._running.loaded.references, loaded.references)
        loaded = loaded._replace(config=config, references=references)
        wanted = self._running._replace(loaded=loaded, secrets=secrets)
        warnings = tuple(warning.line() for warning in loaded.warnings)
        if self._built_in:
            warnings += (NO_FILE,)
        return Reread(parts_of(wanted, _url), lambda ports: console_settings(wanted, ports, _url), restart, warnings)


def _url(host: str, port: int, tls: bool) -> str:
    return url_of(host, port, tls=tls)
