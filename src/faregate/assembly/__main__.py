"""``python -m faregate.assembly gate|console|simulator``: one process of an installation.

Its settings come as one JSON line on standard input; its first word goes out as one on standard output.
"""

import errno
import os
import sys
from collections.abc import Callable

#: A configuration is at most 4 MiB of YAML; its JSON is not much larger.
_LINE_BYTES_MAX = 64 * 1024 * 1024

_INPUT, _OUTPUT = 0, 1


def main(arguments: list[str]) -> int:
    """Read the settings, build what is asked for and serve; returns the exit code."""
    from faregate.assembly.handover import encode, stillborn
    from faregate.errors import FaregateError, Unavailable

    runs: dict[str, Callable[[bytes], int]] = {"gate": _gate, "console": _console, "simulator": _simulator}
    run = runs.get(arguments[0]) if len(arguments) == 1 else None
    if run is None:
        print(f"usage: python -m faregate.assembly {'|'.join(runs)} < settings", file=sys.stderr)
        return 2
    line = _read_line(_INPUT)
    if not line:
        print("no settings came on standard input", file=sys.stderr)
        return 2
    try:
        return run(line)
    except FaregateError as error:
        failed = error
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        failed = Unavailable(f"{arguments[0]}: {error.strerror or error}", code="address_in_use")
    os.write(_OUTPUT, encode(stillborn(failed)) + b"\n")
    return failed.exit_code


def _read_line(descriptor: int) -> bytes:
    """The first line. Nothing follows it, so that reading in large parts takes nothing that another needs."""
    parts: list[bytes] = []
    size = 0
    while size < _LINE_BYTES_MAX:
        part = os.read(descriptor, 65_536)
        parts.append(part)
        size += len(part)
        if not part or part.endswith(b"\n"):
            return b"".join(parts)
    raise ValueError("the settings are too long")


def _gate(line: bytes) -> int:
    import msgspec

    from faregate import logs
    from faregate.assembly.gate import run_gate
    from faregate.config.folder import within_reach
    from faregate.config.settings import decode_settings

    settings = decode_settings(line)
    logs.configure("gate", settings.log_level, settings.log_format)
    settings = msgspec.structs.replace(settings, data_dir=within_reach(settings.data_dir))
    return run_gate(settings, _INPUT)


def _console(line: bytes) -> int:
    import msgspec

    from faregate import logs
    from faregate.assembly.console import run_console
    from faregate.assembly.handover import decode_console
    from faregate.config.folder import within_reach

    settings = decode_console(line)
    logs.configure("console", settings.log_level, settings.log_format)
    settings = msgspec.structs.replace(settings, data_dir=within_reach(settings.data_dir))
    return run_console(settings, _INPUT)


def _simulator(line: bytes) -> int:
    import signal
    import threading
    from pathlib import Path

    from faregate import logs
    from faregate.assembly.handover import Listening, decode_simulator, encode
    from faregate.simulator import Simulator, run

    settings = decode_simulator(line)
    logs.configure("simulator", settings.log_level, settings.log_format)

    def end_with_parent() -> None:
        while os.read(_INPUT, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    def say_listening(simulator: Simulator) -> None:
        # Only now, because before it the signal would not be taken as an order to end in order.
        threading.Thread(target=end_with_parent, daemon=True).start()
        os.write(_OUTPUT, encode(Listening(simulator.port)) + b"\n")

    run("127.0.0.1", settings.port, None, Path(settings.truth_file), ready=say_listening)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
