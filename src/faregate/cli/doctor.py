"""``faregate doctor``: looks at an installation, running or stopped, and says what is wrong and what to do about it."""

import asyncio
import os
import resource
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import typer

from faregate.cli import doctor_exposure as exposure
from faregate.cli.addresses import url_of
from faregate.cli.check import catalogue_warnings, models_without_maximum
from faregate.cli.listening import Listener, read_listeners
from faregate.cli.looks import Look, lines
from faregate.cli.output import DATA_DEFAULT, Data, Json, emit, emit_json
from faregate.config.environment import process_environment
from faregate.config.findings import Finding, Invalid
from faregate.config.folder import DataFolder, folder_problems, holder_of
from faregate.config.load import Loaded, load
from faregate.config.secrets import read_secrets
from faregate.config.variables import unknown_variables
from faregate.errors import ConfigError, FaregateError, Unavailable
from faregate.supervise import FILES_MIN, MADE_AT_SECONDS, check_address

CONFIG_DEFAULT = Path("faregate.yaml")

Config = Annotated[
    Path, typer.Option("--config", metavar="FILE", envvar="FAREGATE_CONFIG", help="Configuration of the installation.")
]

#: A backlog of the journal beyond it means that projection does not keep up or has stopped.
BACKLOG_BYTES_WORRYING = 64 * 1024 * 1024

PROBE_SECONDS_MAX = 3.0

#: A console that does not answer, or has no word from the gate, may be starting: so long it is waited for.
STARTING_SECONDS_MAX = 10.0
STARTING_RETRY_SECONDS = 0.1
LISTENERS_SECONDS_MAX = 1.0

#: A start and a busy day need room; below it there is little time to act.
FREE_BYTES_LOW = 1024 * 1024 * 1024

#: A machine that dies takes everything since the last backup with it.
BACKUP_HOURS_MAX = 24

#: What comes of a part that is not well.
_WHY = {
    "books": "nothing can be booked, and limits cannot be changed",
    "projector": "usage, reports and new limits lag behind, and at journal.backlog_max no calls are taken",
    "gate": "calls are refused or not answered",
}

#: Whoever gives credentials says no, or does not answer.
_MEND_CREDENTIAL = "look at providers[].credential, and at what its server says of it; it is asked again by itself"

#: Some of the zones that limits are set in; without the data none of them is known.
_ZONE_TRIED = "Europe/Berlin"

Providers = Annotated[
    bool, typer.Option("--providers", help="Also ask each provider for its models: its clock, and who may call it.")
]


def command(
    config: Config = CONFIG_DEFAULT, data: Data = DATA_DEFAULT, providers: Providers = False, json: Json = False
) -> int:
    """Look at an installation: exit 0 well (but read the warnings), 1 something is wrong, 3 nothing runs."""
    folder = DataFolder(data.absolute())
    holder = holder_of(folder) if folder.root.is_dir() else None
    environment = process_environment()
    loaded, looks = _configuration(config)
    looks += [
        *_folder(folder),
        *_machine(),
        *exposure.environment(loaded, environment),
        _lock(folder, holder),
        *(_running(folder, holder, loaded) if holder is not None else _stopped(folder, loaded)),
        *(_backup(folder) if folder.books.exists() else ()),
        *(exposure.ask_providers(loaded, environment) if providers and loaded is not None else ()),
    ]
    failed = any(look.state == "failed" for look in looks)
    if json:
        emit_json(
            {"ok": not failed, "running": holder is not None, "pid": holder, "looks": [x._asdict() for x in looks]}
        )
    else:
        for look in looks:
            emit("\n".join(lines(look)))
    if holder is None:
        return Unavailable.exit_code
    return FaregateError.exit_code if failed else 0


def _configuration(file: Path) -> tuple[Loaded | None, list[Look]]:
    if not file.exists():
        unknown = [_unknown(each) for each in unknown_variables(process_environment())]
        return None, [Look("configuration", "skipped", f"{file} does not exist"), *unknown]
    beside = list(exposure.referenced_files(file, file.absolute().parent))
    try:
        loaded = load(file, process_environment())
    except Invalid as invalid:
        first, more = invalid.findings[0].line(), len(invalid.findings) - 1
        detail = f"{first}; {more} more" if more else first
        mend = f"faregate check --config {file}"
        return None, [Look("configuration", "failed", detail, "the next start or reload is refused", mend), *beside]
    looks = [Look("configuration", "ok", str(file))]
    looks += [
        _unknown(warning) if warning.code == "CFG-UNKNOWN" else _doubtful(warning)
        for warning in (*loaded.warnings, *catalogue_warnings(loaded, str(file)))
    ]
    looks += [_unbounded(name) for name in models_without_maximum(loaded, process_environment())]
    return loaded, [*looks, *beside]


