"""The parts of an installation, ready for the supervisor: their roles, order and settings."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from faregate.assembly import handover
from faregate.config.folder import DataFolder
from faregate.config.gate import gate_settings, tls_settings
from faregate.config.load import Loaded
from faregate.config.secrets import Secrets
from faregate.supervise import CONSOLE_GRACE_S, GATE_GRACE_S, Part, Ports


class Wanted(NamedTuple):
    """What is to run, and where. A port of 0 takes a free one, and keeps it."""

    loaded: Loaded
    folder: DataFolder
    secrets: Secrets
    gateway_port: int
    console_port: int
    #: Port of the built-in provider, ``None`` where it is not wanted.
    simulator_port: int | None = None
    log_format: str = "json"


def parts_of(wanted: Wanted, url_of: Callable[[str, int, bool], str]) -> tuple[Part, ...]:
    """The parts in the order of their start; ``url_of`` makes a URL from host, port and whether it is TLS."""
    config = wanted.loaded.config
    level, style = config.logging.level, wanted.log_format

    def gate(ports: Ports) -> bytes:
        return _gate_line(wanted, ports)

    def console(ports: Ports) -> bytes:
        return handover.encode(console_settings(wanted, ports, url_of))

    drain_s = config.gateway.drain / 1000
    parts = [
        Part("gate", gate, drain_s + GATE_GRACE_S),
        Part("console", console, drain_s + CONSOLE_GRACE_S, () if wanted.gateway_port else ("gate",)),
    ]
    if wanted.simulator_port is not None:
        port = wanted.simulator_port
        truth = str(wanted.folder.root / "simulator-truth.jsonl")
        line = handover.encode(handover.SimulatorSettings(port, truth, level, style))
        parts.insert(0, Part("simulator", lambda _: line, drain_s + CONSOLE_GRACE_S))
    return tuple(parts)


def console_settings(wanted: Wanted, ports: Ports, url_of: Callable[[str, int, bool], str]) -> handover.ConsoleSettings:
    """What the console is told; ``ports`` are those that are known by then."""
    config = wanted.loaded.config
    gate_port = wanted.gateway_port or ports["gate"]
    return handover.ConsoleSettings(
        config=msgspec.Raw(config.model_dump_json().encode()),
        folder=str(wanted.loaded.folder),
        data_dir=str(wanted.folder.root),
        host=config.console.host,
        port=ports.get("console", wanted.console_port),
        gateway_url=url_of(config.gateway.host, gate_port, config.gateway.tls is not None),
        secrets=wanted.secrets,
        tls=tls_settings(config.console.tls, wanted.loaded.folder),
        log_level=config.logging.level,
        log_format=wanted.log_format,
        attached=True,
        gate=msgspec.Raw(_gate_line(wanted, ports)),
        references=tuple(sorted(wanted.loaded.references)),
    )


def _gate_line(wanted: Wanted, ports: Ports) -> bytes:
    config = wanted.loaded.config
    settings = gate_settings(config, wanted.loaded.folder, wanted.folder.root, wanted.secrets)
    port = ports.get("gate", wanted.gateway_port)
    return handover.encode(
        msgspec.structs.replace(
            settings, port=port, log_level=config.logging.level, log_format=wanted.log_format, attached=True
        )
    )
