"""``faregate simulator``: the provider simulator alone, on loopback."""

from pathlib import Path
from typing import Annotated

import typer

from faregate.cli.output import Json, emit, emit_json, flush
from faregate.errors import Unavailable, UsageError
from faregate.supervise import Address, check_address

Port = Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port on 127.0.0.1; 0 takes a free one.")]
Script = Annotated[Path | None, typer.Option("--script", metavar="FILE", help="JSON list of rules for its answers.")]
Truth = Annotated[Path | None, typer.Option("--truth", metavar="FILE", help="Where to log what was served.")]

PORT_DEFAULT = 4010


def command(port: Port = PORT_DEFAULT, script: Script = None, truth: Truth = None, json: Json = False) -> int:
    """Run the provider simulator: it speaks OpenAI's and Azure's formats and logs the truth about every call."""
    from faregate.simulator import ScriptInvalid, Simulator, run

    if script is not None and not script.is_file():
        raise UsageError(f"--script: {script} is not a file", code="value")
    check_address(Address("simulator", "127.0.0.1", port))

    def ready(simulator: Simulator) -> None:
        if json:
            emit_json({"host": simulator.host, "port": simulator.port, "url": simulator.url})
        else:
            emit(f"simulator  {simulator.url}/v1   what it served: {simulator.url}/simulator/truth")
        flush()

    try:
        run("127.0.0.1", port, script, truth, ready=ready)
    except ScriptInvalid as error:
        raise UsageError(f"--script: {error}", code="value") from error
    except ValueError as error:
        raise UsageError(f"--truth: {error}", code="value") from error
    except OSError as error:
        raise Unavailable(f"the simulator cannot run: {(error.strerror or str(error)).lower()}") from error
    return 0