def _unknown(finding: Finding) -> Look:
    name = finding.place.source.removeprefix("environment:")
    why = "a setting that is believed to be in force is not"
    return Look("environment", "warning", f"{name}: {finding.problem}", why, finding.hint or f"unset {name}")


def _doubtful(finding: Finding) -> Look:
    if finding.code == "CFG-PRICE":
        why = "calls of it are refused, or priced by a guess"
        return Look("prices", "warning", finding.line(), why, "faregate price set, or pricing.overrides")
    return Look("configuration", "warning", finding.line())


def _unbounded(name: str) -> Look:
    return Look(
        "models",
        "warning",
        f"the most output tokens of {name} are not known",
        "a call without an output cap is given a small one, or refused near a limit",
        f"write max_output_tokens for {name} in the configuration",
    )


def _folder(folder: DataFolder) -> Iterator[Look]:
    if not folder.root.is_dir():
        why = "there are no books, no keys and no secrets"
        yield Look("data folder", "failed", f"{folder.root} does not exist", why, "`faregate init` or `serve` makes it")
        return
    problems = folder_problems(folder)
    for problem in problems:
        yield Look("data folder", "failed", problem.message, "the next start is refused", problem.hint)
    if not problems:
        room = os.statvfs(folder.root)
        free = room.f_bavail * room.f_frsize
        state = "warning" if free < FREE_BYTES_LOW else "ok"
        told = (
            ("on a full disk no calls are taken", "make room, or move the folder") if state == "warning" else ("", "")
        )
        yield Look("data folder", state, f"{folder.root}, {free >> 20} MiB free", *told)
    yield from exposure.folder_mode(folder)
    yield _secrets(folder)
    private = [folder.books, folder.first_run, folder.listening, folder.console_socket, folder.gate_socket, folder.lock]
    open_to_others = [path for path in private if path.exists() and _mode(path) & (stat.S_IRWXG | stat.S_IRWXO)]
    for path in open_to_others:
        detail = f"{path} is open to other users (mode {_mode(path):04o})"
        yield Look(
            "file modes", "failed", detail, "they read what is in it, or act as this installation", f"chmod 600 {path}"
        )
    if not open_to_others:
        yield Look("file modes", "ok", "nothing is open to other users")


def _secrets(folder: DataFolder) -> Look:
    try:
        secrets = read_secrets(folder.secrets)
    except FileNotFoundError:
        state = "failed" if folder.books.exists() else "skipped"
        return Look("secrets", state, f"{folder.secrets} does not exist")
    except ConfigError as error:
        return Look("secrets", "failed", error.message, "no key opens anything without them", error.hint)
    return Look("secrets", "ok", f"{len(secrets.peppers)} pepper, owner only")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _machine() -> Iterator[Look]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} open files (at most {hard})"
    few = soft != resource.RLIM_INFINITY and soft < FILES_MIN
    yield Look("open files", "warning" if few else "ok", shown)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    late = time.time() >= MADE_AT_SECONDS
    yield Look("clock", "ok" if late else "failed", now if late else f"{now} is before this version was made")
    yield _zones()


def _zones() -> Look:
    try:
        ZoneInfo(_ZONE_TRIED)
    except (ZoneInfoNotFoundError, OSError, ValueError):
        why = "limits and reports in any zone but UTC fail"
        return Look("time zones", "failed", "no time zone data was found", why, "pip install tzdata")
    return Look("time zones", "ok", f"{len(available_timezones())} zones are known")


def _backup(folder: DataFolder) -> Iterator[Look]:
    """How old the newest backup is, by the trail of changes, which each one is written into."""
    from faregate.assembly.offline import last_backup

    at = last_backup(folder)
    mend = "faregate backup FILE, on another machine's disk, every day"
    why = "what was booked since is lost with this machine"
    if at is None:
        yield Look("backup", "warning", "no backup was ever made of these books", why, mend)
        return
    hours = (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds() / 3600
    if hours > BACKUP_HOURS_MAX:
        yield Look("backup", "warning", f"the newest backup is {hours / 24:.0f} days old ({at})", why, mend)
    else:
        yield Look("backup", "ok", f"the newest backup is of {at}")


def _lock(folder: DataFolder, holder: int | None) -> Look:
    if holder is None:
        return Look("processes", "skipped", "nothing runs on this data folder")
    return Look("processes", "ok", f"in use by process {holder or 'unknown'}")


async def health_of(folder: DataFolder, within_s: float = STARTING_SECONDS_MAX) -> dict[str, Any]:
    """What the console of a running installation says about it, once its parts have met or ``within_s`` are over.

    Raises:
        Unavailable: nobody answers, and not only because everything is starting.
        Failed: the question was refused.
    """
    # A stopped installation is looked at without an HTTP client.
    from faregate.cli.first_run import AdminApi

    api = AdminApi(folder)
    give_up_at = time.monotonic() + within_s
    while True:
        late = time.monotonic() >= give_up_at
        try:
            health: dict[str, Any] = await api.call("GET", "/health")
        except Unavailable as error:
            if late:
                raise Unavailable(f"{error.message}; waited {within_s:g} s for it") from error
        else:
            # A gate that answers and is not ready says why itself; one without an epoch was not reached.
            if late or health["gate"]["ok"] or "epoch" in health["gate"]:
                return health
        await asyncio.sleep(STARTING_RETRY_SECONDS)


def _running(folder: DataFolder, holder: int, loaded: Loaded | None) -> list[Look]:
    """What the running installation says about itself."""
    looks: list[Look] = []
    try:
        health = asyncio.run(health_of(folder))
    except FaregateError as error:
        why = "nothing can be changed or looked at, and calls are booked late"
        looks.append(Look("console", "failed", f"{folder.console_socket}: {error.message}", why, "see the log"))
        return [*looks, *asyncio.run(_ports_answer(folder, holder, loaded))]
    looks.append(Look("console", "ok", f"answers on {folder.console_socket}, version {health['version']}"))
    for part in ("books", "projector", "gate"):
        said: dict[str, Any] = health[part]
        detail = said.get("detail", "")
        if part == "gate" and said["ok"] and "connections" in said:
            detail = f"{said['connections']} connections, {said['open_exchanges']} open, {said['held']} dollars held"
        told = () if said["ok"] else (_WHY[part], "see the log")
        looks.append(Look(part, "ok" if said["ok"] else "failed", detail, *told))
    gate = health["gate"]
    if "backlog_bytes" in gate:
        looks.append(_backlog(gate["backlog_bytes"]))
    looks += [_resting(each) for each in gate.get("resting", ())]
    if gate.get("unknown_count"):
        looks.append(_unknowns(gate["unknown_count"], gate["unknown"]))
    looks += [*_lost_peppers(folder), *_cache(folder)]
    if "credentials" in health:
        looks.append(_credentials(health["credentials"]))
    # An installation of an older version has no alerts.
    if not health.get("alerts", {"ok": True})["ok"]:
        looks.append(Look("alerts", "warning", health["alerts"]["detail"]))
    return [*looks, *asyncio.run(_ports_answer(folder, holder, loaded))]


def _resting(told: dict[str, Any]) -> Look:
    if told["state"] == "probing":
        doing = "rests; one call tries whether it is well"
    elif told["wait_ms"]:
        doing = "rests; no call goes there"
    else:
        doing = "has rested; the next call that comes to it tries whether it is well"
    return Look(
        "deployment",
        "warning",
        f"{told['deployment']} failed too often and {doing}",
        "its calls go to the next deployment of their model, or are refused where there is none",
        f"it is tried again in {told['wait_ms'] / 1000:.0f} s; `faregate requests` lists what went wrong there",
    )


def _unknowns(count: int, dollars: str) -> Look:
    return Look(
        "unknowns",
        "warning",
        f"{count} calls whose outcome is not known, {dollars} dollars held",
        "their money is spent for limits until the provider says what it was, or `unknowns.ttl` ends them",
        "faregate requests --status unknown; declare providers[].lookup where a provider can be asked",
    )


def _lost_peppers(folder: DataFolder) -> list[Look]:
    """Keys of a running installation that no pepper opens; nothing where it does not tell."""
    from faregate.cli.client import connect

    try:
        with connect(folder.root) as client:
            rows = client.call("GET", "/peppers")["data"]
    except (FaregateError, KeyError, TypeError):
        return []
    lost = sum(row["keys"] for row in rows if row.get("id") is None and row.get("fingerprint"))
    if not lost:
        return [Look("peppers", "ok", "secrets and books belong together")]
    why = "whoever holds one of them is refused as unknown"
    mend = f"put their pepper back into {folder.secrets}, or rotate them: faregate key rotate ID"
    return [Look("peppers", "warning", f"{lost} keys fail: their pepper is not in {folder.secrets.name}", why, mend)]


def _cache(folder: DataFolder) -> list[Look]:
    """How a response cache on another server does; nothing of one that is the gate's own, or where nobody tells."""
    from faregate.cli.client import connect

    try:
        with connect(folder.root) as client:
            told = client.call("GET", "/cache")
    except FaregateError:
        return []
    if not told["enabled"] or told["store"] != "redis" or told["failures"] is None:
        return []
    if not told["failures"]:
        return [Look("cache", "ok", "its server has answered all that it was asked")]
    why = "such calls go to their provider, as if nothing were kept"
    mend = "look at cache.url and at its server; where it is slow, at cache.timeout"
    detail = f"its server failed {told['failures']} times since the gate started"
    return [Look("cache", "warning", detail, why, mend)]


def _credentials(told: dict[str, Any]) -> Look:
    """The credentials of providers that are fetched; a provider without one takes no calls."""
    if told["unreadable"]:
        why = f"calls to {', '.join(told['unreadable'])} are refused"
        mend = "bring back the secrets.json that they were stored with, or send each secret again"
        return Look("credentials", "failed", told["detail"], why, mend)
    lacking = [each["name"] for each in told["providers"] if not each["usable"]]
    if lacking:
        why = f"calls to {', '.join(lacking)} are refused"
        return Look("credentials", "failed", told["detail"], why, _MEND_CREDENTIAL)
    if not told["ok"]:
        why = "the one before is used until it ends; then calls are refused"
        return Look("credentials", "warning", told["detail"], why, _MEND_CREDENTIAL)
    return Look("credentials", "ok", f"{len(told['providers'])} fetched and in use")


def _backlog(size: int) -> Look:
    if size <= BACKLOG_BYTES_WORRYING:
        return Look("journal", "ok", f"{size} bytes are not in the books yet")
    why = "usage, reports and new limits lag behind, and at journal.backlog_max no calls are taken"
    return Look("journal", "warning", f"{size} bytes are not in the books yet", why, "see projection_waits in the log")


async def _ports_answer(folder: DataFolder, holder: int, loaded: Loaded | None) -> list[Look]:
    """Who reaches the addresses that the installation listens at, and whether they accept connections; where it did not
    say which these are, those of the configuration.
    """
    kept = await _told_listeners(folder, holder)
    listeners = kept or _configured(loaded)
    answering = [await _accepts(listener, "failed" if kept else "warning") for listener in listeners]
    return [*map(exposure.access, listeners), *answering]


async def _told_listeners(folder: DataFolder, holder: int) -> list[Listener]:
    """What ``serve`` wrote once everything listened, which may be a moment after the console answers."""
    give_up_at = time.monotonic() + LISTENERS_SECONDS_MAX
    while True:
        kept = read_listeners(folder, holder)
        if kept or time.monotonic() >= give_up_at:
            return kept
        await asyncio.sleep(STARTING_RETRY_SECONDS)


def _configured(loaded: Loaded | None) -> list[Listener]:
    if loaded is None:
        return []
    named = (("gateway", loaded.config.gateway), ("console", loaded.config.console))
    return [Listener(name, each.host, each.port, each.tls is not None) for name, each in named]


async def _accepts(listener: Listener, otherwise: str) -> Look:
    """Whether a listener accepts a connection; ``otherwise`` is the state of one that does not."""
    name, url = f"{listener.role} port", url_of(listener.host, listener.port, tls=listener.tls)
    try:
        async with asyncio.timeout(PROBE_SECONDS_MAX):
            _, writer = await asyncio.open_connection(listener.host, listener.port)
        writer.close()
    except OSError as error:
        why = "does not accept connections" if isinstance(error, ConnectionError) else str(error).lower()
        advice = "see the log" if otherwise == "failed" else "was it started on another port?"
        return Look(name, otherwise, f"{url}: {why or 'no answer'}; {advice}")
    return Look(name, "ok", f"{url} accepts connections")


def _stopped(folder: DataFolder, loaded: Loaded | None) -> Iterator[Look]:
    """What can be seen of an installation that does not run."""
    for listener in _configured(loaded):
        yield exposure.access(listener)
        try:
            check_address(listener.address)
            yield Look(f"{listener.role} port", "ok", f"{listener.port} is free")
        except FaregateError as error:
            yield Look(f"{listener.role} port", "failed", error.message)
    if folder.books.exists():
        from faregate.assembly.offline import look

        for name, state, detail in look(folder):
            yield Look(name, state, detail)
